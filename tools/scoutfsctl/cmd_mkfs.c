/*
 * scoutfsctl mkfs: a new volume on two devices or files (interface.md 3.2; format.md 17).
 *
 * Everything that can be refused is refused before the first write: bad slots and sizes, one device
 * given twice, devices in use here or elsewhere, devices that hold something known.  Then both
 * places of a super block are cleared and flushed, so that from here on no failure leaves an old
 * volume that looks alive but has lost its metadata; then the layout is written, whose last write
 * makes the volume.
 */
#include "tools/scoutfsctl/commands.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "format/mkfs_layout.h"
#include "format/super.h"
#include "tools/scoutfsctl/signature.h"
#include "tools/scoutfsctl/slots.h"
#include "tools/scoutfsctl/volume.h"

#define VERB "mkfs"
#define DEFAULT_PORT 12345

struct mkfs_options {
	const char *path[2];		/* by enum mkfs_device */
	uint64_t max_bytes[2];
	unsigned force;			/* 2: also a volume that may be in use elsewhere */
	bool allows_small;
	unsigned slots_nr;		/* by NR,ADDR,PORT */
	bool has_count;
	uint64_t count;			/* -Q COUNT */
	unsigned nodes_nr;
	struct mkfs_slot nodes[QUORUM_SLOTS_MAX];
	struct mkfs_params params;
};

static const char *const device_names[2] = { "metadata", "data" };

/* ADDR[:PORT]; -EINVAL if it is not one. */
static int parse_node(const char *text, struct mkfs_slot *slot)
{
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);

	*slot = (struct mkfs_slot){ .is_used = true, .port = DEFAULT_PORT };
	if (slot_parse_addr(text, len, &slot->addr) < 0)
		return -EINVAL;
	return colon ? slot_parse_port(colon + 1, &slot->port) : 0;
}

static int add_node(struct mkfs_options *o, const char *text)
{
	struct mkfs_slot slot;

	if (parse_node(text, &slot) < 0)
		return usage_error(
			VERB, "--node %s: a node is ADDR or ADDR:PORT, as 10.0.0.1:12345", text);
	if (!quorum_addr_is_valid(slot.addr, slot.port))
		return usage_error(VERB, "--node %s: the address is not a unicast address", text);
	if (o->nodes_nr == QUORUM_SLOTS_MAX)
		return usage_error(VERB, "--node %s: a volume has at most 15 quorum members", text);
	o->nodes[o->nodes_nr++] = slot;
	return 0;
}

/* Bring both forms of -Q to slots. */
static int settle_slots(struct mkfs_options *o)
{
	unsigned majority = o->nodes_nr / 2 + 1;

	if (o->slots_nr && (o->has_count || o->nodes_nr))
		return usage_error(VERB,
				   "give either -Q NR,ADDR,PORT or -Q COUNT with --node, not both");
	if (o->has_count && !o->nodes_nr)
		return usage_error(VERB,
				   "-Q %" PRIu64 " needs the nodes: --node ADDR[:PORT] for each",
				   o->count);
	if (o->nodes_nr && !o->has_count)
		return usage_error(VERB,
				   "--node needs -Q COUNT, the majority of the nodes: -Q %u for %u",
				   majority, o->nodes_nr);
	if (!o->slots_nr && !o->nodes_nr)
		return usage_error(VERB, "at least one quorum slot is needed (-Q)");
	if (o->nodes_nr && o->count != majority)
		return usage_error(VERB, "-Q %" PRIu64 ": the majority of %u nodes is %u", o->count,
				   o->nodes_nr, majority);
	for (unsigned i = 0; i < o->nodes_nr; i++)
		o->params.slots[i] = o->nodes[i];
	return 0;
}

static int parse_size_option(const char *option, const char *text, uint64_t *bytes)
{
	if (parse_size(text, bytes) < 0 || *bytes == 0)
		return usage_error(VERB, "%s %s: not a size; give a number with K, M, G, T or P",
				   option, text);
	return 0;
}

