/*
 * Ranges of an owner: a sorted array.
 *
 * Promises: ranges do not overlap; two that touch are of different types; a change is done whole or not
 * at all.  Setting replaces whatever lies under the new range, keeps what sticks out of it on either
 * side, and joins it with neighbours of its type.
 */
#include "advisory/adv_ranges.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_MAX	4u

/* The first range that ends at or after `at`. */
static uint32_t find(const struct adv_ranges *r, uint64_t at)
{
	uint32_t lo = 0, hi = r->nr;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (r->v[mid].last < at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int reserve(struct adv_ranges *r, uint32_t nr)
{
	uint32_t max = r->max ? r->max : FIRST_MAX;
	struct adv_range *v;

	if (nr <= r->max)
		return 0;
	while (max < nr)
		max *= 2;
	v = realloc(r->v, max * sizeof(*v));
	if (!v)
		return -ENOMEM;
	r->v = v;
	r->max = max;
	return 0;
}

int adv_ranges_set(struct adv_ranges *r, uint64_t first, uint64_t last, uint8_t type, uint32_t limit)
{
	struct adv_range mid = { first, last, type }, put[3];
	uint32_t i = find(r, first), j = i, put_nr = 0, nr;
	struct adv_range left, right;
	bool has_left, has_right;
	int ret;

	assert(first <= last);
	while (j < r->nr && r->v[j].first <= last)
		j++;
	/* What sticks out on either side: of one and the same range, perhaps. */
	has_left = i < j && r->v[i].first < first;
	has_right = i < j && r->v[j - 1].last > last;
	if (has_left)
		left = (struct adv_range){ r->v[i].first, first - 1, r->v[i].type };
	if (has_right)
		right = (struct adv_range){ last + 1, r->v[j - 1].last, r->v[j - 1].type };
	/* Nothing under it sticks out: then a neighbour may touch it. */
	if (!has_left && i > 0 && r->v[i - 1].last == first - 1 && r->v[i - 1].type == type) {
		i--;
		mid.first = r->v[i].first;
	}
	if (!has_right && j < r->nr && r->v[j].first - 1 == last && r->v[j].type == type) {
		mid.last = r->v[j].last;
		j++;
	}
	if (has_left && left.type == type) {
		mid.first = left.first;
		has_left = false;
	}
	if (has_right && right.type == type) {
		mid.last = right.last;
		has_right = false;
	}
	if (has_left)
		put[put_nr++] = left;
	if (type != ADV_UNLOCK)
		put[put_nr++] = mid;
	if (has_right)
		put[put_nr++] = right;

	nr = r->nr - (j - i) + put_nr;
	if (nr > r->nr && nr > limit)
		return -ENOLCK;
	ret = reserve(r, nr);
	if (ret < 0)
		return ret;
	if (r->nr > j)
		memmove(&r->v[i + put_nr], &r->v[j], (r->nr - j) * sizeof(r->v[0]));
	for (uint32_t k = 0; k < put_nr; k++)
		r->v[i + k] = put[k];
	r->nr = nr;
	return 0;
}

const struct adv_range *adv_ranges_conflict(const struct adv_ranges *r, uint64_t first, uint64_t last,
					    uint8_t type)
{
	for (uint32_t i = find(r, first); i < r->nr && r->v[i].first <= last; i++) {
		if (type == ADV_WRITE || r->v[i].type == ADV_WRITE)
			return &r->v[i];
	}
	return NULL;
}

bool adv_ranges_have(const struct adv_ranges *r, uint64_t first, uint64_t last, uint8_t type)
{
	uint32_t i = find(r, first);

	/* Ranges of one type that touch are one. */
	return i < r->nr && r->v[i].first <= first && r->v[i].last >= last && r->v[i].type == type;
}

bool adv_ranges_cover(const struct adv_ranges *r, uint64_t first, uint64_t last)
{
	for (uint32_t i = find(r, first); i < r->nr && r->v[i].first <= first; i++) {
		if (r->v[i].last >= last)
			return true;
		first = r->v[i].last + 1;
	}
	return false;
}

void adv_ranges_clear(struct adv_ranges *r)
{
	free(r->v);
	*r = (struct adv_ranges){ 0 };
}
