/* What the looks and the races of coherence share: the mounts, names as each has them, and what was seen instead. */
#ifndef TESTS_COHERENCE_H
#define TESTS_COHERENCE_H

#include <stdbool.h>
#include <stddef.h>

#define MOUNTS_MAX	8

extern const char *mounts[MOUNTS_MAX];
extern int mounts_nr;
extern long rounds, records;
extern bool failed;
/* Why what is looked at is not right: saw() says it. */
extern char why[512];

double now_ms(void);

/* What was seen instead.  False, for looks to return. */
bool saw(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A name as the mount `at` has it; good for the next few calls. */
const char *path(int at, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Write into a file, which is made: false with errno. */
bool put_bytes(int at, const char *name, const void *bytes, size_t len);
bool put(int at, const char *name, long value);
/* Whether it holds that value; is missing; is there: else false, and why is said. */
bool shows(int fd, long value);
bool get(int at, const char *name, long value);
bool is_missing(int at, const char *name);
bool is_there(int at, const char *name);
/* Everything stat(2) says of a name is the same at both. */
bool same_stat(int a, int b, const char *name);
/* The end of a look or a race at "f". */
void remove_file(void);

/* Those whose promise begins with `only`: a line of TAP each. */
void run_looks(const char *only);
void run_races(const char *only);

#endif
