/* What blockd promises to everybody else: liars harm only themselves, and a start that must fail says why. */
#include "blockd_rig.h"

/* ---- liars ---- */

struct raw {
	int sock;
	int fds[BLKMSG_FDS_MAX];
	size_t fds_nr;
	struct blkmsg_hello_reply reply;
	struct blkring_shared *ring;
};

static int raw_connect(const struct fixture *fx)
{
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(sock >= 0);
	strcpy(sa.sun_path, fx->sock);
	while (connect(sock, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		if (clock_mono_ns() > end)
			fail_msg("no blockd: %s", strerror(errno));
		poll(NULL, 0, 2);
	}
	return sock;
}

static struct blkmsg_hello raw_hello(void)
{
	return (struct blkmsg_hello){ .hdr = blkmsg_header(BLKMSG_HELLO), .kind = BLK_KIND_FSD,
				      .rid = RID, .region_bytes = 1 << 20 };
}

/* 1: welcome; 0: closed without a word; else what it was refused with. */
static int raw_greet(const struct fixture *fx, struct raw *r, const void *msg, size_t len, int fd)
{
	ssize_t n;
	int ret;

	memset(r, 0, sizeof(*r));
	r->sock = raw_connect(fx);
	ret = sockfd_send(r->sock, msg, len, &fd, fd >= 0);
	if (ret == -EPIPE || ret == -ECONNRESET)
		return 0;
	assert_int_equal(ret, 0);
	n = sockfd_recv(r->sock, &r->reply, sizeof(r->reply), r->fds, BLKMSG_FDS_MAX, &r->fds_nr);
	if (n == 0 || n == -ECONNRESET)
		return 0;
	assert_int_equal(n, sizeof(r->reply));
	if (r->reply.error < 0)
		return r->reply.error;
	r->ring = mmap(NULL, sizeof(*r->ring), PROT_READ | PROT_WRITE, MAP_SHARED, r->fds[0], 0);
	assert_true(r->ring != MAP_FAILED);
	return 1;
}

static void raw_close(struct raw *r)
{
	if (r->ring)
		munmap(r->ring, sizeof(*r->ring));
	sockfd_close_all(r->fds, r->fds_nr);
	close(r->sock);
}

static void raw_bell(struct raw *r)
{
	uint64_t one = 1;

	assert_int_equal(write(r->fds[1], &one, sizeof(one)), sizeof(one));
}

/* blockd closes the connection. */
static void expect_closed(struct raw *r)
{
	struct pollfd pfd = { .fd = r->sock, .events = POLLIN };
	char c;

	assert_int_equal(poll(&pfd, 1, DEADLINE_S * 1000), 1);
	assert_true(recv(r->sock, &c, 1, 0) <= 0);
}

static void bad_greetings_are_refused(void **state)
{
	struct fixture *fx = *state;
	struct blkmsg_hello h;
	struct raw r;
	int memfd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int sealed = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(memfd, 1 << 20), 0);
	assert_int_equal(ftruncate(sealed, 1 << 20), 0);
	assert_int_equal(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	start(fx);

#define EXPECT(want, fd) do {							\
		assert_int_equal(raw_greet(fx, &r, &h, sizeof(h), fd), want);	\
		raw_close(&r);							\
	} while (0)
	h = raw_hello();
	EXPECT(1, -1);
	h.hdr.version++;
	EXPECT(-EPROTO, -1);
	h = raw_hello();
	h.hdr.magic++;
	EXPECT(0, -1);
	h = raw_hello();
	h.hdr.type = BLKMSG_REVOKE;
	EXPECT(0, -1);
	h = raw_hello();
	h.kind = BLK_KIND_END;
	EXPECT(-EINVAL, -1);
	h = raw_hello();
	h.rid = 0;
	EXPECT(-EINVAL, -1);
	h = raw_hello();
	h.region_bytes = 100;
	EXPECT(-EINVAL, -1);
	h = raw_hello();
	h.region_bytes = BLKRING_REGION_MAX + 4096;
	EXPECT(-ENOSPC, -1);
	h = raw_hello();
	EXPECT(-EINVAL, sealed);
	h.flags = BLK_HELLO_REGION;
	EXPECT(-EINVAL, -1);
	EXPECT(-EINVAL, memfd);
	EXPECT(-EINVAL, STDERR_FILENO);
	EXPECT(1, sealed);
	h.region_bytes = 2 << 20;
	EXPECT(-EINVAL, sealed);
#undef EXPECT
	h = raw_hello();
	assert_int_equal(raw_greet(fx, &r, &h, sizeof(h) - 1, -1), 0);
	raw_close(&r);
	assert_int_equal(raw_greet(fx, &r, &h, 3, -1), 0);
	raw_close(&r);
	close(memfd);
	close(sealed);
}

