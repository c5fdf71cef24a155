/*
 * scoutfsctl ls: names, and on demand attributes, of a directory tree on devices that nobody uses.
 * Entries come in the order a mount's readdir gives.  A damaged part ends the listing with a
 * message and status 1.
 */
#include "tools/scoutfsctl/commands.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "format/item_check.h"
#include "tools/scoutfsctl/offline.h"

#define VERB "ls"
#define DEPTH_MAX 4096

struct listing {
	struct volume v;
	bool is_long;
	bool is_recursive;
	bool is_json;
	bool ends_with_nul;
};

/* A directory being listed, and those it is in. */
struct level {
	struct listing *ls;
	const struct level *up;
	unsigned depth;
	uint64_t ino;
	const char *prefix;	/* path of the directory with a slash, or empty */
};

static void mode_text(uint32_t mode, char out[11])
{
	static const char rwx[] = "rwxrwxrwx";
	static const char types[] = { [DIRENT_FIFO] = 'p', [DIRENT_CHR] = 'c', [DIRENT_DIR] = 'd',
				      [DIRENT_BLK] = 'b', [DIRENT_REG] = '-', [DIRENT_LNK] = 'l',
				      [DIRENT_SOCK] = 's' };

	out[0] = types[dirent_type_of_mode(mode)];
	for (unsigned i = 0; i < 9; i++)
		out[i + 1] = mode & (0400u >> i) ? rwx[i] : '-';
	if (mode & S_ISUID)
		out[3] = mode & 0100 ? 's' : 'S';
	if (mode & S_ISGID)
		out[6] = mode & 010 ? 's' : 'S';
	if (mode & S_ISVTX)
		out[9] = mode & 01 ? 't' : 'T';
	out[10] = '\0';
}

