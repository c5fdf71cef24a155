/*
 * The lock server and the open-inode map, against a model of clients that hold what they were granted:
 * any order of messages, servers that die and are recovered from the clients, clients that go.
 * ROUNDS and SEED in the environment make it longer or another run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"
#include "services/serverd/lock_fsm.h"
#include "services/serverd/omap.h"

#define CLIENTS	5
#define KEYS	7

/* What one client believes of one lock. */
struct held {
	uint8_t mode;
	bool pending;		/* a request is out */
	uint8_t wanted;
	uint8_t old;
	uint64_t handle;
	uint64_t write_seq;
};

#define MSGS_MAX	4096

/* Messages on their way; each client gets its own in order, the server takes them in any order. */
struct world {
	struct lockfsm *f;
	uint64_t seq;
	uint64_t last_write_seq[KEYS];
	struct held held[CLIENTS][KEYS];
	bool alive[CLIENTS];
	struct lockfsm_act to_client[CLIENTS][MSGS_MAX];
	unsigned to_client_nr[CLIENTS];
	struct lockfsm_event to_server[MSGS_MAX];
	unsigned to_server_nr;
	uint64_t handles;
	unsigned lied, all_done, grants;
};

static struct key key_of(unsigned k)
{
	return (struct key){ .zone = ZONE_FS, .first = (uint64_t)k * 1024 };
}

static unsigned index_of(const struct key *k)
{
	return (unsigned)(k->first / 1024);
}

static uint64_t next_seq(void *arg)
{
	return ++((struct world *)arg)->seq;
}

static void raise_seq(void *arg, uint64_t seq)
{
	struct world *w = arg;

	if (seq > w->seq)
		w->seq = seq;
}

static void emit(void *arg, const struct lockfsm_act *act)
{
	struct world *w = arg;
	unsigned c = (unsigned)act->rid - 1;

	switch (act->kind) {
	case LOCKFSM_LIED:
		w->lied++;
		return;
	case LOCKFSM_ALL_DONE:
		w->all_done++;
		return;
	case LOCKFSM_RID_DONE:
		return;
	case LOCKFSM_GRANT:
		w->grants++;
		if (act->new_mode == LOCKFSM_WRITE || act->new_mode == LOCKFSM_WRITE_ONLY) {
			assert_true(act->write_seq > w->last_write_seq[index_of(&act->key)]);
			w->last_write_seq[index_of(&act->key)] = act->write_seq;
		}
		/* fall through */
	case LOCKFSM_INVALIDATE:
	case LOCKFSM_ASK:
		assert_true(c < CLIENTS);
		assert_true(w->to_client_nr[c] < MSGS_MAX);
		w->to_client[c][w->to_client_nr[c]++] = *act;
	}
}

static struct lockfsm_ops ops_of(struct world *w)
{
	return (struct lockfsm_ops){ w, emit, next_seq, raise_seq };
}

static void send(struct world *w, struct lockfsm_event ev)
{
	assert_true(w->to_server_nr < MSGS_MAX);
	w->to_server[w->to_server_nr++] = ev;
}

static void step(struct world *w, struct lockfsm_event ev)
{
	assert_int_equal(lockfsm_step(w->f, &ev), 0);
	lockfsm_check(w->f);
}

/* No two clients believe in modes that exclude each other: the promise itself. */
static void check_beliefs(const struct world *w)
{
	for (unsigned k = 0; k < KEYS; k++) {
		for (unsigned a = 0; a < CLIENTS; a++) {
			for (unsigned b = 0; b < a; b++) {
				uint8_t x = w->held[a][k].mode, y = w->held[b][k].mode;

				if (!w->alive[a] || !w->alive[b] || !x || !y)
					continue;
				assert_int_equal(x, y);
				assert_int_not_equal(x, LOCKFSM_WRITE);
			}
		}
	}
}

