/*
 * Every message of the services, once.  design.md D9; runtime.md 17.  What the lines are turned
 * into is in msg.h; docs/protocol.md is made from them.
 *
 * To change the protocol: append fields (with the minor version that brings them), add messages
 * with new numbers, raise MSG_MINOR.  Numbers and fields are never reused, removed or reordered,
 * and elements of arrays never grow.
 */
#ifndef SCOUTFS_MESSAGES_H
#define SCOUTFS_MESSAGES_H

/* name, number, sender, receiver, name of the answer (none: it has none) */
#define MESSAGES(M)								\
	M(greeting,			1, CLIENT, SERVER, greeting_reply)	\
	M(greeting_reply,		2, SERVER, CLIENT, none)		\
	M(ping,				3, ANY, ANY, pong)			\
	M(pong,				4, ANY, ANY, none)			\
	M(alloc_inodes,			10, CLIENT, SERVER, alloc_inodes_reply)	\
	M(alloc_inodes_reply,		11, SERVER, CLIENT, none)		\
	M(open_log_trees,		12, CLIENT, SERVER, open_log_trees_reply) \
	M(open_log_trees_reply,		13, SERVER, CLIENT, none)		\
	M(commit_log_trees,		14, CLIENT, SERVER, commit_log_trees_reply) \
	M(commit_log_trees_reply,	15, SERVER, CLIENT, none)		\
	M(get_roots,			16, CLIENT, SERVER, get_roots_reply)	\
	M(get_roots_reply,		17, SERVER, CLIENT, none)		\
	M(lock,				18, CLIENT, SERVER, lock_reply)		\
	M(lock_reply,			19, SERVER, CLIENT, none)		\
	M(lock_invalidate,		20, SERVER, CLIENT, lock_invalidate_reply) \
	M(lock_invalidate_reply,	21, CLIENT, SERVER, none)		\
	M(lock_recover,			22, SERVER, CLIENT, lock_recover_reply)	\
	M(lock_recover_reply,		23, CLIENT, SERVER, none)		\
	M(open_ino_map,			24, CLIENT, SERVER, open_ino_map_reply)	\
	M(open_ino_map_reply,		25, SERVER, CLIENT, none)		\
	M(open_ino_map_query,		26, SERVER, CLIENT, open_ino_map_query_reply) \
	M(open_ino_map_query_reply,	27, CLIENT, SERVER, none)		\
	M(sync_log_trees,		28, SERVER, CLIENT, sync_log_trees_reply) \
	M(sync_log_trees_reply,		29, CLIENT, SERVER, none)		\
	M(statfs,			30, CLIENT, SERVER, statfs_reply)	\
	M(statfs_reply,			31, SERVER, CLIENT, none)		\
	M(farewell,			32, CLIENT, SERVER, farewell_reply)	\
	M(farewell_reply,		33, SERVER, CLIENT, none)		\
	M(get_log_merge,		34, CLIENT, SERVER, get_log_merge_reply) \
	M(get_log_merge_reply,		35, SERVER, CLIENT, none)		\
	M(commit_log_merge,		36, CLIENT, SERVER, commit_log_merge_reply) \
	M(commit_log_merge_reply,	37, SERVER, CLIENT, none)		\
	M(commit_unflushed,		38, CLIENT, SERVER, commit_log_trees_reply) \
	M(lease,			40, CLIENT, SERVER, lease_reply)	\
	M(lease_reply,			41, SERVER, CLIENT, none)		\
	M(quorum_state,			50, QUORUM, QUORUM, none)		\
	M(local_hello,			60, LOCAL, QUORUM, none)		\
	M(leader_state,			61, QUORUM, LOCAL, none)		\
	M(server_state,			62, LOCAL, QUORUM, none)		\
	M(quorum_members,		63, QUORUM, LOCAL, none)		\
	M(status_request,		70, TOOL, SERVICE, status_reply)	\
	M(status_reply,			71, SERVICE, TOOL, none)		\
	M(ctl_command,			72, TOOL, SERVICE, ctl_reply)		\
	M(ctl_reply,			73, SERVICE, TOOL, none)		\
	M(cluster_status,		80, CLIENT, SERVER, cluster_status_reply) \
	M(cluster_status_reply,		81, SERVER, CLIENT, none)		\
	M(cluster_mounts,		82, CLIENT, SERVER, cluster_mounts_reply) \
	M(cluster_mounts_reply,		83, SERVER, CLIENT, none)		\
	M(cluster_waits,		84, CLIENT, SERVER, cluster_waits_reply) \
	M(cluster_waits_reply,		85, SERVER, CLIENT, none)		\
	M(adv_lock,			90, CLIENT, SERVER, adv_lock_reply)	\
	M(adv_lock_reply,		91, SERVER, CLIENT, none)		\
	M(adv_cancel,			92, CLIENT, SERVER, adv_cancel_reply)	\
	M(adv_cancel_reply,		93, SERVER, CLIENT, none)		\
	M(adv_test,			94, CLIENT, SERVER, adv_test_reply)	\
	M(adv_test_reply,		95, SERVER, CLIENT, none)		\
	M(adv_recover,			96, SERVER, CLIENT, adv_recover_reply)	\
	M(adv_recover_reply,		97, CLIENT, SERVER, none)

