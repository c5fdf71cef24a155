/*
 * The names that directories have had, as 32 bits of each one's hash.
 *
 * Promises: while a directory is known here, a hash that is not among its own belongs to no entry of
 * it, neither in the cache nor in any tree.  More may be here than there is: names that were removed,
 * and those of transactions that were given up.  Who asks for one of them reads items as ever.
 *
 * It is exact because a directory enters only when this mount makes it, with none, and leaves when
 * its lock does; meanwhile nobody else can add to it, and our own entries come here before their
 * transaction is committed.  So whoever has a snapshot with the entry also finds it here.
 *
 * Why: a name's items stand in the order of hashes.  A directory that outgrew the item cache would
 * have to be read at each create, from a leaf that no earlier one has asked for, to see that the name
 * is not there.  Four to seven bytes a name keep that answer.  What it may take is bounded: then
 * directories that nobody asked for go first.  Nothing outlives the process.
 */
#include "names.h"

#include <errno.h>
#include <stdlib.h>

#include "items_impl.h"

#define NAMES_BUCKETS	16384u
#define NAMES_FIRST	14u	/* slots of a directory, at first */
/* A lock over more inodes than this: all directories are looked at instead. */
#define NAMES_DROP_MAX	65536u

struct names_dir {
	struct names_dir *next;
	uint64_t dir;
	uint32_t nr, slots_nr;
	bool is_recent;
	uint32_t *slots;	/* 0: free */
};

struct names {
	pthread_mutex_t lock;
	size_t bytes, bytes_max, dirs_nr;
	unsigned hand;
	struct names_dir *buckets[NAMES_BUCKETS];
};

int names_open(struct names **out, size_t bytes)
{
	struct names *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	pthread_mutex_init(&n->lock, NULL);
	n->bytes_max = bytes;
	*out = n;
	return 0;
}

static size_t dir_bytes(const struct names_dir *d)
{
	return sizeof(*d) + d->slots_nr * sizeof(d->slots[0]);
}

static void forget(struct names *n, struct names_dir **at)
{
	struct names_dir *d = *at;

	*at = d->next;
	n->bytes -= dir_bytes(d);
	n->dirs_nr--;
	free(d->slots);
	free(d);
}

void names_close(struct names *n)
{
	if (!n)
		return;
	for (unsigned i = 0; i < NAMES_BUCKETS; i++) {
		while (n->buckets[i])
			forget(n, &n->buckets[i]);
	}
	pthread_mutex_destroy(&n->lock);
	free(n);
}

static struct names_dir **find(struct names *n, uint64_t dir)
{
	struct names_dir **at = &n->buckets[dir * 0x9e3779b97f4a7c15ull >> 50];

	static_assert(NAMES_BUCKETS == 1u << 14, "14 bits of hash");
	while (*at && (*at)->dir != dir)
		at = &(*at)->next;
	return at;
}

static uint32_t mark_of(uint64_t hash)
{
	uint32_t mark = (uint32_t)(hash * 0x9e3779b97f4a7c15ull >> 32);

	return mark ? mark : 1;
}

/* The slot that holds mark, or the free one where it would be.  There is always a free one. */
static uint32_t *slot_of(uint32_t *slots, uint32_t slots_nr, uint32_t mark)
{
	uint32_t i = (uint32_t)((uint64_t)mark * slots_nr >> 32);

	while (slots[i] && slots[i] != mark)
		i = i + 1 < slots_nr ? i + 1 : 0;
	return &slots[i];
}

/* At most three quarters of the slots are taken.  False: no memory, or too many. */
static bool make_slot(struct names *n, struct names_dir *d)
{
	uint64_t more = d->slots_nr + d->slots_nr / 2 + NAMES_FIRST;
	uint32_t *slots;

	if ((uint64_t)d->nr + 1 <= d->slots_nr / 4 * 3)
		return true;
	if (more > UINT32_MAX / 2)
		return false;
	slots = calloc(more, sizeof(*slots));
	if (!slots)
		return false;
	for (uint32_t i = 0; i < d->slots_nr; i++) {
		if (d->slots[i])
			*slot_of(slots, (uint32_t)more, d->slots[i]) = d->slots[i];
	}
	free(d->slots);
	n->bytes -= dir_bytes(d);
	d->slots = slots;
	d->slots_nr = (uint32_t)more;
	n->bytes += dir_bytes(d);
	return true;
}

