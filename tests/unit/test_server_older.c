/*
 * A server and mounts of an older version (docs/protocol.md): one that does not know a question is not given up for
 * that, and nobody waits for its answer.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server_world.h"

static struct said *asked(struct world *w, uint64_t rid, unsigned type)
{
	for (unsigned i = 0; i < w->said_nr; i++) {
		struct said *x = &w->said[i];

		if (x->kind == ASKED && x->rid == rid && x->type == type)
			return x;
	}
	return NULL;
}

/* Of before there were advisory locks of the whole cluster: it never asked for one. */
static void a_mount_that_cannot_tell_its_advisory_locks_has_none(void **state)
{
	struct msg_adv_lock lock = { .number = 1, .kind = MSG_ADV_FLOCK, .type = MSG_ADV_WRITE, .ino = 7, .owner = 3,
				     .last = UINT64_MAX, .pid = 4 };
	struct msg_adv_recover_reply none = { .is_last = 1 };
	struct world *w = world_make();
	uint64_t h;

	(void)state;
	assert_int_equal(greet(w, 1, 0, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 0, 0), GREETING_OK);
	stop(w);
	w->said_nr = w->seen = 0;
	start_up(w, 2);
	assert_int_equal(greet(w, 1, 1, 0), GREETING_OK);
	assert_int_equal(greet(w, 2, 1, 0), GREETING_OK);
	tell_no_locks(w, 1);
	tell_no_locks(w, 2);
	WAIT_FOR(w, asked(w, 1, MSG_adv_recover) && asked(w, 2, MSG_adv_recover));
	none.round = asked(w, 2, MSG_adv_recover)->body.adv_recover.round;
	server_on_response(w->s, 2, 0, 0, MSG_adv_recover_reply, &none);
	/* Who can tell is waited for. */
	h = ask(w, 2, MSG_adv_lock, &lock);
	turns(w);
	assert_null(find(w, RESPONDED, 2, h));
	server_on_response(w->s, 1, 0, -EOPNOTSUPP, MSG_adv_recover_reply, NULL);
	WAIT_FOR(w, find(w, RESPONDED, 2, h));
	assert_int_equal(find(w, RESPONDED, 2, h)->body.adv_lock_reply.status, MSG_ADV_GRANTED);
	assert_int_equal(client_find(w->s, 1)->state, CLIENT_UP);
	/* Whatever else keeps it from telling: what its programs believe to have is not known. */
	server_on_response(w->s, 2, 0, -EIO, MSG_adv_recover_reply, NULL);
	assert_true(client_find(w->s, 2)->is_fenced);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_mount_that_cannot_tell_its_advisory_locks_has_none),
	};

	return cmocka_run_group_tests_name("server_older", tests, NULL, NULL);
}
