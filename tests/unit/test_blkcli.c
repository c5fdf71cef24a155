/* What a client of blockd is promised: I/O, deadlines, fencing, and restarts that are only a pause. */
#include "blockd_rig.h"
#include "ctl.h"

/* ---- I/O ---- */

static void what_is_written_is_read_again(void **state)
{
	struct fixture *fx = *state;
	size_t big = (3u << 20) + 4096;
	char *in = malloc(big + 1), *out = malloc(big + 1);
	struct blkcli *c;
	size_t len;
	char *buf, *pool;

	start(fx);
	c = client(fx);
	assert_int_equal(blkcli_meta_blocks(c), META_BLOCKS);
	assert_int_equal(blkcli_data_blocks(c), DATA_BLOCKS);
	assert_int_equal(blkcli_fsid(c), 0x1122334455667788ull);

	/* Copied, unaligned in memory, longer than one piece. */
	fill(in + 1, big - 1, 1);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, (uint32_t)big, in + 1), 0);
	assert_int_equal(run(c, BLK_OP_FLUSH, BLK_DEV_DATA, 0, 0, NULL), 0);
	memset(out, 0, big + 1);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, (uint32_t)big, out + 1), 0);
	assert_memory_equal(in + 1, out + 1, big);
	device_read(fx->data, DATA_OFF, out, big);
	assert_memory_equal(in + 1, out, big);

	/* From the region and from the pool, as they are. */
	buf = blkcli_buf_alloc(c, 2u << 20);
	assert_non_null(buf);
	fill(buf, 2u << 20, 2);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, 32u << 20, 2u << 20, buf), 0);
	pool = blkcli_pool(c, &len);
	assert_non_null(pool);
	assert_int_equal(len, POOL_BYTES);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, 32u << 20, 2u << 20, pool + 4096), 0);
	assert_memory_equal(pool + 4096, buf, 2u << 20);
	blkcli_buf_free(c, buf);

	/* Both devices, as lib/core sees them. */
	{
		struct block_dev dev = blkcli_block_dev(c);
		struct block_write w[3];

		for (unsigned i = 0; i < 3; i++)
			w[i] = (struct block_write){ .blkno = 100 + 7 * i, .data = in + LARGE_SIZE * i };
		assert_int_equal(dev.write(dev.arg, w, 3), 0);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(dev.read(dev.arg, w[i].blkno, out), 0);
			assert_memory_equal(out, w[i].data, LARGE_SIZE);
		}
		assert_int_not_equal(dev.random(dev.arg), dev.random(dev.arg));
	}
	assert_int_equal(blkcli_flush(c, BLK_DEV_META), 0);
	assert_int_equal(blkcli_read_small(c, BLK_DEV_META, SUPER_BLKNO, out), 0);
	assert_int_equal(block_crc(out, SMALL_SIZE), le32_get(((struct disk_header *)out)->crc));

	/* Discarded blocks of a file read as zero. */
	assert_int_equal(run(c, BLK_OP_DISCARD, BLK_DEV_DATA, DATA_OFF, 1u << 20, NULL), 0);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, out), 0);
	memset(in, 0, 4096);
	assert_memory_equal(in, out, 4096);

	blkcli_close(c);
	assert_int_equal(stop(fx, SIGTERM), 0);
	expect_log(fx, fx->no_uring[0] == '1' ? "through threads" : "through io_uring");
	assert_int_equal(access(fx->sock, F_OK), -1);
	free(in);
	free(out);
}

static void many_operations_run_in_one_call(void **state)
{
	enum { NR = 1000 };
	struct fixture *fx = *state;
	struct blkcli_op *ops = calloc(NR, sizeof(*ops));
	char *in = malloc(NR * 4096), *out = malloc(NR * 4096);
	struct blkcli *c;

	start(fx);
	c = client(fx);
	fill(in, NR * 4096, 3);
	for (unsigned i = 0; i < NR; i++)
		ops[i] = (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_DATA,
					     .dev_off = DATA_OFF + (i * 7919u % NR) * 4096,
					     .len = 4096, .buf = in + i * 4096 };
	assert_int_equal(blkcli_run(c, ops, NR), 0);
	for (unsigned i = 0; i < NR; i++) {
		ops[i].op = BLK_OP_READ;
		ops[i].buf = out + i * 4096;
	}
	assert_int_equal(blkcli_run(c, ops, NR), 0);
	assert_memory_equal(in, out, NR * 4096);
	assert_int_equal(blkcli_run(c, NULL, 0), 0);
	blkcli_close(c);
	free(ops);
	free(in);
	free(out);
}

