/*
 * Who may write: the fencing tokens of design.md D6.
 *
 * What was refused once stays refused for as long as a process that was refused may live, which is
 * longer than a blockd lives: the table is recorded in the runtime directory (it goes with the node,
 * like every process that could hold an old token) before anybody is told that it holds.  Terms only
 * grow and rids are never used twice, so nothing is ever taken back.  A record of another volume says
 * nothing about this one.
 */
#include "blockd.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

#define TOKENS_NAME	"tokens"
#define TOKENS_TEXT_MAX	(128 + TOKENS_REVOKED_MAX * 32)

static bool is_revoked(const struct tokens *t, uint64_t rid, bool is_mount)
{
	for (size_t i = 0; i < t->revoked_nr; i++)
		if (t->revoked[i].rid == rid && (is_mount || !t->revoked[i].is_mount))
			return true;
	return false;
}

/* Lines "fsid X", "term N", then "revoked X" and "mount X" (its fsd only) ..., "end": one without its end was cut. */
static int tokens_parse(struct tokens *t, FILE *f, uint64_t *fsid)
{
	uint64_t term, rid;
	char word[9] = "";

	if (fscanf(f, "fsid %" SCNx64 " term %" SCNu64, fsid, &term) != 2)
		return -EBADMSG;
	t->min_term = term;
	while (fscanf(f, " %8s", word) == 1 && strcmp(word, "end") != 0) {
		bool is_mount = strcmp(word, "mount") == 0;

		if ((!is_mount && strcmp(word, "revoked") != 0) || t->revoked_nr == TOKENS_REVOKED_MAX ||
		    fscanf(f, " %" SCNx64, &rid) != 1)
			return -EBADMSG;
		t->revoked[t->revoked_nr++] = (struct revoked){ rid, is_mount };
	}
	return strcmp(word, "end") == 0 ? 0 : -EBADMSG;
}

int tokens_load(struct tokens *t, const char *dir, uint64_t fsid)
{
	char path[PATH_MAX];
	uint64_t found = 0;
	FILE *f;
	int ret;

	memset(t, 0, sizeof(*t));
	t->dir = dir;
	t->fsid = fsid;
	ret = rundir_path(path, dir, TOKENS_NAME);
	if (ret < 0)
		return ret;
	f = fopen(path, "re");
	if (!f && errno == ENOENT)
		return 0;
	if (!f) {
		ret = -errno;
		log_err("%s: %s", path, strerror(-ret));
		return ret;
	}
	ret = tokens_parse(t, f, &found);
	fclose(f);
	if (ret < 0) {
		log_err("%s: makes no sense, and without it fenced writers cannot be kept out; stop "
			"every service of this instance, then remove it", path);
		return ret;
	}
	if (found != fsid) {
		t->min_term = 0;
		t->revoked_nr = 0;
	}
	return 0;
}

static int tokens_record(const struct tokens *t)
{
	char *text = malloc(TOKENS_TEXT_MAX);
	size_t len;
	int ret;

	if (!text)
		return -ENOMEM;
	len = (size_t)snprintf(text, TOKENS_TEXT_MAX, "fsid %016" PRIx64 "\nterm %" PRIu64 "\n",
			       t->fsid, t->min_term);
	for (size_t i = 0; i < t->revoked_nr; i++)
		len += (size_t)snprintf(text + len, TOKENS_TEXT_MAX - len,
					"%s %016" PRIx64 "\n", t->revoked[i].is_mount ? "mount" : "revoked",
					t->revoked[i].rid);
	len += (size_t)snprintf(text + len, TOKENS_TEXT_MAX - len, "end\n");
	assert(len < TOKENS_TEXT_MAX);
	ret = rundir_replace(t->dir, TOKENS_NAME, text, len);
	if (ret < 0)
		log_err("%s/" TOKENS_NAME ": cannot be written: %s; a writer stays unfenced", t->dir,
			strerror(-ret));
	free(text);
	return ret;
}

int tokens_check(const struct tokens *t, uint32_t kind, uint64_t rid, uint64_t term)
{
	if (is_revoked(t, rid, kind == BLK_KIND_FSD))
		return -ENOLINK;
	return kind == BLK_KIND_SERVERD && term < t->min_term ? -ESTALE : 0;
}

int tokens_set_term(struct tokens *t, uint64_t term)
{
	uint64_t old = t->min_term;
	int ret;

	if (term < old)
		return -ESTALE;
	if (term == old)
		return 0;
	t->min_term = term;
	ret = tokens_record(t);
	if (ret < 0)
		t->min_term = old;
	return ret;
}

int tokens_revoke(struct tokens *t, uint64_t rid, bool is_mount)
{
	int ret;

	if (is_revoked(t, rid, is_mount))
		return 0;
	if (t->revoked_nr == TOKENS_REVOKED_MAX)
		return -ENOSPC;
	t->revoked[t->revoked_nr++] = (struct revoked){ rid, is_mount };
	ret = tokens_record(t);
	if (ret < 0)
		t->revoked_nr--;
	return ret;
}
