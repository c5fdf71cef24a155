/*
 * Extended attributes: requests of the kernel in, replies out.
 *
 * Names and values are bounded and copied here; what they mean is in xattr.h and acl.h.
 */
#include "fuse_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ops_attr.h"
#include "xattr.h"

/* Ends get and list: `size` 0 asks for the length, a smaller one than needed is ERANGE. */
static void done_xattr_read(struct op *op, int err)
{
	struct xattr_op *x = (struct xattr_op *)op;
	size_t size = (size_t)x->flags;

	fuse_op_done(x->req, op);
	if (err)
		fuse_reply_err(x->req, -err);
	else if (size == 0)
		fuse_reply_xattr(x->req, x->len);
	else if (x->len > size)
		fuse_reply_err(x->req, ERANGE);
	else
		fuse_reply_buf(x->req, x->val, x->len);
	free(x->val);
	free(x);
}

static void done_xattr_change(struct op *op, int err)
{
	struct xattr_op *x = (struct xattr_op *)op;

	fuse_op_done(x->req, op);
	fuse_reply_err(x->req, -err);
	free(x->groups);
	free(x->val);
	free(x);
}

/* too_long: what a name over 255 bytes is answered with (interface 2.1). */
static struct xattr_op *xattr_op_of(fuse_req_t req, fuse_ino_t ino, const char *name,
				    size_t val_bytes, int too_long, const char *what, bool writes,
				    int (*run)(struct op *, struct itx *),
				    void (*done)(struct op *, int))
{
	struct xattr_op *x;

	if (strlen(name) > XATTR_NAME_MAX_BYTES) {
		fuse_reply_err(req, too_long);
		return NULL;
	}
	x = new_op(req, sizeof(*x), what, writes, run, done);
	if (!x)
		return NULL;
	x->req = req;
	x->ino = ino_of_node(ino);
	x->by = (struct asker){ fuse_req_ctx(req)->uid, fuse_req_ctx(req)->pid };
	strcpy(x->name, name);
	x->val = val_bytes ? malloc(val_bytes) : NULL;
	if (val_bytes && !x->val) {
		fuse_reply_err(req, ENOMEM);
		free(x);
		return NULL;
	}
	return x;
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct xattr_op *x = xattr_op_of(req, ino, name, XATTR_VALUE_MAX_BYTES, ENODATA, "getxattr",
					 false, xattr_run_get, done_xattr_read);

	if (!x)
		return;
	x->flags = (int)size;
	fuse_op_start(req, &x->op);
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct xattr_op *x = xattr_op_of(req, ino, "", XATTR_LIST_BYTES, ENODATA, "listxattr",
					 false, xattr_run_list, done_xattr_read);

	if (!x)
		return;
	x->flags = (int)size;
	fuse_op_start(req, &x->op);
}

/*
 * The kernel says who may keep setgid while the mode follows an ACL only to those who negotiate
 * FUSE_SETXATTR_EXT, which libfuse 3.14 does not.  So the groups of the thread are looked up.
 */
static int get_groups(fuse_req_t req, struct xattr_op *x)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	int nr;

	if (ctx->uid == 0)
		return 0;
	nr = fuse_req_getgroups(req, 0, NULL);
	if (nr < 0)
		nr = 0;		/* of another process namespace: its primary group must do */
	x->groups = calloc((size_t)nr + 1, sizeof(*x->groups));
	if (!x->groups)
		return -ENOMEM;
	if (nr > 0) {
		int got = fuse_req_getgroups(req, nr, x->groups);

		x->groups_nr = got < 0 ? 0 : got < nr ? (size_t)got : (size_t)nr;
	}
	x->groups[x->groups_nr++] = ctx->gid;
	return 0;
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags)
{
	struct xattr_op *x;

	if (size > XATTR_VALUE_MAX_BYTES) {
		fuse_reply_err(req, E2BIG);
		return;
	}
	x = xattr_op_of(req, ino, name, size, ERANGE, "setxattr", true, xattr_run_set,
			done_xattr_change);
	if (!x)
		return;
	if (size)
		memcpy(x->val, value, size);
	x->len = size;
	x->flags = flags;
	if (strcmp(name, ACL_ACCESS_NAME) == 0 && get_groups(req, x) < 0) {
		fuse_reply_err(req, ENOMEM);
		free(x->val);
		free(x);
		return;
	}
	fuse_op_start(req, &x->op);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct xattr_op *x = xattr_op_of(req, ino, name, 0, ENODATA, "removexattr", true,
					 xattr_run_remove, done_xattr_change);

	if (x)
		fuse_op_start(req, &x->op);
}
