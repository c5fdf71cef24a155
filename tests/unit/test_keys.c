/*
 * Keys: a file that others could have read, a line that is not understood and a key that is not in the
 * list let nobody in, and are named; a list that cannot be read again leaves the old one.  Sessions: who
 * has no key, one that is not allowed, another volume or another term is refused, counted, and told why;
 * everybody else goes on.  design.md D10.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "csum/csum.h"
#include "keys.h"
#include "net_client.h"
#include "net_rig.h"
#include "net_server.h"
#include "zmqu.h"

#define LOOPBACK	0x7f000001u
#define ADDR(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))

static char dir[] = "/tmp/scoutfs-keys.XXXXXX";
static char key_path[64], allow_path[64], err[KEYS_ERR_BYTES];
static struct instance_conf conf;
static uint8_t own[KEYS_BYTES];

static int set_up(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(key_path, sizeof(key_path), "%s/node.key", dir);
	snprintf(allow_path, sizeof(allow_path), "%s/nodes.allow", dir);
	assert_int_equal(conf_init(&conf, "vol", err, sizeof(err)), 0);
	snprintf(conf.key_file, sizeof(conf.key_file), "%s", key_path);
	snprintf(conf.allow_file, sizeof(conf.allow_file), "%s", allow_path);
	return keys_file_make(key_path, false, own, err, sizeof(err));
}

static int tear_down(void **state)
{
	(void)state;
	unlink(key_path);
	unlink(allow_path);
	return rmdir(dir);
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* A key that is nobody's, and its text. */
static void some_key(unsigned n, uint8_t key[KEYS_BYTES], char text[KEYS_TEXT_BYTES])
{
	memset(key, (int)n + 1, KEYS_BYTES);
	keys_to_text(key, text);
}

/* The list of that text is refused, and the message has `what`. */
static void refuse_list(const char *text, const char *what)
{
	struct keys *k;

	write_file(allow_path, text);
	assert_int_equal(keys_open(&k, &conf, err, sizeof(err)), -EINVAL);
	assert_null(k);
	if (!strstr(err, what) || !strstr(err, allow_path))
		fail_msg("wanted '%s' of %s, said: %s", what, allow_path, err);
}

static void a_key_is_forty_characters_of_z85(void **state)
{
	/* ZeroMQ RFC 32 gives these eight bytes' text; four times that is a key. */
	static const uint8_t hello[8] = { 0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b };
	static const char text[] = "HelloWorldHelloWorldHelloWorldHelloWorld";
	uint8_t key[KEYS_BYTES], back[KEYS_BYTES];
	char out[KEYS_TEXT_BYTES];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		memcpy(key + 8 * i, hello, 8);
	keys_to_text(key, out);
	assert_string_equal(out, text);
	assert_int_equal(keys_from_text(text, 40, back), 0);
	assert_memory_equal(back, key, KEYS_BYTES);
	for (unsigned i = 0; i < 256; i++) {
		memset(key, (int)i, sizeof(key));
		key[i % KEYS_BYTES] ^= 0x5a;
		keys_to_text(key, out);
		assert_int_equal(keys_from_text(out, 40, back), 0);
		assert_memory_equal(back, key, KEYS_BYTES);
	}
	assert_int_equal(keys_from_text(text, 39, back), -EINVAL);
	assert_int_equal(keys_from_text("HelloWorld\"elloWorldHelloWorldHelloWorld", 40, back), -EINVAL);
	assert_int_equal(keys_from_text("HelloWorld\0elloWorldHelloWorldHelloWorld", 40, back), -EINVAL);
	/* The greatest group is %nSc0. */
	assert_int_equal(keys_from_text("%nSc0%nSc0%nSc0%nSc0%nSc0%nSc0%nSc0%nSc0", 40, back), 0);
	assert_int_equal(keys_from_text("%nSc1%nSc0%nSc0%nSc0%nSc0%nSc0%nSc0%nSc0", 40, back), -EINVAL);
	assert_int_equal(keys_from_text("#####%nSc0%nSc0%nSc0%nSc0%nSc0%nSc0%nSc0", 40, back), -EINVAL);
}

