/*
 * Directories: invariants 21 and 22.  Dirent and readdir items of a directory are compared when
 * the directory ends; dirents and backrefs, which lie under different inodes, are gathered as 40
 * bytes each and compared sorted by (inode, directory, position) at the end, beside the inodes
 * themselves.  "Equal values" means equal inode, type and 64-bit hash of all bytes; names themselves
 * are looked up again for messages only.
 */
#include "check_volume.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "csum/csum.h"

struct name {
	uint8_t len;
	uint8_t bytes[NAME_MAX_BYTES];
};

struct check_dir {
	struct check *ck;
	struct sorter entries; /* struct check_link of the dirent items */
	struct sorter readdirs;
	struct vec names; /* struct name of the current hash */
	uint64_t hash;
	uint64_t name_bytes; /* sum of name lengths */
	uint64_t subdirs;
	uint64_t pos_max;
	uint64_t backrefs;
};

static int cmp_pos(const void *a, const void *b)
{
	const struct check_link *x = a, *y = b;

	return x->pos < y->pos ? -1 : x->pos > y->pos;
}

struct check_dir *check_dir_alloc(struct check *ck)
{
	struct check_dir *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->ck = ck;
	sorter_init(&d->entries, sizeof(struct check_link), cmp_pos);
	sorter_init(&d->readdirs, sizeof(struct check_link), cmp_pos);
	return d;
}

void check_dir_free(struct check_dir *d)
{
	if (!d)
		return;
	sorter_fini(&d->entries);
	sorter_fini(&d->readdirs);
	vec_free(&d->names);
	free(d);
}

static void check_name(struct check_dir *d, const struct item *it, const struct disk_dirent *de)
{
	struct name name = { .len = (uint8_t)(it->val_len - sizeof(*de)) };

	memcpy(name.bytes, de->name, name.len);
	if (it->key.second != d->hash)
		d->names.nr = 0;
	d->hash = it->key.second;
	for (size_t i = 0; i < d->names.nr; i++) {
		const struct name *n = VEC_AT(&d->names, struct name, i);

		if (n->len == name.len && !memcmp(n->bytes, name.bytes, name.len))
			check_find(d->ck, 21, AT_ITEM(it->key.first, &it->key),
				   "two entries have the same name");
	}
	vec_push(d->ck, &d->names, &name, sizeof(name));
}

void check_dir_item(struct check_dir *d, const struct item *it)
{
	const struct disk_dirent *de = it->val;
	struct check_link l = { .pos = le64_get(de->pos),
				.ino = le64_get(de->ino),
				.type = de->type,
				.digest = hash64(it->val, it->val_len) };

	switch (it->key.type) {
	case TYPE_DIRENT:
		l.dir = it->key.first;
		check_name(d, it, de);
		d->name_bytes += it->val_len - sizeof(*de);
		d->subdirs += de->type == DIRENT_DIR;
		if (l.pos > d->pos_max)
			d->pos_max = l.pos;
		sorter_add(d->ck, &d->entries, &l);
		break;
	case TYPE_READDIR:
		l.dir = it->key.first;
		sorter_add(d->ck, &d->readdirs, &l);
		break;
	default:
		l.dir = it->key.second;
		d->backrefs++;
		sorter_add(d->ck, &d->ck->backrefs, &l);
		break;
	}
}

/* The entries and the readdir items by position; the entries go on to be compared with backrefs. */
static void check_readdirs(struct check_dir *d, uint64_t ino)
{
	struct check *ck = d->ck;
	const struct check_link *x, *y;
	bool has_last = false;
	uint64_t last = 0;

	sorter_rewind(ck, &d->entries);
	sorter_rewind(ck, &d->readdirs);
	for (;;) {
		struct key key;
		int cmp;

		x = sorter_peek(&d->entries);
		y = sorter_peek(&d->readdirs);
		if (!x && !y)
			break;
		if (x && has_last && x->pos == last) {
			check_find(ck, 21, AT_INO(ino), "two entries at position %" PRIu64, x->pos);
			sorter_add(ck, &ck->dirents, x);
			sorter_next(ck, &d->entries);
			continue;
		}
		cmp = !x ? 1 : !y ? -1 : cmp_pos(x, y);
		if (cmp < 0) {
			key = key_readdir(ino, x->pos);
			check_find(ck, 21, AT_ITEM(ino, &key),
				   "the entry at position %" PRIu64 " (inode %" PRIu64
				   ") has no readdir item: listings do not show it",
				   x->pos, x->ino);
		} else if (cmp > 0) {
			key = key_readdir(ino, y->pos);
			check_find(ck, 21, AT_ITEM(ino, &key),
				   "the readdir item at position %" PRIu64 " (inode %" PRIu64
				   ") has no entry: lookups do not find it",
				   y->pos, y->ino);
		} else if (x->digest != y->digest) {
			key = key_readdir(ino, x->pos);
			check_find(ck, 21, AT_ITEM(ino, &key),
				   "the entry and the readdir item at position %" PRIu64 " differ",
				   x->pos);
		}
		if (cmp <= 0) {
			last = x->pos;
			has_last = true;
			sorter_add(ck, &ck->dirents, x);
			sorter_next(ck, &d->entries);
		}
		if (cmp >= 0)
			sorter_next(ck, &d->readdirs);
	}
}

