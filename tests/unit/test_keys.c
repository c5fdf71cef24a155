/*
 * Keys: a file that others could have read, a line that is not understood and a key that is not in the
 * list let nobody in, and are named; a list that cannot be read again leaves the old one.  design.md D10.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keys.h"

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
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
