/*
 * scoutfsctl stat, statfs and df: what a mount says about a file and about the volume (interface.md
 * 1.3, 3.3, 3.4).
 *
 * df: statvfs has the free blocks of both devices together, and of data alone what can be written
 * (interface 4.1); the difference is metadata, of which the reserve is not for use (1.3, STATFS_MORE).
 * A mount that is out of metadata says that nothing can be written: the free space of data is not
 * known then.
 */
#include "tools/scoutfsctl/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "format/format.h"
#include "format/ioctl_abi.h"

struct field {
	const char *name;
	char value[40];
	bool is_text;		/* in JSON: a string, not a number */
};

/* Print them all, or the one called `only`; -ENOENT if there is none of that name. */
static int fields_print(const struct field *fields, size_t nr, const char *only, bool is_json)
{
	bool is_first = true;

	for (size_t i = 0; i < nr; i++) {
		const struct field *f = &fields[i];

		if (only && strcmp(only, f->name) != 0)
			continue;
		if (is_json)
			printf("%s\"%s\":%s%s%s", is_first ? "{" : ",", f->name,
			       f->is_text ? "\"" : "", f->value, f->is_text ? "\"" : "");
		else if (only)
			printf("%s\n", f->value);
		else
			printf("%-17s %s\n", f->name, f->value);
		is_first = false;
	}
	if (is_json && !is_first)
		printf("}\n");
	return is_first ? -ENOENT : 0;
}

static struct field field_u64(const char *name, uint64_t v)
{
	struct field f = { .name = name };

	snprintf(f.value, sizeof(f.value), "%" PRIu64, v);
	return f;
}

static struct field field_hex(const char *name, uint64_t v)
{
	struct field f = { .name = name, .is_text = true };

	snprintf(f.value, sizeof(f.value), "%016" PRIx64, v);
	return f;
}

static struct field field_time(const char *name, uint64_t sec, uint32_t nsec)
{
	struct field f = { .name = name, .is_text = true };

	snprintf(f.value, sizeof(f.value), "%" PRId64 ".%09u", (int64_t)sec, nsec);
	return f;
}

/* The ioctl, its failure said. */
static int ask(const char *verb, int fd, unsigned long cmd, const char *name, void *arg)
{
	int ret;

	do {
		ret = ioctl(fd, cmd, arg) < 0 ? -errno : 0;
	} while (ret == -EINTR);
	if (ret < 0)
		say_error(verb, "%s ioctl failed: %s%s", name, strerror(-ret),
			  ret == -ENOTTY ? "; the path is not in a mounted scoutfs volume" : "");
	return ret;
}

struct common_options {
	const char *path;
	const char *only;
	bool is_json;
	bool is_human;
};