static void no_client_can_shrink_what_blockd_maps(void **state)
{
	struct fixture *fx = *state;
	struct blkmsg_hello h = raw_hello();
	struct raw r;

	start(fx);
	assert_int_equal(raw_greet(fx, &r, &h, sizeof(h), -1), 1);
	assert_int_equal(r.fds_nr, 5);
	assert_int_equal(ftruncate(r.fds[0], 0), -1);
	assert_int_equal(ftruncate(r.fds[3], 0), -1);
	raw_close(&r);
}

static void a_lying_client_harms_only_itself(void **state)
{
	const char *env = getenv("ROUNDS");
	unsigned rounds = env ? (unsigned)atoi(env) * 50 : 300;
	struct fixture *fx = *state;
	struct blkcli *good;
	char *buf = aligned_alloc(4096, 4096);
	uint64_t x = 88172645463325252ull;

	start(fx);
	good = client(fx);
	for (unsigned i = 0; i < rounds; i++) {
		struct blkmsg_hello h = raw_hello();
		uint64_t words[64];
		struct raw r;

		fill(words, sizeof(words), x += i);
		h.kind = 1 + words[0] % (BLK_KIND_END - 1);
		assert_int_equal(raw_greet(fx, &r, &h, sizeof(h), -1), 1);
		switch (words[1] % 4) {
		case 0:		/* a ring of noise, with a believable length */
			fill(r.ring->sq, sizeof(r.ring->sq), words[2]);
			blkring_store(&r.ring->sq_tail, words[3] % (BLKRING_ENTRIES + 1));
			raw_bell(&r);
			break;
		case 1:		/* good shapes, wild numbers; many reads into the same place */
			for (unsigned k = 0; k < BLKRING_ENTRIES; k++) {
				uint64_t y = words[k % 64] ^ k * 0x9e3779b97f4a7c15ull;

				r.ring->sq[k] = (struct blkring_desc){
					.op = (uint8_t)(1 + y % 3 % 2 * 2), .dev = y >> 2 & 1, .tag = k,
					.region = y >> 3 & 1, .len = (uint32_t)(y >> 8 & 3) << 12,
					.region_off = (y >> 16 & 0x1ff) << 12,
					.dev_off = (y >> 32 & 0xffff) << 12,
				};
			}
			blkring_store(&r.ring->sq_tail, BLKRING_ENTRIES);
			raw_bell(&r);
			if (words[4] & 1)
				break;
			/* ... and a completion index that runs away */
			blkring_store(&r.ring->cq_head, (uint32_t)words[5]);
			raw_bell(&r);
			break;
		case 2:		/* an index that cannot be */
			blkring_store(&r.ring->sq_tail, 0x40000000u + (uint32_t)(words[2] >> 34));
			raw_bell(&r);
			expect_closed(&r);
			break;
		case 3:		/* noise on the socket */
			if (send(r.sock, words, 1 + words[2] % sizeof(words), MSG_NOSIGNAL) < 0)
				assert_true(errno == EPIPE || errno == ECONNRESET);
			expect_closed(&r);
			break;
		}
		raw_close(&r);
		assert_int_equal(run(good, BLK_OP_READ, BLK_DEV_META, 65536, 4096, buf), 0);
	}
	blkcli_close(good);
	/* It is still the first one, and it can stop. */
	assert_int_equal(stop(fx, SIGTERM), 0);
	free(buf);
}