static void print_time(const struct disk_timespec *ts)
{
	time_t sec = (time_t)(int64_t)le64_get(ts->sec);
	struct tm tm;
	char text[64];

	if (gmtime_r(&sec, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
		printf(" %s", text);
	else
		printf(" %" PRId64, (int64_t)sec);
}

static void print_json(const char *path, size_t len, uint64_t ino, const struct disk_inode *inode,
		       const char *target)
{
	static const char *const types[] = { [DIRENT_FIFO] = "fifo", [DIRENT_CHR] = "chr",
					     [DIRENT_DIR] = "dir", [DIRENT_BLK] = "blk",
					     [DIRENT_REG] = "file", [DIRENT_LNK] = "link",
					     [DIRENT_SOCK] = "sock" };
	uint32_t mode = le32_get(inode->mode);

	printf("{\"path\":");
	json_string(stdout, path, len);
	printf(",\"ino\":%" PRIu64
	       ",\"type\":\"%s\",\"mode\":\"%04o\",\"nlink\":%u,\"uid\":%u,\"gid\":%u,"
	       "\"size\":%" PRIu64 ",\"rdev\":%u",
	       ino, types[dirent_type_of_mode(mode)], mode & 07777, le32_get(inode->nlink),
	       le32_get(inode->uid), le32_get(inode->gid), le64_get(inode->size),
	       le32_get(inode->rdev));
	printf(",\"mtime\":\"%" PRId64 ".%09u\",\"ctime\":\"%" PRId64
	       ".%09u\",\"crtime\":\"%" PRId64 ".%09u\"",
	       (int64_t)le64_get(inode->mtime.sec), le32_get(inode->mtime.nsec),
	       (int64_t)le64_get(inode->ctime.sec), le32_get(inode->ctime.nsec),
	       (int64_t)le64_get(inode->crtime.sec), le32_get(inode->crtime.nsec));
	printf(",\"meta_seq\":%" PRIu64 ",\"data_seq\":%" PRIu64 ",\"data_version\":%" PRIu64
	       ",\"online_blocks\":%" PRIu64 ",\"offline_blocks\":%" PRIu64
	       ",\"project_id\":%" PRIu64,
	       le64_get(inode->meta_seq), le64_get(inode->data_seq), le64_get(inode->data_version),
	       le64_get(inode->online_blocks), le64_get(inode->offline_blocks),
	       le64_get(inode->proj));
	if (target) {
		printf(",\"target\":");
		json_string(stdout, target, strlen(target));
	}
	printf("}\n");
}

static int print_entry(struct listing *ls, const char *path, size_t len, uint64_t ino)
{
	char target[SYMLINK_MAX_BYTES];
	struct disk_inode inode;
	bool is_link = false;
	uint32_t mode = 0;
	int ret;

	if (ls->is_long || ls->is_json) {
		ret = offline_inode(&ls->v, ino, &inode, VERB);
		if (ret == -ENOENT) {
			say_error(VERB,
				  "an entry names inode %" PRIu64
				  ", which does not exist; run check "
				  "on the volume",
				  ino);
			return -EUCLEAN;
		}
		if (ret < 0)
			return ret;
		mode = le32_get(inode.mode);
		is_link = S_ISLNK(mode);
		if (is_link) {
			ret = offline_readlink(&ls->v, ino, target, VERB);
			if (ret < 0)
				return ret;
		}
	}
	if (ls->is_json) {
		print_json(path, len, ino, &inode, is_link ? target : NULL);
		return 0;
	}
	if (ls->is_long) {
		char text[11];

		mode_text(mode, text);
		printf("%s %4u %5u %5u %12" PRIu64, text, le32_get(inode.nlink),
		       le32_get(inode.uid), le32_get(inode.gid), le64_get(inode.size));
		print_time(&inode.mtime);
		putchar(' ');
	}
	if (ls->ends_with_nul) {
		fwrite(path, 1, len, stdout);
		putchar('\0');
		return 0;
	}
	text_string(stdout, path, len);
	if (is_link) {
		printf(" -> ");
		text_string(stdout, target, strlen(target));
	}
	putchar('\n');
	return 0;
}

static int list_dir(const struct level *lv);

static int list_entry(void *arg, const struct item *it)
{
	const struct level *lv = arg;
	const struct disk_dirent *d = it->val;
	size_t name_len = it->val_len - sizeof(*d);
	size_t prefix_len = strlen(lv->prefix);
	uint64_t ino = le64_get(d->ino);
	struct level below;
	char *path;
	int ret;

	path = malloc(prefix_len + name_len + 2);
	if (!path)
		return -ENOMEM;
	memcpy(path, lv->prefix, prefix_len);
	memcpy(path + prefix_len, d->name, name_len);
	path[prefix_len + name_len] = '\0';

	ret = print_entry(lv->ls, path, prefix_len + name_len, ino);
	if (ret == 0 && lv->ls->is_recursive && d->type == DIRENT_DIR) {
		path[prefix_len + name_len] = '/';
		path[prefix_len + name_len + 1] = '\0';
		below = (struct level){ lv->ls, lv, lv->depth + 1, ino, path };
		ret = list_dir(&below);
	}
	free(path);
	return ret;
}

static int list_dir(const struct level *lv)
{
	struct key first = key_readdir(lv->ino, 0), last = key_readdir(lv->ino, UINT64_MAX);

	for (const struct level *up = lv->up; up; up = up->up) {
		if (up->ino == lv->ino) {
			say_error(VERB, "directory '%s' contains itself; run check on the volume",
				  lv->prefix);
			return -EUCLEAN;
		}
	}
	if (lv->depth > DEPTH_MAX) {
		say_error(VERB, "'%.200s...' is more than %u directories deep; list it by itself",
			  lv->prefix, DEPTH_MAX);
		return -EUCLEAN;
	}
	return offline_each(&lv->ls->v, &first, &last, VERB, list_entry, (void *)(uintptr_t)lv);
}

static int list_path(struct listing *ls, const char *path)
{
	struct disk_inode inode;
	struct level top;
	uint64_t ino;
	int ret;

	ret = offline_resolve(&ls->v, path, false, &ino, VERB);
	if (ret == 0)
		ret = offline_inode(&ls->v, ino, &inode, VERB);
	if (ret < 0)
		return ret;
	if (!S_ISDIR(le32_get(inode.mode)))
		return print_entry(ls, path, strlen(path), ino);
	top = (struct level){ ls, NULL, 0, ino, "" };
	return list_dir(&top);
}

int cmd_ls(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "meta", required_argument, NULL, 'M' },
		{ "data", required_argument, NULL, 'D' },
		{ "long", no_argument, NULL, 'l' },
		{ "recursive", no_argument, NULL, 'R' },
		{ "json", no_argument, NULL, 'j' },
		{ "null", no_argument, NULL, '0' },
		{ NULL, 0, NULL, 0 },
	};
	const char *meta = NULL, *data = NULL, *path = "/";
	struct listing ls = { .is_long = false };
	int c, ret;

	while ((c = getopt_long(argc, argv, ":lR", longs, NULL)) != -1) {
		switch (c) {
		case 'M':
			meta = optarg;
			break;
		case 'D':
			data = optarg;
			break;
		case 'l':
			ls.is_long = true;
			break;
		case 'R':
			ls.is_recursive = true;
			break;
		case 'j':
			ls.is_json = true;
			break;
		case '0':
			ls.ends_with_nul = true;
			break;
		case ':':
			return usage_error(VERB, "option '%s' needs a value", argv[optind - 1]);
		default:
			return unknown_option(VERB, argv);
		}
	}
	if (!meta)
		return usage_error(VERB, "--meta is needed; on a mounted volume use ls itself");
	if (argc - optind > 1)
		return usage_error(VERB, "'%s' is too much; one PATH is listed", argv[optind + 1]);
	if (optind < argc)
		path = argv[optind];

	ret = offline_open(&ls.v, meta, data, VERB);
	if (ret < 0)
		return 1;
	ret = list_path(&ls, path);
	volume_close(&ls.v);
	return ret < 0 ? offline_failed(VERB, path, ret) : 0;
}