static void check_directory(struct check_dir *d, uint64_t ino, const struct disk_inode *inode)
{
	struct check *ck = d->ck;
	uint32_t nlink = le32_get(inode->nlink);

	if (d->entries.nr && d->pos_max >= le64_get(inode->next_readdir_pos))
		check_find(ck, 21, AT_INO(ino),
			   "an entry has position %" PRIu64 ", next_readdir_pos is %" PRIu64,
			   d->pos_max, le64_get(inode->next_readdir_pos));
	if (d->name_bytes != le64_get(inode->size))
		check_find(ck, 22, AT_INO(ino),
			   "the directory's size is %" PRIu64 ", its names have %" PRIu64 " bytes",
			   le64_get(inode->size), d->name_bytes);
	if (!nlink) {
		if (d->entries.nr)
			check_find(ck, 22, AT_INO(ino),
				   "a removed directory (inode %" PRIu64 ") still has entries",
				   ino);
		if (d->backrefs)
			check_find(ck, 22, AT_INO(ino),
				   "a directory has no link but %" PRIu64 " backrefs", d->backrefs);
		return;
	}
	if (nlink != 2 + d->subdirs)
		check_find(ck, 22, AT_INO(ino),
			   "the directory has nlink %u and %" PRIu64 " subdirectories", nlink,
			   d->subdirs);
	if (d->backrefs != (ino != ROOT_INO))
		check_find(ck, 22, AT_INO(ino), "directory %" PRIu64 " has %" PRIu64 " parents",
			   ino, d->backrefs);
}

void check_dir_end(struct check_dir *d, uint64_t ino, const struct disk_inode *inode)
{
	struct check *ck = d->ck;
	bool is_dir = inode && S_ISDIR(le32_get(inode->mode));

	if (inode && !is_dir && (d->entries.nr || d->readdirs.nr))
		check_find(ck, 21, AT_INO(ino), "entries in something that is not a directory");
	check_readdirs(d, ino);
	if (is_dir)
		check_directory(d, ino, inode);
	else if (inode && le32_get(inode->nlink) != d->backrefs)
		check_find(ck, 22, AT_INO(ino), "the inode has nlink %u and %" PRIu64 " names",
			   le32_get(inode->nlink), d->backrefs);
	sorter_reset(&d->entries);
	sorter_reset(&d->readdirs);
	d->names.nr = 0;
	d->hash = d->name_bytes = d->subdirs = d->pos_max = d->backrefs = 0;
}

int check_cmp_link(const void *a, const void *b)
{
	const struct check_link *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->dir != y->dir)
		return x->dir < y->dir ? -1 : 1;
	return x->pos < y->pos ? -1 : x->pos > y->pos;
}

/* in: the inode it names, NULL if there is none. */
static void check_target(struct check *ck, const struct check_link *l, const struct check_inode *in,
			 bool has_backref)
{
	struct key key = key_readdir(l->dir, l->pos);

	if (!in) {
		/* Its backref was told as an item without inode. */
		if (!has_backref)
			check_find(ck, 21, AT_ITEM(l->dir, &key),
				   "an entry names inode %" PRIu64 ", which does not "
				   "exist",
				   l->ino);
		return;
	}
	if (!has_backref)
		check_find(ck, 21, AT_ITEM(l->dir, &key),
			   "an entry of inode %" PRIu64 " has no backref", l->ino);
	if (dirent_type_of_mode(in->mode) != l->type)
		check_find(ck, 21, AT_ITEM(l->dir, &key),
			   "an entry says type %u, inode %" PRIu64 " has mode %o", l->type, l->ino,
			   in->mode);
}

/* A directory and one above it; anc is the directory's parent in the beginning. */
struct up {
	uint64_t dir, anc, parent;
};

static int cmp_up_dir(const void *a, const void *b)
{
	const struct up *x = a, *y = b;

	return x->dir < y->dir ? -1 : x->dir > y->dir;
}

static int cmp_up_anc(const void *a, const void *b)
{
	const struct up *x = a, *y = b;

	return x->anc < y->anc ? -1 : x->anc > y->anc;
}

/* The inode with that number: the inodes are stepped through, so numbers must ascend. */
static const struct check_inode *inode_at(struct check *ck, uint64_t ino)
{
	const struct check_inode *in;

	while ((in = sorter_peek(&ck->inodes)) && in->ino < ino)
		sorter_next(ck, &ck->inodes);
	return in && in->ino == ino ? in : NULL;
}

static void check_backref(struct check *ck, const struct check_link *y, const struct check_link *x)
{
	struct key key = key_backref(y->ino, y->dir, y->pos);

	if (!x)
		check_find(ck, 21, AT_ITEM(y->ino, &key),
			   "a backref to directory %" PRIu64 " position %" PRIu64
			   " without an entry there",
			   y->dir, y->pos);
	else if (x->digest != y->digest)
		check_find(ck, 21, AT_ITEM(y->ino, &key), "the backref and the entry differ");
}

