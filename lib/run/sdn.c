/* sd_notify in words.  Failing to notify is not an error of the service: systemd's timeouts act on
 * it. */
#include "sdn.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <systemd/sd-daemon.h>

#include "clock.h"

static pthread_mutex_t status_mutex = PTHREAD_MUTEX_INITIALIZER;
static char last_status[512];

void sdn_ready(void)
{
	sd_notify(0, "READY=1");
}

void sdn_stopping(void)
{
	sd_notify(0, "STOPPING=1");
}

void sdn_status(const char *fmt, ...)
{
	char text[sizeof(last_status)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	for (char *p = text; *p; p++) {
		if (*p == '\n')
			*p = ' ';
	}
	pthread_mutex_lock(&status_mutex);
	if (strcmp(text, last_status) != 0) {
		strcpy(last_status, text);
		sd_notifyf(0, "STATUS=%s", text);
	}
	pthread_mutex_unlock(&status_mutex);
}

uint64_t sdn_watchdog_ns(void)
{
	uint64_t usec = 0;

	if (sd_watchdog_enabled(0, &usec) <= 0)
		return 0;
	return usec / 2 * 1000;
}

/* Loops call this at every turn, which may be thousands a second: what is not due is not sent. */
void sdn_watchdog(void)
{
	static _Atomic uint64_t last_ns;
	uint64_t half = sdn_watchdog_ns(), now;

	if (!half)
		return;
	now = clock_mono_ns();
	if (now - atomic_load(&last_ns) < half / 2)
		return;
	atomic_store(&last_ns, now);
	sd_notify(0, "WATCHDOG=1");
}
