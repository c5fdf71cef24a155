/*
 * Requests of the kernel in, replies out.
 *
 * A handler copies what it was given into an operation (op.h) and starts it; the operation's done()
 * answers and frees.  Replies that name an inode count a look-up before they are sent, and take it
 * back if the kernel did not get them.  How long the kernel may trust a reply is asked when it is
 * made, while the operation still has its lock uses (design.md D4).
 *
 * Extended attributes are in fuse_xattr.c, statfs in fuse_statfs.c.
 */
#include "fuse_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "advisory.h"
#include "data.h"
#include "gonedir.h"
#include "kcache.h"
#include "listing.h"
#include "locks.h"
#include "log.h"
#include "lost.h"
#include "ops_attr.h"
#include "ops_dir.h"
#include "orphan.h"
#include "shown.h"

#define MAX_REQUEST_BYTES	(1u << 20)
#define FIRST_TO_DROP_WRITTEN	39u	/* FUSE 7.39, Linux 6.6: from the page cache, when it was written past it */

static bool get_name(fuse_req_t req, const char *from, struct name *to)
{
	size_t len = strlen(from);

	if (len > NAME_MAX_BYTES) {
		fuse_reply_err(req, ENAMETOOLONG);
		return false;
	}
	to->len = (uint16_t)len;
	memcpy(to->bytes, from, len + 1);
	return true;
}

/* ---- entries --------------------------------------------------------------------------------- */

static void forget(struct fsd *fsd, uint64_t ino, uint64_t nlookup)
{
	inode_forget(fsd, ino, nlookup);
	gonedir_forgotten(fsd, ino);
}

static void fill_entry(struct fsd *fsd, uint64_t dir, uint64_t ino, const struct cinode *ci,
		       struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = node_of_ino(ino);
	inode_to_stat(ci, ino, &e->attr);
	/* where it could say too little it is kept for no time, and a stat asks anew: so no view from before is needed */
	e->attr_timeout = shown_attr(fsd, ino, shown_view(fsd, ino), &e->attr, inode_attr_timeout(fsd, ino));
	e->entry_timeout = kcache_entry_timeout(fsd, dir);
}

/*
 * is_known: the kernel had the inode before.  Then it takes these attributes for the newest whenever it comes to read
 * the answer, though a revoke may have told it meanwhile that they are not; so they are kept for no time.
 */
static void reply_entry(fuse_req_t req, uint64_t dir, uint64_t ino, const struct cinode *ci, bool is_known)
{
	struct fsd *fsd = fsd_of(req);
	struct fuse_entry_param e;

	inode_give_begin(fsd, 0);
	inode_ref(fsd, ino, 1);
	fill_entry(fsd, dir, ino, ci, &e);
	if (is_known)
		e.attr_timeout = 0;
	if (fuse_reply_entry(req, &e) != 0)
		forget(fsd, ino, 1);
	inode_give_end(fsd);
}

static void done_entry(struct op *op, int err)
{
	struct dir_op *d = (struct dir_op *)op;

	fuse_op_done(d->req, op);
	if (!err && !d->new_dir && S_ISDIR(inode_mode(&d->ci)))
		gonedir_named(d->ino, d->dir, d->name.bytes, d->name.len);
	if (err)
		fuse_reply_err(d->req, -err);
	else
		reply_entry(d->req, d->new_dir ? d->new_dir : d->dir, d->ino, &d->ci, d->new_dir);
	free(d->req_data);
	free(d);
}

/* What an earlier process has made, as it is now. */
static uint64_t answer_ino(const struct op *op)
{
	const struct dir_op *d = (const struct dir_op *)op;

	return d->existing ? d->existing : d->ino;
}

static int run_made(struct op *op, struct itx *tx)
{
	struct dir_op *d = (struct dir_op *)op;
	int ret;

	d->ino = op->answer;
	ret = lock_inode(op, d->ino, LOCK_MODE_READ);
	if (ret == 0)
		ret = inode_get(tx, d->ino, &d->ci);
	return ret == -ENOENT ? -ESTALE : ret;
}

static const struct op_again again_entry = { .answer = answer_ino, .run = run_made };

