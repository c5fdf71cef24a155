/*
 * Inode items as cached.
 *
 * What must stay true: prev_* name exactly the index entries that exist for the inode before the
 * generation in ci->gen, so that streaming a generation out can replace them.  They move on the
 * first write of each generation and never twice in one.
 *
 * Likewise was_orphan says whether it has an orphan item by then.  Orphan items are never in the cache: an inode has
 * one if and only if it has no link, so stream.c makes and deletes them.  Most inodes that lose their last link are
 * gone before that.
 */
#include "inode.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "format/item_check.h"
#include "log.h"

void cinode_from_item(const struct item *it, struct cinode *ci)
{
	memset(ci, 0, sizeof(*ci));
	inode_from_item(it, &ci->d);
	ci->prev_meta_seq = le64_get(ci->d.meta_seq);
	ci->prev_data_seq = S_ISREG(le32_get(ci->d.mode)) ? le64_get(ci->d.data_seq) : SEQ_NONE;
	ci->is_orphan = ci->was_orphan = le32_get(ci->d.nlink) == 0;
}

void cinode_to_disk(const struct cinode *ci, uint64_t meta_seq, uint64_t data_seq,
		    struct disk_inode *out)
{
	*out = ci->d;
	out->meta_seq = le64_of(meta_seq);
	out->data_seq = le64_of(data_seq);
}

int inode_get(struct itx *tx, uint64_t ino, struct cinode *ci)
{
	struct key key = key_inode(ino);
	struct ival iv;
	int ret = item_get(tx, &key, &iv);

	if (ret < 0)
		return ret;
	if (iv.len != sizeof(*ci)) {
		log_err("inode %llu: its cached item has %zu bytes instead of %zu: restart this "
			"mount",
			(unsigned long long)ino, iv.len, sizeof(*ci));
		stats_inc(&tx->fsd->stats.corrupt_items);
		return -EIO;
	}
	memcpy(ci, iv.val, sizeof(*ci));
	return 0;
}

/* The first write of a generation: what the index holds is what stood here until now. */
static void inode_enter_gen(struct itx *tx, struct cinode *ci)
{
	if (ci->gen == tx->open_gen)
		return;
	ci->base_gen = ci->gen > tx->committed_gen ? ci->gen : 0;
	ci->base_meta_seq = ci->prev_meta_seq;
	ci->base_data_seq = ci->prev_data_seq;
	ci->base_orphan = ci->was_orphan;
	ci->was_orphan = ci->is_orphan;
	ci->prev_meta_seq = le64_get(ci->d.meta_seq);
	ci->prev_data_seq = S_ISREG(inode_mode(ci)) ? le64_get(ci->d.data_seq) : SEQ_NONE;
	ci->gen = tx->open_gen;
}

static void set_orphan(struct itx *tx, uint64_t ino, struct cinode *ci, bool is_orphan)
{
	struct key key = key_orphan(ino);

	if (ci->is_orphan == is_orphan)
		return;
	ci->is_orphan = is_orphan;
	txn_touch(tx, &key, NULL, 0);
}

int inode_put(struct itx *tx, uint64_t ino, struct cinode *ci, bool data)
{
	struct key key = key_inode(ino);

	inode_enter_gen(tx, ci);
	set_orphan(tx, ino, ci, le32_get(ci->d.nlink) == 0);
	ci->d.meta_seq = le64_of(seq_ref(tx->open_gen));
	le64_add(&ci->d.version, 1);
	if (data) {
		ci->d.data_seq = le64_of(seq_ref(tx->open_gen));
		le64_add(&ci->d.data_version, 1);
	}
	return item_put(tx, &key, ci, sizeof(*ci));
}

int inode_delete(struct itx *tx, uint64_t ino, struct cinode *ci)
{
	struct key key = key_inode(ino);

	inode_enter_gen(tx, ci);
	set_orphan(tx, ino, ci, false);
	return item_delete(tx, &key, ci, sizeof(*ci));
}