static void a_key_file_is_made_whole_and_never_over_another(void **state)
{
	uint8_t a[KEYS_BYTES], b[KEYS_BYTES], secret[KEYS_BYTES], other[KEYS_BYTES];
	struct stat st;

	(void)state;
	assert_int_equal(keys_file_read(key_path, a, secret, err, sizeof(err)), 0);
	assert_memory_equal(a, own, KEYS_BYTES);
	assert_int_equal(stat(key_path, &st), 0);
	assert_int_equal(st.st_mode & 0037, 0);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(keys_file_make(key_path, false, b, err, sizeof(err)), -EEXIST);
	assert_non_null(strstr(err, key_path));
	assert_int_equal(keys_file_read(key_path, b, other, err, sizeof(err)), 0);
	assert_memory_equal(b, own, KEYS_BYTES);
	assert_memory_equal(other, secret, KEYS_BYTES);
	assert_int_equal(keys_file_make(key_path, true, own, err, sizeof(err)), 0);
	assert_memory_not_equal(own, b, KEYS_BYTES);
	assert_int_equal(keys_file_make("/nowhere/node.key", false, b, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "/nowhere/node.key"));
	/* Nothing else is left: tear_down's rmdir would fail. */
}

static void a_key_that_others_could_have_read_is_refused(void **state)
{
	static const mode_t bad[] = { 0644, 0604, 0660, 0620, 0602, 0601 };
	struct keys *k;

	(void)state;
	write_file(allow_path, "");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(chmod(key_path, bad[i]), 0);
		assert_int_equal(keys_open(&k, &conf, err, sizeof(err)), -EPERM);
		assert_non_null(strstr(err, key_path));
		assert_non_null(strstr(err, "chmod 640"));
	}
	assert_int_equal(chmod(key_path, 0600), 0);
	if (geteuid() == 0) {
		assert_int_equal(chown(key_path, 12345, 0), 0);
		assert_int_equal(keys_open(&k, &conf, err, sizeof(err)), -EPERM);
		assert_non_null(strstr(err, "user 12345"));
		/* A group that is not the services'. */
		assert_int_equal(chown(key_path, 0, 12345), 0);
		assert_int_equal(chmod(key_path, 0640), 0);
		assert_int_equal(keys_open(&k, &conf, err, sizeof(err)), -EPERM);
		assert_int_equal(chown(key_path, 0, 0), 0);
	}
	assert_int_equal(chmod(allow_path, 0666), 0);
	assert_int_equal(keys_open(&k, &conf, err, sizeof(err)), -EPERM);
	assert_non_null(strstr(err, allow_path));
	assert_int_equal(chmod(allow_path, 0644), 0);
	assert_int_equal(keys_open(&k, &conf, err, sizeof(err)), 0);
	assert_non_null(k);
	keys_close(k);
}

static void a_file_that_is_no_key_is_refused(void **state)
{
	static const char *const bad[] = {
		"", "# only a comment\n", "secret\n", "secret tooshort\n",
		"HelloWorldHelloWorldHelloWorldHelloWorld\n",
		"secretHelloWorldHelloWorldHelloWorldHelloWorld\n",
		"secret HelloWorldHelloWorldHelloWorldHelloWorld\nand more\n",
		"secret HelloWorldHelloWorldHelloWorldHelloWorld\nsecret HelloWorldHelloWorldHelloWorldHelloWorld\n",
	};
	char path[80], other[5000];
	uint8_t key[KEYS_BYTES];

	(void)state;
	snprintf(path, sizeof(path), "%s/bad", dir);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		write_file(path, bad[i]);
		assert_int_equal(chmod(path, 0600), 0);
		assert_int_equal(keys_file_read(path, key, NULL, err, sizeof(err)), -EINVAL);
		assert_non_null(strstr(err, path));
	}
	memset(other, '\n', sizeof(other) - 1);
	other[sizeof(other) - 1] = 0;
	write_file(path, other);
	assert_int_equal(keys_file_read(path, key, NULL, err, sizeof(err)), -EINVAL);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(keys_file_read(path, key, NULL, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "scoutfsctl keygen"));
	assert_int_equal(keys_file_read(dir, key, NULL, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "not a regular file"));
}