/* Elements of arrays. */
#define MESSAGE_PARTS(P)	\
	P(lock_held)		\
	P(stat_value)		\
	P(stat_text)		\
	P(quorum_member)	\
	P(cluster_mount)	\
	P(cluster_wait)		\
	P(adv_held)

/*
 * Fields: F(wire type, name, since minor), S(name, longest, since minor) is a string, A(part, name,
 * most, since minor) an array with its length in NAME_nr.
 */

/* First on each socket, outside the numbering of the session; the greatest epoch of a rid counts;
 * process is another number in each process of a rid.  runtime.md 3.2. */
#define greeting_FIELDS(F, S, A)		\
	F(u64, fsid, 0)				\
	F(u64, fmt_vers, 0)			\
	F(u64, server_term, 0)			\
	F(u64, rid, 0)				\
	F(greeting_flags, flags, 0)		\
	F(u64, epoch, 0)			\
	F(u64, process, 0)
#define greeting_reply_FIELDS(F, S, A)		\
	F(u64, fsid, 0)				\
	F(u64, fmt_vers, 0)			\
	F(u64, server_term, 0)			\
	F(greeting_status, status, 0)		\
	F(flag, new_session, 0)

/* Is the peer alive?  Outside the numbering as well. */
#define ping_FIELDS(F, S, A)			\
	F(u64, cookie, 0)
#define pong_FIELDS(F, S, A)			\
	F(u64, cookie, 0)

/* Inode numbers: nr of them from start; nr 0: there are no more. */
#define alloc_inodes_FIELDS(F, S, A)		\
	F(u64, count, 0)
#define alloc_inodes_reply_FIELDS(F, S, A)	\
	F(u64, start, 0)			\
	F(u64, nr, 0)

/*
 * The mount's open log trees; commit stores them and opens the next transaction when asked to.  The tree
 * in its answer may not be open all the same (get_trans_seq is not past commit_trans_seq), and its nr
 * may be the next one: a log merge is about to begin.  Then open_log_trees is asked next, whose
 * answer waits until it has.  runtime.md 7.2.
 */
#define open_log_trees_FIELDS(F, S, A)
#define open_log_trees_reply_FIELDS(F, S, A)	\
	F(log_trees, log_trees, 0)
#define commit_log_trees_FIELDS(F, S, A)	\
	F(log_trees, log_trees, 0)		\
	F(flag, open_next, 0)
#define commit_log_trees_reply_FIELDS(F, S, A)	\
	F(log_trees, log_trees, 0)
