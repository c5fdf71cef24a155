/*
 * What several verbs share: messages in one form, numbers of the command line, JSON strings, the
 * way to a mount.
 */
#include "tools/scoutfsctl/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *called_as = "scoutfsctl";
static char **args;

void program_set_args(char **argv)
{
	const char *slash;

	args = argv;
	if (!argv[0] || !argv[0][0])
		return;
	slash = strrchr(argv[0], '/');
	called_as = slash ? slash + 1 : argv[0];
}

const char *program_name(void)
{
	return called_as;
}

char *const *program_args(void)
{
	return args;
}

void say_error(const char *verb, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "%s: %s: ", called_as, verb);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

int verb_failed(const char *verb, int err)
{
	fflush(stdout);
	err = err < 0 ? -err : err;
	fprintf(stderr, "%s: %s failed: %s (%d)\n", called_as, verb, strerror(err), err);
	return 1;
}

int parse_u64(const char *text, uint64_t *val)
{
	char *end;
	unsigned long long v;

	/* strtoull takes signs and blanks; a number here is digits. */
	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno == ERANGE)
		return -ERANGE;
	if (*end != '\0')
		return -EINVAL;
	*val = v;
	return 0;
}

int parse_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGTP";
	size_t len = strlen(text);
	const char *unit = NULL;
	unsigned shift = 0;
	char digits[40];
	int ret;

	if (len == 0 || len >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, text, len + 1);
	unit = strchr(units, digits[len - 1]);
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		digits[len - 1] = '\0';
	}
	ret = parse_u64(digits, bytes);
	if (ret < 0)
		return ret;
	if (*bytes > UINT64_MAX >> shift)
		return -ERANGE;
	*bytes <<= shift;
	return 0;
}

int open_mount(const char *verb, const char *path)
{
	int fd;

	if (!path)
		path = getenv("SCOUTFS_MOUNT_PATH");
	if (!path)
		path = ".";
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		int err = errno;

		say_error(verb, "could not open '%s': %s; give a path in a mounted volume", path,
			  strerror(err));
		return -err;
	}
	return fd;
}

/* Length of the valid UTF-8 sequence at p, 0 if there is none. */
static size_t utf8_len(const unsigned char *p, size_t left)
{
	size_t n;
	uint32_t c, least;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		n = 2;
		c = p[0] & 0x1fu;
		least = 0x80;
	} else if (p[0] >= 0xe0 && p[0] <= 0xef) {
		n = 3;
		c = p[0] & 0xfu;
		least = 0x800;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		n = 4;
		c = p[0] & 0x7u;
		least = 0x10000;
	} else {
		return 0;
	}
	if (n > left)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3fu);
	}
	if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	return n;
}

void json_string(FILE *f, const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s;

	fputc('"', f);
	while (len) {
		size_t n = utf8_len(p, len);

		if (n > 1)
			fwrite(p, 1, n, f);
		else if (n == 0 || *p < 0x20 || *p == 0x7f)
			fprintf(f, "\\u%04x", *p);
		else if (*p == '"' || *p == '\\')
			fprintf(f, "\\%c", *p);
		else
			fputc(*p, f);
		n = n ? n : 1;
		p += n;
		len -= n;
	}
	fputc('"', f);
}

void text_string(FILE *f, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c < 32 || c >= 127 || c == '\\')
			fprintf(f, "\\x%02x", c);
		else
			fputc(c, f);
	}
}
