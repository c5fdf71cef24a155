/*
 * `scoutfsctl status --cluster`: the cluster as its leader sees it, asked from any node.  interface.md 4.4.
 *
 * This node's serverd is asked first, in case it leads, else its fsd, which asks the leader.  Each question has
 * a deadline; a leader that cannot be asked is said, with what this node's services know of it, and the exit
 * status is that of a degraded cluster.  What comes from the leader is words and numbers of another machine:
 * nothing in it is trusted but for being shown.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "format/format.h"
#include "tools/scoutfsctl/commands.h"
#include "tools/scoutfsctl/status.h"

#define ASK_MS		5000u
#define TRIES		3u		/* the leader may change between two questions */
#define MOUNTS_MAX	65536u
#define LIST_MAX	20u		/* lines of a list, without --all */
#define NO_AGE		UINT64_MAX
/* Longer than this is not the everyday life of a cluster. */
#define LONG_WAIT_MS	10000u
#define SILENT_MS	5000u

struct cluster {
	const struct instance_conf *conf;
	enum service asked;
	int err;			/* of the one that should know best */
	struct msg_cluster_status_reply st;
	struct msg_cluster_waits_reply waits;
	struct msg_cluster_mount *mounts;
	size_t mounts_nr, mounts_left;
};

/* --- asking --- */

static int ask(const struct cluster *c, unsigned type, const void *msg, void *reply)
{
	char path[CONF_PATH_BYTES + 64];

	ctl_path(c->conf, service_name(c->asked), path, sizeof(path));
	return ctl_cluster(path, ASK_MS, type, msg, reply);
}

static int ask_mounts(struct cluster *c)
{
	struct msg_cluster_mounts page = { 0 };
	struct msg_cluster_mounts_reply *r = malloc(sizeof(*r));
	struct msg_cluster_mount *mounts;
	int ret = r ? 0 : -ENOMEM;

	c->mounts_nr = c->mounts_left = 0;
	while (ret == 0) {
		ret = ask(c, MSG_cluster_mounts, &page, r);
		if (ret < 0 || r->mounts_nr == 0)
			break;
		mounts = realloc(c->mounts, (c->mounts_nr + r->mounts_nr) * sizeof(*mounts));
		if (!mounts) {
			ret = -ENOMEM;
			break;
		}
		c->mounts = mounts;
		memcpy(mounts + c->mounts_nr, r->mounts, r->mounts_nr * sizeof(*mounts));
		c->mounts_nr += r->mounts_nr;
		c->mounts_left = r->left;
		if (r->left == 0 || c->mounts_nr >= MOUNTS_MAX)
			break;
		/* Each page goes on after the last: whoever does not keep to that would never end. */
		if (r->mounts[r->mounts_nr - 1].rid <= page.after)
			ret = -EPROTO;
		page.after = r->mounts[r->mounts_nr - 1].rid;
	}
	free(r);
	return ret;
}

static int ask_service(struct cluster *c, enum service s)
{
	int ret = -EAGAIN;

	c->asked = s;
	for (unsigned i = 0; i < TRIES && ret == -EAGAIN; i++) {
		ret = ask(c, MSG_cluster_status, NULL, &c->st);
		if (ret < 0)
			return ret;	/* whoever does not lead now is not asked twice */
		ret = ask_mounts(c);
		if (ret == 0)
			ret = ask(c, MSG_cluster_waits, NULL, &c->waits);
	}
	return ret;
}

static void ask_cluster(struct cluster *c)
{
	if (service_is_wanted(c->conf, SERVICE_SERVERD) && ask_service(c, SERVICE_SERVERD) == 0)
		return;
	c->err = ask_service(c, SERVICE_FSD);
}

/* --- words --- */

#define ADDR_BYTES	16u
static const char *addr_text(uint32_t a, char buf[ADDR_BYTES])
{
	snprintf(buf, ADDR_BYTES, "%u.%u.%u.%u", a >> 24 & 255, a >> 16 & 255, a >> 8 & 255, a & 255);
	return buf;
}

