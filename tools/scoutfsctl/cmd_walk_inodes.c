/*
 * scoutfsctl walk-inodes: the change index, from a mount through its ioctl or from devices that
 * nobody uses (walk_devices.c) (interface.md 1.3, 3.4).
 *
 * Both forms stop before the smallest transaction that is still open, so a reader that goes on from
 * the last line it saw misses nothing.
 */
#include "tools/scoutfsctl/commands.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "format/ioctl_abi.h"
#include "tools/scoutfsctl/walk.h"

#define VERB WALK_VERB
#define BATCH_NR 4096
#define ROWS_PER_HEADER 25

/* MAJOR[.MINOR[.INO]]; what is missing is zero, -1 is the maximum of its part. */
static int parse_position(const char *text, struct ioc_walk_inodes_entry *pos)
{
	uint64_t v[3] = { 0 };
	char part[32];

	for (unsigned i = 0; i < 3; i++) {
		size_t len = strcspn(text, ".");

		if (len == 0 || len >= sizeof(part))
			return -EINVAL;
		memcpy(part, text, len);
		part[len] = '\0';
		if (strcmp(part, "-1") == 0)
			v[i] = i == 1 ? UINT32_MAX : UINT64_MAX;
		else if (parse_u64(part, &v[i]) < 0 || (i == 1 && v[i] > UINT32_MAX))
			return -EINVAL;
		text += len;
		if (*text == '\0')
			break;
		text++;
		if (i == 2)
			return -EINVAL;
	}
	*pos = (struct ioc_walk_inodes_entry){ .major = v[0],
					       .minor = (uint32_t)v[1],
					       .ino = v[2] };
	return 0;
}

void walk_print_row(struct walk *w, uint64_t major, uint32_t minor, uint64_t ino)
{
	if (w->is_json) {
		printf("{\"major\":%" PRIu64 ",\"minor\":%u,\"ino\":%" PRIu64 "}\n", major, minor,
		       ino);
		return;
	}
	if (w->rows % ROWS_PER_HEADER == 0)
		printf("%-20s %-20s %-10s %-20s\n", "#", "major", "minor", "ino");
	printf("%-20" PRIu64 " %-20" PRIu64 " %-10u %-20" PRIu64 "\n", w->rows, major, minor, ino);
	w->rows++;
}

/* The position after an entry; false after the last there can be. */
static bool step_over(struct ioc_walk_inodes_entry *pos)
{
	if (++pos->ino == 0 && ++pos->minor == 0 && ++pos->major == 0)
		return false;
	return true;
}

/*
 * The native form, which needs neither the caller's memory nor a second call to learn that there is no more;
 * *is_end says so.  Number of entries at *ents, or -errno; -ENOTTY: the mount is not ours.
 */
static int ask_native(int fd, struct walk *w, void *buf, struct ioc_walk_inodes_entry **ents, bool *is_end)
{
	struct ioc_walk_inodes_n *n = buf;
	int nr;

	*n = (struct ioc_walk_inodes_n){ .first = w->first, .last = w->last, .index = w->index };
	nr = ioctl(fd, SCOUTFS_IOC_WALK_INODES_N, n);
	*ents = n->entries;
	*is_end = nr == 0 || n->is_end;
	if (nr > 0 && sizeof(*n) + (size_t)nr * sizeof(**ents) > SCOUTFS_NATIVE_BYTES)
		return -EPROTO;
	return nr < 0 ? -errno : nr;
}

/* The upstream form. */
static int ask(int fd, struct walk *w, void *buf, struct ioc_walk_inodes_entry **ents, bool *is_end)
{
	struct ioc_walk_inodes args = { .first = w->first, .last = w->last, .index = w->index,
					.nr_entries = BATCH_NR, .entries_ptr = (uintptr_t)buf };
	int nr = ioctl(fd, SCOUTFS_IOC_WALK_INODES, &args);

	*ents = buf;
	*is_end = nr == 0;
	if (nr > BATCH_NR)
		return -EPROTO;
	return nr < 0 ? -errno : nr;
}

