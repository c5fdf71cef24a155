/*
 * scoutfsctl: the verbs of an operator, and scoutfsctl-admin, to which it hands over what it does not do itself
 * (hand_over.c).  This file, of both, finds the verb and prints the help; everything about a verb is in commands.h
 * and its cmd_ file.  Exit status 0 is success, 1 a failure, 64 a wrong command line; verbs with more to say
 * (check) document theirs.
 */
#include "tools/scoutfsctl/commands.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>

#include "stdfds.h"

struct command {
	const char *name;
	enum command_group group;
	const char *usage;
	const char *summary;
	const char *options;
	int (*run)(int argc, char **argv);
};

#define COMMAND_ENTRY(function, name, group, usage, summary, options) \
	{ name, group, usage, summary, options, cmd_##function },
static const struct command commands[] = { COMMANDS(COMMAND_ENTRY) };
#undef COMMAND_ENTRY

#define COMMANDS_COUNT (sizeof(commands) / sizeof(commands[0]))

static const char *const group_names[GROUPS_NR] = {
	[GROUP_CORE] = "Core admin",
	[GROUP_INFO] = "Additional Information",
	[GROUP_SEARCH] = "Search Acceleration",
	[GROUP_ARCHIVE] = "Archival Agent Support",
	[GROUP_DEBUG] = "Debugging",
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < COMMANDS_COUNT; i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

static void print_help(FILE *f)
{
	fprintf(f, "usage: %s SUBCOMMAND [options]\n", program_name());
	for (unsigned g = 0; g < GROUPS_NR; g++) {
		fprintf(f, "\n%s\n", group_names[g]);
		for (size_t i = 0; i < COMMANDS_COUNT; i++) {
			if (commands[i].group == g)
				fprintf(f, "  %-22s %s\n", commands[i].name, commands[i].summary);
		}
	}
	fprintf(f, "\n%s SUBCOMMAND --help tells more about one.\n", program_name());
	fprintf(f, "Version " SCOUTFS_VERSION ".  Supported format version: 1-2\n");
}

static void print_command_help(FILE *f, const struct command *c)
{
	fprintf(f, "usage: %s %s %s\n%s\n", program_name(), c->name, c->usage, c->summary);
	if (c->options[0])
		fprintf(f, "\n%s", c->options);
}

int usage_error(const char *verb, const char *fmt, ...)
{
	const struct command *c = find_command(verb);
	va_list ap;

	fprintf(stderr, "%s: %s: ", program_name(), verb);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	if (c)
		fprintf(stderr, "usage: %s %s %s\n", program_name(), verb, c->usage);
	fprintf(stderr, "Try '%s %s --help'.\n", program_name(), verb);
	return EXIT_USAGE;
}

int unknown_option(const char *verb, char **argv)
{
	const char *last = argv[optind - 1];

	/* A letter may stand in the middle of an argument; optopt is also set for --known=VALUE. */
	if (optopt && !(strncmp(last, "--", 2) == 0 && strchr(last, '=')))
		return usage_error(verb, "unknown option '-%c'", optopt);
	return usage_error(verb, "unknown option '%s'", last);
}

int refuse_options(const char *verb, int argc, char **argv)
{
	return argc > 1 && argv[1][0] == '-' ? usage_error(verb, "unknown option '%s'", argv[1]) : 0;
}

static bool asks_for_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--help") == 0)
			return true;
	}
	return false;
}

/* Output that did not reach its file is a failure, whatever the verb thought: its status, or 1. */
static int end_output(const char *verb, int status)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	/* What a write before has failed with is not known any more. */
	say_error(verb, "could not write the output: %s", errno ? strerror(errno) : "some of it was not taken");
	return status ? status : 1;
}

int main(int argc, char **argv)
{
	const struct command *c;

	program_set_args(argv);
	prctl(PR_SET_NAME, program_name());	/* of scoutfsctl-admin, too */
	if (stdfds_occupy() < 0) {
		fprintf(stderr, "%s: the closed ones of stdin, stdout, stderr cannot be replaced: %s\n",
			program_name(), strerror(errno));
		return 1;
	}
	if (argc < 2) {
		print_help(stderr);
		return 1;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
		print_help(stdout);
		return end_output("help", 0);
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("%s " SCOUTFS_VERSION "\n", program_name());
		return end_output("version", 0);
	}
	c = find_command(argv[1]);
	if (!c) {
		fprintf(stderr, "%s: there is no subcommand '%s'; %s --help lists them\n",
			program_name(), argv[1], program_name());
		return 1;
	}
	if (asks_for_help(argc - 1, argv + 1)) {
		print_command_help(stdout, c);
		return end_output(c->name, 0);
	}
	return end_output(c->name, c->run(argc - 1, argv + 1));
}
