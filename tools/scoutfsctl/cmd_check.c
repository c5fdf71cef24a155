/*
 * scoutfsctl check META DATA: read-only check of every invariant of the format.
 *
 * Findings are lines "F<number of the invariant>: where: what", warnings "W<number>: ...", notes
 * "note: ...", all on stdout, or one JSON object a line.  Exit status: 0 clean (warnings and notes
 * do not count), 1 findings, 2 the check could not be run.  Nothing is ever written to the
 * devices.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check_volume.h"
#include "commands.h"
#include "read_ahead.h"
#include "volume.h"

#define EXIT_CLEAN 0
#define EXIT_FINDINGS 1
#define EXIT_NOT_RUN 2

struct output {
	bool is_json;
	bool has_progress; /* a progress line stands on the terminal */
	bool is_terminal;
};

static void clear_progress(struct output *o)
{
	if (o->has_progress)
		fputs("\r\033[K", stderr);
	o->has_progress = false;
}

static void print_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct output *o = arg;

	if (!o->is_terminal)
		return;
	fprintf(stderr, "\r\033[Kchecking %s: %" PRIu64, phase, done);
	if (total)
		fprintf(stderr, " of %" PRIu64, total);
	fflush(stderr);
	o->has_progress = true;
}

static const char *severity_name(enum check_severity s)
{
	switch (s) {
	case CHECK_FINDING:
		return "finding";
	case CHECK_WARNING:
		return "warning";
	case CHECK_NOTE:
		return "note";
	}
	return "";
}

static void print_json(const struct check_message *m)
{
	char key[KEY_TEXT_BYTES];

	printf("{\"kind\":\"%s\"", severity_name(m->severity));
	if (m->invariant)
		printf(",\"invariant\":%u", m->invariant);
	if (m->path) {
		fputs(",\"path\":", stdout);
		json_string(stdout, m->path, strlen(m->path));
	}
	if (m->ino)
		printf(",\"ino\":%" PRIu64, m->ino);
	if (m->blkno)
		printf(",\"block\":%" PRIu64, m->blkno);
	if (m->key) {
		key_to_text(m->key, key, sizeof(key));
		printf(",\"key\":\"%s\"", key);
	}
	fputs(",\"text\":", stdout);
	json_string(stdout, m->text, strlen(m->text));
	puts("}");
}

static void print_message(void *arg, const struct check_message *m)
{
	struct output *o = arg;
	char key[KEY_TEXT_BYTES];

	clear_progress(o);
	if (o->is_json) {
		print_json(m);
		return;
	}
	if (m->severity == CHECK_NOTE)
		fputs("note: ", stdout);
	else
		printf("%c%u: ", m->severity == CHECK_FINDING ? 'F' : 'W', m->invariant);
	if (m->path) {
		text_string(stdout, m->path, strlen(m->path));
		fputs(": ", stdout);
	} else if (m->ino) {
		printf("inode %" PRIu64 ": ", m->ino);
	}
	fputs(m->text, stdout);
	if (m->blkno)
		printf(" [block %" PRIu64 "]", m->blkno);
	if (m->key) {
		key_to_text(m->key, key, sizeof(key));
		printf(" [key %s]", key);
	}
	putchar('\n');
}

