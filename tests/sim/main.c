/*
 * The runner: seeds by the thousand, or one of them with its trace.
 *
 *   sim                      TAP: every machine, determinism, every planted bug
 *   sim -s SEED [-m NAME] [-p BUG] [-t]   one world (of each machine), -t with its trace
 *   -n SEEDS  worlds in all (default 10,000), -l SECONDS of them at most
 *   -f FIRST  the first seed     -j N  processes
 *
 * Worlds run in child processes, so that a machine that crashes or hangs is a failure with a seed
 * like any other; an assertion of a machine ends its world, not the run.
 */
#include "machines.h"
#include "planted.h"
#include "sim_impl.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX		16u
#define MACHINES_MAX		32u
#define WORLD_SECONDS_MAX	60u	/* of a machine under load; a world takes milliseconds */
#define ROUND_SEEDS		2000u	/* between two looks at the time */
#define RERUNS			20u	/* for determinism */

enum planted_bug planted_bug;

static const struct {
	const char *name, *machine, *what;
	uint64_t seeds;
} bugs[] = {
	[PLANTED_none] = { "none", "", "", 0 },
#define BUG(name_, machine_, seeds_, what_) \
	[PLANTED_##name_] = { #name_, #machine_, what_, seeds_ },
	PLANTED_BUGS(BUG)
#undef BUG
};

/* What a child tells: where it is, and how it ended. */
struct report {
	uint64_t seed, done, hash;
	bool is_failed;
	char why[SIM_WHY_MAX];
};

static jmp_buf failed;
static struct sim *current;
static unsigned test_nr;
static bool is_bad;

/* An assertion of a machine is a failure of its world. */
void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function)
{
	if (!current) {
		fprintf(stderr, "%s:%u: %s: assertion %s\n", file, line, function, assertion);
		abort();
	}
	sim_fail(current, "%s:%u: %s: assertion %s failed", file, line, function, assertion);
}

static uint64_t world_seed(const struct sim_machine *m, uint64_t seed)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (const char *c = m->name; *c; c++)
		h = (h ^ (uint8_t)*c) * 0x100000001b3ull;
	return h ^ seed * 0x9e3779b97f4a7c15ull;
}

/* One world; false: r->why says what was wrong with it. */
static bool run_world(const struct sim_machine *m, uint64_t seed, bool is_traced, struct report *r)
{
	bool is_ok;

	r->seed = seed;
	current = sim_new(world_seed(m, seed), is_traced, &failed);
	if (setjmp(failed) == 0) {
		m->run(current);
		r->hash = current->hash;
		is_ok = true;
	} else {
		strcpy(r->why, current->why);
		is_ok = false;
	}
	r->is_failed = !is_ok;
	r->done++;
	sim_free(current);
	current = NULL;
	return is_ok;
}

static const struct sim_machine *machine_find(const char *name)
{
	for (size_t i = 0; i < sim_machines_nr; i++) {
		if (!strcmp(sim_machines[i]->name, name))
			return sim_machines[i];
	}
	return NULL;
}

static const struct report *first_failure(const struct report *reports, unsigned jobs)
{
	const struct report *r = NULL;

	for (unsigned j = 0; j < jobs; j++) {
		if (reports[j].is_failed && (!r || reports[j].seed < r->seed))
			r = &reports[j];
	}
	return r;
}

/*
 * Seeds first, first + step, ... in children; the first failure of each stays in its report.  Of a planted
 * bug one is enough.
 */
static void run_children(const struct sim_machine *m, uint64_t first, uint64_t nr, unsigned jobs,
			 struct report *reports)
{
	pid_t pids[JOBS_MAX], parent = getpid();

	memset(reports, 0, jobs * sizeof(*reports));
	fflush(stdout);
	for (unsigned j = 0; j < jobs; j++) {
		pids[j] = fork();
		if (pids[j] < 0) {
			printf("Bail out! fork: %s\n", strerror(errno));
			exit(1);
		}
		if (pids[j])
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		for (uint64_t i = j; i < nr; i += jobs) {
			alarm(WORLD_SECONDS_MAX);
			if (planted_bug && first_failure(reports, jobs))
				break;
			if (!run_world(m, first + i, false, &reports[j]))
				break;
		}
		_exit(0);
	}
	for (unsigned j = 0; j < jobs; j++) {
		int status;

		waitpid(pids[j], &status, 0);
		if (status == 0)
			continue;
		reports[j].is_failed = true;
		snprintf(reports[j].why, sizeof(reports[j].why), "killed by signal %d%s",
			 WTERMSIG(status), WTERMSIG(status) == SIGALRM ? ": it does not end" : "");
	}
}