void inode_init(struct itx *tx, struct cinode *ci, uint32_t mode, uint32_t uid, uint32_t gid,
		uint64_t rdev)
{
	memset(ci, 0, sizeof(*ci));
	ci->gen = tx->open_gen;
	ci->prev_meta_seq = SEQ_NONE;
	ci->prev_data_seq = SEQ_NONE;
	ci->d.data_seq = le64_of(seq_ref(tx->open_gen));
	ci->d.next_readdir_pos = le64_of(DIRENT_FIRST_POS);
	ci->d.nlink = le32_of(S_ISDIR(mode) ? 2 : 1);
	ci->d.uid = le32_of(uid);
	ci->d.gid = le32_of(gid);
	ci->d.mode = le32_of(mode);
	if (S_ISCHR(mode) || S_ISBLK(mode))
		ci->d.rdev = le32_of((uint32_t)(major(rdev) << 20 | (minor(rdev) & 0xfffff)));
	inode_touch(ci, INODE_ATIME | INODE_MTIME | INODE_CTIME);
	ci->d.crtime = ci->d.ctime;
}

bool inode_drop_suidgid(struct cinode *ci)
{
	uint32_t mode = inode_mode(ci), drop = 0;

	if (S_ISDIR(mode))
		return false;
	if (mode & S_ISUID)
		drop |= S_ISUID;
	if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		drop |= S_ISGID;
	ci->d.mode = le32_of(mode & ~drop);
	return drop;
}

struct disk_timespec disk_time(const struct timespec *ts)
{
	return (struct disk_timespec){ .sec = le64_of((uint64_t)ts->tv_sec),
				       .nsec = le32_of((uint32_t)ts->tv_nsec) };
}

void inode_touch(struct cinode *ci, unsigned which)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (which & INODE_ATIME)
		ci->d.atime = disk_time(&now);
	if (which & INODE_MTIME)
		ci->d.mtime = disk_time(&now);
	if (which & INODE_CTIME)
		ci->d.ctime = disk_time(&now);
}

static struct timespec host_time(const struct disk_timespec *d)
{
	return (struct timespec){ .tv_sec = (time_t)le64_get(d->sec),
				  .tv_nsec = le32_get(d->nsec) };
}

void inode_to_stat(const struct cinode *ci, uint64_t ino, struct stat *st)
{
	const struct disk_inode *d = &ci->d;
	uint32_t rdev = le32_get(d->rdev);

	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	st->st_mode = le32_get(d->mode);
	st->st_nlink = le32_get(d->nlink);
	st->st_uid = le32_get(d->uid);
	st->st_gid = le32_get(d->gid);
	st->st_rdev = makedev(rdev >> 20, rdev & 0xfffff);
	st->st_size = (off_t)le64_get(d->size);
	st->st_blksize = SMALL_SIZE;
	st->st_blocks = (blkcnt_t)((le64_get(d->online_blocks) + le64_get(d->offline_blocks)) * 8);
	st->st_atim = host_time(&d->atime);
	st->st_mtim = host_time(&d->mtime);
	st->st_ctim = host_time(&d->ctime);
}

static int refuse(struct itx *tx, uint64_t ino, const char *what)
{
	stats_inc(&tx->fsd->stats.refused_unsupported);
	log_notice("inode %llu: %s is refused: this version does not do it yet; use an "
		   "implementation that does",
		   (unsigned long long)ino, what);
	return -EOPNOTSUPP;
}

/* interface 1.4: retention forbids changes of data, size and attributes. */
int inode_may_change(struct itx *tx, uint64_t ino, const struct cinode *ci, bool data)
{
	if (le32_get(ci->d.flags) & INODE_FLAG_RETENTION)
		return -EPERM;
	if (data && le64_get(ci->d.offline_blocks))
		return refuse(tx, ino, "changing a file with offline blocks");
	return 0;
}

/* Deleting an inode with srch., totl. or indx. attributes must undo their effects elsewhere. */
int inode_may_delete(struct itx *tx, uint64_t ino, const struct cinode *ci)
{
	struct key key = key_xattr(ino, 0, 0, 0);
	struct key last = key_xattr(ino, UINT32_MAX, UINT64_MAX, UINT8_MAX);
	struct ival iv;
	int ret;

	if (le32_get(ci->d.flags) & INODE_FLAG_RETENTION)
		return -EPERM;
	while ((ret = item_next(tx, &key, &last, &iv)) == 0) {
		const struct disk_xattr *x = iv.val;
		int tags;

		if (iv.key.fourth == 0 && iv.len >= sizeof(*x) &&
		    iv.len >= sizeof(*x) + x->name_len) {
			tags = xattr_name_tags(x->name, x->name_len);
			if (tags > 0 && tags & ~XATTR_TAG_HIDE)
				return refuse(tx, ino, "deleting an inode with srch., totl. or "
						       "indx. attributes");
		}
		key = key_next(iv.key);
	}
	return ret == -ENOENT ? 0 : ret;
}
