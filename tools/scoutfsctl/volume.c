/*
 * Opening a volume without its services.  The promise: a device that anybody uses is refused before
 * a byte of it is trusted or changed, and two devices that do not belong together are never read as
 * one.  In use is found in four ways: the flock that a blockd of this host holds on its very
 * descriptor, the exclusive claim of a block device (a mount, LVM, swap, the kernel's scoutfs), both of
 * these through loop devices (in_use.c), and, for what other hosts do, the quorum blocks and the mounted
 * clients on the volume itself (volume_find_holders(), which callers judge).  A holder that has been
 * killed is waited for: its last writes are under way until the device is let go.
 *
 * Metadata is read through block_dev with pread; nothing here writes.
 */
#include "tools/scoutfsctl/volume.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "btree/btree.h"
#include "format/item_check.h"
#include "format/super.h"
#include "key/key.h"
#include "tools/scoutfsctl/commands.h"
#include "tools/scoutfsctl/in_use.h"

#define CACHED_BLOCKS_MAX 512	/* 32 MiB */

static int device_size(struct device *d, const struct stat *st)
{
	if (d->is_bdev)
		return ioctl(d->fd, BLKGETSIZE64, &d->bytes) < 0 ? -errno : 0;
	d->bytes = (uint64_t)st->st_size;
	return 0;
}