static void done_lookup(struct op *op, int err)
{
	struct dir_op *d = (struct dir_op *)op;
	struct fuse_entry_param e = { 0 };

	/* a name that certainly is not there may be remembered as long as the directory's lock is
	 * held */
	e.entry_timeout = err == -ENOENT ? kcache_entry_timeout(op->fsd, d->dir) : 0;
	if (e.entry_timeout > 0) {
		fuse_op_done(d->req, op);
		fuse_reply_entry(d->req, &e);
		free(d);
		return;
	}
	done_entry(op, err);
}

/* An operation on one name of a directory. */
static void start_name_op(fuse_req_t req, fuse_ino_t parent, const char *name, const char *what, bool writes,
			  int (*run)(struct op *, struct itx *), void (*done)(struct op *, int))
{
	struct dir_op *d = new_op(req, sizeof(*d), what, writes, run, done);

	if (!d)
		return;
	d->req = req;
	d->dir = ino_of_node(parent);
	d->op.notes_itself = run == dir_run_lookup;
	if (!get_name(req, name, &d->name)) {
		free(d);
		return;
	}
	fuse_op_start(req, &d->op);
}

static void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	start_name_op(req, parent, name, "lookup", false, dir_run_lookup, done_lookup);
}

static struct dir_op *create_op(fuse_req_t req, fuse_ino_t parent, const char *name, uint32_t mode,
				uint64_t rdev, const char *what, void (*done)(struct op *, int))
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct dir_op *d = new_op(req, sizeof(*d), what, true, dir_run_create, done);

	if (!d)
		return NULL;
	d->op.again = &again_entry;
	d->req = req;
	d->dir = ino_of_node(parent);
	d->mode = mode;
	d->rdev = rdev;
	d->umask = ctx->umask;
	d->uid = ctx->uid;
	d->gid = ctx->gid;
	if (!get_name(req, name, &d->name)) {
		free(d);
		return NULL;
	}
	return d;
}

static void fs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct dir_op *d = create_op(req, parent, name, mode, rdev, "mknod", done_entry);

	if (d)
		fuse_op_start(req, &d->op);
}

static void fs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct dir_op *d =
		create_op(req, parent, name, S_IFDIR | (mode & 07777), 0, "mkdir", done_entry);

	if (d)
		fuse_op_start(req, &d->op);
}

static void fs_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	struct dir_op *d = create_op(req, parent, name, S_IFLNK | 0777, 0, "symlink", done_entry);

	if (!d)
		return;
	d->umask = 0;
	d->target = d->req_data = strdup(link);
	if (!d->target) {
		fuse_reply_err(req, ENOMEM);
		free(d);
		return;
	}
	fuse_op_start(req, &d->op);
}

/*
 * A write that reaches over the end of a page which the kernel does not have goes into its cache by two requests, and another
 * node's append may come between.  Past the cache it is one.  Who cannot read cannot map either, so nothing else is lost.
 */
static void open_past_cache(struct fsd *fsd, struct fuse_file_info *fi)
{
	if (!fsd->appends_past_cache || !(fi->flags & O_APPEND) || (fi->flags & O_ACCMODE) != O_WRONLY)
		return;
	fi->direct_io = 1;
	fi->fh |= FH_PAST_CACHE;
}

static void done_create(struct op *op, int err)
{
	struct dir_op *d = (struct dir_op *)op;
	struct fuse_file_info *fi = d->req_data;
	struct fuse_entry_param e;
	uint64_t ino = answer_ino(op);

	fuse_op_done(d->req, op);
	/* the kernel would take the attributes for newer than whatever it has learnt since */
	if (err == 0 && d->existing && (atomic_load(&op->fsd->is_resumed) || inode_in_use(op->fsd, ino)))
		err = -ESTALE;
	if (err) {
		fuse_reply_err(d->req, -err);
	} else {
		fill_entry(op->fsd, d->dir, ino, &d->ci, &e);
		fi->keep_cache = 1;	/* the kernel does not know it, and has no pages of it */
		open_past_cache(op->fsd, fi);
		inode_ref(op->fsd, ino, 1);
		inode_open(op->fsd, ino);
		lost_note_open(op->fsd, fi->flags);
		shown_open(op->fsd, ino, fi->flags);
		if (fuse_reply_create(d->req, &e, fi) != 0) {
			lost_note_release(op->fsd, fi->flags);
			shown_release(op->fsd, ino, fi->flags, false);
			inode_release(op->fsd, ino);
			inode_forget(op->fsd, ino, 1);
		}
	}
	free(fi);
	free(d);
}