static void client_ask_lock(struct world *w, unsigned c, unsigned k, uint8_t mode)
{
	struct held *h = &w->held[c][k];

	if (h->pending || h->mode == mode || (h->mode == LOCKFSM_WRITE && mode == LOCKFSM_READ))
		return;
	h->pending = true;
	h->wanted = mode;
	h->old = h->mode;
	h->handle = ++w->handles;
	send(w, (struct lockfsm_event){ .kind = LOCKFSM_REQUEST, .rid = c + 1, .key = key_of(k),
					.handle = h->handle, .old_mode = h->old, .new_mode = mode });
}

static void client_report(struct world *w, unsigned c, const struct key *from)
{
	struct lockfsm_held *list = calloc(KEYS, sizeof(*list));
	size_t nr = 0, max = 1 + rnd(3);

	for (unsigned k = 0; k < KEYS && nr < max; k++) {
		struct held *h = &w->held[c][k];
		struct key key = key_of(k);

		if (h->mode && key_cmp(&key, from) >= 0)
			list[nr++] = (struct lockfsm_held){ key, h->mode, h->write_seq };
	}
	send(w, (struct lockfsm_event){ .kind = LOCKFSM_RECOVERED, .rid = c + 1, .held = list,
					.held_nr = nr });
}

static void client_take(struct world *w, unsigned c)
{
	struct lockfsm_act act = w->to_client[c][0];
	struct held *h = &w->held[c][index_of(&act.key)];

	memmove(&w->to_client[c][0], &w->to_client[c][1],
		--w->to_client_nr[c] * sizeof(w->to_client[c][0]));
	switch (act.kind) {
	case LOCKFSM_GRANT:
		if (!h->pending || h->handle != act.handle)
			return;		/* answered by an earlier server as well */
		h->pending = false;
		h->mode = act.new_mode;
		if (act.write_seq)
			h->write_seq = act.write_seq;
		check_beliefs(w);
		return;
	case LOCKFSM_INVALIDATE:
		if (h->mode == act.old_mode)
			h->mode = act.new_mode;
		send(w, (struct lockfsm_event){ .kind = LOCKFSM_INVALIDATED, .rid = c + 1,
						.key = act.key, .old_mode = act.old_mode,
						.new_mode = act.new_mode });
		return;
	case LOCKFSM_ASK:
		client_report(w, c, &act.key);
		return;
	default:
		fail();
	}
}

static void server_take(struct world *w, unsigned at)
{
	struct lockfsm_event ev = w->to_server[at];

	w->to_server[at] = w->to_server[--w->to_server_nr];
	step(w, ev);
	if (rnd(20) == 0 && ev.kind == LOCKFSM_REQUEST &&
	    w->held[ev.rid - 1][index_of(&ev.key)].handle == ev.handle &&
	    w->held[ev.rid - 1][index_of(&ev.key)].pending && lockfsm_is_gated(w->f))
		step(w, ev);		/* the same request again */
	free((void *)ev.held);
}

static void drop_messages(struct world *w)
{
	for (unsigned i = 0; i < w->to_server_nr; i++)
		free((void *)w->to_server[i].held);
	w->to_server_nr = 0;
	memset(w->to_client_nr, 0, sizeof(w->to_client_nr));
}

/* What a server that asks everybody alive can know of the write grants there were. */
static void forget_grants_of_nobody(struct world *w)
{
	memset(w->last_write_seq, 0, sizeof(w->last_write_seq));
	for (unsigned c = 0; c < CLIENTS; c++) {
		for (unsigned k = 0; k < KEYS; k++) {
			if (w->alive[c] && w->held[c][k].mode &&
			    w->held[c][k].write_seq > w->last_write_seq[k])
				w->last_write_seq[k] = w->held[c][k].write_seq;
		}
	}
}

