/*
 * Mounted clients on the volume, and the reclaim of one that is gone.
 *
 * Promises: the mounted_clients item goes last, in a commit that has everything else, so a server that dies
 * in between leaves the next one a reason to go on; each step finds by itself what is left to do.
 *
 * A compaction that was handed to the mount becomes pending again with what is stored of it, as after
 * an error (13.6): the record owns blocks (its output so far, inputs half deleted) that would be lost
 * with it.  A merge request gives its key range back to the merge and its lists to the server (runtime
 * 2.6); where the range would fall on another range's key the request stays, for whoever merges.
 */
#include "mounts.h"

#include <errno.h>
#include <string.h>

#include "lease/lease.h"
#include "logs.h"
#include "merge.h"

/* Inode numbers at a time, and the number whose node id FUSE needs for the root (interface 1.5.3). */
#define INOS_MAX	10240u
#define INO_RESERVED	0x100000000ull

static int insert(struct txn *t, struct disk_btree_root *root, struct key key, const void *val,
		  size_t len)
{
	struct item it = { .key = key, .val = val, .val_len = (uint16_t)len };

	return btree_insert(txn_blocks(t), txn_alloc(t), root, &it);
}

int mounts_insert(struct txn *t, const struct mount_info *m)
{
	struct disk_mounted_client mc = { .flags = m->is_quorum ? MOUNTED_CLIENT_QUORUM : 0 };
	struct disk_log_trees lt;
	int ret = mounts_has(t, m->rid);

	if (ret != 0)
		return ret < 0 ? ret : 0;
	ret = logs_newest(t, m->rid, &lt);
	if (ret == 0 && !(le64_get(lt.flags) & LOG_TREES_FLAG_FINALIZED))
		return -ENOLINK;
	if (ret < 0 && ret != -ENOENT)
		return ret;
	if (m->addr) {
		mc.addr.family = le16_of(ADDR_IPV4);
		mc.addr.addr = le32_of(m->addr);
		mc.addr.port = le16_of(m->port);
	}
	if (m->lease_ms) {
		memcpy(mc.lease_mark, MOUNTED_CLIENT_LEASE, sizeof(mc.lease_mark));
		mc.lease_ms = le32_of(m->lease_ms);
	}
	return insert(t, &txn_super(t)->mounted_clients, key_mounted_client(m->rid), &mc, sizeof(mc));
}

int mounts_has(struct txn *t, uint64_t rid)
{
	struct key key = key_mounted_client(rid);
	struct btree_ref ref;
	int ret = btree_lookup(txn_blocks(t), &txn_super(t)->mounted_clients, &key, &ref);

	if (ret == 0)
		btree_put(txn_blocks(t), &ref);
	return ret == 0 ? 1 : ret == -ENOENT ? 0 : ret;
}

struct each_arg {
	int (*each)(void *arg, const struct mount_info *m);
	void *arg;
};

static int each_mount(void *arg, const struct item *it)
{
	struct each_arg *e = arg;
	struct mount_info m = { .rid = it->key.first };
	struct disk_mounted_client mc;

	if (it->key.zone != ZONE_MOUNTED_CLIENT || it->val_len != sizeof(mc))
		return -EBADMSG;
	memcpy(&mc, it->val, sizeof(mc));
	m.is_quorum = mc.flags & MOUNTED_CLIENT_QUORUM;
	if (memcmp(mc.lease_mark, MOUNTED_CLIENT_LEASE, sizeof(mc.lease_mark)) == 0 &&
	    le32_get(mc.lease_ms) >= LEASE_MS_MIN && le32_get(mc.lease_ms) <= LEASE_MS_MAX)
		m.lease_ms = le32_get(mc.lease_ms);
	if (le16_get(mc.addr.family) == ADDR_IPV4) {
		m.addr = le32_get(mc.addr.addr);
		m.port = le16_get(mc.addr.port);
	}
	return e->each(e->arg, &m);
}

int mounts_each(struct txn *t, int (*each)(void *arg, const struct mount_info *m), void *arg)
{
	struct each_arg e = { each, arg };

	return btree_each(txn_blocks(t), &txn_super(t)->mounted_clients, &KEY_ZEROS, &KEY_ONES,
			  each_mount, &e);
}

/* An item that stays readable while its tree changes. */
struct copied {
	struct key key;
	uint16_t len;
	uint8_t val[ITEM_VAL_MAX];
};

/* The first item >= key. */
static int next_copied(struct txn *t, const struct disk_btree_root *root, const struct key *key,
		       struct copied *c)
{
	struct btree_ref ref;
	int ret = btree_next(txn_blocks(t), root, key, &ref);

	if (ret < 0)
		return ret;
	c->key = ref.item.key;
	c->len = ref.item.val_len;
	memcpy(c->val, ref.item.val, ref.item.val_len);
	btree_put(txn_blocks(t), &ref);
	return 0;
}

/* Everything the mount was compacting is pending again. */
static int release_compactions(struct txn *t, uint64_t rid)
{
	struct disk_btree_root *root = &txn_super(t)->srch_root;
	struct key key = { .zone = ZONE_SRCH, .type = TYPE_SRCH_BUSY, .second = rid };
	struct key pending = { .zone = ZONE_SRCH, .type = TYPE_SRCH_PENDING };
	struct copied c;
	int ret;

	for (;;) {
		ret = next_copied(t, root, &key, &c);
		if (ret < 0 || c.key.zone != ZONE_SRCH || c.key.type != TYPE_SRCH_BUSY ||
		    c.key.second != rid)
			return ret == -ENOENT ? 0 : ret;
		pending.second = c.key.third;
		ret = insert(t, root, pending, c.val, c.len);
		if (ret == 0)
			ret = btree_delete(txn_blocks(t), txn_alloc(t), root, &c.key);
		if (ret < 0)
			return ret == -EEXIST ? -EUCLEAN : ret;
		if (!txn_has_room(t))
			return -EINPROGRESS;
	}
}

int mounts_reclaim(struct txn *t, uint64_t rid)
{
	struct key key = key_mounted_client(rid);
	int ret;

	ret = logs_finalize(t, rid);
	if (ret == 0)
		ret = release_compactions(t, rid);
	if (ret == 0)
		ret = merge_release(t, rid);
	if (ret < 0)
		return ret;
	ret = btree_delete(txn_blocks(t), txn_alloc(t), &txn_super(t)->mounted_clients, &key);
	return ret == -ENOENT ? 0 : ret;
}

int inos_take(struct txn *t, uint64_t want, uint64_t *start, uint64_t *nr)
{
	struct disk_super *super = txn_super(t);
	uint64_t next = le64_get(super->next_ino);

	want = want < INOS_MAX ? want : INOS_MAX;
	*start = 0;
	*nr = 0;
	if (want == 0)
		return -EINVAL;
	/* A run is skipped, not cut: runs keep their place in the lock groups. */
	if (next <= INO_RESERVED && INO_RESERVED - next < want)
		next = INO_RESERVED + INODE_LOCK_GROUP;
	if (next > UINT64_MAX - 1 - want)
		return 0;
	super->next_ino = le64_of(next + want);
	*start = next;
	*nr = want;
	return 0;
}
