/*
 * File data against a model: random writes, reads, truncations, preallocation, stores through
 * mappings, commits and loss of cached pages on two files, through the same operations that FUSE
 * requests use (fsd_data_fakes.h), with locks that are always granted.
 *
 * Rounds: FSD_EXTENTS_OPS (default 2500), FSD_EXTENTS_SEED.
 */
#include "fsd_data_fakes.h"
#include "services/fsd/shown.h"

static bool is_zero(const uint8_t *p, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++) {
		if (p[i])
			return false;
	}
	return true;
}

/* Never is anything but zero in a hole, and the two kinds of seeking agree. */
static void check_seek(struct file *f, uint64_t off)
{
	uint64_t data, hole;
	int ret;

	op_lseek(&fsd, new_req(f, off, 0, SEEK_DATA));
	ret = await();
	if (off >= f->size) {
		assert_int_equal(ret, -ENXIO);
		return;
	}
	data = ret == -ENXIO ? f->size : (uint64_t)request.off;
	assert_true(ret == 0 || ret == -ENXIO);
	assert_true(data >= off && data <= f->size);
	assert_true(is_zero(f->bytes + off, data - off));
	if (data == f->size)
		return;
	op_lseek(&fsd, new_req(f, data, 0, SEEK_HOLE));
	assert_int_equal(await(), 0);
	hole = (uint64_t)request.off;
	assert_true(hole > data && hole <= f->size);
}

static void store_and_let_go(void)
{
	do_write(&files[0], 3 * BLOCK, BLOCK, false, false);
	shown_release(&fsd, files[0].ino, O_RDWR, false);
}

static uint64_t seek(uint64_t off, int whence)
{
	op_lseek(&fsd, new_req(&files[0], off, 0, whence));
	assert_int_equal(await(), 0);
	return (uint64_t)request.off;
}

/* What was stored to a mapping comes to the extents, and is noted no more, after those were looked at and before that is. */
static void a_store_that_is_applied_meanwhile_is_data(void **state)
{
	char path[sizeof(fsd.conf.runtime_dir) + 8];

	(void)state;
	snprintf(fsd.conf.runtime_dir, sizeof(fsd.conf.runtime_dir), "%s", dir);
	assert_int_equal(shown_start(&fsd, false), 0);
	do_truncate(&files[0], 0);
	do_truncate(&files[0], 8 * BLOCK);
	shown_open(&fsd, files[0].ino, O_RDWR);
	shown_note(&fsd, files[0].ino, 3, 3);
	when_named = store_and_let_go;
	assert_int_equal(seek(0, SEEK_DATA), 3 * BLOCK);
	assert_int_equal(seek(3 * BLOCK, SEEK_HOLE), 4 * BLOCK);

	do_truncate(&files[0], 0);
	do_truncate(&files[0], 8 * BLOCK);
	shown_open(&fsd, files[0].ino, O_RDWR);
	shown_note(&fsd, files[0].ino, 3, 3);
	when_named = store_and_let_go;
	assert_int_equal(seek(3 * BLOCK, SEEK_HOLE), 4 * BLOCK);
	do_truncate(&files[0], 0);
	snprintf(path, sizeof(path), "%s/shown", dir);
	shown_stop(&fsd);
	unlink(path);
}

/* ---- what is true of every committed transaction ------------------------------------- */

struct account {
	uint8_t owners[DEV_BLOCKS];
	unsigned extents;
};

