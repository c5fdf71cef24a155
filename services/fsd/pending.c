/*
 * Writes from mappings that were answered before they are applied (design D4): the turns they take.
 *
 * Those of one inode are applied one after the other, as they were answered: two may be about the same page, and
 * what waits for locks or room may be overtaken.  Each lies in the item cache, with its bytes, from before
 * its answer until the transaction that applies it (mapped.c).
 */
#include "pending.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "data.h"
#include "op.h"

struct pending {
	struct pending *next;
	uint64_t ino;
	int err;
	struct pending_turn *first, **tail;	/* the first one is applied now */
	struct op *waiting;			/* for the last one's end */
};
static struct {
	pthread_mutex_t mutex;
	struct pending *list;	/* few files are written through mappings at once */
	uint64_t last_id;	/* of their rows in the item cache */
} pendings = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static struct pending *pending_find(uint64_t ino)
{
	struct pending *p = pendings.list;

	while (p && p->ino != ino)
		p = p->next;
	return p;
}

static void pending_forget(struct pending *p)
{
	struct pending **at = &pendings.list;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	free(p);
}

/* The mutex is held.  NULL: no memory. */
static struct pending *pending_find_or_make(uint64_t ino)
{
	struct pending *p = pending_find(ino);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (p) {
		p->ino = ino;
		p->tail = &p->first;
		p->next = pendings.list;
		pendings.list = p;
	}
	return p;
}

bool pending_is_there(uint64_t ino)
{
	struct pending *p;
	bool is_there;

	pthread_mutex_lock(&pendings.mutex);
	p = pending_find(ino);
	is_there = p && p->first;
	pthread_mutex_unlock(&pendings.mutex);
	return is_there;
}

bool pending_keeps_pages(uint64_t ino)
{
	const struct op *op;
	struct pending *p;

	pthread_mutex_lock(&pendings.mutex);
	p = pending_find(ino);
	for (op = p ? p->waiting : NULL; op && op->keeps_pages != ino; op = op->next)
		;
	pthread_mutex_unlock(&pendings.mutex);
	return op;
}

int pending_begin(uint64_t ino, struct pending_turn *t)
{
	struct pending *p;

	*t = (struct pending_turn){ 0 };
	pthread_mutex_lock(&pendings.mutex);
	p = pending_find_or_make(ino);
	if (p) {
		*p->tail = t;
		p->tail = &t->next;
	}
	pthread_mutex_unlock(&pendings.mutex);
	return p ? 0 : -ENOMEM;
}

static void wait_turn(struct op *op)
{
	struct pending_turn *t = op->need.ptr;
	bool is_first = true;

	op->cancel = NULL;
	pthread_mutex_lock(&pendings.mutex);
	for (struct pending *p = pendings.list; p; p = p->next) {
		for (struct pending_turn *x = p->first; x; x = x->next) {
			if (x == t)
				is_first = x == p->first;
		}
	}
	if (!is_first)
		t->op = op;
	pthread_mutex_unlock(&pendings.mutex);
	if (is_first)
		op_wake(op);
}

int pending_wait_turn(struct op *op, uint64_t ino, struct pending_turn *t)
{
	struct pending *p;
	bool is_first;

	pthread_mutex_lock(&pendings.mutex);
	p = pending_find(ino);
	is_first = p && p->first == t;
	pthread_mutex_unlock(&pendings.mutex);
	if (is_first)
		return 0;
	op->need.ptr = t;
	return op_park(op, wait_turn);
}

void pending_end(uint64_t ino, struct pending_turn *t, int err)
{
	struct op *wake = NULL, *next_op = NULL;
	struct pending_turn **at;
	struct pending *p;

	pthread_mutex_lock(&pendings.mutex);
	p = pending_find(ino);
	/* a file that is no more has no next fsync */
	if (err)
		p->err = err == -ESTALE ? 0 : err;
	for (at = &p->first; *at != t; at = &(*at)->next)
		;
	*at = t->next;
	if (!t->next)
		p->tail = at;
	if (p->first && at == &p->first) {
		next_op = p->first->op;
		p->first->op = NULL;
	} else if (!p->first) {
		wake = p->waiting;
		p->waiting = NULL;
		if (!p->err)
			pending_forget(p);
	}
	pthread_mutex_unlock(&pendings.mutex);
	if (next_op)
		op_wake(next_op);
	while (wake) {
		struct op *next = wake->next;

		wake->next = NULL;
		op_wake(wake);
		wake = next;
	}
}

static void pending_wait(struct op *op)
{
	struct pending *p;

	op->cancel = NULL;
	pthread_mutex_lock(&pendings.mutex);
	p = pending_find(op->need.page.ino);
	if (p && p->first) {
		op->next = p->waiting;
		p->waiting = op;
		op = NULL;
	}
	pthread_mutex_unlock(&pendings.mutex);
	if (op)
		op_wake(op);
}

int data_wait_pending(struct op *op, uint64_t ino, bool take_error)
{
	struct pending *p;
	int ret = 0;

	if (op->uses_nr)
		return 0;	/* they may be what the pending write waits for */
	pthread_mutex_lock(&pendings.mutex);
	p = pending_find(ino);
	if (p && p->first) {
		op->need.page.ino = ino;
		ret = op_park(op, pending_wait);
	} else if (p && take_error) {
		ret = p->err;
		pending_forget(p);
	}
	pthread_mutex_unlock(&pendings.mutex);
	return ret;
}

void pending_nobody_asks(uint64_t ino)
{
	struct pending *p;

	pthread_mutex_lock(&pendings.mutex);
	p = pending_find(ino);
	if (p && p->first)
		p->err = 0;
	else if (p)
		pending_forget(p);
	pthread_mutex_unlock(&pendings.mutex);
}

uint64_t pending_new_id(void)
{
	uint64_t id;

	pthread_mutex_lock(&pendings.mutex);
	id = ++pendings.last_id;
	pthread_mutex_unlock(&pendings.mutex);
	return id;
}

void pending_id_seen(uint64_t id)
{
	pthread_mutex_lock(&pendings.mutex);
	if (id > pendings.last_id)
		pendings.last_id = id;
	pthread_mutex_unlock(&pendings.mutex);
}
