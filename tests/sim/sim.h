/*
 * The simulator's frame: virtual time, processes, a network and devices that fail, everything from
 * one seed.  README.md says how a machine is put into it.
 *
 * A world is one `struct sim`.  Its driver (drive_NAME.c) makes processes and devices, feeds the pure
 * machines with events and performs their actions as the daemon's main.c would.  Checkers
 * (check_NAME.c) are told only *facts*: packets on the wire, blocks that land on a device, and what
 * a driver publishes because somebody outside could see it.  They never look into a driver.
 *
 * Everything a world allocates with sim_alloc() goes with it.  No function here returns an error:
 * what must not happen ends the world with sim_fail(), which does not return.
 */
#ifndef SCOUTFS_SIM_H
#define SCOUTFS_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_US		1000ull
#define SIM_MS		1000000ull
#define SIM_SEC		1000000000ull
#define SIM_NEVER	UINT64_MAX
#define SIM_PROCS_MAX	64u
#define SIM_START_NS	(1000 * SIM_SEC)	/* virtual time of a new world */

struct sim;

/* --- the world --------------------------------------------------------------------------------- */

/* A machine's worlds: run() makes one from s's seed, runs it to its end and checks it. */
struct sim_machine {
	const char *name;
	unsigned share;			/* of the seeds of a run over all machines */
	void (*run)(struct sim *s);
};