static void bad_operations_are_refused_one_by_one(void **state)
{
	struct fixture *fx = *state;
	struct blkcli_op ops[3];
	struct blkcli *c;
	char *buf = aligned_alloc(4096, 8192);

	start(fx);
	c = client(fx);
	memset(buf, 1, 8192);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF + 512, 4096, buf), -EINVAL);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 512, buf), -EINVAL);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 0, buf), -EINVAL);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, NULL), -EINVAL);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEVS_NR, DATA_OFF, 4096, buf), -EINVAL);
	assert_int_equal(run(c, 77, BLK_DEV_DATA, DATA_OFF, 4096, buf), -EINVAL);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_BLOCKS << SMALL_SHIFT, 4096, buf),
			 -EINVAL);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, UINT64_MAX - 4095, 4096, buf), -EINVAL);
	assert_int_equal(blkcli_write_small(c, BLK_DEV_META, SUPER_BLKNO, buf), -EPERM);
	assert_int_equal(blkcli_write_small(c, BLK_DEV_DATA, SUPER_BLKNO, buf), -EPERM);
	assert_int_equal(blkcli_read_small(c, BLK_DEV_DATA, UINT64_MAX, buf), -EINVAL);
	assert_null(blkcli_buf_alloc(c, REGION_BYTES + 1));

	/* A bad one among good ones. */
	for (unsigned i = 0; i < 3; i++)
		ops[i] = (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_DATA, .len = 4096,
					     .dev_off = DATA_OFF + i * 4096, .buf = buf };
	ops[1].dev_off = DATA_BLOCKS << SMALL_SHIFT;
	assert_int_equal(blkcli_run(c, ops, 3), -EINVAL);
	assert_int_equal(ops[0].result, 0);
	assert_int_equal(ops[1].result, -EINVAL);
	assert_int_equal(ops[2].result, 0);
	blkcli_close(c);
	free(buf);
}

static uint64_t status_value(const struct msg_status_reply *r, const char *name)
{
	for (uint32_t i = 0; i < r->values_nr; i++)
		if (strcmp(r->values[i].name, name) == 0)
			return r->values[i].value;
	fail_msg("the status has no %s", name);
	return 0;
}

static void an_error_of_the_device_is_answered_and_counted(void **state)
{
	struct fixture *fx = *state;
	struct blkcli *c;
	char *buf = aligned_alloc(4096, 4096);
	struct msg_status_reply *st;
	char path[256];
	int fd;

	start(fx);
	c = client(fx);
	/* The device loses its second half under our feet. */
	fd = open(fx->data, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DATA_BLOCKS << SMALL_SHIFT >> 1), 0);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, (DATA_BLOCKS - 1) << SMALL_SHIFT, 4096, buf),
			 -EIO);
	assert_int_equal(run(c, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
	close(fd);
	st = malloc(sizeof(*st));
	assert_non_null(st);
	snprintf(path, sizeof(path), "%s/ctl-blockd.sock", fx->run);
	assert_int_equal(ctl_query(path, DEADLINE_S * 1000, st), 0);
	assert_int_equal(st->pid, fx->pid);
	assert_non_null(strstr(st->state, "serving volume 1122334455667788"));
	assert_int_equal(status_value(st, "read_errors"), 1);
	assert_int_equal(status_value(st, "data_reads"), 2);
	assert_int_equal(status_value(st, "clients"), 1);
	free(st);
	blkcli_close(c);
	stop(fx, SIGTERM);
	expect_log(fx, "read of 4096 bytes");
	free(buf);
}

struct buf_thread {
	struct blkcli *c;
	pthread_t thread;
	atomic_bool got;
};

static void *buf_taker(void *arg)
{
	struct buf_thread *t = arg;
	void *buf = blkcli_buf_alloc(t->c, REGION_BYTES / 2);

	atomic_store(&t->got, true);
	blkcli_buf_free(t->c, buf);
	return NULL;
}

static void buffers_wait_for_their_turn(void **state)
{
	struct fixture *fx = *state;
	struct buf_thread t = { 0 };
	char *a, *b, *region;
	size_t len;

	start(fx);
	t.c = client(fx);
	region = blkcli_region(t.c, &len);
	assert_int_equal(len, REGION_BYTES);
	a = blkcli_buf_alloc(t.c, REGION_BYTES / 2);
	b = blkcli_buf_alloc(t.c, REGION_BYTES / 2);
	assert_true(a != b && a >= region && b >= region);
	assert_true((a < b ? b : a) + REGION_BYTES / 2 <= region + len);
	assert_int_equal(pthread_create(&t.thread, NULL, buf_taker, &t), 0);
	assert_false(atomic_load(&t.got));
	blkcli_buf_free(t.c, a);
	pthread_join(t.thread, NULL);
	assert_true(atomic_load(&t.got));
	blkcli_buf_free(t.c, b);
	blkcli_close(t.c);
}

/* ---- death ---- */

#define WRITERS		4
#define WRITER_BLOCKS	64

struct writer {
	struct blkcli *c;
	unsigned nr;
	pthread_t thread;
	atomic_bool *stop;
	atomic_ulong rounds;
	atomic_int err;
	const char *_Atomic what;
	uint64_t seeds[WRITER_BLOCKS];
};

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	uint64_t first = DATA_OFF + (uint64_t)w->nr * WRITER_BLOCKS * 4096;
	uint64_t x = w->nr + 1;
	char *mine = aligned_alloc(4096, 4096);
	char *shared = blkcli_buf_alloc(w->c, 4096);
	size_t len;
	char *pool = (char *)blkcli_pool(w->c, &len) + w->nr * 4096;

	while (!atomic_load(w->stop) && !w->err) {
		char *bufs[3] = { mine, shared, pool };
		char want[4096];
		unsigned block, old;
		char *buf;

		x = x * 6364136223846793005u + 1442695040888963407u;
		block = (unsigned)(x >> 33) % WRITER_BLOCKS;
		old = (unsigned)(x >> 43) % WRITER_BLOCKS;
		buf = bufs[(x >> 53) % 3];
		fill(buf, 4096, x);
		w->what = "write";
		w->err = run(w->c, BLK_OP_WRITE, BLK_DEV_DATA, first + block * 4096, 4096, buf);
		if (w->err)
			break;
		w->seeds[block] = x;
		if ((x >> 60) == 0) {
			w->what = "flush";
			w->err = blkcli_flush(w->c, BLK_DEV_DATA);
		} else if (w->seeds[old]) {
			w->what = "read";
			w->err = run(w->c, BLK_OP_READ, BLK_DEV_DATA, first + old * 4096, 4096, buf);
			fill(want, 4096, w->seeds[old]);
			if (w->err == 0 && memcmp(buf, want, 4096) != 0) {
				w->what = "comparison";
				w->err = -EILSEQ;
			}
		}
		atomic_fetch_add(&w->rounds, 1);
	}
	blkcli_buf_free(w->c, shared);
	free(mine);
	return NULL;
}