static void done_tmpfile(struct op *op, int err)
{
	struct dir_op *d = (struct dir_op *)op;
	struct fuse_file_info *fi = d->req_data;
	struct fuse_entry_param e;

	fuse_op_done(d->req, op);
	if (err) {
		if (d->is_pinned)
			inode_release(op->fsd, d->ino);
		fuse_reply_err(d->req, -err);
	} else {
		inode_give_begin(op->fsd, 0);
		inode_ref(op->fsd, d->ino, 1);
		if (!d->is_pinned)
			inode_open(op->fsd, d->ino);
		inode_unlinked(op->fsd, d->ino);
		fill_entry(op->fsd, d->dir, d->ino, &d->ci, &e);
		e.entry_timeout = 0.0;
		fi->keep_cache = 1;
		open_past_cache(op->fsd, fi);
		lost_note_open(op->fsd, fi->flags);
		shown_open(op->fsd, d->ino, fi->flags);
		if (fuse_reply_create(d->req, &e, fi) != 0) {
			lost_note_release(op->fsd, fi->flags);
			shown_release(op->fsd, d->ino, fi->flags, false);
			inode_release(op->fsd, d->ino);
			inode_forget(op->fsd, d->ino, 1);
		}
		inode_give_end(op->fsd);
	}
	free(fi);
	free(d);
}

/* O_TMPFILE, which comes as a CREATE (kcache.c). */
static bool is_tmpfile(void)
{
	return fuse_request()->opcode == FUSE_TMPFILE_OPCODE;
}

static void fs_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct dir_op *d =
		create_op(req, parent, name, S_IFREG | (mode & 07777), 0, "create", done_create);
	struct fuse_file_info *copy = d ? malloc(sizeof(*copy)) : NULL;

	if (!d)
		return;
	if (!copy) {
		fuse_reply_err(req, ENOMEM);
		free(d);
		return;
	}
	*copy = *fi;
	copy->fh = advisory_new_fh(fsd_of(req));
	d->req_data = copy;
	d->may_exist = !(fi->flags & O_EXCL);
	d->open_flags = fi->flags;
	if (is_tmpfile()) {
		d->op.name = "tmpfile";
		d->op.run = dir_run_tmpfile;
		d->op.done = done_tmpfile;
	}
	fuse_op_start(req, &d->op);
}

static void done_link(struct op *op, int err)
{
	struct dir_op *d = (struct dir_op *)op;

	if (!err && d->was_tmpfile)
		inode_linked(op->fsd, d->ino);
	done_entry(op, err);
}

static void fs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	struct dir_op *d = new_op(req, sizeof(*d), "link", true, dir_run_link, done_link);

	if (!d)
		return;
	d->op.again = &again_entry;
	d->req = req;
	d->ino = ino_of_node(ino);
	d->new_dir = ino_of_node(new_parent);
	if (!get_name(req, new_name, &d->new_name)) {
		free(d);
		return;
	}
	fuse_op_start(req, &d->op);
}

static void done_remove(struct op *op, int err)
{
	struct dir_op *d = (struct dir_op *)op;

	fuse_op_done(d->req, op);
	fuse_reply_err(d->req, -err);
	if (!err && d->lost_last_link)
		inode_unlinked(op->fsd, d->victim);
	if (!err && d->new_dir)
		gonedir_moved(d->ino, d->new_dir, d->new_name.bytes, d->new_name.len);
	free(d);
}

static void fs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	start_name_op(req, parent, name, "unlink", true, dir_run_unlink, done_remove);
}

static void fs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	start_name_op(req, parent, name, "rmdir", true, dir_run_rmdir, done_remove);
}

static void fs_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		      const char *new_name, unsigned flags)
{
	struct dir_op *d = new_op(req, sizeof(*d), "rename", true, dir_run_rename, done_remove);

	if (!d)
		return;
	d->req = req;
	d->dir = ino_of_node(parent);
	d->new_dir = ino_of_node(new_parent);
	d->flags = flags;
	if (!get_name(req, name, &d->name) || !get_name(req, new_name, &d->new_name)) {
		free(d);
		return;
	}
	fuse_op_start(req, &d->op);
}

