/*
 * Names.  Each function is one POSIX operation over one transaction (op.h): it may stop at any
 * look-up or lock that is missing and begins again from the top, so it changes nothing before it
 * has all it needs, and computes everything from what the transaction shows.
 *
 * What stays true in every committed transaction: the three items of an entry (by hash, by
 * position, at the target) exist together with equal values; a directory's size is the sum of its
 * name lengths and its nlink 2 + subdirectories; a file's nlink is the number of its backrefs;
 * what loses its last link becomes an orphan with the same inode item (format 12.3, 12.4).
 */
#include "ops_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>

#include "csum/csum.h"
#include "format/item_check.h"
#include "locks.h"
#include "log.h"
#include "names.h"
#include "orphan.h"
#include "quota.h"
#include "tmpfile.h"
#include "xattr.h"

/* At most so many items change in one operation; symlinks and inherited ACLs add a few. */
#define DIR_OP_ITEMS	24

static struct dir_op *dir_op(struct op *op)
{
	return (struct dir_op *)op;
}

static void add32(le32 *x, int delta)
{
	*x = le32_of(le32_get(*x) + (uint32_t)delta);
}

/* A live directory, or why not. */
static int get_dir(struct itx *tx, uint64_t ino, struct cinode *ci)
{
	int ret = inode_get(tx, ino, ci);

	if (ret < 0)
		return ret;
	if (!S_ISDIR(inode_mode(ci)))
		return -ENOTDIR;
	return le32_get(ci->d.nlink) ? 0 : -ENOENT;
}

/* The cached bytes of an entry are checked when they are read from the forest (reader.c). */
struct entry {
	struct disk_dirent head;
	struct name name;
};

static size_t entry_bytes(const struct entry *e)
{
	return sizeof(e->head) + e->name.len;
}

static int find_entry(struct itx *tx, uint64_t dir, const struct name *name, struct entry *e)
{
	uint64_t hash = dirent_name_hash(name->bytes, name->len);
	struct key key = key_dirent(dir, hash, 0);
	struct key last = key_dirent(dir, hash, UINT64_MAX);
	struct ival iv;
	int ret;

	if (names_lack(tx->fsd, dir, hash))
		return -ENOENT;
	while ((ret = item_next(tx, &key, &last, &iv)) == 0) {
		if (iv.len == sizeof(e->head) + name->len &&
		    memcmp((const char *)iv.val + sizeof(e->head), name->bytes, name->len) == 0) {
			memcpy(&e->head, iv.val, sizeof(e->head));
			e->name = *name;
			return 0;
		}
		key = key_next(iv.key);
	}
	return ret;
}

int dir_parent(struct itx *tx, uint64_t dir, uint64_t *parent)
{
	struct key key = key_backref(dir, 0, 0);
	struct key last = key_backref(dir, UINT64_MAX, UINT64_MAX);
	struct ival iv;
	int ret;

	if (dir == ROOT_INO) {
		*parent = ROOT_INO;
		return 0;
	}
	ret = item_next(tx, &key, &last, &iv);
	if (ret == 0)
		*parent = iv.key.second;
	return ret;
}

/*
 * Add or remove the three items of an entry.  Most likely not to be known is the one by position, so
 * it comes first; whatever is not lets the transaction go.
 */
static void entry_keys(uint64_t dir, const struct entry *e, struct key keys[3])
{
	uint64_t ino = le64_get(e->head.ino), pos = le64_get(e->head.pos);

	keys[0] = key_readdir(dir, pos);
	keys[1] = key_backref(ino, dir, pos);
	keys[2] = key_dirent(dir, le64_get(e->head.hash), pos);
}

/* What need not be read to be known: a directory of which we have all names lacks this one. */
static int know_entry(struct itx *tx, uint64_t dir, const struct entry *e, const struct key keys[3])
{
	uint64_t hash = le64_get(e->head.hash);
	struct key first = key_dirent(dir, hash, 0), last = key_dirent(dir, hash, UINT64_MAX);
	int ret = 0;

	if (names_are_known(tx->fsd, dir))
		ret = items_set_known(tx, &keys[0], &keys[0]);
	if (ret == 0 && names_lack(tx->fsd, dir, hash))
		ret = items_set_known(tx, &first, &last);
	names_add(tx->fsd, dir, hash);
	return ret;
}