/* Every writer gets `more` rounds further, within the deadline. */
static void expect_progress(struct writer *w, unsigned long more)
{
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	unsigned long goal[WRITERS];

	for (unsigned i = 0; i < WRITERS; i++)
		goal[i] = atomic_load(&w[i].rounds) + more;
	for (unsigned i = 0; i < WRITERS; i++) {
		while (atomic_load(&w[i].rounds) < goal[i] && !w[i].err && clock_mono_ns() < end)
			poll(NULL, 0, 1);
		if (w[i].err || atomic_load(&w[i].rounds) < goal[i]) {
			struct blkcli_stats st;

			blkcli_get_stats(w[i].c, &st);
			show_log();
			fprintf(stderr, "writer %u: %s at round %lu: %s (connected %d, reconnects %"
				PRIu64 ", resent %" PRIu64 ")\n", i, w[i].what,
				atomic_load(&w[i].rounds), strerror(-w[i].err), st.connected,
				st.reconnects, st.resent);
			/* Its threads are stuck or failed, and cmocka would go on beside them. */
			_exit(1);
		}
	}
}

static void killed_blockd_costs_a_pause_and_nothing_else(void **state)
{
	const char *env = getenv("ROUNDS");
	unsigned rounds = env ? (unsigned)atoi(env) : 6;
	struct fixture *fx = *state;
	struct writer w[WRITERS];
	struct blkcli_stats st;
	atomic_bool must_stop = false;
	struct blkcli *c;
	char buf[4096], want[4096];
	unsigned compared = 0;

	start(fx);
	c = client(fx);
	memset(w, 0, sizeof(w));
	for (unsigned i = 0; i < WRITERS; i++) {
		w[i].c = c;
		w[i].nr = i;
		w[i].stop = &must_stop;
		w[i].what = "start";
		assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
	}
	for (unsigned r = 0; r < rounds; r++) {
		expect_progress(w, 20 + 13 * r);
		stop(fx, SIGKILL);
		start(fx);
	}
	expect_progress(w, 20);
	atomic_store(&must_stop, true);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(w[i].thread, NULL);
	blkcli_get_stats(c, &st);
	assert_int_equal(st.reconnects, rounds);
	blkcli_close(c);
	assert_int_equal(stop(fx, SIGTERM), 0);

	for (unsigned i = 0; i < WRITERS; i++) {
		assert_int_equal(w[i].err, 0);
		for (unsigned b = 0; b < WRITER_BLOCKS; b++) {
			if (!w[i].seeds[b])
				continue;
			device_read(fx->data, DATA_OFF + (i * WRITER_BLOCKS + b) * 4096ull, buf, 4096);
			fill(want, 4096, w[i].seeds[b]);
			assert_memory_equal(buf, want, 4096);
			compared++;
		}
	}
	assert_true(compared > WRITERS);
}

static atomic_uint ups, downs;

