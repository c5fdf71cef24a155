/*
 * The key file and the list of allowed nodes: reading, checking, looking up.
 *
 * Nothing is guessed: a file that others could have read or changed, a line that is not understood, a
 * key given twice and an address that two nodes claim are errors that name file and line, and a
 * service does not start on them.  Re-reading takes the new list whole or keeps the old one.  The secret
 * is read once: another one takes a restart of the services, which goes on under load.
 *
 * Only the secret is in the key file; the public key is computed from it, so the two always belong together.
 */
#include "keys.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define SERVICE_USER		"scoutfs"
#define KEY_FILE_BYTES_MAX	4096u
#define ALLOW_FILE_BYTES_MAX	(1u << 20)
#define SECRET_WORD		"secret"
#define KEY_TEXT_LEN		(KEYS_TEXT_BYTES - 1)

struct allowed_address {
	uint32_t addr;
	uint16_t port;			/* 0: any */
	unsigned line;
	uint8_t key[KEYS_BYTES];
};

struct allowed_node {
	uint8_t key[KEYS_BYTES];
	unsigned line;
};

struct allow_list {
	struct allowed_node *nodes;
	size_t nodes_nr;
	struct allowed_address *addresses;
	size_t addresses_nr;
};

struct keys {
	char allow_path[CONF_PATH_BYTES];
	bool is_list_optional;		/* its place is the default one */
	uint8_t public_key[KEYS_BYTES], secret[KEYS_BYTES];
	pthread_mutex_t mutex;		/* the list */
	struct allow_list list;
};

static int fail(int ret, char *err, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static int fail(int ret, char *err, size_t size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(err, size, fmt, args);
	va_end(args);
	return ret;
}

/* ---- Z85 ----------------------------------------------------------------------------------- */

static const char z85_digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				 ".-:+=^!/*?&<>()[]{}@%$#";

void keys_to_text(const uint8_t key[KEYS_BYTES], char text[KEYS_TEXT_BYTES])
{
	for (unsigned i = 0; i < KEYS_BYTES / 4; i++) {
		const uint8_t *b = key + 4 * i;
		uint32_t v = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];

		for (int j = 4; j >= 0; j--) {
			text[5 * i + (unsigned)j] = z85_digits[v % 85];
			v /= 85;
		}
	}
	text[KEY_TEXT_LEN] = 0;
}

int keys_from_text(const char *text, size_t len, uint8_t key[KEYS_BYTES])
{
	if (len != KEY_TEXT_LEN)
		return -EINVAL;
	for (unsigned i = 0; i < KEYS_BYTES / 4; i++) {
		uint64_t v = 0;

		for (unsigned j = 0; j < 5; j++) {
			char c = text[5 * i + j];
			const char *digit = c ? strchr(z85_digits, c) : NULL;

			if (!digit)
				return -EINVAL;
			v = v * 85 + (uint64_t)(digit - z85_digits);
		}
		if (v > UINT32_MAX)
			return -EINVAL;
		for (unsigned j = 0; j < 4; j++)
			key[4 * i + j] = (uint8_t)(v >> (24 - 8 * j));
	}
	return 0;
}

/* ---- files --------------------------------------------------------------------------------- */

