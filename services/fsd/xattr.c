/*
 * Extended attributes as items.  A value of up to 64 KiB lies in parts of 896 bytes under the hash
 * of its name and an id of its own (format 12.6).  Replacing a value keeps the id; all parts change
 * in the transaction of the caller, so an attribute is always whole.
 */
#include "xattr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "csum/csum.h"
#include "log.h"

static int corrupt(struct itx *tx, uint64_t ino, uint64_t id)
{
	stats_inc(&tx->fsd->stats.corrupt_items);
	log_err("inode %llu: attribute id %llu is malformed: run scoutfsctl check",
		(unsigned long long)ino, (unsigned long long)id);
	return -EIO;
}

static unsigned parts_of(size_t name_len, size_t val_len)
{
	return (unsigned)((sizeof(struct disk_xattr) + name_len + val_len + ITEM_VAL_MAX - 1) /
			  ITEM_VAL_MAX);
}

/* An attribute that exists: its id and lengths. */
struct found {
	uint64_t id;
	uint16_t val_len;
	unsigned parts;
};

static int find(struct itx *tx, uint64_t ino, const char *name, struct found *f)
{
	size_t len = strlen(name);
	uint32_t hash = xattr_name_hash(name, len);
	struct key key = key_xattr(ino, hash, 0, 0);
	struct key last = key_xattr(ino, hash, UINT64_MAX, UINT8_MAX);
	struct ival iv;
	int ret;

	while ((ret = item_next(tx, &key, &last, &iv)) == 0) {
		const struct disk_xattr *x = iv.val;

		if (iv.key.fourth != 0 || iv.len < sizeof(*x) + 1)
			return corrupt(tx, ino, iv.key.third);
		if (x->name_len == len && iv.len >= sizeof(*x) + len &&
		    memcmp(x->name, name, len) == 0) {
			f->id = iv.key.third;
			f->val_len = le16_get(x->val_len);
			f->parts = parts_of(len, f->val_len);
			return 0;
		}
		key = key_xattr(ino, hash, iv.key.third, UINT8_MAX);
		key = key_next(key);
	}
	return ret == -ENOENT ? -ENODATA : ret;
}

int xattr_read(struct itx *tx, uint64_t ino, const char *name, void *buf)
{
	size_t head = sizeof(struct disk_xattr) + strlen(name), at = 0;
	uint32_t hash = xattr_name_hash(name, strlen(name));
	struct found f;
	int ret = find(tx, ino, name, &f);

	if (ret < 0)
		return ret;
	for (unsigned p = 0; p < f.parts; p++) {
		struct key key = key_xattr(ino, hash, f.id, (uint8_t)p);
		size_t want = head + f.val_len - at;
		struct ival iv;

		if (want > ITEM_VAL_MAX)
			want = ITEM_VAL_MAX;
		ret = item_get(tx, &key, &iv);
		if (ret == -ENOENT || (ret == 0 && iv.len != want))
			return corrupt(tx, ino, f.id);
		if (ret < 0)
			return ret;
		/* the header and the name fit the first part: 8 + 255 < 896 */
		if (p == 0)
			memcpy(buf, (const uint8_t *)iv.val + head, want - head);
		else
			memcpy((uint8_t *)buf + at - head, iv.val, want);
		at += want;
	}
	return f.val_len;
}

static int delete_parts(struct itx *tx, uint64_t ino, uint32_t hash, uint64_t id, unsigned from,
			unsigned to)
{
	for (unsigned p = from; p < to; p++) {
		struct key key = key_xattr(ino, hash, id, (uint8_t)p);
		struct ival iv;
		int ret = item_get(tx, &key, &iv);

		if (ret == 0)
			ret = item_delete(tx, &key, NULL, 0);
		else if (ret == -ENOENT)
			return corrupt(tx, ino, id);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int xattr_write(struct itx *tx, uint64_t ino, struct cinode *ci, const char *name, const void *val,
		size_t len, int flags)
{
	size_t name_len = strlen(name), total = sizeof(struct disk_xattr) + name_len + len;
	uint32_t hash = xattr_name_hash(name, name_len);
	unsigned parts = parts_of(name_len, len);
	struct disk_xattr head = { .val_len = le16_of((uint16_t)len),
				   .name_len = (uint8_t)name_len };
	struct found f = { 0 };
	uint8_t *bytes;
	int ret;

	if (len > XATTR_VALUE_MAX_BYTES)
		return -E2BIG;
	ret = find(tx, ino, name, &f);
	if (ret == -ENODATA) {
		if (flags & XATTR_REPLACE)
			return -ENODATA;
		f.id = le64_get(ci->d.next_xattr_id);
		f.parts = 0;
	} else if (ret < 0) {
		return ret;
	} else if (flags & XATTR_CREATE) {
		return -EEXIST;
	}

	bytes = malloc(total);
	if (!bytes)
		return -ENOMEM;
	memcpy(bytes, &head, sizeof(head));
	memcpy(bytes + sizeof(head), name, name_len);
	if (len)
		memcpy(bytes + sizeof(head) + name_len, val, len);
	/* look first: nothing may change before all is known */
	for (unsigned p = 0; p < (parts > f.parts ? parts : f.parts); p++) {
		struct key key = key_xattr(ino, hash, f.id, (uint8_t)p);
		struct ival iv;

		ret = item_get(tx, &key, &iv);
		if (ret < 0 && ret != -ENOENT)
			goto out;
	}
	for (unsigned p = 0; p < parts; p++) {
		struct key key = key_xattr(ino, hash, f.id, (uint8_t)p);
		size_t at = (size_t)p * ITEM_VAL_MAX,
		       n = total - at < ITEM_VAL_MAX ? total - at : ITEM_VAL_MAX;

		ret = item_put(tx, &key, bytes + at, n);
		if (ret < 0)
			goto out;
	}
	ret = delete_parts(tx, ino, hash, f.id, parts, f.parts);
	if (ret == 0 && f.parts == 0)
		le64_add(&ci->d.next_xattr_id, 1);
out:
	free(bytes);
	return ret;
}

int xattr_remove(struct itx *tx, uint64_t ino, struct cinode *ci, const char *name)
{
	struct found f;
	int ret = find(tx, ino, name, &f);

	(void)ci;
	if (ret < 0)
		return ret;
	return delete_parts(tx, ino, xattr_name_hash(name, strlen(name)), f.id, 0, f.parts);
}

int xattr_drop_capability(struct itx *tx, uint64_t ino, struct cinode *ci)
{
	int ret = xattr_remove(tx, ino, ci, "security.capability");

	return ret == -ENODATA ? 0 : ret;
}

int xattr_remove_some(struct itx *tx, uint64_t ino, unsigned max)
{
	struct key first = key_xattr(ino, 0, 0, 0);
	struct key last = key_xattr(ino, UINT32_MAX, UINT64_MAX, UINT8_MAX);
	struct ival iv;
	int ret;

	for (unsigned nr = 0;; nr++) {
		ret = item_next(tx, &first, &last, &iv);
		if (ret < 0)
			return ret == -ENOENT ? 0 : ret;
		/* a commit may come between, and the power go: never a part of one */
		if ((nr >= max && iv.key.fourth == 0) || nr >= XATTR_REMOVE_MAX(max))
			return OP_MORE;
		first = iv.key;
		ret = item_delete(tx, &iv.key, NULL, 0);
		if (ret < 0)
			return ret;
	}
}