/* What was only counted, then the result in one line. */
static void print_summary(const struct check *ck, const struct output *o)
{
	uint64_t findings = check_findings(ck), warnings = 0;

	for (unsigned i = 1; i <= CHECK_INVARIANTS_NR; i++) {
		warnings += ck->warnings_nr[i];
		if (o->is_json)
			continue;
		if (ck->findings_nr[i] > CHECK_SHOWN_MAX)
			printf("F%u: %" PRIu64 " more\n", i, ck->findings_nr[i] - CHECK_SHOWN_MAX);
		if (ck->warnings_nr[i] > CHECK_SHOWN_MAX)
			printf("W%u: %" PRIu64 " more\n", i, ck->warnings_nr[i] - CHECK_SHOWN_MAX);
	}
	if (!o->is_json) {
		if (findings)
			printf("%" PRIu64 " findings", findings);
		else
			printf("clean%s", ck->is_in_use ? " as of its last commit" : "");
		printf(", %" PRIu64 " warnings: %" PRIu64 " inodes, %" PRIu64
		       " metadata blocks read, %" PRIu64 " data blocks accounted for\n",
		       warnings, ck->inodes_nr, ck->blocks_nr, ck->data_blocks_nr);
		return;
	}
	printf("{\"kind\":\"result\",\"findings\":%" PRIu64 ",\"warnings\":%" PRIu64
	       ",\"cleanly_unmounted\":%s,\"by_invariant\":{",
	       findings, warnings, ck->is_in_use ? "false" : "true");
	for (unsigned i = 1, nr = 0; i <= CHECK_INVARIANTS_NR; i++)
		if (ck->findings_nr[i])
			printf("%s\"%u\":%" PRIu64, nr++ ? "," : "", i, ck->findings_nr[i]);
	printf("},\"inodes\":%" PRIu64 ",\"metadata_blocks\":%" PRIu64 ",\"data_blocks\":%" PRIu64
	       "}\n",
	       ck->inodes_nr, ck->blocks_nr, ck->data_blocks_nr);
}

/* A block, and the start of reading those it refers to. */
static int read_block(void *arg, uint64_t blkno, void *buf)
{
	struct volume *v = arg;
	int ret = device_read(&v->meta, blkno << LARGE_SHIFT, buf, LARGE_SIZE);

	if (ret == 0)
		read_ahead_children(&v->meta, v->meta.bytes >> LARGE_SHIFT, buf);
	return ret;
}

static void say_not_checked(const struct volume *v, const struct check *ck, int err)
{
	if (ck->err_what)
		say_error("check", "could not check %s: %s in %s: %s; give it room, or name another "
			  "folder in TMPDIR", v->meta.path, ck->err_what, ck->temp_dir,
			  strerror(-err));
	else
		say_error("check", "could not check %s: %s", v->meta.path,
			  err == -EBADMSG ? "its super block cannot be used" : strerror(-err));
}

static int run_check(struct volume *v, struct output *o)
{
	const char *tmp = getenv("TMPDIR");

	struct disk_super data_super;
	struct check ck = {
		.dev = { .arg = v, .read = read_block, .write = v->dev.write,
			 .random = v->dev.random },
		.meta_bytes = v->meta.bytes,
		.data_bytes = v->data.bytes,
		.data_super = &data_super,
		.message = print_message,
		.message_arg = o,
		.progress = print_progress,
		.progress_arg = o,
		.temp_dir = tmp && *tmp ? tmp : "/var/tmp",
	};
	int ret;

	ret = device_read(&v->data, SUPER_BLKNO << SMALL_SHIFT, &data_super, sizeof(data_super));
	if (ret < 0) {
		say_error("check", "cannot read the super block of %s: %s", v->data.path,
			  strerror(-ret));
		return EXIT_NOT_RUN;
	}
	ret = check_volume(&ck);
	clear_progress(o);
	if (ret < 0) {
		say_not_checked(v, &ck, ret);
		ret = EXIT_NOT_RUN;
	} else {
		print_summary(&ck, o);
		ret = check_findings(&ck) ? EXIT_FINDINGS : EXIT_CLEAN;
	}
	check_fini(&ck);
	if (fflush(stdout) || ferror(stdout)) {
		say_error("check", "cannot write the result: %s", strerror(errno));
		ret = EXIT_NOT_RUN;
	}
	return ret;
}

int cmd_check(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ 0 },
	};
	struct output o = { .is_terminal = isatty(STDERR_FILENO) };
	struct volume v;
	int c, ret;

	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c != 'j')
			return unknown_option("check", argv);
		o.is_json = true;
	}
	if (argc - optind != 2)
		return usage_error("check", "the metadata device and the data device are needed");
	if (volume_open(&v, argv[optind], argv[optind + 1], DEVICE_READ, "check") < 0)
		return EXIT_NOT_RUN;
	ret = run_check(&v, &o);
	volume_close(&v);
	return ret;
}
