/*
 * Stores to mappings that a process has answered and not applied when it dies: the next process applies them, in the order
 * of their answers, and nothing else (TABLE_PENDING, services/fsd/mapped.c).
 */
#include "fsd_data_fakes.h"

#include <sys/wait.h>

#include "log.h"
#include "services/fsd/lost.h"

/* The file, and its page as the next process's kernel has it; the first process tells. */
static struct left {
	struct file file;
	uint64_t page[BLOCK / 8];
} *left;

static void store(struct file *f, const uint64_t *page)
{
	start_write(f, page, 0, BLOCK, true);
	assert_int_equal(await(), 0);
}

/* Answers two stores to a word, and one to another, which all wait for the lock, while another node writes; and dies. */
static void first_process(void)
{
	struct file *f = &files[0];
	uint64_t page[BLOCK / 8];

	begin_with_page(f, page);
	page[3] = 0xa3;
	store(f, page);
	page[3] = 0xb3;
	page[5] = 0xb5;
	store(f, page);
	poke(f, 5, 0xc5);
	poke(f, 7, 0xc7);
	page[7] = 0xc7;
	memcpy(f->bytes, page, BLOCK);
	left->file = *f;
	memcpy(left->page, page, BLOCK);
	_exit(0);
}

static int setup_next(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	setup_host();
	left = shared(sizeof(*left));
	pid = fork();
	if (pid == 0) {
		if (setup_process(false) == 0)
			first_process();
		_exit(1);
	}
	assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
	assert_int_equal(status, 0);
	files[0] = left->file;
	return setup_process(true);
}

/* Of some inode, and malformed. */
struct bad_row {
	uint64_t ino;
	bool is_there;
};

static int put_row(struct itx *tx, void *arg)
{
	const struct bad_row *b = arg;
	uint64_t be[2] = { htobe64(b->ino), htobe64(1) };
	MDB_val mk = { sizeof(be), be }, mv = { 10, "ten bytes" };

	tx->changes++;
	return b->is_there ? mdb_put(tx->txn, items_dbi(tx, TABLE_PENDING), &mk, &mv, 0)
			   : mdb_del(tx->txn, items_dbi(tx, TABLE_PENDING), &mk, NULL);
}

static int count_rows(struct itx *tx, void *arg)
{
	MDB_stat st;
	int rc = mdb_stat(tx->txn, items_dbi(tx, TABLE_PENDING), &st);

	*(size_t *)arg = rc ? 0 : st.ms_entries;
	return rc;
}

static size_t rows(void)
{
	size_t nr;

	assert_int_equal(items_run(&fsd, count_rows, &nr), 0);
	return nr;
}

/* Whoever ends now takes them along. */
static void what_is_answered_and_not_applied_counts_as_not_committed(void **state)
{
	struct lost l;

	(void)state;
	assert_int_equal(lost_count(&fsd, &l), 0);
	assert_int_equal(l.mapped, 2);
	assert_false(lost_is_none(&l));
	l.items = l.pages = 0;
	assert_false(lost_is_none(&l));
	assert_true(lost_report_left(&fsd, 1));
}

static char said[4096];

/* What the report of a fenced mount is. */
static const char *report(void)
{
	int err = dup(STDERR_FILENO);
	FILE *f = tmpfile();

	assert_true(f && err >= 0);
	log_flush();
	dup2(fileno(f), STDERR_FILENO);
	lost_report(&fsd);
	log_flush();
	dup2(err, STDERR_FILENO);
	close(err);
	rewind(f);
	said[fread(said, 1, sizeof(said) - 1, f)] = '\0';
	fclose(f);
	return said;
}

