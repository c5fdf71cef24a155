/*
 * ZeroMQ, loaded when it is first used.
 *
 * Only the verbs that talk to daemons need it, but it brings a dozen libraries along, and to link
 * them takes longer than a whole walk of the change index.  So scoutfsctl is linked without it, and
 * these stand in: zmq_ctx_new, with which everything begins, loads the library, and fails if it
 * cannot; the others find what they are to call then.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

#define LIBZMQ	"libzmq.so.5"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *lib;

static void load(void)
{
	lib = dlopen(LIBZMQ, RTLD_LAZY | RTLD_LOCAL);
	if (!lib)
		fprintf(stderr, "scoutfsctl: %s: install the package libzmq5\n", dlerror());
}

static void *find(const char *name)
{
	void *fn;

	pthread_once(&once, load);
	fn = lib ? dlsym(lib, name) : NULL;
	if (lib && !fn) {
		fprintf(stderr, "scoutfsctl: %s lacks %s: another version of libzmq5 is needed\n",
			LIBZMQ, name);
		exit(2);
	}
	return fn;
}

/* The function of the same name in the library, found once. */
#define CALL(name, ...) ({ \
	static typeof(&name) _Atomic fn; \
	if (!fn) \
		fn = (typeof(&name))find(#name); \
	fn(__VA_ARGS__); })

void *zmq_ctx_new(void)
{
	pthread_once(&once, load);
	if (lib)
		return CALL(zmq_ctx_new);
	errno = ELIBACC;
	return NULL;
}

int zmq_curve_keypair(char *public_text, char *secret_text)
{
	pthread_once(&once, load);
	if (lib)
		return CALL(zmq_curve_keypair, public_text, secret_text);
	errno = ELIBACC;
	return -1;
}

int zmq_curve_public(char *public_text, const char *secret_text)
{
	pthread_once(&once, load);
	if (lib)
		return CALL(zmq_curve_public, public_text, secret_text);
	errno = ELIBACC;
	return -1;
}

int zmq_ctx_term(void *ctx)
{
	return CALL(zmq_ctx_term, ctx);
}

void *zmq_socket(void *ctx, int type)
{
	return CALL(zmq_socket, ctx, type);
}

int zmq_close(void *s)
{
	return CALL(zmq_close, s);
}

int zmq_bind(void *s, const char *addr)
{
	return CALL(zmq_bind, s, addr);
}

int zmq_connect(void *s, const char *addr)
{
	return CALL(zmq_connect, s, addr);
}

int zmq_setsockopt(void *s, int opt, const void *val, size_t len)
{
	return CALL(zmq_setsockopt, s, opt, val, len);
}

int zmq_getsockopt(void *s, int opt, void *val, size_t *len)
{
	return CALL(zmq_getsockopt, s, opt, val, len);
}

int zmq_socket_monitor(void *s, const char *addr, int events)
{
	return CALL(zmq_socket_monitor, s, addr, events);
}

int zmq_send(void *s, const void *buf, size_t len, int flags)
{
	return CALL(zmq_send, s, buf, len, flags);
}

int zmq_poll(zmq_pollitem_t *items, int nr, long ms)
{
	return CALL(zmq_poll, items, nr, ms);
}

int zmq_msg_init(zmq_msg_t *msg)
{
	return CALL(zmq_msg_init, msg);
}

int zmq_msg_close(zmq_msg_t *msg)
{
	return CALL(zmq_msg_close, msg);
}

int zmq_msg_recv(zmq_msg_t *msg, void *s, int flags)
{
	return CALL(zmq_msg_recv, msg, s, flags);
}

void *zmq_msg_data(zmq_msg_t *msg)
{
	return CALL(zmq_msg_data, msg);
}

size_t zmq_msg_size(const zmq_msg_t *msg)
{
	return CALL(zmq_msg_size, msg);
}

int zmq_msg_more(const zmq_msg_t *msg)
{
	return CALL(zmq_msg_more, msg);
}

const char *zmq_msg_gets(const zmq_msg_t *msg, const char *name)
{
	return CALL(zmq_msg_gets, msg, name);
}