static void fs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	forget(fsd_of(req), ino_of_node(ino), nlookup);
	fuse_reply_none(req);
}

static void fs_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget(fsd_of(req), ino_of_node(forgets[i].ino), forgets[i].nlookup);
	fuse_reply_none(req);
}

/* ---- attributes ------------------------------------------------------------------------------ */

static const struct op_again again_attr = { .run = attr_run_get };

static void done_attr(struct op *op, int err)
{
	struct attr_op *a = (struct attr_op *)op;
	struct stat st;
	double timeout;

	fuse_op_done(a->req, op);
	if (err) {
		fuse_reply_err(a->req, -err);
	} else {
		inode_to_stat(&a->ci, a->ino, &st);
		inode_give_begin(op->fsd, 0);
		timeout = shown_attr(op->fsd, a->ino, a->view, &st, inode_attr_timeout(op->fsd, a->ino));
		if (op->again == &again_attr)
			timeout = 0;	/* of a change: as reply_entry's is_known */
		fuse_reply_attr(a->req, &st, timeout);
		inode_give_end(op->fsd);
	}
	free(a);
}

static void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	bool is_statx = fuse_request()->opcode == FUSE_STATX_OPCODE;
	struct attr_op *a = new_op(req, sizeof(*a), "getattr", false, attr_run_get,
				   is_statx ? fuse_done_statx : done_attr);

	(void)fi;
	if (!a)
		return;
	a->req = req;
	a->ino = ino_of_node(ino);
	a->view = shown_view(fsd_of(req), a->ino);
	a->op.notes_itself = true;
	fuse_op_start(req, &a->op);
}

static void fs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	struct attr_op *a = new_op(req, sizeof(*a), "setattr", true, attr_run_set, done_attr);

	(void)fi;
	if (!a)
		return;
	a->req = req;
	a->ino = ino_of_node(ino);
	a->view = shown_view(fsd_of(req), a->ino);
	a->op.again = &again_attr;
	a->op.keeps_pages = to_set & FUSE_SET_ATTR_SIZE ? a->ino : 0;
	a->attr = *attr;
	a->to_set = to_set;
	a->by = (struct asker){ fuse_req_ctx(req)->uid, fuse_req_ctx(req)->pid };
	a->kill_suidgid = fuse_request()->kill_suidgid;
	fuse_op_start(req, &a->op);
}

static void done_readlink(struct op *op, int err)
{
	struct readlink_op *r = (struct readlink_op *)op;

	busy_end(&r->busy);
	fuse_op_done(r->req, op);
	if (err)
		fuse_reply_err(r->req, -err);
	else
		fuse_reply_readlink(r->req, r->target);
	free(r);
}

static void fs_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct readlink_op *r =
		new_op(req, sizeof(*r), "readlink", false, attr_run_readlink, done_readlink);

	if (!r)
		return;
	r->req = req;
	r->ino = ino_of_node(ino);
	busy_begin(&r->busy, BUSY_READ, r->ino, 0, SMALL_SIZE, NULL);
	fuse_op_start(req, &r->op);
}

/* ---- open files ------------------------------------------------------------------------------ */

struct open_op {
	struct attr_op a;
	struct fuse_file_info fi;
};

/* Or blocks that are prepared and not written; while a truncation goes on it is not known. */
static bool has_holes(const struct cinode *ci)
{
	uint64_t blocks = (inode_size(ci) + SMALL_SIZE - 1) >> SMALL_SHIFT;

	return blocks > le64_get(ci->d.online_blocks) + le64_get(ci->d.offline_blocks) ||
	       (le32_get(ci->d.flags) & INODE_FLAG_TRUNCATE);
}