/*
 * commit_log_trees with open_next, of the mount of the leader's own instance, whose writes go through the same
 * blockd: they have ended, and are not flushed.  The leader of that term flushes both devices before it
 * stores log_trees.  Another one has done nothing (EAGAIN); nor has one that had a flush fail: it flushes for nobody any
 * more (EOPNOTSUPP).
 */
#define commit_unflushed_FIELDS(F, S, A)	\
	F(log_trees, log_trees, 0)		\
	F(u64, term, 0)

/* Where readers start; all from one stable super. */
#define get_roots_FIELDS(F, S, A)
#define get_roots_reply_FIELDS(F, S, A)		\
	F(btree_root, fs_root, 0)		\
	F(btree_root, logs_root, 0)		\
	F(btree_root, srch_root, 0)		\
	F(btree_root, log_merge, 0)		\
	F(u64, super_seq, 0)			\
	F(u64, last_stable_seq, 0)

/*
 * Cluster locks, known by their start key.  runtime.md 4.  With a grant come the roots of the stable super as it is then, which
 * have all that the last holder committed, so that the new one need not ask for them.
 */
#define lock_FIELDS(F, S, A)			\
	F(key, key, 0)				\
	F(lock_mode, old_mode, 0)		\
	F(lock_mode, new_mode, 0)
#define lock_reply_FIELDS(F, S, A)		\
	F(key, key, 0)				\
	F(lock_mode, old_mode, 0)		\
	F(lock_mode, new_mode, 0)		\
	F(u64, write_seq, 0)			\
	F(flag, has_roots, 2)			\
	F(btree_root, fs_root, 2)		\
	F(btree_root, logs_root, 2)		\
	F(btree_root, srch_root, 2)		\
	F(btree_root, log_merge, 2)
#define lock_invalidate_FIELDS(F, S, A)		\
	F(key, key, 0)				\
	F(lock_mode, old_mode, 0)		\
	F(lock_mode, new_mode, 0)
#define lock_invalidate_reply_FIELDS(F, S, A)	\
	F(key, key, 0)				\
	F(lock_mode, old_mode, 0)		\
	F(lock_mode, new_mode, 0)
/* Locks held from key on, in order; none ends the recovery. */
#define LOCK_RECOVER_MAX	255
#define lock_recover_FIELDS(F, S, A)		\
	F(key, key, 0)
#define lock_recover_reply_FIELDS(F, S, A)	\
	A(lock_held, locks, LOCK_RECOVER_MAX, 0)
#define lock_held_FIELDS(F, S, A)		\
	F(key, key, 0)				\
	F(lock_mode, mode, 0)			\
	F(u64, write_seq, 0)

/*
 * Which inodes of a group are in use: by any mount, and by the one that is asked.  With `has_directories` the one who asks
 * wants to delete some that are directories, of which a kernel may know names.
 */
#define open_ino_map_FIELDS(F, S, A)		\
	F(u64, group, 0)			\
	F(flag, has_directories, 2)
#define open_ino_map_reply_FIELDS(F, S, A)	\
	F(ino_bits, bits, 0)
#define open_ino_map_query_FIELDS(F, S, A)	\
	F(u64, group, 0)			\
	F(flag, has_directories, 2)
#define open_ino_map_query_reply_FIELDS(F, S, A) \
	F(ino_bits, bits, 0)

/* Commit soon; the answer does not wait for it. */
#define sync_log_trees_FIELDS(F, S, A)
#define sync_log_trees_reply_FIELDS(F, S, A)

/* Blocks: metadata of 64 KiB, data of 4 KiB. */
#define statfs_FIELDS(F, S, A)
#define statfs_reply_FIELDS(F, S, A)		\
	F(u64, fsid, 0)				\
	F(u64, total_meta, 0)			\
	F(u64, free_meta, 0)			\
	F(u64, total_data, 0)			\
	F(u64, free_data, 0)			\
	F(u64, inode_count, 0)			\
	F(u64, reserved_meta, 0)		\
	F(u64, committed_seq, 0)