/* Stores that the kernel has told nobody of are lost with a mount that is cut off: it never says then that nothing is. */
static void stores_that_the_kernel_has_may_be_lost_as_long_as_a_file_can_be_mapped(void **state)
{
	(void)state;
	commit();
	assert_non_null(strstr(report(), "nothing is lost"));
	assert_null(strstr(said, "mappings"));
	atomic_store(&fsd.was_cut, true);
	lost_note_open(&fsd, O_RDONLY);
	lost_note_open(&fsd, O_WRONLY | O_APPEND);
	assert_false(lost_may_have_stores(&fsd) || lost_report_cut(&fsd));
	lost_note_open(&fsd, O_RDWR);
	lost_note_open(&fsd, O_RDWR | O_CREAT | O_TRUNC);
	lost_note_release(&fsd, O_RDONLY);
	lost_note_release(&fsd, O_WRONLY | O_APPEND);
	lost_note_release(&fsd, O_RDWR);
	assert_true(lost_report_cut(&fsd));
	assert_non_null(strstr(report(), "mappings and not synced may be lost"));
	assert_null(strstr(said, "nothing is lost"));
	atomic_store(&fsd.was_cut, false);
	assert_false(lost_report_cut(&fsd));
	lost_note_release(&fsd, O_RDWR);
	assert_non_null(strstr(report(), "nothing is lost"));
	/* what an earlier process has opened is not known, and what was stored to it neither */
	atomic_store(&fsd.is_resumed, true);
	lost_note_release(&fsd, O_RDWR);
	assert_null(strstr(report(), "nothing is lost"));
	assert_non_null(strstr(said, "mappings and not synced may be lost"));
	atomic_store(&fsd.is_resumed, false);
	assert_false(lost_may_have_stores(&fsd));
}

static void what_is_answered_outlives_the_process_and_is_applied_in_order(void **state)
{
	struct file *f = &files[0];

	(void)state;
	assert_int_equal(rows(), 2);
	assert_false(pending_is_there(f->ino));
	atomic_store(&held, LOCK_MODE_READ);
	assert_int_equal(data_start_pending(&fsd), 0);
	assert_true(pending_is_there(f->ino));
	/* What is stored now comes after it, and does not take its rows. */
	left->page[9] = 0xd9;
	store(f, left->page);
	assert_int_equal(rows(), 3);
	assert_int_equal(peek(f, 5), 0xc5);
	for (unsigned i = 0; i < 3; i++)
		grant_one();
	wait_applied(f);
	assert_int_equal(rows(), 0);
	memcpy(f->bytes + 9 * 8, &left->page[9], 8);
	atomic_store(&held, LOCK_MODE_WRITE);
	check_all(f);
}

static void a_row_that_is_none_is_not_applied(void **state)
{
	struct bad_row bad = { files[0].ino, true };

	(void)state;
	assert_int_equal(items_run(&fsd, put_row, &bad), 0);
	assert_int_equal(data_start_pending(&fsd), -EIO);
	bad.is_there = false;
	assert_int_equal(items_run(&fsd, put_row, &bad), 0);
	assert_int_equal(data_start_pending(&fsd), 0);
	check_all(&files[0]);
}

/* What other files have in mappings costs a write(2) nothing: it does not even look at it. */
static void a_write_looks_at_rows_of_its_own_file_only(void **state)
{
	struct file *f = &files[0];
	struct bad_row below = { f->ino - 1, true }, above = { f->ino + 1, true }, own = { f->ino, true };

	(void)state;
	assert_int_equal(items_run(&fsd, put_row, &below), 0);
	assert_int_equal(items_run(&fsd, put_row, &above), 0);
	left->page[11] = 0xe1;
	start_write(f, left->page, 11 * 8, 8, false);
	assert_int_equal(await(), 0);
	memcpy(f->bytes + 11 * 8, &left->page[11], 8);
	assert_int_equal(items_run(&fsd, put_row, &own), 0);
	start_write(f, left->page, 11 * 8, 8, false);
	assert_int_equal(await(), -EIO);
	below.is_there = above.is_there = own.is_there = false;
	assert_int_equal(items_run(&fsd, put_row, &below), 0);
	assert_int_equal(items_run(&fsd, put_row, &above), 0);
	assert_int_equal(items_run(&fsd, put_row, &own), 0);
	check_all(f);
}

static int teardown_next(void **state)
{
	munmap(left, sizeof(*left));
	return teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_answered_and_not_applied_counts_as_not_committed),
		cmocka_unit_test(what_is_answered_outlives_the_process_and_is_applied_in_order),
		cmocka_unit_test(stores_that_the_kernel_has_may_be_lost_as_long_as_a_file_can_be_mapped),
		cmocka_unit_test(a_row_that_is_none_is_not_applied),
		cmocka_unit_test(a_write_looks_at_rows_of_its_own_file_only),
	};

	return cmocka_run_group_tests(tests, setup_next, teardown_next);
}