/* The options of these three verbs; shorts says which of them a verb has. */
static int parse_common(int argc, char **argv, const char *verb, const char *shorts,
			struct common_options *o)
{
	static const struct option longs[] = {
		{ "single-field", required_argument, NULL, 's' },
		{ "path", required_argument, NULL, 'p' },
		{ "human-readable", no_argument, NULL, 'h' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	int c, at = 0;

	memset(o, 0, sizeof(*o));
	while ((c = getopt_long(argc, argv, shorts, longs, &at)) != -1) {
		if (c == ':')
			return usage_error(verb, "option '%s' needs a value", argv[optind - 1]);
		if (c == '?')
			return unknown_option(verb, argv);
		if (c != 'j' && !strchr(shorts, c))	/* another verb's */
			return usage_error(verb, "unknown option '--%s'", longs[at].name);
		if (c == 's')
			o->only = optarg;
		else if (c == 'p')
			o->path = optarg;
		else if (c == 'h')
			o->is_human = true;
		else
			o->is_json = true;
	}
	return 0;
}

static int print_fields(const char *verb, const struct field *fields, size_t nr,
			const struct common_options *o)
{
	if (fields_print(fields, nr, o->only, o->is_json) == 0)
		return 0;
	say_error(verb, "there is no field '%s'", o->only);
	return verb_failed(verb, EINVAL);
}

int cmd_stat(int argc, char **argv)
{
	struct ioc_stat_more st = { 0 };
	struct common_options o;
	int fd, ret;

	ret = parse_common(argc, argv, "stat", ":s:", &o);
	if (ret)
		return ret;
	if (argc - optind != 1)
		return usage_error("stat", "one FILE is needed");
	fd = open(argv[optind], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		ret = -errno;
		say_error("stat", "could not open '%s': %s", argv[optind], strerror(-ret));
		return verb_failed("stat", ret);
	}
	ret = ask("stat", fd, SCOUTFS_IOC_STAT_MORE, "stat_more", &st);
	close(fd);
	if (ret < 0)
		return verb_failed("stat", ret);

	const struct field fields[] = {
		field_u64("meta_seq", st.meta_seq),
		field_u64("data_seq", st.data_seq),
		field_u64("data_version", st.data_version),
		field_u64("online_blocks", st.online_blocks),
		field_u64("offline_blocks", st.offline_blocks),
		field_time("crtime", st.crtime_sec, st.crtime_nsec),
	};
	return print_fields("stat", fields, sizeof(fields) / sizeof(fields[0]), &o);
}

int cmd_statfs(int argc, char **argv)
{
	struct ioc_statfs_more st = { 0 };
	struct common_options o;
	int fd, ret;

	ret = parse_common(argc, argv, "statfs", ":s:p:", &o);
	if (ret)
		return ret;
	if (optind < argc)
		return usage_error("statfs", "'%s' is too much", argv[optind]);
	fd = open_mount("statfs", o.path);
	if (fd < 0)
		return verb_failed("statfs", fd);
	ret = ask("statfs", fd, SCOUTFS_IOC_STATFS_MORE, "statfs_more", &st);
	close(fd);
	if (ret < 0)
		return verb_failed("statfs", ret);

	const struct field fields[] = {
		field_hex("fsid", st.fsid),
		field_hex("rid", st.rid),
		field_u64("committed_seq", st.committed_seq),
		field_u64("total_meta_blocks", st.total_meta_blocks),
		field_u64("total_data_blocks", st.total_data_blocks),
	};
	return print_fields("statfs", fields, sizeof(fields) / sizeof(fields[0]), &o);
}

#define DF_ROWS 3
#define DF_COLUMNS 6

struct df_table {
	char cell[DF_ROWS][DF_COLUMNS][24];
};

static void df_amount(char out[24], uint64_t blocks, unsigned shift, bool is_human)
{
	static const char units[] = "BKMGTPE";
	double size = (double)blocks * (double)(1u << shift);
	unsigned u = 0;

	if (!is_human) {
		snprintf(out, 24, "%" PRIu64, blocks);
		return;
	}
	for (; size >= 1024 && u < 6; u++)
		size /= 1024;
	snprintf(out, 24, "%.1f%c", size, units[u]);
}

struct df_space {
	uint64_t total, avail;
	bool is_known;		/* avail is */
};

/* The space of metadata and of data; -EPROTO: numbers that cannot be. */
static int df_split(const struct ioc_statfs_more *st, const struct statvfs *vfs, struct df_space *meta,
		    struct df_space *data)
{
	bool is_out_of_meta = vfs->f_ffree == 0;
	uint64_t meta_avail;

	if (vfs->f_frsize != SMALL_SIZE || vfs->f_bfree > vfs->f_blocks || vfs->f_bavail > vfs->f_bfree)
		return -EPROTO;
	meta_avail = is_out_of_meta ? 0 : (vfs->f_bfree - vfs->f_bavail) >> (LARGE_SHIFT - SMALL_SHIFT);
	if (meta_avail > st->total_meta_blocks || vfs->f_bavail > st->total_data_blocks)
		return -EPROTO;
	*meta = (struct df_space){
		.total = st->total_meta_blocks,
		.avail = meta_avail > st->reserved_meta_blocks ? meta_avail - st->reserved_meta_blocks : 0,
		.is_known = true,
	};
	*data = (struct df_space){
		.total = st->total_data_blocks,
		.avail = vfs->f_bavail,
		.is_known = !is_out_of_meta,
	};
	return 0;
}

static void df_row(char row[DF_COLUMNS][24], const struct df_space *s, unsigned shift, bool is_human)
{
	uint64_t used = s->total - s->avail;

	df_amount(row[2], s->total, shift, is_human);
	if (!s->is_known)
		return;
	df_amount(row[3], used, shift, is_human);
	df_amount(row[4], s->avail, shift, is_human);
	snprintf(row[5], 24, "%u", s->total ? (unsigned)((double)used * 100 / (double)s->total) : 0);
}

static void df_json(const char *name, const struct df_space *s)
{
	printf("\"total_%s_blocks\":%" PRIu64, name, s->total);
	if (s->is_known)
		printf(",\"used_%s_blocks\":%" PRIu64 ",\"free_%s_blocks\":%" PRIu64, name, s->total - s->avail,
		       name, s->avail);
	else
		printf(",\"used_%s_blocks\":null,\"free_%s_blocks\":null", name, name);
}

static void df_print(const struct df_table *t)
{
	int width[DF_COLUMNS] = { 0 };

	for (unsigned r = 0; r < DF_ROWS; r++) {
		for (unsigned c = 0; c < DF_COLUMNS; c++) {
			int len = (int)strlen(t->cell[r][c]);

			width[c] = len > width[c] ? len : width[c];
		}
	}
	for (unsigned r = 0; r < DF_ROWS; r++) {
		for (unsigned c = 0; c < DF_COLUMNS; c++)
			printf("%*s  ", width[c], t->cell[r][c]);
		putchar('\n');
	}
}

int cmd_df(int argc, char **argv)
{
	struct df_table t = { .cell = {
		{ "Type", "Size", "Total", "Used", "Free", "Use%" },
		{ "MetaData", "64KB", "", "-", "-", "-" },
		{ "Data", "4KB", "", "-", "-", "-" },
	} };
	struct ioc_statfs_more st = { 0 };
	struct common_options o;
	struct df_space meta, data;
	struct statvfs vfs;
	int fd, ret;

	ret = parse_common(argc, argv, "df", ":hp:", &o);
	if (ret)
		return ret;
	if (optind < argc)
		return usage_error("df", "'%s' is too much", argv[optind]);
	fd = open_mount("df", o.path);
	if (fd < 0)
		return verb_failed("df", fd);
	ret = ask("df", fd, SCOUTFS_IOC_STATFS_MORE, "statfs_more", &st);
	if (ret == 0 && fstatvfs(fd, &vfs) < 0) {
		ret = -errno;
		say_error("df", "statvfs failed: %s", strerror(-ret));
	}
	close(fd);
	if (ret == 0) {
		ret = df_split(&st, &vfs, &meta, &data);
		if (ret < 0)
			say_error("df", "the mount answered statvfs with numbers that cannot be");
	}
	if (ret < 0)
		return verb_failed("df", ret);

	if (o.is_json) {
		putchar('{');
		df_json("meta", &meta);
		putchar(',');
		df_json("data", &data);
		printf("}\n");
		return 0;
	}
	df_row(t.cell[1], &meta, LARGE_SHIFT, o.is_human);
	df_row(t.cell[2], &data, SMALL_SHIFT, o.is_human);
	df_print(&t);
	if (!data.is_known)
		fprintf(stderr, "%s: df: the metadata that may be used is used up: nothing can be written\n",
			program_name());
	return 0;
}