static int count_extents(struct itx *tx, void *arg)
{
	struct account *acc = arg;

	for (unsigned i = 0; i < FILES; i++) {
		uint64_t online = 0, at = 0;
		struct data_extent e, last = { 0 };
		struct cinode ci;
		int ret;

		assert(inode_get(tx, files[i].ino, &ci) == 0);
		while ((ret = extent_next(tx, files[i].ino, at, &e)) == 0) {
			assert(e.iblock >= at && e.len);
			/* neighbours that continue each other are one */
			assert(!acc->extents || !last.len || last.iblock + last.len != e.iblock ||
			       last.flags != e.flags || last.blkno + last.len != e.blkno);
			for (uint64_t b = 0; b < e.len; b++)
				acc->owners[e.blkno + b]++;
			if (extent_is_online(&e))
				online += e.len;
			acc->extents++;
			at = e.iblock + e.len;
			last = e;
		}
		assert(ret == -ENOENT);
		assert(online == le64_get(ci.d.online_blocks));
		assert(le64_get(ci.d.offline_blocks) == 0);
		assert(!(le32_get(ci.d.flags) & INODE_FLAG_TRUNCATE));
	}
	return 0;
}

static int count_rows(struct itx *tx, void *arg)
{
	struct account *acc = arg;
	MDB_val key, val;
	MDB_cursor *cur;
	uint64_t blkno;
	int rc;

	assert(mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_DAVAIL), &cur) == 0);
	for (rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST); rc == 0;
	     rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) {
		memcpy(&blkno, key.mv_data, sizeof(blkno));
		acc->owners[be64toh(blkno)]++;
	}
	mdb_cursor_close(cur);
	assert(mdb_cursor_open(tx->txn, items_dbi(tx, TABLE_DLOG), &cur) == 0);
	for (rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST); rc == 0;
	     rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) {
		struct freed_row row;

		memcpy(&row, key.mv_data, sizeof(row));
		acc->owners[be64toh(row.be_blkno)]++;
	}
	mdb_cursor_close(cur);
	return count_extents(tx, arg);
}

/* Each block of the device is in one extent, or free, or waits to be free: none is lost or had
 * twice. */
static void check_blocks(void)
{
	struct account *acc = calloc(1, sizeof(*acc));

	assert_non_null(acc);
	assert_int_equal(items_run(&fsd, count_rows, acc), 0);
	for (unsigned b = 1; b < DEV_BLOCKS; b++)
		assert_int_equal(acc->owners[b], 1);
	free(acc);
}

static uint64_t random_len(uint64_t max)
{
	uint64_t len = rnd(4) ? 1 + rnd(IO_MAX - BLOCK) : 1 + rnd(BLOCK);

	if (rnd(3) == 0)
		len = (len + BLOCK - 1) / BLOCK * BLOCK;
	return len < max ? len : max;
}

static uint64_t random_off(void)
{
	uint64_t off = rnd(FILE_MAX - 1);

	return rnd(3) ? off : off / BLOCK * BLOCK;
}

static void a_file_reads_as_it_was_written(void **state)
{
	const char *text = getenv("FSD_EXTENTS_OPS");
	unsigned long rounds = text ? strtoul(text, NULL, 0) : 2500;

	(void)state;
	atomic_store(&abort_one_in, 4);
	for (unsigned long i = 0; i < rounds; i++) {
		struct file *f = &files[rnd(FILES)];
		uint64_t off = random_off(), len = random_len(FILE_MAX - off);

		switch (rnd(20)) {
		case 0: case 1: case 2: case 3: case 4: case 5:
			do_write(f, off, len, false, false);
			break;
		case 6: case 7:
			if (f->size < FILE_MAX)
				do_write(f, f->size, random_len(FILE_MAX - f->size), true, false);
			break;
		case 8: case 9:
			do_write(f, off, len, false, true);
			break;
		case 10: case 11: case 12: case 13:
			check_read(f, off, len);
			break;
		case 14: case 15:
			do_truncate(f, rnd(2) ? off : f->size ? rnd((unsigned)f->size) : 0);
			break;
		case 16:
			do_fallocate(f, off, len, rnd(2));
			break;
		case 17:
			check_seek(f, off);
			break;
		case 18:
			txn_commit_wait(&fsd, TXN_FSYNC, 0);
			break;
		case 19:
			/* clean pages go: from here on it comes from the device */
			pool_drop(&fsd, files[0].ino, files[FILES - 1].ino);
			break;
		}
		if (i % 100 == 99) {
			for (unsigned n = 0; n < FILES; n++)
				check_all(&files[n]);
			check_blocks();
		}
	}
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	pool_drop(&fsd, files[0].ino, files[FILES - 1].ino);
	for (unsigned n = 0; n < FILES; n++)
		check_all(&files[n]);
	atomic_store(&abort_one_in, 0);
	/* it was a test of what it claims to be */
	assert_true(device_reads > 0);
	assert_true(partial_allocs > 0);
}

