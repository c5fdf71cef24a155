/*
 * The verbs of scoutfsctl: one table that gives the declarations, the dispatch and the help.  To add a verb add a line here and a cmd_<verb>.c; interface.md 3.
 */
#ifndef SCOUTFSCTL_COMMANDS_H
#define SCOUTFSCTL_COMMANDS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Groups of the help, in its order (interface 3.1). */
enum command_group {
	GROUP_CORE,		/* Core admin */
	GROUP_INFO,		/* Additional Information */
	GROUP_SEARCH,		/* Search Acceleration */
	GROUP_ARCHIVE,		/* Archival Agent Support */
	GROUP_DEBUG,		/* Debugging */
	GROUPS_NR,
};

/*
 * C(function, name, group, usage after the name, one line, options one a line).  The table is
 * included between the tokens it needs; a verb's function is int cmd_<function>(int argc, char
 * **argv) with argv[0] the verb; it returns the exit status.
 */

/* What asks a mount: scoutfsctl itself. */
#define MOUNT_COMMANDS(C)                                                                         \
	C(walk_inodes, "walk-inodes", GROUP_SEARCH,                                               \
	  "meta_seq|data_seq FIRST LAST [MNT | -p PATH | --meta META [--data DATA]] [--json]",    \
	  "list inodes in the order in which they changed",                                       \
	  "  FIRST, LAST: MAJOR[.MINOR[.INO]], -1 is the maximum\n"                               \
	  "  -p, --path PATH                 any path of the mount (or MNT as last argument)\n"   \
	  "      --meta META --data DATA     read devices that nobody uses instead of a mount\n"  \
	  "      --json                      one JSON object per line\n")                         \
	C(stat, "stat", GROUP_ARCHIVE, "FILE [-s FIELD] [--json]",                                \
	  "show what the archive interface knows about a file",                                   \
	  "  -s, --single-field FIELD        print only the value of FIELD\n"                     \
	  "      --json                      one JSON object\n")                                  \
	C(statfs, "statfs", GROUP_INFO, "[-s FIELD] [-p PATH] [--json]",                          \
	  "show the identity and the size of a mounted volume",                                   \
	  "  -s, --single-field FIELD        print only the value of FIELD\n"                     \
	  "  -p, --path PATH                 any path of the mount\n"                             \
	  "      --json                      one JSON object\n")                                  \
	C(df, "df", GROUP_CORE, "[-h] [-p PATH] [--json]",                                        \
	  "show used and free blocks of a mounted volume",                                        \
	  "  -h, --human-readable            sizes with a unit\n"                                 \
	  "  -p, --path PATH                 any path of the mount\n"                             \
	  "      --json                      one JSON object per line\n")                         \
	C(ino_path, "ino-path", GROUP_ARCHIVE, "INO [-p PATH] [--null] [--json]",                 \
	  "list the paths of an inode",                                                           \
	  "  -p, --path PATH                 any path of the mount\n"                             \
	  "      --null                      end each path with a NUL\n"                          \
	  "      --json                      one JSON object per line\n")

