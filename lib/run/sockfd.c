/*
 * Descriptors travel beside a message or not at all: a message whose ancillary data was cut, or which
 * brings more descriptors than its reader allows, is refused whole and every descriptor in it closed,
 * so that a peer cannot fill our table.
 */
#include "sockfd.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* More room than any reader allows, so that surplus descriptors are seen (and closed), not just cut. */
#define CONTROL_FDS	32

int sockfd_send(int sock, const void *msg, size_t len, const int *fds, size_t nr)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * SOCKFD_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = { (void *)msg, len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cm;
	ssize_t n;

	assert(nr <= SOCKFD_FDS_MAX);
	if (nr > 0) {
		memset(&control, 0, sizeof(control));
		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * nr);
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int) * nr);
		memcpy(CMSG_DATA(cm), fds, sizeof(int) * nr);
	}
	do {
		n = sendmsg(sock, &mh, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EMSGSIZE;
}

ssize_t sockfd_recv(int sock, void *msg, size_t size, int *fds, size_t fds_max, size_t *nr)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * CONTROL_FDS)];
		struct cmsghdr align;
	} control;
	struct iovec iov = { msg, size };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf) };
	bool refused;
	ssize_t n;

	*nr = 0;
	do {
		n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;

	refused = mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(&mh); cm; cm = CMSG_NXTHDR(&mh, cm)) {
		size_t count;

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		count = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(fd));
			if (*nr < fds_max) {
				fds[(*nr)++] = fd;
			} else {
				close(fd);
				refused = true;
			}
		}
	}
	if (refused) {
		sockfd_close_all(fds, *nr);
		*nr = 0;
		return -EMSGSIZE;
	}
	return n;
}

void sockfd_close_all(int *fds, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}