static int parse_options(int argc, char **argv, struct mkfs_options *o)
{
	static const struct option longs[] = {
		{ "quorum-slot", required_argument, NULL, 'Q' },
		{ "node", required_argument, NULL, 'n' },
		{ "max-meta-size", required_argument, NULL, 'm' },
		{ "max-data-size", required_argument, NULL, 'd' },
		{ "data-alloc-zone-blocks", required_argument, NULL, 'z' },
		{ "format-version", required_argument, NULL, 'V' },
		{ "force", no_argument, NULL, 'f' },
		{ "allow-small-size", no_argument, NULL, 'A' },
		{ NULL, 0, NULL, 0 },
	};
	struct mkfs_slot ignored;
	const char *paths[2];
	unsigned paths_nr = 0;
	uint64_t v;
	int c, ret = 0;

	memset(o, 0, sizeof(*o));
	o->params.fmt_vers = FORMAT_VERSION_MAX;
	/* '-': devices come as they stand, so that --node can take the addresses that follow it. */
	while ((c = getopt_long(argc, argv, "-:Q:m:d:z:V:fA", longs, NULL)) != -1 && ret == 0) {
		switch (c) {
		case 1:
			if (paths_nr == 2)
				return usage_error(
					VERB, "'%s' is too much; there are META and DATA", optarg);
			paths[paths_nr++] = optarg;
			break;
		case 'Q':
			if (strchr(optarg, ',')) {
				ret = slot_parse(VERB, optarg, o->params.slots);
				o->slots_nr++;
			} else if (o->has_count || parse_u64(optarg, &o->count) < 0) {
				ret = usage_error(VERB,
						  "-Q %s: give NR,ADDR,PORT, or once a number of "
						  "nodes with --node",
						  optarg);
			}
			o->has_count |= !strchr(optarg, ',');
			break;
		case 'n':
			ret = add_node(o, optarg);
			while (ret == 0 && optind < argc && parse_node(argv[optind], &ignored) == 0)
				ret = add_node(o, argv[optind++]);
			break;
		case 'm':
			ret = parse_size_option("-m", optarg, &o->max_bytes[MKFS_META]);
			break;
		case 'd':
			ret = parse_size_option("-d", optarg, &o->max_bytes[MKFS_DATA]);
			break;
		case 'z':
			if (parse_u64(optarg, &o->params.data_alloc_zone_blocks) < 0 ||
			    !o->params.data_alloc_zone_blocks)
				ret = usage_error(VERB, "-z %s: not a number of blocks", optarg);
			break;
		case 'V':
			if (parse_u64(optarg, &v) < 0 || v < FORMAT_VERSION_MIN ||
			    v > FORMAT_VERSION_MAX)
				ret = usage_error(VERB, "-V %s: the format versions are 1 and 2",
						  optarg);
			else
				o->params.fmt_vers = (unsigned)v;
			break;
		case 'f':
			o->force++;
			break;
		case 'A':
			o->allows_small = true;
			break;
		case ':':
			return usage_error(VERB, "option '%s' needs a value", argv[optind - 1]);
		default:
			return unknown_option(VERB, argv);
		}
	}
	if (ret)
		return ret;
	for (; optind < argc; optind++) {
		if (paths_nr == 2)
			return usage_error(VERB, "'%s' is too much; there are META and DATA",
					   argv[optind]);
		paths[paths_nr++] = argv[optind];
	}
	if (paths_nr != 2)
		return usage_error(VERB, "the metadata and the data device are needed");
	o->path[MKFS_META] = paths[0];
	o->path[MKFS_DATA] = paths[1];
	return settle_slots(o);
}

/* One file or device given twice would be found later as in use by ourselves; say what it is. */
static int refuse_same_device(const struct mkfs_options *o)
{
	struct stat m, d;

	if (stat(o->path[MKFS_META], &m) < 0 || stat(o->path[MKFS_DATA], &d) < 0)
		return 0;	/* device_open says it better */
	if (S_ISBLK(m.st_mode) && S_ISBLK(d.st_mode)
		    ? m.st_rdev == d.st_rdev
		    : m.st_dev == d.st_dev && m.st_ino == d.st_ino) {
		say_error(VERB, "'%s' and '%s' are the same device; a volume needs two",
			  o->path[MKFS_META], o->path[MKFS_DATA]);
		return -EINVAL;
	}
	return 0;
}