static int put_entry(struct itx *tx, uint64_t dir, const struct entry *e)
{
	uint8_t val[sizeof(e->head) + NAME_MAX_BYTES];
	struct key keys[3];
	int ret;

	entry_keys(dir, e, keys);
	ret = know_entry(tx, dir, e, keys);
	memcpy(val, &e->head, sizeof(e->head));
	memcpy(val + sizeof(e->head), e->name.bytes, e->name.len);
	for (unsigned i = 0; i < 3 && ret == 0; i++)
		ret = item_insert(tx, &keys[i], val, entry_bytes(e));
	if (ret != -EEXIST)
		return ret;
	log_err("directory %llu: position %llu is taken already: run scoutfsctl check",
		(unsigned long long)dir, (unsigned long long)le64_get(e->head.pos));
	stats_inc(&tx->fsd->stats.corrupt_items);
	return -EIO;
}

static int lacks_item(struct itx *tx, uint64_t dir, const struct entry *e)
{
	log_err("directory %llu: the entry at position %llu lacks one of its three items: run scoutfsctl check",
		(unsigned long long)dir, (unsigned long long)le64_get(e->head.pos));
	stats_inc(&tx->fsd->stats.corrupt_items);
	return -EIO;
}

static int remove_entry(struct itx *tx, uint64_t dir, const struct entry *e)
{
	struct key keys[3];
	int ret = 0;

	entry_keys(dir, e, keys);
	for (unsigned i = 0; i < 3 && ret == 0; i++)
		ret = item_delete(tx, &keys[i], NULL, 0);
	return ret == -ENOENT ? lacks_item(tx, dir, e) : ret;
}

/* An entry keeps its name and position, and names another inode. */
static int change_entry(struct itx *tx, uint64_t dir, const struct entry *was, const struct entry *is)
{
	uint8_t val[sizeof(is->head) + NAME_MAX_BYTES];
	struct key was_keys[3], keys[3];
	struct ival iv;
	int ret;

	entry_keys(dir, was, was_keys);
	entry_keys(dir, is, keys);
	memcpy(val, &is->head, sizeof(is->head));
	memcpy(val + sizeof(is->head), is->name.bytes, is->name.len);
	ret = item_get(tx, &keys[0], &iv);
	if (ret == 0)
		ret = item_get(tx, &keys[2], &iv);
	if (ret == 0)
		ret = item_delete(tx, &was_keys[1], NULL, 0);
	if (ret == -ENOENT)
		return lacks_item(tx, dir, was);
	if (ret == 0)
		ret = item_insert(tx, &keys[1], val, entry_bytes(is));
	if (ret == 0)
		ret = item_put(tx, &keys[0], val, entry_bytes(is));
	if (ret == 0)
		ret = item_put(tx, &keys[2], val, entry_bytes(is));
	return ret;
}

static void make_entry(struct entry *e, const struct name *name, uint64_t ino, uint32_t mode,
		       struct cinode *dir)
{
	memset(&e->head, 0, sizeof(e->head));
	e->head.ino = le64_of(ino);
	e->head.hash = le64_of(dirent_name_hash(name->bytes, name->len));
	e->head.pos = dir->d.next_readdir_pos;
	e->head.type = (uint8_t)dirent_type_of_mode(mode);
	e->name = *name;
	le64_add(&dir->d.next_readdir_pos, 1);
}

/* ---- look-up --------------------------------------------------------------------------------- */