static int walk_mount(struct walk *w, const char *path)
{
	static_assert(BATCH_NR * sizeof(struct ioc_walk_inodes_entry) >= SCOUTFS_NATIVE_BYTES, "for both forms");
	int (*how)(int, struct walk *, void *, struct ioc_walk_inodes_entry **, bool *) = ask_native;
	struct ioc_walk_inodes_entry *ents;
	bool is_end = false;
	int fd, n, ret = 0;
	void *buf;

	fd = open_mount(VERB, path);
	if (fd < 0)
		return verb_failed(VERB, fd);
	buf = malloc(BATCH_NR * sizeof(*ents));
	if (!buf) {
		close(fd);
		return verb_failed(VERB, -ENOMEM);
	}
	while (!is_end) {
		n = how(fd, w, buf, &ents, &is_end);
		if (n == -EINTR)
			continue;
		if (n == -ENOTTY && how == ask_native) {
			how = ask;
			continue;
		}
		if (n < 0) {
			ret = n;
			say_error(VERB, "walk_inodes ioctl failed: %s%s", strerror(-ret),
				  ret == -ENOTTY ? "; the path is not in a mounted scoutfs volume" :
				  ret == -EPROTO ? "; the mount answered with more entries than were asked for" :
						   "");
			break;
		}
		for (int i = 0; i < n; i++)
			walk_print_row(w, ents[i].major, ents[i].minor, ents[i].ino);
		if (n == 0 || ferror(stdout))
			break;	/* main says it */
		w->first = ents[n - 1];
		if (!step_over(&w->first))
			break;
	}
	free(buf);
	close(fd);
	return ret < 0 ? verb_failed(VERB, ret) : 0;
}

/* Negative positions are no options: "-1" and "-1.0.5" pass as arguments. */
static bool is_position(const char *arg)
{
	struct ioc_walk_inodes_entry pos;

	return parse_position(arg, &pos) == 0;
}

int cmd_walk_inodes(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "path", required_argument, NULL, 'p' },
		{ "meta", required_argument, NULL, 'M' },
		{ "data", required_argument, NULL, 'D' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	const char *path = NULL, *meta = NULL, *data = NULL;
	const char *args[4];
	int args_nr = 0, c;
	struct walk w = { .is_json = false };
	bool no_more_options = false;

	/* By hand where an argument is a position, also one with a '-'; else by getopt. */
	while (optind < argc) {
		const char *arg = argv[optind];

		if (!no_more_options && strcmp(arg, "--") == 0) {
			no_more_options = true;
			optind++;
			continue;
		}
		if (no_more_options || arg[0] != '-' || is_position(arg)) {
			if (args_nr == 4)
				return usage_error(VERB, "'%s' is too much", arg);
			args[args_nr++] = arg;
			optind++;
			continue;
		}
		c = getopt_long(argc, argv, "+:p:", longs, NULL);
		switch (c) {
		case 'p':
			path = optarg;
			break;
		case 'M':
			meta = optarg;
			break;
		case 'D':
			data = optarg;
			break;
		case 'j':
			w.is_json = true;
			break;
		case ':':
			return usage_error(VERB, "option '%s' needs a value", arg);
		default:
			return usage_error(VERB, "unknown option '%s'", arg);
		}
	}
	if (args_nr < 3)
		return usage_error(VERB, "INDEX, FIRST and LAST are needed");
	if (strcmp(args[0], "meta_seq") == 0)
		w.index = WALK_INDEX_META_SEQ;
	else if (strcmp(args[0], "data_seq") == 0)
		w.index = WALK_INDEX_DATA_SEQ;
	else
		return usage_error(VERB, "'%s' is not an index; they are meta_seq and data_seq",
				   args[0]);
	if (parse_position(args[1], &w.first) < 0)
		return usage_error(VERB, "'%s' is not a position, MAJOR[.MINOR[.INO]]", args[1]);
	if (parse_position(args[2], &w.last) < 0)
		return usage_error(VERB, "'%s' is not a position, MAJOR[.MINOR[.INO]]", args[2]);
	/* "-1" alone means the very end, not the first entry of the greatest seq. */
	if (strcmp(args[2], "-1") == 0)
		w.last = (struct ioc_walk_inodes_entry){ .major = UINT64_MAX, .minor = UINT32_MAX,
							 .ino = UINT64_MAX };
	if (args_nr == 4) {
		if (path || meta)
			return usage_error(VERB, "the mount is given twice: '%s'", args[3]);
		path = args[3];
	}
	if (meta && path)
		return usage_error(VERB, "give either a mount or --meta, not both");
	if (data && !meta)
		return usage_error(VERB, "--data needs --meta");
	return meta ? walk_devices(&w, meta, data) : walk_mount(&w, path);
}