static void count_state(void *arg, bool connected)
{
	(void)arg;
	atomic_fetch_add(connected ? &ups : &downs, 1);
}

static void pool_and_region_survive(void **state)
{
	struct blkcli_conf conf = { .kind = BLK_KIND_FSD, .rid = RID, .region_bytes = REGION_BYTES,
				    .on_state = count_state, .deadline_ms = DEADLINE_S * 1000 };
	struct fixture *fx = *state;
	struct blkcli *c, *c2;
	char *pool, *region, *want = aligned_alloc(4096, 65536);
	size_t len;

	conf.socket_path = fx->sock;
	ups = downs = 0;
	start(fx);
	assert_int_equal(blkcli_open(&c, &conf), 0);
	blkcli_lease(c, BLK_KIND_FSD, 1, clock_boot_ns() + LEASE_NS);
	pool = blkcli_pool(c, &len);
	region = blkcli_region(c, &len);
	fill(pool, 65536, 5);
	fill(region, 65536, 6);
	stop(fx, SIGKILL);
	start(fx);
	/* The new blockd writes from both what was put in before. */
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 65536, pool), 0);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF + 65536, 65536, region), 0);
	device_read(fx->data, DATA_OFF, want, 65536);
	assert_memory_equal(want, pool, 65536);
	device_read(fx->data, DATA_OFF + 65536, want, 65536);
	assert_memory_equal(want, region, 65536);
	while (atomic_load(&ups) < 2)	/* said by another thread than the one that had its answer */
		poll(NULL, 0, 2);
	assert_true(atomic_load(&ups) == 2 && atomic_load(&downs) == 1);

	/* And another client finds the same pool. */
	c2 = client(fx);
	assert_memory_equal(blkcli_pool(c2, &len), pool, 65536);
	blkcli_close(c2);
	blkcli_close(c);
	free(want);
}

/* A client whose deadline is so short that a busy machine may need several tries to open it. */
static struct blkcli *open_in_time(const struct blkcli_conf *conf)
{
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	struct blkcli *c;
	int ret;

	do
		ret = blkcli_open(&c, conf);
	while (ret == -ETIMEDOUT && clock_mono_ns() < end);
	assert_int_equal(ret, 0);
	return c;
}

