/*
 * A server of sessions in a test: at an address that is free, with callbacks for what the test does not look at, and what
 * its thread waits for.
 */
#ifndef SCOUTFS_TEST_NET_RIG_H
#define SCOUTFS_TEST_NET_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "net_server.h"

#define NET_RIG_DEADLINE_NS	(60 * NSEC_PER_SEC)

static inline void net_rig_no_response(void *arg, uint64_t rid, uint64_t tag, int err, unsigned type, const void *msg)
{
	(void)arg, (void)rid, (void)tag, (void)err, (void)type, (void)msg;
}

static inline void net_rig_no_disconnect(void *arg, uint64_t rid, uint64_t since_ns)
{
	(void)arg, (void)rid, (void)since_ns;
}

static inline void net_rig_no_rid(void *arg, uint64_t rid)
{
	(void)arg, (void)rid;
}

/* An endpoint on loopback of which the port is free just now. */
static inline uint16_t net_rig_pick(char *endpoint, size_t size)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	close(fd);
	snprintf(endpoint, size, "tcp://127.0.0.1:%u", ntohs(in.sin_port));
	return ntohs(in.sin_port);
}

/* Open a server at such an endpoint, which is written to `endpoint`; conf has all else.  Its port. */
static inline uint16_t net_rig_open(struct net_server **ns, void *ctx, const struct net_server_conf *conf,
				    char *endpoint, size_t size)
{
	uint64_t end_ns = clock_mono_ns() + NET_RIG_DEADLINE_NS;
	const char *endpoints[] = { endpoint };
	struct net_server_conf c = *conf;
	uint16_t port;
	int ret;

	c.endpoints = endpoints;
	c.endpoints_nr = 1;
	do {
		port = net_rig_pick(endpoint, size);
		ret = net_server_open(ns, ctx, &c);
	} while (ret == -EADDRINUSE && clock_mono_ns() < end_ns);	/* somebody else had it in between */
	assert_int_equal(ret, 0);
	return port;
}

/* Until the server has something to do, 10 ms at most.  Under the mutex a test may put another in its place. */
static inline void net_rig_wait(struct net_server *const *ns, pthread_mutex_t *mutex)
{
	struct pollfd p = { .events = POLLIN };
	uint64_t now = clock_mono_ns(), deadline;
	int ms;

	pthread_mutex_lock(mutex);
	p.fd = net_server_fd(*ns);
	deadline = net_server_deadline(*ns);
	pthread_mutex_unlock(mutex);
	ms = deadline <= now ? 0 : (int)((deadline - now) / NSEC_PER_MSEC) + 1;
	poll(&p, 1, ms < 10 ? ms : 10);
}

#endif