static void the_list_says_who_may_and_who_is_where(void **state)
{
	char a_text[KEYS_TEXT_BYTES], b_text[KEYS_TEXT_BYTES], c_text[KEYS_TEXT_BYTES], text[1024];
	uint8_t a[KEYS_BYTES], b[KEYS_BYTES], c[KEYS_BYTES], d[KEYS_BYTES], got[KEYS_BYTES];
	struct keys *k;

	(void)state;
	some_key(1, a, a_text);
	some_key(2, b, b_text);
	some_key(3, c, c_text);
	some_key(4, d, text);
	snprintf(text, sizeof(text),
		 "# the nodes\n\n  %s 10.0.0.1 n1 # 10.0.0.9 is a comment\r\n%s\t10.0.0.2:700 10.0.0.2:800 n2\n"
		 "   # more\n%s client", a_text, b_text, c_text);
	write_file(allow_path, text);
	assert_int_equal(keys_open(&k, &conf, err, sizeof(err)), 0);
	assert_int_equal(keys_nodes_nr(k), 3);
	assert_memory_equal(keys_public(k), own, KEYS_BYTES);
	assert_true(keys_allows(k, a));
	assert_true(keys_allows(k, b));
	assert_true(keys_allows(k, c));
	assert_false(keys_allows(k, d));
	/* This node talks to itself whoever else is allowed. */
	assert_true(keys_allows(k, own));

	assert_int_equal(keys_at_address(k, ADDR(10, 0, 0, 1), 12345, got), 0);
	assert_memory_equal(got, a, KEYS_BYTES);
	assert_int_equal(keys_at_address(k, ADDR(10, 0, 0, 2), 700, got), 0);
	assert_memory_equal(got, b, KEYS_BYTES);
	assert_int_equal(keys_at_address(k, ADDR(10, 0, 0, 2), 701, got), -ENOENT);
	assert_int_equal(keys_at_address(k, ADDR(10, 0, 0, 9), 12345, got), -ENOENT);
	assert_int_equal(keys_at_address(k, LOOPBACK, 12345, got), 0);
	assert_memory_equal(got, own, KEYS_BYTES);
	keys_close(k);
}

static void lines_that_are_not_understood_are_named(void **state)
{
	char a_text[KEYS_TEXT_BYTES], b_text[KEYS_TEXT_BYTES], secret_text[KEYS_TEXT_BYTES], text[512];
	uint8_t a[KEYS_BYTES], b[KEYS_BYTES], secret[KEYS_BYTES];
	struct keys *k;

	(void)state;
	some_key(1, a, a_text);
	some_key(2, b, b_text);
	refuse_list("\n\nnonsense n1\n", ":3: does not begin with a node's public key");
	refuse_list("HelloWorldHelloWorldHelloWorldHelloWorl n1\n", ":1: does not begin");
	refuse_list("HelloWorldHelloWorldHelloWorldHelloWorldX n1\n", ":1: does not begin");
	snprintf(text, sizeof(text), "%s n1\n%s n2\n", a_text, a_text);
	refuse_list(text, ":2: the key was given before, in line 1");
	snprintf(text, sizeof(text), "%s 10.0.0.1\n%s 10.0.0.1\n", a_text, b_text);
	refuse_list(text, ":2: 10.0.0.1 is the address of line 1");
	static const char *const bad[] = { "10.0.0.300", "10.0.0", "10.0.0.1:", "10.0.0.1:0",
					   "10.0.0.1:65536", "10.0.0.1:1:2", "1.2.3.4.5" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "%s %s\n", a_text, bad[i]);
		refuse_list(text, "is not an address");
	}
	/* The wrong one of the two was pasted. */
	assert_int_equal(keys_file_read(key_path, a, secret, err, sizeof(err)), 0);
	keys_to_text(secret, secret_text);
	snprintf(text, sizeof(text), "%s n1\n", secret_text);
	refuse_list(text, ":1: this is the SECRET key");
	assert_null(strstr(err, secret_text));

	unlink(allow_path);
	assert_int_equal(keys_open(&k, &conf, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, allow_path));
	assert_non_null(strstr(err, "scoutfsctl keygen -p"));
}

static void a_reload_takes_all_or_nothing(void **state)
{
	char a_text[KEYS_TEXT_BYTES], b_text[KEYS_TEXT_BYTES], text[512];
	uint8_t a[KEYS_BYTES], b[KEYS_BYTES];
	struct keys *k;

	(void)state;
	some_key(1, a, a_text);
	some_key(2, b, b_text);
	snprintf(text, sizeof(text), "%s n1\n", a_text);
	write_file(allow_path, text);
	assert_int_equal(keys_open(&k, &conf, err, sizeof(err)), 0);
	snprintf(text, sizeof(text), "%s n2\nnonsense\n", b_text);
	write_file(allow_path, text);
	assert_int_equal(keys_reload(k, err, sizeof(err)), -EINVAL);
	assert_true(keys_allows(k, a));
	assert_false(keys_allows(k, b));
	unlink(allow_path);
	assert_int_equal(keys_reload(k, err, sizeof(err)), -ENOENT);
	assert_true(keys_allows(k, a));
	snprintf(text, sizeof(text), "%s n2\n", b_text);
	write_file(allow_path, text);
	assert_int_equal(keys_reload(k, err, sizeof(err)), 0);
	assert_false(keys_allows(k, a));
	assert_true(keys_allows(k, b));
	keys_close(k);
}