static int refuse_contents(const struct mkfs_options *o, const struct device *d)
{
	const char *name;
	int ret = signature_find(d, &name);

	if (ret < 0) {
		say_error(VERB, "could not read '%s' to see what it holds: %s", d->path,
			  strerror(-ret));
		return ret;
	}
	if (ret == 0)
		return 0;
	if (!o->force) {
		say_error(VERB, "'%s' holds %s; nothing was written, use -f to overwrite it",
			  d->path, name);
		return -EEXIST;
	}
	fprintf(stderr, "%s: %s: warning: overwriting %s on '%s'\n", program_name(), VERB, name,
		d->path);
	return 0;
}

/*
 * Locks and exclusive opens tell about this host only.  What other hosts do stands on the volume,
 * and a volume that a host may still have mounted is not overwritten by one -f (6.2).
 */
static int refuse_used_elsewhere(const struct mkfs_options *o, const struct device *dev)
{
	struct volume_holders hs;
	struct disk_super super;
	const char *why;
	int ret;

	if (dev->bytes < (SUPER_BLKNO + 1 + QUORUM_BLOCKS_NR) << SMALL_SHIFT)
		return 0;
	ret = device_read(dev, SUPER_BLKNO << SMALL_SHIFT, &super, sizeof(super));
	if (ret == 0 && (super_check(&super, &why) < 0 ||
			 !(le64_get(super.flags) & SUPER_FLAG_IS_META_BDEV)))
		return 0;
	if (ret == 0)
		ret = device_find_holders(dev, &super, &hs);
	if (ret < 0) {
		say_error(VERB, "could not read '%s' to see who uses it: %s", dev->path,
			  strerror(-ret));
		return ret;
	}
	if ((!hs.nr && !hs.unreadable) || o->force > 1)
		return 0;
	volume_say_holders(stderr, &hs);
	say_error(VERB,
		  "'%s' holds a volume that another host may be using; stop it there, or give -f "
		  "twice if no host uses it any more",
		  dev->path);
	return -EBUSY;
}

static int settle_size(const struct mkfs_options *o, enum mkfs_device dev, const struct device *d,
		       unsigned shift, uint64_t *blocks)
{
	uint64_t bytes = d->bytes;

	if (o->max_bytes[dev] > bytes) {
		say_error(VERB,
			  "'%s' has only %" PRIu64 " bytes, fewer than the %" PRIu64 " asked for",
			  d->path, bytes, o->max_bytes[dev]);
		return -EINVAL;
	}
	if (o->max_bytes[dev])
		bytes = o->max_bytes[dev];
	if (bytes < DEVICE_MIN_BYTES) {
		if (!o->allows_small) {
			say_error(VERB,
				  "'%s' has %" PRIu64 " bytes for %s, at least 64 GiB are needed; "
				  "-A allows less, for tests",
				  d->path, bytes, device_names[dev]);
			return -ENOSPC;
		}
		fprintf(stderr, "%s: %s: warning: '%s' is smaller than 64 GiB and soon full\n",
			program_name(), VERB, d->path);
	}
	*blocks = bytes >> shift;
	return 0;
}

