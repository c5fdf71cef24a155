/* What a tool is told of the whole cluster (cluster_status.c): complete, in pages, bounded. */
#include "server_world.h"

/* As a tool asks, beside the loop. */
static int ask_cluster(struct world *w, unsigned type, const void *msg, union msg_body *reply)
{
	int ret = cluster_answer(w->s, type, msg, w->now, reply);

	if (ret == 0)
		assert_int_equal(msg_check(msg_reply_type(type), reply), 0);
	return ret;
}

static void mounts_and_waits_of_the_cluster_are_told_and_bounded(void **state)
{
	struct world *w = world_make();
	struct msg_cluster_mounts page = { 0 };
	struct msg_lock want = lock_of(7, MSG_LOCK_WRITE);
	const struct msg_cluster_mounts_reply *m;
	const struct msg_cluster_wait *x;
	union msg_body *r = malloc(sizeof(*r));
	unsigned told = 0;
	uint64_t left;

	(void)state;
	let_in(w, 1);
	assert_int_equal(greet(w, 2, 0, GREETING_FLAG_QUORUM), GREETING_OK);
	assert_int_equal(call(w, 1, MSG_lock, &want)->err, 0);
	ask(w, 2, MSG_lock, &want);
	w->now += 3 * NSEC_PER_SEC;
	assert_int_equal(ask_cluster(w, MSG_cluster_waits, NULL, r), 0);
	assert_int_equal(r->cluster_waits_reply.waits_nr, 1);
	x = &r->cluster_waits_reply.waits[0];
	assert_true(x->rid == 2 && x->mode == MSG_LOCK_WRITE && x->key.first == 7 * 1024);
	assert_true(x->holder == 1 && x->holders == 1 && x->holder_mode == MSG_LOCK_WRITE);
	assert_true(x->since_ms == 3000 && x->asked_ms == 3000);

	/* A mount asks the same over the network. */
	memcpy(r, &call(w, 2, MSG_cluster_status, NULL)->body, sizeof(*r));
	assert_true(r->cluster_status_reply.mounts == 2 && r->cluster_status_reply.term == 1);
	assert_true(r->cluster_status_reply.locks_waiting == 1 && r->cluster_status_reply.locks_revoking == 1);
	assert_true(r->cluster_status_reply.total_meta == META && r->cluster_status_reply.fsid == FSID);

	/* More than a page, and in whatever order they came. */
	for (uint64_t i = 0; i < 2 * CLUSTER_MOUNTS_MAX; i++) {
		struct mount_info info = { .rid = 10 + (i * 37) % (2 * CLUSTER_MOUNTS_MAX), .addr = 0x0a000001 };

		assert_int_equal(client_expect(w->s, &info, NULL), 0);
	}
	left = 2 * CLUSTER_MOUNTS_MAX + 2;
	do {
		assert_int_equal(ask_cluster(w, MSG_cluster_mounts, &page, r), 0);
		m = &r->cluster_mounts_reply;
		assert_true(m->mounts_nr > 0);
		for (uint32_t i = 0; i < m->mounts_nr; i++, told++) {
			assert_true(m->mounts[i].rid > page.after);
			page.after = m->mounts[i].rid;
			assert_int_equal(m->mounts[i].is_well, page.after <= 2);
			assert_int_equal(m->mounts[i].is_quorum, page.after == 2);
		}
		left -= m->mounts_nr;
		assert_true(m->left == left);
	} while (left);
	assert_int_equal(told, 2 * CLUSTER_MOUNTS_MAX + 2);
	assert_int_equal(ask_cluster(w, MSG_cluster_waits, NULL, r), 0);
	assert_true(r->cluster_waits_reply.is_recovering);
	assert_int_equal(ask_cluster(w, MSG_statfs, NULL, r), -EOPNOTSUPP);
	stop(w);
	start(w, 2);
	assert_int_equal(ask_cluster(w, MSG_cluster_status, NULL, r), -EAGAIN);
	WAIT_FOR(w, server_state(w->s) == SERVER_UP);
	free(r);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mounts_and_waits_of_the_cluster_are_told_and_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
