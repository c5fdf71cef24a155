/*
 * scoutfsctl cat: a file's bytes from devices that nobody uses.  Holes and unwritten extents read
 * as zeros; a range that is offline is not on the devices at all, so reaching one is an error that
 * says which range, after everything before it has been written.
 */
#include "tools/scoutfsctl/commands.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/item_check.h"
#include "tools/scoutfsctl/offline.h"

#define VERB "cat"
#define PIECE_BYTES (1u << 20)

struct copy {
	struct volume *v;
	uint64_t size;
	uint64_t pos;		/* bytes written so far */
	char *buf;		/* PIECE_BYTES */
};

static int put_bytes(const char *p, size_t len)
{
	while (len) {
		ssize_t n = write(STDOUT_FILENO, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int err = errno;

			say_error(VERB, "could not write the output: %s", strerror(err));
			return -EUCLEAN;
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int put_zeros(struct copy *c, uint64_t end)
{
	int ret = 0;

	memset(c->buf, 0, PIECE_BYTES);
	while (c->pos < end && ret == 0) {
		uint64_t n = end - c->pos < PIECE_BYTES ? end - c->pos : PIECE_BYTES;

		ret = put_bytes(c->buf, n);
		c->pos += n;
	}
	return ret;
}

static int put_data(struct copy *c, uint64_t offset, uint64_t end)
{
	int ret = 0;

	while (c->pos < end && ret == 0) {
		uint64_t n = end - c->pos < PIECE_BYTES ? end - c->pos : PIECE_BYTES;

		ret = device_read(&c->v->data, offset, c->buf, n);
		if (ret < 0) {
			say_error(VERB, "could not read '%s' at byte %" PRIu64 ": %s",
				  c->v->data.path, offset, strerror(-ret));
			return -EUCLEAN;
		}
		ret = put_bytes(c->buf, n);
		c->pos += n;
		offset += n;
	}
	return ret;
}

static int copy_extent(void *arg, const struct item *it)
{
	struct copy *c = arg;
	struct data_extent ext;
	uint64_t start, end;
	int ret;

	extent_from_item(it, &ext);
	if (ext.iblock > (UINT64_MAX >> SMALL_SHIFT) || ext.iblock << SMALL_SHIFT >= c->size)
		return 1; /* past the end of the file: preallocation, or a truncation to finish */
	start = ext.iblock << SMALL_SHIFT;
	end = (ext.iblock + ext.len) << SMALL_SHIFT;
	if (end > c->size)
		end = c->size;
	if (start < c->pos) {
		say_error(VERB, "extents of inode %" PRIu64 " overlap; run check on the volume",
			  it->key.first);
		return -EUCLEAN;
	}
	ret = put_zeros(c, start);
	if (ret < 0)
		return ret;
	if (ext.flags & EXTENT_FLAG_OFFLINE) {
		say_error(VERB,
			  "bytes %" PRIu64 " to %" PRIu64 " are offline: their contents are in the "
			  "archive, not on these devices: %s",
			  start, end - 1, strerror(EIO));
		return -EUCLEAN;
	}
	if (ext.flags & EXTENT_FLAG_UNWRITTEN)
		return put_zeros(c, end);
	if (ext.blkno + ext.len > le64_get(c->v->super.total_data_blocks)) {
		say_error(VERB,
			  "an extent of inode %" PRIu64
			  " lies beyond the data device; run check on "
			  "the volume",
			  it->key.first);
		return -EUCLEAN;
	}
	return put_data(c, ext.blkno << SMALL_SHIFT, end);
}

static int cat_path(struct volume *v, const char *path)
{
	struct copy c = { .v = v };
	struct disk_inode inode;
	struct key first, last;
	uint64_t ino;
	int ret;

	ret = offline_resolve(v, path, true, &ino, VERB);
	if (ret == 0)
		ret = offline_inode(v, ino, &inode, VERB);
	if (ret < 0)
		return ret;
	if (S_ISDIR(le32_get(inode.mode)))
		return -EISDIR;
	if (!S_ISREG(le32_get(inode.mode))) {
		say_error(VERB, "'%s' is not a regular file", path);
		return -EUCLEAN;
	}
	c.size = le64_get(inode.size);
	c.buf = malloc(PIECE_BYTES);
	if (!c.buf)
		return -ENOMEM;
	first = key_extent(ino, 0, 0);
	last = key_extent(ino, UINT64_MAX, UINT64_MAX);
	ret = offline_each(v, &first, &last, VERB, copy_extent, &c);
	if (ret >= 0)
		ret = put_zeros(&c, c.size);
	free(c.buf);
	return ret;
}

int cmd_cat(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "meta", required_argument, NULL, 'M' },
		{ "data", required_argument, NULL, 'D' },
		{ NULL, 0, NULL, 0 },
	};
	const char *meta = NULL, *data = NULL;
	struct volume v;
	int c, ret;

	while ((c = getopt_long(argc, argv, ":", longs, NULL)) != -1) {
		switch (c) {
		case 'M':
			meta = optarg;
			break;
		case 'D':
			data = optarg;
			break;
		case ':':
			return usage_error(VERB, "option '%s' needs a value", argv[optind - 1]);
		default:
			return unknown_option(VERB, argv);
		}
	}
	if (!meta || !data)
		return usage_error(
			VERB, "--meta and --data are needed; on a mounted volume use cat itself");
	if (argc - optind != 1)
		return usage_error(VERB, "one PATH is needed");

	ret = offline_open(&v, meta, data, VERB);
	if (ret < 0)
		return 1;
	ret = cat_path(&v, argv[optind]);
	volume_close(&v);
	return ret < 0 ? offline_failed(VERB, argv[optind], ret) : 0;
}
