/*
 * srch files, format.md 13.
 *
 * Promises: entries come out exactly as they were appended, from blocks whose counts, offsets and
 * bounds agree; a file is walked by its number of leaves, never by what references happen to be
 * there, so a damaged parent can neither hide a leaf nor make the walk longer than the device has
 * blocks.  A block is checked in full before its first entry is given away.
 *
 * Relies on block_get for checksums and identity.  Recursion is bounded by the height, which
 * srch_file_check ties to the number of leaves.
 */
#include "log/srch.h"

#include <errno.h>


#define SRCH_HEIGHT_MAX 5u	/* 4094^4 leaves are more than 2^47 blocks of 64 KiB */

static int bad(const char **why, const char *words)
{
	*why = words;
	return -EBADMSG;
}

static int u64_cmp(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

int srch_entry_cmp(const struct srch_entry *a, const struct srch_entry *b)
{
	int c = u64_cmp(a->hash, b->hash);

	if (c == 0)
		c = u64_cmp(a->ino, b->ino);
	return c ? c : u64_cmp(a->id, b->id);
}

struct srch_entry srch_entry_get(const struct disk_srch_entry *d)
{
	return (struct srch_entry){ le64_get(d->hash), le64_get(d->ino), le64_get(d->id) };
}

/* Append the zigzag of to - from; returns how many bytes it took, 0 to 8. */
static unsigned put_diff(uint8_t *buf, uint64_t from, uint64_t to)
{
	uint64_t d = to - from;
	uint64_t z = (d << 1) ^ (d >> 63 ? UINT64_MAX : 0);
	unsigned n = 0;

	for (; z; z >>= 8)
		buf[n++] = (uint8_t)z;
	return n;
}

size_t srch_entry_encode(const struct srch_entry *prev, const struct srch_entry *e,
			 uint8_t buf[SRCH_ENTRY_MAX_BYTES])
{
	size_t pos = 2;
	unsigned n_hash, n_ino, n_id;

	n_hash = put_diff(buf + pos, prev->hash, e->hash);
	pos += n_hash;
	n_ino = put_diff(buf + pos, prev->ino, e->ino);
	pos += n_ino;
	n_id = put_diff(buf + pos, prev->id, e->id);
	pos += n_id;
	buf[0] = (uint8_t)(n_hash | n_ino << 4);
	buf[1] = (uint8_t)n_id;
	return pos;
}

static uint64_t get_diff(const uint8_t *buf, unsigned n, uint64_t from)
{
	uint64_t z = 0;

	for (unsigned i = 0; i < n; i++)
		z |= (uint64_t)buf[i] << (8 * i);
	return from + ((z >> 1) ^ (z & 1 ? UINT64_MAX : 0));
}

int srch_entry_decode(const uint8_t *buf, size_t len, struct srch_entry *e)
{
	unsigned n[3];
	size_t need = 2;

	if (len < 2)
		return -EBADMSG;
	n[0] = buf[0] & 15;
	n[1] = buf[0] >> 4;
	n[2] = buf[1] & 15;
	for (unsigned i = 0; i < 3; i++) {
		if (n[i] > 8)
			n[i] = 8;
		need += n[i];
	}
	if (need > len)
		return -EBADMSG;
	e->hash = get_diff(buf + 2, n[0], e->hash);
	e->ino = get_diff(buf + 2 + n[0], n[1], e->ino);
	e->id = get_diff(buf + 2 + n[0] + n[1], n[2], e->id);
	return (int)need;
}

int srch_block_check(const struct disk_srch_block *b, bool sorted, const char **why)
{
	const struct srch_entry first = srch_entry_get(&b->first);
	const struct srch_entry last = srch_entry_get(&b->last);
	const struct srch_entry tail = srch_entry_get(&b->tail);
	const uint32_t nr = le32_get(b->entry_nr);
	const uint32_t bytes = le32_get(b->entry_bytes);
	struct srch_entry e = { 0 }, prev;
	uint32_t pos = 0;
	int ret;

	if (bytes > SRCH_LEAF_BYTES)
		return bad(why, "entry_bytes is larger than the block");
	for (uint32_t i = 0; i < nr; i++) {
		if (pos >= bytes || pos > SRCH_LAST_START)
			return bad(why, "entries end before entry_nr of them");
		prev = e;
		ret = srch_entry_decode(b->entries + pos, bytes - pos, &e);
		if (ret < 0)
			return bad(why, "an entry goes beyond entry_bytes");
		pos += (uint32_t)ret;
		if (srch_entry_cmp(&e, &first) < 0 || srch_entry_cmp(&e, &last) > 0)
			return bad(why, "an entry is outside the block's first and last");
		if (sorted && i > 0 && srch_entry_cmp(&prev, &e) > 0)
			return bad(why, "entries of a sorted file descend");
	}
	if (pos != bytes)
		return bad(why, "entry_bytes is more than the entries take");
	if (nr > 0 && srch_entry_cmp(&e, &tail) != 0)
		return bad(why, "tail is not the last entry");
	return 0;
}

int srch_block_each(const struct disk_srch_block *b, srch_entry_fn each, void *arg)
{
	const uint32_t bytes = le32_get(b->entry_bytes);
	struct srch_entry e = { 0 };
	uint32_t pos = 0;
	int ret;

	while (pos < bytes) {
		ret = srch_entry_decode(b->entries + pos, bytes - pos, &e);
		if (ret < 0)
			return ret;
		pos += (uint32_t)ret;
		ret = each(arg, &e);
		if (ret != 0)
			return ret;
	}
	return 0;
}

/* Whether exactly the first refs_nr references of a parent are set. */
static int srch_parent_check(const struct disk_srch_parent *b, unsigned refs_nr, const char **why)
{
	for (unsigned i = 0; i < SRCH_PARENT_REFS; i++) {
		bool set = le64_get(b->refs[i].blkno) != 0;

		if (i < refs_nr && !set)
			return bad(why, "a parent lacks a child");
		if (i >= refs_nr && (set || le64_get(b->refs[i].seq) != 0))
			return bad(why, "a parent has a child beyond the end of the file");
	}
	return 0;
}

/* Leaves under one block of that level. */
static uint64_t leaves_of_level(unsigned level)
{
	uint64_t nr = 1;

	while (level-- > 0)
		nr *= SRCH_PARENT_REFS;
	return nr;
}

unsigned srch_height(uint64_t blocks)
{
	if (blocks == 0)
		return 0;
	for (unsigned height = 1; height <= SRCH_HEIGHT_MAX; height++) {
		if (leaves_of_level(height - 1) >= blocks)
			return height;
	}
	return 0;
}

int srch_file_check(const struct disk_srch_file *sf, const char **why)
{
	const struct srch_entry first = srch_entry_get(&sf->first);
	const struct srch_entry last = srch_entry_get(&sf->last);
	const uint64_t blocks = le64_get(sf->blocks);
	const uint64_t entries = le64_get(sf->entries);

	if (sf->height != srch_height(blocks) || (blocks && sf->height == 0))
		return bad(why, "height does not fit the number of blocks");
	if (blocks == 0 && (le64_get(sf->ref.blkno) || entries))
		return bad(why, "a file without blocks has a reference or entries");
	if (blocks && le64_get(sf->ref.blkno) < META_FIRST_BLKNO)
		return bad(why, "the reference is empty");
	/* Each entry takes at least two bytes. */
	if (entries / (SRCH_LEAF_BYTES / 2) > blocks)
		return bad(why, "more entries than the blocks can hold");
	if (srch_entry_cmp(&first, &last) > 0)
		return bad(why, "first is greater than last");
	return 0;
}

/* One walk: what is visited and from where on (13.6; zeros for a whole file). */
struct walk {
	struct block_set *bs;
	uint64_t blocks;
	bool sorted;
	unsigned from_level;
	uint64_t from_leaf;
	srch_visit_fn visit;
	void *arg;
};

/* How many children a parent has whose first leaf is that one. */
static unsigned children_nr(const struct walk *w, unsigned level, uint64_t leaf)
{
	const uint64_t each = leaves_of_level(level - 1);
	const uint64_t nr = (w->blocks - leaf + each - 1) / each;

	return nr < SRCH_PARENT_REFS ? (unsigned)nr : SRCH_PARENT_REFS;
}

static bool is_freed(const struct walk *w, unsigned level, uint64_t leaf)
{
	return level < w->from_level || (level == w->from_level && leaf < w->from_leaf);
}

static int walk_block(const struct walk *w, struct block_ref ref, unsigned level, uint64_t leaf)
{
	struct srch_visit v = { .ref = ref, .level = level, .leaf = leaf };
	const uint64_t each = level ? leaves_of_level(level - 1) : 0;
	const struct disk_srch_parent *parent;
	struct block *bl = NULL;
	unsigned nr = 0;
	int ret;

	v.err = block_get(w->bs, ref, level ? MAGIC_SRCH_PARENT : MAGIC_SRCH_BLOCK, &bl);
	if (v.err < 0) {
		v.why = "the block cannot be read";
	} else if (level) {
		nr = children_nr(w, level, leaf);
		v.err = srch_parent_check(bl->data, nr, &v.why);
	} else {
		v.err = srch_block_check(bl->data, w->sorted, &v.why);
	}
	if (v.err == 0)
		v.bl = bl;
	ret = w->visit(w->arg, &v);
	if (ret == 0 && v.err == 0) {
		parent = bl->data;
		for (unsigned i = 0; i < nr && ret == 0; i++) {
			if (!is_freed(w, level - 1, leaf + i * each))
				ret = walk_block(w, block_ref_get(&parent->refs[i]), level - 1,
						 leaf + i * each);
		}
	}
	if (bl)
		block_put(w->bs, bl);
	return ret < 0 ? ret : 0;
}

static int walk_file(const struct disk_srch_file *sf, struct walk *w)
{
	const char *why;
	int ret;

	ret = srch_file_check(sf, &why);
	if (ret < 0 || sf->height == 0)
		return ret;
	/* Parents do not say their level and could go round: not for longer than the device. */
	if (le64_get(sf->blocks) >= block_set_total_blocks(w->bs))
		return -EBADMSG;
	w->blocks = le64_get(sf->blocks);
	return walk_block(w, block_ref_get(&sf->ref), sf->height - 1u, 0);
}

int srch_file_visit_blocks(struct block_set *bs, const struct disk_srch_file *sf, bool sorted,
			   srch_visit_fn visit, void *arg)
{
	struct walk w = { .bs = bs, .sorted = sorted, .visit = visit, .arg = arg };

	return walk_file(sf, &w);
}

int srch_input_visit_unfreed(struct block_set *bs, const struct disk_srch_compact_input *in,
			     bool sorted, srch_visit_fn visit, void *arg)
{
	struct walk w = { .bs = bs, .sorted = sorted, .visit = visit, .arg = arg };
	const uint64_t pos = le64_get(in->pos);

	if (pos > in->file.height + 1u)
		return -EBADMSG;
	if (pos == in->file.height + 1u)
		return 0;
	w.from_level = pos ? (unsigned)pos - 1 : 0;
	w.from_leaf = le64_get(in->blk);
	return walk_file(&in->file, &w);
}

struct each_ctx {
	srch_entry_fn each;
	void *arg;
	int ret;
};

static int each_of_block(void *arg, const struct srch_visit *v)
{
	struct each_ctx *c = arg;

	if (v->err)
		c->ret = v->err;
	else if (v->level == 0)
		c->ret = srch_block_each(v->bl->data, c->each, c->arg);
	return c->ret ? -ECANCELED : 0;
}

int srch_file_each(struct block_set *bs, const struct disk_srch_file *sf, srch_entry_fn each,
		   void *arg)
{
	struct each_ctx c = { .each = each, .arg = arg };
	int ret;

	ret = srch_file_visit_blocks(bs, sf, false, each_of_block, &c);
	return c.ret ? c.ret : ret;
}

struct verify_ctx {
	struct srch_entry first, last, prev;
	bool sorted, any;
	uint64_t entries;
	const char *why;
};

static int verify_entry(void *arg, const struct srch_entry *e)
{
	struct verify_ctx *c = arg;

	if (srch_entry_cmp(e, &c->first) < 0 || srch_entry_cmp(e, &c->last) > 0)
		return bad(&c->why, "an entry is outside the file's first and last");
	if (c->sorted && c->any && srch_entry_cmp(&c->prev, e) > 0)
		return bad(&c->why, "blocks of a sorted file descend");
	c->prev = *e;
	c->any = true;
	c->entries++;
	return 0;
}

static int verify_block(void *arg, const struct srch_visit *v)
{
	struct verify_ctx *c = arg;

	if (v->err) {
		c->why = v->why;
		return v->err;
	}
	return v->level ? 0 : srch_block_each(v->bl->data, verify_entry, c);
}

int srch_file_verify(struct block_set *bs, const struct disk_srch_file *sf, bool sorted,
		     const char **why)
{
	struct verify_ctx c = { .sorted = sorted, .why = "more blocks than the device has" };
	int ret;

	ret = srch_file_check(sf, why);
	if (ret < 0)
		return ret;
	c.first = srch_entry_get(&sf->first);
	c.last = srch_entry_get(&sf->last);
	ret = srch_file_visit_blocks(bs, sf, sorted, verify_block, &c);
	if (ret == 0 && c.entries != le64_get(sf->entries))
		ret = bad(&c.why, "the number of entries is not the sum over the blocks");
	if (ret < 0)
		*why = c.why;
	return ret;
}