/* What works on devices or with services: scoutfsctl-admin, to which scoutfsctl hands it over (hand_over.c). */
#define ADMIN_COMMANDS(C)                                                                         \
	C(mkfs, "mkfs", GROUP_CORE,                                                               \
	  "META DATA -Q NR,ADDR,PORT... | -Q COUNT --node ADDR[:PORT]... [options]",              \
	  "make a new volume on two devices or files",                                            \
	  "  -Q, --quorum-slot NR,ADDR,PORT  a quorum slot: number 0-14, IPv4 address, port\n"    \
	  "  -Q COUNT --node ADDR[:PORT]     the same by nodes: slots are numbered in order;\n"   \
	  "                                  COUNT is the majority of them (default port 12345)\n" \
	  "  -m, --max-meta-size SIZE        use no more than SIZE of META (K M G T P)\n"         \
	  "  -d, --max-data-size SIZE        use no more than SIZE of DATA\n"                     \
	  "  -z, --data-alloc-zone-blocks N  give mounts disjoint zones of N 4 KiB blocks\n"      \
	  "  -V, --format-version 1|2        version of the format (default 2)\n"                 \
	  "  -f, --force                     overwrite what the devices hold; twice: also a\n"    \
	  "                                  volume that was not cleanly unmounted\n"             \
	  "  -A, --allow-small-size          allow devices under 64 GiB\n")                       \
	C(change_quorum_config, "change-quorum-config", GROUP_CORE, "-Q NR,ADDR,PORT... -F META", \
	  "replace the quorum slots of a volume that nobody uses",                                \
	  "  -Q, --quorum-slot NR,ADDR,PORT  a quorum slot; those not given are no more\n"        \
	  "  -F, --offline                   nobody uses the volume: it is unmounted everywhere\n") \
	C(check, "check", GROUP_CORE, "[--json] META DATA",                                       \
	  "check every rule of the format on devices that nobody uses",                           \
	  "      --json                      one JSON object per line\n"                          \
	  "  Exit status: 0 clean, 1 findings, 2 the check could not be run.\n"                   \
	  "  What memory is not to hold is sorted in files without names in TMPDIR (/var/tmp).\n") \
	C(run, "run", GROUP_CORE, "[-d] [-l LOG] [-o KEY=VALUE]... NAME|FILE",                    \
	  "run the services of an instance where systemd does not",                               \
	  "  -d        return when it is up and leave it running\n"                               \
	  "  -l LOG    append what the services say to LOG\n"                                     \
	  "  -o K=V    override one setting of the configuration\n")                              \
	C(stop, "stop", GROUP_CORE, "NAME|FILE", "stop what run started", "")                     \
	C(restart, "restart", GROUP_CORE, "[SERVICE] NAME|FILE",                                  \
	  "replace the processes of a running instance, or one of them; programs wait meanwhile", \
	  "  SERVICE   blockd, quorumd, serverd or fsd\n")                                        \
	C(reload, "reload", GROUP_CORE, "NAME|FILE",                                              \
	  "have a running instance read its list of allowed nodes again", "")                     \
	C(status, "status", GROUP_CORE, "[NAME|FILE] [-v] [--cluster [--all]] [--json|--prom]",   \
	  "how each service of an instance is, and what it waits for",                            \
	  "  -v, --verbose                   with counters\n"                                     \
	  "      --cluster                   the whole cluster, as its leader sees it: members,\n" \
	  "                                  mounts, who waits for whose lock, space\n"           \
	  "      --all                       every mount and wait, not the first few\n"           \
	  "      --json                      one JSON object per instance and line\n"             \
	  "      --prom                      every counter as text for Prometheus\n"              \
	  "  Exit status: 0 healthy, 1 degraded, 2 not running, 3 it may not be asked.\n")        \
	C(keygen, "keygen", GROUP_CORE, "[-f] [-p] [-a ADDRESS[:PORT]]... [-n NAME] [FILE]",      \
	  "make this node's key, and print its line for the list of allowed nodes",               \
	  "  -a ADDRESS[:PORT]  where this node's quorum slot listens (mkfs -Q), for the line;\n" \
	  "                     none for a node that never leads; may be given again\n"           \
	  "  -n NAME            the name in the line (default: the host's)\n"                     \
	  "  -p, --public       make nothing: print the line for the key that is there\n"         \
	  "  -f, --force        replace a key; the lists of all nodes must then be changed\n"     \
	  "  FILE is /etc/scoutfs/node.key where none is given.  The lists, the same lines for all\n" \
	  "  nodes, are /etc/scoutfs/nodes.allow; a change counts after a reload of the service.\n") \
	C(fence, "fence", GROUP_CORE, "list [--json]|ack RID|fail RID [NAME|FILE], agent NAME|FILE",      \
	  "mounts that must be dead before the volume goes on: list, or say so",                  \
	  "  list      the rids that are waited for, one a line: RID INSTANCE SERVICE REASON; fails\n"\
	  "            when one of the services does not answer\n"   \
	  "  ack RID   that mount cannot write any more: its host is off, or cut off\n"           \
	  "  fail RID  that could not be made certain: the leader stops, the next one asks again\n" \
	  "  agent     stay, and have the configuration's fence_command make each of them dead\n" \
	  "            (scoutfs-fenced@NAME.service)\n")                                          \
	C(resign, "resign", GROUP_CORE, "[NAME|FILE]",                                            \
	  "have another member of the quorum lead instead of this host; mounts hardly notice",    \
	  "  Ends when another one leads; nothing is done where this host does not lead.\n")      \
	C(runtime, "runtime", GROUP_DEBUG, "start|stop|has-slot|ready SERVICE NAME|FILE",         \
	  "prepare the runtime directory of an instance (for the units)", "")                     \
	C(print, "print", GROUP_DEBUG, "[-S] [--json] META",                                      \
	  "dump every metadata structure as text",                                                \
	  "  -S, --skip-likely-huge          leave out what grows with the volume\n"              \
	  "      --json                      one JSON object per line\n")                         \
	C(ls, "ls", GROUP_DEBUG, "--meta META [--data DATA] [-lR] [--null|--json] [PATH]",        \
	  "list files on devices that nobody uses",                                               \
	  "  -l, --long                      type, mode, links, owner, size, time\n"              \
	  "  -R, --recursive                 and all that is below\n"                             \
	  "      --null                      end each path with a NUL, unchanged\n"               \
	  "      --json                      one JSON object per line\n")                         \
	C(cat, "cat", GROUP_DEBUG, "--meta META --data DATA PATH",                                \
	  "write a file's contents from devices that nobody uses", "")

#define COMMANDS(C) ADMIN_COMMANDS(C) MOUNT_COMMANDS(C)

#define COMMAND_DECLARE(function, ...) int cmd_##function(int argc, char **argv);
COMMANDS(COMMAND_DECLARE)
#undef COMMAND_DECLARE

#define EXIT_USAGE 64	/* as upstream's option parser */

/* What the program was called as, for messages. */
void program_set_args(char **argv);
const char *program_name(void);
/* The command line as it came, with a NULL at its end; of main's life. */
char *const *program_args(void);
/* "PROGRAM: VERB: text", to stderr. */
void say_error(const char *verb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Usage of a verb to stderr after an option error; returns EXIT_USAGE. */
int usage_error(const char *verb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same where getopt_long() has answered '?': the option is named, also one of several letters. */
int unknown_option(const char *verb, char **argv);
/* For a verb that has no options: 0, or EXIT_USAGE and said when the first argument looks like one. */
int refuse_options(const char *verb, int argc, char **argv);
/* "PROGRAM: VERB failed: TEXT (ERRNO)", the line scripts compare (interface 3.1); returns 1. */
int verb_failed(const char *verb, int err);

/* Numbers and sizes of the command line (3.1): 0 or -EINVAL, -ERANGE. */
int parse_u64(const char *text, uint64_t *val);
int parse_size(const char *text, uint64_t *bytes);

/* Open the mount that a verb means: path, else SCOUTFS_MOUNT_PATH, else "."; fd or -errno, said. */
int open_mount(const char *verb, const char *path);

/* A JSON string with its quotes; bytes that are not UTF-8 become \u00XX of their value. */
void json_string(FILE *f, const char *s, size_t len);
/* A name for a terminal: unprintable bytes and backslashes as \\xNN. */
void text_string(FILE *f, const char *s, size_t len);

#endif