static void insecure_is_without_keys_and_does_not_go_with_them(void **state)
{
	struct instance_conf c = conf;
	struct keys *k;

	(void)state;
	c.insecure = true;
	assert_int_equal(conf_override(&c, "meta_device=/dev/m", err, sizeof(err)), 0);
	assert_int_equal(conf_override(&c, "data_device=/dev/d", err, sizeof(err)), 0);
	assert_int_equal(conf_override(&c, "mountpoint=/mnt", err, sizeof(err)), 0);
	assert_int_equal(conf_check(&c, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "key_file: contradicts insecure = yes"));
	c.key_file[0] = c.allow_file[0] = 0;
	assert_int_equal(conf_check(&c, err, sizeof(err)), 0);
	assert_int_equal(keys_open(&k, &c, err, sizeof(err)), 0);
	assert_null(k);
}


/* ---- sessions ------------------------------------------------------------------------------ */

#define FSID		0x1122334455667788ull
#define FMT_VERS	2
#define TERM		5
#define KEEPALIVE_MS	3000
#define DEADLINE_NS	(60 * NSEC_PER_SEC)

/* A node: its files and what it has read of them. */
struct node {
	char key_path[80], allow_path[80];
	char text[KEYS_TEXT_BYTES];
	struct keys *keys;
};

static struct {
	pthread_t thread;
	pthread_mutex_t mutex;
	void *ctx;
	struct net_server *ns;
	struct net_refusals refusals;
	struct net_counts counts;
	char endpoint[64];
	uint16_t port;
	atomic_bool stopping;
} server;

static void open_node(struct node *n, const char *name, const char *list)
{
	struct instance_conf c = conf;
	uint8_t key[KEYS_BYTES];

	snprintf(n->key_path, sizeof(n->key_path), "%s/%s.key", dir, name);
	snprintf(n->allow_path, sizeof(n->allow_path), "%s/%s.allow", dir, name);
	assert_int_equal(keys_file_make(n->key_path, false, key, err, sizeof(err)), 0);
	keys_to_text(key, n->text);
	write_file(n->allow_path, list);
	strcpy(c.key_file, n->key_path);
	strcpy(c.allow_file, n->allow_path);
	assert_int_equal(keys_open(&n->keys, &c, err, sizeof(err)), 0);
}

static void set_list(struct node *n, const char *list)
{
	write_file(n->allow_path, list);
	assert_int_equal(keys_reload(n->keys, err, sizeof(err)), 0);
}

static void close_node(struct node *n)
{
	keys_close(n->keys);
	unlink(n->key_path);
	unlink(n->allow_path);
}

static void on_greeting(void *arg, const struct net_greeting *g)
{
	(void)arg;
	net_server_greeted(server.ns, g->msg.rid, GREETING_OK);
}

static void on_request(void *arg, uint64_t rid, uint64_t handle, unsigned type, const void *msg)
{
	struct msg_alloc_inodes_reply reply = { 1, 1 };

	(void)arg, (void)msg;
	assert_int_equal(type, MSG_alloc_inodes);
	net_server_respond(server.ns, rid, handle, 0, MSG_alloc_inodes_reply, &reply);
}

static void *server_thread(void *arg)
{
	(void)arg;
	while (!atomic_load(&server.stopping)) {
		net_rig_wait(&server.ns, &server.mutex);
		pthread_mutex_lock(&server.mutex);
		net_server_dispatch(server.ns, clock_mono_ns());
		pthread_mutex_unlock(&server.mutex);
	}
	return NULL;
}

static void start_server(struct keys *keys, uint64_t fsid)
{
	struct net_server_conf nc = {
		.term = TERM, .fsid = fsid, .fmt_vers = FMT_VERS, .keepalive_ms = KEEPALIVE_MS,
		.keys = keys, .refusals = &server.refusals, .counts = &server.counts,
		.ops = { on_greeting, on_request, net_rig_no_response, net_rig_no_disconnect, net_rig_no_rid, net_rig_no_rid },
	};

	memset(&server.refusals, 0, sizeof(server.refusals));
	memset(&server.counts, 0, sizeof(server.counts));
	pthread_mutex_init(&server.mutex, NULL);
	server.ctx = zmq_ctx_new();
	atomic_store(&server.stopping, false);
	server.port = net_rig_open(&server.ns, server.ctx, &nc, server.endpoint, sizeof(server.endpoint));
	assert_int_equal(pthread_create(&server.thread, NULL, server_thread, NULL), 0);
}

static void stop_server(void)
{
	atomic_store(&server.stopping, true);
	pthread_join(server.thread, NULL);
	net_server_close(server.ns);
	zmq_ctx_term(server.ctx);
	pthread_mutex_destroy(&server.mutex);
}

static int resolve(void *arg, char *buf, size_t size)
{
	(void)arg;
	snprintf(buf, size, "%s", server.endpoint);
	return 0;
}

