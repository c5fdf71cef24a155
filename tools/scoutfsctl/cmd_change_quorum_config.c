/*
 * scoutfsctl change-quorum-config: other quorum slots for a volume that nobody uses (interface.md 3.2; runtime.md
 * 1.1; format.md 5.1).
 *
 * The slots are read once by each member when it starts, so they change only while no member and no mount is
 * there: a quorum block without END, an entry among the mounted clients, or either of them unreadable
 * refuses it. The whole table is replaced and its version counted up; the quorum blocks, which tell the terms
 * that there have been, stay as they are.  One write of one block: either table is whole after a crash.
 */
#include "tools/scoutfsctl/commands.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "csum/csum.h"
#include "format/super.h"
#include "tools/scoutfsctl/slots.h"
#include "tools/scoutfsctl/volume.h"

#define VERB "change-quorum-config"

struct options {
	const char *path;
	bool is_offline;
	struct mkfs_slot slots[QUORUM_SLOTS_MAX];
};

/* Two members at one address: neither could be told from the other. */
static int refuse_same_address(const struct options *o)
{
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		for (unsigned j = 0; j < i && o->slots[i].is_used; j++) {
			if (o->slots[j].is_used && o->slots[j].addr == o->slots[i].addr &&
			    o->slots[j].port == o->slots[i].port)
				return usage_error(VERB, "slots %u and %u have the same address and port", j, i);
		}
	}
	return 0;
}

static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "quorum-slot", required_argument, NULL, 'Q' },
		{ "offline", no_argument, NULL, 'F' },
		{ NULL, 0, NULL, 0 },
	};
	unsigned nr = 0;
	int c, ret = 0;

	while (ret == 0 && (c = getopt_long(argc, argv, ":Q:F", longs, NULL)) != -1) {
		switch (c) {
		case 'Q':
			ret = slot_parse(VERB, optarg, o->slots);
			nr++;
			break;
		case 'F':
			o->is_offline = true;
			break;
		case ':':
			return usage_error(VERB, "option '%s' needs a value", argv[optind - 1]);
		default:
			return unknown_option(VERB, argv);
		}
	}
	if (ret)
		return ret;
	if (argc - optind != 1)
		return usage_error(VERB, "name the metadata device");
	o->path = argv[optind];
	if (nr == 0)
		return usage_error(VERB, "at least one quorum slot is needed (-Q): the whole table is replaced");
	if (!o->is_offline)
		return usage_error(VERB, "members read their slots when they start: this works only on a volume that "
				   "nobody uses; unmount it everywhere and give -F");
	return refuse_same_address(o);
}

static int read_super(const struct device *meta, struct disk_super *super)
{
	const char *why = NULL;
	int ret;

	ret = device_read(meta, SUPER_BLKNO << SMALL_SHIFT, super, sizeof(*super));
	if (ret < 0) {
		say_error(VERB, "could not read the super block of '%s': %s", meta->path, strerror(-ret));
		return ret;
	}
	ret = super_check(super, &why);
	if (ret == 0)
		ret = super_check_meta(super, meta->bytes, &why);
	if (ret < 0)
		say_error(VERB, "'%s': %s", meta->path, why);
	return ret;
}

static int refuse_used(const struct device *meta, const struct disk_super *super)
{
	struct volume_holders hs;
	int ret = device_find_holders(meta, super, &hs);

	if (ret < 0) {
		say_error(VERB, "could not read '%s' to see who uses it: %s", meta->path, strerror(-ret));
		return ret;
	}
	if (!hs.nr && !hs.unreadable)
		return 0;
	volume_say_holders(stderr, &hs);
	say_error(VERB, "'%s' may be in use; mount it and unmount it everywhere, or have it repaired, first", meta->path);
	return -EBUSY;
}

static int write_super(const struct device *meta, struct disk_super *super)
{
	ssize_t n;
	int ret = 0;

	super->hdr.crc = le32_of(block_crc(super, sizeof(*super)));
	do {
		n = pwrite(meta->fd, super, sizeof(*super), SUPER_BLKNO << SMALL_SHIFT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		ret = -errno;
	else if ((size_t)n != sizeof(*super))
		ret = -EIO;
	if (ret == 0 && fsync(meta->fd) < 0)
		ret = -errno;
	if (ret < 0)
		say_error(VERB, "could not write the super block of '%s': %s; run check before it is used",
			  meta->path, strerror(-ret));
	return ret;
}

static void set_slots(struct disk_super *super, const struct options *o)
{
	struct disk_quorum_config *q = &super->qconf;

	memset(q->slots, 0, sizeof(q->slots));
	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		if (!o->slots[i].is_used)
			continue;
		q->slots[i].family = le16_of(ADDR_IPV4);
		q->slots[i].port = le16_of(o->slots[i].port);
		q->slots[i].addr = le32_of(o->slots[i].addr);
	}
	q->version = le64_of(le64_get(q->version) + 1);
}

int cmd_change_quorum_config(int argc, char **argv)
{
	_Alignas(SMALL_SIZE) struct disk_super super;
	struct options o = { 0 };
	struct device meta;
	int ret;

	ret = parse_options(argc, argv, &o);
	if (ret)
		return ret;
	ret = device_open(&meta, o.path, DEVICE_WRITE, VERB);
	if (ret < 0)
		return verb_failed(VERB, ret);
	ret = read_super(&meta, &super);
	if (ret == 0)
		ret = refuse_used(&meta, &super);
	if (ret == 0) {
		set_slots(&super, &o);
		ret = write_super(&meta, &super);
	}
	device_close(&meta);
	if (ret < 0)
		return verb_failed(VERB, ret);
	printf("Changed the quorum configuration of %s:\n", o.path);
	printf("  %-23s %" PRIu64 "\n", "quorum config version:", le64_get(super.qconf.version));
	slots_print(o.slots);
	return 0;
}
