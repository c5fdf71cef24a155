/*
 * What serverd's status says of the mounts: whoever must be dead is named, however many mounts there are, in
 * the words that fence agents read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "services/serverd/serverd.h"

#define MOUNTS	100u
#define OWN	1u

uint64_t lease_left_ns(const struct client *c)
{
	return c->info.rid * 1000000;
}

static struct instance_conf conf;
static struct server server = { .conf = { .conf = &conf, .rid = OWN, .fsid = 0xf5 } };
static struct client clients[MOUNTS];
static struct msg_status_reply reply;

/* Mounts of the rids 1 to MOUNTS, in that order. */
static int setup(void **state)
{
	(void)state;
	strcpy(conf.runtime_dir, "/nonexistent");
	memset(&reply, 0, sizeof(reply));
	for (unsigned i = 0; i < MOUNTS; i++)
		clients[i] = (struct client){ .next = i + 1 < MOUNTS ? &clients[i + 1] : NULL, .server = &server,
					      .info = { .rid = i + 1, .addr = 0x0a000000 + i + 1 },
					      .state = CLIENT_UP, .was_greeted = true, .reason = "it is gone" };
	server.clients = clients;
	return 0;
}

static unsigned count(const char *name, const char *text)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < reply.texts_nr; i++)
		nr += strcmp(reply.texts[i].name, name) == 0 && (!text || strcmp(reply.texts[i].text, text) == 0);
	return nr;
}

static void a_lost_mount_is_named_however_many_there_are(void **state)
{
	(void)state;
	clients[MOUNTS - 1].state = CLIENT_FENCE_WAIT;
	clients[MOUNTS - 2].state = CLIENT_FENCE_WAIT;
	clients[MOUNTS - 2].was_greeted = false;
	status_add_mounts(&server, &reply);
	assert_int_equal(count("fence_request", "0000000000000064 10.0.0.100 client_reconnect 00000000000000f5"), 1);
	assert_int_equal(count("fence_request", "0000000000000063 10.0.0.99 client_recovery 00000000000000f5"), 1);
	assert_int_equal(count("fence", "0000000000000064: it is gone"), 1);
	assert_int_equal(count("lease", NULL), STATUS_TEXTS_MAX - 4);
	assert_int_equal(count("lease", "mount 0000000000000002: lasts 2 ms"), 1);
}

static void nobody_is_asked_to_fence_his_own_host(void **state)
{
	(void)state;
	clients[OWN - 1].state = CLIENT_FENCE_WAIT;
	status_add_mounts(&server, &reply);
	assert_int_equal(count("fence", "0000000000000001: it is gone"), 1);
	assert_int_equal(count("fence_request", NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_lost_mount_is_named_however_many_there_are, setup),
		cmocka_unit_test_setup(nobody_is_asked_to_fence_his_own_host, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