static void done_open(struct op *op, int err)
{
	struct open_op *o = (struct open_op *)op;

	fuse_op_done(o->a.req, op);
	if (err) {
		shown_release(op->fsd, o->a.ino, o->fi.flags, false);
		fuse_reply_err(o->a.req, -err);
	} else {
		/* pages and listings stay while the lock is held: whoever takes it away drops them
		 * (D4) */
		o->fi.keep_cache = lock_kernel_timeout(op->fsd, o->a.ino) > 0;
		o->fi.cache_readdir = o->fi.keep_cache;
		if (shown_is_mappable(o->fi.flags) && has_holes(&o->a.ci))
			o->fi.keep_cache = 0;	/* from here on it is known of which the kernel has pages */
		open_past_cache(op->fsd, &o->fi);
		inode_open(op->fsd, o->a.ino);
		lost_note_open(op->fsd, o->fi.flags);
		if (fuse_reply_open(o->a.req, &o->fi) != 0) {
			lost_note_release(op->fsd, o->fi.flags);
			shown_release(op->fsd, o->a.ino, o->fi.flags, false);
			inode_release(op->fsd, o->a.ino);
		}
	}
	free(o);
}

static void open_any(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, const char *what)
{
	struct open_op *o = new_op(req, sizeof(*o), what, false, attr_run_get, done_open);

	if (!o)
		return;
	o->a.req = req;
	o->a.ino = ino_of_node(ino);
	o->fi = *fi;
	o->a.op.notes_itself = true;
	o->fi.fh = advisory_new_fh(fsd_of(req));
	/* first: of a hole that comes after the run, and is read before the answer, the kernel keeps the page */
	shown_open(o->a.op.fsd, o->a.ino, fi->flags);
	fuse_op_start(req, &o->a.op);
}

static void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	open_any(req, ino, fi, "open");
}

static void fs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	open_any(req, ino, fi, "opendir");
}

static void fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	advisory_released(fsd_of(req), ino_of_node(ino), fi->fh);
	listing_closed(fi->fh);
	lost_note_release(fsd_of(req), fi->flags);
	shown_release(fsd_of(req), ino_of_node(ino), fi->flags, fuse_request()->unique & FUSE_UNIQUE_SENT_AGAIN);
	inode_release(fsd_of(req), ino_of_node(ino));
	fuse_reply_err(req, 0);
}

/* Nothing is kept back until close but POSIX locks. */
static void fs_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	advisory_flush(fsd_of(req), req, ino_of_node(ino), fi->lock_owner);
}

/* ---- advisory locks -------------------------------------------------------------------------- */

/* False: answered. */
static bool adv_ask(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi, const struct flock *lock,
		    struct advisory_ask *ask)
{
	*ask = (struct advisory_ask){ .ino = ino_of_node(ino), .owner = fi->lock_owner, .fh = fi->fh,
				      .first = (uint64_t)lock->l_start, .pid = (uint32_t)lock->l_pid,
				      .kind = MSG_ADV_POSIX };
	/* The kernel gives the start, never below 0, and a length, 0 to the end. */
	ask->last = lock->l_len ? ask->first + (uint64_t)lock->l_len - 1 : INT64_MAX;
	ask->type = lock->l_type == F_RDLCK ? ADV_READ : lock->l_type == F_WRLCK ? ADV_WRITE : ADV_UNLOCK;
	if (lock->l_start >= 0 && ask->last <= INT64_MAX && ask->first <= ask->last)
		return true;
	fuse_reply_err(req, EINVAL);
	return false;
}

static void fs_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	struct advisory_ask ask;

	if (!adv_ask(req, ino, fi, lock, &ask))
		return;
	ask.wait = sleep;
	advisory_lock(fsd_of(req), req, &ask);
}

static void fs_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	struct advisory_ask ask;

	if (!adv_ask(req, ino, fi, lock, &ask))
		return;
	if (ask.type == ADV_UNLOCK)
		fuse_reply_err(req, EINVAL);
	else
		advisory_test(fsd_of(req), req, &ask);
}

static void fs_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	struct advisory_ask ask = { .ino = ino_of_node(ino), .owner = fi->lock_owner, .fh = fi->fh,
				    .last = INT64_MAX, .pid = (uint32_t)fuse_req_ctx(req)->pid,
				    .kind = MSG_ADV_FLOCK, .wait = !(op & LOCK_NB) };

	ask.type = (op & ~LOCK_NB) == LOCK_SH ? ADV_READ : (op & ~LOCK_NB) == LOCK_EX ? ADV_WRITE : ADV_UNLOCK;
	advisory_lock(fsd_of(req), req, &ask);
}

