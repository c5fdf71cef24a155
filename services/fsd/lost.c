/*
 * What a mount that ends takes with it: what programs had done and no commit has stored.
 *
 * Promises: it is said, as exactly as this process knows, and nothing is waited for: the leader may not be asked any
 * more, and the process is about to end.  What was fsynced is stored, so none of it is listed here.  What the kernel has in
 * pages of mappings and has not written back is in no table, and nobody can count it.  But where it can be is known: a program
 * can map a file for writing only if it has opened it for reading and writing, and as long as it has it mapped the kernel does
 * not say that it was let go (RELEASE); at the end of a mapping the kernel writes its pages back, and waits for that.  So
 * without such an open file there is nothing.  How many an earlier process has opened is not known.
 */
#include "lost.h"

#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "items_impl.h"
#include "keep.h"
#include "log.h"
#include "pool.h"

#define AMOUNT_BYTES	160

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
		for (size_t k = 0; k < l->inodes && k < LOST_NAMED_MAX; k++)
			is_named = is_named || l->named[k] == last;
		if (is_named)
			continue;
		if (l->inodes < LOST_NAMED_MAX)
			l->named[l->inodes] = last;
		l->inodes++;
	}
}

/* Stores to mappings that are answered and not applied yet: the kernel has them no more. */
static int count_mapped(struct itx *tx, uint64_t *nr)
{
	MDB_stat st;
	int rc = mdb_stat(tx->txn, items_dbi(tx, TABLE_PENDING), &st);

	if (rc)
		return items_error(tx, rc, "pending writes");
	*nr = st.ms_entries;
	return 0;
}

int lost_count(struct fsd *fsd, struct lost *l)
{
	struct itx tx;
	int ret;

	*l = (struct lost){ 0 };
	ret = items_begin(fsd, NULL, false, &tx);
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
	if (ret == 0)
		ret = count_mapped(&tx, &l->mapped);
	items_abort(&tx);
	return ret;
}

static bool is_mappable(int flags)
{
	return (flags & O_ACCMODE) == O_RDWR;
}

void lost_note_open(struct fsd *fsd, int flags)
{
	if (is_mappable(flags))
		atomic_fetch_add(&fsd->mappable_nr, 1);
}

void lost_note_release(struct fsd *fsd, int flags)
{
	/* What an earlier process has opened was not counted. */
	if (is_mappable(flags) && !atomic_load(&fsd->is_resumed))
		atomic_fetch_sub(&fsd->mappable_nr, 1);
}

void lost_note_end(struct fsd *fsd)
{
	if (atomic_load(&fsd->is_resumed))
		atomic_fetch_add(&fsd->mappable_nr, 1);
}

bool lost_may_have_stores(struct fsd *fsd)
{
	return atomic_load(&fsd->is_resumed) || atomic_load(&fsd->mappable_nr);
}

/* What there is to end is an earlier process's mount, which this one has not gone on with. */
static bool is_anothers(struct fsd *fsd)
{
	return !fsd->kcache && fsd->keep && atomic_load(&fsd->keep->head->is_valid);
}

bool lost_report_cut(struct fsd *fsd)
{
	if (!atomic_load(&fsd->was_cut) || !lost_may_have_stores(fsd))
		return false;
	log_err("%s: programs that used it were cut off: what they had stored to mappings and not synced may be lost",
		fsd->conf.mountpoint);
	return true;
}

bool lost_is_none(const struct lost *l)
{
	return !l->items && !l->pages && !l->mapped;
}

static const char *amount(const struct lost *l, char buf[AMOUNT_BYTES])
{
	int len = snprintf(buf, AMOUNT_BYTES, "%" PRIu64 " changes of %" PRIu64 " inodes and %" PRIu64 " bytes of file data",
			   l->items, l->inodes, l->pages << SMALL_SHIFT);

	if (l->mapped)
		snprintf(buf + len, (size_t)(AMOUNT_BYTES - len), " and %" PRIu64 " writes of mapped pages", l->mapped);
	return buf;
}

void lost_report_kept(struct fsd *fsd)
{
	char buf[AMOUNT_BYTES];
	struct lost l;

	if (!fsd->items || lost_count(fsd, &l) < 0 || lost_is_none(&l))
		return;
	log_warning("no leader has let this mount in: %s are not committed; they wait in %s for its next process, and are lost "
		    "when that goes", amount(&l, buf), fsd->conf.runtime_dir);
}

bool lost_report_left(struct fsd *fsd, uint64_t seconds)
{
	char buf[AMOUNT_BYTES];
	struct lost l;

	if (lost_count(fsd, &l) < 0) {
		log_err("no leader for %" PRIu64 " s: what this mount had not committed waits in %s for its next process, and is "
			"lost when that goes; how much that is cannot be told", seconds, fsd->conf.runtime_dir);
		return true;
	}
	if (lost_is_none(&l))
		return false;
	log_err("no leader for %" PRIu64 " s: %s are not committed; they wait in %s for its next process, and are lost when that "
		"goes", seconds, amount(&l, buf), fsd->conf.runtime_dir);
	return true;
}

static void report_counted(struct fsd *fsd, bool may_have_stores)
{
	char names[LOST_NAMED_MAX * 24] = "", buf[AMOUNT_BYTES];
	struct lost l;
	size_t len = 0;

	if (!fsd->items || lost_count(fsd, &l) < 0) {
		log_err("what this mount had not committed is lost; how much that is cannot be told");
		return;
	}
	if (lost_is_none(&l)) {
		if (!may_have_stores)
			log_notice("this mount had committed all that programs have done: nothing is lost");
		return;
	}
	for (size_t i = 0; i < l.inodes && i < LOST_NAMED_MAX; i++)
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%" PRIu64, i ? ", " : "", l.named[i]);
	log_err("lost, for it was not committed: %s; inodes %s%s (scoutfsctl ino-path INO names those that other mounts know)",
		amount(&l, buf), names, l.inodes > LOST_NAMED_MAX ? ", ..." : "");
}

void lost_report(struct fsd *fsd)
{
	bool may_have_stores = lost_may_have_stores(fsd) || is_anothers(fsd);

	report_counted(fsd, may_have_stores);
	if (may_have_stores)
		log_err("%s: what programs had stored to mappings and not synced may be lost", fsd->conf.mountpoint);
}
