/*
 * Extended attributes: invariants 25 and 26, and the entries that 31 wants to see.  An attribute
 * is put together from its parts as they pass; tagged ones leave what they must have caused
 * elsewhere (a total, an index item, a srch entry) in sorters that are compared at the end.
 */
#include "check_volume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "csum/csum.h"

#define XATTR_BYTES_MAX (XATTR_PARTS_MAX * ITEM_VAL_MAX)

struct xname {
	uint8_t len;
	uint8_t bytes[XATTR_NAME_MAX_BYTES];
};

struct check_xattrs {
	struct check *ck;
	uint64_t ino;
	uint64_t next_id;
	bool has_inode;
	/* The attribute that is being put together. */
	bool is_open;
	uint64_t hash;
	uint64_t id;
	unsigned parts;
	size_t bytes;
	bool is_bad;
	_Alignas(8) uint8_t buf[XATTR_BYTES_MAX];
	struct vec names; /* struct xname of this hash */
};

struct check_xattrs *check_xattrs_alloc(struct check *ck)
{
	struct check_xattrs *x = calloc(1, sizeof(*x));

	if (x)
		x->ck = ck;
	return x;
}

void check_xattrs_free(struct check_xattrs *x)
{
	if (!x)
		return;
	vec_free(&x->names);
	free(x);
}

void check_xattrs_inode(struct check_xattrs *x, uint64_t ino, const struct disk_inode *inode)
{
	x->ino = ino;
	x->has_inode = true;
	x->next_id = le64_get(inode->next_xattr_id);
}

/* An unsigned number as a C programmer writes it, 1..23 characters (12.8). */
static bool parse_number(const uint8_t *p, size_t len, uint64_t *out)
{
	unsigned base = 10;
	uint64_t n = 0;

	if (!len || len > 23)
		return false;
	if (len > 2 && p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
		len -= 2;
	} else if (len > 1 && p[0] == '0') {
		base = 8;
	}
	for (size_t i = 0; i < len; i++) {
		unsigned c = p[i], lower = c | 32;
		unsigned d = c >= '0' && c <= '9'	    ? c - '0'
			     : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
							    : 99;

		if (d >= base || n > (UINT64_MAX - d) / base)
			return false;
		n = n * base + d;
	}
	*out = n;
	return true;
}

/* The last `nr` dotted numbers of a name, in order. */
static bool parse_tail(const uint8_t *name, size_t len, unsigned nr, uint64_t *out)
{
	while (nr--) {
		size_t dot = len;

		while (dot && name[dot - 1] != '.')
			dot--;
		if (!dot || !parse_number(name + dot, len - dot, &out[nr]))
			return false;
		len = dot - 1;
	}
	return true;
}

static void want_tagged(struct check_xattrs *x, unsigned tags, const struct disk_xattr *xa,
			const struct check_where *at)
{
	const uint8_t *value = xa->name + xa->name_len;
	unsigned value_len = le16_get(xa->val_len);
	struct check *ck = x->ck;
	uint64_t n[3];

	if (tags & XATTR_TAG_SRCH)
		sorter_add(ck, &ck->srch_want,
			   &(struct check_srch){ .hash = hash64(xa->name, xa->name_len),
						 .ino = x->ino,
						 .id = x->id });
	if (tags & XATTR_TAG_TOTL) {
		struct check_total t = { .count = 1 };

		if (!parse_tail(xa->name, xa->name_len, 3, n) ||
		    !parse_number(value, value_len, &t.total)) {
			check_find(
				ck, 25, at,
				"a totl. xattr without three numbers in its name or one as its value");
			return;
		}
		t.a = n[0];
		t.b = n[1];
		t.c = n[2];
		sorter_add(ck, &ck->totals_want, &t);
	}
	if (tags & XATTR_TAG_INDX) {
		struct key k = { .zone = ZONE_XATTR_INDX };

		if (ck->fmt_vers < 2 || value_len || !parse_tail(xa->name, xa->name_len, 2, n) ||
		    n[0] > 255) {
			check_find(
				ck, 25, at,
				"an indx. xattr with a value, or without two numbers in its name");
			return;
		}
		k.first = n[0] << 56 | n[1] >> 8;
		k.second = n[1] << 56 | x->ino >> 8;
		k.third = x->ino << 56 | x->id >> 8;
		k.fourth = (uint8_t)x->id;
		sorter_add(ck, &ck->indx_want, &k);
	}
}

