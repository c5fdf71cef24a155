#include "thread.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct start {
	void *(*run)(void *arg);
	void *arg;
	char name[THREAD_NAME_BYTES];
};

static void *begin(void *arg)
{
	struct start s = *(struct start *)arg;

	free(arg);
	pthread_setname_np(pthread_self(), s.name);
	return s.run(s.arg);
}

int thread_start(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
	struct start *s = calloc(1, sizeof(*s));
	sigset_t most, old;
	int err;

	if (!s)
		return -ENOMEM;
	assert(strlen(name) < sizeof(s->name));
	s->run = run;
	s->arg = arg;
	memcpy(s->name, name, strlen(name));
	sigfillset(&most);
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigdelset(&most, faults[i]);
	pthread_sigmask(SIG_SETMASK, &most, &old);
	err = pthread_create(thread, NULL, begin, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		free(s);
	return -err;
}
