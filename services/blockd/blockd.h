/* What the files of blockd share.  One thread owns all of it, the engine's helpers excepted. */
#ifndef SCOUTFS_BLOCKD_H
#define SCOUTFS_BLOCKD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "blkring.h"
#include "blockd_stats.h"
#include "lease/lease.h"

struct instance_conf;
struct ctl;
struct blockd;
struct msg_status_reply;

#define BLOCKD_CLIENTS_MAX	64
#define BLOCKD_IOS_MAX		1024		/* in flight, all clients together */
#define BLOCKD_RETRY_MS		30000		/* for a killed predecessor's lock */

/* ---- device.c: the two devices ---- */

struct device {
	const char *name;		/* the configuration's key */
	char *path;
	int fd;
	bool is_bdev;
	bool is_direct;
	uint64_t bytes;			/* what is there */
	uint64_t volume_bytes;		/* what the volume uses; nothing beyond is touched */
	uint64_t flush_errors;		/* every client is told of each once */
};

struct volume {
	struct device dev[BLK_DEVS_NR];
	uint64_t fsid;
	uint64_t meta_blocks;		/* large */
	uint64_t data_blocks;		/* small */
	bool is_shared;			/* a quorum slot has an address that other nodes can reach */
};

/*
 * Open and lock both devices and check their super blocks (format.md 2.3, 5.3).  pid_path names a file
 * with the pid of the last blockd here, asked when the kernel does not say who holds a lock.  On error
 * everything is closed, and a message was logged that names the device, the reason and what to do.
 */
int volume_open(struct volume *v, const char *meta_path, const char *data_path, const char *pid_path);
void volume_close(struct volume *v);

/* ---- limit.c: how long a write may take ---- */

/* The time limit that the kernel has for a block device or what is below it; 0: none is known.  sysfs: "/sys". */
uint64_t limit_of_device_ms(const char *sysfs, unsigned major_nr, unsigned minor_nr);
/* Warn where longest_io_ms is shorter than that. */
void limits_check(const struct volume *v, uint64_t longest_io_ms, const char *sysfs);

/* ---- rundir.c: the runtime directory ---- */

struct pool {
	int fd;
	void *map;
	uint64_t bytes;
	bool is_new;			/* made by this start */
};

/* The directory exists and files can be made in it.  -errno, logged. */
int rundir_check(const char *dir);
/*
 * Open the pool file, making and allocating it when there is none; one of another size is refused, for
 * it may hold data.  -errno, logged; then nothing new is left.
 */
int pool_open(struct pool *p, const char *dir, uint64_t bytes);
/* Unmap and close; `forget` removes the file too (a failed start that made it). */
void pool_close(struct pool *p, const char *dir, bool forget);
/* DIR/name in buf of PATH_MAX bytes.  -ENAMETOOLONG. */
int rundir_path(char *buf, const char *dir, const char *name);
/* Replace DIR/name by text, whole or not at all.  -errno. */
int rundir_replace(const char *dir, const char *name, const char *text, size_t len);

/* ---- token.c: who may write ---- */

#define TOKENS_REVOKED_MAX	1024

struct tokens {
	const char *dir;
	uint64_t fsid;
	_Atomic uint64_t min_term;	/* these two are also read for the status */
	_Atomic size_t revoked_nr;
	struct revoked {
		uint64_t rid;
		bool is_mount;		/* its fsd only */
	} revoked[TOKENS_REVOKED_MAX];
};

/* Load what an earlier blockd of this volume recorded in dir (borrowed).  -errno, logged. */
int tokens_load(struct tokens *t, const char *dir, uint64_t fsid);
/* May this writer write?  0, -ESTALE, -ENOLINK. */
int tokens_check(const struct tokens *t, uint32_t kind, uint64_t rid, uint64_t term);
/* Recorded before they return 0.  -ESTALE: a newer term was set; -ENOSPC; -errno of the record. */
int tokens_set_term(struct tokens *t, uint64_t term);
int tokens_revoke(struct tokens *t, uint64_t rid, bool is_mount);

