/* fsd's counters: one table, read by the status socket (style.md 9). */
#ifndef SCOUTFS_FSD_STATS_H
#define SCOUTFS_FSD_STATS_H

#include "stats.h"

#define FSD_STATS(C)                                                                  \
	C(fuse_requests,	"Requests from the kernel")                            \
	C(fuse_interrupts,	"Signals to programs whose request was waiting")       \
	C(requests_done_before,	"Requests that an earlier process had done, answered again")   \
	C(op_parked,		"Times an operation waited for something")             \
	C(op_wait_lock,		"... for a cluster lock")                              \
	C(op_wait_items,	"... for items to be read")                            \
	C(op_wait_commit,	"... for a commit")                                    \
	C(op_wait_pool,		"... for a free page of the write-back pool")          \
	C(item_hits,		"Item look-ups answered from the cache")               \
	C(item_reads,		"Ranges of items read from the forest")                \
	C(item_reads_stale,	"Reads of the forest begun again from fresh roots")    \
	C(item_evicted,		"Items dropped to make room")                          \
	C(trans_commit_fsync,	"Commits asked for by fsync")                          \
	C(trans_commit_timer,	"Commits begun by the timer")                          \
	C(trans_commit_full,	"Commits begun because a generation was full")         \
	C(trans_commit_lock,	"Commits begun because a dirty lock was revoked")      \
	C(trans_commit_done,	"Commits finished")                                    \
	C(trans_commit_retry,	"Attempts of a commit that failed and were repeated")  \
	C(log_merge_requests,	"Requests of log merges done")                          \
	C(log_merge_items,	"Items applied for them")                              \
	C(log_merge_errors,	"Requests of log merges given up")                     \
	C(lock_grant_request,	"Locks asked for")                                     \
	C(lock_grant_response,	"Locks granted")                                       \
	C(lock_invalidate_request, "Locks revoked")                                    \
	C(lock_notify_left,	"Revokes that went on before the kernel had dropped all pages") \
	C(mapped_no_base,	"Stores through mappings of which it was not known what they changed") \
	C(inode_deleted,	"Unlinked inodes deleted")                             \
	C(orphan_scan,		"Scans for orphans")                                   \
	C(orphan_scan_empty,	"... that found none")                                 \
	C(orphan_scan_error,	"... that could not read them")                        \
	C(orphan_scan_recent,	"Orphans that were left to whoever has made them")     \
	C(orphan_scan_omap_set,	"Orphans that were left because others use them")      \
	C(orphan_scan_attempts,	"Orphans that scans tried to delete")                  \
	C(data_read_bytes,	"Bytes of file data read from the device")             \
	C(data_write_bytes,	"Bytes of file data written to the device")            \
	C(ioctl_resolved,	"ioctls whose pointers were followed")                 \
	C(ioctl_refused,	"ioctls whose pointers were refused")                  \
	C(corrupt_items,	"Malformed items or blocks met (call support)")        \
	C(refused_unsupported,	"Operations refused because a later version does them")

STATS_STRUCT(fsd_stats, FSD_STATS);

#endif
