/* Messages with descriptors over unix sockets (SCM_RIGHTS). */
#ifndef SCOUTFS_SOCKFD_H
#define SCOUTFS_SOCKFD_H

#include <stddef.h>
#include <sys/types.h>

#define SOCKFD_FDS_MAX	8

/*
 * Send one message with nr descriptors (they stay the caller's).  0, or -errno: -EAGAIN when a
 * non-blocking socket is full, -EPIPE or -ECONNRESET when the peer is gone.  Never raises SIGPIPE.
 */
int sockfd_send(int sock, const void *msg, size_t len, const int *fds, size_t nr);

/*
 * Receive one message of at most size bytes and at most fds_max descriptors, close-on-exec and then
 * the caller's; *nr says how many.  Its length; 0: the peer closed; -EAGAIN; -EMSGSIZE: longer message
 * or more descriptors than allowed (all were closed); other -errno.
 */
ssize_t sockfd_recv(int sock, void *msg, size_t size, int *fds, size_t fds_max, size_t *nr);

/* Close descriptors and set them to -1; those that are negative are skipped. */
void sockfd_close_all(int *fds, size_t nr);

#endif