/* What its reader may call a mount: its rid and its host's address. */
#define MOUNT_BYTES	48u
static const char *mount_text(const struct cluster *c, uint64_t rid, char buf[MOUNT_BYTES])
{
	char addr[ADDR_BYTES] = "";

	for (size_t i = 0; i < c->mounts_nr; i++) {
		if (c->mounts[i].rid == rid)
			addr_text(c->mounts[i].addr, addr);
	}
	snprintf(buf, MOUNT_BYTES, addr[0] ? "%016" PRIx64 " (%s)" : "%016" PRIx64, rid, addr);
	return buf;
}

#define LOCK_BYTES	128u
static const char *lock_text(const struct key *k, char buf[LOCK_BYTES])
{
	struct key end = key_lock_end(k);
	char key[KEY_TEXT_BYTES];

	switch (k->zone) {
	case ZONE_FS:
		snprintf(buf, LOCK_BYTES, "inodes %" PRIu64 "-%" PRIu64, k->first, end.first);
		break;
	case ZONE_INODE_INDEX:
		snprintf(buf, LOCK_BYTES, "index %s %" PRIu64 "-%" PRIu64,
			 k->type == TYPE_INDEX_META_SEQ ? "meta_seq" : "data_seq", k->second, end.second);
		break;
	case ZONE_ORPHAN:
		snprintf(buf, LOCK_BYTES, "orphans");
		break;
	case ZONE_QUOTA:
		snprintf(buf, LOCK_BYTES, "quota rules");
		break;
	case ZONE_LOCK:
		snprintf(buf, LOCK_BYTES, k->type == TYPE_LOCK_RENAME ? "renames of directories" :
								       "lock %u", k->type);
		break;
	default:
		key_to_text(k, key, sizeof(key));
		snprintf(buf, LOCK_BYTES, "lock %s", key);
	}
	return buf;
}

static const char *const mode_verbs[] = { "not", "read", "write", "write (only)" };
static const char *const role_names[] = { "follower", "candidate", "leader" };

static bool is_silent(const struct msg_quorum_member *m)
{
	return m->said_ms > SILENT_MS;
}

static uint64_t longest_wait_ms(const struct cluster *c)
{
	return c->waits.waits_nr ? c->waits.waits[0].since_ms : 0;
}

static enum health health_of(const struct cluster *c)
{
	bool is_well = longest_wait_ms(c) < LONG_WAIT_MS && !c->waits.is_recovering &&
		       !c->st.meta_is_low && !c->st.mounts_expected && !c->st.mounts_fencing;

	for (uint32_t i = 0; i < c->st.members_nr; i++)
		is_well = is_well && !is_silent(&c->st.members[i]);
	for (size_t i = 0; i < c->mounts_nr; i++)
		is_well = is_well && c->mounts[i].is_well;
	return is_well ? HEALTHY : DEGRADED;
}

/* --- text --- */

static void print_bytes(uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double n = (double)bytes;
	unsigned u = 0;

	while (n >= 1024 && u + 1 < sizeof(units) / sizeof(units[0])) {
		n /= 1024;
		u++;
	}
	printf(u ? "%.1f %s" : "%.0f %s", n, units[u]);
}

static void print_leader(const struct cluster *c)
{
	const struct msg_cluster_status_reply *st = &c->st;
	char addr[ADDR_BYTES];

	printf("  leader      term %" PRIu64 ", ", st->term);
	for (uint32_t i = 0; i < st->members_nr; i++) {
		if (st->members[i].slot == st->leader_slot)
			printf("slot %u at %s:%u, ", st->leader_slot, addr_text(st->members[i].addr, addr),
			       st->members[i].port);
	}
	printf("mount %016" PRIx64 ", for ", st->leader_rid);
	status_print_age(st->leads_ms);
	printf(", version ");
	text_string(stdout, st->version, strlen(st->version));
	putchar('\n');
}