/* The file's text, to be freed; *st is of what was read.  NULL: *ret and err say why. */
static char *read_text(const char *path, size_t max, struct stat *st, int *ret, char *err,
		       size_t err_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t len = 0;
	ssize_t n = -1;
	char *text;

	if (fd < 0 || fstat(fd, st) < 0) {
		*ret = -errno;
		fail(0, err, err_size, "%s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	text = malloc(max + 1);
	*ret = !text ? -ENOMEM : S_ISREG(st->st_mode) ? 0 : -EINVAL;
	while (*ret == 0 && len <= max && (n = read(fd, text + len, max + 1 - len)) > 0)
		len += (size_t)n;
	if (*ret == 0 && n < 0)
		*ret = -errno;
	close(fd);
	if (*ret == -EINVAL)
		fail(0, err, err_size, "%s: not a regular file", path);
	else if (*ret < 0)
		fail(0, err, err_size, "%s: %s", path, strerror(-*ret));
	else if (len > max)
		*ret = fail(-EINVAL, err, err_size, "%s: longer than %zu bytes, which is no such file",
			    path, max);
	else if (memchr(text, 0, len))
		*ret = fail(-EINVAL, err, err_size, "%s: holds a NUL byte: not a text file", path);
	if (*ret < 0) {
		if (text)
			explicit_bzero(text, len);
		free(text);
		return NULL;
	}
	text[len] = 0;
	return text;
}

/* quorumd and serverd run as this user and group where there are such (systemd/scoutfs.sysusers). */
static bool is_service_user(uid_t uid)
{
	const struct passwd *pw = getpwnam(SERVICE_USER);

	return pw && pw->pw_uid == uid;
}

static bool is_service_group(gid_t gid)
{
	const struct group *gr = getgrnam(SERVICE_USER);

	return gr && gr->gr_gid == gid;
}

static int check_secrecy(const char *path, const struct stat *st, char *err, size_t err_size)
{
	if (st->st_uid != 0 && st->st_uid != geteuid() && !is_service_user(st->st_uid))
		return fail(-EPERM, err, err_size,
			    "%s: belongs to user %u, who could read and change it: chown root:" SERVICE_USER
			    " it, and if that user was not meant to know it, make a new key (scoutfsctl keygen -f)",
			    path, (unsigned)st->st_uid);
	if ((st->st_mode & 0037) ||
	    ((st->st_mode & 0040) && st->st_gid != 0 && !is_service_group(st->st_gid)))
		return fail(-EPERM, err, err_size,
			    "%s: its mode %03o (group %u) lets others than root and the user " SERVICE_USER
			    " use it: chown root:" SERVICE_USER " and chmod 640 it, and if others may have read it, "
			    "make a new key (scoutfsctl keygen -f)",
			    path, (unsigned)st->st_mode & 07777, (unsigned)st->st_gid);
	return 0;
}

static int check_integrity(const char *path, const struct stat *st, char *err, size_t err_size)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return fail(-EPERM, err, err_size,
			    "%s: belongs to user %u, who could let anybody in: chown root it", path,
			    (unsigned)st->st_uid);
	if (st->st_mode & 0022)
		return fail(-EPERM, err, err_size,
			    "%s: its mode %03o lets others than its owner change it: chmod 644 it", path,
			    (unsigned)st->st_mode & 07777);
	return 0;
}

/* ---- the key file -------------------------------------------------------------------------- */

/* -EOPNOTSUPP: this libzmq cannot. */
static int public_of(const uint8_t secret[KEYS_BYTES], uint8_t public_key[KEYS_BYTES])
{
	char secret_text[KEYS_TEXT_BYTES], public_text[KEYS_TEXT_BYTES];
	int ret;

	keys_to_text(secret, secret_text);
	ret = zmq_curve_public(public_text, secret_text) < 0 ? -EOPNOTSUPP :
	      keys_from_text(public_text, KEY_TEXT_LEN, public_key);
	explicit_bzero(secret_text, sizeof(secret_text));
	return ret;
}

/* The one line that is neither empty nor a comment. */
static int find_secret(char *text, uint8_t secret[KEYS_BYTES])
{
	char *rest = text, *line;
	bool found = false;

	while ((line = strsep(&rest, "\n"))) {
		size_t len = strlen(SECRET_WORD);

		line += strspn(line, " \t\r");
		if (!*line || *line == '#')
			continue;
		if (found || strncmp(line, SECRET_WORD, len) != 0 || !isspace((unsigned char)line[len]))
			return -EINVAL;
		line += len + strspn(line + len, " \t");
		if (keys_from_text(line, strcspn(line, " \t\r"), secret) < 0)
			return -EINVAL;
		found = true;
	}
	return found ? 0 : -EINVAL;
}

int keys_file_read(const char *path, uint8_t public_key[KEYS_BYTES], uint8_t secret[KEYS_BYTES],
		   char *err, size_t err_size)
{
	uint8_t own[KEYS_BYTES];
	struct stat st;
	char *text;
	int ret;

	text = read_text(path, KEY_FILE_BYTES_MAX, &st, &ret, err, err_size);
	if (!text) {
		size_t len = strlen(err);

		if (ret == -EACCES)
			snprintf(err + len, err_size - len, ": root and the user " SERVICE_USER
				 " must be able to read it: chown root:" SERVICE_USER ", chmod 640");
		else if (ret == -ENOENT)
			snprintf(err + len, err_size - len, ": make this node's key with `scoutfsctl keygen`");
		return ret;
	}
	ret = check_secrecy(path, &st, err, err_size);
	if (ret == 0 && find_secret(text, own) < 0)
		ret = fail(-EINVAL, err, err_size,
			   "%s: not a key file of scoutfsctl keygen (one line `" SECRET_WORD
			   " KEY` of 40 characters): make a new one with `scoutfsctl keygen -f`",
			   path);
	if (ret == 0 && public_of(own, public_key) < 0)
		ret = fail(-EOPNOTSUPP, err, err_size,
			   "%s: this machine's libzmq5 is missing or was built without CURVE: install the "
			   "distribution's", path);
	if (ret == 0 && secret)
		memcpy(secret, own, sizeof(own));
	explicit_bzero(own, sizeof(own));
	explicit_bzero(text, strlen(text));
	free(text);
	return ret;
}

static int write_all(int fd, const char *text)
{
	size_t len = strlen(text);

	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			text += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static int sync_directory_of(const char *path)
{
	char dir[CONF_PATH_BYTES];
	char *slash;
	int fd, ret;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash == dir)
		slash++;
	if (slash)
		*slash = 0;
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

/* Everything the file will be, under another name. */
static int write_key_file(int fd, const char *public_text, const char *secret_text)
{
	const struct passwd *pw = geteuid() == 0 ? getpwnam(SERVICE_USER) : NULL;
	char text[512];
	int ret;

	snprintf(text, sizeof(text),
		 "# The secret key of this node, for scoutfs: of this host only, never copied, never shown.\n"
		 "# Its public key, which the list of allowed nodes holds:\n"
		 "# %s\n" SECRET_WORD " %s\n", public_text, secret_text);
	ret = write_all(fd, text);
	explicit_bzero(text, sizeof(text));
	if (ret == 0 && pw && (fchown(fd, 0, pw->pw_gid) < 0 || fchmod(fd, 0640) < 0))
		ret = -errno;
	if (ret == 0 && fsync(fd) < 0)
		ret = -errno;
	return ret;
}

/* A pair whose public key cannot be taken for a comment at the start of a line. */
static int make_pair(char public_text[KEYS_TEXT_BYTES], char secret_text[KEYS_TEXT_BYTES])
{
	do {
		if (zmq_curve_keypair(public_text, secret_text) < 0)
			return -EOPNOTSUPP;
	} while (public_text[0] == '#');
	return 0;
}

int keys_file_make(const char *path, bool replace, uint8_t public_key[KEYS_BYTES], char *err,
		   size_t err_size)
{
	char public_text[KEYS_TEXT_BYTES], secret_text[KEYS_TEXT_BYTES];
	char tmp[CONF_PATH_BYTES + 16];
	int ret, fd;

	if (strlen(path) >= CONF_PATH_BYTES)
		return fail(-ENAMETOOLONG, err, err_size, "the key file's path is longer than %d bytes",
			    CONF_PATH_BYTES - 1);
	if (make_pair(public_text, secret_text) < 0)
		return fail(-EOPNOTSUPP, err, err_size,
			    "this machine's libzmq5 is missing or was built without CURVE: install the "
			    "distribution's");
	snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path);
	fd = mkostemp(tmp, O_CLOEXEC);
	ret = fd < 0 ? -errno : write_key_file(fd, public_text, secret_text);
	explicit_bzero(secret_text, sizeof(secret_text));
	if (fd >= 0 && close(fd) < 0 && ret == 0)
		ret = -errno;
	if (ret == 0 && (replace ? rename(tmp, path) : link(tmp, path)) < 0)
		ret = -errno;
	if (fd >= 0 && (ret < 0 || !replace))
		unlink(tmp);
	if (ret == 0)
		ret = sync_directory_of(path);
	if (ret == -EEXIST)
		return fail(ret, err, err_size,
			    "%s: there is a key already: -p shows its public key; -f makes a new one, which the "
			    "lists of all nodes must then have", path);
	if (ret < 0)
		return fail(ret, err, err_size, "%s: the key file cannot be made: %s", path,
			    strerror(-ret));
	return keys_from_text(public_text, KEY_TEXT_LEN, public_key);
}

/* ---- the list ------------------------------------------------------------------------------ */

int keys_parse_address(const char *text, uint32_t *addr, uint16_t *port)
{
	char ip[INET_ADDRSTRLEN];
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	struct in_addr in;
	char *end;
	long p = 0;

	if (len >= sizeof(ip))
		return -EINVAL;
	memcpy(ip, text, len);
	ip[len] = 0;
	if (inet_pton(AF_INET, ip, &in) != 1)
		return -EINVAL;
	if (colon) {
		if (!isdigit((unsigned char)colon[1]))
			return -EINVAL;
		errno = 0;
		p = strtol(colon + 1, &end, 10);
		if (errno || *end || p < 1 || p > 65535)
			return -EINVAL;
	}
	*addr = ntohl(in.s_addr);
	*port = (uint16_t)p;
	return 0;
}

static void free_list(struct allow_list *l)
{
	free(l->nodes);
	free(l->addresses);
	*l = (struct allow_list){ NULL };
}

static int add_node(struct allow_list *l, const uint8_t key[KEYS_BYTES], unsigned line, char *err,
		    size_t err_size)
{
	void *nodes;

	for (size_t i = 0; i < l->nodes_nr; i++) {
		if (memcmp(l->nodes[i].key, key, KEYS_BYTES) == 0)
			return fail(-EINVAL, err, err_size, "the key was given before, in line %u",
				    l->nodes[i].line);
	}
	if (l->nodes_nr == KEYS_NODES_MAX)
		return fail(-EINVAL, err, err_size, "more than %u nodes", KEYS_NODES_MAX);
	nodes = realloc(l->nodes, (l->nodes_nr + 1) * sizeof(*l->nodes));
	if (!nodes)
		return fail(-ENOMEM, err, err_size, "no memory");
	l->nodes = nodes;
	l->nodes[l->nodes_nr].line = line;
	memcpy(l->nodes[l->nodes_nr++].key, key, KEYS_BYTES);
	return 0;
}

static int add_address(struct allow_list *l, const uint8_t key[KEYS_BYTES], const char *word,
		       unsigned line, char *err, size_t err_size)
{
	struct allowed_address a = { .line = line };
	void *addresses;

	if (keys_parse_address(word, &a.addr, &a.port) < 0)
		return fail(-EINVAL, err, err_size,
			    "'%.40s' is not an address: give A.B.C.D or A.B.C.D:PORT", word);
	for (size_t i = 0; i < l->addresses_nr; i++) {
		if (l->addresses[i].addr == a.addr && l->addresses[i].port == a.port)
			return fail(-EINVAL, err, err_size, "%s is the address of line %u already", word,
				    l->addresses[i].line);
	}
	addresses = realloc(l->addresses, (l->addresses_nr + 1) * sizeof(*l->addresses));
	if (!addresses)
		return fail(-ENOMEM, err, err_size, "no memory");
	l->addresses = addresses;
	memcpy(a.key, key, KEYS_BYTES);
	l->addresses[l->addresses_nr++] = a;
	return 0;
}

/* Of digits, dots and colons only: meant as an address, right or wrong; else a part of the name. */
static bool is_meant_as_address(const char *word)
{
	return strspn(word, "0123456789.:") == strlen(word) && strchr(word, '.');
}

static int parse_line(struct allow_list *l, const struct keys *k, char *text, unsigned line,
		      char *err, size_t err_size)
{
	uint8_t key[KEYS_BYTES];
	char *word;
	int ret;

	text += strspn(text, " \t\r");
	if (!*text || *text == '#')
		return 0;
	word = strsep(&text, " \t\r");
	if (keys_from_text(word, strlen(word), key) < 0)
		return fail(-EINVAL, err, err_size,
			    "does not begin with a node's public key of 40 characters (scoutfsctl keygen -p on that "
			    "node prints the line)");
	if (memcmp(key, k->secret, KEYS_BYTES) == 0)
		return fail(-EINVAL, err, err_size,
			    "this is the SECRET key of this node: it must be nowhere but in its own file; make a new "
			    "one (scoutfsctl keygen -f)");
	ret = add_node(l, key, line, err, err_size);
	while (ret == 0 && (word = strsep(&text, " \t\r")) && *word != '#') {
		if (is_meant_as_address(word))
			ret = add_address(l, key, word, line, err, err_size);
	}
	return ret;
}

static int read_list(const struct keys *k, struct allow_list *l, char *err, size_t err_size)
{
	const char *path = k->allow_path;
	char reason[KEYS_ERR_BYTES / 4];
	char *text, *rest, *line;
	unsigned nr = 0;
	struct stat st;
	int ret;

	*l = (struct allow_list){ NULL };
	text = read_text(path, ALLOW_FILE_BYTES_MAX, &st, &ret, err, err_size);
	if (!text && ret == -ENOENT && k->is_list_optional)
		return 0;
	if (!text) {
		size_t len = strlen(err);

		if (ret == -ENOENT)
			snprintf(err + len, err_size - len, ": make it, with one line for each node as "
				 "`scoutfsctl keygen -p` prints it there");
		return ret;
	}
	ret = check_integrity(path, &st, err, err_size);
	rest = text;
	while (ret == 0 && (line = strsep(&rest, "\n"))) {
		ret = parse_line(l, k, line, ++nr, reason, sizeof(reason));
		if (ret < 0)
			fail(0, err, err_size, "%s:%u: %s", path, nr, reason);
	}
	free(text);
	if (ret < 0)
		free_list(l);
	return ret;
}

/* ---- what a service uses ------------------------------------------------------------------- */

int keys_open(struct keys **out, const struct instance_conf *conf, char *err, size_t err_size)
{
	const char *path = conf->key_file[0] ? conf->key_file : KEYS_FILE;
	struct keys *k;
	int ret;

	*out = NULL;
	if (conf->insecure ||
	    (!conf->key_file[0] && access(path, F_OK) < 0 && errno == ENOENT))
		return 0;
	k = calloc(1, sizeof(*k));
	if (!k)
		return fail(-ENOMEM, err, err_size, "%s: no memory", path);
	pthread_mutex_init(&k->mutex, NULL);
	k->is_list_optional = !conf->allow_file[0];
	snprintf(k->allow_path, sizeof(k->allow_path), "%s",
		 conf->allow_file[0] ? conf->allow_file : KEYS_ALLOW_FILE);
	ret = keys_file_read(path, k->public_key, k->secret, err, err_size);
	if (ret == 0)
		ret = read_list(k, &k->list, err, err_size);
	if (ret < 0) {
		keys_close(k);
		return ret;
	}
	*out = k;
	return 0;
}

void keys_close(struct keys *k)
{
	if (!k)
		return;
	free_list(&k->list);
	pthread_mutex_destroy(&k->mutex);
	explicit_bzero(k, sizeof(*k));
	free(k);
}

int keys_reload(struct keys *k, char *err, size_t err_size)
{
	struct allow_list l, old;
	int ret = read_list(k, &l, err, err_size);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&k->mutex);
	old = k->list;
	k->list = l;
	pthread_mutex_unlock(&k->mutex);
	free_list(&old);
	return 0;
}