#define farewell_FIELDS(F, S, A)
#define farewell_reply_FIELDS(F, S, A)

/*
 * Work of a log merge: the request a mount is given, as it is stored, and what came of it.  Asked again, a
 * mount gets the request that it has.  runtime.md 7.3, 7.4.
 */
#define get_log_merge_FIELDS(F, S, A)
#define get_log_merge_reply_FIELDS(F, S, A)	\
	F(flag, has_work, 0)			\
	F(merge_request, request, 0)
#define commit_log_merge_FIELDS(F, S, A)	\
	F(merge_complete, complete, 0)
#define commit_log_merge_reply_FIELDS(F, S, A)

/*
 * The mount asks for time to write, counted from when it asked.  design.md D6.  -EAGAIN: the leader's own has
 * run out just now, or others wait for the mount and it cannot write: failing_ms, for how long its devices have
 * refused what it must write before it can give back a lock, 0: they do not; -ENOLINK: the mount was given up.
 */
#define lease_FIELDS(F, S, A)			\
	F(u32, failing_ms, 2)
#define lease_reply_FIELDS(F, S, A)		\
	F(u32, lease_ms, 0)

/*
 * A quorum member's whole state, repeated; the newest wins.  last_heard: milliseconds ago, all ones:
 * never.  heard_state: which state of each it has heard last (a number made of incarnation and number), 0:
 * none.  Who is in a leader's term and has heard a state of it lets it lead for lease_ms, its own, from when
 * that was said.  design.md D6.
 */
#define quorum_state_FIELDS(F, S, A)		\
	F(u64, fsid, 0)				\
	F(slot, slot, 0)			\
	F(u64, incarnation, 0)			\
	F(u64, number, 0)			\
	F(u64, term, 0)				\
	F(quorum_role, role, 0)			\
	F(slot, voted_for, 0)			\
	F(flag, resigned, 0)			\
	F(slot_values, last_heard, 0)		\
	F(slot_values, heard_state, 1)		\
	F(u32, lease_ms, 1)

/* Services of one host; quorumd tells who leads.  design.md D7. */
#define local_hello_FIELDS(F, S, A)		\
	F(local_kind, kind, 0)			\
	F(u64, rid, 0)				\
	F(u32, pid, 0)
/* role LEADER with stop 0: serverd serves term.  It is said only once that is safe.  lease_until_ns: until
 * when the leader of this host may write and give leases, by the host's CLOCK_BOOTTIME. */
#define leader_state_FIELDS(F, S, A)		\
	F(u64, term, 0)				\
	F(quorum_role, role, 0)			\
	F(slot, leader_slot, 0)			\
	F(u32, leader_addr, 0)			\
	F(u16, leader_port, 0)			\
	F(flag, stop, 0)			\
	F(u64, lease_until_ns, 1)
#define server_state_FIELDS(F, S, A)		\
	F(u64, term, 0)				\
	F(server_status, state, 0)

/* What a service says of itself. */
#define STATUS_VALUES_MAX	256
#define STATUS_TEXTS_MAX	32
#define status_request_FIELDS(F, S, A)
#define status_reply_FIELDS(F, S, A)		\
	S(service, 31, 0)			\
	S(version, 63, 0)			\
	F(u32, pid, 0)				\
	S(state, 255, 0)			\
	F(u64, since_ms, 0)			\
	S(waiting_for, 255, 0)			\
	A(stat_value, values, STATUS_VALUES_MAX, 0) \
	A(stat_text, texts, STATUS_TEXTS_MAX, 0)
#define stat_value_FIELDS(F, S, A)		\
	S(name, 47, 0)				\
	F(u64, value, 0)
#define stat_text_FIELDS(F, S, A)		\
	S(name, 47, 0)				\
	S(text, 255, 0)