static void a_deadline_ends_a_call(void **state)
{
	struct blkcli_conf conf = { .kind = BLK_KIND_FSD, .rid = RID, .region_bytes = REGION_BYTES,
				    .deadline_ms = 100 };
	struct fixture *fx = *state;
	struct blkcli *c, *slow;
	struct blkcli_stats st;
	char *buf;

	conf.socket_path = fx->sock;
	assert_int_equal(blkcli_open(&c, &conf), -ETIMEDOUT);
	start(fx);
	slow = client(fx);
	conf.deadline_ms = DEADLINE_S * 1000;
	assert_int_equal(blkcli_open(&c, &conf), 0);
	blkcli_close(c);

	/* blockd hangs: the call comes back, and later ones work when it goes on. */
	conf.deadline_ms = 500;
	c = open_in_time(&conf);
	assert_int_equal(kill(fx->pid, SIGSTOP), 0);
	assert_int_equal(waitpid(fx->pid, NULL, WUNTRACED), fx->pid);
	buf = blkcli_buf_alloc(c, 4096);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 4096, buf), -ETIMEDOUT);
	assert_int_equal(blkcli_revoke(c, 5), -ETIMEDOUT);
	assert_int_equal(kill(fx->pid, SIGCONT), 0);
	assert_int_equal(run(slow, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
	blkcli_get_stats(c, &st);
	assert_int_equal(st.timeouts, 1);
	blkcli_buf_free(c, buf);
	blkcli_close(c);

	/* blockd is dead: the same, and the write is not made later. */
	c = open_in_time(&conf);
	stop(fx, SIGKILL);
	buf = blkcli_buf_alloc(c, 4096);
	fill(buf, 4096, 77);
	assert_int_equal(run(c, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF + 8192, 4096, buf), -ETIMEDOUT);
	start(fx);
	assert_int_equal(run(slow, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
	do
		blkcli_get_stats(c, &st);
	while (!st.connected);
	assert_int_equal(st.resent, 0);
	blkcli_buf_free(c, buf);
	blkcli_close(c);
	blkcli_close(slow);
}

/* ---- tokens ---- */

static void a_passed_term_writes_no_more(void **state)
{
	struct fixture *fx = *state;
	struct blkcli *old, *new, *quorumd, *fsd;
	char *buf = aligned_alloc(4096, 4096);

	memset(buf, 3, 4096);
	start(fx);
	old = client_as(fx, BLK_KIND_SERVERD, RID, 4);
	quorumd = client_as(fx, BLK_KIND_QUORUMD, RID, 0);
	fsd = client(fx);
	assert_int_equal(blkcli_write_small(old, BLK_DEV_META, 512, buf), 0);
	assert_int_equal(blkcli_set_term(fsd, 9), -EPERM);
	assert_int_equal(blkcli_set_term(quorumd, 5), 0);
	assert_int_equal(blkcli_set_term(quorumd, 4), -ESTALE);
	assert_int_equal(blkcli_write_small(old, BLK_DEV_META, 512, buf), -ESTALE);
	assert_int_equal(run(old, BLK_OP_DISCARD, BLK_DEV_META, 512 << 12, 4096, NULL), -ESTALE);
	assert_int_equal(blkcli_read_small(old, BLK_DEV_META, 512, buf), 0);
	assert_int_equal(blkcli_write_small(fsd, BLK_DEV_META, 512, buf), 0);
	assert_int_equal(blkcli_write_small(quorumd, BLK_DEV_META, 20, buf), 0);
	new = client_as(fx, BLK_KIND_SERVERD, RID, 5);
	assert_int_equal(blkcli_write_small(new, BLK_DEV_META, 512, buf), 0);

	/* Not even by way of a new blockd; and a server's own token follows the term it sets. */
	assert_int_equal(blkcli_set_term(new, 6), 0);
	lease_server(fx, RID, 6);
	stop(fx, SIGKILL);
	start(fx);
	assert_int_equal(blkcli_write_small(old, BLK_DEV_META, 512, buf), -ESTALE);
	assert_int_equal(blkcli_write_small(new, BLK_DEV_META, 512, buf), 0);
	assert_int_equal(blkcli_set_term(old, 5), -ESTALE);
	blkcli_close(old);
	blkcli_close(new);
	blkcli_close(quorumd);
	blkcli_close(fsd);
	free(buf);
}

static void a_revoked_rid_writes_no_more(void **state)
{
	struct fixture *fx = *state;
	struct blkcli *victim, *other, *serverd;
	char *buf = aligned_alloc(4096, 4096);

	memset(buf, 3, 4096);
	start(fx);
	victim = client_as(fx, BLK_KIND_FSD, 0x55, 0);
	other = client_as(fx, BLK_KIND_FSD, 0x66, 0);
	serverd = client_as(fx, BLK_KIND_SERVERD, RID, 1);
	assert_int_equal(blkcli_revoke(victim, 0x66), -EPERM);
	assert_int_equal(blkcli_revoke(serverd, 0), -EINVAL);
	assert_int_equal(blkcli_revoke(serverd, 0x55), 0);
	assert_int_equal(blkcli_revoke(serverd, 0x55), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(run(victim, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 4096, buf), -ENOLINK);
		assert_int_equal(run(victim, BLK_OP_READ, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
		assert_int_equal(run(other, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
		stop(fx, SIGKILL);
		start(fx);
	}
	blkcli_close(victim);
	blkcli_close(other);
	blkcli_close(serverd);
	stop(fx, SIGTERM);

	/* A mount alone: the serverd of the same rid goes on. */
	make_volume(fx->meta, fx->data, 0x98);
	start(fx);
	victim = client_as(fx, BLK_KIND_FSD, RID, 0);
	serverd = client_as(fx, BLK_KIND_SERVERD, RID, 1);
	assert_int_equal(blkcli_revoke_mount(victim, RID), -EPERM);
	assert_int_equal(blkcli_revoke_mount(serverd, RID), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(run(victim, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 4096, buf), -ENOLINK);
		assert_int_equal(run(serverd, BLK_OP_WRITE, BLK_DEV_META, 16u << 20, 4096, buf), 0);
		stop(fx, SIGKILL);
		start(fx);
	}
	/* All of the rid, after that. */
	assert_int_equal(blkcli_revoke(serverd, RID), 0);
	assert_int_equal(run(serverd, BLK_OP_WRITE, BLK_DEV_META, 16u << 20, 4096, buf), -ENOLINK);
	blkcli_close(victim);
	blkcli_close(serverd);
	stop(fx, SIGTERM);

	/* Another volume under the same name begins anew. */
	make_volume(fx->meta, fx->data, 0x99);
	start(fx);
	victim = client_as(fx, BLK_KIND_FSD, 0x55, 0);
	assert_int_equal(run(victim, BLK_OP_WRITE, BLK_DEV_DATA, DATA_OFF, 4096, buf), 0);
	blkcli_close(victim);
	free(buf);
}

/* ---- leases ---- */

struct late_write {
	struct blkcli *c;
	char *buf;
	atomic_int result;	/* 1: not back yet */
};

static void *write_late(void *arg)
{
	struct late_write *w = arg;

	atomic_store(&w->result, blkcli_write_small(w->c, BLK_DEV_META, 512, w->buf));
	return NULL;
}

/* A mount's write waits for its lease and is done then, whatever happens to blockd meanwhile. */
static void a_mounts_write_waits_for_its_lease(void **state)
{
	struct fixture *fx = *state;
	struct late_write w = { .result = 1 };
	struct blkcli_stats st = { 0 };
	char *read_back = aligned_alloc(4096, 4096);
	pthread_t thread;

	w.buf = aligned_alloc(4096, 4096);
	memset(w.buf, 0x77, 4096);
	start(fx);
	w.c = client_without_lease(fx, BLK_KIND_FSD, RID, 0);
	/* Reading needs none. */
	assert_int_equal(blkcli_read_small(w.c, BLK_DEV_META, 512, read_back), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_late, &w), 0);
	while (!blkcli_waits_for_lease(w.c))
		poll(NULL, 0, 2);
	stop(fx, SIGKILL);
	start(fx);
	/* One that has run out does not help. */
	blkcli_lease(w.c, BLK_KIND_FSD, 1, clock_boot_ns() - 1);
	while (blkcli_get_stats(w.c, &st), st.lease_waits < 2)
		poll(NULL, 0, 2);
	assert_int_equal(atomic_load(&w.result), 1);
	device_read(fx->meta, 512 << 12, read_back, 4096);
	assert_memory_not_equal(read_back, w.buf, 4096);
	blkcli_lease(w.c, BLK_KIND_FSD, 1, clock_boot_ns() + LEASE_NS);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(atomic_load(&w.result), 0);
	assert_false(blkcli_waits_for_lease(w.c));
	device_read(fx->meta, 512 << 12, read_back, 4096);
	assert_memory_equal(read_back, w.buf, 4096);
	blkcli_close(w.c);
	free(w.buf);
	free(read_back);
}

static struct blkcli_op flush_op(uint8_t dev)
{
	return (struct blkcli_op){ .op = BLK_OP_FLUSH, .dev = dev, .is_after = true };
}

static void *write_and_flush_late(void *arg)
{
	struct late_write *w = arg;
	struct blkcli_op ops[] = {
		{ .op = BLK_OP_WRITE, .dev = BLK_DEV_META, .dev_off = 512 << 12, .len = 4096, .buf = w->buf },
		flush_op(BLK_DEV_META),
	};

	atomic_store(&w->result, blkcli_run(w->c, ops, 2));
	return NULL;
}

static uint64_t meta_flushes(const struct fixture *fx)
{
	struct msg_status_reply *st = malloc(sizeof(*st));
	char path[256];
	uint64_t nr;

	assert_non_null(st);
	snprintf(path, sizeof(path), "%s/ctl-blockd.sock", fx->run);
	assert_int_equal(ctl_query(path, DEADLINE_S * 1000, st), 0);
	nr = status_value(st, "meta_flushes");
	free(st);
	return nr;
}

/* One flush, if it was in order; another one where a write had to be sent again, perhaps behind it. */
static void a_flush_covers_the_writes_of_its_call(void **state)
{
	struct fixture *fx = *state;
	struct late_write w = { .result = 1 };
	struct blkcli_op bad[] = { { .op = BLK_OP_FLUSH, .len = 4096, .is_after = true },
				   { .op = BLK_OP_READ, .dev_off = 512 << 12, .len = 4096, .is_after = true } };
	uint64_t flushes;
	pthread_t thread;

	w.buf = aligned_alloc(4096, 4096);
	memset(w.buf, 0x66, 4096);
	start(fx);
	w.c = client_without_lease(fx, BLK_KIND_FSD, RID, 0);
	bad[1].buf = w.buf;
	assert_int_equal(blkcli_run(w.c, bad, 2), -EINVAL);
	assert_int_equal(bad[0].result, -EINVAL);
	assert_int_equal(bad[1].result, -EINVAL);
	assert_int_equal(meta_flushes(fx), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_and_flush_late, &w), 0);
	while (!blkcli_waits_for_lease(w.c))
		poll(NULL, 0, 2);
	while ((flushes = meta_flushes(fx)) == 0)
		poll(NULL, 0, 2);
	blkcli_lease(w.c, BLK_KIND_FSD, 1, clock_boot_ns() + LEASE_NS);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(atomic_load(&w.result), 0);
	assert_int_equal(meta_flushes(fx), flushes + 1);
	write_and_flush_late(&w);
	assert_int_equal(atomic_load(&w.result), 0);
	assert_int_equal(meta_flushes(fx), flushes + 2);
	blkcli_close(w.c);
	free(w.buf);
}

/* The record of leases becomes one of another boot. */
static int change_boot_id(const struct fixture *fx)
{
	char path[192];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/leases", fx->run);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = pwrite(fd, "00000000", 8, strlen("boot ")) == 8 ? 0 : -EIO;
	close(fd);
	return ret;
}

/* The lease is known to the next blockd before its client says a word. */
static void a_lease_survives_blockd(void **state)
{
	struct fixture *fx = *state;
	struct blkcli *serverd;
	char *buf = aligned_alloc(4096, 4096);

	memset(buf, 3, 4096);
	start(fx);
	serverd = client_without_lease(fx, BLK_KIND_SERVERD, RID, 4);
	assert_int_equal(blkcli_write_small(serverd, BLK_DEV_META, 512, buf), -EKEYEXPIRED);
	lease_server(fx, RID, 5);
	assert_int_equal(blkcli_write_small(serverd, BLK_DEV_META, 512, buf), -EKEYEXPIRED);
	assert_int_equal(blkcli_set_term(serverd, 5), 0);
	assert_int_equal(blkcli_write_small(serverd, BLK_DEV_META, 512, buf), 0);
	stop(fx, SIGKILL);
	start(fx);
	assert_int_equal(blkcli_write_small(serverd, BLK_DEV_META, 512, buf), 0);
	stop(fx, SIGTERM);
	/* Of another boot it says nothing. */
	assert_int_equal(change_boot_id(fx), 0);
	start(fx);
	assert_int_equal(blkcli_write_small(serverd, BLK_DEV_META, 512, buf), -EKEYEXPIRED);
	blkcli_close(serverd);
	free(buf);
}

/* ---- chains ---- */

#define BLOCKS_NR	4u

/* A commit: blocks, flushes, and the super block, one on from what stands there. */
struct commit {
	struct blkcli_op ops[BLOCKS_NR + 3];
	struct disk_super old, super;
	char *blocks;
};

static void commit_make(const struct fixture *fx, struct commit *co, uint8_t byte)
{
	unsigned i;

	if (!co->blocks)
		co->blocks = aligned_alloc(4096, BLOCKS_NR * LARGE_SIZE);
	assert_non_null(co->blocks);
	memset(co->blocks, byte, BLOCKS_NR * LARGE_SIZE);
	device_read(fx->meta, SUPER_BLKNO << SMALL_SHIFT, &co->old, sizeof(co->old));
	co->super = co->old;
	le64_add(&co->super.hdr.seq, 1);
	co->super.hdr.crc = le32_of(block_crc(&co->super, sizeof(co->super)));
	for (i = 0; i < BLOCKS_NR; i++)
		co->ops[i] = (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_META, .len = LARGE_SIZE,
						 .dev_off = (uint64_t)(100 + i) << LARGE_SHIFT,
						 .buf = co->blocks + i * LARGE_SIZE };
	co->ops[i++] = flush_op(BLK_DEV_META);
	co->ops[i++] = flush_op(BLK_DEV_DATA);
	co->ops[i++] = (struct blkcli_op){ .op = BLK_OP_WRITE, .dev = BLK_DEV_META, .is_durable = true,
					   .dev_off = SUPER_BLKNO << SMALL_SHIFT, .len = SMALL_SIZE,
					   .buf = &co->super };
}

static int commit_run(struct blkcli *c, struct commit *co)
{
	return blkcli_run_chain(c, co->ops, BLOCKS_NR + 3, le64_get(co->old.hdr.seq), le32_get(co->old.hdr.crc));
}

static bool device_has(const char *path, uint64_t off, const void *bytes, size_t len)
{
	char *buf = malloc(len);
	bool has;

	assert_non_null(buf);
	device_read(path, off, buf, len);
	has = memcmp(buf, bytes, len) == 0;
	free(buf);
	return has;
}

static bool super_is(const struct fixture *fx, const struct disk_super *s)
{
	return device_has(fx->meta, SUPER_BLKNO << SMALL_SHIFT, s, sizeof(*s));
}

static bool blocks_are(const struct fixture *fx, const struct commit *co)
{
	return device_has(fx->meta, 100ull << LARGE_SHIFT, co->blocks, BLOCKS_NR * LARGE_SIZE);
}

static void a_commit_is_one_call(void **state)
{
	struct fixture *fx = *state;
	struct commit co = { .blocks = NULL };
	struct blkcli *c, *fsd;
	uint64_t flushes;

	start(fx);
	c = client_as(fx, BLK_KIND_SERVERD, RID, 1);
	flushes = meta_flushes(fx);
	for (uint8_t i = 1; i <= 3; i++) {
		commit_make(fx, &co, i);
		assert_int_equal(commit_run(c, &co), 0);
		assert_true(super_is(fx, &co.super));
		assert_true(blocks_are(fx, &co));
		assert_int_equal(meta_flushes(fx), flushes + i);
	}
	/* Somebody else has written: the blocks may be there, his super stays. */
	commit_make(fx, &co, 9);
	le64_add(&co.old.hdr.seq, 1);
	assert_int_equal(commit_run(c, &co), -EUCLEAN);
	assert_false(super_is(fx, &co.super));
	commit_make(fx, &co, 9);
	co.old.hdr.crc = le32_of(le32_get(co.old.hdr.crc) ^ 1);
	assert_int_equal(commit_run(c, &co), -EUCLEAN);
	assert_false(super_is(fx, &co.super));
	/* What cannot be sent is not sent in part. */
	commit_make(fx, &co, 8);
	co.ops[1].len = 1;
	assert_int_equal(commit_run(c, &co), -EINVAL);
	assert_false(super_is(fx, &co.super));
	/* What blockd refuses is missed. */
	commit_make(fx, &co, 8);
	co.ops[2].dev_off = META_BLOCKS << LARGE_SHIFT;
	assert_int_equal(commit_run(c, &co), -EINVAL);
	assert_int_equal(co.ops[BLOCKS_NR + 2].result, -ECANCELED);
	assert_false(super_is(fx, &co.super));
	blkcli_close(c);

	/* It is not a mount's to do. */
	fsd = client(fx);
	commit_make(fx, &co, 7);
	assert_int_equal(commit_run(fsd, &co), -EINVAL);
	assert_false(super_is(fx, &co.super));
	blkcli_close(fsd);
	free(co.blocks);
}

struct committing {
	struct blkcli *c;
	struct fixture *fx;
	uint64_t done, again;
	atomic_bool is_stopping;
	const char *failed;
};

/* One after the other; what is said to be written is, and what is not known is tried again by steps. */
static void *commit_on(void *arg)
{
	struct committing *w = arg;
	struct commit co = { .blocks = NULL };
	int ret;

	for (uint8_t i = 0; !atomic_load(&w->is_stopping) && !w->failed; i++) {
		commit_make(w->fx, &co, i);
		ret = commit_run(w->c, &co);
		w->done += ret == 0;
		w->again += ret == -EAGAIN;
		/* Whether the super is written or not: never without its blocks. */
		if (super_is(w->fx, &co.super) && !blocks_are(w->fx, &co))
			w->failed = "a super block came before what it names";
		else if (ret != 0 && ret != -EAGAIN)
			w->failed = strerror(-ret);
		else if (ret == 0 && !super_is(w->fx, &co.super))
			w->failed = "what was said to be written is not";
		if (ret == -EAGAIN && (blkcli_run(w->c, co.ops, BLOCKS_NR + 2) < 0 ||
				       blkcli_run(w->c, co.ops + BLOCKS_NR + 2, 1) < 0))
			w->failed = "it could not be written by steps";
	}
	free(co.blocks);
	return NULL;
}

static void a_killed_blockd_leaves_a_whole_commit_or_none(void **state)
{
	struct fixture *fx = *state;
	struct committing w = { .fx = fx };
	struct blkcli_stats st;
	pthread_t thread;

	start(fx);
	w.c = client_as(fx, BLK_KIND_SERVERD, RID, 1);
	assert_int_equal(pthread_create(&thread, NULL, commit_on, &w), 0);
	for (unsigned i = 1; i <= 12; i++) {
		poll(NULL, 0, (int)(i * 7 % 23));
		stop(fx, SIGKILL);
		start(fx);
		while (blkcli_get_stats(w.c, &st), st.reconnects < i)
			poll(NULL, 0, 2);
	}
	atomic_store(&w.is_stopping, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	if (w.failed)
		fail_msg("%s", w.failed);
	print_message("%llu commits in one call, %llu interrupted\n", (unsigned long long)w.done,
		      (unsigned long long)w.again);
	blkcli_close(w.c);
}

static const struct CMUnitTest tests[] = {
	TEST(a_commit_is_one_call),
	TEST_THREADS(a_commit_is_one_call),
	TEST(a_killed_blockd_leaves_a_whole_commit_or_none),
	TEST_THREADS(a_killed_blockd_leaves_a_whole_commit_or_none),
	TEST(what_is_written_is_read_again),
	TEST_THREADS(what_is_written_is_read_again),
	TEST(many_operations_run_in_one_call),
	TEST_THREADS(many_operations_run_in_one_call),
	TEST(bad_operations_are_refused_one_by_one),
	TEST(an_error_of_the_device_is_answered_and_counted),
	TEST_THREADS(an_error_of_the_device_is_answered_and_counted),
	TEST(buffers_wait_for_their_turn),
	TEST(killed_blockd_costs_a_pause_and_nothing_else),
	TEST_THREADS(killed_blockd_costs_a_pause_and_nothing_else),
	TEST(pool_and_region_survive),
	TEST(a_deadline_ends_a_call),
	TEST(a_passed_term_writes_no_more),
	TEST(a_revoked_rid_writes_no_more),
	TEST(a_mounts_write_waits_for_its_lease),
	TEST_THREADS(a_mounts_write_waits_for_its_lease),
	TEST(a_lease_survives_blockd),
	TEST(a_flush_covers_the_writes_of_its_call),
	TEST_THREADS(a_flush_covers_the_writes_of_its_call),
};

BLOCKD_RIG_MAIN(tests)