/* The server dies with its memory; the next one asks everybody. */
static void server_dies(struct world *w)
{
	struct lockfsm_ops ops = ops_of(w);
	struct lockfsm_event late[16];
	unsigned late_nr = 0;

	/* Answers meant for the dead server may reach the new one. */
	for (unsigned i = 0; i < w->to_server_nr && late_nr < 16; i++) {
		if (w->to_server[i].kind == LOCKFSM_INVALIDATED)
			late[late_nr++] = w->to_server[i];
	}
	drop_messages(w);
	lockfsm_close(w->f);
	/* Grants are not in the super: the new server learns of those that are held, in recovery. */
	w->seq = 0;
	forget_grants_of_nobody(w);
	assert_int_equal(lockfsm_open(&w->f, &ops), 0);
	for (unsigned c = 0; c < CLIENTS; c++) {
		if (w->alive[c])
			step(w, (struct lockfsm_event){ .kind = LOCKFSM_EXPECT, .rid = c + 1 });
	}
	for (unsigned i = 0; i < late_nr; i++)
		step(w, late[i]);
	for (unsigned c = 0; c < CLIENTS; c++) {
		if (!w->alive[c])
			continue;
		step(w, (struct lockfsm_event){ .kind = LOCKFSM_GREETED, .rid = c + 1 });
		for (unsigned k = 0; k < KEYS; k++) {
			struct held *h = &w->held[c][k];

			if (h->pending)
				send(w, (struct lockfsm_event){
					.kind = LOCKFSM_REQUEST, .rid = c + 1, .key = key_of(k),
					.handle = h->handle, .old_mode = h->old,
					.new_mode = h->wanted });
		}
	}
}

static void client_dies(struct world *w, unsigned c)
{
	unsigned out = 0;

	w->alive[c] = false;
	memset(w->held[c], 0, sizeof(w->held[c]));
	w->to_client_nr[c] = 0;
	if (lockfsm_is_gated(w->f))
		forget_grants_of_nobody(w);
	for (unsigned i = 0; i < w->to_server_nr; i++) {
		if (w->to_server[i].rid == c + 1)
			free((void *)w->to_server[i].held);
		else
			w->to_server[out++] = w->to_server[i];
	}
	w->to_server_nr = out;
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_GONE, .rid = c + 1 });
	w->to_client_nr[c] = 0;
}

static void run(uint64_t seed, unsigned steps)
{
	struct world *w = calloc(1, sizeof(*w));
	struct lockfsm_ops ops = ops_of(w);

	rng = seed * 2654435761u + 1;
	assert_int_equal(lockfsm_open(&w->f, &ops), 0);
	memset(w->alive, 1, sizeof(w->alive));
	for (unsigned i = 0; i < steps; i++) {
		unsigned c = rnd(CLIENTS);

		switch (rnd(200)) {
		case 0:
			server_dies(w);
			break;
		case 1:
			if (w->alive[c])
				client_dies(w, c);
			break;
		case 2:
			w->alive[c] = true;
			break;
		default:
			if (w->to_server_nr && rnd(2))
				server_take(w, rnd(w->to_server_nr));
			else if (w->alive[c] && w->to_client_nr[c] && rnd(3))
				client_take(w, c);
			else if (w->alive[c])
				client_ask_lock(w, c, rnd(KEYS), (uint8_t)rnd(4));
		}
		check_beliefs(w);
	}
	/* Left alone it comes to rest with every request answered. */
	for (bool busy = true; busy;) {
		busy = false;
		while (w->to_server_nr) {
			server_take(w, rnd(w->to_server_nr));
			busy = true;
		}
		for (unsigned c = 0; c < CLIENTS; c++) {
			while (w->to_client_nr[c]) {
				client_take(w, c);
				busy = true;
			}
		}
	}
	for (unsigned c = 0; c < CLIENTS; c++) {
		for (unsigned k = 0; k < KEYS; k++) {
			struct key key = key_of(k);

			assert_false(w->held[c][k].pending);
			/* What the server believes is what the client holds. */
			assert_int_equal(lockfsm_mode_of(w->f, c + 1, &key), w->held[c][k].mode);
		}
	}
	assert_int_equal(w->lied, 0);
	assert_true(w->grants > 0);
	drop_messages(w);
	lockfsm_close(w->f);
	free(w);
}

