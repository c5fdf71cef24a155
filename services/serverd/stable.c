/*
 * What has changed becomes visible in the change index when every transaction that was opened before it is
 * committed: runtime.md 9.4, 9.5.  A mount where nothing happens keeps one open for ever, so those that
 * hold others' changes back are asked to commit, something or nothing.
 *
 * Promises: what a mount has committed is in the index after a few seconds, however idle the others are; nobody
 * is asked where nothing has changed, so empty commits end with the last real one; with very many mounts
 * they are asked less often, so that what they cost together is bounded.
 *
 * A mount that has next to no data space, and was told that there is none, hears of what others give back with its next
 * commit.  When a commit of anybody has left something to be given, such mounts are asked for one at once, so that
 * their programs are not told ENOSPC while there is space; each once until it commits, and not all the time.
 */
#include "clock.h"
#include "serverd.h"

/* A mount with less than that is short of space: blocks, 16 MiB. */
#define DATA_SHORT	4096u
/* At least so long between two times that mounts are asked for it. */
#define SPACE_NS	(100 * NSEC_PER_MSEC)
/* At least so long between two questions, and so long for each mount. */
#define ASK_NS		NSEC_PER_SEC
#define ASK_MOUNT_NS	(10 * NSEC_PER_MSEC)

static uint64_t next_look_ns(const struct server *s)
{
	return s->now_ns + ASK_NS + s->clients_nr * ASK_MOUNT_NS;
}

/* A merge takes items out of the log trees, so what was seen counts on; what was before us may be anything. */
void stable_init(struct server *s, const struct txn_view *v)
{
	s->changed_seq = le64_get(v->super.seq);
	s->stable_at_ns = next_look_ns(s);
}

/* Whether its open transaction is, or may be, older than a committed change. */
static bool holds_back(const struct client *c)
{
	return c->state == CLIENT_UP && c->is_connected && c->open_seq <= c->server->changed_seq;
}

void stable_note(struct client *c, const struct disk_log_trees *lt)
{
	c->open_seq = logs_is_open(lt) ? le64_get(lt->get_trans_seq) : UINT64_MAX;
	c->is_short = logs_is_open(lt) && le32_get(lt->data_avail.flags) & ALLOC_FLAG_LOW &&
		      le64_get(lt->data_avail.total_len) < DATA_SHORT;
}

static uint64_t commits_nr(const struct server *s)
{
	return atomic_load(&txn_stats(worker_txn(s->worker))->commits);
}

uint64_t space_deadline(const struct server *s)
{
	return commits_nr(s) != s->space_commits ? s->space_at_ns : UINT64_MAX;
}

void space_tick(struct server *s)
{
	static const struct msg_sync_log_trees sync;
	uint64_t commits = commits_nr(s);
	struct txn_view v;
	bool is_known = false;

	if (commits == s->space_commits || s->now_ns < s->space_at_ns)
		return;
	s->space_commits = commits;
	for (struct client *c = s->clients; c; c = c->next) {
		if (!c->is_short || c->state != CLIENT_UP || !c->is_connected)
			continue;
		if (!is_known)
			txn_get_view(worker_txn(s->worker), &v);
		is_known = true;
		if (le64_get(v.super.data_alloc.total_len) == 0)
			return;
		c->is_short = false;
		s->space_at_ns = s->now_ns + SPACE_NS;
		stats_inc(&s->conf.stats->space_nudges);
		server_ask(s, c->info.rid, MSG_sync_log_trees, &sync, 0);
	}
}

void stable_tick(struct server *s)
{
	static const struct msg_sync_log_trees sync;
	struct txn_view v;

	if (s->clients_nr < 2 || s->now_ns < s->stable_at_ns)
		return;
	s->stable_at_ns = next_look_ns(s);
	txn_get_view(worker_txn(s->worker), &v);
	if (v.newest_item_seq > s->changed_seq)
		s->changed_seq = v.newest_item_seq;
	if (v.last_stable_seq >= s->changed_seq)
		return;
	for (struct client *c = s->clients; c; c = c->next) {
		if (!holds_back(c))
			continue;
		stats_inc(&s->conf.stats->stable_nudges);
		server_ask(s, c->info.rid, MSG_sync_log_trees, &sync, 0);
	}
}
