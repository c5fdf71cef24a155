/*
 * What a fenced mount takes with it: what programs had done and no commit has stored.
 *
 * Promises: it is said, as exactly as this process knows, and nothing is waited for: the leader may not be asked any
 * more, and the process is about to end.  What was fsynced is stored, so none of it is listed here.
 */
#include "lost.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "items_impl.h"
#include "log.h"
#include "pool.h"

#define NAMED_MAX	8u	/* inodes that are named */

struct lost {
	uint64_t items, inodes, pages;
	uint64_t named[NAMED_MAX];
};

/* Keys come in order within a generation; an inode of both is counted twice, and named once. */
static void add_items(struct lost *l, const struct key *keys, size_t nr)
{
	uint64_t last = 0;

	for (size_t i = 0; i < nr; i++) {
		bool is_named = false;

		l->items++;
		if (keys[i].zone != ZONE_FS || keys[i].first == last)
			continue;
		last = keys[i].first;
		for (size_t k = 0; k < l->inodes && k < NAMED_MAX; k++)
			is_named = is_named || l->named[k] == last;
		if (is_named)
			continue;
		if (l->inodes < NAMED_MAX)
			l->named[l->inodes] = last;
		l->inodes++;
	}
}

static int count(struct fsd *fsd, struct lost *l)
{
	struct itx tx;
	int ret = items_begin(fsd, NULL, false, &tx);

	if (ret < 0)
		return ret;
	for (uint64_t gen = tx.committed_gen + 1; gen <= tx.open_gen && ret == 0; gen++) {
		struct key *keys;
		size_t nr;

		ret = items_dirty_list(&tx, gen, &keys, &nr);
		if (ret == 0)
			add_items(l, keys, nr);
		free(keys);
	}
	if (ret == 0)
		ret = pool_count_dirty(&tx, &l->pages);
	items_abort(&tx);
	return ret;
}

void lost_report_kept(struct fsd *fsd)
{
	struct lost l = { 0 };

	if (!fsd->items || count(fsd, &l) < 0 || (!l.items && !l.pages))
		return;
	log_warning("no leader has let this mount in: %" PRIu64 " changes of %" PRIu64 " inodes and %" PRIu64
		    " bytes of file data are not committed; they wait in %s for its next process, and are lost when that "
		    "goes", l.items, l.inodes, l.pages << SMALL_SHIFT, fsd->conf.runtime_dir);
}

bool lost_report_left(struct fsd *fsd, uint64_t seconds)
{
	struct lost l = { 0 };

	if (count(fsd, &l) < 0) {
		log_err("no leader for %" PRIu64 " s: what this mount had not committed waits in %s for its next process, and is "
			"lost when that goes; how much that is cannot be told", seconds, fsd->conf.runtime_dir);
		return true;
	}
	if (!l.items && !l.pages)
		return false;
	log_err("no leader for %" PRIu64 " s: %" PRIu64 " changes of %" PRIu64 " inodes and %" PRIu64 " bytes of file data are not "
		"committed; they wait in %s for its next process, and are lost when that goes", seconds, l.items, l.inodes,
		l.pages << SMALL_SHIFT, fsd->conf.runtime_dir);
	return true;
}

void lost_report(struct fsd *fsd)
{
	char names[NAMED_MAX * 24] = "";
	struct lost l = { 0 };
	size_t len = 0;

	if (!fsd->items || count(fsd, &l) < 0) {
		log_err("what this mount had not committed is lost; how much that is cannot be told");
		return;
	}
	if (!l.items && !l.pages) {
		log_notice("this mount had committed all that programs have done: nothing is lost");
		return;
	}
	for (size_t i = 0; i < l.inodes && i < NAMED_MAX; i++)
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%" PRIu64, i ? ", " : "", l.named[i]);
	log_err("lost, for it was not committed: %" PRIu64 " changes of %" PRIu64 " inodes and %" PRIu64
		" bytes of file data; inodes %s%s (scoutfsctl ino-path INO names those that other mounts know)",
		l.items, l.inodes, l.pages << SMALL_SHIFT, names, l.inodes > NAMED_MAX ? ", ..." : "");
}