static void print_members(const struct msg_cluster_status_reply *st)
{
	char addr[ADDR_BYTES], where[ADDR_BYTES + 8];

	if (st->members_nr == 0) {
		printf("  quorum      its quorumd has not told the leader of the members yet\n");
		return;
	}
	printf("  quorum      %" PRIu32 " members, %" PRIu32 " elect a leader\n", st->members_nr,
	       st->votes_needed);
	for (uint32_t i = 0; i < st->members_nr; i++) {
		const struct msg_quorum_member *m = &st->members[i];

		snprintf(where, sizeof(where), "%s:%u", addr_text(m->addr, addr), m->port);
		printf("    slot %-4u %-21s ", m->slot, where);
		if (m->said_ms == NO_AGE) {
			printf("never heard\n");
			continue;
		}
		printf("%s in term %" PRIu64, role_names[m->role], m->term);
		if (m->resigned)
			printf(", has resigned");
		if (m->role == QUORUM_CANDIDATE && m->voted_for != MSG_NO_SLOT)
			printf(", votes for slot %u", m->voted_for);
		if (m->slot != st->leader_slot) {
			printf(is_silent(m) ? ", NOT HEARD for " : ", heard ");
			status_print_age(m->said_ms);
			printf(is_silent(m) ? "" : " ago");
		}
		putchar('\n');
	}
}

static void print_mount(const struct msg_cluster_mount *m)
{
	char addr[ADDR_BYTES];

	printf("    %016" PRIx64 " %-15s ", m->rid, addr_text(m->addr, addr));
	text_string(stdout, m->state, strlen(m->state));
	printf(" for ");
	status_print_age(m->since_ms);
	if (m->is_quorum)
		printf(", member");
	if (m->lease_ms) {
		printf(", lease ");
		status_print_age(m->lease_ms);
	}
	if (m->reason[0]) {
		printf(": ");
		text_string(stdout, m->reason, strlen(m->reason));
	}
	if (m->next_ms != NO_AGE) {
		printf("; the leader goes on without it in ");
		status_print_age(m->next_ms);
	}
	putchar('\n');
}

static void print_left(uint64_t nr, const char *hint)
{
	if (nr)
		printf("    ... and %" PRIu64 " more%s\n", nr, hint);
}

/* Those that need a look come first. */
static void print_mounts(const struct cluster *c, bool is_all)
{
	size_t max = is_all ? c->mounts_nr : LIST_MAX, nr = 0;

	printf("  mounts      %" PRIu64, c->st.mounts);
	if (c->st.mounts_expected)
		printf(", %" PRIu64 " of before this term waited for", c->st.mounts_expected);
	if (c->st.mounts_fencing)
		printf(", %" PRIu64 " to be fenced (scoutfsctl fence list on the leader)", c->st.mounts_fencing);
	putchar('\n');
	for (int is_well = 0; is_well <= 1; is_well++) {
		for (size_t i = 0; i < c->mounts_nr; i++) {
			if (c->mounts[i].is_well == is_well && nr++ < max)
				print_mount(&c->mounts[i]);
		}
	}
	print_left((nr > max ? nr - max : 0) + c->mounts_left, is_all ? "" : " (--all lists them)");
}

static void print_wait(const struct cluster *c, const struct msg_cluster_wait *w)
{
	char lock[LOCK_BYTES], rid[MOUNT_BYTES];

	printf("    %s: %s waits for ", lock_text(&w->key, lock), mount_text(c, w->rid, rid));
	status_print_age(w->since_ms);
	printf(" to %s", mode_verbs[w->mode]);
	if (w->ahead)
		printf(", %" PRIu64 " before it", w->ahead);
	if (w->holder) {
		printf("; %s may %s and was asked ", mount_text(c, w->holder, rid),
		       mode_verbs[w->holder_mode]);
		status_print_age(w->asked_ms);
		printf(" ago");
		if (w->holders > 1)
			printf(", and %" PRIu64 " others", w->holders - 1);
	} else if (c->waits.is_recovering) {
		printf("; nothing is granted before all mounts have told the new leader their locks");
	}
	putchar('\n');
}

static void print_locks(const struct cluster *c, bool is_all)
{
	const struct msg_cluster_status_reply *st = &c->st;
	size_t nr = c->waits.waits_nr, max = is_all || nr < LIST_MAX ? nr : LIST_MAX;

	printf("  locks       %" PRIu64 " held, %" PRIu64 " being given back, %" PRIu64
	       " requests wait\n", st->locks_held, st->locks_revoking, c->waits.left + nr);
	for (size_t i = 0; i < max; i++)
		print_wait(c, &c->waits.waits[i]);
	print_left(nr - max + c->waits.left, is_all ? "" : " (--all lists the longest)");
	printf("  file locks  %" PRIu64 " ranges of flock and fcntl held, %" PRIu64 " requests wait\n",
	       st->advisory_held, st->advisory_waiting);
}

