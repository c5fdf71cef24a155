/*
 * Errors as they cross the wire: a closed set of numbers of our own, never a host's errno.
 * runtime.md 3.1. Numbers are never used again for something else.
 */
#ifndef SCOUTFS_ERRORS_H
#define SCOUTFS_ERRORS_H

#include <errno.h>
#include <stdint.h>

/* number, errno */
#define WIRE_ERRORS(X)		\
	X(1, ENOENT)		\
	X(2, ENOMEM)		\
	X(3, EIO)		\
	X(4, ENOSPC)		\
	X(5, EINVAL)		\
	X(6, ENOLINK)		\
	X(7, EEXIST)		\
	X(8, EBUSY)		\
	X(9, ESTALE)		\
	X(10, EPROTO)		\
	X(11, EPERM)		\
	X(12, EOPNOTSUPP)	\
	X(13, EAGAIN)		\
	X(14, ECANCELED)	\
	X(15, EBADMSG)		\
	X(16, ETIMEDOUT)	\
	X(17, ESHUTDOWN)

#define WIRE_ERROR_UNKNOWN	255u

/* The number for 0 or a negative errno; what has none crosses as "unknown". */
uint32_t errors_to_wire(int error);
/* 0 or a negative errno; numbers that we do not know are -EIO. */
int errors_from_wire(uint32_t number);

#endif
