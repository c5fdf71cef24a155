/*
 * Stores to mappings and another node that writes to the same page, with a write(2) and a read beside them: what is written
 * back when, and whose bytes are in the file afterwards (services/fsd/mapped.c, busy.c).
 */
#include "fsd_data_fakes.h"
#include "services/fsd/write_op.h"

static void a_store_leaves_what_another_node_writes_to_the_same_page(void **state)
{
	struct file *f = &files[0];
	uint64_t page[BLOCK / 8], stored = 0x1122334455667788;

	(void)state;
	begin_with_page(f, page);
	page[3] = stored;
	start_write(f, page, 0, BLOCK, true);
	assert_int_equal(await(), 0);	/* it waits for nobody */
	poke(f, 3, 7);
	poke(f, 5, 9);
	/* what was stored later is compared with what the kernel has now, pending writes included */
	page[5] = 9;
	page[6] = stored;
	start_write(f, page, 0, BLOCK, true);
	assert_int_equal(await(), 0);
	grant_one();
	grant_one();
	wait_applied(f);
	poke(f, 9, 11);
	memcpy(f->bytes + 3 * 8, &stored, 8);
	memcpy(f->bytes + 6 * 8, &stored, 8);
	atomic_store(&held, LOCK_MODE_WRITE);
	check_all(f);
	/* and a page that is as it was says nothing */
	atomic_store(&held, LOCK_MODE_READ);
	memcpy(page, f->bytes, BLOCK);
	start_write(f, page, 0, BLOCK, true);
	assert_int_equal(await(), 0);
	assert_false(pending_is_there(f->ino));
	atomic_store(&held, LOCK_MODE_WRITE);
	check_all(f);
}

static void a_write_that_the_page_has_already_is_written_once(void **state)
{
	struct file *f = &files[0];
	uint64_t page[BLOCK / 8];

	(void)state;
	/* the write was there first */
	begin_with_page(f, page);
	page[9] = 0x9999;
	start_write(f, page, 72, 8, false);
	page[3] = 0x3333;
	start_write(f, page, 0, BLOCK, true);
	assert_int_equal(await(), 0);
	grant_one();
	assert_int_equal(await(), 0);	/* the write */
	poke(f, 9, 0xbbbb);		/* of another node, after it */
	grant_one();
	wait_applied(f);
	memcpy(f->bytes + 3 * 8, &page[3], 8);
	atomic_store(&held, LOCK_MODE_WRITE);
	check_all(f);

	/* the page was there first, with what the write will bring */
	begin_with_page(f, page);
	page[3] = 0x4444;
	page[9] = 0xaaaa;
	start_write(f, page, 0, BLOCK, true);
	assert_int_equal(await(), 0);
	start_write(f, page, 72, 8, false);
	grant_one();
	wait_applied(f);
	assert_int_equal(peek(f, 3), 0x4444);
	assert_int_not_equal(peek(f, 9), 0xaaaa);
	grant_one();
	assert_int_equal(await(), 0);	/* the write */
	memcpy(f->bytes + 3 * 8, &page[3], 8);
	memcpy(f->bytes + 9 * 8, &page[9], 8);
	atomic_store(&held, LOCK_MODE_WRITE);
	check_all(f);
}

/* The page was there first and has no answer yet when the write comes. */
static void a_write_takes_what_is_its_from_a_page_without_an_answer(void **state)
{
	struct file *f = &files[0];
	uint64_t page[BLOCK / 8];

	(void)state;
	begin_with_page(f, page);
	page[3] = 0x3131;
	page[9] = 0x9191;
	stops_writeback = true;
	writeback_holds = 0;
	start_write(f, page, 0, BLOCK, true);
	assert_non_null(atomic_load(&stopped));	/* its transactions were in this thread */
	stops_writeback = false;
	assert_false(pending_is_there(f->ino));
	start_write(f, page, 72, 8, false);
	op_wake(atomic_exchange(&stopped, NULL));
	assert_int_equal(await(), 0);	/* the page */
	/* whoever came first has its grant, the lock is lost, another node writes, the other has one */
	grant_one();
	for (unsigned i = 0; peek(f, 9) != 0x9191 && peek(f, 3) != 0x3131; i++) {
		assert_true(i < 60000);
		usleep(1000);
	}
	if (peek(f, 9) == 0x9191) {
		poke(f, 9, 0xbbbb);
		memcpy(f->bytes + 9 * 8, &(uint64_t){ 0xbbbb }, 8);
	} else {
		memcpy(f->bytes + 9 * 8, &page[9], 8);
	}
	memcpy(f->bytes + 3 * 8, &page[3], 8);
	grant_one();
	assert_int_equal(await(), 0);	/* the write */
	wait_applied(f);
	atomic_store(&held, LOCK_MODE_WRITE);
	check_all(f);
}

/* Another node has written to the file behind its end. */
static int grow_run(struct itx *tx, void *arg)
{
	struct file *f = arg;
	struct cinode ci;
	int ret = inode_get(tx, f->ino, &ci);

	ci.d.size = le64_of(f->size);
	return ret == 0 ? inode_put(tx, f->ino, &ci, true) : ret;
}

