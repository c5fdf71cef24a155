/*
 * The configuration of one instance: /etc/scoutfs/NAME.conf.  interface.md 4.1, runtime.md 16.1.
 *
 * Lines are `key = value`; a # at the start of a line or after white space begins a comment.  Sizes
 * are bytes with K, M, G or T.  What the file says is checked in full before anything uses it.
 */
#ifndef SCOUTFS_CONF_H
#define SCOUTFS_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONF_DIR		"/etc/scoutfs"
/* What mount.scoutfs has made of options; no instance's runtime directory can have that name. */
#define CONF_MOUNT_DIR		"/run/scoutfs/.mount"
#define CONF_NAME_BYTES		65
#define CONF_PATH_BYTES		1024
#define CONF_ERR_BYTES		512
#define CONF_NO_SLOT		(-1)

enum conf_pointers {
	CONF_POINTERS_OFF,	/* no ioctl's pointers are followed */
	CONF_POINTERS_ROOT,	/* only for uid 0 */
	CONF_POINTERS_ON,
};

/* Self-contained: it may be copied. */
struct instance_conf {
	char name[CONF_NAME_BYTES];
	char meta_device[CONF_PATH_BYTES];
	char data_device[CONF_PATH_BYTES];
	char mountpoint[CONF_PATH_BYTES];
	char runtime_dir[CONF_PATH_BYTES]; /* sockets, rid, cache and pool: gone with the node */
	char state_dir[CONF_PATH_BYTES];	/* what must survive a power cut */
	int quorum_slot;			/* 0..14, or CONF_NO_SLOT */
	uint64_t cache_size;			/* bytes, a multiple of 4096 */
	uint64_t pool_size;			/* bytes, a multiple of 4096 */
	uint64_t server_cache_size;		/* bytes of metadata that a leader keeps, a multiple of 4096 */
	uint32_t commit_interval_ms;
	uint32_t heartbeat_timeout_ms;
	uint32_t orphan_scan_delay_ms;
	uint32_t tcp_keepalive_timeout_ms;
	uint32_t client_timeout_ms;
	uint32_t recovery_timeout_ms;
	uint32_t lease_ms;		/* a leader gives to each mount; longest_io_ms: no write takes longer */
	uint32_t longest_io_ms;
	uint32_t log_merge_wait_timeout_ms;	/* while serving: a barrier lasts that long at most */
	uint32_t log_merge_min_height;		/* a log tree of that height begins a merge */
	uint32_t log_merge_min_trees;		/* so many finished log trees do */
	uint32_t data_prealloc_blocks;
	uint32_t lock_idle_count;
	bool acl;
	bool name_cache;		/* the kernel keeps names; no: it asks for each, as it does before Linux 6.16 */
	bool insecure;			/* without keys, whoever may be on the network */
	char key_file[CONF_PATH_BYTES];	/* keys.h; "": the default place, if there is one */
	char allow_file[CONF_PATH_BYTES];
	char fence_command[CONF_PATH_BYTES];	/* run for each mount that must be dead; "": none */
	enum conf_pointers ioctl_pointers;
};

/* The defaults for an instance of that name; required values are empty.  -EINVAL: not a good name
 * (err says why). */
int conf_init(struct instance_conf *conf, const char *name, char *err, size_t err_size);

/*
 * Read the file of an instance: a path (it has a slash), or a NAME for CONF_DIR/NAME.conf or, where
 * there is none, CONF_MOUNT_DIR/NAME.conf.  The name is the file's, without .conf.  On an error err
 * holds "FILE:LINE: key: reason": -EINVAL for what the file says, else what opening or reading it
 * failed with.
 */
int conf_load(struct instance_conf *conf, const char *path_or_name, char *err, size_t err_size);

/* Set one value from "key=value" of a command line.  -EINVAL: err says "key: reason"; nothing
 * changed. */
int conf_override(struct instance_conf *conf, const char *key_value, char *err, size_t err_size);

/* What conf_load checks at its end: required values and values that depend on each other.  -EINVAL:
 * err says it. */
int conf_check(const struct instance_conf *conf, char *err, size_t err_size);

/*
 * The same for every daemon's main, and first in it, for it occupies standard descriptors that are
 * closed (stdfds.h): "-f FILE|NAME [-o key=value]...".  Returns 0, or an exit status after it has
 * printed why (2) or, with -h or -V, what was asked for (with *done set; 0, or 1: it did not get out).
 */
int conf_from_args(struct instance_conf *conf, int argc, char **argv, bool *done);

/* RUNTIME_DIR/NAME into buf.  conf_check has seen to it that socket names fit into a sun_path. */
void conf_runtime_path(const struct instance_conf *conf, const char *name, char *buf, size_t size);

#endif