const uint8_t *keys_public(const struct keys *k)
{
	return k->public_key;
}

const uint8_t *keys_secret(const struct keys *k)
{
	return k->secret;
}

const char *keys_allow_path(const struct keys *k)
{
	return k->allow_path;
}

unsigned keys_nodes_nr(struct keys *k)
{
	unsigned nr;

	pthread_mutex_lock(&k->mutex);
	nr = (unsigned)k->list.nodes_nr;
	pthread_mutex_unlock(&k->mutex);
	return nr;
}

bool keys_allows(struct keys *k, const uint8_t key[KEYS_BYTES])
{
	bool found = memcmp(key, k->public_key, KEYS_BYTES) == 0;

	pthread_mutex_lock(&k->mutex);
	for (size_t i = 0; i < k->list.nodes_nr && !found; i++)
		found = memcmp(key, k->list.nodes[i].key, KEYS_BYTES) == 0;
	pthread_mutex_unlock(&k->mutex);
	return found;
}

int keys_at_address(struct keys *k, uint32_t addr, uint16_t port, uint8_t key[KEYS_BYTES])
{
	const struct allowed_address *best = NULL;

	pthread_mutex_lock(&k->mutex);
	for (size_t i = 0; i < k->list.addresses_nr; i++) {
		const struct allowed_address *a = &k->list.addresses[i];

		if (a->addr == addr && (a->port == port || (!a->port && !best)))
			best = a;
	}
	if (best)
		memcpy(key, best->key, KEYS_BYTES);
	pthread_mutex_unlock(&k->mutex);
	if (!best && addr >> 24 == 127) {
		memcpy(key, k->public_key, KEYS_BYTES);
		return 0;
	}
	return best ? 0 : -ENOENT;
}

int keys_check_own(struct keys *k, uint32_t addr, uint16_t port, char *err, size_t err_size)
{
	uint8_t key[KEYS_BYTES];
	char text[KEYS_TEXT_BYTES], at[32];

	if (keys_at_address(k, addr, port, key) == 0 && memcmp(key, k->public_key, KEYS_BYTES) == 0)
		return 0;
	snprintf(at, sizeof(at), "%u.%u.%u.%u:%u", addr >> 24, addr >> 16 & 255, addr >> 8 & 255, addr & 255,
		 port);
	keys_to_text(k->public_key, text);
	return fail(-ENOKEY, err, err_size,
		    "%s: %s, the address of this node's quorum slot, is not in the line of this node's key %s, so nobody "
		    "could believe this node: give the list of every node the line that `scoutfsctl keygen -p -a "
		    "%u.%u.%u.%u` prints here",
		    k->allow_path, at, text, addr >> 24, addr >> 16 & 255, addr >> 8 & 255, addr & 255);
}