/* The kernel may think that the file is longer than it is; what its page has there was stored by nobody. */
static void a_store_at_the_end_leaves_what_another_node_appends(void **state)
{
	struct file *f = &files[0];
	uint64_t page[BLOCK / 8];

	(void)state;
	begin_with_page(f, page);
	atomic_store(&held, LOCK_MODE_WRITE);
	do_truncate(f, 13);
	atomic_store(&held, LOCK_MODE_READ);
	memset((uint8_t *)page + 13, 0, BLOCK - 13);
	((uint8_t *)page)[12] ^= 0xff;
	start_write(f, page, 0, 16, true);
	assert_int_equal(await(), 0);
	assert_int_equal(request.len, 16);	/* the kernel has what it asked for */
	assert_true(pending_is_there(f->ino));
	f->size = 16;
	poke(f, 1, 0xa1b2c3d4e5f60718);
	assert_int_equal(items_run(&fsd, grow_run, f), 0);
	grant_one();
	wait_applied(f);
	memcpy(f->bytes + 8, (uint8_t *)page + 8, 5);
	atomic_store(&held, LOCK_MODE_WRITE);
	check_all(f);
}

#define HOLE	(12u * BLOCK)

/* Pages of a hole wait for blocks; then another node wants the lock, whose revoke waits for them. */
static void pages_that_wait_for_blocks_are_answered_when_their_lock_is_wanted(void **state)
{
	struct file *f = &files[0];
	uint64_t page[HOLE / 8];
	uint32_t pages[POOL_PAGES];
	unsigned nr = 0;
	struct op *op;

	(void)state;
	begin_with_page(f, page);
	atomic_store(&held, LOCK_MODE_WRITE);
	do_truncate(f, 0);
	do_truncate(f, HOLE);
	memset(page, 0, sizeof(page));
	for (unsigned i = 3; i < HOLE / 8; i += BLOCK / 8)
		page[i] = 0x7777;
	txn_commit_wait(&fsd, TXN_FULL, 0);
	atomic_store(&blocks_come, true);
	start_write(f, page, 0, HOLE, true);
	op = atomic_exchange(&waits_freed, NULL);
	assert_non_null(op);		/* its transaction was in this thread */
	assert_false(request.done);
	/* They keep no page of the pool, where others were made room for them. */
	while (nr < POOL_PAGES && pool_take(fsd.pool, &pages[nr], 1))
		nr++;
	pool_give(fsd.pool, pages, nr);
	assert_int_equal(((struct write_op *)op)->pages_nr, 0);
	assert_true(nr >= HOLE / BLOCK);
	atomic_store(&lock_wanted, true);
	op_wake(op);
	assert_int_equal(await(), 0);
	assert_true(pending_is_there(f->ino));
	for (unsigned i = 0; !(op = atomic_exchange(&waits_freed, NULL)); i++) {
		assert_true(i < 60000);
		usleep(1000);
	}
	atomic_store(&lock_wanted, false);
	atomic_store(&blocks_come, false);
	op_wake(op);
	wait_applied(f);
	memcpy(f->bytes, page, HOLE);
	check_all(f);
}

/* A store that is answered and cannot be applied. */
static void fail_store(struct file *f, int err)
{
	uint64_t page[BLOCK / 8];

	begin_with_page(f, page);
	page[3] = 0x5555;
	start_write(f, page, 0, BLOCK, true);
	assert_int_equal(await(), 0);
	atomic_store(&quota_says, err);
	grant_one();
	wait_applied(f);
	atomic_store(&quota_says, 0);
}

static int fsync_says(const struct file *f)
{
	struct op op = { .fsd = &fsd };

	return data_wait_pending(&op, f->ino, true);
}

static void a_store_that_fails_is_told_once_to_who_can_ask(void **state)
{
	struct file *f = &files[0];

	(void)state;
	fail_store(f, -EDQUOT);
	assert_int_equal(fsync_says(f), -EDQUOT);
	assert_int_equal(fsync_says(f), 0);
	/* the file is gone, on another node or here */
	fail_store(f, -ESTALE);
	assert_int_equal(fsync_says(f), 0);
	fail_store(f, -EDQUOT);
	pending_nobody_asks(f->ino);
	assert_int_equal(fsync_says(f), 0);
	atomic_store(&held, LOCK_MODE_WRITE);
	check_all(f);
}

static void a_read_of_a_page_waits_for_the_write_that_the_kernel_has_in_it(void **state)
{
	struct file *f = &files[0];
	uint64_t page[BLOCK / 8];

	(void)state;
	begin_with_page(f, page);
	page[2] = 0x2222;
	start_write(f, page, 16, 8, false);
	op_read(&fsd, new_req(f, 0, BLOCK, 0));
	assert_false(request.done);	/* it would run in this thread */
	grant_one();
	assert_int_equal(await(), 0);
	assert_int_equal(await(), 0);	/* in whatever order */
	atomic_store(&held, LOCK_MODE_WRITE);
	memcpy(f->bytes + 2 * 8, &page[2], 8);
	assert_memory_equal(request.buf, f->bytes, BLOCK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_store_leaves_what_another_node_writes_to_the_same_page),
		cmocka_unit_test(a_write_that_the_page_has_already_is_written_once),
		cmocka_unit_test(a_write_takes_what_is_its_from_a_page_without_an_answer),
		cmocka_unit_test(a_store_at_the_end_leaves_what_another_node_appends),
		cmocka_unit_test(pages_that_wait_for_blocks_are_answered_when_their_lock_is_wanted),
		cmocka_unit_test(a_store_that_fails_is_told_once_to_who_can_ask),
		cmocka_unit_test(a_read_of_a_page_waits_for_the_write_that_the_kernel_has_in_it),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