/* ---- lease.c: until when ---- */

#define LEASE_GRACE_NS	3000000000ull	/* for an fsd to be there again, before its mount is cut off */

/*
 * Load what an earlier blockd was told on this boot of the machine; what cannot be read is told again by its
 * writers.
 */
void leases_load(struct blockd *d);
/* Take what a client says.  -EINVAL: it has no business to; -ERANGE; -ENOSPC. */
int leases_set(struct blockd *d, const struct blk_lease *l, uint32_t kind, uint64_t rid);
/* May this client's write be submitted, and until when (0: for ever)?  0 or -EKEYEXPIRED. */
int leases_check(const struct blockd *d, uint32_t kind, uint64_t rid, uint64_t term, uint64_t *until_ns);
/* A writer has connected, or its last connection is gone. */
void leases_here(struct blockd *d, uint32_t kind, uint64_t rid, bool is_here);
/* Cut off what is due; when to come again, in ms from now; -1: nothing is under way. */
int leases_tick(struct blockd *d);
/* What a status shows; any thread. */
void leases_fill_status(struct blockd *d, struct msg_status_reply *r);

/* ---- ring.c: descriptors ---- */

struct ring_limits {
	uint32_t kind;
	uint64_t region_bytes[BLK_REGIONS_NR];
	uint64_t device_bytes[BLK_DEVS_NR];
};

/* Whether a copied-out descriptor may be acted on: 0; -EINVAL; -EPERM: not this kind's to write. */
int ring_desc_check(const struct blkring_desc *d, const struct ring_limits *lim);

/* ---- engine.c: I/O ---- */

struct io {
	struct io *next;
	void *owner;
	uint64_t tag;
	uint8_t op;			/* enum blk_op */
	uint8_t dev;
	bool is_bdev;
	bool is_durable;		/* a write that ends when it is durable */
	uint8_t part;			/* enum chain_part */
	uint8_t round;			/* a write: see conn_io.c */
	int fd;
	char *buf;
	uint64_t off;
	uint64_t started_ns;
	uint64_t until_ns;		/* not to be submitted after that (clock_boot_ns); 0: for ever */
	uint32_t len;
	uint32_t done;
	int result;
};

struct engine;

/* io_uring, or threads when it is refused or use_threads is set.  -errno, logged. */
int engine_open(struct engine **out, bool use_threads);
/* Nothing may be in flight. */
void engine_close(struct engine *e);
const char *engine_name(const struct engine *e);
/* Two eventfds that are signalled when engine_reap has something and a sleep is bracketed as below. */
void engine_fds(const struct engine *e, int fds[2]);
/* Start an operation; the io is the engine's until engine_reap gives it back. */
void engine_queue(struct engine *e, struct io *io);
/* Tell the kernel of what was queued.  false: it took not all just now, call again soon. */
bool engine_submit(struct engine *e);
/* Ended operations as a list, or NULL.  Cheap when there are none. */
struct io *engine_reap(struct engine *e);
/* Bracket a sleep on the descriptors: between them an end signals one of them. */
void engine_sleep_begin(struct engine *e);
void engine_sleep_end(struct engine *e);

/* ---- chain.c: what is written when all before it has been ---- */

#define LOOK_KNOWN_NS	100000000ull	/* see struct blockd */

enum chain_part {
	CHAIN_NONE,
	CHAIN_BEFORE,			/* the last one waits for it */
	CHAIN_LOOK,			/* the last one, reading what stands at its place */
	CHAIN_LAST,			/* ... being written */
};

/* Of one connection. */
struct chain {
	uint64_t id;			/* 0: none */
	uint32_t taken;			/* operations before the last that were taken */
	uint32_t pending;		/* ... that have not ended */
	int error;			/* the first of theirs */
	struct io *last;		/* has looked, and waits for them */
	bool has_last;			/* it was taken, and has not ended */
	bool has_looked_twice;
	uint64_t looked_ns;
	uint64_t expect_seq;
	uint32_t expect_crc;
	char *buf;			/* of the last */
	void *block;			/* what it sees: SMALL_SIZE bytes, ours */
};