static int write_at(void *arg, enum mkfs_device dev, uint64_t offset, const void *buf, size_t len)
{
	const struct device *d = &((const struct device *)arg)[dev];
	const char *p = buf;

	while (len) {
		ssize_t n = pwrite(d->fd, p, len, (off_t)offset);
		int err = n < 0 ? errno : EIO;

		if (n < 0 && err == EINTR)
			continue;
		if (n <= 0) {
			say_error(VERB, "could not write to '%s' at byte %" PRIu64 ": %s", d->path,
				  offset, strerror(err));
			return -err;
		}
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int flush(void *arg, enum mkfs_device dev)
{
	const struct device *d = &((const struct device *)arg)[dev];

	if (fsync(d->fd) < 0) {
		int err = errno;

		say_error(VERB, "could not flush '%s': %s", d->path, strerror(err));
		return -err;
	}
	return 0;
}

static int clear_supers(const struct mkfs_ops *ops)
{
	static const uint8_t zeros[SMALL_SIZE];
	int ret = 0;

	for (enum mkfs_device dev = MKFS_META; dev <= MKFS_DATA && ret == 0; dev++) {
		ret = ops->write(ops->arg, dev, SUPER_BLKNO << SMALL_SHIFT, zeros, sizeof(zeros));
		if (ret == 0)
			ret = ops->flush(ops->arg, dev);
	}
	return ret;
}

static int make_identity(struct mkfs_params *p)
{
	struct timespec now;

	do {
		if (getrandom(&p->fsid, sizeof(p->fsid), 0) != sizeof(p->fsid) ||
		    getrandom(p->uuid, sizeof(p->uuid), 0) != sizeof(p->uuid)) {
			say_error(VERB, "could not get random numbers: %s", strerror(errno));
			return -EIO;
		}
	} while (p->fsid == 0);
	p->uuid[6] = (uint8_t)((p->uuid[6] & 0x0f) | 0x40);
	p->uuid[8] = (uint8_t)((p->uuid[8] & 0x3f) | 0x80);

	clock_gettime(CLOCK_REALTIME, &now);
	p->now_sec = (uint64_t)now.tv_sec;
	p->now_nsec = (uint32_t)(now.tv_nsec / 1000 * 1000);
	return 0;
}

static void print_blocks(const char *label, uint64_t blocks, unsigned shift)
{
	static const char *const units[] = { "B", "KB", "MB", "GB", "TB", "PB", "EB" };
	double size = (double)blocks * (double)(1u << shift);
	unsigned u = 0;

	for (; size >= 1024 && u < 6; u++)
		size /= 1024;
	printf("  %-23s %" PRIu64 " (%.2f %s)\n", label, blocks, size, units[u]);
}

static void print_volume(const struct mkfs_options *o)
{
	const struct mkfs_params *p = &o->params;
	const uint8_t *u = p->uuid;

	printf("Created scoutfs filesystem:\n");
	printf("  %-23s %s\n", "meta device path:", o->path[MKFS_META]);
	printf("  %-23s %s\n", "data device path:", o->path[MKFS_DATA]);
	printf("  %-23s %016" PRIx64 "\n", "fsid:", p->fsid);
	printf("  %-23s %02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x\n",
	       "uuid:", u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11],
	       u[12], u[13], u[14], u[15]);
	printf("  %-23s %u\n", "format version:", p->fmt_vers);
	print_blocks("64KB metadata blocks:", p->total_meta_blocks, LARGE_SHIFT);
	print_blocks("4KB data blocks:", p->total_data_blocks, SMALL_SHIFT);
	printf("  %-23s 1\n", "quorum config version:");
	slots_print(p->slots);
}

int cmd_mkfs(int argc, char **argv)
{
	struct device devs[2] = { { .fd = -1 }, { .fd = -1 } };
	struct mkfs_ops ops = { .arg = devs, .write = write_at, .flush = flush };
	struct mkfs_options o;
	const char *why;
	int ret;

	ret = parse_options(argc, argv, &o);
	if (ret)
		return ret;
	ret = refuse_same_device(&o);
	if (ret == 0)
		ret = device_open(&devs[MKFS_META], o.path[MKFS_META], DEVICE_WRITE, VERB);
	if (ret == 0)
		ret = device_open(&devs[MKFS_DATA], o.path[MKFS_DATA], DEVICE_WRITE, VERB);
	if (ret == 0)
		ret = settle_size(&o, MKFS_META, &devs[MKFS_META], LARGE_SHIFT,
				  &o.params.total_meta_blocks);
	if (ret == 0)
		ret = settle_size(&o, MKFS_DATA, &devs[MKFS_DATA], SMALL_SHIFT,
				  &o.params.total_data_blocks);
	if (ret == 0) {
		ret = mkfs_params_check(&o.params, &why);
		if (ret < 0)
			say_error(VERB, "%s", why);
	}
	if (ret == 0)
		ret = refuse_contents(&o, &devs[MKFS_META]);
	if (ret == 0)
		ret = refuse_contents(&o, &devs[MKFS_DATA]);
	if (ret == 0)
		ret = refuse_used_elsewhere(&o, &devs[MKFS_META]);
	/* the metadata device of another volume, perhaps, or the two were swapped */
	if (ret == 0)
		ret = refuse_used_elsewhere(&o, &devs[MKFS_DATA]);
	if (ret == 0)
		ret = make_identity(&o.params);
	if (ret == 0)
		ret = clear_supers(&ops);
	if (ret == 0)
		ret = mkfs_layout(&o.params, &ops);
	device_close(&devs[MKFS_META]);
	device_close(&devs[MKFS_DATA]);
	if (ret < 0)
		return verb_failed(VERB, ret);
	print_volume(&o);
	return 0;
}