static void truncation_gives_every_block_back(void **state)
{
	uint64_t used = 0, total = 0;

	(void)state;
	for (unsigned n = 0; n < FILES; n++) {
		do_truncate(&files[n], 0);
		assert_int_equal(le64_get(get_inode(&files[n]).d.online_blocks), 0);
	}
	check_blocks();
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	do_write(&files[0], 0, 3 * BLOCK, false, false);
	check_all(&files[0]);
	do_truncate(&files[0], 0);
	pool_usage(&fsd, &used, &total);
	assert_int_equal(total, POOL_PAGES);
}

struct find { uint64_t ino, iblock; struct data_extent *ext; };

static int find_extent(struct itx *tx, void *arg)
{
	const struct find *f = arg;
	int ret = extent_next(tx, f->ino, f->iblock, f->ext);

	return ret == 0 && !extent_has(f->ext, f->iblock) ? -ENOENT : ret;
}

/* Of an append that was lost with the power: the device has its bytes, the inode not its size. */
static void leave_bytes_behind_the_end(struct file *f)
{
	struct data_extent ext;
	uint64_t iblock = f->size / BLOCK;

	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	pool_drop(&fsd, f->ino, f->ino);
	assert_int_equal(items_run(&fsd, find_extent, &(struct find){ f->ino, iblock, &ext }), 0);
	memset(device + (ext.blkno + iblock - ext.iblock) * BLOCK + f->size % BLOCK, FOREIGN, BLOCK - f->size % BLOCK);
}

static void what_the_device_has_behind_the_end_is_not_shown_when_a_file_grows(void **state)
{
	struct file *f = &files[0];

	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		do_truncate(f, 0);
		do_write(f, 0, BLOCK + 1000, false, false);
		leave_bytes_behind_the_end(f);
		if (how == 0)
			do_truncate(f, 3 * BLOCK + 7);
		else if (how == 1)
			do_write(f, 2 * BLOCK + 5, 100, false, false);
		else if (how == 2)
			do_fallocate(f, 0, 4 * BLOCK, false);
		else
			do_write(f, BLOCK + 2000, 100, false, false);
		check_all(f);
		txn_commit_wait(&fsd, TXN_FSYNC, 0);
		pool_drop(&fsd, f->ino, f->ino);
		check_all(f);
	}
	do_truncate(f, 0);
	check_blocks();
}

/* A snapshot may name a page that has meanwhile been given to another file's write. */
static void a_held_page_shows_only_its_own_block(void **state)
{
	uint8_t buf[BLOCK];
	uint32_t page;

	(void)state;
	assert_int_equal(pool_take(fsd.pool, &page, 1), 1);
	assert_false(pool_copy(fsd.pool, page, 7000, 3, buf, 0, sizeof(buf)));
	pool_assign(fsd.pool, page, 8000, 3);
	assert_false(pool_copy(fsd.pool, page, 7000, 3, buf, 0, sizeof(buf)));
	assert_true(pool_copy(fsd.pool, page, 8000, 3, buf, 0, sizeof(buf)));
	pool_give(fsd.pool, &page, 1);
	assert_false(pool_copy(fsd.pool, page, 8000, 3, buf, 0, sizeof(buf)));
}