static void any_order_of_messages_grants_no_conflict_and_comes_to_rest(void **state)
{
	uint64_t rounds = env("ROUNDS", 150), seed = env("SEED", 1);

	(void)state;
	for (uint64_t i = 0; i < rounds; i++) {
		print_message("seed %llu\n", (unsigned long long)(seed + i));
		run(seed + i, 1500);
	}
}

static struct world *small(void)
{
	struct world *w = calloc(1, sizeof(*w));
	struct lockfsm_ops ops = ops_of(w);

	assert_int_equal(lockfsm_open(&w->f, &ops), 0);
	return w;
}

static void small_free(struct world *w)
{
	lockfsm_close(w->f);
	free(w);
}

static void request(struct world *w, uint64_t rid, uint64_t handle, uint8_t mode)
{
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_REQUEST, .rid = rid, .key = key_of(0),
					.handle = handle, .new_mode = mode });
}

static void a_stream_of_readers_does_not_starve_a_writer(void **state)
{
	struct world *w = small();
	struct key key = key_of(0);

	(void)state;
	request(w, 1, 1, LOCKFSM_READ);
	request(w, 2, 2, LOCKFSM_WRITE);
	request(w, 3, 3, LOCKFSM_READ);
	assert_int_equal(w->to_client_nr[2], 0);	/* behind the writer, though READ would agree */
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_INVALIDATED, .rid = 1, .key = key,
					.old_mode = LOCKFSM_READ, .new_mode = LOCKFSM_NULL });
	assert_int_equal(w->to_client[1][0].kind, LOCKFSM_GRANT);
	assert_int_equal(w->to_client[1][0].new_mode, LOCKFSM_WRITE);
	/* ... and the writer keeps reading when a reader comes. */
	assert_int_equal(w->to_client[1][1].kind, LOCKFSM_INVALIDATE);
	assert_int_equal(w->to_client[1][1].new_mode, LOCKFSM_READ);
	small_free(w);
}

static void a_request_for_what_is_held_is_granted_again(void **state)
{
	struct world *w = small();

	(void)state;
	request(w, 1, 1, LOCKFSM_WRITE);
	request(w, 1, 2, LOCKFSM_WRITE);
	assert_int_equal(w->to_client_nr[0], 2);
	assert_int_equal(w->to_client[0][1].kind, LOCKFSM_GRANT);
	assert_int_equal(w->to_client[0][1].handle, 2);
	assert_int_equal(w->to_client[0][1].old_mode, LOCKFSM_WRITE);
	assert_true(w->to_client[0][1].write_seq > w->to_client[0][0].write_seq);
	small_free(w);
}

static void write_only_excludes_reading_even_by_the_same_mount(void **state)
{
	struct world *w = small();

	(void)state;
	request(w, 1, 1, LOCKFSM_WRITE_ONLY);
	request(w, 2, 2, LOCKFSM_WRITE_ONLY);
	assert_int_equal(w->to_client[1][0].kind, LOCKFSM_GRANT);
	request(w, 1, 3, LOCKFSM_READ);
	assert_int_equal(w->to_client[0][1].kind, LOCKFSM_INVALIDATE);
	assert_int_equal(w->to_client[1][1].kind, LOCKFSM_INVALIDATE);
	small_free(w);
}

static void nothing_is_granted_before_everybody_has_reported(void **state)
{
	struct world *w = small();

	(void)state;
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_EXPECT, .rid = 1 });
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_EXPECT, .rid = 2 });
	request(w, 3, 1, LOCKFSM_READ);
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_GREETED, .rid = 1 });
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_RECOVERED, .rid = 1 });
	assert_int_equal(w->to_client_nr[2], 0);
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_GONE, .rid = 2 });
	assert_int_equal(w->all_done, 1);
	assert_int_equal(w->to_client_nr[2], 1);
	small_free(w);
}

