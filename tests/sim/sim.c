/*
 * Virtual time and processes.
 *
 * One seed decides everything: the only randomness is s->rng, events of one moment happen in the
 * order they were made, and no address, clock or hash order of this machine has a say.  A hash over
 * the events lets the runner prove that (a seed run twice gives one hash).
 *
 * A process that is dead hears nothing; one that is paused hears it all later, in order.  Its clock
 * goes on meanwhile, as CLOCK_BOOTTIME does.
 */
#include "sim_impl.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_SIZE	65536u

struct sim_chunk {
	struct sim_chunk *next;
	size_t used, size;
	_Alignas(16) uint8_t data[];
};

/* --- the world --------------------------------------------------------------------------------- */

static void *must(void *p)
{
	if (!p) {
		fprintf(stderr, "simulator: out of memory\n");
		abort();
	}
	return p;
}

void *sim_alloc(struct sim *s, size_t size)
{
	struct sim_chunk *c = s->chunks;
	void *p;

	size = (size + 15) & ~(size_t)15;
	if (!c || c->size - c->used < size) {
		size_t n = size > CHUNK_SIZE ? size : CHUNK_SIZE;

		c = must(calloc(1, sizeof(*c) + n));
		c->size = n;
		c->next = s->chunks;
		s->chunks = c;
	}
	p = c->data + c->used;
	c->used += size;
	return p;
}

struct sim *sim_new(uint64_t seed, bool is_traced, jmp_buf *failed)
{
	struct sim *s = must(calloc(1, sizeof(*s)));

	s->seed = seed;
	s->rng = seed;
	s->now_ns = SIM_START_NS;
	s->is_traced = is_traced;
	s->is_faulty = true;
	s->failed = failed;
	s->links = must(calloc(SIM_PROCS_MAX * SIM_PROCS_MAX, sizeof(*s->links)));
	s->faults = (struct sim_faults){
		.delay_min_ns = 50 * SIM_US,
		.delay_max_ns = 2 * SIM_MS,
		.restart_min_ns = 100 * SIM_MS,
		.restart_max_ns = 3 * SIM_SEC,
		.io_min_ns = 50 * SIM_US,
		.io_max_ns = 10 * SIM_MS,
	};
	return s;
}

void sim_free(struct sim *s)
{
	struct sim_event *ev;
	struct sim_chunk *c;

	for (size_t i = 0; i < s->heap_nr; i++) {
		sim_buf_put(s->heap[i].ev->buf);
		free(s->heap[i].ev);
	}
	while ((ev = s->free_events)) {
		s->free_events = ev->next_free;
		free(ev);
	}
	sim_net_free(s);
	while ((c = s->chunks)) {
		s->chunks = c->next;
		free(c);
	}
	free(s->heap);
	free(s->links);
	free(s);
}

void sim_fail(struct sim *s, const char *fmt, ...)
{
	int n = snprintf(s->why, sizeof(s->why), "at %.6f s: ",
			 (double)(s->now_ns - SIM_START_NS) / 1e9);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->why + n, sizeof(s->why) - (size_t)n, fmt, ap);
	va_end(ap);
	if (s->is_traced)
		printf("FAILED %s\n", s->why);
	longjmp(*s->failed, 1);
}

bool sim_is_traced(const struct sim *s)
{
	return s->is_traced;
}