static int give_capability(struct itx *tx, void *arg)
{
	const struct file *f = arg;
	struct cinode ci;
	int ret = inode_get(tx, f->ino, &ci);

	if (ret == 0)
		ret = xattr_write(tx, f->ino, &ci, "security.capability", "12345678901234567890", 20, 0);
	return ret == 0 ? inode_put(tx, f->ino, &ci, false) : ret;
}

static int find_capability(struct itx *tx, void *arg)
{
	char value[XATTR_VALUE_MAX_BYTES];
	int ret = xattr_read(tx, ((const struct file *)arg)->ino, "security.capability", value);

	return ret < 0 ? ret : 0;
}

/*
 * The kernel asks for it once, and then no more until it has new attributes; another node may have given it since.
 * So it goes with each change that takes setuid away.
 */
static void a_change_by_anybody_takes_the_capability(void **state)
{
	struct attr_op a = { .op = { .fsd = &fsd, .name = "chown", .writes = true, .run = attr_run_set,
				     .unique = 1, .done = simple_done },
			     .to_set = FUSE_SET_ATTR_UID };
	struct file *f = &files[0];
	struct file_req *rq;

	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		do_truncate(f, 0);
		do_write(f, 0, 100, false, false);
		assert_int_equal(items_run(&fsd, give_capability, f), 0);
		assert_int_equal(items_run(&fsd, find_capability, f), 0);
		rq = new_req(f, 0, 10, 0);
		rq->kill_suidgid = true;
		if (how == 0) {
			rq->buf = calloc(1, 10);
			op_write(&fsd, rq);
			assert_int_equal(await(), 0);
			memset(f->bytes, 0, 10);
		} else if (how == 1) {
			op_fallocate(&fsd, rq);
			assert_int_equal(await(), 0);
		} else {
			free(rq);
			a.ino = f->ino;
			if (how == 2)
				op_start(&a.op);
			else
				do_truncate(f, 50);
			if (how == 2)
				assert_int_equal(await(), 0);
		}
		assert_int_equal(items_run(&fsd, find_capability, f), -ENODATA);
		check_all(f);
	}
	do_truncate(f, 0);
	check_blocks();
}

static int know_xattrs(struct itx *tx, void *arg)
{
	uint64_t ino = ((const struct file *)arg)->ino;
	struct key first = key_xattr(ino, 0, 0, 0), last = key_xattr(ino, UINT32_MAX, UINT64_MAX, UINT8_MAX);

	return items_set_known(tx, &first, &last);
}

/* Its attributes cannot be read: the size stays, and what lies behind the one that was asked for. */
static void a_truncation_that_does_not_happen_leaves_the_bytes(void **state)
{
	struct file *f = &files[0];
	struct key first = key_xattr(f->ino, 0, 0, 0), last = key_xattr(f->ino, UINT32_MAX, UINT64_MAX, UINT8_MAX);
	struct attr_op a = { .op = { .fsd = &fsd, .name = "truncate", .writes = true, .run = attr_run_set,
				     .unique = 1, .done = simple_done },
			     .ino = f->ino, .attr.st_size = 100, .to_set = FUSE_SET_ATTR_SIZE };

	(void)state;
	do_truncate(f, 0);
	do_write(f, 0, 2 * BLOCK, false, false);
	assert_int_equal(items_drop(&fsd, &first, &last), 0);
	op_start(&a.op);
	assert_int_equal(await(), -EIO);
	check_all(f);
	assert_int_equal(items_run(&fsd, know_xattrs, f), 0);
	do_truncate(f, 0);
	check_blocks();
}

static uint32_t others[POOL_PAGES];
static unsigned others_nr;

/* The file is emptied, and somebody else fills every page that there is. */
static void empty_and_fill(void)
{
	when_closed = NULL;
	do_truncate(&files[0], 0);
	for (unsigned i = 0; i < 300 && others_nr < POOL_PAGES; i++) {
		while (others_nr < POOL_PAGES && pool_take(fsd.pool, &others[others_nr], 1) == 1)
			memset(pool_page(fsd.pool, others[others_nr++]), FOREIGN, BLOCK);
		usleep(1000);	/* the keeper looks after the pool */
	}
}

