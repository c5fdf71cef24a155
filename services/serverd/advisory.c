/*
 * Advisory locks on the server.
 *
 * Promises: what the machine decides is done in its order, at the end of the entry that led to it
 * (server_perform), because some of it leads back into the machine.  A mount that does not know the question
 * what its programs hold never asked for locks and has none; one that fails to answer it is given up.
 */
#include "advisory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

static_assert(ADVFSM_POSIX == (int)MSG_ADV_POSIX && ADVFSM_FLOCK == (int)MSG_ADV_FLOCK, "as on the wire");
static_assert(ADV_UNLOCK == (int)MSG_ADV_UNLOCK && ADV_READ == (int)MSG_ADV_READ &&
	      ADV_WRITE == (int)MSG_ADV_WRITE, "as on the wire");
static_assert(ADVFSM_GRANTED == (int)MSG_ADV_GRANTED && ADVFSM_LIMIT == (int)MSG_ADV_LIMIT, "as on the wire");

struct advisory {
	struct advfsm *fsm;
	struct advfsm_act *acts;
	size_t acts_nr, acts_max;
};

static void emit(void *arg, const struct advfsm_act *act)
{
	struct server *s = arg;
	struct advisory *a = s->advisory;

	if (a->acts_nr == a->acts_max) {
		size_t max = a->acts_max ? a->acts_max * 2 : 256;
		struct advfsm_act *acts = realloc(a->acts, max * sizeof(*acts));

		if (!acts) {
			server_fail(s, -ENOMEM, "an advisory lock could not be answered");
			return;
		}
		a->acts = acts;
		a->acts_max = max;
	}
	a->acts[a->acts_nr++] = *act;
}

int advisory_open(struct server *s)
{
	struct advfsm_ops ops = { s, emit };
	struct advisory *a = calloc(1, sizeof(*a));
	int ret = a ? advfsm_open(&a->fsm, &ops) : -ENOMEM;

	if (ret < 0) {
		free(a);
		return ret;
	}
	s->advisory = a;
	return 0;
}

void advisory_close(struct server *s)
{
	struct advisory *a = s->advisory;

	if (!a)
		return;
	advfsm_close(a->fsm);
	free(a->acts);
	free(a);
	s->advisory = NULL;
}

void advisory_request(struct server *s, uint64_t rid, uint64_t handle, unsigned type, const void *msg)
{
	struct advfsm_event ev = { .rid = rid, .handle = handle };
	const struct msg_adv_lock *l = msg;
	const struct msg_adv_test *t = msg;
	const struct msg_adv_cancel *c = msg;
	int ret;

	stats_inc(&s->conf.stats->requests_advisory);
	switch (type) {
	case MSG_adv_lock:
		ev.kind = ADVFSM_LOCK;
		ev.number = l->number;
		ev.wait = l->wait;
		ev.lock = (struct advfsm_lock){ .ino = l->ino, .owner = l->owner, .first = l->first,
						.last = l->last, .pid = l->pid, .kind = l->kind,
						.type = l->type };
		break;
	case MSG_adv_test:
		ev.kind = ADVFSM_TEST;
		ev.lock = (struct advfsm_lock){ .ino = t->ino, .owner = t->owner, .first = t->first,
						.last = t->last, .kind = t->kind, .type = t->type };
		break;
	default:
		ev.kind = ADVFSM_CANCEL;
		ev.number = c->number;
		break;
	}
	ret = advfsm_step(s->advisory->fsm, &ev);
	/* A cancel is heard; what becomes of the request is its own answer. */
	if (ret < 0 || ev.kind == ADVFSM_CANCEL)
		server_respond(s, rid, handle, ret, msg_reply_type(type), NULL);
}

