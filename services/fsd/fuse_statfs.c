/*
 * statfs: the leader is asked how much is free, the answer is put into the kernel's words.
 *
 * A request that waits for the leader stays killable; what a program may still write is what this
 * mount's open transaction leaves it (txn.h), not what is free on the devices.
 */
#include "fuse_impl.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "net_client.h"
#include "txn.h"

#define BLOCKS_PER_LARGE	(LARGE_SIZE / SMALL_SIZE)
#define META_BYTES_PER_FILE	2048	/* interface 4.1: files = metadata bytes / 2048 */

/*
 * The leader's answer outlives who asked if that one is killed first: it belongs to both.
 */
struct statfs_op {
	struct op op;
	fuse_req_t req;
	struct statfs_call *call;
	struct msg_statfs_reply m;
	int err;
	bool answered;
};
struct statfs_call {
	struct statfs_op *asks;		/* NULL: nobody any more */
};
static pthread_mutex_t statfs_mutex = PTHREAD_MUTEX_INITIALIZER;

static void statfs_answer(void *arg, int err, unsigned type, const void *reply)
{
	struct statfs_call *call = arg;
	struct statfs_op *s;

	(void)type;
	pthread_mutex_lock(&statfs_mutex);
	s = call->asks;
	if (s) {
		s->call = NULL;
		s->err = err;
		s->answered = true;
		if (!err)
			s->m = *(const struct msg_statfs_reply *)reply;
	}
	pthread_mutex_unlock(&statfs_mutex);
	free(call);
	if (s)
		op_wake(&s->op);
}

static bool statfs_cancel(struct op *op)
{
	struct statfs_op *s = (struct statfs_op *)op;
	bool waits;

	pthread_mutex_lock(&statfs_mutex);
	waits = s->call;
	if (waits)
		s->call->asks = NULL;
	s->call = NULL;
	pthread_mutex_unlock(&statfs_mutex);
	return waits;
}

static void statfs_ask(struct op *op)
{
	struct statfs_op *s = (struct statfs_op *)op;
	struct statfs_call *call = malloc(sizeof(*call));
	struct net_client *net = op->fsd->net;
	int ret = -ENOMEM;
	bool is_ours;

	if (call) {
		call->asks = s;
		s->call = call;
		atomic_store(&op->cancel, statfs_cancel);
		ret = net_client_call(net, MSG_statfs, NULL, statfs_answer, call);
	}
	if (ret == 0)
		return;
	/* No answer will come; but a cancel may have taken the operation away, which is gone then. */
	pthread_mutex_lock(&statfs_mutex);
	is_ours = !call || call->asks;
	if (is_ours)
		s->call = NULL;
	pthread_mutex_unlock(&statfs_mutex);
	free(call);
	if (is_ours)
		op_fail(op, ret);
}

static int statfs_run(struct op *op, struct itx *tx)
{
	struct statfs_op *s = (struct statfs_op *)op;

	(void)tx;
	return s->answered ? s->err : op_park(op, statfs_ask);
}

static void done_statfs(struct op *op, int err)
{
	struct statfs_op *s = (struct statfs_op *)op;
	const struct msg_statfs_reply *m = &s->m;
	struct statvfs st = { 0 };
	struct txn_status ts;

	fuse_op_done(s->req, op);
	if (err) {
		fuse_reply_err(s->req, -err);
	} else {
		st.f_bsize = st.f_frsize = SMALL_SIZE;
		st.f_blocks = m->total_data + m->total_meta * BLOCKS_PER_LARGE;
		st.f_bfree = m->free_data + m->free_meta * BLOCKS_PER_LARGE;
		/* What can be written: no metadata, and nothing when metadata for it would not be given. */
		txn_get_status(op->fsd, &ts);
		st.f_bavail = ts.is_low ? 0 : m->free_data;
		st.f_files = m->total_meta * (LARGE_SIZE / META_BYTES_PER_FILE);
		if (!ts.is_low)
			st.f_ffree = m->free_meta * (LARGE_SIZE / META_BYTES_PER_FILE);
		st.f_favail = st.f_ffree;
		st.f_fsid = m->fsid;
		st.f_namemax = NAME_MAX_BYTES;
		fuse_reply_statfs(s->req, &st);
	}
	free(s);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statfs_op *s = new_op(req, sizeof(*s), "statfs", false, statfs_run, done_statfs);

	(void)ino;
	if (!s)
		return;
	s->req = req;
	fuse_op_start(req, &s->op);
}
