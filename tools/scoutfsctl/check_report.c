/*
 * Messages of the checker.  Each kind (severity and invariant) is given in full CHECK_SHOWN_MAX
 * times and only counted after that, so that a ruined volume gives an answer that can be read.  A
 * path is looked up only for messages that are shown: it costs reads.
 */
#include "check_volume.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void give(struct check *ck, enum check_severity severity, unsigned invariant,
		 const struct check_where *at, const char *fmt, va_list ap)
{
	char text[768];
	char path[PATH_MAX];
	struct check_message m = {
		.severity = severity,
		.invariant = invariant,
		.ino = at->ino,
		.blkno = at->blkno,
		.key = at->key,
		.text = text,
	};

	if (!ck->message)
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	if (at->ino && !check_path(ck, at->ino, path, sizeof(path)))
		m.path = path;
	ck->message(ck->message_arg, &m);
}

void check_find(struct check *ck, unsigned invariant, const struct check_where *at, const char *fmt,
		...)
{
	va_list ap;

	assert(invariant >= 1 && invariant <= CHECK_INVARIANTS_NR);
	/* Once something of ours has failed, what seems to be missing may be only that. */
	if (ck->err || ck->findings_nr[invariant]++ >= CHECK_SHOWN_MAX)
		return;
	va_start(ap, fmt);
	give(ck, CHECK_FINDING, invariant, at, fmt, ap);
	va_end(ap);
}

void check_warn(struct check *ck, unsigned invariant, const struct check_where *at, const char *fmt,
		...)
{
	va_list ap;

	assert(invariant >= 1 && invariant <= CHECK_INVARIANTS_NR);
	if (ck->err || ck->warnings_nr[invariant]++ >= CHECK_SHOWN_MAX)
		return;
	va_start(ap, fmt);
	give(ck, CHECK_WARNING, invariant, at, fmt, ap);
	va_end(ap);
}

void check_note(struct check *ck, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	give(ck, CHECK_NOTE, 0, NOWHERE, fmt, ap);
	va_end(ap);
}

void check_progress(struct check *ck, const char *phase, uint64_t done, uint64_t total)
{
	if (ck->progress)
		ck->progress(ck->progress_arg, phase, done, total);
}

void vec_push(struct check *ck, struct vec *v, const void *elem, size_t size)
{
	if (v->nr == v->cap) {
		size_t cap = v->cap ? v->cap * 2 : 64;
		void *p = reallocarray(v->p, cap, size);

		if (!p) {
			if (!ck->err)
				ck->err = -ENOMEM;
			return;
		}
		v->p = p;
		v->cap = cap;
	}
	memcpy((char *)v->p + v->nr * size, elem, size);
	v->nr++;
}

void vec_free(struct vec *v)
{
	free(v->p);
	*v = (struct vec){ 0 };
}
