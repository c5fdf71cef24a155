/*
 * The configuration file: a table of keys, each with its kind, range and place.
 *
 * Every line is judged by the table.  A line that is not understood, a key that is unknown or given twice, a value out of its range and a value that is
 * missing are errors that name file, line and key: a service never starts on a guess.
 */
#include "conf.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "lease/lease.h"
#include "stdfds.h"

#define FILE_BYTES_MAX	(1u << 20)
#define LONGEST_SOCKET	"ctl-quorumd.sock"

enum kind {
	KIND_PATH,
	KIND_SLOT,
	KIND_SIZE,
	KIND_U32,
	KIND_BOOL,
	KIND_POINTERS,
};

struct conf_key {
	const char *name;
	enum kind kind;
	size_t offset;
	uint64_t min, max;
};

#define KEY(kind, field, min, max) \
	{ #field, kind, offsetof(struct instance_conf, field), (min), (max) }

static const struct conf_key conf_keys[] = {
	KEY(KIND_PATH, meta_device, 0, 0),
	KEY(KIND_PATH, data_device, 0, 0),
	KEY(KIND_PATH, mountpoint, 0, 0),
	KEY(KIND_PATH, runtime_dir, 0, 0),
	KEY(KIND_PATH, state_dir, 0, 0),
	KEY(KIND_SLOT, quorum_slot, 0, 14),
	KEY(KIND_SIZE, cache_size, 8ull << 20, 1ull << 40),
	KEY(KIND_SIZE, pool_size, 8ull << 20, 1ull << 40),
	KEY(KIND_SIZE, server_cache_size, 4ull << 20, 1ull << 40),
	KEY(KIND_U32, commit_interval_ms, 10, 60000),
	KEY(KIND_U32, heartbeat_timeout_ms, 2000, 60000),
	KEY(KIND_U32, orphan_scan_delay_ms, 100, 60000),
	KEY(KIND_U32, tcp_keepalive_timeout_ms, 3001, 600000),
	KEY(KIND_U32, client_timeout_ms, 1000, 600000),
	KEY(KIND_U32, recovery_timeout_ms, 1000, 600000),
	KEY(KIND_U32, lease_ms, LEASE_MS_MIN, LEASE_MS_MAX),
	KEY(KIND_U32, longest_io_ms, 1000, 600000),
	KEY(KIND_U32, log_merge_wait_timeout_ms, 100, 60000),
	KEY(KIND_U32, log_merge_min_height, 1, 8),
	KEY(KIND_U32, log_merge_min_trees, 2, 1000),
	KEY(KIND_U32, data_prealloc_blocks, 1, UINT32_MAX),
	KEY(KIND_U32, lock_idle_count, 32, 100000),
	KEY(KIND_BOOL, acl, 0, 0),
	KEY(KIND_BOOL, name_cache, 0, 0),
	KEY(KIND_BOOL, insecure, 0, 0),
	KEY(KIND_PATH, key_file, 0, 0),
	KEY(KIND_PATH, allow_file, 0, 0),
	KEY(KIND_PATH, fence_command, 0, 0),
	KEY(KIND_POINTERS, ioctl_pointers, 0, 0),
};
#define KEYS_NR (sizeof(conf_keys) / sizeof(conf_keys[0]))

static int fail(char *err, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int fail(char *err, size_t size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(err, size, fmt, args);
	va_end(args);
	return -EINVAL;
}

static const struct conf_key *find_key(const char *name)
{
	for (size_t i = 0; i < KEYS_NR; i++) {
		if (strcmp(conf_keys[i].name, name) == 0)
			return &conf_keys[i];
	}
	return NULL;
}

/* Digits only: no sign, no space, no overflow. */
static bool parse_digits(const char *text, uint64_t *v, const char **end)
{
	uint64_t x = 0;

	if (!isdigit((unsigned char)*text))
		return false;
	for (; isdigit((unsigned char)*text); text++) {
		unsigned digit = (unsigned)(*text - '0');

		if (x > (UINT64_MAX - digit) / 10)
			return false;
		x = x * 10 + digit;
	}
	*v = x;
	*end = text;
	return true;
}

static bool parse_size(const char *text, uint64_t *v)
{
	static const char suffixes[] = "KMGT";
	const char *end;
	const char *suffix;
	unsigned shift;

	if (!parse_digits(text, v, &end))
		return false;
	if (!*end)
		return true;
	suffix = strchr(suffixes, toupper((unsigned char)*end));
	if (!suffix || end[1])
		return false;
	shift = 10 * (unsigned)(suffix - suffixes + 1);
	if (*v > UINT64_MAX >> shift)
		return false;
	*v <<= shift;
	return true;
}

static int set_number(struct instance_conf *conf, const struct conf_key *k, const char *value,
		      char *err, size_t size)
{
	void *field = (char *)conf + k->offset;
	const char *end = "";
	uint64_t v;
	bool is_ok;

	is_ok = k->kind == KIND_SIZE ? parse_size(value, &v)
				     : parse_digits(value, &v, &end) && !*end;
	if (!is_ok)
		return fail(err, size, "%s: '%.64s' is not a %s", k->name, value,
			    k->kind == KIND_SIZE ? "size: give bytes, or a number with K, M, G or T"
						 : "number");
	if (v < k->min || v > k->max)
		return fail(err, size,
			    "%s: %" PRIu64 " is out of range: give %" PRIu64 " to %" PRIu64,
			    k->name, v, k->min, k->max);
	if (k->kind == KIND_SIZE) {
		if (v % 4096)
			return fail(err, size, "%s: %" PRIu64 " is not a multiple of 4096", k->name,
				    v);
		*(uint64_t *)field = v;
	} else if (k->kind == KIND_SLOT) {
		*(int *)field = (int)v;
	} else {
		*(uint32_t *)field = (uint32_t)v;
	}
	return 0;
}

static int set_value(struct instance_conf *conf, const struct conf_key *k, const char *value,
		     char *err, size_t size)
{
	void *field = (char *)conf + k->offset;

	switch (k->kind) {
	case KIND_PATH:
		if (value[0] != '/')
			return fail(err, size, "%s: '%.64s' is not an absolute path", k->name,
				    value);
		if (strlen(value) >= CONF_PATH_BYTES)
			return fail(err, size, "%s: longer than %d bytes", k->name,
				    CONF_PATH_BYTES - 1);
		strcpy(field, value);
		return 0;
	case KIND_BOOL:
		if (strcmp(value, "yes") == 0)
			*(bool *)field = true;
		else if (strcmp(value, "no") == 0)
			*(bool *)field = false;
		else
			return fail(err, size, "%s: '%.64s' is neither yes nor no", k->name, value);
		return 0;
	case KIND_POINTERS:
		if (strcmp(value, "on") == 0)
			*(enum conf_pointers *)field = CONF_POINTERS_ON;
		else if (strcmp(value, "root") == 0)
			*(enum conf_pointers *)field = CONF_POINTERS_ROOT;
		else if (strcmp(value, "off") == 0)
			*(enum conf_pointers *)field = CONF_POINTERS_OFF;
		else
			return fail(err, size, "%s: '%.64s' is none of on, root, off", k->name,
				    value);
		return 0;
	case KIND_SLOT:
	case KIND_SIZE:
	case KIND_U32:
		return set_number(conf, k, value, err, size);
	}
	return -EINVAL;
}

/* Cut white space off both ends, in place. */
static char *trim(char *s)
{
	char *end;

	while (isspace((unsigned char)*s))
		s++;
	end = s + strlen(s);
	while (end > s && isspace((unsigned char)end[-1]))
		end--;
	*end = 0;
	return s;
}

/* Split "key = value" in place and set it.  seen may be NULL; else it holds the line of each key.
 */
static int set_pair(struct instance_conf *conf, char *text, unsigned line, unsigned *seen,
		    char *err, size_t size)
{
	char *eq = strchr(text, '=');
	const struct conf_key *k;
	char *key, *value;
	size_t i;

	if (!eq)
		return fail(err, size, "'%.64s' is not `key = value`", text);
	*eq = 0;
	key = trim(text);
	value = trim(eq + 1);
	k = find_key(key);
	if (!k)
		return fail(err, size, "%.64s: unknown key", key);
	if (!*value)
		return fail(err, size, "%s: the value is missing", key);
	i = (size_t)(k - conf_keys);
	if (seen && seen[i])
		return fail(err, size, "%s: given before, in line %u", key, seen[i]);
	if (seen)
		seen[i] = line;
	return set_value(conf, k, value, err, size);
}

static void cut_comment(char *s)
{
	for (char *p = s; *p; p++) {
		if (*p == '#' && (p == s || isspace((unsigned char)p[-1]))) {
			*p = 0;
			return;
		}
	}
}

int conf_init(struct instance_conf *conf, const char *name, char *err, size_t err_size)
{
	size_t len = strlen(name);

	if (len == 0 || len >= CONF_NAME_BYTES || name[0] == '.' || name[0] == '-')
		return fail(err, err_size,
			    "'%.80s' is not a name for an instance: give 1 to %d letters, digits, "
			    "- _ . that begin with a letter, a digit or _",
			    name, CONF_NAME_BYTES - 1);
	for (const char *p = name; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
			return fail(err, err_size,
				    "'%.80s' is not a name for an instance: only letters, digits, "
				    "- _ . may be in it",
				    name);
	}
	memset(conf, 0, sizeof(*conf));
	strcpy(conf->name, name);
	snprintf(conf->runtime_dir, sizeof(conf->runtime_dir), "/run/scoutfs/%s", name);
	snprintf(conf->state_dir, sizeof(conf->state_dir), "/var/lib/scoutfs/%s", name);
	conf->quorum_slot = CONF_NO_SLOT;
	conf->cache_size = 256ull << 20;
	conf->pool_size = 256ull << 20;
	conf->server_cache_size = 64ull << 20;
	conf->commit_interval_ms = 1000;
	conf->heartbeat_timeout_ms = 10000;
	conf->orphan_scan_delay_ms = 10000;
	conf->tcp_keepalive_timeout_ms = 24000;
	conf->client_timeout_ms = 20000;
	conf->recovery_timeout_ms = 30000;
	conf->lease_ms = LEASE_MS_DEFAULT;
	conf->longest_io_ms = 2000;
	conf->log_merge_wait_timeout_ms = 500;
	conf->log_merge_min_height = 3;
	conf->log_merge_min_trees = 8;
	conf->data_prealloc_blocks = 2048;
	conf->lock_idle_count = 10000;
	conf->acl = true;
	conf->name_cache = true;
	conf->ioctl_pointers = CONF_POINTERS_ON;
	return 0;
}

int conf_check(const struct instance_conf *conf, char *err, size_t err_size)
{
	const struct sockaddr_un *un = NULL;
	size_t dir_max = sizeof(un->sun_path) - sizeof("/" LONGEST_SOCKET);

	if (!conf->meta_device[0])
		return fail(err, err_size,
			    "meta_device: missing; give the volume's metadata device");
	if (!conf->data_device[0])
		return fail(err, err_size, "data_device: missing; give the volume's data device");
	if (!conf->mountpoint[0])
		return fail(err, err_size, "mountpoint: missing; give the directory to mount on");
	if (strcmp(conf->meta_device, conf->data_device) == 0)
		return fail(err, err_size,
			    "data_device: the same as meta_device; a volume has two devices");
	if (conf->insecure && (conf->key_file[0] || conf->allow_file[0]))
		return fail(err, err_size,
			    "%s: contradicts insecure = yes, which is to talk without keys; leave one of them out",
			    conf->key_file[0] ? "key_file" : "allow_file");
	if (strlen(conf->runtime_dir) > dir_max)
		return fail(err, err_size,
			    "runtime_dir: longer than %zu bytes, so its sockets could not be named",
			    dir_max);
	return 0;
}

/* The whole file as a string, to be freed; *ret says why not. */
static char *read_file(const char *path, int *ret)
{
	size_t len = 0;
	char *text;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		*ret = -errno;
		return NULL;
	}
	text = malloc(FILE_BYTES_MAX + 1);
	*ret = text ? 0 : -ENOMEM;
	while (text && len <= FILE_BYTES_MAX) {
		ssize_t n = read(fd, text + len, FILE_BYTES_MAX + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			*ret = -errno;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	close(fd);
	if (text && len > FILE_BYTES_MAX)
		*ret = -EFBIG;
	if (*ret < 0) {
		free(text);
		return NULL;
	}
	text[len] = 0;
	/* A NUL would hide what follows it. */
	if (strlen(text) != len) {
		*ret = -EINVAL;
		free(text);
		return NULL;
	}
	return text;
}

static int parse_lines(struct instance_conf *conf, const char *path, char *text, char *err,
		       size_t err_size)
{
	unsigned seen[KEYS_NR] = { 0 };
	unsigned line = 0;
	char *next = text;

	while (next) {
		char reason[CONF_ERR_BYTES / 2];
		char *s = next;

		line++;
		next = strchr(s, '\n');
		if (next)
			*next++ = 0;
		cut_comment(s);
		s = trim(s);
		if (*s && set_pair(conf, s, line, seen, reason, sizeof(reason)) < 0)
			return fail(err, err_size, "%s:%u: %s", path, line, reason);
	}
	return 0;
}

/* The file of that name, as snprintf; the administrator's own goes before one made for a mount. */
static size_t find_named(const char *name, char *path, size_t size)
{
	size_t len = (size_t)snprintf(path, size, CONF_DIR "/%s.conf", name);
	char made[CONF_PATH_BYTES];

	if (len < size && access(path, F_OK) < 0 && errno == ENOENT &&
	    snprintf(made, sizeof(made), CONF_MOUNT_DIR "/%s.conf", name) < (int)sizeof(made) &&
	    access(made, F_OK) == 0)
		len = (size_t)snprintf(path, size, "%s", made);
	return len;
}

int conf_load(struct instance_conf *conf, const char *path_or_name, char *err, size_t err_size)
{
	char path[CONF_PATH_BYTES], name[CONF_NAME_BYTES], reason[CONF_ERR_BYTES / 2];
	const char *base;
	size_t len;
	char *text;
	int ret;

	if (strchr(path_or_name, '/'))
		len = (size_t)snprintf(path, sizeof(path), "%s", path_or_name);
	else
		len = find_named(path_or_name, path, sizeof(path));
	if (len >= sizeof(path))
		return fail(err, err_size, "the configuration file's path is longer than %zu bytes",
			    sizeof(path) - 1);
	base = strrchr(path, '/') + 1;
	len = strlen(base);
	if (len > 5 && strcmp(base + len - 5, ".conf") == 0)
		len -= 5;
	snprintf(name, sizeof(name), "%.*s", (int)(len < sizeof(name) ? len : sizeof(name) - 1),
		 base);
	if (len >= sizeof(name))
		return fail(err, err_size, "%s: the instance's name is longer than %zu bytes", path,
			    sizeof(name) - 1);
	if (conf_init(conf, name, reason, sizeof(reason)) < 0)
		return fail(err, err_size, "%s: %s", path, reason);

	text = read_file(path, &ret);
	if (!text) {
		fail(err, err_size, "%s: %s", path,
		     ret == -EINVAL ? "holds a NUL byte: not a text file" : strerror(-ret));
		return ret;
	}
	ret = parse_lines(conf, path, text, err, err_size);
	free(text);
	if (ret == 0 && conf_check(conf, reason, sizeof(reason)) < 0)
		ret = fail(err, err_size, "%s: %s", path, reason);
	return ret;
}

int conf_override(struct instance_conf *conf, const char *key_value, char *err, size_t err_size)
{
	char text[CONF_PATH_BYTES + 64];

	if (strlen(key_value) >= sizeof(text))
		return fail(err, err_size, "'%.64s...' is longer than %zu bytes", key_value,
			    sizeof(text) - 1);
	strcpy(text, key_value);
	return set_pair(conf, text, 0, NULL, err, err_size);
}

/* What was asked for must reach its file: an exit status. */
static int end_output(const char *name)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	fprintf(stderr, "%s: could not write the output: %s\n", name, strerror(errno));
	return 1;
}

int conf_from_args(struct instance_conf *conf, int argc, char **argv, bool *done)
{
	static const char usage[] = "usage: %s -f FILE|NAME [-o key=value]... | -V\n";
	const char *name = program_invocation_short_name;
	char err[CONF_ERR_BYTES];
	const char *file = NULL;
	int opt;

	*done = false;
	if (stdfds_occupy() < 0) {
		fprintf(stderr, "%s: the closed ones of stdin, stdout, stderr cannot be replaced: %s\n", name,
			strerror(errno));
		return 2;
	}
	optind = 1;
	while ((opt = getopt(argc, argv, "f:o:hV")) != -1) {
		if (opt == 'f') {
			file = optarg;
		} else if (opt == 'h') {
			printf(usage, name);
			*done = true;
			return end_output(name);
		} else if (opt == 'V') {
			printf("%s %s\n", name, SCOUTFS_VERSION);
			*done = true;
			return end_output(name);
		} else if (opt != 'o') {
			fprintf(stderr, usage, name);
			return 2;
		}
	}
	if (!file || optind != argc) {
		fprintf(stderr, usage, name);
		return 2;
	}
	if (conf_load(conf, file, err, sizeof(err)) < 0) {
		fprintf(stderr, "%s: %s\n", name, err);
		return 2;
	}
	optind = 1;
	while ((opt = getopt(argc, argv, "f:o:hV")) != -1) {
		if (opt == 'o' && conf_override(conf, optarg, err, sizeof(err)) < 0) {
			fprintf(stderr, "%s: -o %s\n", name, err);
			return 2;
		}
	}
	if (conf_check(conf, err, sizeof(err)) < 0) {
		fprintf(stderr, "%s: %s\n", name, err);
		return 2;
	}
	return 0;
}

void conf_runtime_path(const struct instance_conf *conf, const char *name, char *buf, size_t size)
{
	snprintf(buf, size, "%s/%s", conf->runtime_dir, name);
}