static bool name_is_known(const uint8_t *name, size_t len)
{
	static const char *const prefixes[] = { "user.", "scoutfs.", "trusted.", "security." };
	static const char *const whole[] = { "system.posix_acl_access",
					     "system.posix_acl_default" };

	for (unsigned i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (len > strlen(prefixes[i]) && !memcmp(name, prefixes[i], strlen(prefixes[i])))
			return true;
	for (unsigned i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
		if (len == strlen(whole[i]) && !memcmp(name, whole[i], len))
			return true;
	return false;
}

/* All parts of one attribute are here. */
static void end_xattr(struct check_xattrs *x)
{
	struct key key = key_xattr(x->ino, (uint32_t)x->hash, x->id, 0);
	const struct check_where *at = AT_ITEM(x->ino, &key);
	const struct disk_xattr *xa = (const void *)x->buf;
	struct check *ck = x->ck;
	struct xname name;
	int tags;

	if (!x->is_open)
		return;
	x->is_open = false;
	if (x->is_bad || x->bytes != sizeof(*xa) + xa->name_len + le16_get(xa->val_len)) {
		check_find(ck, 25, at,
			   "parts of an xattr are missing, too many or of a wrong size");
		return;
	}
	if (x->has_inode && x->id >= x->next_id)
		check_find(ck, 25, at, "an xattr has id %" PRIu64 ", next_xattr_id is %" PRIu64,
			   x->id, x->next_id);
	if (xa->name_len == 0 || x->hash != xattr_name_hash(xa->name, xa->name_len)) {
		check_find(ck, 25, at, "an xattr's name does not match the hash in its key");
		return;
	}
	name.len = xa->name_len;
	memcpy(name.bytes, xa->name, name.len);
	for (size_t i = 0; i < x->names.nr; i++) {
		const struct xname *n = VEC_AT(&x->names, struct xname, i);

		if (n->len == name.len && !memcmp(n->bytes, name.bytes, name.len))
			check_find(ck, 25, at, "two xattrs have the same name");
	}
	vec_push(ck, &x->names, &name, sizeof(name));
	tags = xattr_name_tags(xa->name, xa->name_len);
	if (tags < 0 || !name_is_known(xa->name, xa->name_len))
		check_find(ck, 25, at, "an xattr has a name that is not allowed");
	else if (tags)
		want_tagged(x, (unsigned)tags, xa, at);
}

void check_xattrs_item(struct check_xattrs *x, const struct item *it)
{
	x->ino = it->key.first;
	if (!x->is_open || it->key.second != x->hash || it->key.third != x->id) {
		end_xattr(x);
		if (it->key.second != x->hash)
			x->names.nr = 0;
		x->is_open = true;
		x->hash = it->key.second;
		x->id = it->key.third;
		x->parts = 0;
		x->bytes = 0;
		x->is_bad = false;
	}
	/* Only the last part may be short: a part after a short one leaves bytes off the 896
	 * grid. */
	if (it->key.fourth != x->parts++ || x->bytes % ITEM_VAL_MAX ||
	    x->bytes + it->val_len > sizeof(x->buf)) {
		x->is_bad = true;
		return;
	}
	memcpy(x->buf + x->bytes, it->val, it->val_len);
	x->bytes += it->val_len;
}

void check_xattrs_end(struct check_xattrs *x)
{
	end_xattr(x);
	x->names.nr = 0;
	x->has_inode = false;
	x->next_id = 0;
}

int check_cmp_total(const void *a, const void *b)
{
	const struct check_total *x = a, *y = b;

	if (x->a != y->a)
		return x->a < y->a ? -1 : 1;
	if (x->b != y->b)
		return x->b < y->b ? -1 : 1;
	return x->c < y->c ? -1 : x->c > y->c;
}

/* The sum of what the xattrs of the next name say; false at the end. */
static bool next_sum(struct check *ck, struct check_total *sum)
{
	const struct check_total *t = sorter_peek(&ck->totals_want);

	if (!t)
		return false;
	*sum = *t;
	for (sorter_next(ck, &ck->totals_want);
	     (t = sorter_peek(&ck->totals_want)) && !check_cmp_total(t, sum);
	     sorter_next(ck, &ck->totals_want)) {
		sum->total += t->total;
		sum->count += t->count;
	}
	return true;
}

static void check_totals(struct check *ck)
{
	const struct check_total *x;
	struct check_total y;
	bool has_y;

	sorter_rewind(ck, &ck->totals);
	sorter_rewind(ck, &ck->totals_want);
	has_y = next_sum(ck, &y);
	while ((x = sorter_peek(&ck->totals)) || has_y) {
		int cmp = !x ? 1 : !has_y ? -1 : check_cmp_total(x, &y);
		const struct check_total *t = cmp <= 0 ? x : &y;

		if (cmp || x->total != y.total || x->count != y.count)
			check_find(
				ck, 26, NOWHERE,
				"the total %" PRIu64 ".%" PRIu64 ".%" PRIu64 " is %" PRId64
				" of %" PRId64 " xattrs, the xattrs sum to %" PRId64 " of %" PRId64,
				t->a, t->b, t->c, cmp <= 0 ? (int64_t)x->total : 0,
				cmp <= 0 ? (int64_t)x->count : 0, cmp >= 0 ? (int64_t)y.total : 0,
				cmp >= 0 ? (int64_t)y.count : 0);
		if (cmp <= 0)
			sorter_next(ck, &ck->totals);
		if (cmp >= 0)
			has_y = next_sum(ck, &y);
	}
}

int check_cmp_key(const void *a, const void *b) { return key_cmp(a, b); }

static void check_indx(struct check *ck)
{
	const struct key *x, *y;

	sorter_rewind(ck, &ck->indx);
	sorter_rewind(ck, &ck->indx_want);
	for (;;) {
		const struct key *k;
		uint64_t ino;
		int cmp;

		x = sorter_peek(&ck->indx);
		y = sorter_peek(&ck->indx_want);
		if (!x && !y)
			break;
		cmp = !x ? 1 : !y ? -1 : key_cmp(x, y);
		k = cmp <= 0 ? x : y;
		ino = k->second << 8 | k->third >> 56;
		if (cmp < 0)
			check_find(ck, 26, AT_ITEM(ino, k),
				   "an xattr index item without its indx. xattr");
		if (cmp > 0)
			check_find(ck, 26, AT_ITEM(ino, k),
				   "an indx. xattr without its index item");
		if (cmp <= 0)
			sorter_next(ck, &ck->indx);
		if (cmp >= 0)
			sorter_next(ck, &ck->indx_want);
	}
}

void check_tagged(struct check *ck)
{
	check_totals(ck);
	check_indx(ck);
}
