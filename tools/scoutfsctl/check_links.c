/*
 * Directories: invariants 21 and 22.  Dirent and readdir items of a directory are compared when
 * the directory ends; dirents and backrefs, which lie under different inodes, are gathered as 40
 * bytes each and compared sorted by (directory, position) at the end.  "Equal values" means equal
 * inode, type and 64-bit hash of all bytes; names themselves are looked up again for messages
 * only.
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
	struct vec entries; /* struct check_link of the dirent items */
	struct vec readdirs;
	struct vec names; /* struct name of the current hash */
	uint64_t hash;
	uint64_t name_bytes; /* sum of name lengths */
	uint64_t subdirs;
	uint64_t pos_max;
	uint64_t backrefs;
};

struct check_dir *check_dir_alloc(struct check *ck)
{
	struct check_dir *d = calloc(1, sizeof(*d));

	if (d)
		d->ck = ck;
	return d;
}

void check_dir_free(struct check_dir *d)
{
	if (!d)
		return;
	vec_free(&d->entries);
	vec_free(&d->readdirs);
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
		vec_push(d->ck, &d->entries, &l, sizeof(l));
		break;
	case TYPE_READDIR:
		l.dir = it->key.first;
		vec_push(d->ck, &d->readdirs, &l, sizeof(l));
		break;
	default:
		l.dir = it->key.second;
		d->backrefs++;
		vec_push(d->ck, &d->ck->backrefs, &l, sizeof(l));
		break;
	}
}

static int cmp_link(const void *a, const void *b)
{
	const struct check_link *x = a, *y = b;

	if (x->dir != y->dir)
		return x->dir < y->dir ? -1 : 1;
	return x->pos < y->pos ? -1 : x->pos > y->pos;
}

static void check_readdirs(struct check_dir *d, uint64_t ino)
{
	struct check *ck = d->ck;
	size_t a = 0, b = 0;

	if (d->entries.nr)
		qsort(d->entries.p, d->entries.nr, sizeof(struct check_link), cmp_link);
	while (a < d->entries.nr || b < d->readdirs.nr) {
		const struct check_link *x = a < d->entries.nr
						     ? VEC_AT(&d->entries, struct check_link, a)
						     : NULL;
		const struct check_link *y = b < d->readdirs.nr
						     ? VEC_AT(&d->readdirs, struct check_link, b)
						     : NULL;
		int cmp = !x ? 1 : !y ? -1 : cmp_link(x, y);
		struct key key;

		if (x && a && x->pos == x[-1].pos) {
			check_find(ck, 21, AT_INO(ino), "two entries at position %" PRIu64, x->pos);
			a++;
			continue;
		}
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
		a += cmp <= 0;
		b += cmp >= 0;
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
	for (size_t i = 0; i < d->entries.nr; i++)
		vec_push(ck, &ck->dirents, VEC_AT(&d->entries, struct check_link, i),
			 sizeof(struct check_link));
	d->entries.nr = d->readdirs.nr = d->names.nr = 0;
	d->hash = d->name_bytes = d->subdirs = d->pos_max = d->backrefs = 0;
}

static int cmp_backref(const void *a, const void *b)
{
	const struct check_link *x = a, *y = b;
	int cmp = cmp_link(x, y);

	return cmp ? cmp : x->ino < y->ino ? -1 : x->ino > y->ino;
}

static void check_target(struct check *ck, const struct check_link *l, bool has_backref)
{
	const struct check_inode *in = check_find_inode(ck, l->ino);
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

static void check_backrefs(struct check *ck)
{
	size_t a = 0, b = 0;

	if (ck->dirents.nr)
		qsort(ck->dirents.p, ck->dirents.nr, sizeof(struct check_link), cmp_backref);
	if (ck->backrefs.nr)
		qsort(ck->backrefs.p, ck->backrefs.nr, sizeof(struct check_link), cmp_backref);
	while (a < ck->dirents.nr || b < ck->backrefs.nr) {
		const struct check_link *x = a < ck->dirents.nr
						     ? VEC_AT(&ck->dirents, struct check_link, a)
						     : NULL;
		const struct check_link *y = b < ck->backrefs.nr
						     ? VEC_AT(&ck->backrefs, struct check_link, b)
						     : NULL;
		int cmp = !x ? 1 : !y ? -1 : cmp_backref(x, y);
		struct key key;

		if (cmp <= 0)
			check_target(ck, x, !cmp);
		if (cmp > 0) {
			key = key_backref(y->ino, y->dir, y->pos);
			check_find(ck, 21, AT_ITEM(y->ino, &key),
				   "a backref to directory %" PRIu64 " position %" PRIu64
				   " without an entry there",
				   y->dir, y->pos);
		} else if (!cmp && x->digest != y->digest) {
			key = key_backref(y->ino, y->dir, y->pos);
			check_find(ck, 21, AT_ITEM(y->ino, &key),
				   "the backref and the entry differ");
		}
		a += cmp <= 0;
		b += cmp >= 0;
	}
}

enum walk_state { WALK_NEW, WALK_NOW, WALK_DONE };

/* Every directory's chain of parents must end at the root; each is walked once. */
static void check_cycles(struct check *ck)
{
	for (size_t i = 0; i < ck->backrefs.nr; i++) {
		const struct check_link *l = VEC_AT(&ck->backrefs, struct check_link, i);
		struct check_inode *in = check_find_inode(ck, l->ino);

		if (in && S_ISDIR(in->mode))
			in->parent = l->dir;
	}
	for (size_t i = 0; i < ck->inodes.nr; i++) {
		struct check_inode *start = VEC_AT(&ck->inodes, struct check_inode, i), *in;
		struct key key;

		for (in = start; in && in->walk == WALK_NEW; in = check_find_inode(ck, in->parent))
			in->walk = WALK_NOW;
		key = in ? key_inode(in->ino) : KEY_ZEROS;
		if (in && in->walk == WALK_NOW)
			check_find(ck, 22, AT_KEY(&key), "directory %" PRIu64 " is inside itself",
				   in->ino);
		for (in = start; in && in->walk == WALK_NOW; in = check_find_inode(ck, in->parent))
			in->walk = WALK_DONE;
	}
}

void check_links(struct check *ck)
{
	check_backrefs(ck);
	check_cycles(ck);
}