void advisory_told(struct server *s, struct client *c, int err, const struct msg_adv_recover_reply *m)
{
	static struct advfsm_lock told[ADV_RECOVER_MAX];	/* the loop's */
	struct advfsm_event ev = { .kind = ADVFSM_TOLD, .rid = c->info.rid, .told = told, .is_last = true };
	int ret;

	if (err < 0 && err != -EOPNOTSUPP) {
		stats_inc(&s->conf.stats->answers_bad);
		log_err("mount %016llx cannot say which advisory locks its programs hold (%s): it is "
			"given up", (unsigned long long)c->info.rid, strerror(-err));
		client_fence(s, c, "it did not tell its advisory locks");
		return;
	}
	if (err == 0) {
		if (m->round == 0)
			return;		/* never asked in that */
		ev.round = m->round;
		ev.is_last = m->is_last;
		ev.told_nr = m->locks_nr;
	}
	for (size_t i = 0; i < ev.told_nr; i++) {
		const struct msg_adv_held *h = &m->locks[i];

		told[i] = (struct advfsm_lock){ .ino = h->ino, .owner = h->owner, .first = h->first,
						.last = h->last, .pid = h->pid, .kind = h->kind,
						.type = h->type };
	}
	ret = advfsm_step(s->advisory->fsm, &ev);
	if (ret < 0)
		server_fail(s, ret, "a mount's advisory locks could not be taken over");
}

void advisory_note(struct server *s, enum advfsm_event_kind kind, uint64_t rid)
{
	struct advfsm_event ev = { .kind = kind, .rid = rid };
	int ret = advfsm_step(s->advisory->fsm, &ev);

	if (ret < 0)
		server_fail(s, ret, "the advisory locks of a mount could not be taken note of");
}

bool advisory_waits_for(const struct server *s, uint64_t rid)
{
	return advfsm_waits_for(s->advisory->fsm, rid);
}

void advisory_stats(const struct server *s, struct advfsm_stats *st)
{
	advfsm_get_stats(s->advisory->fsm, st);
}

static void perform(struct server *s, const struct advfsm_act *act)
{
	const struct advfsm_lock *l = &act->lock;
	struct msg_adv_lock_reply locked = { .status = (uint8_t)act->status };
	struct msg_adv_test_reply tested = { .type = l->type, .first = l->first, .last = l->last,
					     .rid = act->holder, .pid = l->pid };
	struct msg_adv_recover recover = { .round = act->round, .from_start = act->from_start,
					   .ino = l->ino, .kind = l->kind, .owner = l->owner,
					   .after = l->last };
	struct client *c;

	switch (act->kind) {
	case ADVFSM_ANSWER:
		server_respond(s, act->rid, act->handle, 0, MSG_adv_lock_reply, &locked);
		break;
	case ADVFSM_TESTED:
		server_respond(s, act->rid, act->handle, 0, MSG_adv_test_reply, &tested);
		break;
	case ADVFSM_ASK:
		server_ask(s, act->rid, MSG_adv_recover, &recover, 0);
		break;
	case ADVFSM_LIED:
		c = client_find(s, act->rid);
		if (c && !c->is_fenced)
			client_fence(s, c, "it told of advisory locks that it cannot have");
		break;
	case ADVFSM_CONFLICT:
		stats_inc(&s->conf.stats->advisory_conflicts);
		log_err("mount %016llx told of %s lock of inode %llu, bytes %llu to %llu, which another "
			"has: that program has lost it and does not know", (unsigned long long)act->rid,
			l->kind == ADVFSM_FLOCK ? "an flock" : "a POSIX", (unsigned long long)l->ino,
			(unsigned long long)l->first, (unsigned long long)l->last);
		break;
	case ADVFSM_ALL_DONE:
		log_debug("all advisory locks of the mounts are known");
		break;
	}
}

void advisory_perform(struct server *s)
{
	struct advisory *a = s->advisory;

	for (size_t i = 0; i < a->acts_nr; i++) {
		struct advfsm_act act = a->acts[i];	/* the array may move */

		perform(s, &act);
	}
	a->acts_nr = 0;
}
