/*
 * A session's memory.
 *
 * Two lists in the order of seq, one of requests and one of responses, because the former may stay
 * for hours (a lock that is waited for) and the latter go with each acknowledgement: neither walk
 * is ever longer than what it removes.  `unsent` of each list is a position: everything from it on
 * has not been sent on the present socket.  Requests are found by id, since answers come in any
 * order.
 */
#include "session.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/planted.h"
#define BUCKETS_FIRST 64u

void id_map_fini(struct id_map *m)
{
	free(m->buckets);
	*m = (struct id_map){ 0 };
}

static struct id_link **bucket_of(const struct id_map *m, uint64_t id)
{
	return &m->buckets[(id * 0x9e3779b97f4a7c15ull >> 32) & (m->buckets_nr - 1)];
}

int id_map_reserve(struct id_map *m)
{
	struct id_map bigger = { .buckets_nr = m->buckets_nr ? m->buckets_nr * 2 : BUCKETS_FIRST };

	if (m->nr < m->buckets_nr)
		return 0;
	bigger.buckets = calloc(bigger.buckets_nr, sizeof(bigger.buckets[0]));
	if (!bigger.buckets)
		return m->buckets_nr ? 0 : -ENOMEM;	/* longer chains still work */
	for (size_t i = 0; i < m->buckets_nr; i++) {
		struct id_link *l;

		while ((l = m->buckets[i])) {
			m->buckets[i] = l->next;
			id_map_add(&bigger, l);
		}
	}
	free(m->buckets);
	*m = bigger;
	return 0;
}

void id_map_add(struct id_map *m, struct id_link *l)
{
	struct id_link **b = bucket_of(m, l->id);

	l->next = *b;
	*b = l;
	m->nr++;
}

struct id_link *id_map_find(const struct id_map *m, uint64_t id)
{
	struct id_link *l;

	if (!m->buckets_nr)
		return NULL;
	for (l = *bucket_of(m, id); l && l->id != id; l = l->next)
		;
	return l;
}

struct id_link *id_map_remove(struct id_map *m, uint64_t id)
{
	struct id_link **p, *l;

	if (!m->buckets_nr)
		return NULL;
	for (p = bucket_of(m, id); *p && (*p)->id != id; p = &(*p)->next)
		;
	l = *p;
	if (l) {
		*p = l->next;
		m->nr--;
	}
	return l;
}

int session_out_alloc(struct session_out **out, unsigned type, int error, const void *body)
{
	size_t bytes = error ? 0 : msg_struct_bytes(type);
	struct session_out *o;

	if (!msg_type_is_known(type) || (!error && body && msg_check(type, body) < 0))
		return -EINVAL;
	o = calloc(1, sizeof(*o) + bytes);
	if (!o)
		return -ENOMEM;
	o->hdr.type = (uint16_t)type;
	o->hdr.error = error;
	if (body && bytes)
		memcpy(o->body, body, bytes);
	*out = o;
	return 0;
}

void session_out_free(struct session_out *o)
{
	free(o);
}

static void list_add(struct session_list *l, struct session_out *o)
{
	o->next = NULL;
	o->prev = l->last;
	if (l->last)
		l->last->next = o;
	else
		l->first = o;
	l->last = o;
	if (!l->unsent)
		l->unsent = o;
	l->nr++;
}

static void list_remove(struct session_list *l, struct session_out *o)
{
	if (l->unsent == o)
		l->unsent = o->next;
	if (o->prev)
		o->prev->next = o->next;
	else
		l->first = o->next;
	if (o->next)
		o->next->prev = o->prev;
	else
		l->last = o->prev;
	o->next = o->prev = NULL;
	l->nr--;
}

static void list_free(struct session_list *l)
{
	struct session_out *o;

	while ((o = l->first)) {
		list_remove(l, o);
		session_out_free(o);
	}
}

void session_init(struct session *s)
{
	*s = (struct session){ 0 };
}

void session_fini(struct session *s)
{
	list_free(&s->requests);
	list_free(&s->responses);
	id_map_fini(&s->ids);
}

int session_add_request(struct session *s, struct session_out *o)
{
	int ret = id_map_reserve(&s->ids);

	if (ret < 0)
		return ret;
	o->hdr.id = o->link.id = ++s->last_id;
	o->hdr.seq = ++s->last_seq;
	id_map_add(&s->ids, &o->link);
	list_add(&s->requests, o);
	return 0;
}

void session_add_response(struct session *s, struct session_out *o, uint64_t id)
{
	o->hdr.id = id;
	o->hdr.flags = MSG_FLAG_RESPONSE;
	o->hdr.seq = ++s->last_seq;
	list_add(&s->responses, o);
}

struct session_out *session_next(const struct session *s)
{
	struct session_out *a = s->requests.unsent, *b = s->responses.unsent;

	if (!a || !b)
		return a ? a : b;
	return a->hdr.seq < b->hdr.seq ? a : b;
}

void session_sent(struct session *s, struct session_out *o)
{
	struct session_list *l = s->requests.unsent == o ? &s->requests : &s->responses;

	assert(l->unsent == o);
	l->unsent = o->next;
	o->is_again = true;
}

void session_rewind(struct session *s)
{
	s->requests.unsent = s->requests.first;
	if (!PLANTED(session_answers_once))
		s->responses.unsent = s->responses.first;
	s->sent_nr = s->received_nr = 0;
}

void session_new_peer(struct session *s)
{
	list_free(&s->responses);
	s->recv_seq = s->acked_seq = 0;
	session_rewind(s);
}

enum session_verdict session_frame(struct session *s, const struct msg_header *hdr)
{
	uint16_t ahead = (uint16_t)(hdr->frame_nr - s->received_nr);
	struct session_out *o;

	if (ahead == 0 || ahead > 0x8000)
		return SESSION_DUPLICATE;
	if (ahead != 1)
		return SESSION_LOST;
	s->received_nr = hdr->frame_nr;
	if (hdr->recv_seq > s->last_seq)
		return SESSION_LIE;
	/* What was not sent on this socket yet may be covered as well: it had arrived by an earlier
	 * one. */
	while ((o = s->responses.first) && o->hdr.seq <= hdr->recv_seq) {
		list_remove(&s->responses, o);
		session_out_free(o);
	}
	return SESSION_NEW;
}

enum session_verdict session_receive(struct session *s, const struct msg_header *hdr)
{
	if (hdr->seq <= s->recv_seq)
		return SESSION_DUPLICATE;
	s->recv_seq = hdr->seq;
	return SESSION_NEW;
}

static struct session_out *take_request(struct session *s, uint64_t id)
{
	struct id_link *l = id_map_remove(&s->ids, id);
	struct session_out *o;

	if (!l)
		return NULL;
	o = (struct session_out *)((char *)l - offsetof(struct session_out, link));
	list_remove(&s->requests, o);
	return o;
}

struct session_out *session_answered(struct session *s, uint64_t id)
{
	return take_request(s, id);
}

struct session_out *session_take_request(struct session *s)
{
	return s->requests.first ? take_request(s, s->requests.first->hdr.id) : NULL;
}
