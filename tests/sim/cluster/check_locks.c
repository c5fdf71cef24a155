/*
 * What must hold of locks, sessions, inode numbers and the open-inode map, seen from outside: which
 * operations use which locks at one time, what mounts were told, what servers were asked.
 */
#include <string.h>

#include "cluster.h"
#include "services/fsd/locks.h"

#define GHOSTS_MAX	256u
#define RANGES_MAX	4096u
#define QUESTIONS	10241u
#define INODES		8u	/* of a group, that are used */

/* What a mount held when it died: nobody may have it before it is known to write no more. */
struct ghost {
	uint64_t rid;
	unsigned lock;
	uint8_t mode;
};

struct question {
	bool is_asked, is_answered;
	unsigned proc;
	uint64_t life;
	uint64_t asked_ns, heard_term;
};

struct inode_use {
	bool is_open;
	uint64_t since_ns, until_ns;
};

struct seen {
	uint64_t rid;
	unsigned readers[CLUSTER_LOCKS], writers[CLUSTER_LOCKS];
	struct inode_use inodes[CLUSTER_GROUPS_MAX][INODES];
};

struct locks_check {
	struct cluster *cl;
	struct seen seen[SIM_PROCS_MAX];
	struct ghost ghosts[GHOSTS_MAX];
	unsigned ghosts_nr;
	uint64_t write_seq[CLUSTER_LOCKS];
	struct { uint64_t start, nr; } ranges[RANGES_MAX];
	unsigned ranges_nr;
	struct question inos[QUESTIONS], maps[QUESTIONS];
};

static void conflict(struct sim *s, unsigned lock, uint8_t mode, uint64_t rid, bool is_dead)
{
	sim_fail(s, "lock %u is used in mode %u while mount %llu%s has it", lock, mode,
		 (unsigned long long)rid, is_dead ? ", which is dead and not fenced," : "");
}

static void hold(struct locks_check *c, struct sim *s, unsigned proc, unsigned lock, uint8_t mode)
{
	struct seen *me = &c->seen[proc];

	for (unsigned i = 0; i < SIM_PROCS_MAX; i++) {
		const struct seen *o = &c->seen[i];

		if (i != proc && (o->writers[lock] || (mode == LOCK_MODE_WRITE && o->readers[lock])))
			conflict(s, lock, mode, o->rid, false);
	}
	for (unsigned i = 0; i < c->ghosts_nr; i++) {
		const struct ghost *g = &c->ghosts[i];

		if (g->lock == lock && g->rid != me->rid &&
		    (mode == LOCK_MODE_WRITE || g->mode == LOCK_MODE_WRITE))
			conflict(s, lock, mode, g->rid, true);
	}
	if (mode == LOCK_MODE_WRITE)
		me->writers[lock]++;
	else
		me->readers[lock]++;
}

static void add_ghost(struct locks_check *c, struct sim *s, uint64_t rid, unsigned lock, uint8_t mode)
{
	SIM_CHECK(s, c->ghosts_nr < GHOSTS_MAX, "more dead mounts than the checker remembers");
	c->ghosts[c->ghosts_nr++] = (struct ghost){ rid, lock, mode };
}

static void died(struct locks_check *c, struct sim *s, unsigned proc)
{
	struct seen *me = &c->seen[proc];

	for (unsigned l = 0; l < CLUSTER_LOCKS; l++) {
		if (me->writers[l])
			add_ghost(c, s, me->rid, l, LOCK_MODE_WRITE);
		else if (me->readers[l])
			add_ghost(c, s, me->rid, l, LOCK_MODE_READ);
		me->writers[l] = me->readers[l] = 0;
	}
	for (unsigned g = 0; g < CLUSTER_GROUPS_MAX; g++) {
		for (unsigned i = 0; i < INODES; i++) {
			struct inode_use *u = &me->inodes[g][i];

			if (u->is_open)
				u->until_ns = sim_now(s);
			u->is_open = false;
		}
	}
}

static void forget_ghosts(struct locks_check *c, uint64_t rid)
{
	for (unsigned i = 0; i < c->ghosts_nr; i++) {
		if (c->ghosts[i].rid == rid)
			c->ghosts[i--] = c->ghosts[--c->ghosts_nr];
	}
}

static void new_seq(struct locks_check *c, struct sim *s, uint64_t lock, uint64_t seq)
{
	SIM_CHECK(s, seq > c->write_seq[lock],
		  "lock %llu is granted for writing with seq %llu after %llu",
		  (unsigned long long)lock, (unsigned long long)seq,
		  (unsigned long long)c->write_seq[lock]);
	c->write_seq[lock] = seq;
}

static void new_inos(struct locks_check *c, struct sim *s, uint64_t start, uint64_t nr)
{
	for (unsigned i = 0; i < c->ranges_nr; i++)
		SIM_CHECK(s, start + nr <= c->ranges[i].start ||
			     start >= c->ranges[i].start + c->ranges[i].nr,
			  "inode numbers %llu.. are given twice", (unsigned long long)start);
	SIM_CHECK(s, c->ranges_nr < RANGES_MAX, "more inode numbers than the checker remembers");
	c->ranges[c->ranges_nr].start = start;
	c->ranges[c->ranges_nr++].nr = nr;
}

