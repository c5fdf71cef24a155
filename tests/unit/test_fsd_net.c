/*
 * What a mount believes of the leader of its own instance (services/fsd/net.c): it asks that one for roots past the
 * session, and leaves its flushes to it.  A leader that is one no more may not know it, so this lasts no longer than the
 * session does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Its callbacks are what is tested; nothing outside of it calls them but the session. */
#include "../../services/fsd/net.c"

static struct fsd fsd;
static struct keep_head head;
static struct keep keep = { .head = &head };
static struct session_net session;
static uint64_t lease_term;

void lease_greeted(struct fsd *f, uint64_t term)
{
	assert_ptr_equal(f, &fsd);
	lease_term = term;
}

/* Nothing of the rest is reached. */
void fsd_fenced(struct fsd *f)
{
	(void)f;
	abort();
}

void fsd_fail(struct fsd *f, const char *fmt, ...)
{
	(void)f, (void)fmt;
	abort();
}

void advisory_tell(struct fsd *f, struct net_req *req, const struct msg_adv_recover *m)
{
	(void)f, (void)req, (void)m;
	abort();
}

void gonedir_asked(uint64_t group)
{
	(void)group;
	abort();
}

void inode_use_map(struct fsd *f, uint64_t group, uint8_t map[128])
{
	(void)f, (void)group, (void)map;
	abort();
}

int lease_open(struct fsd *f)
{
	(void)f;
	abort();
}

int lease_start(struct fsd *f)
{
	(void)f;
	abort();
}

void lease_stop(struct fsd *f)
{
	(void)f;
	abort();
}

void lease_close(struct fsd *f)
{
	(void)f;
	abort();
}

void locks_granted(struct fsd *f, const struct key *key, uint8_t old_mode, uint8_t new_mode,
		   uint64_t write_seq, const struct forest_roots *roots)
{
	(void)f, (void)key, (void)old_mode, (void)new_mode, (void)write_seq, (void)roots;
	abort();
}

void locks_invalidate(struct fsd *f, struct net_req *req, const struct key *key, uint8_t old_mode,
		      uint8_t new_mode)
{
	(void)f, (void)req, (void)key, (void)old_mode, (void)new_mode;
	abort();
}

size_t locks_recover(struct fsd *f, const struct key *start, struct lock_state *out, size_t max)
{
	(void)f, (void)start, (void)out, (void)max;
	abort();
}

void ops_defer(struct fsd *f, void (*work)(void *arg), void *arg)
{
	(void)f, (void)work, (void)arg;
	abort();
}

void txn_sync_now(struct fsd *f)
{
	(void)f;
	abort();
}

static int world_up(void **state)
{
	(void)state;
	strcpy(fsd.conf.runtime_dir, "/nonexistent");
	fsd.keep = &keep;
	fsd.rid = 5;
	fsd.session = &session;
	session = (struct session_net){ .fsd = &fsd };
	pthread_mutex_init(&session.lock, NULL);
	pthread_cond_init(&session.cond, NULL);
	return 0;
}

static void only_a_leader_of_this_instance_is_believed_to_be_ours(void **state)
{
	(void)state;
	assert_int_equal(net_own_term(&fsd), 0);
	session.is_ours = false;
	on_greeted(&session, 3, true);
	assert_int_equal(net_own_term(&fsd), 0);
	assert_int_equal(lease_term, 3);
	session.is_ours = true;
	on_greeted(&session, 4, true);
	assert_int_equal(net_own_term(&fsd), 4);
	session.is_ours = false;
	on_greeted(&session, 5, true);
	assert_int_equal(net_own_term(&fsd), 0);
}

static void who_has_no_session_believes_nothing_of_the_leader_it_had(void **state)
{
	(void)state;
	session.is_ours = true;
	on_greeted(&session, 6, true);
	assert_int_equal(net_own_term(&fsd), 6);
	on_disconnected(&session);
	assert_int_equal(net_own_term(&fsd), 0);
	/* The same one listens again. */
	on_greeted(&session, 6, false);
	assert_int_equal(net_own_term(&fsd), 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(only_a_leader_of_this_instance_is_believed_to_be_ours, world_up),
		cmocka_unit_test_setup(who_has_no_session_believes_nothing_of_the_leader_it_had, world_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