void sim_trace(struct sim *s, unsigned proc, const char *fmt, ...)
{
	va_list ap;

	if (!s->is_traced)
		return;
	printf("%12.6f %-10s ", (double)(s->now_ns - SIM_START_NS) / 1e9,
	       proc < s->procs_nr ? s->procs[proc].name : "-");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

uint64_t sim_now(const struct sim *s)
{
	return s->now_ns;
}

/* splitmix64: every seed is a good one. */
static uint64_t next_random(struct sim *s)
{
	uint64_t z = s->rng += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t sim_rnd(struct sim *s, uint64_t n)
{
	assert(n);
	return next_random(s) % n;
}

uint64_t sim_between(struct sim *s, uint64_t lo, uint64_t hi)
{
	return hi <= lo ? lo : lo + sim_rnd(s, hi - lo + 1);
}

bool sim_chance(struct sim *s, unsigned per_mille)
{
	return per_mille && sim_rnd(s, 1000) < per_mille;
}

struct sim_faults *sim_faults(struct sim *s)
{
	return &s->faults;
}

bool sim_is_faulty(const struct sim *s)
{
	return s->is_faulty;
}

void sim_faults_stop(struct sim *s)
{
	struct sim_faults *f = &s->faults;

	sim_trace(s, SIM_PROCS_MAX, "faults stop");
	s->is_faulty = false;
	f->loss_pm = f->dup_pm = f->crash_pm = f->write_error_pm = f->read_error_pm = f->stall_pm = 0;
	f->delay_long_ns = 0;
	f->delay_max_ns = f->delay_min_ns + SIM_MS;
	for (unsigned i = 0; i < s->procs_nr; i++) {
		if (s->procs[i].paused_until_ns > s->now_ns)
			s->procs[i].paused_until_ns = s->now_ns;
		s->stall_until_ns[i] = 0;
	}
	sim_net_mend_all(s);
}

/* --- events ------------------------------------------------------------------------------------ */

static bool is_before(const struct sim_heap_entry *a, const struct sim_heap_entry *b)
{
	return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->order < b->order);
}

static void heap_push(struct sim *s, uint64_t at_ns, struct sim_event *ev)
{
	struct sim_heap_entry e = { at_ns < s->now_ns ? s->now_ns : at_ns, s->order++, ev };
	size_t i = s->heap_nr++;

	if (s->heap_nr > s->heap_size) {
		s->heap_size = s->heap_size ? 2 * s->heap_size : 256;
		s->heap = must(realloc(s->heap, s->heap_size * sizeof(*s->heap)));
	}
	while (i) {
		size_t up = (i - 1) / 2;

		if (!is_before(&e, &s->heap[up]))
			break;
		s->heap[i] = s->heap[up];
		i = up;
	}
	s->heap[i] = e;
}

static struct sim_event *heap_pop(struct sim *s)
{
	struct sim_event *ev = s->heap[0].ev;
	struct sim_heap_entry e = s->heap[--s->heap_nr];
	size_t i = 0;

	for (;;) {
		size_t down = 2 * i + 1;

		if (down >= s->heap_nr)
			break;
		if (down + 1 < s->heap_nr && is_before(&s->heap[down + 1], &s->heap[down]))
			down++;
		if (!is_before(&s->heap[down], &e))
			break;
		s->heap[i] = s->heap[down];
		i = down;
	}
	s->heap[i] = e;
	return ev;
}

struct sim_event *sim_event_new(struct sim *s, uint64_t at_ns)
{
	struct sim_event *ev = s->free_events;

	if (ev)
		s->free_events = ev->next_free;
	else
		ev = must(malloc(sizeof(*ev)));
	memset(ev, 0, sizeof(*ev));
	heap_push(s, at_ns, ev);
	return ev;
}

struct sim_buf *sim_buf_new(const void *buf, size_t len)
{
	struct sim_buf *b = must(malloc(sizeof(*b) + len));

	b->refs = 1;
	b->len = len;
	memcpy(b->data, buf, len);
	return b;
}

void sim_buf_put(struct sim_buf *b)
{
	if (b && --b->refs == 0)
		free(b);
}

void sim_call_at(struct sim *s, uint64_t at_ns, sim_call_fn *fn, void *arg, uint64_t value)
{
	struct sim_event *ev = sim_event_new(s, at_ns);

	ev->kind = SIM_EV_CALL;
	ev->proc = SIM_PROCS_MAX;
	ev->fn = fn;
	ev->arg = arg;
	ev->value = value;
}

void sim_call_proc(struct sim *s, unsigned proc, uint64_t after_ns, sim_call_fn *fn, void *arg,
		   uint64_t value)
{
	struct sim_event *ev = sim_event_new(s, s->now_ns + after_ns);

	ev->kind = SIM_EV_PROC_CALL;
	ev->proc = proc;
	ev->life = s->procs[proc].life;
	ev->fn = fn;
	ev->arg = arg;
	ev->value = value;
}

static void wake(struct sim *s, unsigned proc)
{
	struct sim_proc *p = &s->procs[proc];

	p->timer_queued_ns = SIM_NEVER;
	if (p->timer_ns == SIM_NEVER)
		return;
	if (p->timer_ns > s->now_ns) {
		/* It was moved on since: one event more, instead of one for each move. */
		uint64_t at = p->timer_ns;
		struct sim_event *ev = sim_event_new(s, at);

		ev->kind = SIM_EV_WAKE;
		ev->proc = proc;
		ev->life = p->life;
		p->timer_queued_ns = at;
		return;
	}
	p->timer_ns = SIM_NEVER;
	p->ops->wake(s, p->arg);
}

static void start(struct sim *s, unsigned proc)
{
	struct sim_proc *p = &s->procs[proc];

	if (p->is_alive)
		return;
	p->is_alive = true;
	p->life++;
	p->paused_until_ns = 0;
	p->timer_ns = p->timer_queued_ns = SIM_NEVER;
	sim_trace(s, proc, "starts");
	sim_publish(s, &(struct sim_fact){ .kind = SIM_FACT_STARTED, .proc = proc });
	p->ops->start(s, p->arg);
}

static void happen(struct sim *s, struct sim_event *ev)
{
	struct sim_proc *p = &s->procs[ev->proc];

	switch (ev->kind) {
	case SIM_EV_CALL:
		ev->fn(s, ev->arg, ev->value);
		return;
	case SIM_EV_PROC_CALL:
		if (p->is_alive && p->life == ev->life)
			ev->fn(s, ev->arg, ev->value);
		return;
	case SIM_EV_WAKE:
		if (p->is_alive && p->life == ev->life)
			wake(s, ev->proc);
		return;
	case SIM_EV_START:
		/* It has been started since, sooner. */
		if (p->life == ev->life)
			start(s, ev->proc);
		return;
	case SIM_EV_DATAGRAM:
		if (p->is_alive)
			p->ops->recv(s, p->arg, ev->from, ev->buf->data, ev->buf->len);
		return;
	case SIM_EV_STREAM:
		sim_net_arrived(s, ev->from, ev->proc);
		return;
	}
}

void sim_run_until(struct sim *s, uint64_t at_ns)
{
	while (s->heap_nr && s->heap[0].at_ns <= at_ns) {
		struct sim_event *ev;

		s->now_ns = s->heap[0].at_ns;
		ev = heap_pop(s);
		if (++s->events > SIM_EVENTS_MAX)
			sim_fail(s, "the world does not end: %llu events", SIM_EVENTS_MAX);
		if (ev->proc < SIM_PROCS_MAX && sim_proc_is_paused(s, ev->proc)) {
			heap_push(s, s->procs[ev->proc].paused_until_ns, ev);
			continue;
		}
		s->hash = (s->hash ^ s->now_ns ^ (uint64_t)ev->kind << 56 ^ (uint64_t)ev->proc << 48) *
			  0x100000001b3ull;
		happen(s, ev);
		sim_buf_put(ev->buf);
		ev->next_free = s->free_events;
		s->free_events = ev;
	}
	s->now_ns = at_ns;
}

/* --- processes --------------------------------------------------------------------------------- */

unsigned sim_proc_new(struct sim *s, const char *name, const struct sim_proc_ops *ops, void *arg)
{
	struct sim_proc *p = &s->procs[s->procs_nr];

	assert(s->procs_nr < SIM_PROCS_MAX);
	*p = (struct sim_proc){
		.name = name,
		.ops = ops,
		.arg = arg,
		.timer_ns = SIM_NEVER,
		.timer_queued_ns = SIM_NEVER,
		.clock_offset_ns = SIM_START_NS,
	};
	return s->procs_nr++;
}

void sim_proc_start(struct sim *s, unsigned proc)
{
	start(s, proc);
}

void sim_proc_kill(struct sim *s, unsigned proc)
{
	struct sim_proc *p = &s->procs[proc];

	if (!p->is_alive)
		return;
	p->is_alive = false;
	p->paused_until_ns = 0;
	sim_trace(s, proc, "dies");
	sim_net_died(s, proc);
	sim_publish(s, &(struct sim_fact){ .kind = SIM_FACT_DIED, .proc = proc });
	if (p->ops->died)
		p->ops->died(s, p->arg);
}

void sim_proc_restart(struct sim *s, unsigned proc, uint64_t after_ns)
{
	struct sim_event *ev;

	sim_proc_kill(s, proc);
	ev = sim_event_new(s, s->now_ns + after_ns);
	ev->kind = SIM_EV_START;
	ev->proc = proc;
	ev->life = s->procs[proc].life;
}

void sim_proc_pause(struct sim *s, unsigned proc, uint64_t for_ns)
{
	struct sim_proc *p = &s->procs[proc];

	if (!p->is_alive || p->paused_until_ns > s->now_ns + for_ns)
		return;
	p->paused_until_ns = s->now_ns + for_ns;
	sim_trace(s, proc, "pauses for %.3f s", (double)for_ns / 1e9);
}

bool sim_proc_is_alive(const struct sim *s, unsigned proc)
{
	return s->procs[proc].is_alive;
}

bool sim_proc_is_paused(const struct sim *s, unsigned proc)
{
	return s->procs[proc].is_alive && s->procs[proc].paused_until_ns > s->now_ns;
}

uint64_t sim_proc_life(const struct sim *s, unsigned proc)
{
	return s->procs[proc].life;
}

bool sim_crash_point(struct sim *s, unsigned proc)
{
	if (!s->procs[proc].is_alive)
		return true;
	if (!s->is_faulty || !sim_chance(s, s->faults.crash_pm))
		return false;
	sim_trace(s, proc, "crashes between two actions");
	sim_proc_restart(s, proc,
			 sim_between(s, s->faults.restart_min_ns, s->faults.restart_max_ns));
	return true;
}

/* --- clocks ------------------------------------------------------------------------------------ */

uint64_t sim_clock(const struct sim *s, unsigned proc)
{
	const struct sim_proc *p = &s->procs[proc];
	int64_t since = (int64_t)(s->now_ns - SIM_START_NS);

	return p->clock_offset_ns + (uint64_t)(since + since / 1000000 * p->drift_ppm +
					       since % 1000000 * p->drift_ppm / 1000000);
}

void sim_clock_set_drift(struct sim *s, unsigned proc, int ppm)
{
	s->procs[proc].drift_ppm = ppm;
	s->procs[proc].clock_offset_ns = SIM_START_NS + sim_rnd(s, 1000 * SIM_SEC);
}

void sim_clock_share(struct sim *s, unsigned proc, unsigned with)
{
	s->procs[proc].drift_ppm = s->procs[with].drift_ppm;
	s->procs[proc].clock_offset_ns = s->procs[with].clock_offset_ns;
}

void sim_timer_set(struct sim *s, unsigned proc, uint64_t at_clock_ns)
{
	struct sim_proc *p = &s->procs[proc];
	uint64_t clock = sim_clock(s, proc), left;
	struct sim_event *ev;

	if (at_clock_ns == SIM_NEVER) {
		p->timer_ns = SIM_NEVER;
		return;
	}
	left = at_clock_ns <= clock ? 0 : at_clock_ns - clock;
	if (p->drift_ppm && left) {
		/* At least a nanosecond on, so that a clock that is slow does not spin. */
		left = (uint64_t)((double)left / (1.0 + p->drift_ppm / 1e6)) + 1;
	}
	if (left > SIM_NEVER / 4)
		left = SIM_NEVER / 4;
	p->timer_ns = s->now_ns + left;
	if (p->timer_queued_ns <= p->timer_ns)
		return;
	ev = sim_event_new(s, p->timer_ns);
	ev->kind = SIM_EV_WAKE;
	ev->proc = proc;
	ev->life = p->life;
	p->timer_queued_ns = p->timer_ns;
}

/* --- facts ------------------------------------------------------------------------------------- */

void sim_watch(struct sim *s, sim_check_fn *fn, void *arg)
{
	assert(s->watchers_nr < SIM_WATCHERS_MAX);
	s->watchers[s->watchers_nr].fn = fn;
	s->watchers[s->watchers_nr++].arg = arg;
}

void sim_publish(struct sim *s, const struct sim_fact *fact)
{
	for (unsigned i = 0; i < s->watchers_nr; i++)
		s->watchers[i].fn(s, s->watchers[i].arg, fact);
}