/* What a chain's last operation is to do. */
enum chain_step {
	CHAIN_WAIT,
	CHAIN_FAIL,			/* chain->error */
	CHAIN_LOOK_AGAIN,
	CHAIN_WRITE,
};

/* Nothing is under way. */
void chain_fini(struct chain *ch);
/* A checked descriptor of a chain is taken: 0, and its end is told; -EBUSY; -ENOMEM. */
int chain_take(struct chain *ch, const struct blkring_desc *desc);
/* One before the last has ended. */
void chain_ended(struct chain *ch, int result);
/* Whether what the last has read is what it expects: 0, -EUCLEAN. */
int chain_check_look(const struct chain *ch);
/* What ch->last, which has looked, is to do now; a look is good for look_known_ns. */
enum chain_step chain_next(const struct chain *ch, uint64_t now_ns, uint64_t look_known_ns);
/* The last has ended, or was refused. */
void chain_end(struct chain *ch);

/* ---- conn.c: clients; conn_io.c: their rings ---- */

struct conn;

struct blockd {
	const struct instance_conf *conf;
	struct volume vol;
	struct pool pool;
	struct tokens tokens;
	struct lease_guard leases;
	pthread_mutex_t leases_lock;	/* the loop's changes, and the status that reads */
	struct engine *engine;
	struct ctl *ctl;
	struct blockd_stats stats;
	int epoll_fd;
	int listen_fd;
	int signal_fd;
	atomic_bool is_stopping;
	uint64_t started_ns;		/* clock_mono_ns */
	uint64_t watchdog_ns;		/* 0: nobody watches */
	uint64_t watchdog_due_ns;
	struct conn *conns[BLOCKD_CLIENTS_MAX];
	atomic_uint conns_nr;		/* slots used, the closing ones included */
	unsigned clients_told;		/* what systemd knows, plus one; 0: nothing */
	uint64_t look_known_ns;		/* so long a look at the super block is good for */
	atomic_uint controls_held;	/* connections whose control or hello waits for I/O to end */
	struct io ios[BLOCKD_IOS_MAX];
	struct io *free_ios;
	struct blkring_spin spin[2];	/* for work; for I/O that is under way */
	atomic_uint ios_nr;		/* in flight */
};

/* epoll data: what kind of descriptor in the upper half, which connection in the lower. */
enum watch {
	WATCH_LISTEN,
	WATCH_SIGNAL,
	WATCH_SOCKET,
	WATCH_BELL,			/* the engine's or a connection's */
};
#define WATCH_DATA(watch, index) ((uint64_t)(watch) << 32 | (uint32_t)(index))

/* Doorbells wake once for each ring and are never read; other descriptors stay until served. */
int blockd_watch(struct blockd *d, int fd, enum watch watch, unsigned index);

/* Take waiting connections. */
void conns_accept(struct blockd *d);
/* Something on a connection's socket. */
void conn_socket_event(struct blockd *d, unsigned index);
/* Take descriptors from every ring, a bounded number each.  Whether there were any. */
bool conns_drain(struct blockd *d);
/* Answer ended operations and what waited for them. */
void conns_complete(struct blockd *d, struct io *list);
/* Before a sleep: ask for doorbells.  Whether something is there already. */
bool conns_sleep_begin(struct blockd *d);
void conns_sleep_end(struct blockd *d);
/* Close every connection; those with I/O in flight end with it. */
void conns_close(struct blockd *d);

/* ---- status.c ---- */

/* Answer on the status socket.  Errors as ctl_start; logged. */
int status_start(struct blockd *d);

/* ---- blockd.c ---- */

/* The whole daemon; main() without its name.  Exit status. */
int blockd_main(int argc, char **argv);

#endif
