/*
 * scoutfsctl ino-path: every path of an inode, one a line, without a leading slash
 * (interface.md 1.3, 3.4).  No path is no output and success: the root and unlinked inodes have
 * none.
 */
#include "tools/scoutfsctl/commands.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "format/ioctl_abi.h"

#define VERB "ino-path"
#define RESULT_BYTES UINT16_MAX

enum path_form { PATH_LINES, PATH_NULS, PATH_JSON };

static void print_path(enum path_form form, const char *path, size_t len)
{
	if (form == PATH_JSON) {
		printf("{\"path\":");
		json_string(stdout, path, len);
		printf("}\n");
		return;
	}
	fwrite(path, 1, len, stdout);
	putchar(form == PATH_NULS ? '\0' : '\n');
}

static int print_paths(int fd, uint64_t ino, enum path_form form)
{
	struct ioc_ino_path args = { .ino = ino, .result_bytes = RESULT_BYTES };
	struct ioc_ino_path_result *res = malloc(RESULT_BYTES);
	int ret;

	if (!res)
		return -ENOMEM;
	args.result_ptr = (uintptr_t)res;
	for (;;) {
		ret = ioctl(fd, SCOUTFS_IOC_INO_PATH, &args) < 0 ? -errno : 0;
		if (ret == -EINTR)
			continue;
		if (ret == -ENOENT) {
			ret = 0;
			break;
		}
		if (ret < 0) {
			say_error(VERB, "ino_path ioctl failed: %s%s", strerror(-ret),
				  ret == -ENOTTY ? "; the path is not in a mounted scoutfs volume"
						 : "");
			break;
		}
		if (res->path_bytes == 0 || res->path_bytes > RESULT_BYTES - sizeof(*res) ||
		    res->path[res->path_bytes - 1] != '\0') {
			say_error(VERB, "the mount answered with a path without its end");
			ret = -EPROTO;
			break;
		}
		print_path(form, res->path, res->path_bytes - 1);
		args.dir_ino = res->dir_ino;
		args.dir_pos = res->dir_pos;
		if (++args.dir_pos == 0 && ++args.dir_ino == 0)
			break;
	}
	free(res);
	return ret;
}

int cmd_ino_path(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "path", required_argument, NULL, 'p' },
		{ "null", no_argument, NULL, '0' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	enum path_form form = PATH_LINES;
	const char *path = NULL;
	uint64_t ino;
	int c, fd, ret;

	while ((c = getopt_long(argc, argv, ":p:", longs, NULL)) != -1) {
		switch (c) {
		case 'p':
			path = optarg;
			break;
		case '0':
			form = PATH_NULS;
			break;
		case 'j':
			form = PATH_JSON;
			break;
		case ':':
			return usage_error(VERB, "option '%s' needs a value", argv[optind - 1]);
		default:
			return unknown_option(VERB, argv);
		}
	}
	if (argc - optind != 1)
		return usage_error(VERB, "one inode number is needed");
	if (parse_u64(argv[optind], &ino) < 0)
		return usage_error(VERB, "'%s' is not an inode number", argv[optind]);

	fd = open_mount(VERB, path);
	if (fd < 0)
		return verb_failed(VERB, fd);
	ret = print_paths(fd, ino, form);
	close(fd);
	return ret < 0 ? verb_failed(VERB, ret) : 0;
}