static void clients_beyond_the_limit_are_told(void **state)
{
	struct fixture *fx = *state;
	struct blkcli_conf conf = { .socket_path = fx->sock, .kind = BLK_KIND_FSD, .rid = RID,
				    .region_bytes = REGION_BYTES, .deadline_ms = DEADLINE_S * 1000 };
	uint64_t end = clock_mono_ns() + DEADLINE_S * NSEC_PER_SEC;
	struct raw r[BLOCKD_CLIENTS_MAX];
	struct blkmsg_hello h = raw_hello();
	struct blkcli *c;
	struct raw one;
	int ret;

	start(fx);
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		assert_int_equal(raw_greet(fx, &r[i], &h, sizeof(h), -1), 1);
	one.sock = raw_connect(fx);
	assert_int_equal(sockfd_recv(one.sock, &one.reply, sizeof(one.reply), one.fds, BLKMSG_FDS_MAX,
				     &one.fds_nr), sizeof(one.reply));
	assert_int_equal(one.reply.error, -ENOSPC);
	close(one.sock);
	for (unsigned i = 0; i < BLOCKD_CLIENTS_MAX; i++)
		raw_close(&r[i]);
	/* It hears of their ends at some time. */
	while ((ret = blkcli_open(&c, &conf)) == -ENOSPC)
		assert_true(clock_mono_ns() < end);
	assert_int_equal(ret, 0);
	blkcli_close(c);
}

/* ---- starts that must fail ---- */

static void a_second_blockd_names_the_first(void **state)
{
	struct fixture *fx = *state;
	char text[64], override[256], other[128];
	struct blkcli *c;
	char buf[4096];

	start(fx);
	c = client(fx);
	snprintf(text, sizeof(text), "in use by process %d", (int)fx->pid);
	expect_refusal(fx, NULL, text);
	snprintf(other, sizeof(other), "%s/other", fx->dir);
	assert_int_equal(mkdir(other, 0700), 0);
	snprintf(override, sizeof(override), "runtime_dir=%s", other);
	expect_refusal(fx, override, text);
	assert_int_equal(dir_entries(other), 0);
	/* The first does not even notice. */
	assert_int_equal(blkcli_read_small(c, BLK_DEV_META, SUPER_BLKNO, buf), 0);
	blkcli_close(c);
}

static void a_dead_holder_is_waited_for(void **state)
{
	struct fixture *fx = *state;
	int ready[2];
	pid_t holder, keeper;
	char c;

	/*
	 * The holder takes the lock and dies, but its file stays open in the keeper: to the kernel a
	 * lock of a dead process, as after a kill with writes under way.
	 */
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	holder = fork();
	assert_true(holder >= 0);
	if (holder == 0) {
		int fd = open(fx->meta, O_RDWR | O_CLOEXEC);

		if (fd < 0 || flock(fd, LOCK_EX) < 0)
			_exit(1);
		keeper = fork();
		if (keeper == 0) {
			/* Lives until the test closes its end, in whichever way. */
			close(ready[1]);
			(void)read(ready[0], &c, 1);
			_exit(0);
		}
		_exit(keeper < 0);
	}
	close(ready[0]);
	{
		int status;

		assert_int_equal(waitpid(holder, &status, 0), holder);
		assert_int_equal(status, 0);
	}
	start(fx);
	/* Not there while the lock is held ... */
	for (unsigned i = 0; i < 20; i++) {
		pid_t gone = waitpid(fx->pid, NULL, WNOHANG);

		if (gone != 0)
			fx->pid = 0;
		assert_int_equal(gone, 0);
		assert_int_equal(access(fx->sock, F_OK), -1);
		poll(NULL, 0, 10);
	}
	/* ... and then it is. */
	close(ready[1]);
	blkcli_close(client(fx));
}

static void patch(const char *path, uint64_t off, const void *bytes, size_t len)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, (off_t)off), (ssize_t)len);
	close(fd);
}

/* Change a super block and make its checksum right again. */
static void patch_super(const char *path, size_t off, const void *bytes, size_t len)
{
	struct disk_super s;

	device_read(path, 65536, &s, sizeof(s));
	memcpy((char *)&s + off, bytes, len);
	s.hdr.crc = le32_of(block_crc(&s, SMALL_SIZE));
	patch(path, 65536, &s, sizeof(s));
}

