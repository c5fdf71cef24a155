/* What serverd counts; style.md 9. */
#ifndef SCOUTFS_SERVERD_STATS_H
#define SCOUTFS_SERVERD_STATS_H

#include "stats.h"

#define SERVERD_STATS(C)								\
	C(greetings_new, "Mounts let in for the first time")				\
	C(greetings_known, "Mounts that came back, or found this server")		\
	C(greetings_fenced, "Greetings of mounts that had been given up")		\
	C(requests_inos, "Requests for inode numbers")					\
	C(requests_open, "Requests to open a transaction")				\
	C(requests_held, "... or to commit and open, that waited for the mount's locks")	\
	C(requests_commit, "Requests to commit a transaction")				\
	C(requests_commit_unflushed, "... that left flushing the devices to the server")	\
	C(requests_get_merge, "Requests for work of a log merge")			\
	C(requests_commit_merge, "Work of log merges handed in")			\
	C(merge_given_up, "... that the mount could not do")				\
	C(log_merge_start, "Log merges begun")						\
	C(log_merge_complete, "Log merges finished")					\
	C(log_merge_wait_timeout, "Log merges that did not begin because mounts did not commit in time") \
	C(log_merge_nudges, "Mounts asked to commit for a log merge")			\
	C(stable_nudges, "Mounts asked to commit because their idle transactions hid others' changes") \
	C(space_nudges, "Mounts asked to commit because others have given data space back")	\
	C(requests_roots, "Requests for stable roots")					\
	C(requests_lock, "Requests for locks")						\
	C(requests_omap, "Requests for open-inode maps")				\
	C(requests_advisory, "Requests about advisory locks")				\
	C(advisory_conflicts, "Advisory locks told by a mount that another had")	\
	C(requests_statfs, "Requests for free space")					\
	C(requests_cluster, "Requests for the state of the cluster")			\
	C(requests_farewell, "Mounts that said farewell")				\
	C(requests_unknown, "Requests that a server does not take")			\
	C(request_errors, "Requests answered with an error")				\
	C(answers_bad, "Answers of mounts that could not be used")			\
	C(fences, "Mounts given up")							\
	C(fence_acks, "Fences that an operator confirmed")				\
	C(fence_lapses, "Fences that were over with the mount's lease")			\
	C(fence_fails, "Fences that an operator or agent could not do")			\
	C(leases_given, "Leases given to mounts")					\
	C(leases_withheld, "... not given: others waited for the mount, and its devices failed") \
	C(device_probes, "Tries whether the devices work for this server, because they fail for a mount")	\
	C(device_probe_fails, "... they did not")					\
	C(leases_refused, "... not given: this server's own had run out, or the mount was given up") \
	C(reclaims, "Mounts whose resources were given back")				\
	C(reclaimed_open_logs, "... that had been fenced")				\
	C(reclaim_errors, "Reclaims that failed")					\
	C(terms, "Terms served")

STATS_STRUCT(serverd_stats, SERVERD_STATS);

#endif
