/*
 * What the server's part of a log merge decides, apart from the trees it decides about.
 * runtime.md 7.3; format.md 14.1, 14.2.
 */
#include "merge/merge_server.h"

enum merge_next merge_decide(const struct merge_status *st, const struct merge_range *ranges,
			     size_t nr, size_t *pick)
{
	const struct key ones = KEY_ONES;
	bool found = false;

	/* At the greatest key the last parent is taken: whatever begins there shares it. */
	for (size_t i = 0; i < nr && !key_eq(&st->next_range_key, &ones); i++) {
		if (key_cmp(&ranges[i].start, &st->next_range_key) < 0)
			continue;
		if (!found || key_cmp(&ranges[i].start, &ranges[*pick].start) < 0)
			*pick = i;
		found = true;
	}
	if (st->nr_requests == 0 && (!found || st->nr_complete >= MERGE_BATCH))
		return MERGE_NEXT_SPLICE;
	/* Each summand is checked on its own: they were read from a device. */
	if (!found || st->nr_requests >= MERGE_BATCH || st->nr_complete >= MERGE_BATCH ||
	    st->nr_requests + st->nr_complete >= MERGE_BATCH)
		return MERGE_NEXT_NOTHING;
	return MERGE_NEXT_HAND_OUT;
}

static bool is_taken(const struct merge_range *ranges, size_t nr, const struct key *start)
{
	struct key a = *start, b;

	a.zone = 0;
	for (size_t i = 0; i < nr; i++) {
		b = ranges[i].start;
		b.zone = 0;
		if (key_eq(&a, &b))
			return true;
	}
	return false;
}

bool merge_place_start(const struct merge_range *ranges, size_t nr, const struct key *lo,
		       const struct key *want, const struct key *hi, struct key *start)
{
	struct key k = *want;

	for (size_t i = 0; i <= nr; i++, k = key_next(k)) {
		*start = k;
		if (!is_taken(ranges, nr, &k))
			return true;
		if (key_cmp(&k, hi) >= 0)
			break;
	}
	k = *want;
	for (size_t i = 0; i <= nr; i++, k = key_prev(k)) {
		*start = k;
		if (!is_taken(ranges, nr, &k))
			return true;
		if (key_cmp(&k, lo) <= 0)
			break;
	}
	return false;
}