static void print_merge(const struct cluster *c)
{
	const struct msg_cluster_status_reply *st = &c->st;
	char rid[MOUNT_BYTES];

	printf("  log trees   %" PRIu64 ": %" PRIu64 " open, %" PRIu64 " finished, height up to %" PRIu64 "\n",
	       st->log_trees, st->log_trees_open, st->log_trees_finished, st->log_trees_height);
	printf("  log merge   ");
	if (st->merge_is_running) {
		printf("runs");
		if (st->merge_ms != NO_AGE) {
			printf(" for ");
			status_print_age(st->merge_ms);
		}
		printf(": %" PRIu64 " ranges wait, %" PRIu64 " are worked on, %" PRIu64 " are done\n",
		       st->merge_ranges, st->merge_requests, st->merge_completes);
	} else if (st->merge_freeing) {
		printf("freeing %" PRIu64 " merged log trees\n", st->merge_freeing);
	} else {
		printf("none runs\n");
	}
	if (st->merge_failures) {
		printf("              %" PRIu64 " times in a row it could not begin", st->merge_failures);
		if (st->merge_kept_by)
			printf(": mount %s did not commit", mount_text(c, st->merge_kept_by, rid));
		putchar('\n');
	}
}

static void print_space(const char *label, uint64_t total, uint64_t nr_free, unsigned shift)
{
	printf("  %-11s ", label);
	print_bytes(nr_free << shift);
	printf(" of ");
	print_bytes(total << shift);
	printf(" free");
}

static void print_cluster(const struct cluster *c, enum health health, bool is_all)
{
	const struct msg_cluster_status_reply *st = &c->st;

	printf("scoutfs volume %016" PRIx64 ": %s\n", st->fsid, health_names[health]);
	print_leader(c);
	print_members(st);
	print_mounts(c, is_all);
	print_locks(c, is_all);
	print_merge(c);
	print_space("metadata", st->total_meta, st->free_meta, LARGE_SHIFT);
	printf("%s\n", st->meta_is_low ? ", LOW: only deleting works" : "");
	print_space("data", st->total_data, st->free_data, SMALL_SHIFT);
	printf("\n  commits     %" PRIu64 " in this term, the last took %" PRIu64 ".%" PRIu64 " ms; stable up to seq %"
	       PRIu64 "\n", st->commits, st->commit_us / 1000, st->commit_us % 1000 / 100, st->stable_seq);
}

/* --- JSON --- */

static void json_addr(const char *name, uint32_t a)
{
	char addr[ADDR_BYTES];

	status_json_member(",", name, addr_text(a, addr));
}

static void json_u64(const char *before, const char *name, uint64_t v)
{
	printf("%s\"%s\":%" PRIu64, before, name, v);
}

/* null: there is none. */
static void json_age(const char *name, uint64_t ms)
{
	if (ms == NO_AGE)
		printf(",\"%s\":null", name);
	else
		json_u64(",", name, ms);
}

static void json_flag(const char *name, bool v)
{
	printf(",\"%s\":%s", name, v ? "true" : "false");
}

static void json_rid(const char *before, const char *name, uint64_t rid)
{
	printf(rid ? "%s\"%s\":\"%016" PRIx64 "\"" : "%s\"%s\":null", before, name, rid);
}

static void json_quorum(const struct msg_cluster_status_reply *st)
{
	json_u64(",\"quorum\":{", "votes_needed", st->votes_needed);
	printf(",\"members\":[");
	for (uint32_t i = 0; i < st->members_nr; i++) {
		const struct msg_quorum_member *m = &st->members[i];

		json_u64(i ? ",{" : "{", "slot", m->slot);
		json_addr("address", m->addr);
		json_u64(",", "port", m->port);
		json_flag("heard", m->said_ms != NO_AGE);
		status_json_member(",", "role", role_names[m->role]);
		json_u64(",", "term", m->term);
		if (m->voted_for == MSG_NO_SLOT)
			printf(",\"voted_for\":null");
		else
			json_u64(",", "voted_for", m->voted_for);
		json_flag("resigned", m->resigned);
		json_age("said_ms", m->said_ms);
		putchar('}');
	}
	printf("]}");
}