static void ask_at(struct world *w, uint64_t now_ns, uint64_t rid, unsigned k, uint64_t handle, uint8_t mode)
{
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_REQUEST, .rid = rid, .key = key_of(k), .handle = handle,
					.new_mode = mode, .now_ns = now_ns });
}

static void who_waits_for_whom_and_since_when_is_known(void **state)
{
	struct world *w = small();
	struct lockfsm_wait waits[4];
	struct key key = key_of(1);

	(void)state;
	assert_int_equal(lockfsm_waits(w->f, waits, 4), 0);
	ask_at(w, 100, 1, 1, 1, LOCKFSM_WRITE);
	ask_at(w, 100, 3, 2, 2, LOCKFSM_READ);
	ask_at(w, 100, 4, 2, 3, LOCKFSM_READ);
	assert_int_equal(lockfsm_waits(w->f, waits, 4), 0);
	ask_at(w, 200, 5, 2, 4, LOCKFSM_WRITE);
	ask_at(w, 300, 2, 1, 5, LOCKFSM_READ);
	ask_at(w, 400, 1, 2, 6, LOCKFSM_READ);
	assert_int_equal(lockfsm_waits(w->f, waits, 4), 3);
	assert_true(waits[0].rid == 5 && waits[0].since_ns == 200 && waits[0].ahead == 0);
	assert_int_equal(waits[0].mode, LOCKFSM_WRITE);
	assert_true(waits[0].holders == 2 && waits[0].holder == 3 && waits[0].asked_ns == 200);
	assert_int_equal(waits[0].holder_mode, LOCKFSM_READ);
	assert_true(waits[1].rid == 2 && key_eq(&waits[1].key, &key) && waits[1].since_ns == 300);
	assert_true(waits[1].holder == 1 && waits[1].holders == 1 && waits[1].asked_ns == 300);
	assert_true(waits[2].rid == 1 && waits[2].ahead == 1);
	/* What does not fit is what waits for the shortest time. */
	assert_int_equal(lockfsm_waits(w->f, waits, 1), 1);
	assert_true(waits[0].rid == 5);
	/* Who got it, and who has gone, wait no more. */
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_INVALIDATED, .rid = 1, .key = key,
					.old_mode = LOCKFSM_WRITE, .new_mode = LOCKFSM_READ });
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_GONE, .rid = 5 });
	assert_int_equal(lockfsm_waits(w->f, waits, 4), 1);
	assert_true(waits[0].rid == 1 && waits[0].ahead == 0 && waits[0].holders == 2);
	small_free(w);
}

static void a_report_that_cannot_be_is_refused(void **state)
{
	struct world *w = small();
	struct lockfsm_held one = { key_of(0), LOCKFSM_WRITE, 5 };
	struct lockfsm_held unordered[2] = { { key_of(2), LOCKFSM_READ, 0 },
					     { key_of(1), LOCKFSM_READ, 0 } };
	struct lockfsm_held no_mode = { key_of(3), 9, 0 };
	struct key key = key_of(0);

	(void)state;
	for (uint64_t rid = 1; rid <= 3; rid++) {
		step(w, (struct lockfsm_event){ .kind = LOCKFSM_EXPECT, .rid = rid });
		step(w, (struct lockfsm_event){ .kind = LOCKFSM_GREETED, .rid = rid });
	}
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_RECOVERED, .rid = 1, .held = &one,
					.held_nr = 1 });
	assert_true(w->seq >= 5);
	assert_int_equal(w->lied, 0);
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_RECOVERED, .rid = 2, .held = &one,
					.held_nr = 1 });
	assert_int_equal(w->lied, 1);
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_RECOVERED, .rid = 2, .held = unordered,
					.held_nr = 2 });
	assert_int_equal(w->lied, 2);
	step(w, (struct lockfsm_event){ .kind = LOCKFSM_RECOVERED, .rid = 3, .held = &no_mode,
					.held_nr = 1 });
	assert_int_equal(w->lied, 3);
	assert_int_equal(lockfsm_mode_of(w->f, 1, &key), LOCKFSM_WRITE);
	assert_int_equal(lockfsm_mode_of(w->f, 2, &key), LOCKFSM_NULL);
	small_free(w);
}