/* Dirents, backrefs and inodes in one pass; ups gets each directory with its parent. */
static void check_backrefs(struct check *ck, struct sorter *ups)
{
	const struct check_link *x, *y;
	struct up up = { 0 };

	sorter_rewind(ck, &ck->inodes);
	sorter_rewind(ck, &ck->dirents);
	sorter_rewind(ck, &ck->backrefs);
	for (;;) {
		const struct check_inode *in;
		int cmp;

		x = sorter_peek(&ck->dirents);
		y = sorter_peek(&ck->backrefs);
		if (!x && !y)
			break;
		cmp = !x ? 1 : !y ? -1 : check_cmp_link(x, y);
		in = inode_at(ck, cmp <= 0 ? x->ino : y->ino);
		if (cmp <= 0)
			check_target(ck, x, in, !cmp);
		if (cmp >= 0)
			check_backref(ck, y, cmp ? NULL : x);
		/* One parent of each is followed; more of them were told before. */
		if (cmp >= 0 && in && S_ISDIR(in->mode) && in->ino != up.dir) {
			up = (struct up){ .dir = in->ino, .anc = y->dir, .parent = y->dir };
			sorter_add(ck, ups, &up);
		}
		if (cmp <= 0)
			sorter_next(ck, &ck->dirents);
		if (cmp >= 0)
			sorter_next(ck, &ck->backrefs);
	}
}

/*
 * Each directory looks twice as far up as before; who sees the end of its chain is left out.  True: some
 * were.
 */
static bool look_further(struct check *ck, struct sorter *ups)
{
	struct sorter asking, next;
	const struct up *q, *above;
	bool is_less;

	sorter_init(&asking, sizeof(struct up), cmp_up_anc);
	sorter_init(&next, sizeof(struct up), cmp_up_dir);
	for (sorter_rewind(ck, ups); (q = sorter_peek(ups)); sorter_next(ck, ups))
		sorter_add(ck, &asking, q);
	sorter_rewind(ck, ups);
	for (sorter_rewind(ck, &asking); (q = sorter_peek(&asking)); sorter_next(ck, &asking)) {
		while ((above = sorter_peek(ups)) && above->dir < q->anc)
			sorter_next(ck, ups);
		if (above && above->dir == q->anc)
			sorter_add(ck, &next,
				   &(struct up){ .dir = q->dir, .anc = above->anc,
						 .parent = q->parent });
	}
	is_less = next.nr < ups->nr;
	sorter_fini(&asking);
	sorter_fini(ups);
	*ups = next;
	return is_less;
}

/* Directories in circles, and below them, that are looked at one by one. */
#define CIRCLES_MAX 1000000u

struct walker {
	struct up up;
	enum { WALK_NEW, WALK_NOW, WALK_DONE } walk;
};

static struct walker *walker_find(struct vec *v, uint64_t dir)
{
	size_t low = 0, high = v->nr;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		struct walker *w = VEC_AT(v, struct walker, mid);

		if (w->up.dir == dir)
			return w;
		if (w->up.dir < dir)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

/* All of these are in a circle or below one: each circle is told once. */
static void tell_circles(struct check *ck, struct sorter *ups)
{
	struct vec v = { 0 };
	const struct up *up;

	for (sorter_rewind(ck, ups); (up = sorter_peek(ups)); sorter_next(ck, ups))
		vec_push(ck, &v, &(struct walker){ .up = *up }, sizeof(struct walker));
	for (size_t i = 0; i < v.nr && !ck->err; i++) {
		struct walker *start = VEC_AT(&v, struct walker, i), *w;
		struct key key;

		for (w = start; w && w->walk == WALK_NEW; w = walker_find(&v, w->up.parent))
			w->walk = WALK_NOW;
		key = w ? key_inode(w->up.dir) : KEY_ZEROS;
		if (w && w->walk == WALK_NOW)
			check_find(ck, 22, AT_KEY(&key), "directory %" PRIu64 " is inside itself",
				   w->up.dir);
		for (w = start; w && w->walk == WALK_NOW; w = walker_find(&v, w->up.parent))
			w->walk = WALK_DONE;
	}
	vec_free(&v);
}

/*
 * Every directory's chain of parents must end.  Looking 1, 2, 4, ... steps up takes as many rounds as the
 * tree is deep, by its logarithm; in a round in which nobody sees an end, nobody who is left ever will.
 */
static void check_cycles(struct check *ck, struct sorter *ups)
{
	while (!ck->err && ups->nr && look_further(ck, ups))
		;
	if (ck->err || !ups->nr)
		return;
	if (ups->nr <= CIRCLES_MAX)
		tell_circles(ck, ups);
	else
		check_find(ck, 22, NOWHERE,
			   "%" PRIu64 " directories are inside themselves, or below such", ups->nr);
}

void check_links(struct check *ck)
{
	struct sorter ups;

	sorter_init(&ups, sizeof(struct up), cmp_up_dir);
	check_backrefs(ck, &ups);
	check_cycles(ck, &ups);
	sorter_fini(&ups);
}