static void wrong_devices_are_refused_by_name(void **state)
{
	struct fixture *fx = *state;
	uint64_t v = 3;
	char override[256];
	char other_meta[160], other_data[160];

	snprintf(override, sizeof(override), "meta_device=%s/none", fx->dir);
	expect_refusal(fx, override, "meta_device");
	snprintf(override, sizeof(override), "data_device=%s", fx->run);
	expect_refusal(fx, override, "neither a block device nor a file");
	snprintf(override, sizeof(override), "meta_device=%s", fx->data);
	expect_refusal(fx, override, "meta_device");
	snprintf(override, sizeof(override), "data_device=%s", fx->meta);
	expect_refusal(fx, override, "data_device");

	snprintf(other_meta, sizeof(other_meta), "%s/meta2", fx->dir);
	snprintf(other_data, sizeof(other_data), "%s/data2", fx->dir);
	make_volume(other_meta, other_data, 0x77);
	snprintf(override, sizeof(override), "data_device=%s", other_data);
	expect_refusal(fx, override, "different volumes");
	/* Same uuid, other fsid. */
	patch_super(other_data, offsetof(struct disk_super, uuid), "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
	expect_refusal(fx, override, "different fsids");

	assert_int_equal(truncate(fx->data, (DATA_BLOCKS << SMALL_SHIFT) - 4096), 0);
	expect_refusal(fx, NULL, fx->data);
	expect_log(fx, "smaller than the volume says");
	assert_int_equal(truncate(fx->data, 4096), 0);
	expect_refusal(fx, NULL, fx->data);
	expect_log(fx, "too few for a volume");

	make_volume(fx->meta, fx->data, 0x1122334455667788ull);
	patch_super(fx->meta, offsetof(struct disk_super, fmt_vers), &v, sizeof(v));
	expect_refusal(fx, NULL, "format version");
	make_volume(fx->meta, fx->data, 0x1122334455667788ull);
	patch_super(fx->meta, offsetof(struct disk_super, hdr.blkno), &v, sizeof(v));
	expect_refusal(fx, NULL, "meta_device");
	make_volume(fx->meta, fx->data, 0x1122334455667788ull);
	patch(fx->meta, 65536 + 200, "x", 1);
	expect_refusal(fx, NULL, "checksum");
	patch(fx->meta, 65536 + 4, "\0\0\0\0", 4);
	expect_refusal(fx, NULL, "no scoutfs super block");
	assert_int_equal(dir_entries(fx->run), 0);
}

static void bad_runtime_directories_are_refused(void **state)
{
	struct fixture *fx = *state;
	char override[256], path[160];
	int fd;

	snprintf(override, sizeof(override), "runtime_dir=%s/none", fx->dir);
	expect_refusal(fx, override, "runtime_dir");
	snprintf(override, sizeof(override), "runtime_dir=%s", fx->conf);
	expect_refusal(fx, override, "Not a directory");
	expect_refusal(fx, "runtime_dir=/proc/self", "must be writable");

	/* A pool of another size may hold data. */
	snprintf(path, sizeof(path), "%s/pool", fx->run);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 12345), 0);
	close(fd);
	expect_refusal(fx, NULL, "12345 bytes");
	assert_int_equal(dir_entries(fx->run), 1);
	unlink(path);

	snprintf(path, sizeof(path), "%s/tokens", fx->run);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	patch(path, 0, "fsid 1 term", 11);
	expect_refusal(fx, NULL, "makes no sense");
	assert_int_equal(dir_entries(fx->run), 1);
}

static void a_tmpfs_too_small_for_the_pool_is_refused(void **state)
{
	struct fixture *fx = *state;

	if (geteuid() != 0 || mount("none", fx->run, "tmpfs", 0, "size=4m,mode=0700") < 0) {
		fprintf(stderr, "not tested: no right to mount a tmpfs\n");
		skip();
	}
	expect_refusal(fx, NULL, "cannot be allocated");
	assert_int_equal(dir_entries(fx->run), 0);
	assert_int_equal(umount(fx->run), 0);
}

static const struct CMUnitTest tests[] = {
	TEST(bad_greetings_are_refused),
	TEST(no_client_can_shrink_what_blockd_maps),
	TEST(a_lying_client_harms_only_itself),
	TEST_THREADS(a_lying_client_harms_only_itself),
	TEST(clients_beyond_the_limit_are_told),
	TEST(a_second_blockd_names_the_first),
	TEST(a_dead_holder_is_waited_for),
	TEST(wrong_devices_are_refused_by_name),
	TEST(bad_runtime_directories_are_refused),
	TEST(a_tmpfs_too_small_for_the_pool_is_refused),
};

BLOCKD_RIG_MAIN(tests)