int dir_run_lookup(struct op *op, struct itx *tx)
{
	struct dir_op *d = dir_op(op);
	struct cinode dir;
	struct entry e;
	int ret;

	ret = lock_inode(op, d->dir, LOCK_MODE_READ);
	if (ret < 0)
		return ret;
	ret = inode_get(tx, d->dir, &dir);
	if (ret < 0)
		return ret == -ENOENT ? -ESTALE : ret;

	if (d->name.len == 1 && d->name.bytes[0] == '.') {
		d->ino = d->dir;
		d->ci = dir;
		return le32_get(dir.d.nlink) ? 0 : -ESTALE;	/* by handle: unlinked is gone */
	}
	if (!S_ISDIR(inode_mode(&dir)))
		return -ENOTDIR;
	if (d->name.len == 2 && memcmp(d->name.bytes, "..", 2) == 0) {
		ret = dir_parent(tx, d->dir, &d->ino);
	} else {
		ret = find_entry(tx, d->dir, &d->name, &e);
		if (ret == 0)
			d->ino = le64_get(e.head.ino);
	}
	if (ret < 0)
		return ret;
	ret = lock_inode(op, d->ino, LOCK_MODE_READ);
	if (ret == 0)
		ret = inode_get(tx, d->ino, &d->ci);
	if (ret == -ENOENT) {
		log_err("directory %llu has an entry for inode %llu, which does not exist: run "
			"scoutfsctl check",
			(unsigned long long)d->dir, (unsigned long long)d->ino);
		stats_inc(&op->fsd->stats.corrupt_items);
		return -EIO;
	}
	return ret;
}

/* ---- create ---------------------------------------------------------------------------------- */

static int put_symlink(struct itx *tx, uint64_t ino, const char *target, size_t len)
{
	for (uint64_t i = 0, off = 0; off < len; i++, off += ITEM_VAL_MAX) {
		struct key key = key_symlink(ino, i);
		size_t part = len - off < ITEM_VAL_MAX ? len - off : ITEM_VAL_MAX;
		int ret = item_put(tx, &key, target + off, part);

		if (ret < 0)
			return ret;
	}
	return 0;
}

/*
 * open(O_CREAT) of a name that another node has made since the kernel looked for it.  What CREATE answers is new
 * for the kernel: it checks no permission, truncates nothing, and takes our attributes for the newest.  So
 * only a file that the caller certainly may open is opened here, if the kernel does not know it (done_create).
 * Else: ESTALE, on which the kernel looks for the name again, once.
 */
static int open_existing(struct op *op, struct itx *tx, const struct cinode *dir, uint64_t ino)
{
	struct dir_op *d = dir_op(op);
	uint32_t mode, need = 0;
	int acc = d->open_flags & O_ACCMODE;
	int ret = lock_inode(op, ino, LOCK_MODE_READ);

	if (ret == 0)
		ret = inode_get(tx, ino, &d->ci);
	if (ret < 0)
		return ret == -ENOENT ? -ESTALE : ret;
	mode = inode_mode(&d->ci);
	if (acc != O_WRONLY)
		need |= S_IRUSR;
	if (acc != O_RDONLY)
		need |= S_IWUSR;
	if (!S_ISREG(mode) || (d->open_flags & O_TRUNC) || (inode_mode(dir) & S_ISVTX) ||
	    le32_get(d->ci.d.uid) != d->uid || (mode & need) != need)
		return -ESTALE;
	d->existing = ino;
	return 0;
}