struct fsync_op {
	struct op op;
	fuse_req_t req;
	uint64_t ino, gen;
	int err;	/* of a write that was answered before it could be applied */
};

static int fsync_run(struct op *op, struct itx *tx)
{
	struct fsync_op *s = (struct fsync_op *)op;

	/* once: writes that come while it waits for the commit are not its business */
	if (!s->gen) {
		int ret = data_wait_pending(op, s->ino, true);

		if (ret == OP_PARKED)
			return ret;
		if (ret < 0)
			s->err = ret;
	}
	return txn_wait_committed(op, tx, &s->gen);
}

static void done_fsync(struct op *op, int err)
{
	struct fsync_op *s = (struct fsync_op *)op;

	fuse_op_done(s->req, op);
	fuse_reply_err(s->req, err ? -err : -s->err);
	free(s);
}

bool fuse_is_fsync_of(const struct op *op, uint64_t ino)
{
	return op->run == fsync_run && ((const struct fsync_op *)op)->ino == ino;
}

/* fsync(2) of anything commits everything the mount has done until now. */
static void fs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fsync_op *s = new_op(req, sizeof(*s), "fsync", false, fsync_run, done_fsync);

	(void)datasync;
	(void)fi;
	if (!s)
		return;
	s->req = req;
	s->ino = ino_of_node(ino);
	fuse_op_start(req, &s->op);
}

static struct file_req *file_req(fuse_req_t req, fuse_ino_t ino, uint64_t off, uint64_t len,
				 struct fuse_file_info *fi)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct file_req *rq = calloc(1, sizeof(*rq));

	stats_inc(&fsd_of(req)->stats.fuse_requests);
	if (!rq) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	rq->req = req;
	rq->ino = ino_of_node(ino);
	rq->offset = off;
	rq->len = len;
	rq->flags = fi ? fi->flags : 0;
	rq->uid = ctx->uid;
	rq->gid = ctx->gid;
	rq->pid = ctx->pid;
	return rq;
}

static void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct file_req *rq = file_req(req, ino, (uint64_t)off, size, fi);

	if (rq)
		op_read(fsd_of(req), rq);
}

static void fs_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *bufv, off_t off,
			 struct fuse_file_info *fi)
{
	size_t size = fuse_buf_size(bufv);
	struct fuse_bufvec dst = FUSE_BUFVEC_INIT(size);
	struct file_req *rq = file_req(req, ino, (uint64_t)off, size, fi);
	ssize_t n;

	if (!rq)
		return;
	rq->write_cache = fi->writepage;
	rq->kill_suidgid = fuse_request()->kill_suidgid;
	rq->past_cache = !rq->write_cache && fi->fh & FH_PAST_CACHE;
	rq->buf = dst.buf[0].mem = malloc(size ? size : 1);
	if (!rq->buf) {
		fuse_reply_err(req, ENOMEM);
		free(rq);
		return;
	}
	n = fuse_buf_copy(&dst, bufv, 0);
	if (n != (ssize_t)size) {
		fuse_reply_err(req, n < 0 ? (int)-n : EIO);
		free(rq->buf);
		free(rq);
		return;
	}
	op_write(fsd_of(req), rq);
}

static void fs_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	struct file_req *rq = file_req(req, ino, (uint64_t)off, 0, fi);

	if (!rq)
		return;
	rq->flags = whence;
	op_lseek(fsd_of(req), rq);
}

static void fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	struct file_req *rq = file_req(req, ino, (uint64_t)off, (uint64_t)len, fi);

	if (!rq)
		return;
	rq->flags = mode;
	rq->kill_suidgid = rq->uid != 0;	/* the kernel does not say */
	op_fallocate(fsd_of(req), rq);
}

static void fs_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
		     struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size,
		     size_t out_size)
{
	stats_inc(&fsd_of(req)->stats.fuse_requests);
	(void)fi;
	op_ioctl(fsd_of(req), req, ino_of_node(ino), cmd, arg, flags, in, in_size, out_size);
}

/* ---- listings -------------------------------------------------------------------------------- */

