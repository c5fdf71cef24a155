/*
 * The log: one write(2) a line, so lines of several threads and processes never mix.
 *
 * Under systemd (JOURNAL_STREAM is set) a line is "<LEVEL>text" and the journal adds the rest;
 * elsewhere it is "time program level: text".  An error or warning that was just written is counted
 * instead of written again; the count comes out ("... (12 more)") when the text has been quiet or
 * held back for REPEAT_NS and something is logged, at log_flush() and at exit.  Notices are never
 * held back: they tell of changes, and of two changes back and forth both matter.
 */
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

#define TEXT_BYTES	1024
#define RECENT_NR	8
#define REPEAT_NS	(10 * NSEC_PER_SEC)

struct recent {
	char text[TEXT_BYTES];
	int level;
	uint64_t since_ns;	/* when it was last written */
	uint64_t held_nr;	/* repeats since then; an entry with text[0] == 0 is free */
};

static struct {
	pthread_mutex_t mutex;
	bool is_set_up;
	bool is_journal;
	bool is_debug;
	struct recent recent[RECENT_NR];
} logger = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static const char *const level_names[] = {
	"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
};

static void write_line(int level, const char *text, uint64_t more_nr)
{
	char line[TEXT_BYTES + 160];
	char more[40] = "";
	int len;

	if (more_nr)
		snprintf(more, sizeof(more), " (%llu more)", (unsigned long long)more_nr);
	if (logger.is_journal) {
		len = snprintf(line, sizeof(line), "<%d>%s%s\n", level, text, more);
	} else {
		struct timespec now = clock_real();
		struct tm tm;
		char stamp[32] = "";

		if (localtime_r(&now.tv_sec, &tm))
			strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", &tm);
		len = snprintf(line, sizeof(line), "%s.%03ld %.32s[%d] %s: %s%s\n", stamp,
			       now.tv_nsec / 1000000, program_invocation_short_name, (int)getpid(),
			       level_names[level], text, more);
	}
	if (len < 0)
		return;
	if ((size_t)len >= sizeof(line))
		len = sizeof(line) - 1;
	/* There is nobody to tell when stderr is gone. */
	if (write(STDERR_FILENO, line, (size_t)len) < 0)
		return;
}

static void release_held(struct recent *r)
{
	if (r->text[0] && r->held_nr)
		write_line(r->level, r->text, r->held_nr);
	r->held_nr = 0;
	r->text[0] = 0;
}

/* True when text was written a moment ago and is only counted now. */
static bool hold_back(int level, const char *text)
{
	uint64_t now = clock_mono_ns();
	struct recent *oldest = &logger.recent[0];

	for (size_t i = 0; i < RECENT_NR; i++) {
		struct recent *r = &logger.recent[i];

		if (r->text[0] && now - r->since_ns >= REPEAT_NS)
			release_held(r);
		if (r->text[0] && r->level == level && strcmp(r->text, text) == 0) {
			r->held_nr++;
			return true;
		}
		if (oldest->text[0] && (!r->text[0] || r->since_ns < oldest->since_ns))
			oldest = r;
	}
	release_held(oldest);
	strcpy(oldest->text, text);
	oldest->level = level;
	oldest->since_ns = now;
	return false;
}

static void set_up(void)
{
	const char *debug = getenv("SCOUTFS_DEBUG");

	logger.is_journal = getenv("JOURNAL_STREAM") != NULL;
	logger.is_debug = debug && strcmp(debug, "0") != 0;
	logger.is_set_up = true;
	atexit(log_flush);
}

void log_at(int level, const char *fmt, ...)
{
	int saved_errno = errno;
	char text[TEXT_BYTES];
	va_list args;
	int len;

	if (level < LOG_EMERG || level > LOG_DEBUG)
		level = LOG_ERR;
	errno = saved_errno;	/* for %m */
	va_start(args, fmt);
	len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (len < 0)
		snprintf(text, sizeof(text), "(a message could not be formatted: %.200s)", fmt);
	for (char *p = text; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	}

	pthread_mutex_lock(&logger.mutex);
	if (!logger.is_set_up)
		set_up();
	if ((level < LOG_DEBUG || logger.is_debug) &&
	    !(level <= LOG_WARNING && hold_back(level, text)))
		write_line(level, text, 0);
	pthread_mutex_unlock(&logger.mutex);
	errno = saved_errno;
}

void log_flush(void)
{
	pthread_mutex_lock(&logger.mutex);
	for (size_t i = 0; i < RECENT_NR; i++)
		release_held(&logger.recent[i]);
	pthread_mutex_unlock(&logger.mutex);
}