#define ctl_command_FIELDS(F, S, A)		\
	S(verb, 31, 0)				\
	S(arg, 255, 0)
#define ctl_reply_FIELDS(F, S, A)		\
	F(u32, code, 0)				\
	S(text, 1023, 0)

/*
 * What the leader's quorumd knows of the members of the quorum, itself too.  said_ms: how long ago it said what
 * stands here, all ones: never; resigned, role, term, voted_for are the member's own words.
 */
#define QUORUM_MEMBERS_MAX	15
#define quorum_members_FIELDS(F, S, A)		\
	A(quorum_member, members, QUORUM_MEMBERS_MAX, 0)
#define quorum_member_FIELDS(F, S, A)		\
	F(slot, slot, 0)			\
	F(u32, addr, 0)				\
	F(u16, port, 0)				\
	F(quorum_role, role, 0)			\
	F(u64, term, 0)				\
	F(slot, voted_for, 0)			\
	F(flag, resigned, 0)			\
	F(u64, said_ms, 0)

/*
 * The state of the cluster as its leader sees it, for `scoutfsctl status --cluster`.  Any mount may ask; the
 * status sockets of serverd and fsd answer the same requests, fsd by asking the leader.  Everything in them is
 * bounded: mounts come in pages, waits are the longest ones.  *_ms are ages, all ones: there is none.
 */
#define cluster_status_FIELDS(F, S, A)
#define cluster_status_reply_FIELDS(F, S, A)	\
	S(version, 63, 0)			\
	F(u64, fsid, 0)				\
	F(u64, fmt_vers, 0)			\
	F(u64, term, 0)				\
	F(u64, leader_rid, 0)			\
	F(slot, leader_slot, 0)			\
	F(u32, votes_needed, 0)			\
	F(u64, leads_ms, 0)			\
	A(quorum_member, members, QUORUM_MEMBERS_MAX, 0) \
	F(u64, mounts, 0)			\
	F(u64, mounts_expected, 0)		\
	F(u64, mounts_fencing, 0)		\
	F(u64, locks_held, 0)			\
	F(u64, locks_waiting, 0)		\
	F(u64, locks_revoking, 0)		\
	F(u64, lock_grants, 0)			\
	F(u64, lock_revokes, 0)			\
	F(u64, log_trees, 0)			\
	F(u64, log_trees_open, 0)		\
	F(u64, log_trees_finished, 0)		\
	F(u64, log_trees_height, 0)		\
	F(flag, merge_is_running, 0)		\
	F(u64, merge_ms, 0)			\
	F(u64, merge_ranges, 0)			\
	F(u64, merge_requests, 0)		\
	F(u64, merge_completes, 0)		\
	F(u64, merge_freeing, 0)		\
	F(u64, merge_failures, 0)		\
	F(u64, merge_kept_by, 0)		\
	F(u64, total_meta, 0)			\
	F(u64, free_meta, 0)			\
	F(u64, reserved_meta, 0)		\
	F(flag, meta_is_low, 0)			\
	F(u64, total_data, 0)			\
	F(u64, free_data, 0)			\
	F(u64, inodes, 0)			\
	F(u64, stable_seq, 0)			\
	F(u64, commits, 0)			\
	F(u64, commit_us, 0)			\
	F(u64, advisory_held, 0)		\
	F(u64, advisory_waiting, 0)

/* Mounts with greater rids, in order; the next page begins after its last.  left: how many follow.
 * since_ms: in this state, under this leader; next_ms: until its deadline (to come back, to be free). */
#define CLUSTER_MOUNTS_MAX	128
#define cluster_mounts_FIELDS(F, S, A)		\
	F(u64, after, 0)
#define cluster_mounts_reply_FIELDS(F, S, A)	\
	A(cluster_mount, mounts, CLUSTER_MOUNTS_MAX, 0) \
	F(u64, left, 0)
