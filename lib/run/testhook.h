/*
 * Faults that tests ask for (runtime.md 16.5).  Without SCOUTFS_TEST_... in the environment of a
 * service there are none.
 */
#ifndef SCOUTFS_TESTHOOK_H
#define SCOUTFS_TESTHOOK_H

#include <stdbool.h>

enum testhook_point {
	TESTHOOK_SEND,	/* a message is about to be put on the wire: its effect is there, nobody knows */
	TESTHOOK_RECV,	/* a message has come, nothing has been done about it */
};

/*
 * SCOUTFS_TEST_DIE names a file that may hold one line "PROGRAM send|recv MESSAGE": the program dies there as
 * by kill -9, once: the file is gone before it does.  MESSAGE is a name of proto/messages.h.
 */
void testhook_message(enum testhook_point point, unsigned type);

/* With SCOUTFS_TEST_OLD_KERNEL in the environment the kernel is taken for one before Linux 6.9: it sends no request again. */
bool testhook_is_old_kernel(void);

#endif
