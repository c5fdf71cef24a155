/*
 * What a service says to its operator: one line on stderr each, by any thread.  style.md 9.
 *
 * err: someone must act.  warning: degraded, healing.  notice: leader, membership, mode changed.
 * info: start, stop, config.  debug: per request, only with SCOUTFS_DEBUG=1 in the environment.
 */
#ifndef SCOUTFS_LOG_H
#define SCOUTFS_LOG_H

#include <syslog.h>

/* Write one message of a syslog level; newlines become spaces, errno is kept, it never fails. */
void log_at(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Write out the counts of repeated messages that are held back; also done at exit. */
void log_flush(void);

#define log_err(...)		log_at(LOG_ERR, __VA_ARGS__)
#define log_warning(...)	log_at(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)		log_at(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)		log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...)		log_at(LOG_DEBUG, __VA_ARGS__)

#endif