/* --- the open-inode map --- */

struct omap_log {
	struct omap_act acts[64];
	uint8_t bits[OMAP_BYTES];
	unsigned nr;
};

static void omap_emit(void *arg, const struct omap_act *act)
{
	struct omap_log *log = arg;

	log->acts[log->nr++] = *act;
	if (act->kind == OMAP_ANSWER)
		memcpy(log->bits, act->bits, OMAP_BYTES);
}

static void a_map_has_the_bits_of_everybody_else(void **state)
{
	struct omap_log log = { .nr = 0 };
	struct omap_ops ops = { &log, omap_emit };
	uint8_t a[OMAP_BYTES] = { 1 }, b[OMAP_BYTES] = { 4 };
	struct omap *o;

	(void)state;
	assert_int_equal(omap_open(&o, &ops), 0);
	omap_set_gate(o, true);
	for (uint64_t rid = 1; rid <= 4; rid++)
		assert_int_equal(omap_add_member(o, rid), 0);
	assert_int_equal(omap_request(o, 1, 77, 9, true), 0);
	assert_int_equal(log.nr, 0);
	omap_set_gate(o, false);
	assert_int_equal(log.nr, 3);
	assert_int_equal(log.acts[0].kind, OMAP_ASK);
	assert_int_equal(log.acts[0].group, 9);
	assert_true(log.acts[0].has_directories);
	assert_true(omap_response(o, 2, log.acts[0].id, a));
	assert_false(omap_response(o, 2, log.acts[0].id, a));	/* said twice */
	assert_false(omap_response(o, 3, log.acts[0].id + 1, a));	/* another round */
	assert_true(omap_response(o, 3, log.acts[0].id, b));
	assert_int_equal(log.nr, 3);
	omap_drop_rid(o, 4);		/* the last one dies */
	assert_int_equal(log.nr, 4);
	assert_int_equal(log.acts[3].kind, OMAP_ANSWER);
	assert_int_equal(log.acts[3].handle, 77);
	assert_int_equal(log.bits[0], 5);
	assert_int_equal(omap_rounds_nr(o), 0);
	/* Who asks alone has the empty map at once; who asks and dies is answered to nobody. */
	omap_drop_rid(o, 2);
	omap_drop_rid(o, 3);
	assert_int_equal(omap_request(o, 1, 78, 9, false), 0);
	assert_int_equal(log.acts[4].kind, OMAP_ANSWER);
	assert_int_equal(log.bits[0], 0);
	assert_int_equal(omap_add_member(o, 5), 0);
	assert_int_equal(omap_request(o, 1, 79, 9, false), 0);
	omap_drop_rid(o, 1);
	assert_int_equal(omap_rounds_nr(o), 0);
	assert_int_equal(log.nr, 6);
	omap_close(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_order_of_messages_grants_no_conflict_and_comes_to_rest),
		cmocka_unit_test(a_stream_of_readers_does_not_starve_a_writer),
		cmocka_unit_test(a_request_for_what_is_held_is_granted_again),
		cmocka_unit_test(write_only_excludes_reading_even_by_the_same_mount),
		cmocka_unit_test(nothing_is_granted_before_everybody_has_reported),
		cmocka_unit_test(who_waits_for_whom_and_since_when_is_known),
		cmocka_unit_test(a_report_that_cannot_be_is_refused),
		cmocka_unit_test(a_map_has_the_bits_of_everybody_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
