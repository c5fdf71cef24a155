/*
 * srch files and compactions: invariants 30-32.  Files are read leaf by leaf through their
 * parents; every entry is decoded.  Entries of all files that count (13.5) are gathered, sorted,
 * and those that occur an odd number of times must be exactly the srch. xattrs of the resolved
 * view (31).
 */
#include "check_volume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct file_walk {
	struct check *ck;
	const struct disk_srch_file *f;
	const char *name;
	enum check_owner owner;
	bool entries_count;
	bool is_sorted;
	/* Of an input that is being deleted: what is freed already (13.6). */
	bool is_partial;
	uint64_t free_blk;
	uint64_t free_level;
	bool failed;
	uint64_t entries;
	struct check_srch prev;
	bool has_prev;
};

static struct check_srch srch_get(const struct disk_srch_entry *d)
{
	return (struct check_srch){ le64_get(d->hash), le64_get(d->ino), le64_get(d->id) };
}

int check_cmp_srch(const void *a, const void *b)
{
	const struct check_srch *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* One difference of 13.4; returns the bytes used. */
static unsigned get_diff(const uint8_t *p, unsigned n, uint64_t *field)
{
	uint64_t z = 0;

	for (unsigned i = 0; i < n; i++)
		z |= (uint64_t)p[i] << (8 * i);
	*field += (z >> 1) ^ -(z & 1);
	return n;
}

/* Decode the entry at p (left bytes remain) onto *e; 0: it does not fit. */
static unsigned decode_entry(const uint8_t *p, unsigned left, struct check_srch *e)
{
	unsigned n[3], at = 2, word;

	if (left < 2)
		return 0;
	word = (unsigned)(p[0] | p[1] << 8);
	for (unsigned i = 0; i < 3; i++) {
		n[i] = word >> (4 * i) & 15;
		if (n[i] > 8)
			n[i] = 8;
	}
	if (left < 2 + n[0] + n[1] + n[2])
		return 0;
	at += get_diff(p + at, n[0], &e->hash);
	at += get_diff(p + at, n[1], &e->ino);
	at += get_diff(p + at, n[2], &e->id);
	return at;
}

static void check_leaf(struct file_walk *w, const struct disk_srch_block *b, uint64_t blkno)
{
	struct check *ck = w->ck;
	uint32_t nr = le32_get(b->entry_nr), bytes = le32_get(b->entry_bytes), at = 0, i;
	struct check_srch first = srch_get(&b->first), last = srch_get(&b->last),
			  tail = srch_get(&b->tail);
	struct check_srch file_first = srch_get(&w->f->first), file_last = srch_get(&w->f->last),
			  e = { 0 };

	if (bytes > SRCH_LEAF_BYTES) {
		check_find(ck, 30, AT_BLOCK(blkno), "%s: entry_bytes %u is more than a leaf holds",
			   w->name, bytes);
		w->failed = true;
		return;
	}
	for (i = 0; i < nr; i++) {
		unsigned len = at <= SRCH_LAST_START ? decode_entry(b->entries + at, bytes - at, &e)
						     : 0;

		if (!len) {
			check_find(ck, 30, AT_BLOCK(blkno),
				   "%s: entry %u of %u does not fit the leaf", w->name, i, nr);
			w->failed = true;
			return;
		}
		at += len;
		if (check_cmp_srch(&e, &first) < 0 || check_cmp_srch(&e, &last) > 0 ||
		    check_cmp_srch(&e, &file_first) < 0 || check_cmp_srch(&e, &file_last) > 0)
			check_find(ck, 30, AT_BLOCK(blkno),
				   "%s: entry %u is outside the bounds of its block or file",
				   w->name, i);
		if (w->is_sorted && w->has_prev && check_cmp_srch(&e, &w->prev) < 0)
			check_find(ck, 30, AT_BLOCK(blkno),
				   "%s: entry %u of a sorted file does not ascend", w->name, i);
		w->prev = e;
		w->has_prev = true;
		if (w->entries_count)
			sorter_add(ck, &ck->srch, &e);
	}
	if (at != bytes)
		check_find(ck, 30, AT_BLOCK(blkno),
			   "%s: %u entries take %u bytes, entry_bytes is %u", w->name, nr, at,
			   bytes);
	if (nr && check_cmp_srch(&e, &tail))
		check_find(ck, 30, AT_BLOCK(blkno),
			   "%s: the tail of the leaf is not its last entry", w->name);
	w->entries += nr;
}

/* Leaves below one block of this level; saturates where the format cannot reach anyway. */
static uint64_t leaves_below(unsigned level)
{
	uint64_t nr = 1;

	while (level--)
		nr = nr > UINT64_MAX / SRCH_PARENT_REFS ? UINT64_MAX : nr * SRCH_PARENT_REFS;
	return nr;
}

static void walk_file(struct file_walk *w, struct block_ref ref, unsigned level, uint64_t leaf)
{
	struct check *ck = w->ck;
	uint64_t span = leaves_below(level);
	struct disk_srch_parent *p;
	void *buf;

	if (ck->err)
		return;
	if (w->is_partial && level + 1u != w->f->height &&
	    (level < w->free_level || (level == w->free_level && leaf < w->free_blk)))
		return;
	buf = malloc(LARGE_SIZE);
	if (!buf) {
		ck->err = -ENOMEM;
		return;
	}
	if (!check_claim(ck, ref.blkno, w->owner, w->name) ||
	    !check_read(ck, ref, level ? MAGIC_SRCH_PARENT : MAGIC_SRCH_BLOCK, w->name, buf)) {
		w->failed = ck->blocks_unknown = true;
		goto out;
	}
	if (!level) {
		check_leaf(w, buf, ref.blkno);
		goto out;
	}
	p = buf;
	for (unsigned i = 0; i < SRCH_PARENT_REFS; i++) {
		struct block_ref child = block_ref_get(&p->refs[i]);
		uint64_t below = leaf + i * (span / SRCH_PARENT_REFS);

		if (below >= le64_get(w->f->blocks)) {
			if (child.blkno)
				check_find(ck, 30, AT_BLOCK(ref.blkno),
					   "%s: a block is referenced beyond the last of "
					   "%" PRIu64 " leaves",
					   w->name, le64_get(w->f->blocks));
			continue;
		}
		if (child.blkno) {
			walk_file(w, child, level - 1, below);
		} else {
			check_find(ck, 30, AT_BLOCK(ref.blkno), "%s: leaf %" PRIu64 " is missing",
				   w->name, below);
			w->failed = true;
		}
	}
out:
	free(buf);
}

static unsigned minimal_height(uint64_t blocks)
{
	unsigned height = 1;

	while (leaves_below(height - 1) < blocks)
		height++;
	return height;
}

static void run_walk(struct file_walk *w)
{
	struct check *ck = w->ck;
	const struct disk_srch_file *f = w->f;
	uint64_t blocks = le64_get(f->blocks);
	unsigned height = f->height;

	if (!le64_get(f->ref.blkno)) {
		if (blocks || height || le64_get(f->entries))
			check_find(ck, 30, NOWHERE,
				   "%s: a file without root has %" PRIu64 " blocks, height %u",
				   w->name, blocks, height);
		return;
	}
	if (!blocks || height != minimal_height(blocks)) {
		check_find(ck, 30, NOWHERE, "%s: height %u for %" PRIu64 " leaves", w->name, height,
			   blocks);
		ck->blocks_unknown = true;
		w->failed = true;
	} else {
		walk_file(w, block_ref_get(&f->ref), height - 1, 0);
	}
	if (!w->failed && !w->is_partial && w->entries != le64_get(f->entries))
		check_find(ck, 30, NOWHERE, "%s: entries is %" PRIu64 ", the leaves hold %" PRIu64,
			   w->name, le64_get(f->entries), w->entries);
	if (w->failed && w->entries_count)
		ck->srch_unknown = true;
}

void check_srch_file(struct check *ck, const struct disk_srch_file *f, enum check_owner owner,
		     const char *name, bool entries_count)
{
	struct file_walk w = {
		.ck = ck, .f = f, .name = name, .owner = owner, .entries_count = entries_count
	};

	run_walk(&w);
}

static void srch_item(struct check *ck, struct check_tree *t, const struct item *it, uint64_t blkno)
{
	const struct check_where *at = AT_BLOCK_KEY(blkno, &it->key);

	if (it->key.type == TYPE_SRCH_LOG || it->key.type == TYPE_SRCH_SORTED) {
		struct check_srch_file sf = { .key = it->key };
		uint64_t root, blocks;

		memcpy(&sf.file, it->val, sizeof(sf.file));
		root = le64_get(sf.file.ref.blkno);
		blocks = le64_get(sf.file.blocks);
		if (it->key.type == TYPE_SRCH_LOG
			    ? it->key.second != root || it->key.third
			    : it->key.second != blocks || it->key.third != root)
			check_find(ck, 30, at,
				   "%s: the key does not name the file's root block %" PRIu64
				   " and its %" PRIu64 " leaves",
				   t->name, root, blocks);
		if (!root)
			check_find(ck, 30, at, "%s: an item for an empty file", t->name);
		vec_push(ck, &ck->srch_files, &sf, sizeof(sf));
	} else {
		struct check_compact c = { .key = it->key };
		bool is_busy = it->key.type == TYPE_SRCH_BUSY;
		uint64_t id;
		unsigned state;

		memcpy(&c.c, it->val, sizeof(c.c));
		id = le64_get(c.c.id);
		state = c.c.flags & (SRCH_COMPACT_LOG | SRCH_COMPACT_SORTED | SRCH_COMPACT_DELETE);
		if (is_busy ? it->key.third != id : it->key.second != id || it->key.third)
			check_find(ck, 32, at, "%s: the key does not name compaction %" PRIu64,
				   t->name, id);
		if (c.c.nr < 2 || c.c.nr > SRCH_COMPACT_INPUTS || !state || state & (state - 1)) {
			check_find(ck, 32, at,
				   "%s: compaction %" PRIu64 " has %u inputs and flags %#x",
				   t->name, id, c.c.nr, c.c.flags);
			ck->blocks_unknown = true;
			return;
		}
		if (le64_get(c.c.in[0].file.ref.blkno) != id)
			check_find(ck, 32, at,
				   "%s: the id of compaction %" PRIu64
				   " is not its first input's root %" PRIu64,
				   t->name, id, le64_get(c.c.in[0].file.ref.blkno));
		vec_push(ck, &ck->compacts, &c, sizeof(c));
	}
}

static void mark_inputs(struct check *ck, const struct check_compact *c)
{
	for (unsigned i = 0; i < c->c.nr; i++) {
		uint64_t root = le64_get(c->c.in[i].file.ref.blkno);
		bool is_found = false;

		for (size_t j = 0; j < ck->srch_files.nr; j++) {
			struct check_srch_file *sf = VEC_AT(&ck->srch_files, struct check_srch_file,
							    j);

			if (le64_get(sf->file.ref.blkno) != root ||
			    le64_get(sf->file.ref.seq) != le64_get(c->c.in[i].file.ref.seq))
				continue;
			if (sf->is_input)
				check_find(ck, 32, AT_KEY(&c->key),
					   "srch file %" PRIu64 " is the input of two "
					   "compactions",
					   root);
			sf->is_input = is_found = true;
		}
		if (!is_found)
			check_find(ck, 32, AT_KEY(&c->key),
				   "input %u (root %" PRIu64 ") of a compaction has no item of "
				   "its own",
				   i, root);
	}
}

/* Blocks of an input of a DELETE record that are not freed yet belong to the record (13.6). */
static void walk_deleted_input(struct check *ck, const struct check_compact *c, unsigned i)
{
	const struct disk_srch_compact_input *in = &c->c.in[i];
	uint64_t pos = le64_get(in->pos);
	struct file_walk w = { .ck = ck,
			       .f = &in->file,
			       .owner = OWNER_SRCH_INPUT,
			       .is_partial = true,
			       .free_blk = le64_get(in->blk),
			       .free_level = pos ? pos - 1 : 0 };
	char name[80];

	if (pos > in->file.height)
		return;
	snprintf(name, sizeof(name), "input %u of deleting compaction %" PRIu64, i,
		 le64_get(c->c.id));
	w.name = name;
	run_walk(&w);
}

static void walk_compact(struct check *ck, const struct check_compact *c)
{
	uint64_t id = le64_get(c->c.id);
	char name[80];

	snprintf(name, sizeof(name), "meta_avail of srch compaction %" PRIu64, id);
	check_alloc_list(ck, &c->c.meta_avail, OWNER_COMPACT_LIST, OWNER_ENTRY_COMPACT, name);
	if (c->c.flags & SRCH_COMPACT_DELETE) {
		for (unsigned i = 0; i < c->c.nr; i++)
			walk_deleted_input(ck, c, i);
		return;
	}
	snprintf(name, sizeof(name), "the output of srch compaction %" PRIu64, id);
	check_srch_file(ck, &c->c.out, OWNER_SRCH_OUT, name, false);
}

void check_srch_root(struct check *ck)
{
	struct check_tree t = {
		.owner = OWNER_SRCH_ROOT, .kind = TREE_SRCH, .name = "srch_root", .item = srch_item
	};

	check_walk_tree(ck, &t, &ck->super.srch_root);
	ck->srch_unknown |= t.is_broken;
	for (size_t i = 0; i < ck->compacts.nr; i++) {
		const struct check_compact *c = VEC_AT(&ck->compacts, struct check_compact, i);

		if (!(c->c.flags & SRCH_COMPACT_DELETE))
			mark_inputs(ck, c);
	}
	for (size_t i = 0; i < ck->srch_files.nr && !ck->err; i++) {
		const struct check_srch_file *sf = VEC_AT(&ck->srch_files, struct check_srch_file,
							  i);
		char name[48];
		struct file_walk w = { .ck = ck,
				       .f = &sf->file,
				       .name = name,
				       .entries_count = true,
				       .owner = sf->is_input ? OWNER_SRCH_INPUT : OWNER_SRCH_FILE,
				       .is_sorted = sf->key.type == TYPE_SRCH_SORTED };

		snprintf(name, sizeof(name), "srch file %" PRIu64, le64_get(sf->file.ref.blkno));
		run_walk(&w);
	}
	for (size_t i = 0; i < ck->compacts.nr && !ck->err; i++)
		walk_compact(ck, VEC_AT(&ck->compacts, struct check_compact, i));
}

void check_srch_shared(struct check *ck)
{
	for (size_t i = 0; i < ck->compacts.nr && !ck->err; i++) {
		const struct check_compact *c = VEC_AT(&ck->compacts, struct check_compact, i);
		char name[80];

		snprintf(name, sizeof(name), "meta_freed of srch compaction %" PRIu64,
			 le64_get(c->c.id));
		check_freed_list(ck, &c->c.meta_freed, OWNER_COMPACT_LIST, OWNER_ENTRY_COMPACT,
				 name);
	}
}

/* The next entry that occurs an odd number of times; false at the end. */
static bool next_odd(struct check *ck, struct sorter *s, struct check_srch *out)
{
	const struct check_srch *e;

	while ((e = sorter_peek(s))) {
		bool is_odd = false;

		*out = *e;
		while ((e = sorter_peek(s)) && !check_cmp_srch(e, out)) {
			is_odd = !is_odd;
			sorter_next(ck, s);
		}
		if (is_odd)
			return true;
	}
	return false;
}

void check_srch_parity(struct check *ck)
{
	const struct check_srch *y;
	struct check_srch x;
	bool has_x;

	if (ck->srch_unknown) {
		check_note(
			ck,
			"not checked: srch entries against xattrs (31), since some srch file could not be read");
		return;
	}
	sorter_rewind(ck, &ck->srch);
	sorter_rewind(ck, &ck->srch_want);
	has_x = next_odd(ck, &ck->srch, &x);
	while ((y = sorter_peek(&ck->srch_want)) || has_x) {
		int cmp = !has_x ? 1 : !y ? -1 : check_cmp_srch(&x, y);

		if (cmp < 0)
			check_find(ck, 31, AT_INO(x.ino),
				   "a srch entry (hash %016" PRIx64 ", id %" PRIu64 ") without "
				   "its xattr",
				   x.hash, x.id);
		if (cmp > 0)
			check_find(ck, 31, AT_INO(y->ino),
				   "a srch. xattr (hash %016" PRIx64 ", id %" PRIu64 ") that no "
				   "srch file lists: searches do not find it",
				   y->hash, y->id);
		if (cmp <= 0)
			has_x = next_odd(ck, &ck->srch, &x);
		if (cmp >= 0)
			sorter_next(ck, &ck->srch_want);
	}
}