#define cluster_mount_FIELDS(F, S, A)		\
	F(u64, rid, 0)				\
	F(u32, addr, 0)				\
	F(flag, is_quorum, 0)			\
	F(flag, is_connected, 0)		\
	F(flag, is_well, 0)			\
	S(state, 63, 0)				\
	F(u64, since_ms, 0)			\
	F(u64, lease_ms, 0)			\
	F(u64, next_ms, 0)			\
	S(reason, 127, 0)

/* Requests for locks that wait, the longest first.  holder: the first of `holders` mounts that were asked
 * to give the lock back, 0: none; ahead: requests of others that come first. */
#define CLUSTER_WAITS_MAX	256
#define cluster_waits_FIELDS(F, S, A)
#define cluster_waits_reply_FIELDS(F, S, A)	\
	A(cluster_wait, waits, CLUSTER_WAITS_MAX, 0) \
	F(u64, left, 0)				\
	F(flag, is_recovering, 0)
#define cluster_wait_FIELDS(F, S, A)		\
	F(key, key, 0)				\
	F(u64, rid, 0)				\
	F(lock_mode, mode, 0)			\
	F(u64, since_ms, 0)			\
	F(u64, ahead, 0)			\
	F(u64, holder, 0)			\
	F(lock_mode, holder_mode, 0)		\
	F(u64, holders, 0)			\
	F(u64, asked_ms, 0)

/*
 * Advisory locks, flock(2) and fcntl(2).  first and last are both inside; owner is the kernel's number of who
 * locks, pid its process, which is only handed back.  type UNLOCK gives back.  With wait the answer comes
 * when the lock can be had, or adv_cancel has named it by its number: the mount's own, never the same twice.
 */
#define adv_lock_FIELDS(F, S, A)		\
	F(u64, number, 0)			\
	F(flag, wait, 0)			\
	F(adv_kind, kind, 0)			\
	F(adv_type, type, 0)			\
	F(u64, ino, 0)				\
	F(u64, owner, 0)			\
	F(u64, first, 0)			\
	F(u64, last, 0)				\
	F(u32, pid, 0)
#define adv_lock_reply_FIELDS(F, S, A)		\
	F(adv_status, status, 0)
#define adv_cancel_FIELDS(F, S, A)		\
	F(u64, number, 0)
#define adv_cancel_reply_FIELDS(F, S, A)

/* Which lock of another owner is in the way of this one?  type UNLOCK: none; rid: the mount that has it. */
#define adv_test_FIELDS(F, S, A)		\
	F(adv_kind, kind, 0)			\
	F(adv_type, type, 0)			\
	F(u64, ino, 0)				\
	F(u64, owner, 0)			\
	F(u64, first, 0)			\
	F(u64, last, 0)
#define adv_test_reply_FIELDS(F, S, A)		\
	F(adv_type, type, 0)			\
	F(u64, first, 0)			\
	F(u64, last, 0)				\
	F(u64, rid, 0)				\
	F(u32, pid, 0)

/*
 * What the mount's programs hold, in order of ino, kind, owner, first: all, or what comes after byte `after` of
 * what that owner has in that file.  The answer repeats the round.
 */
#define ADV_RECOVER_MAX		255
#define adv_recover_FIELDS(F, S, A)		\
	F(u64, round, 0)			\
	F(flag, from_start, 0)			\
	F(u64, ino, 0)				\
	F(adv_kind, kind, 0)			\
	F(u64, owner, 0)			\
	F(u64, after, 0)
#define adv_recover_reply_FIELDS(F, S, A)	\
	F(u64, round, 0)			\
	F(flag, is_last, 0)			\
	A(adv_held, locks, ADV_RECOVER_MAX, 0)
#define adv_held_FIELDS(F, S, A)		\
	F(u64, ino, 0)				\
	F(adv_kind, kind, 0)			\
	F(adv_type, type, 0)			\
	F(u64, owner, 0)			\
	F(u64, first, 0)			\
	F(u64, last, 0)				\
	F(u32, pid, 0)

#endif
