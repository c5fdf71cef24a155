/*
 * nullfs MNT: a FUSE filesystem that answers every request at once and keeps nothing.
 *
 * Its rates are the ceiling of any FUSE filesystem on the machine it runs on.  A name that begins with
 * 'd' looks up as a directory, every other one as an empty file; nothing that was made is remembered but
 * how many files each directory got, so that listings have a length.
 */
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DIR_BIT		(1ul << 40)
#define CACHE_SECONDS	3600
#define MADE_NR		65536

static atomic_ulong next_ino = 2;
static atomic_int made[MADE_NR];	/* files created, by directory number */
static char zeroes[1 << 20];

static mode_t mode_of(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID || ino & DIR_BIT ? S_IFDIR | 0755 : S_IFREG | 0644;
}

static void fill_stat(fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	st->st_mode = mode_of(ino);
	st->st_nlink = 1;
}

static void fill_entry(fuse_ino_t ino, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = ino;
	e->entry_timeout = e->attr_timeout = CACHE_SECONDS;
	fill_stat(ino, &e->attr);
}

static fuse_ino_t new_ino(bool dir)
{
	fuse_ino_t ino = atomic_fetch_add(&next_ino, 1) | (dir ? DIR_BIT : 0);

	if (dir)
		made[ino % MADE_NR] = 0;
	return ino;
}

static void reply_entry(fuse_req_t req, fuse_ino_t ino)
{
	struct fuse_entry_param e;

	fill_entry(ino, &e);
	fuse_reply_entry(req, &e);
}

static void null_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->want |= conn->capable & (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_READ);
	conn->max_write = sizeof(zeroes);
}

static void null_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	if (name[0] == 'd')
		reply_entry(req, new_ino(true));
	else
		fuse_reply_err(req, ENOENT);
}

static void null_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	fill_stat(ino, &st);
	fuse_reply_attr(req, &st, CACHE_SECONDS);
}

static void null_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	(void)attr;
	(void)to_set;
	null_getattr(req, ino, fi);
}

static void null_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent;
	(void)name;
	(void)mode;
	reply_entry(req, new_ino(true));
}

static void null_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param e;

	(void)name;
	(void)mode;
	made[parent % MADE_NR]++;
	fill_entry(new_ino(false), &e);
	fuse_reply_create(req, &e, fi);
}

static void null_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	(void)name;
	fuse_reply_err(req, 0);
}

static void null_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fuse_reply_open(req, fi);
}

static void null_done(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static void null_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	null_done(req, ino, fi);
}

static void null_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)ino;
	(void)off;
	(void)fi;
	fuse_reply_buf(req, zeroes, size < sizeof(zeroes) ? size : sizeof(zeroes));
}

static void null_write(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *buf, off_t off, struct fuse_file_info *fi)
{
	(void)ino;
	(void)off;
	(void)fi;
	fuse_reply_write(req, fuse_buf_size(buf));
}

static void null_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	char *buf = malloc(size), name[32];
	size_t used = 0;

	(void)fi;
	for (; buf && off < made[ino % MADE_NR]; off++) {
		struct stat st = { .st_ino = (ino_t)off + 2, .st_mode = S_IFREG };
		size_t len;

		snprintf(name, sizeof(name), "f%07ld", (long)off);
		len = fuse_add_direntry(req, buf + used, size - used, name, &st, off + 1);
		if (len > size - used)
			break;
		used += len;
	}
	fuse_reply_buf(req, buf, used);
	free(buf);
}

static const struct fuse_lowlevel_ops null_ops = {
	.init = null_init, .lookup = null_lookup, .getattr = null_getattr, .setattr = null_setattr,
	.mkdir = null_mkdir, .create = null_create, .unlink = null_unlink, .rmdir = null_unlink,
	.open = null_open, .flush = null_done, .release = null_done, .fsync = null_fsync,
	.read = null_read, .write_buf = null_write, .readdir = null_readdir,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_cmdline_opts opts;
	struct fuse_loop_config *loop;
	struct fuse_session *se;
	int ret;

	if (fuse_parse_cmdline(&args, &opts) || !opts.mountpoint)
		return 2;
	se = fuse_session_new(&args, &null_ops, sizeof(null_ops), NULL);
	if (!se || fuse_set_signal_handlers(se) || fuse_session_mount(se, opts.mountpoint))
		return 1;
	fuse_daemonize(opts.foreground);
	loop = fuse_loop_cfg_create();
	ret = fuse_session_loop_mt(se, loop);
	fuse_loop_cfg_destroy(loop);
	fuse_session_unmount(se);
	fuse_session_destroy(se);
	return ret != 0;
}
