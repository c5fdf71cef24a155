/*
 * readdir and readdirplus: entries in the order of their positions, which are never reused, so that
 * a listing under change shows each name that stays exactly once (runtime 14).  The offset given to
 * the kernel with an entry is its position + 1; "." and ".." are positions 0 and 1.  Names that come after a
 * listing has begun are behind its end (listing.h).
 */
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

#include "format/item_check.h"
#include "fuse.h"
#include "gonedir.h"
#include "listing.h"
#include "locks.h"
#include "log.h"
#include "ops_attr.h"
#include "ops_dir.h"
#include "orphan.h"
#include "shown.h"

/* The inode's attributes, if they are at hand: nothing is waited for in the middle of a listing. */
static bool cached_inode(struct op *op, struct itx *tx, uint64_t ino, struct cinode *ci)
{
	return lock_try_inode(op, ino) && inode_get(tx, ino, ci) == 0;
}

/* Add one entry; false when the buffer is full. */
static bool add_entry(struct op *op, struct itx *tx, const char *name, uint64_t ino, uint32_t type,
		      uint64_t pos)
{
	struct readdir_op *r = (struct readdir_op *)op;
	char *at = r->buf + r->used;
	size_t room = r->size - r->used, len;

	if (r->plus) {
		struct fuse_entry_param e = { .attr = { .st_ino = ino, .st_mode = type } };
		struct cinode ci;
		bool counted = pos > 1 && r->looked_up_nr < r->looked_up_max &&
			       cached_inode(op, tx, ino, &ci);

		if (counted) {
			inode_to_stat(&ci, ino, &e.attr);
			e.ino = node_of_ino(ino);
			e.attr_timeout = shown_attr(op->fsd, ino, shown_view(op->fsd, ino), &e.attr,
						    inode_attr_timeout(op->fsd, ino));
			e.entry_timeout = kcache_entry_timeout(op->fsd, r->ino);
		}
		len = fuse_add_direntry_plus(r->req, at, room, name, &e, (off_t)(pos + 1));
		if (len > room)
			return false;
		if (counted && S_ISDIR(type))
			gonedir_named(ino, r->ino, name, strlen(name));
		if (counted)
			r->looked_up[r->looked_up_nr++] = ino;
	} else {
		struct stat st = { .st_ino = ino, .st_mode = type };

		len = fuse_add_direntry(r->req, at, room, name, &st, (off_t)(pos + 1));
		if (len > room)
			return false;
	}
	r->used += len;
	r->reached = pos + 1;
	return true;
}

int readdir_run(struct op *op, struct itx *tx)
{
	struct readdir_op *r = (struct readdir_op *)op;
	struct key key = key_readdir(r->ino, r->off < DIRENT_FIRST_POS ? DIRENT_FIRST_POS : r->off);
	char name[NAME_MAX_BYTES + 1];
	struct key last;
	struct cinode ci;
	struct ival iv;
	uint64_t parent;
	int ret;

	for (size_t i = 0; i < r->looked_up_nr; i++)
		gonedir_forgotten(op->fsd, r->looked_up[i]);	/* what an earlier run named goes to nobody */
	r->used = r->looked_up_nr = 0;
	r->reached = r->off;
	ret = lock_inode(op, r->ino, LOCK_MODE_READ);
	if (ret == 0)
		ret = inode_get(tx, r->ino, &ci);
	if (ret < 0)
		return ret == -ENOENT ? -ESTALE : ret;
	if (!S_ISDIR(inode_mode(&ci)))
		return -ENOTDIR;
	last = key_readdir(r->ino, listing_end(r->fh, r->off, le64_get(ci.d.next_readdir_pos)) - 1);
	if (r->off == 0 && !add_entry(op, tx, ".", r->ino, S_IFDIR, 0))
		return 0;
	if (r->off <= 1) {
		ret = dir_parent(tx, r->ino, &parent);
		if (ret == -ENOENT)
			parent = r->ino;	/* removed, but open */
		else if (ret < 0)
			return ret;
		if (!add_entry(op, tx, "..", parent, S_IFDIR, 1))
			return 0;
	}
	if (key_cmp(&key, &last) > 0)
		return 0;
	while ((ret = item_next(tx, &key, &last, &iv)) == 0) {
		struct disk_dirent de;

		if (iv.len <= sizeof(de) || iv.len > sizeof(de) + NAME_MAX_BYTES) {
			stats_inc(&op->fsd->stats.corrupt_items);
			log_err("directory %llu: the entry at position %llu is malformed: run "
				"scoutfsctl check",
				(unsigned long long)r->ino, (unsigned long long)iv.key.second);
			return -EIO;
		}
		memcpy(&de, iv.val, sizeof(de));
		memcpy(name, (const char *)iv.val + sizeof(de), iv.len - sizeof(de));
		name[iv.len - sizeof(de)] = 0;
		if (!add_entry(op, tx, name, le64_get(de.ino), mode_of_dirent_type(de.type),
			       iv.key.second))
			return 0;
		key = key_next(iv.key);
	}
	/* what is known goes out; the rest is read when the kernel asks for it */
	if (ret == OP_PARKED && r->used)
		return 0;
	return ret == -ENOENT ? 0 : ret;
}
