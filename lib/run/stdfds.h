/* The three standard descriptors of a program. */
#ifndef SCOUTFS_STDFDS_H
#define SCOUTFS_STDFDS_H

/*
 * Occupy those of descriptors 0 to 2 that are closed, so that nothing opened later gets their numbers;
 * to be called before anything is opened.  Reading and writing them goes on to fail (EBADF), here and
 * in programs that are started.  0 or -errno.
 */
int stdfds_occupy(void);

#endif