static void no_request(void *arg, struct net_req *req, unsigned type, const void *msg)
{
	(void)arg, (void)type, (void)msg;
	net_client_respond(arg, req, -EOPNOTSUPP, 0, NULL);
}

static struct net_client *start_client(struct keys *keys, uint64_t term)
{
	struct net_client_conf nc = {
		.rid = 77, .fsid = FSID, .fmt_vers = FMT_VERS, .keepalive_ms = KEEPALIVE_MS,
		.term = term, .keys = keys,
		.ops = { .resolve = resolve, .on_request = no_request },
	};
	struct net_client *c;

	assert_int_equal(net_client_start(&c, &nc), 0);
	return c;
}

static bool is_greeted(struct net_client *c)
{
	struct net_client_stats st;

	net_client_get_stats(c, &st);
	return st.greeted;
}

static void wait_until(bool (*is_so)(struct net_client *c), struct net_client *c, const char *what)
{
	uint64_t end = clock_mono_ns() + DEADLINE_NS;

	while (!is_so(c)) {
		if (clock_mono_ns() > end)
			fail_msg("waited in vain for %s", what);
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
}

static bool is_gone(struct net_client *c)
{
	return !is_greeted(c);
}

static void wait_for_words(struct net_client *c, const char *words)
{
	uint64_t end = clock_mono_ns() + DEADLINE_NS;
	struct net_client_stats st;

	do {
		if (clock_mono_ns() > end)
			fail_msg("wanted '%s', the client says '%s'", words, st.why);
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
		net_client_get_stats(c, &st);
	} while (!strstr(st.why, words));
	assert_false(st.greeted);
}

static void nothing_was_let_in(void)
{
	struct net_server_stats ss;

	pthread_mutex_lock(&server.mutex);
	net_server_get_stats(server.ns, &ss);
	pthread_mutex_unlock(&server.mutex);
	assert_int_equal(ss.connected, 0);
	assert_int_equal(stats_get(&server.counts.net_requests), 0);
}

/* The client is refused with these words, and that kind is counted; and nothing was let in. */
static void refuse_client(struct net_client *c, const char *words, stats_counter *kind)
{
	uint64_t end = clock_mono_ns() + DEADLINE_NS;

	wait_for_words(c, words);
	while (!stats_get(kind)) {
		assert_true(clock_mono_ns() < end);
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	nothing_was_let_in();
}

/*
 * As refuse_client(), where the end that reads the other's greeting first names the reason and closes, and the other
 * one may see nothing but that: the server counts, or the client knows for certain; the client has a hint always.
 */
static void refuse_unlike_client(struct net_client *c, const char *hint, const char *certain)
{
	uint64_t end = clock_mono_ns() + DEADLINE_NS;
	struct net_client_stats st;

	wait_for_words(c, hint);
	/* The server hears of it from a thread of ZeroMQ's: at some time. */
	while (net_client_get_stats(c, &st), !strstr(st.why, certain) && !stats_get(&server.refusals.refused_no_key)) {
		assert_true(clock_mono_ns() < end);
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	nothing_was_let_in();
}

/* What ends each connection as soon as it is there, as a leader may that has read our greeting. */
static void *cutting_thread(void *arg)
{
	int fd = *(int *)arg, s;

	while ((s = accept(fd, NULL, NULL)) >= 0)
		close(s);
	return NULL;
}

/* A client, with keys or without, of a server that tells nothing has a hint. */
static void refuse_by_cutting(struct keys *keys, const char *hint)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct net_client *c;
	pthread_t thread;

	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	assert_int_equal(pthread_create(&thread, NULL, cutting_thread, &fd), 0);
	snprintf(server.endpoint, sizeof(server.endpoint), "tcp://127.0.0.1:%u", ntohs(in.sin_port));
	c = start_client(keys, 0);
	wait_for_words(c, hint);
	net_client_stop(c);
	shutdown(fd, SHUT_RDWR);
	pthread_join(thread, NULL);
	close(fd);
}

static void call(struct net_client *c)
{
	struct msg_alloc_inodes msg = { 1 };
	struct msg_alloc_inodes_reply reply;

	assert_int_equal(net_client_call_sync(c, MSG_alloc_inodes, &msg, &reply), 0);
}

static uint64_t median_call_ns(struct net_client *c)
{
	enum { CALLS = 401 };
	static uint64_t took[CALLS];

	for (unsigned i = 0; i < CALLS; i++) {
		uint64_t began = clock_mono_ns(), j = i, t;

		call(c);
		t = clock_mono_ns() - began;
		for (; j > 0 && took[j - 1] > t; j--)
			took[j] = took[j - 1];
		took[j] = t;
	}
	return took[CALLS / 2];
}

/* Also when it is idle for longer than either side would wait for a dead one. */
static void sessions_are_the_same_with_keys(void **state)
{
	char list[256];
	struct net_client_stats st;
	struct net_client *c;
	struct node a, b;
	uint64_t plain_ns, keys_ns, connects;
	unsigned tries = 0;

	(void)state;
	open_node(&a, "a", "");
	snprintf(list, sizeof(list), "%s 127.0.0.1 server\n", a.text);
	open_node(&b, "b", list);
	snprintf(list, sizeof(list), "%s client\n", b.text);
	set_list(&a, list);

	start_server(NULL, FSID);
	c = start_client(NULL, 0);
	wait_until(is_greeted, c, "a greeting");
	plain_ns = median_call_ns(c);
	net_client_stop(c);
	stop_server();

	start_server(a.keys, FSID);
	c = start_client(b.keys, 0);
	wait_until(is_greeted, c, "a greeting");
	keys_ns = median_call_ns(c);
	/* A machine that is busy for as long as that may cost a connection: once, not each time. */
	do {
		assert_true(tries++ < 4);
		net_client_get_stats(c, &st);
		connects = st.connects;
		nanosleep(&(struct timespec){ .tv_sec = 2 * KEEPALIVE_MS / 1000 }, NULL);
		call(c);
		net_client_get_stats(c, &st);
	} while (st.connects != connects);
	net_client_stop(c);
	stop_server();
	print_message("a call and its answer: %llu us, with keys %llu us\n",
		      (unsigned long long)plain_ns / 1000, (unsigned long long)keys_ns / 1000);
	close_node(&a);
	close_node(&b);
}

static void a_key_that_is_not_in_the_list_waits_for_the_list(void **state)
{
	char list[256];
	struct net_client *c;
	struct node a, b;

	(void)state;
	open_node(&a, "a", "");
	snprintf(list, sizeof(list), "%s 127.0.0.1 server\n", a.text);
	open_node(&b, "b", list);
	start_server(a.keys, FSID);
	c = start_client(b.keys, 0);
	refuse_client(c, b.text, &server.refusals.refused_key);
	snprintf(list, sizeof(list), "%s client\n", b.text);
	set_list(&a, list);
	wait_until(is_greeted, c, "a greeting after the list was changed");
	call(c);

	/* And taken out of the list it is cut off, without a call of its own. */
	set_list(&a, "");
	pthread_mutex_lock(&server.mutex);
	net_server_check_keys(server.ns);
	pthread_mutex_unlock(&server.mutex);
	wait_until(is_gone, c, "the end of the connection");
	set_list(&a, list);
	wait_until(is_greeted, c, "a greeting");
	call(c);
	net_client_stop(c);
	stop_server();
	close_node(&a);
	close_node(&b);
}

/* A connection that is still open from before helps nobody: each greeting is looked at. */
static void who_was_taken_out_does_not_greet_again(void **state)
{
	struct msg_header hdr = { .type = MSG_greeting, .frame_nr = 1 };
	struct msg_greeting g = { .fsid = FSID, .fmt_vers = FMT_VERS, .rid = 5, .epoch = 1, .process = 1 };
	static uint8_t buf[MSG_FRAME_MAX];
	static union msg_body body;
	uint64_t end = clock_mono_ns() + DEADLINE_NS, before;
	void *ctx = zmq_ctx_new(), *sock;
	struct net_server_stats ss;
	struct zmqu_frame f;
	char list[256];
	struct node a, b;

	(void)state;
	open_node(&a, "a", "");
	open_node(&b, "b", "");
	snprintf(list, sizeof(list), "%s client\n", b.text);
	set_list(&a, list);
	start_server(a.keys, FSID);
	assert_int_equal(zmqu_dealer(ctx, KEEPALIVE_MS, &sock), 0);
	assert_int_equal(zmqu_secure_dealer(sock, keys_public(a.keys), keys_public(b.keys),
					    keys_secret(b.keys)), 0);
	assert_int_equal(zmq_connect(sock, server.endpoint), 0);
	assert_int_equal(zmqu_send_msg(sock, NULL, &hdr, &g, buf, sizeof(buf)), 0);
	while (zmqu_recv(sock, 0, &f) < 0)
		assert_true(clock_mono_ns() < end);
	assert_int_equal(msg_get(zmq_msg_data(&f.msg), zmq_msg_size(&f.msg), &hdr, &body), 0);
	zmqu_frame_close(&f);
	assert_int_equal(hdr.type, MSG_greeting_reply);
	assert_int_equal(body.greeting_reply.status, GREETING_OK);

	set_list(&a, "");
	pthread_mutex_lock(&server.mutex);
	net_server_check_keys(server.ns);
	pthread_mutex_unlock(&server.mutex);
	before = stats_get(&server.refusals.refused_key);
	hdr = (struct msg_header){ .type = MSG_greeting, .frame_nr = 1 };
	g.rid++;
	assert_int_equal(zmqu_send_msg(sock, NULL, &hdr, &g, buf, sizeof(buf)), 0);
	while (stats_get(&server.refusals.refused_key) == before)
		assert_true(clock_mono_ns() < end);
	pthread_mutex_lock(&server.mutex);
	net_server_get_stats(server.ns, &ss);
	pthread_mutex_unlock(&server.mutex);
	assert_int_equal(ss.connected, 0);
	assert_int_equal(stats_get(&server.counts.net_greetings), 1);
	zmqu_close(sock);
	zmq_ctx_term(ctx);
	stop_server();
	close_node(&a);
	close_node(&b);
}

static void keys_on_one_side_only_are_refused(void **state)
{
	char list[256];
	struct net_client *c;
	struct node a, b;

	(void)state;
	open_node(&a, "a", "");
	snprintf(list, sizeof(list), "%s 127.0.0.1 server\n", a.text);
	open_node(&b, "b", list);
	start_server(a.keys, FSID);
	c = start_client(NULL, 0);
	refuse_unlike_client(c, "talks only to nodes with keys, and this one has none", ": make one");
	net_client_stop(c);
	stop_server();

	start_server(NULL, FSID);
	c = start_client(b.keys, 0);
	refuse_unlike_client(c, "talks without keys, and this node only with them", ": does it have insecure");
	net_client_stop(c);
	stop_server();

	refuse_by_cutting(NULL, "talks only to nodes with keys, and this one has none");
	snprintf(list, sizeof(list), "%s 127.0.0.1:%u server\n", a.text, server.port);
	set_list(&b, list);
	refuse_by_cutting(b.keys, "talks without keys, and this node only with them");
	close_node(&a);
	close_node(&b);
}

static void a_server_with_another_key_is_not_believed(void **state)
{
	char list[256];
	struct net_client *c;
	struct node a, b;

	(void)state;
	open_node(&a, "a", "");
	open_node(&b, "b", "");
	snprintf(list, sizeof(list), "%s client\n", b.text);
	set_list(&a, list);
	/* Of loopback addresses that no line has a node believes that they are its own. */
	start_server(a.keys, FSID);
	c = start_client(b.keys, 0);
	refuse_client(c, "ends each connection while keys are exchanged", &server.refusals.refused_key);
	snprintf(list, sizeof(list), "%s 127.0.0.1:%u server\n", a.text, server.port);
	set_list(&b, list);
	wait_until(is_greeted, c, "a greeting after the list was changed");
	net_client_stop(c);
	stop_server();

	/* An address that nobody has is not tried at all. */
	strcpy(server.endpoint, "tcp://192.0.2.1:12345");
	c = start_client(b.keys, 0);
	uint64_t end = clock_mono_ns() + DEADLINE_NS;
	struct net_client_stats st;

	do {
		net_client_get_stats(c, &st);
		assert_true(clock_mono_ns() < end);
	} while (!strstr(st.why, "has the address of the leader at tcp://192.0.2.1:12345"));
	assert_non_null(strstr(st.why, b.allow_path));
	net_client_stop(c);
	close_node(&a);
	close_node(&b);
}

static void another_volume_and_another_term_are_counted(void **state)
{
	struct msg_header hdr = { .type = MSG_greeting, .frame_nr = 1 };
	struct msg_greeting g = { .fsid = FSID, .fmt_vers = FMT_VERS + 1, .rid = 5 };
	static uint8_t buf[MSG_FRAME_MAX];
	struct net_client *c;
	void *ctx, *sock;
	uint64_t end;
	uint32_t le;
	int len;

	(void)state;
	start_server(NULL, FSID + 1);
	c = start_client(NULL, 0);
	refuse_client(c, "refuses this mount", &server.refusals.refused_foreign);
	net_client_stop(c);
	stop_server();

	start_server(NULL, FSID);
	c = start_client(NULL, TERM + 1);
	refuse_client(c, "it has been replaced", &server.refusals.refused_term);
	net_client_stop(c);
	ctx = zmq_ctx_new();
	assert_int_equal(zmqu_dealer(ctx, KEEPALIVE_MS, &sock), 0);
	assert_int_equal(zmq_connect(sock, server.endpoint), 0);
	assert_int_equal(zmqu_send_msg(sock, NULL, &hdr, &g, buf, sizeof(buf)), 0);
	len = msg_put(&hdr, &g, buf, sizeof(buf));
	buf[4]++;	/* another major version */
	memset(buf + 60, 0, 4);
	le = htole32(crc32c(buf, (size_t)len));
	memcpy(buf + 60, &le, 4);
	assert_int_equal(zmqu_send(sock, NULL, buf, (size_t)len), 0);
	end = clock_mono_ns() + DEADLINE_NS;
	while (!stats_get(&server.refusals.refused_format) || !stats_get(&server.refusals.refused_version))
		assert_true(clock_mono_ns() < end);
	zmqu_close(sock);
	zmq_ctx_term(ctx);
	stop_server();
}

/* The greatest frame passes, whose it is comes with it, and without an answerer nobody counts as anybody. */
static void frames_say_whose_they_are(void **state)
{
	static uint8_t big[MSG_FRAME_MAX];
	void *ctx = zmq_ctx_new(), *router, *dealer, *zap = NULL;
	struct zmqu_zap_request rq;
	uint8_t key[KEYS_BYTES];
	struct zmqu_frame f;
	uint64_t end = clock_mono_ns() + DEADLINE_NS;
	char endpoint[64];
	size_t len = sizeof(endpoint);
	struct node a, b;

	(void)state;
	open_node(&a, "a", "");
	open_node(&b, "b", "");
	for (int with_zap = 1; with_zap >= 0; with_zap--) {
		if (with_zap) {
			assert_int_equal(zmqu_zap_open(ctx, &zap), 0);
			assert_int_equal(zmqu_zap_open(ctx, &router), -EADDRINUSE);
		}
		assert_int_equal(zmqu_router(ctx, KEEPALIVE_MS, &router), 0);
		assert_int_equal(zmqu_secure_listener(router, keys_secret(a.keys)), 0);
		assert_int_equal(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
		len = sizeof(endpoint);
		assert_int_equal(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &len), 0);
		assert_int_equal(zmqu_dealer(ctx, KEEPALIVE_MS, &dealer), 0);
		assert_int_equal(zmqu_secure_dealer(dealer, keys_public(a.keys), keys_public(b.keys),
						    keys_secret(b.keys)), 0);
		assert_int_equal(zmq_connect(dealer, endpoint), 0);
		memset(big, 0x5c, sizeof(big));
		assert_int_equal(zmqu_send(dealer, NULL, big, sizeof(big)), 0);
		while (zmqu_recv(router, 1, &f) < 0) {
			assert_true(clock_mono_ns() < end);
			if (zap && zmqu_zap_next(zap, &rq) == 0) {
				assert_true(rq.has_key);
				assert_memory_equal(rq.key, keys_public(b.keys), KEYS_BYTES);
				assert_int_equal(rq.addr, LOOPBACK);
				zmqu_zap_answer(zap, &rq, true);
			}
		}
		assert_int_equal(zmq_msg_size(&f.msg), sizeof(big));
		assert_memory_equal(zmq_msg_data(&f.msg), big, sizeof(big));
		assert_int_equal(zmqu_frame_key(&f, key), with_zap ? 0 : -ENOENT);
		if (with_zap)
			assert_memory_equal(key, keys_public(b.keys), KEYS_BYTES);
		zmqu_frame_close(&f);
		zmqu_close(dealer);
		zmqu_close(router);
		zmqu_zap_close(zap);
		zap = NULL;
	}
	zmq_ctx_term(ctx);
	close_node(&a);
	close_node(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_is_forty_characters_of_z85),
		cmocka_unit_test(a_key_file_is_made_whole_and_never_over_another),
		cmocka_unit_test(a_key_that_others_could_have_read_is_refused),
		cmocka_unit_test(a_file_that_is_no_key_is_refused),
		cmocka_unit_test(the_list_says_who_may_and_who_is_where),
		cmocka_unit_test(lines_that_are_not_understood_are_named),
		cmocka_unit_test(a_reload_takes_all_or_nothing),
		cmocka_unit_test(insecure_is_without_keys_and_does_not_go_with_them),
		cmocka_unit_test(frames_say_whose_they_are),
		cmocka_unit_test(sessions_are_the_same_with_keys),
		cmocka_unit_test(a_key_that_is_not_in_the_list_waits_for_the_list),
		cmocka_unit_test(who_was_taken_out_does_not_greet_again),
		cmocka_unit_test(keys_on_one_side_only_are_refused),
		cmocka_unit_test(a_server_with_another_key_is_not_believed),
		cmocka_unit_test(another_volume_and_another_term_are_counted),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