int device_open(struct device *d, const char *path, enum device_use use, const char *verb)
{
	int flags = O_CLOEXEC | (use == DEVICE_WRITE ? O_RDWR : O_RDONLY);
	int is_readonly = 0, sector = 0;
	struct in_use_waited waited = { 0 };
	struct stat st;
	int ret;

	*d = (struct device){ .path = path, .fd = -1 };

	/* O_EXCL may be given only once it is known that this is a block device. */
	if (stat(path, &st) < 0) {
		ret = -errno;
		say_error(verb, "could not open '%s': %s", path, strerror(-ret));
		return ret;
	}
	d->is_bdev = S_ISBLK(st.st_mode);
	if (!d->is_bdev && !S_ISREG(st.st_mode)) {
		say_error(verb, "'%s' is neither a block device nor a file", path);
		return -ENOTBLK;
	}
	if (d->is_bdev && use != DEVICE_PEEK)
		flags |= O_EXCL;
	do {
		d->fd = open(path, flags);
		ret = d->fd < 0 ? -errno : 0;
	} while (ret == -EBUSY && in_use_wait_for_dead(&st, &waited));
	if (ret < 0) {
		if (ret == -EBUSY)
			return in_use_say(verb, path, &st);
		say_error(verb, "could not open '%s' for %s: %s", path,
			  use == DEVICE_WRITE ? "writing" : "reading", strerror(-ret));
		return ret;
	}
	if (fstat(d->fd, &st) < 0 || (S_ISBLK(st.st_mode) != 0) != d->is_bdev) {
		ret = -EAGAIN;
		say_error(verb, "'%s' was replaced by something else just now; try again", path);
		goto out;
	}
	ret = 0;
	while (use != DEVICE_PEEK &&
	       flock(d->fd, (use == DEVICE_WRITE ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
		ret = -errno;
		if (ret != -EWOULDBLOCK || !in_use_wait_for_dead(&st, &waited))
			break;
		ret = 0;
	}
	if (ret < 0) {
		if (ret == -EWOULDBLOCK)
			ret = in_use_say(verb, path, &st);
		else
			say_error(verb, "could not lock '%s': %s", path, strerror(-ret));
		goto out;
	}
	ret = in_use_claim(d, &st, use, verb);
	if (ret < 0)
		goto out;
	/* What another host wrote since somebody here has read it, who may still have it open, is not in this host's cache. */
	if (d->is_bdev && use != DEVICE_PEEK && ioctl(d->fd, BLKFLSBUF, 0) < 0) {
		ret = -errno;
		say_error(verb, "could not drop what this host has cached of '%s': %s; run it as root", path, strerror(-ret));
		goto out;
	}
	/* The kernel opens a read-only block device for writing and fails only the writes. */
	if (use == DEVICE_WRITE && d->is_bdev && ioctl(d->fd, BLKROGET, &is_readonly) == 0 &&
	    is_readonly) {
		ret = -EROFS;
		say_error(verb, "'%s' is read-only; it cannot be written", path);
		goto out;
	}
	/* No service could serve a volume there (blockd refuses it). */
	if (use == DEVICE_WRITE && d->is_bdev && ioctl(d->fd, BLKSSZGET, &sector) == 0 &&
	    sector > (int)SMALL_SIZE) {
		ret = -EINVAL;
		say_error(verb, "'%s' has sectors of %d bytes, larger than a volume's blocks of %u",
			  path, sector, SMALL_SIZE);
		goto out;
	}
	ret = device_size(d, &st);
	if (ret < 0) {
		say_error(verb, "could not find the size of '%s': %s", path, strerror(-ret));
		goto out;
	}
	return 0;
out:
	device_close(d);
	return ret;
}

void device_close(struct device *d)
{
	in_use_release(d);
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

int device_read(const struct device *d, uint64_t offset, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n;

		if (offset > INT64_MAX - len)
			return -EIO;
		n = pread(d->fd, p, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int meta_read(void *arg, uint64_t blkno, void *buf)
{
	return device_read(arg, blkno << LARGE_SHIFT, buf, LARGE_SIZE);
}

static int meta_write(void *arg, const struct block_write *w, size_t nr)
{
	(void)arg;
	(void)w;
	return nr ? -EROFS : 0;
}

static uint64_t meta_random(void *arg)
{
	uint64_t val = 0;

	(void)arg;
	/* Only block sets that are written need it; this one cannot be. */
	if (getrandom(&val, sizeof(val), 0) != sizeof(val))
		val = 0;
	return val;
}

/* Read and check one copy of the super; what is wrong is said. */
static int read_super(const struct device *d, struct disk_super *s, enum device_use use,
		      bool is_meta, const char *verb)
{
	const char *why;
	int ret;

	if (d->bytes < (SUPER_BLKNO + 1) << SMALL_SHIFT) {
		say_error(verb, "'%s' has %" PRIu64 " bytes, too few to hold a scoutfs volume",
			  d->path, d->bytes);
		return -EINVAL;
	}
	ret = device_read(d, SUPER_BLKNO << SMALL_SHIFT, s, sizeof(*s));
	if (ret < 0) {
		say_error(verb, "could not read the super block of '%s': %s", d->path,
			  strerror(-ret));
		return ret;
	}
	ret = super_check(s, &why);
	if (ret == -EBADMSG && use == DEVICE_PEEK) {
		say_error(verb, "super block of '%s': %s; going on", d->path, why);
		ret = 0;
	}
	if (ret == 0)
		ret = is_meta ? super_check_meta(s, d->bytes, &why)
			      : super_check_data(s, d->bytes, &why);
	if (use == DEVICE_PEEK && (ret == -ENOSPC || ret == -EBADMSG)) {
		say_error(verb, "'%s': %s; going on", d->path, why);
		ret = 0;
	}
	if (ret < 0)
		say_error(verb, "'%s' cannot be used as the %s device: %s", d->path,
			  is_meta ? "metadata" : "data", why);
	return ret;
}

int volume_open(struct volume *v, const char *meta_path, const char *data_path, enum device_use use,
		const char *verb)
{
	struct disk_super data_super;
	const char *why;
	uint64_t total;
	int ret;

	memset(v, 0, sizeof(*v));
	v->meta.fd = -1;
	v->data.fd = -1;

	ret = device_open(&v->meta, meta_path, use, verb);
	if (ret < 0)
		return ret;
	ret = read_super(&v->meta, &v->super, use, true, verb);
	if (ret < 0)
		goto out;
	v->fsid = le64_get(v->super.hdr.fsid);
	v->fmt_vers = (unsigned)le64_get(v->super.fmt_vers);

	if (data_path) {
		ret = device_open(&v->data, data_path, use, verb);
		if (ret < 0)
			goto out;
		ret = read_super(&v->data, &data_super, use, false, verb);
		if (ret < 0)
			goto out;
		ret = super_check_pair(&v->super, &data_super, v->meta.bytes, v->data.bytes, &why);
		if (ret < 0) {
			say_error(verb, "'%s' and '%s' cannot be used together: %s", meta_path,
				  data_path, why);
			goto out;
		}
	}

	v->dev = (struct block_dev){ .arg = &v->meta, .read = meta_read, .write = meta_write,
				     .random = meta_random };
	/* A damaged super that is only peeked at may promise more than there is. */
	total = le64_get(v->super.total_meta_blocks);
	if (total > v->meta.bytes >> LARGE_SHIFT)
		total = v->meta.bytes >> LARGE_SHIFT;
	ret = block_set_open(&v->bs, &v->dev, v->fsid, total, CACHED_BLOCKS_MAX);
	if (ret < 0) {
		say_error(verb, "could not set up a block cache: %s", strerror(-ret));
		goto out;
	}
	forest_roots_of_super(&v->super, &v->roots);
	return 0;
out:
	volume_close(v);
	return ret;
}

void volume_close(struct volume *v)
{
	if (v->bs)
		block_set_close(v->bs);
	v->bs = NULL;
	device_close(&v->meta);
	device_close(&v->data);
}

static void add_holder(struct volume_holders *hs, struct volume_holder h)
{
	if (hs->nr < VOLUME_HOLDERS_MAX)
		hs->h[hs->nr++] = h;
}

static int add_client(void *arg, const struct item *it)
{
	struct volume_holders *hs = arg;
	const char *why;

	if (item_check(TREE_MOUNTED_CLIENTS, FORMAT_VERSION_MAX, it, &why) < 0) {
		hs->unreadable = true;
		return 0;
	}
	add_holder(hs, (struct volume_holder){ .rid = it->key.first });
	return 0;
}

/* All slots are read before any is judged: what the newest leader has fenced holds nothing (6.2). */
static int find_slot_holders(const struct device *meta, const struct disk_super *super,
			     struct volume_holders *out)
{
	struct disk_quorum_block *all = calloc(QUORUM_SLOTS_MAX, sizeof(*all));
	bool is_good[QUORUM_SLOTS_MAX] = { false };
	uint64_t fence_term = 0;
	const char *why;
	int ret = 0;

	memset(out, 0, sizeof(*out));
	if (!all)
		return -ENOMEM;
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		ret = device_read(meta, (QUORUM_FIRST_BLKNO + i) << SMALL_SHIFT, &all[i],
				  sizeof(all[i]));
		if (ret < 0)
			goto out;
		is_good[i] = quorum_block_check(&all[i], i, le64_get(super->hdr.fsid), &why) == 0;
		if (is_good[i] && quorum_block_fence_term(&all[i]) > fence_term)
			fence_term = quorum_block_fence_term(&all[i]);
	}
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		bool is_elected = is_good[i] && quorum_block_is_unfenced(&all[i], fence_term);

		if (!quorum_slot_is_configured(&super->qconf, i))
			continue;
		if (!is_good[i])
			out->unreadable = true;
		else if (is_elected || quorum_block_is_in_use(&all[i]))
			add_holder(out,
				   (struct volume_holder){
					   .is_slot = true,
					   .slot = i,
					   .rid = le64_get(
						   all[i].events[QUORUM_EVENT_BEGIN].rid),
					   .is_elected = is_elected,
				   });
	}
out:
	free(all);
	return ret;
}

int device_find_holders(const struct device *meta, const struct disk_super *super,
			struct volume_holders *out)
{
	int ret = find_slot_holders(meta, super, out);

	if (ret == 0 && le64_get(super->mounted_clients.ref.blkno) != 0)
		out->unreadable = true;
	return ret;
}

int volume_find_holders(struct volume *v, struct volume_holders *out)
{
	struct key first = KEY_ZEROS, last = KEY_ONES;
	unsigned before;
	int ret;

	ret = find_slot_holders(&v->meta, &v->super, out);
	if (ret < 0 || le64_get(v->super.mounted_clients.ref.blkno) == 0)
		return ret;

	before = out->nr;
	ret = btree_each(v->bs, &v->super.mounted_clients, &first, &last, add_client, out);
	if (ret == -ENOMEM)
		return ret;
	/* The root is there, so somebody is, even if it cannot be read who (6.2). */
	if (ret < 0 || (out->nr == before && out->nr < VOLUME_HOLDERS_MAX))
		out->unreadable = true;
	return 0;
}

void volume_say_holders(FILE *f, const struct volume_holders *hs)
{
	for (unsigned i = 0; i < hs->nr; i++) {
		const struct volume_holder *h = &hs->h[i];

		if (h->is_slot)
			fprintf(f, "not cleanly unmounted: quorum slot %u, rid %016" PRIx64 "%s\n",
				h->slot, h->rid, h->is_elected ? ", still the elected leader" : "");
		else
			fprintf(f,
				"not cleanly unmounted: mounted client with rid %016" PRIx64 "\n",
				h->rid);
	}
	if (hs->unreadable)
		fprintf(f,
			"not cleanly unmounted, perhaps: a quorum block is damaged, or there are mounted "
			"clients whose names are not known\n");
}
