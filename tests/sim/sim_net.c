/*
 * The network: datagrams that get lost, doubled, late and out of order; connections that keep order
 * until they break.
 *
 * A connection is a queue of messages for each direction.  When it breaks, what is in them is lost,
 * and the break itself takes its place in the queue: an end hears of it before anything of the
 * next connection, and what it says before it has heard goes nowhere.
 */
#include "planted.h"
#include "sim_impl.h"

#include <assert.h>
#include <stdlib.h>

struct sim_packet {
	struct sim_packet *next;
	uint64_t at_ns;
	struct sim_buf *buf;		/* NULL: the break */
};

static uint64_t delay(struct sim *s)
{
	const struct sim_faults *f = &s->faults;

	if (f->delay_long_ns && sim_rnd(s, 50) == 0)
		return sim_between(s, f->delay_min_ns, f->delay_long_ns);
	return sim_between(s, f->delay_min_ns, f->delay_max_ns);
}

static void tell(struct sim *s, unsigned from, unsigned to, const void *buf, size_t len)
{
	sim_publish(s, &(struct sim_fact){
		.kind = SIM_FACT_PACKET, .proc = from, .v = { to }, .buf = buf, .len = len });
}

void sim_net_send(struct sim *s, unsigned from, unsigned to, const void *buf, size_t len)
{
	unsigned copies = 1;
	struct sim_buf *b;

	tell(s, from, to, buf, len);
	if (sim_chance(s, s->faults.loss_pm) || sim_link(s, from, to)->is_cut)
		return;
	if (sim_chance(s, s->faults.dup_pm))
		copies = 2;
	b = sim_buf_new(buf, len);
	b->refs = copies;
	while (copies--) {
		struct sim_event *ev = sim_event_new(s, s->now_ns + delay(s));

		ev->kind = SIM_EV_DATAGRAM;
		ev->proc = to;
		ev->from = from;
		ev->buf = b;
	}
}

static void enqueue(struct sim *s, unsigned from, unsigned to, struct sim_buf *buf)
{
	struct sim_link *l = sim_link(s, from, to);
	struct sim_packet *p = sim_alloc(s, sizeof(*p));
	struct sim_event *ev;

	p->at_ns = s->now_ns + sim_between(s, s->faults.delay_min_ns, s->faults.delay_max_ns);
	if (p->at_ns < l->last_ns)
		p->at_ns = l->last_ns;
	l->last_ns = p->at_ns;
	p->buf = buf;
	if (l->last)
		l->last->next = p;
	else
		l->first = p;
	l->last = p;
	ev = sim_event_new(s, p->at_ns);
	ev->kind = SIM_EV_STREAM;
	ev->proc = to;
	ev->from = from;
}

static void drop_all(struct sim_link *l)
{
	for (struct sim_packet *p = l->first; p; p = p->next)
		sim_buf_put(p->buf);
	l->first = l->last = NULL;
	l->last_ns = 0;
}

void sim_net_stream(struct sim *s, unsigned from, unsigned to, const void *buf, size_t len)
{
	struct sim_link *l = sim_link(s, from, to);

	tell(s, from, to, buf, len);
	if (l->is_dead)
		return;
	if (!s->procs[to].is_alive) {
		/* Refused, which the sender hears as a break. */
		l->is_dead = true;
		enqueue(s, to, from, NULL);
		return;
	}
	if (PLANTED(frame_loses_in_order) && sim_rnd(s, 500) == 0)
		return;
	l->is_used = true;
	enqueue(s, from, to, sim_buf_new(buf, len));
}

void sim_net_arrived(struct sim *s, unsigned from, unsigned to)
{
	struct sim_link *l = sim_link(s, from, to);
	struct sim_proc *p = &s->procs[to];

	while (l->first && l->first->at_ns <= s->now_ns && p->is_alive && !sim_proc_is_paused(s, to)) {
		struct sim_packet *pk = l->first;

		if (pk->buf && l->is_cut)
			return;
		l->first = pk->next;
		if (!l->first)
			l->last = NULL;
		if (!pk->buf) {
			sim_link(s, to, from)->is_dead = false;
			if (p->ops->broken)
				p->ops->broken(s, p->arg, from);
			continue;
		}
		p->ops->recv(s, p->arg, from, pk->buf->data, pk->buf->len);
		sim_buf_put(pk->buf);
	}
}

void sim_net_cut(struct sim *s, unsigned from, unsigned to, bool is_cut)
{
	struct sim_link *l = sim_link(s, from, to);
	struct sim_event *ev;

	if (l->is_cut == is_cut)
		return;
	l->is_cut = is_cut;
	sim_trace(s, from, "-> %s is %s", s->procs[to].name, is_cut ? "cut" : "mended");
	if (is_cut || !l->first)
		return;
	ev = sim_event_new(s, s->now_ns);
	ev->kind = SIM_EV_STREAM;
	ev->proc = to;
	ev->from = from;
}

void sim_net_break(struct sim *s, unsigned a, unsigned b)
{
	struct sim_link *ab = sim_link(s, a, b), *ba = sim_link(s, b, a);

	drop_all(ab);
	drop_all(ba);
	/* The word of an earlier break was dropped too. */
	if (!ab->is_used && !ba->is_used && !ab->is_dead && !ba->is_dead)
		return;
	sim_trace(s, a, "connection with %s breaks", s->procs[b].name);
	ab->is_used = ba->is_used = false;
	/* Each end speaks into the void until it has heard. */
	ab->is_dead = s->procs[a].is_alive;
	ba->is_dead = s->procs[b].is_alive;
	if (ba->is_dead)
		enqueue(s, a, b, NULL);
	if (ab->is_dead)
		enqueue(s, b, a, NULL);
}

void sim_net_died(struct sim *s, unsigned proc)
{
	for (unsigned i = 0; i < s->procs_nr; i++) {
		if (i == proc)
			continue;
		sim_net_break(s, proc, i);
	}
}

void sim_net_mend_all(struct sim *s)
{
	for (unsigned a = 0; a < s->procs_nr; a++) {
		for (unsigned b = 0; b < s->procs_nr; b++)
			sim_net_cut(s, a, b, false);
	}
}

void sim_net_free(struct sim *s)
{
	for (unsigned i = 0; i < SIM_PROCS_MAX * SIM_PROCS_MAX; i++)
		drop_all(&s->links[i]);
}