/* Entries of at least 24 + 8 bytes (plus: 128 more) fit a reply: how many look-ups it can count. */
#define READDIRPLUS_ENTRY_BYTES	152

static void done_readdir(struct op *op, int err)
{
	struct readdir_op *r = (struct readdir_op *)op;

	fuse_op_done(r->req, op);
	if (!err)
		listing_gave(r->fh, r->off, r->reached);
	if (err) {
		fuse_reply_err(r->req, -err);
		for (size_t i = 0; i < r->looked_up_nr; i++)
			gonedir_forgotten(op->fsd, r->looked_up[i]);
	} else {
		for (size_t i = 0; i < r->looked_up_nr; i++)
			inode_ref(op->fsd, r->looked_up[i], 1);
		if (fuse_reply_buf(r->req, r->buf, r->used) != 0)
			for (size_t i = 0; i < r->looked_up_nr; i++)
				forget(op->fsd, r->looked_up[i], 1);
	}
	free(r->looked_up);
	free(r->buf);
	free(r);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, uint64_t fh, bool plus)
{
	struct readdir_op *r = new_op(req, sizeof(*r), "readdir", false, readdir_run, done_readdir);

	if (!r)
		return;
	r->req = req;
	r->ino = ino_of_node(ino);
	r->fh = fh;
	r->off = (uint64_t)off;
	r->size = size;
	r->plus = plus;
	r->buf = malloc(size ? size : 1);
	if (plus) {
		r->looked_up_max = size / READDIRPLUS_ENTRY_BYTES + 1;
		r->looked_up = calloc(r->looked_up_max, sizeof(*r->looked_up));
	}
	if (!r->buf || (plus && !r->looked_up)) {
		fuse_reply_err(req, ENOMEM);
		free(r->looked_up);
		free(r->buf);
		free(r);
		return;
	}
	fuse_op_start(req, &r->op);
}

static void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi->fh, false);
}

static void fs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			   struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi->fh, true);
}

/* ---- the session ----------------------------------------------------------------------------- */

static void fs_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fsd *fsd = userdata;
	unsigned want = FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK | FUSE_CAP_ASYNC_READ |
			FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
			FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_IOCTL_DIR |
			FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_POSIX_LOCKS |
			FUSE_CAP_FLOCK_LOCKS;

	if (fsd->conf.acl)
		want |= FUSE_CAP_POSIX_ACL;
	/*
	 * libfuse asks for some by itself; what is not named here is off: the kernel must own no state.  And with
	 * FUSE_CAP_ASYNC_DIO it sends the parts of an append past its cache all at once, which then come in any order.
	 */
	conn->want = conn->capable & want;
	fsd->appends_past_cache = conn->proto_minor >= FIRST_TO_DROP_WRITTEN;
	conn->max_write = MAX_REQUEST_BYTES;
	conn->max_readahead = MAX_REQUEST_BYTES;
	/* A read that waits for a lock keeps its place, and a write-back that a revoke waits for must always get one. */
	conn->max_background = 1024;
	conn->congestion_threshold = 48;
	conn->time_gran = 1;
}

const struct fuse_lowlevel_ops kcache_fuse_ops = {
	.init = fs_init,
	.lookup = fs_lookup,
	.forget = fs_forget,
	.forget_multi = fs_forget_multi,
	.getattr = fs_getattr,
	.setattr = fs_setattr,
	.readlink = fs_readlink,
	.mknod = fs_mknod,
	.mkdir = fs_mkdir,
	.unlink = fs_unlink,
	.rmdir = fs_rmdir,
	.symlink = fs_symlink,
	.rename = fs_rename,
	.link = fs_link,
	.open = fs_open,
	.read = fs_read,
	.write_buf = fs_write_buf,
	.flush = fs_flush,
	.getlk = fs_getlk,
	.setlk = fs_setlk,
	.flock = fs_flock,
	.release = fs_release,
	.fsync = fs_fsync,
	.opendir = fs_opendir,
	.readdir = fs_readdir,
	.readdirplus = fs_readdirplus,
	.releasedir = fs_release,
	.fsyncdir = fs_fsync,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.create = fs_create,
	.fallocate = fs_fallocate,
	.lseek = fs_lseek,
	.ioctl = fs_ioctl,
};