/* One round lets go what nobody has asked for since the last. */
static void shrink(struct names *n)
{
	for (unsigned i = 0; n->bytes > n->bytes_max && i < 2 * NAMES_BUCKETS; i++) {
		struct names_dir **at = &n->buckets[n->hand];

		while (*at) {
			if ((*at)->is_recent) {
				(*at)->is_recent = false;
				at = &(*at)->next;
			} else {
				forget(n, at);
			}
		}
		n->hand = (n->hand + 1) % NAMES_BUCKETS;
	}
}

void names_begin(struct fsd *fsd, uint64_t dir)
{
	struct names *n = fsd->items->names;
	struct names_dir **at, *d;

	pthread_mutex_lock(&n->lock);
	at = find(n, dir);
	d = *at ? NULL : calloc(1, sizeof(*d));
	if (d) {
		d->dir = dir;
		d->is_recent = true;
		*at = d;
		n->dirs_nr++;
		n->bytes += dir_bytes(d);
		shrink(n);
	}
	pthread_mutex_unlock(&n->lock);
}

void names_add(struct fsd *fsd, uint64_t dir, uint64_t hash)
{
	struct names *n = fsd->items->names;
	uint32_t mark = mark_of(hash), *slot;
	struct names_dir **at, *d;

	pthread_mutex_lock(&n->lock);
	at = find(n, dir);
	d = *at;
	if (d && !make_slot(n, d)) {
		forget(n, at);
	} else if (d) {
		d->is_recent = true;
		slot = slot_of(d->slots, d->slots_nr, mark);
		d->nr += !*slot;
		*slot = mark;
		shrink(n);
	}
	pthread_mutex_unlock(&n->lock);
}

bool names_are_known(struct fsd *fsd, uint64_t dir)
{
	struct names *n = fsd->items->names;
	bool known;

	pthread_mutex_lock(&n->lock);
	known = *find(n, dir);
	pthread_mutex_unlock(&n->lock);
	return known;
}

bool names_lack(struct fsd *fsd, uint64_t dir, uint64_t hash)
{
	struct names *n = fsd->items->names;
	struct names_dir *d;
	bool lacks = false;

	pthread_mutex_lock(&n->lock);
	d = *find(n, dir);
	if (d) {
		d->is_recent = true;
		lacks = !d->nr || !*slot_of(d->slots, d->slots_nr, mark_of(hash));
	}
	pthread_mutex_unlock(&n->lock);
	return lacks;
}

static bool is_within(uint64_t dir, const struct key *start, const struct key *end)
{
	return dir >= start->first && dir <= end->first;
}

void names_drop(struct names *n, const struct key *start, const struct key *end)
{
	struct names_dir **at;

	if (start->zone > ZONE_FS || end->zone < ZONE_FS)
		return;
	pthread_mutex_lock(&n->lock);
	if (start->zone == ZONE_FS && end->zone == ZONE_FS && end->first - start->first < NAMES_DROP_MAX) {
		for (uint64_t dir = start->first; is_within(dir, start, end); dir++) {
			at = find(n, dir);
			if (*at)
				forget(n, at);
			if (dir == UINT64_MAX)
				break;
		}
	} else {
		for (unsigned i = 0; i < NAMES_BUCKETS; i++) {
			while (n->buckets[i])
				forget(n, &n->buckets[i]);
		}
	}
	pthread_mutex_unlock(&n->lock);
}

size_t names_dirs(struct names *n)
{
	size_t nr;

	pthread_mutex_lock(&n->lock);
	nr = n->dirs_nr;
	pthread_mutex_unlock(&n->lock);
	return nr;
}
