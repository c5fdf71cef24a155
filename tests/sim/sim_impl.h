/*
 * What the parts of the frame share: sim.c (time, processes, facts), sim_net.c, sim_disk.c.
 */
#ifndef SCOUTFS_SIM_IMPL_H
#define SCOUTFS_SIM_IMPL_H

#include <setjmp.h>

#include "sim.h"

#define SIM_WATCHERS_MAX	16u
#define SIM_EVENTS_MAX		20000000ull	/* of one world: more is a world that does not end */
#define SIM_WHY_MAX		512u

/* Bytes under way; shared by the copies of a datagram. */
struct sim_buf {
	unsigned refs;
	size_t len;
	uint8_t data[];
};

/* Something that will happen. */
struct sim_event {
	struct sim_event *next_free;
	enum { SIM_EV_CALL, SIM_EV_PROC_CALL, SIM_EV_WAKE, SIM_EV_START, SIM_EV_DATAGRAM,
	       SIM_EV_STREAM } kind;
	unsigned proc, from;
	uint64_t life;			/* PROC_CALL, WAKE */
	sim_call_fn *fn;
	void *arg;
	uint64_t value;
	struct sim_buf *buf;
};

struct sim_heap_entry {
	uint64_t at_ns, order;
	struct sim_event *ev;
};

struct sim_proc {
	const char *name;
	const struct sim_proc_ops *ops;
	void *arg;
	bool is_alive;
	uint64_t life;
	uint64_t paused_until_ns;
	int drift_ppm;
	uint64_t clock_offset_ns;	/* of its clock at SIM_START_NS */
	uint64_t timer_ns;		/* when to wake it, true time; SIM_NEVER */
	uint64_t timer_queued_ns;	/* the earliest event queued for that */
};

/* One direction of a connection: messages in order. */
struct sim_link {
	bool is_cut;
	bool is_dead;			/* broken, and the sender has not been told yet */
	bool is_used;
	uint64_t last_ns;		/* when the newest message arrives */
	struct sim_packet *first, *last;
};

struct sim {
	uint64_t seed, rng, now_ns, order, events, hash;
	bool is_traced, is_faulty;
	jmp_buf *failed;
	char why[SIM_WHY_MAX];
	struct sim_faults faults;
	struct sim_heap_entry *heap;
	size_t heap_nr, heap_size;
	struct sim_event *free_events;
	struct sim_chunk *chunks;
	struct sim_proc procs[SIM_PROCS_MAX];
	unsigned procs_nr;
	uint64_t stall_until_ns[SIM_PROCS_MAX];
	struct sim_link *links;		/* [from * SIM_PROCS_MAX + to] */
	struct {
		sim_check_fn *fn;
		void *arg;
	} watchers[SIM_WATCHERS_MAX];
	unsigned watchers_nr;
};

/* A new world; sim_free() after its run, failed or not. */
struct sim *sim_new(uint64_t seed, bool is_traced, jmp_buf *failed);
void sim_free(struct sim *s);

struct sim_event *sim_event_new(struct sim *s, uint64_t at_ns);
struct sim_buf *sim_buf_new(const void *buf, size_t len);
void sim_buf_put(struct sim_buf *b);

static inline struct sim_link *sim_link(struct sim *s, unsigned from, unsigned to)
{
	return &s->links[from * SIM_PROCS_MAX + to];
}

/* Deliver what has arrived on the connection from -> to. */
void sim_net_arrived(struct sim *s, unsigned from, unsigned to);
/* A process has died: its connections break. */
void sim_net_died(struct sim *s, unsigned proc);
void sim_net_mend_all(struct sim *s);
void sim_net_free(struct sim *s);

#endif
