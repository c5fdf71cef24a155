/*
 * Rounds of the open-inode map.
 *
 * Promises: a request is answered once, when every rid that was a member at its start, but for the one
 * who asks, has answered or is gone; the answer has every bit that any of them had set.  Nothing
 * starts before everybody who may be a member has been heard of (the gate).
 *
 * A round that cannot be finished for want of memory is never begun.  Answers carry the round's id, so a
 * late one cannot count for another round.
 */
#include "omap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/planted.h"
struct round {
	struct round *next;
	uint64_t id;
	uint64_t rid;		/* who asked */
	uint64_t handle;
	uint64_t group;
	bool has_directories;
	uint8_t bits[OMAP_BYTES];
	bool started;
	size_t waits_nr;
	uint64_t *waits;	/* members that have not answered */
};

struct omap {
	struct omap_ops ops;
	uint64_t *members;
	size_t members_nr, members_max;
	struct round *rounds;	/* in order of arrival */
	size_t rounds_nr;
	uint64_t last_id;
	bool gated;
};

static size_t find(const uint64_t *rids, size_t nr, uint64_t rid)
{
	size_t i = 0;

	while (i < nr && rids[i] != rid)
		i++;
	return i;
}

static void round_free(struct omap *o, struct round **at)
{
	struct round *r = *at;

	*at = r->next;
	o->rounds_nr--;
	free(r->waits);
	free(r);
}

/* Answer and forget the round if nobody is waited for; whether it is gone. */
static bool round_finish(struct omap *o, struct round **at)
{
	struct round *r = *at;
	struct omap_act act = { .kind = OMAP_ANSWER, .rid = r->rid, .group = r->group, .id = r->id,
				.handle = r->handle, .bits = r->bits };

	if (!r->started || r->waits_nr > 0)
		return false;
	o->ops.emit(o->ops.arg, &act);
	round_free(o, at);
	return true;
}

/* Take the members of this moment as who must answer.  -ENOMEM. */
static int round_start(struct omap *o, struct round *r)
{
	r->waits = malloc((o->members_nr + 1) * sizeof(*r->waits));
	if (!r->waits)
		return -ENOMEM;
	for (size_t i = 0; i < o->members_nr; i++) {
		struct omap_act act = { .kind = OMAP_ASK, .rid = o->members[i], .group = r->group,
					.id = r->id, .has_directories = r->has_directories };

		if (o->members[i] == r->rid)
			continue;
		r->waits[r->waits_nr++] = o->members[i];
		o->ops.emit(o->ops.arg, &act);
	}
	r->started = true;
	return 0;
}

int omap_open(struct omap **out, const struct omap_ops *ops)
{
	struct omap *o = calloc(1, sizeof(*o));

	if (!o)
		return -ENOMEM;
	o->ops = *ops;
	*out = o;
	return 0;
}

void omap_close(struct omap *o)
{
	if (!o)
		return;
	while (o->rounds)
		round_free(o, &o->rounds);
	free(o->members);
	free(o);
}

int omap_add_member(struct omap *o, uint64_t rid)
{
	if (find(o->members, o->members_nr, rid) < o->members_nr)
		return 0;
	if (o->members_nr == o->members_max) {
		size_t max = o->members_max ? o->members_max * 2 : 16;
		uint64_t *members = realloc(o->members, max * sizeof(*members));

		if (!members)
			return -ENOMEM;
		o->members = members;
		o->members_max = max;
	}
	o->members[o->members_nr++] = rid;
	return 0;
}

static void round_unwait(struct round *r, uint64_t rid)
{
	size_t i = find(r->waits, r->waits_nr, rid);

	if (i < r->waits_nr)
		r->waits[i] = r->waits[--r->waits_nr];
}

void omap_drop_rid(struct omap *o, uint64_t rid)
{
	size_t i = find(o->members, o->members_nr, rid);
	struct round **at = &o->rounds;

	if (i < o->members_nr)
		o->members[i] = o->members[--o->members_nr];
	while (*at) {
		if ((*at)->rid == rid) {
			round_free(o, at);
			continue;
		}
		round_unwait(*at, rid);
		if (!round_finish(o, at))
			at = &(*at)->next;
	}
}

void omap_set_gate(struct omap *o, bool gated)
{
	struct round **at = &o->rounds;

	o->gated = gated;
	if (gated)
		return;
	while (*at) {
		struct round *r = *at;

		/* Without memory to ask, "everything is in use" delays deletions and is never wrong. */
		if (!r->started && round_start(o, r) < 0) {
			memset(r->bits, 0xff, sizeof(r->bits));
			r->started = true;
		}
		if (!round_finish(o, at))
			at = &r->next;
	}
}

int omap_request(struct omap *o, uint64_t rid, uint64_t handle, uint64_t group, bool has_directories)
{
	struct round **at = &o->rounds;
	struct round *r;

	for (; *at; at = &(*at)->next) {
		if ((*at)->rid == rid && (*at)->handle == handle)
			return 0;
	}
	if (o->rounds_nr >= OMAP_ROUNDS_MAX)
		return -EBUSY;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->id = ++o->last_id;
	r->rid = rid;
	r->handle = handle;
	r->group = group;
	r->has_directories = has_directories;
	if ((!o->gated || PLANTED(map_before_everybody_is_back)) && round_start(o, r) < 0) {
		free(r);
		return -ENOMEM;
	}
	*at = r;
	o->rounds_nr++;
	round_finish(o, at);
	return 0;
}

bool omap_response(struct omap *o, uint64_t rid, uint64_t id, const uint8_t bits[OMAP_BYTES])
{
	struct round **at = &o->rounds;

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	if (!*at || find((*at)->waits, (*at)->waits_nr, rid) == (*at)->waits_nr)
		return false;
	for (unsigned i = 0; i < OMAP_BYTES; i++)
		(*at)->bits[i] |= bits[i];
	round_unwait(*at, rid);
	round_finish(o, at);
	return true;
}

size_t omap_rounds_nr(const struct omap *o)
{
	return o->rounds_nr;
}