static void json_mounts(const struct cluster *c)
{
	json_u64(",\"mounts\":{", "nr", c->st.mounts);
	json_u64(",", "expected", c->st.mounts_expected);
	json_u64(",", "fencing", c->st.mounts_fencing);
	json_u64(",", "not_listed", c->mounts_left);
	printf(",\"list\":[");
	for (size_t i = 0; i < c->mounts_nr; i++) {
		const struct msg_cluster_mount *m = &c->mounts[i];

		json_rid(i ? ",{" : "{", "rid", m->rid);
		json_addr("address", m->addr);
		status_json_member(",", "state", m->state);
		json_flag("is_well", m->is_well);
		json_flag("is_connected", m->is_connected);
		json_flag("is_quorum_member", m->is_quorum);
		json_u64(",", "since_ms", m->since_ms);
		json_u64(",", "lease_left_ms", m->lease_ms);
		json_age("deadline_ms", m->next_ms);
		status_json_member(",", "reason", m->reason);
		putchar('}');
	}
	printf("]}");
}

static void json_locks(const struct cluster *c)
{
	char text[LOCK_BYTES];

	json_u64(",\"locks\":{", "held", c->st.locks_held);
	json_u64(",", "revoking", c->st.locks_revoking);
	json_u64(",", "waiting", c->waits.left + c->waits.waits_nr);
	json_u64(",", "grants", c->st.lock_grants);
	json_u64(",", "revokes", c->st.lock_revokes);
	json_flag("is_recovering", c->waits.is_recovering);
	json_u64(",", "not_listed", c->waits.left);
	printf(",\"waits\":[");
	for (uint32_t i = 0; i < c->waits.waits_nr; i++) {
		const struct msg_cluster_wait *w = &c->waits.waits[i];

		status_json_member(i ? ",{" : "{", "lock", lock_text(&w->key, text));
		key_to_text(&w->key, text, sizeof(text));
		status_json_member(",", "key", text);
		json_rid(",", "rid", w->rid);
		status_json_member(",", "mode", mode_verbs[w->mode]);
		json_u64(",", "waiting_ms", w->since_ms);
		json_u64(",", "ahead", w->ahead);
		json_rid(",", "holder", w->holder);
		status_json_member(",", "holder_mode", mode_verbs[w->holder_mode]);
		json_u64(",", "holders", w->holders);
		json_age("asked_ms", w->asked_ms);
		putchar('}');
	}
	printf("]}");
}

static void json_volume(const struct msg_cluster_status_reply *st)
{
	json_u64(",\"advisory_locks\":{", "held", st->advisory_held);
	json_u64(",", "waiting", st->advisory_waiting);
	json_u64("},\"log_trees\":{", "nr", st->log_trees);
	json_u64(",", "open", st->log_trees_open);
	json_u64(",", "finished", st->log_trees_finished);
	json_u64(",", "height", st->log_trees_height);
	printf("},\"log_merge\":{\"is_running\":%s", st->merge_is_running ? "true" : "false");
	json_age("since_ms", st->merge_ms);
	json_u64(",", "ranges", st->merge_ranges);
	json_u64(",", "requests", st->merge_requests);
	json_u64(",", "completes", st->merge_completes);
	json_u64(",", "freeing", st->merge_freeing);
	json_u64(",", "failures", st->merge_failures);
	json_rid(",", "kept_by", st->merge_kept_by);
	json_u64("},\"metadata\":{", "total_bytes", st->total_meta << LARGE_SHIFT);
	json_u64(",", "free_bytes", st->free_meta << LARGE_SHIFT);
	json_u64(",", "reserved_bytes", st->reserved_meta << LARGE_SHIFT);
	json_flag("is_low", st->meta_is_low);
	json_u64("},\"data\":{", "total_bytes", st->total_data << SMALL_SHIFT);
	json_u64(",", "free_bytes", st->free_data << SMALL_SHIFT);
	json_u64("},", "inodes", st->inodes);
	json_u64(",", "stable_seq", st->stable_seq);
	json_u64(",", "commits", st->commits);
	json_u64(",", "commit_us", st->commit_us);
}