static void result(bool is_ok, const char *what)
{
	printf("%s %u - %s\n", is_ok ? "ok" : "not ok", ++test_nr, what);
	fflush(stdout);
	is_bad = is_bad || !is_ok;
}

static void explain(const struct sim_machine *m, const struct report *r)
{
	printf("# seed %llu: %s\n# replay: make sim SIM=%s SEED=%llu%s%s TRACE=1\n",
	       (unsigned long long)r->seed, r->why, m->name, (unsigned long long)r->seed,
	       planted_bug ? " PLANT=" : "", planted_bug ? bugs[planted_bug].name : "");
}

/* What became of a machine's seeds. */
struct tally {
	uint64_t done;
	bool is_failed;
};

static void run_seeds(const struct sim_machine *m, uint64_t first, uint64_t nr, unsigned jobs,
		      struct report *reports, struct tally *t)
{
	run_children(m, first + t->done, nr, jobs, reports);
	for (unsigned j = 0; j < jobs; j++) {
		if (!reports[j].is_failed)
			continue;
		t->is_failed = true;
		explain(m, &reports[j]);
	}
	t->done += nr;
}

static void test_determinism(const struct sim_machine *m, uint64_t first, struct report *r)
{
	bool is_ok = true;
	char what[128];

	for (uint64_t seed = first; seed < first + RERUNS && is_ok; seed++) {
		uint64_t hash;

		run_children(m, seed, 1, 1, r);
		hash = r->hash;
		run_children(m, seed, 1, 1, r);
		is_ok = hash == r->hash;
		if (!is_ok)
			printf("# seed %llu\n", (unsigned long long)seed);
	}
	snprintf(what, sizeof(what), "%s: a seed run twice is one run", m->name);
	result(is_ok, what);
}

static void test_planted(enum planted_bug bug, uint64_t first, unsigned jobs, struct report *reports)
{
	const struct sim_machine *m = machine_find(bugs[bug].machine);
	const struct report *r;
	uint64_t done = 0;
	char what[256];

	planted_bug = bug;
	run_children(m, first, bugs[bug].seeds, jobs, reports);
	r = first_failure(reports, jobs);
	for (unsigned j = 0; j < jobs; j++)
		done += reports[j].done;
	if (r)
		printf("# seed %llu: %s\n", (unsigned long long)r->seed, r->why);
	snprintf(what, sizeof(what), "planted %s is found (%s) after %llu of %llu seeds",
		 bugs[bug].name, bugs[bug].what, (unsigned long long)done,
		 (unsigned long long)bugs[bug].seeds);
	result(r != NULL, what);
	planted_bug = PLANTED_none;
}

static int usage(void)
{
	fprintf(stderr, "usage: sim [-n SEEDS] [-l SECONDS] [-f FIRST] [-j PROCESSES] [-m MACHINE]\n"
			"       sim -s SEED [-m MACHINE] [-p BUG] [-t]\n"
			"machines:");
	for (size_t i = 0; i < sim_machines_nr; i++)
		fprintf(stderr, " %s", sim_machines[i]->name);
	fprintf(stderr, "\nbugs:");
	for (size_t i = 1; i < PLANTED_BUGS_NR; i++)
		fprintf(stderr, " %s", bugs[i].name);
	fprintf(stderr, "\n");
	return 2;
}

static int run_one(const struct sim_machine *only, uint64_t seed, bool is_traced)
{
	int status = 0;

	for (size_t i = 0; i < sim_machines_nr; i++) {
		const struct sim_machine *m = sim_machines[i];
		struct report r = { 0 };

		if (only && m != only)
			continue;
		if (run_world(m, seed, is_traced, &r)) {
			printf("%s: seed %llu is well\n", m->name, (unsigned long long)seed);
		} else {
			explain(m, &r);
			status = 1;
		}
	}
	return status;
}