/* A commit stores what its generation was, whatever becomes of the file while it does. */
static void a_page_of_a_closed_generation_is_not_given_to_another_file(void **state)
{
	struct file *f = &files[0];
	struct data_extent ext;
	uint8_t bytes[BLOCK];

	(void)state;
	do_truncate(f, 0);
	do_write(f, 0, BLOCK, false, false);
	memcpy(bytes, f->bytes, BLOCK);
	assert_int_equal(items_run(&fsd, find_extent, &(struct find){ f->ino, 0, &ext }), 0);
	others_nr = 0;
	when_closed = empty_and_fill;
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	assert_memory_equal(device + ext.blkno * BLOCK, bytes, BLOCK);
	pool_give(fsd.pool, others, others_nr);
	check_blocks();
}

/* Of so many that want pages none may keep what the others wait for. */
static void a_write_that_waits_for_a_page_keeps_none(void **state)
{
	uint32_t pages[POOL_PAGES], few[2];
	struct file *f = &files[0];
	uint64_t *bytes = calloc(2, BLOCK);
	unsigned nr = 0, got = 0;

	(void)state;
	assert_non_null(bytes);
	do_truncate(f, 0);
	do_write(f, 0, 2 * BLOCK, false, false);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	pool_drop(&fsd, f->ino, f->ino);
	/* all but the two that a write within a block takes; it needs a third, for what the device has */
	for (unsigned i = 0; i < 60000 && nr < POOL_PAGES; i++) {
		if (pool_take(fsd.pool, &pages[nr], 1) == 1)
			nr++;
		else
			usleep(1000);	/* the keeper has not freed all yet */
	}
	assert_int_equal(nr, POOL_PAGES);
	pool_give(fsd.pool, pages, 2);
	memcpy(bytes, f->bytes, BLOCK);
	bytes[1] = 0x5a5a;
	start_write(f, bytes, 8, 8, false);
	for (unsigned i = 0; i < 60000 && !got; i++) {
		usleep(1000);
		if (stats_get(&fsd.stats.op_wait_pool))
			got = pool_take(fsd.pool, few, 2);
	}
	assert_int_equal(got, 2);
	pool_give(fsd.pool, few, 2);
	pool_give(fsd.pool, pages + 2, nr - 2);
	assert_int_equal(await(), 0);
	memcpy(f->bytes, bytes, BLOCK);
	check_all(f);
	do_truncate(f, 0);
	check_blocks();
	free(bytes);
}

/* Whose first block is in the pool, its second one a hole that gets no block yet. */
static void a_write_that_is_killed_while_it_waits_has_changed_nothing(void **state)
{
	struct file *f = &files[0];
	uint64_t *bytes = calloc(2, BLOCK);
	struct op *op;

	(void)state;
	assert_non_null(bytes);
	do_truncate(f, 0);
	do_write(f, 0, BLOCK, false, false);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	atomic_store(&waits_freed, NULL);
	atomic_store(&blocks_come, true);
	memset(bytes, 0x5a, 2 * BLOCK);
	start_write(f, bytes, 0, 2 * BLOCK, false);
	for (unsigned i = 0; i < 60000 && !atomic_load(&waits_freed); i++)
		usleep(1000);
	op = atomic_load(&waits_freed);
	assert_non_null(op);
	atomic_store(&blocks_come, false);
	op_fail(op, -EINTR);
	assert_int_equal(await(), -EINTR);
	check_all(f);
	do_truncate(f, 0);
	check_blocks();
	free(bytes);
}

