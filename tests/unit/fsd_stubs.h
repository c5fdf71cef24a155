/*
 * What items.c and op.c of fsd need of others, for tests that have neither locks nor commits: everything is
 * covered, whoever waits is waked at once, and there is always room.
 */
#ifndef SCOUTFS_TEST_FSD_STUBS_H
#define SCOUTFS_TEST_FSD_STUBS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/fsd/locks.h"
#include "services/fsd/op.h"
#include "services/fsd/reader.h"
#include "services/fsd/txn.h"

bool lock_covers(const struct op *op, const struct key *key, bool write)
{
	(void)op, (void)key, (void)write;
	return true;
}
void lock_unuse(struct op *op) { (void)op; }
void lock_note_dirty(struct op *op, uint64_t gen) { (void)op, (void)gen; }
void lock_wait(struct op *op) { op_wake(op); }
void reader_wait(struct op *op) { op_wake(op); }
void txn_wait_room(struct op *op) { op_wake(op); }
void txn_touch(struct itx *tx, const struct key *key, const void *val, size_t len)
{
	(void)tx, (void)key, (void)val, (void)len;
}
void txn_commit_wait(struct fsd *fsd, enum txn_why why, uint64_t gen)
{
	(void)fsd, (void)why, (void)gen;
	fail_msg("the cache asks for a commit to find room");
}

#endif