/* The inode d->ino in memory, as made in `dir`: all but its links and its items, for which room is held. */
static int new_inode(struct op *op, struct itx *tx, const struct cinode *dir, struct cinode *ci)
{
	struct dir_op *d = dir_op(op);
	bool is_dir = S_ISDIR(d->mode);
	uint32_t mode = d->mode, gid = d->gid;
	struct key first, last;
	int ret;

	if (inode_mode(dir) & S_ISGID) {
		gid = le32_get(dir->d.gid);
		if (is_dir)
			mode |= S_ISGID;
	}
	if (!d->ino) {
		ret = txn_alloc_ino(op, tx, is_dir, &d->ino);
		if (ret < 0)
			return ret;
	}
	ret = lock_inode(op, d->ino, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = quota_check(op, tx, QUOTA_INODE, le64_get(dir->d.proj), d->uid, gid);
	if (ret < 0)
		return ret;

	/* From here on things change.  A number that was never used has no items anywhere; those that come next
	 * are known with it, so that most inodes need no more. */
	first = (struct key){ .zone = ZONE_FS, .first = d->ino };
	last = (struct key){ .zone = ZONE_FS,
			     .first = txn_last_unused_ino(tx, is_dir, d->ino),
			     .type = UINT8_MAX,
			     .second = UINT64_MAX,
			     .third = UINT64_MAX,
			     .fourth = UINT8_MAX };
	ret = items_set_known(tx, &first, &last);
	if (ret < 0)
		return ret;
	if (is_dir)
		names_begin(op->fsd, d->ino);
	inode_init(tx, ci, mode, d->uid, gid, d->rdev);
	ci->d.proj = op->fsd->fmt_vers >= 2 ? dir->d.proj : le64_of(0);
	return acl_inherit(tx, d->dir, d->ino, ci, d->umask);
}

int dir_run_create(struct op *op, struct itx *tx)
{
	struct dir_op *d = dir_op(op);
	bool is_dir = S_ISDIR(d->mode);
	uint32_t mode = d->mode;
	struct cinode dir, ci;
	struct entry e;
	size_t target_len = 0;
	int ret;

	d->existing = 0;
	if (dirent_type_of_mode(mode) < 0)
		return -EINVAL;
	if (S_ISLNK(mode)) {
		target_len = strlen(d->target) + 1;
		if (target_len > SYMLINK_MAX_BYTES)
			return -ENAMETOOLONG;
		if (target_len == 1)
			return -ENOENT;
	}
	ret = txn_hold(op, tx, DIR_OP_ITEMS, true);
	if (ret == 0)
		ret = lock_inode(op, d->dir, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = get_dir(tx, d->dir, &dir);
	if (ret < 0)
		return ret;
	ret = find_entry(tx, d->dir, &d->name, &e);
	if (ret == 0)
		return d->may_exist ? open_existing(op, tx, &dir, le64_get(e.head.ino)) : -EEXIST;
	if (ret == -ENOENT)
		ret = inode_may_change(tx, d->dir, &dir, false);
	if (ret < 0)
		return ret;
	if (is_dir && le32_get(dir.d.nlink) >= LINK_MAX_NR)
		return -EMLINK;
	if (le64_get(dir.d.next_readdir_pos) > DIRENT_LAST_POS)
		return -ENOSPC;

	ret = new_inode(op, tx, &dir, &ci);
	if (ret < 0)
		return ret;
	if (S_ISLNK(mode)) {
		ci.d.size = le64_of(target_len);
		ret = put_symlink(tx, d->ino, d->target, target_len);
		if (ret < 0)
			return ret;
	}
	make_entry(&e, &d->name, d->ino, mode, &dir);
	le64_add(&dir.d.size, d->name.len);
	if (is_dir)
		add32(&dir.d.nlink, 1);
	inode_touch(&dir, INODE_MTIME | INODE_CTIME);
	ret = put_entry(tx, d->dir, &e);
	if (ret == 0)
		ret = inode_put(tx, d->ino, &ci, false);
	if (ret == 0)
		ret = inode_put(tx, d->dir, &dir, false);
	if (ret == 0)
		ret = txn_inode_count_add(tx, 1);
	d->ci = ci;
	return ret;
}

/*
 * O_TMPFILE.  It is an orphan from the start: what is not linked when its last user lets go, or its mount ends,
 * is deleted like what was unlinked.
 */
int dir_run_tmpfile(struct op *op, struct itx *tx)
{
	struct dir_op *d = dir_op(op);
	struct cinode dir, ci;
	int ret = txn_hold(op, tx, DIR_OP_ITEMS, true);

	if (ret == 0)
		ret = lock_inode(op, d->dir, LOCK_MODE_READ);
	if (ret == 0)
		ret = get_dir(tx, d->dir, &dir);
	if (ret == 0)
		ret = new_inode(op, tx, &dir, &ci);
	if (ret < 0)
		return ret;
	/* before a scan can find it */
	if (!d->is_pinned) {
		inode_open(op->fsd, d->ino);
		d->is_pinned = true;
	}
	ci.d.nlink = le32_of(0);
	ret = tmpfile_note(tx, d->ino);
	if (ret == 0)
		ret = inode_put(tx, d->ino, &ci, false);
	if (ret == 0)
		ret = txn_inode_count_add(tx, 1);
	d->ci = ci;
	return ret;
}

/* ---- link ------------------------------------------------------------------------------------ */

int dir_run_link(struct op *op, struct itx *tx)
{
	struct dir_op *d = dir_op(op);
	struct cinode dir, ci;
	struct entry e;
	int ret;

	ret = txn_hold(op, tx, DIR_OP_ITEMS, true);
	if (ret == 0)
		ret = lock_inode(op, d->new_dir, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = lock_inode(op, d->ino, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = get_dir(tx, d->new_dir, &dir);
	if (ret == 0)
		ret = inode_may_change(tx, d->new_dir, &dir, false);
	if (ret == 0)
		ret = inode_get(tx, d->ino, &ci);
	if (ret < 0)
		return ret;
	if (S_ISDIR(inode_mode(&ci)))
		return -EPERM;
	d->was_tmpfile = false;
	if (le32_get(ci.d.nlink) == 0) {
		ret = tmpfile_is(tx, d->ino, &d->was_tmpfile);
		if (ret < 0 || !d->was_tmpfile)
			return ret < 0 ? ret : -ENOENT;
	}
	if (le32_get(ci.d.nlink) >= LINK_MAX_NR)
		return -EMLINK;
	if (le64_get(dir.d.next_readdir_pos) > DIRENT_LAST_POS)
		return -ENOSPC;
	ret = find_entry(tx, d->new_dir, &d->new_name, &e);
	if (ret != -ENOENT)
		return ret == 0 ? -EEXIST : ret;

	make_entry(&e, &d->new_name, d->ino, inode_mode(&ci), &dir);
	le64_add(&dir.d.size, d->new_name.len);
	inode_touch(&dir, INODE_MTIME | INODE_CTIME);
	add32(&ci.d.nlink, 1);
	inode_touch(&ci, INODE_CTIME);
	ret = put_entry(tx, d->new_dir, &e);
	if (ret == 0 && d->was_tmpfile)
		ret = tmpfile_end(tx, d->ino);
	if (ret == 0)
		ret = inode_put(tx, d->ino, &ci, false);
	if (ret == 0)
		ret = inode_put(tx, d->new_dir, &dir, false);
	d->ci = ci;
	return ret;
}

/* ---- unlink, rmdir --------------------------------------------------------------------------- */

/* The inode of an entry under WRITE; a missing one is corruption. */
static int get_target(struct op *op, struct itx *tx, const struct entry *e, uint64_t dir,
		      struct cinode *ci)
{
	uint64_t ino = le64_get(e->head.ino);
	int ret = lock_inode(op, ino, LOCK_MODE_WRITE);

	if (ret == 0)
		ret = inode_get(tx, ino, ci);
	if (ret == -ENOENT) {
		log_err("directory %llu has an entry for inode %llu, which does not exist: run "
			"scoutfsctl check",
			(unsigned long long)dir, (unsigned long long)ino);
		stats_inc(&tx->fsd->stats.corrupt_items);
		return -EIO;
	}
	return ret;
}

/* Whether an entry naming ci may go; `links` is what it has left when it has. */
static int may_unlink(struct itx *tx, uint64_t ino, const struct cinode *ci, bool want_dir)
{
	bool is_dir = S_ISDIR(inode_mode(ci));
	int ret;

	if (want_dir && !is_dir)
		return -ENOTDIR;
	if (!want_dir && is_dir)
		return -EISDIR;
	if (is_dir && inode_size(ci) != 0)
		return -ENOTEMPTY;
	ret = inode_may_change(tx, ino, ci, false);
	if (ret == 0 && (is_dir || le32_get(ci->d.nlink) == 1))
		ret = inode_may_delete(tx, ino, ci);
	return ret;
}

/* One link less; *last says whether it was the last: an orphan from then on (inode.c). */
static int drop_link(struct itx *tx, uint64_t ino, struct cinode *ci, bool *last)
{
	uint32_t nlink = S_ISDIR(inode_mode(ci)) ? 0 : le32_get(ci->d.nlink) - 1;

	ci->d.nlink = le32_of(nlink);
	inode_touch(ci, INODE_CTIME);
	*last = nlink == 0;
	return inode_put(tx, ino, ci, false);
}

static int run_remove(struct op *op, struct itx *tx, bool want_dir)
{
	struct dir_op *d = dir_op(op);
	struct cinode dir, ci;
	struct entry e;
	int ret;

	ret = txn_hold(op, tx, DIR_OP_ITEMS, false);
	if (ret == 0)
		ret = lock_inode(op, d->dir, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = get_dir(tx, d->dir, &dir);
	if (ret == 0)
		ret = inode_may_change(tx, d->dir, &dir, false);
	if (ret == 0)
		ret = find_entry(tx, d->dir, &d->name, &e);
	if (ret == 0)
		ret = get_target(op, tx, &e, d->dir, &ci);
	if (ret == 0)
		ret = may_unlink(tx, le64_get(e.head.ino), &ci, want_dir);
	if (ret < 0)
		return ret;

	d->ino = le64_get(e.head.ino);
	d->victim = d->ino;
	ret = remove_entry(tx, d->dir, &e);
	if (ret == 0)
		ret = drop_link(tx, d->ino, &ci, &d->lost_last_link);
	if (ret < 0)
		return ret;
	le64_add(&dir.d.size, -(uint64_t)d->name.len);
	if (S_ISDIR(inode_mode(&ci)))
		add32(&dir.d.nlink, -1);
	inode_touch(&dir, INODE_MTIME | INODE_CTIME);
	d->ci = ci;
	return inode_put(tx, d->dir, &dir, false);
}

int dir_run_unlink(struct op *op, struct itx *tx)
{
	return run_remove(op, tx, false);
}

int dir_run_rmdir(struct op *op, struct itx *tx)
{
	return run_remove(op, tx, true);
}

/* ---- rename ---------------------------------------------------------------------------------- */

/*
 * Whether `ino` is `dir` or above it.  The rename lock is held: no directory moves meanwhile.  -EIO: those above go in a
 * circle, which is seen when the one comes again that was met at the last power of two.
 */
static int is_at_or_above(struct op *op, struct itx *tx, uint64_t ino, uint64_t dir)
{
	uint64_t met = 0;

	for (uint64_t nr = 1; dir != ino && dir != ROOT_INO; nr++) {
		uint64_t at = dir;
		int ret = lock_inode(op, at, LOCK_MODE_READ);

		if (ret == 0)
			ret = dir_parent(tx, at, &dir);
		if (ret < 0)
			return ret;
		if (dir == met) {
			stats_inc(&op->fsd->stats.corrupt_items);
			log_err("directory %llu is below itself: run scoutfsctl check", (unsigned long long)dir);
			return -EIO;
		}
		if ((nr & (nr - 1)) == 0)
			met = dir;
		/* A deep tree has more groups than an operation has room for uses. */
		lock_release_inode(op, at);
	}
	return dir == ino;
}

struct rename_state {
	struct cinode dirs[2];
	struct cinode *from, *to;	/* the same one within a directory */
	struct cinode ci, victim;
	struct entry entry, replaced;
	bool replaces;
};

static int rename_load(struct op *op, struct itx *tx, struct rename_state *s)
{
	struct dir_op *d = dir_op(op);
	int ret = 0;

	if (d->dir != d->new_dir)
		ret = lock_rename(op);
	if (ret == 0)
		ret = lock_inode(op, d->dir, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = lock_inode(op, d->new_dir, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = get_dir(tx, d->dir, &s->dirs[0]);
	if (ret == 0 && d->dir != d->new_dir)
		ret = get_dir(tx, d->new_dir, &s->dirs[1]);
	if (ret < 0)
		return ret;
	s->from = &s->dirs[0];
	s->to = d->dir == d->new_dir ? s->from : &s->dirs[1];

	ret = find_entry(tx, d->dir, &d->name, &s->entry);
	if (ret == 0)
		ret = get_target(op, tx, &s->entry, d->dir, &s->ci);
	if (ret < 0)
		return ret;
	ret = find_entry(tx, d->new_dir, &d->new_name, &s->replaced);
	s->replaces = ret == 0;
	if (ret == 0)
		ret = get_target(op, tx, &s->replaced, d->new_dir, &s->victim);
	return ret == -ENOENT ? 0 : ret;
}

static int rename_may(struct op *op, struct itx *tx, struct rename_state *s)
{
	struct dir_op *d = dir_op(op);
	uint64_t ino = le64_get(s->entry.head.ino);
	bool is_dir = S_ISDIR(inode_mode(&s->ci));
	int ret;

	ret = inode_may_change(tx, d->dir, s->from, false);
	if (ret == 0)
		ret = inode_may_change(tx, d->new_dir, s->to, false);
	if (ret == 0)
		ret = inode_may_change(tx, ino, &s->ci, false);
	if (ret < 0)
		return ret;
	if (s->replaces) {
		if (d->flags & RENAME_NOREPLACE)
			return -EEXIST;
		ret = may_unlink(tx, le64_get(s->replaced.head.ino), &s->victim, is_dir);
		if (ret < 0)
			return ret;
	}
	if (is_dir && d->dir != d->new_dir) {
		ret = is_at_or_above(op, tx, ino, d->new_dir);
		if (ret != 0)
			return ret < 0 ? ret : -EINVAL;
		if (!s->replaces && le32_get(s->to->d.nlink) >= LINK_MAX_NR)
			return -EMLINK;
	}
	return le64_get(s->to->d.next_readdir_pos) > DIRENT_LAST_POS ? -ENOSPC : 0;
}

/* A directory's own links when it gets `come` for `gone`. */
static int exchange_links(struct cinode *dir, const struct cinode *gone, const struct cinode *come)
{
	int delta = S_ISDIR(inode_mode(come)) - S_ISDIR(inode_mode(gone));

	if (delta > 0 && le32_get(dir->d.nlink) >= LINK_MAX_NR)
		return -EMLINK;
	add32(&dir->d.nlink, delta);
	return 0;
}

/* Whether both may go where the other one is. */
static int exchange_may(struct op *op, struct itx *tx, struct rename_state *s)
{
	struct dir_op *d = dir_op(op);
	uint64_t ino = le64_get(s->entry.head.ino), other = le64_get(s->replaced.head.ino);
	int ret = inode_may_change(tx, d->dir, s->from, false);

	if (ret == 0)
		ret = inode_may_change(tx, d->new_dir, s->to, false);
	if (ret == 0)
		ret = inode_may_change(tx, ino, &s->ci, false);
	if (ret == 0)
		ret = inode_may_change(tx, other, &s->victim, false);
	if (ret < 0 || d->dir == d->new_dir)
		return ret;
	if (S_ISDIR(inode_mode(&s->ci)))
		ret = is_at_or_above(op, tx, ino, d->new_dir);
	if (ret == 0 && S_ISDIR(inode_mode(&s->victim)))
		ret = is_at_or_above(op, tx, other, d->dir);
	if (ret > 0)
		ret = -EINVAL;
	if (ret == 0)
		ret = exchange_links(s->from, &s->ci, &s->victim);
	return ret < 0 ? ret : exchange_links(s->to, &s->victim, &s->ci);
}

/* RENAME_EXCHANGE: two names change their inodes.  Whoever lists meanwhile sees each name once. */
static int rename_exchange(struct op *op, struct itx *tx, struct rename_state *s)
{
	struct dir_op *d = dir_op(op);
	uint64_t ino = le64_get(s->entry.head.ino), other = le64_get(s->replaced.head.ino);
	struct entry here = s->entry, there = s->replaced;
	int ret;

	if (!s->replaces)
		return -ENOENT;
	if (ino == other)
		return 0;
	ret = exchange_may(op, tx, s);
	if (ret < 0)
		return ret;
	here.head.ino = s->replaced.head.ino;
	here.head.type = s->replaced.head.type;
	there.head.ino = s->entry.head.ino;
	there.head.type = s->entry.head.type;
	ret = change_entry(tx, d->dir, &s->entry, &here);
	if (ret == 0)
		ret = change_entry(tx, d->new_dir, &s->replaced, &there);
	if (ret < 0)
		return ret;
	inode_touch(s->from, INODE_MTIME | INODE_CTIME);
	if (s->to != s->from)
		inode_touch(s->to, INODE_MTIME | INODE_CTIME);
	inode_touch(&s->ci, INODE_CTIME);
	inode_touch(&s->victim, INODE_CTIME);
	ret = inode_put(tx, ino, &s->ci, false);
	if (ret == 0)
		ret = inode_put(tx, other, &s->victim, false);
	if (ret == 0)
		ret = inode_put(tx, d->dir, s->from, false);
	if (ret == 0 && s->to != s->from)
		ret = inode_put(tx, d->new_dir, s->to, false);
	return ret;
}

int dir_run_rename(struct op *op, struct itx *tx)
{
	struct dir_op *d = dir_op(op);
	struct rename_state s;
	struct entry e;
	uint64_t ino;
	bool is_dir;
	int ret;

	if (d->flags != 0 && d->flags != RENAME_NOREPLACE && d->flags != RENAME_EXCHANGE)
		return -EINVAL;		/* no whiteouts */
	d->lost_last_link = false;	/* an earlier run may have come that far */
	ret = txn_hold(op, tx, 2 * DIR_OP_ITEMS, true);
	if (ret == 0)
		ret = rename_load(op, tx, &s);
	if (ret < 0)
		return ret;
	if (d->flags & RENAME_EXCHANGE)
		return rename_exchange(op, tx, &s);
	ino = le64_get(s.entry.head.ino);
	if (s.replaces && le64_get(s.replaced.head.ino) == ino)
		return d->flags & RENAME_NOREPLACE ? -EEXIST : 0;	/* two names of one inode */
	ret = rename_may(op, tx, &s);
	if (ret < 0)
		return ret;

	is_dir = S_ISDIR(inode_mode(&s.ci));
	d->ino = ino;
	if (s.replaces) {
		d->victim = le64_get(s.replaced.head.ino);
		ret = remove_entry(tx, d->new_dir, &s.replaced);
		if (ret == 0)
			ret = drop_link(tx, d->victim, &s.victim, &d->lost_last_link);
		if (ret < 0)
			return ret;
		if (is_dir)
			add32(&s.to->d.nlink, -1);
	} else {
		le64_add(&s.to->d.size, d->new_name.len);
	}
	ret = remove_entry(tx, d->dir, &s.entry);
	if (ret < 0)
		return ret;
	le64_add(&s.from->d.size, -(uint64_t)d->name.len);
	make_entry(&e, &d->new_name, ino, inode_mode(&s.ci), s.to);
	ret = put_entry(tx, d->new_dir, &e);
	if (ret < 0)
		return ret;
	if (is_dir) {
		add32(&s.from->d.nlink, -1);
		add32(&s.to->d.nlink, 1);
	}
	inode_touch(s.from, INODE_MTIME | INODE_CTIME);
	if (s.to != s.from)
		inode_touch(s.to, INODE_MTIME | INODE_CTIME);
	inode_touch(&s.ci, INODE_CTIME);
	ret = inode_put(tx, ino, &s.ci, false);
	if (ret == 0)
		ret = inode_put(tx, d->dir, s.from, false);
	if (ret == 0 && s.to != s.from)
		ret = inode_put(tx, d->new_dir, s.to, false);
	return ret;
}