static void json_cluster(const struct cluster *c, enum health health)
{
	const struct msg_cluster_status_reply *st = &c->st;

	status_json_member("{", "instance", c->conf->name);
	status_json_member(",", "health", health_names[health]);
	status_json_member(",", "asked", service_name(c->asked));
	printf(",\"fsid\":\"%016" PRIx64 "\"", st->fsid);
	json_u64(",", "format_version", st->fmt_vers);
	json_u64(",\"leader\":{\"answers\":true,", "term", st->term);
	json_u64(",", "slot", st->leader_slot);
	json_rid(",", "rid", st->leader_rid);
	json_u64(",", "since_ms", st->leads_ms);
	status_json_member(",", "version", st->version);
	putchar('}');
	json_quorum(st);
	json_mounts(c);
	json_locks(c);
	json_volume(st);
	printf("}\n");
}

/* --- a leader that cannot be asked --- */

/* Why not, as far as this node knows. */
static void no_leader_text(const struct cluster *c, const struct instance_answers *a, char *buf, size_t size)
{
	const struct service_answer *fsd = &a->of[SERVICE_FSD];

	if (a->health == NOT_RUNNING)
		snprintf(buf, size, "no service of %s runs on this node", c->conf->name);
	else if (fsd->err < 0)
		snprintf(buf, size, "fsd, which would ask the leader, %s",
			 fsd->err == -ENOENT || fsd->err == -ECONNREFUSED ? "does not run here" :
									    service_err_text(fsd->err));
	else if (fsd->reply.waiting_for[0])
		snprintf(buf, size, "no answer: this node waits for %s", fsd->reply.waiting_for);
	else if (c->err == -EOPNOTSUPP)
		snprintf(buf, size, "the leader does not know the question: it is of an older version");
	else
		snprintf(buf, size, "no answer: %s", c->err == -ETIMEDOUT ?
			 "the leader was silent for 3 s" : strerror(-c->err));
	for (unsigned i = 0; fsd->err == 0 && i < fsd->reply.texts_nr; i++) {
		const struct msg_stat_text *t = &fsd->reply.texts[i];
		size_t len = strlen(buf);

		if (strcmp(t->name, "leader") == 0)
			snprintf(buf + len, size - len, " (%s)", t->text);
	}
}

static enum health say_no_leader(const struct cluster *c, bool is_json)
{
	struct instance_answers *a = calloc(1, sizeof(*a));
	enum health health;
	char why[1024];

	if (!a) {
		say_error("status", "no memory");
		exit(1);
	}
	status_ask_all(c->conf, a);
	no_leader_text(c, a, why, sizeof(why));
	health = a->health == NOT_RUNNING ? NOT_RUNNING : DEGRADED;
	if (is_json) {
		status_json_member("{", "instance", c->conf->name);
		status_json_member(",", "health", health_names[health]);
		status_json_member(",\"leader\":{\"answers\":false,", "error", why);
		printf("},\"services\":[");
	} else {
		printf("scoutfs %s: ", c->conf->name);
		text_string(stdout, why, strlen(why));
		printf("\n  What this node's services say:\n");
	}
	for (int s = 0, nr = 0; s < SERVICES_NR; s++) {
		if (!service_is_wanted(c->conf, s))
			continue;
		if (!is_json) {
			status_print_service(&a->of[s], s, false);
			continue;
		}
		if (nr++)
			putchar(',');
		status_print_service_json(&a->of[s], s);
	}
	if (is_json)
		printf("]}\n");
	free(a);
	return health;
}

enum health status_cluster(const struct instance_conf *conf, bool is_json, bool is_all)
{
	struct cluster *c = calloc(1, sizeof(*c));
	enum health health;

	if (!c) {
		say_error("status", "no memory");
		exit(1);
	}
	c->conf = conf;
	ask_cluster(c);
	if (c->err < 0) {
		health = say_no_leader(c, is_json);
	} else {
		health = health_of(c);
		if (is_json)
			json_cluster(c, health);
		else
			print_cluster(c, health, is_all);
	}
	free(c->mounts);
	free(c);
	return health;
}