static void asked(struct question *q, struct sim *s, unsigned proc)
{
	*q = (struct question){ .is_asked = true, .proc = proc, .life = sim_proc_life(s, proc),
				.asked_ns = sim_now(s) };
}

static void heard(struct locks_check *c, struct sim *s, uint64_t nr, uint64_t term)
{
	struct question *q = &c->inos[nr];

	SIM_CHECK(s, q->is_asked && q->heard_term != term,
		  "request %llu is handled twice in term %llu", (unsigned long long)nr,
		  (unsigned long long)term);
	q->heard_term = term;
}

static void answered(struct locks_check *c, struct sim *s, uint64_t nr)
{
	SIM_CHECK(s, !c->inos[nr].is_answered, "request %llu is answered twice",
		  (unsigned long long)nr);
	c->inos[nr].is_answered = true;
}

/* Whether anybody but the asker surely used the inode all the time; or maybe at some time. */
static void who_uses(const struct locks_check *c, unsigned asker, unsigned g, unsigned i, uint64_t since,
		     bool *surely, bool *maybe)
{
	*surely = *maybe = false;
	for (unsigned p = 0; p < SIM_PROCS_MAX; p++) {
		const struct inode_use *u = &c->seen[p].inodes[g][i];

		if (p == asker)
			continue;
		*surely = *surely || (u->is_open && u->since_ns < since);
		*maybe = *maybe || u->is_open || (u->since_ns && u->until_ns >= since);
	}
}

static void map(struct locks_check *c, struct sim *s, const struct sim_fact *f)
{
	struct question *q = &c->maps[f->v[1]];
	const uint8_t *bits = f->buf;
	unsigned g = (unsigned)f->v[0];

	SIM_CHECK(s, !q->is_answered, "a map is answered twice");
	q->is_answered = true;
	for (unsigned i = 0; i < 8 * f->len; i++) {
		bool bit = bits[i / 8] >> i % 8 & 1, surely = false, maybe = false;

		if (i < INODES)
			who_uses(c, f->proc, g, i, q->asked_ns, &surely, &maybe);
		SIM_CHECK(s, bit || !surely, "the map says that nobody uses inode %u of group %u", i, g);
		SIM_CHECK(s, !bit || maybe, "the map says that somebody uses inode %u of group %u", i, g);
	}
}

static void use_inode(struct locks_check *c, struct sim *s, unsigned proc, uint64_t ino, bool opened)
{
	struct inode_use *u = &c->seen[proc].inodes[ino / 1024][ino % 1024];

	u->is_open = opened;
	if (opened)
		u->since_ns = sim_now(s);
	else
		u->until_ns = sim_now(s);
}

static void on_fact(struct sim *s, void *arg, const struct sim_fact *f)
{
	struct locks_check *c = arg;

	switch (f->kind) {
	case SIM_FACT_DIED:
		died(c, s, f->proc);
		break;
	case FACT_MOUNTED:
		c->seen[f->proc].rid = f->v[0];
		break;
	case FACT_FENCED:
	case FACT_RESUMED:
		forget_ghosts(c, f->v[0]);
		break;
	case FACT_HOLD:
		hold(c, s, f->proc, (unsigned)f->v[0], (uint8_t)f->v[1]);
		break;
	case FACT_UNHOLD:
		if (f->v[1] == LOCK_MODE_WRITE)
			c->seen[f->proc].writers[f->v[0]]--;
		else
			c->seen[f->proc].readers[f->v[0]]--;
		break;
	case FACT_GRANTED_SEQ:
		new_seq(c, s, f->v[0], f->v[1]);
		break;
	case FACT_INOS:
		new_inos(c, s, f->v[0], f->v[1]);
		break;
	case FACT_ASKED:
		asked(&c->inos[f->v[0]], s, f->proc);
		break;
	case FACT_HEARD:
		heard(c, s, f->v[0], f->v[1]);
		break;
	case FACT_ANSWERED:
		answered(c, s, f->v[0]);
		break;
	case FACT_OPENED:
	case FACT_CLOSED:
		use_inode(c, s, f->proc, f->v[0], f->kind == FACT_OPENED);
		break;
	case FACT_MAP_ASKED:
		asked(&c->maps[f->v[1]], s, f->proc);
		break;
	case FACT_MAP:
		map(c, s, f);
		break;
	}
}

/* The number of a question whose asker lives and has no answer; 0: none. */
static unsigned unanswered(const struct sim *s, const struct question *q)
{
	for (unsigned i = 0; i < QUESTIONS; i++) {
		if (q[i].is_asked && !q[i].is_answered && sim_proc_is_alive(s, q[i].proc) &&
		    sim_proc_life(s, q[i].proc) == q[i].life)
			return i;
	}
	return 0;
}

bool check_locks_all_answered(const struct cluster *cl)
{
	const struct locks_check *c = cl->locks_check;

	return !unanswered(cl->sim, c->inos) && !unanswered(cl->sim, c->maps);
}

void check_locks_watch(struct cluster *cl)
{
	cl->locks_check = sim_alloc(cl->sim, sizeof(*cl->locks_check));
	cl->locks_check->cl = cl;
	sim_watch(cl->sim, on_fact, cl->locks_check);
}