/* Memory of the world, zeroed; never fails, freed with the world. */
void *sim_alloc(struct sim *s, size_t size);
/* The world is wrong: say why, with seed and time, and end it. */
void sim_fail(struct sim *s, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
/* A line of the trace, printed when the run is traced; proc may be SIM_PROCS_MAX: nobody's. */
void sim_trace(struct sim *s, unsigned proc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Whether lines are printed: for what is dear to make. */
bool sim_is_traced(const struct sim *s);

#define SIM_CHECK(s, cond, ...) do {	\
	if (!(cond))			\
		sim_fail(s, __VA_ARGS__);	\
} while (0)

/* True time.  Machines are given sim_clock() instead. */
uint64_t sim_now(const struct sim *s);
/* Let events happen up to and including that time. */
void sim_run_until(struct sim *s, uint64_t at_ns);

/* Random numbers of the world: 0..n-1; lo..hi; true in per_mille of 1000 cases. */
uint64_t sim_rnd(struct sim *s, uint64_t n);
uint64_t sim_between(struct sim *s, uint64_t lo, uint64_t hi);
bool sim_chance(struct sim *s, unsigned per_mille);

/* Something of nobody's (nemesis, a checker's look) at that time; a kill does not cancel it. */
typedef void sim_call_fn(struct sim *s, void *arg, uint64_t value);
void sim_call_at(struct sim *s, uint64_t at_ns, sim_call_fn *fn, void *arg, uint64_t value);

/* --- processes --------------------------------------------------------------------------------- */

struct sim_proc_ops {
	/* It begins, with durable state only.  What it knew before must be forgotten here. */
	void (*start)(struct sim *s, void *arg);
	/* Its timer (sim_timer_set) has come. */
	void (*wake)(struct sim *s, void *arg);
	/* A message; buf lives for the call. */
	void (*recv)(struct sim *s, void *arg, unsigned from, const void *buf, size_t len);
	/* The connection with peer broke: what was under way on it is lost.  May be NULL. */
	void (*broken)(struct sim *s, void *arg, unsigned peer);
	/* It has died, in this instant.  May be NULL. */
	void (*died)(struct sim *s, void *arg);
};

/* A new process, not started; returns its number.  name is kept by reference. */
unsigned sim_proc_new(struct sim *s, const char *name, const struct sim_proc_ops *ops, void *arg);
void sim_proc_start(struct sim *s, unsigned proc);
/*
 * It dies: its timer, messages to it and completions for it are gone; messages it has sent go on.
 * Nothing happens when it is dead.  It may be called from within the process (see sim_crash_point).
 */
void sim_proc_kill(struct sim *s, unsigned proc);
/* Kill it now and start it then. */
void sim_proc_restart(struct sim *s, unsigned proc, uint64_t after_ns);
/* It does not run until then; whatever comes for it meanwhile happens at its end, in order. */
void sim_proc_pause(struct sim *s, unsigned proc, uint64_t for_ns);
bool sim_proc_is_alive(const struct sim *s, unsigned proc);
bool sim_proc_is_paused(const struct sim *s, unsigned proc);
/* Counts its starts: what was asked by an earlier life is known by it. */
uint64_t sim_proc_life(const struct sim *s, unsigned proc);

/* Its own clock, which goes on in pauses and may run at another speed (CLOCK_BOOTTIME). */
uint64_t sim_clock(const struct sim *s, unsigned proc);
/* Speed of its clock in parts per million more or less; sets the offset as well, at random. */
void sim_clock_set_drift(struct sim *s, unsigned proc, int ppm);
/* Have it use the clock of another: they are of one host.  After set_drift. */
void sim_clock_share(struct sim *s, unsigned proc, unsigned with);
/* Call ops->wake at that time of its own clock; replaces the time set before; SIM_NEVER: none. */
void sim_timer_set(struct sim *s, unsigned proc, uint64_t at_clock_ns);
/* Like sim_call_at, after a while, but only if this life of the process lasts; waits while it is
 * paused: a completion. */
void sim_call_proc(struct sim *s, unsigned proc, uint64_t after_ns, sim_call_fn *fn, void *arg,
		   uint64_t value);

/*
 * Between two actions of a process: it may die here.  True: it has, return at once without
 * performing anything more.
 */
bool sim_crash_point(struct sim *s, unsigned proc);

/* --- the network ------------------------------------------------------------------------------- */

/*
 * What can go wrong, drawn by the driver for each world (swarm: not every world has every fault);
 * sim_faults_stop() ends all of it, heals cuts and resumes who is paused.
 */
struct sim_faults {
	unsigned loss_pm, dup_pm;		/* datagrams */
	uint64_t delay_min_ns, delay_max_ns;
	uint64_t delay_long_ns;			/* one in 50 datagrams is that late, 0: none */
	unsigned crash_pm;			/* at a crash point */
	uint64_t restart_min_ns, restart_max_ns;	/* after a crash point, until it starts again */
	unsigned write_error_pm, read_error_pm;
	unsigned stall_pm;			/* of I/O: it takes stall_max_ns at most */
	uint64_t io_min_ns, io_max_ns, stall_max_ns;
};

/* The faults from now on; in place. */
struct sim_faults *sim_faults(struct sim *s);
void sim_faults_stop(struct sim *s);
/* Whether faults have not been stopped yet. */
bool sim_is_faulty(const struct sim *s);

/* A datagram: lost, doubled, late, out of order. */
void sim_net_send(struct sim *s, unsigned from, unsigned to, const void *buf, size_t len);
/*
 * On the connection of the two: in order and whole until sim_net_break() or the death of either;
 * stuck while cut.  To a process that is dead it breaks at once.
 */
void sim_net_stream(struct sim *s, unsigned from, unsigned to, const void *buf, size_t len);
/* One way; datagrams are lost, streams are stuck until it is mended. */
void sim_net_cut(struct sim *s, unsigned from, unsigned to, bool is_cut);
/* Both directions of a connection break; both ends are told (ops->broken). */
void sim_net_break(struct sim *s, unsigned a, unsigned b);

/* --- devices ----------------------------------------------------------------------------------- */

struct sim_disk;

/* nr blocks of zeros. */
struct sim_disk *sim_disk_new(struct sim *s, const char *name, uint64_t nr, size_t block_size);
/* What is on the device now: for reads whose time the driver models itself, and for checkers. */
const void *sim_disk_block(const struct sim_disk *d, uint64_t blkno);
/* Put bytes there without an event: mkfs. */
void sim_disk_format(struct sim_disk *d, uint64_t blkno, const void *buf);

/* Result of an I/O in `value`: 0, or a positive errno. */
/*
 * Write one block for a process: it lands at some time and then the process is told, if that life
 * lasts.  An error may come although it has landed.  If the process dies before, with its host
 * (sim_disk_drop) the write is lost, whole or torn between sectors of 512 bytes; without its host
 * it lands.
 */
void sim_disk_write(struct sim *s, struct sim_disk *d, unsigned proc, uint64_t blkno,
		    const void *buf, sim_call_fn *done, void *arg);
/*
 * Read one block into buf (memory of the world): the bytes are those at some moment between now and
 * the answer.
 */
void sim_disk_read(struct sim *s, struct sim_disk *d, unsigned proc, uint64_t blkno, void *buf,
		   sim_call_fn *done, void *arg);
/* The same on a device that answers with the block as it was before its last change. */
void sim_disk_read_old(struct sim *s, struct sim_disk *d, unsigned proc, uint64_t blkno, void *buf,
		       sim_call_fn *done, void *arg);
/* The host of a process has lost power: its writes under way are lost, have landed, or are torn. */
void sim_disk_drop(struct sim *s, struct sim_disk *d, unsigned proc);
/* All writes under way of a process land now: who waits for them is certain that none comes later. */
void sim_disk_drain(struct sim *s, struct sim_disk *d, unsigned proc);
bool sim_disk_is_busy(const struct sim_disk *d, unsigned proc);
/* No I/O of this process ends before then. */
void sim_disk_stall(struct sim *s, unsigned proc, uint64_t for_ns);
/* How long the slowest I/O may take now. */
uint64_t sim_disk_longest_ns(const struct sim *s);

/* --- checkers ---------------------------------------------------------------------------------- */

enum sim_fact_kind {
	SIM_FACT_PACKET,	/* sent: proc -> v[0], buf */
	SIM_FACT_LANDED,	/* a block of a device changed: proc, v[0] blkno, buf; disk */
	SIM_FACT_STARTED,	/* proc */
	SIM_FACT_DIED,		/* proc */
	SIM_FACT_OWN,		/* from here on each machine's own kinds */
};

/* What somebody outside can see. */
struct sim_fact {
	unsigned kind;
	unsigned proc;
	uint64_t v[4];
	const void *buf;
	size_t len;
	const struct sim_disk *disk;
};

typedef void sim_check_fn(struct sim *s, void *arg, const struct sim_fact *fact);
/* Have every fact of the world told to fn. */
void sim_watch(struct sim *s, sim_check_fn *fn, void *arg);
/* Tell a fact; the frame tells packets, blocks, starts and deaths itself. */
void sim_publish(struct sim *s, const struct sim_fact *fact);

#endif