struct plan {
	const struct sim_machine *only;
	uint64_t first, nr;
	uint64_t seconds;	/* 0: as long as it takes */
	unsigned jobs;
};

static uint64_t shares(const struct plan *p)
{
	uint64_t nr = 0;

	for (size_t i = 0; i < sim_machines_nr; i++) {
		if (!p->only || sim_machines[i] == p->only)
			nr += sim_machines[i]->share;
	}
	return nr;
}

/* All machines, round by round, so that each has its share however soon the time is up. */
static void run_machines(const struct plan *p, struct report *reports)
{
	struct tally tallies[MACHINES_MAX] = { 0 };
	uint64_t all = shares(p), round = p->seconds ? ROUND_SEEDS : p->nr;
	time_t end = time(NULL) + (time_t)p->seconds;
	char what[128];

	assert(sim_machines_nr <= MACHINES_MAX);
	for (uint64_t done = 0; done < p->nr && (!p->seconds || time(NULL) < end); done += round) {
		uint64_t nr = p->nr - done < round ? p->nr - done : round;

		for (size_t i = 0; i < sim_machines_nr; i++) {
			const struct sim_machine *m = sim_machines[i];

			if ((!p->only || m == p->only) && !tallies[i].is_failed)
				run_seeds(m, p->first, (nr * m->share + all - 1) / all, p->jobs, reports,
					  &tallies[i]);
		}
	}
	for (size_t i = 0; i < sim_machines_nr; i++) {
		if (p->only && sim_machines[i] != p->only)
			continue;
		snprintf(what, sizeof(what), "%s: %llu seeds from %llu", sim_machines[i]->name,
			 (unsigned long long)tallies[i].done, (unsigned long long)p->first);
		result(!tallies[i].is_failed, what);
	}
}

static void run_all(const struct plan *p)
{
	struct report *reports = mmap(NULL, JOBS_MAX * sizeof(*reports), PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (reports == MAP_FAILED) {
		printf("Bail out! no memory\n");
		exit(1);
	}
	run_machines(p, reports);
	for (size_t i = 0; i < sim_machines_nr; i++) {
		if (!p->only || sim_machines[i] == p->only)
			test_determinism(sim_machines[i], p->first, reports);
	}
	for (unsigned b = 1; b < PLANTED_BUGS_NR; b++) {
		if (!p->only || !strcmp(bugs[b].machine, p->only->name))
			test_planted((enum planted_bug)b, p->first, p->jobs, reports);
	}
	printf("1..%u\n", test_nr);
}

int main(int argc, char **argv)
{
	struct plan p = { .first = 1, .nr = 10000, .jobs = 1 };
	bool is_one = false, is_traced = false;
	uint64_t seed = 0;
	int c;

	while ((c = getopt(argc, argv, "n:l:f:j:m:s:p:t")) != -1) {
		switch (c) {
		case 'n':
			p.nr = strtoull(optarg, NULL, 0);
			break;
		case 'l':
			p.seconds = strtoull(optarg, NULL, 0);
			break;
		case 'f':
			p.first = strtoull(optarg, NULL, 0);
			break;
		case 'j':
			p.jobs = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'm':
			p.only = machine_find(optarg);
			if (!p.only)
				return usage();
			break;
		case 's':
			is_one = true;
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'p':
			for (unsigned b = 1; b < PLANTED_BUGS_NR; b++) {
				if (!strcmp(bugs[b].name, optarg)) {
					planted_bug = (enum planted_bug)b;
					p.only = machine_find(bugs[b].machine);
				}
			}
			if (!planted_bug)
				return usage();
			break;
		case 't':
			is_traced = true;
			break;
		default:
			return usage();
		}
	}
	if (optind != argc || !p.nr || !p.jobs || p.jobs > JOBS_MAX || (!is_one && planted_bug))
		return usage();
	/* The next world needs what this one frees. */
	mallopt(M_MMAP_THRESHOLD, 1 << 28);
	mallopt(M_TRIM_THRESHOLD, 1 << 28);
	if (is_one)
		return run_one(p.only, seed, is_traced);
	run_all(&p);
	return is_bad;
}