/* Stores to a mapping of a file with a hole, on a full device: what has a block is kept, and the program is told of the rest. */
static void keeps_what_has_a_block(atomic_bool *is_full)
{
	struct file *f = &files[0];
	uint64_t *bytes = calloc(4, BLOCK);

	assert_non_null(bytes);
	do_truncate(f, 0);
	do_write(f, 0, BLOCK, false, false);
	do_write(f, 2 * BLOCK, 2 * BLOCK, false, false);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	for (unsigned i = 0; i < 4 * BLOCK / 8; i++)
		bytes[i] = 0x1122334455667788ull + i;
	atomic_store(is_full, true);
	start_write(f, bytes, 0, 4 * BLOCK, true);
	assert_int_equal(await(), -ENOSPC);
	start_write(f, bytes, 0, BLOCK, true);	/* no hole */
	assert_int_equal(await(), 0);
	start_write(f, bytes, 0, 4 * BLOCK, false);	/* the same by write(2): as much as goes before the hole, or nothing */
	assert_true(await() == -ENOSPC || request.len == BLOCK);
	atomic_store(is_full, false);
	memcpy(f->bytes, bytes, BLOCK);
	memcpy(f->bytes + 2 * BLOCK, bytes + 2 * BLOCK / 8, 2 * BLOCK);
	check_all(f);
	do_truncate(f, 0);
	check_blocks();
	free(bytes);
}

static void stores_that_have_a_block_are_kept_when_others_get_none(void **state)
{
	(void)state;
	keeps_what_has_a_block(&no_blocks);
	keeps_what_has_a_block(&no_metadata);
}

static int move_blocks(struct itx *tx, void *arg)
{
	const struct data_extent *ext = arg;
	struct disk_extent d = { .blkno = le64_of(ext->blkno) };
	struct key key = key_extent(files[0].ino, ext->iblock + ext->len - 1, ext->len);

	return item_put(tx, &key, &d, sizeof(d));
}

/* Blocks that the device does not have would stop every commit, and later every mount that is given them. */
static void an_extent_beyond_the_device_is_neither_written_nor_freed(void **state)
{
	struct file *f = &files[0];
	struct data_extent ext, beyond;

	(void)state;
	do_truncate(f, 0);
	do_write(f, 0, BLOCK, false, false);
	txn_commit_wait(&fsd, TXN_FSYNC, 0);
	pool_drop(&fsd, f->ino, f->ino);
	assert_int_equal(items_run(&fsd, find_extent, &(struct find){ f->ino, 0, &ext }), 0);
	beyond = ext;
	beyond.blkno = DEV_BLOCKS;
	assert_int_equal(items_run(&fsd, move_blocks, &beyond), 0);
	op_write(&fsd, ({ struct file_req *rq = new_req(f, 0, BLOCK, 0); rq->buf = calloc(1, BLOCK); rq; }));
	assert_int_equal(await(), -EIO);
	op_read(&fsd, new_req(f, 0, BLOCK, 0));
	assert_int_equal(await(), -EIO);
	assert_int_equal(items_run(&fsd, move_blocks, &ext), 0);
	check_all(f);
	do_truncate(f, 0);
	check_blocks();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_held_page_shows_only_its_own_block),
		cmocka_unit_test(a_truncation_that_does_not_happen_leaves_the_bytes),
		cmocka_unit_test(a_page_of_a_closed_generation_is_not_given_to_another_file),
		cmocka_unit_test(a_write_that_waits_for_a_page_keeps_none),
		cmocka_unit_test(a_write_that_is_killed_while_it_waits_has_changed_nothing),
		cmocka_unit_test(an_extent_beyond_the_device_is_neither_written_nor_freed),
		cmocka_unit_test(stores_that_have_a_block_are_kept_when_others_get_none),
		cmocka_unit_test(a_change_by_anybody_takes_the_capability),
		cmocka_unit_test(a_store_that_is_applied_meanwhile_is_data),
		cmocka_unit_test(a_file_reads_as_it_was_written),
		cmocka_unit_test(truncation_gives_every_block_back),
		cmocka_unit_test(what_the_device_has_behind_the_end_is_not_shown_when_a_file_grows),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
