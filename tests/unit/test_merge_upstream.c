/*
 * Our merge of a volume that the kernel implementation filled, against that implementation's own
 * merge of the same log trees: the same items, versions, values and number of inodes.  Needs
 * ../shared/volumes.
 */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "merge/merge_server.h"

#define EXTRA		40000u	/* blocks behind the device's end, in memory, for what we write */
#define FILL_NR		20000u
#define RID		7u

/* A volume in a file, never written: what is written stays in memory. */
struct volume {
	int fd;
	struct memdev mem;
	struct block_set *bs;
	struct disk_super super;
	uint64_t total;
};

struct server {
	struct volume *v;
	struct disk_super stable;
	struct disk_alloc_list_head freed;
	struct disk_alloc_root avail;
	struct blkno_alloc al;
	struct merge_server ms;
	uint64_t next_blkno, seq;
};

static char archive[512];
static char dir[] = "/tmp/scoutfs-merge-XXXXXX";

static int volume_read(void *arg, uint64_t blkno, void *buf)
{
	struct volume *v = arg;

	if (blkno < v->mem.blocks_nr && v->mem.blocks[blkno])
		return memdev_read(&v->mem, blkno, buf);
	return pread(v->fd, buf, LARGE_SIZE, (off_t)(blkno * LARGE_SIZE)) == LARGE_SIZE ? 0 : -EIO;
}

static int volume_write(void *arg, const struct block_write *w, size_t nr)
{
	return memdev_write(&((struct volume *)arg)->mem, w, nr);
}

static uint64_t volume_random(void *arg)
{
	return memdev_random(&((struct volume *)arg)->mem);
}

static struct block_set *volume_set(struct volume *v)
{
	const struct block_dev dev = { v, volume_read, volume_write, volume_random };
	struct block_set *bs;

	assert_int_equal(block_set_open(&bs, &dev, le64_get(v->super.hdr.fsid), v->total + EXTRA,
					256), 0);
	return bs;
}

static void volume_open(struct volume *v, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s/meta.img", dir, name);
	*v = (struct volume){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
	assert_true(v->fd >= 0);
	memdev_init(&v->mem, 1);
	assert_int_equal(pread(v->fd, &v->super, sizeof(v->super), SUPER_BLKNO * SMALL_SIZE),
			 sizeof(v->super));
	v->total = le64_get(v->super.total_meta_blocks);
	v->bs = volume_set(v);
}

static void volume_close(struct volume *v)
{
	block_set_close(v->bs);
	memdev_fini(&v->mem);
	close(v->fd);
}

static int next_blkno(void *arg, uint64_t *blkno)
{
	struct server *s = arg;

	*blkno = s->next_blkno++;
	return *blkno < s->v->total + EXTRA ? 0 : -ENOSPC;
}

/* Who owns what is for the other tests. */
static int forget_blkno(void *arg, uint64_t blkno)
{
	(void)arg, (void)blkno;
	return 0;
}

static uint64_t next_seq(void *arg)
{
	return ++((struct server *)arg)->seq;
}

static unsigned much_room(void *arg)
{
	(void)arg;
	return 1000;
}

static void server_open(struct server *s, struct volume *v)
{
	*s = (struct server){ .v = v, .next_blkno = v->total + FILL_NR,
			      .seq = le64_get(v->super.seq) };
	s->al = (struct blkno_alloc){ s, next_blkno, forget_blkno };
	s->ms = (struct merge_server){
		.bs = v->bs, .al = &s->al, .super = &v->super, .stable = &s->stable,
		.freed = &s->freed, .meta_avail = &s->avail, .arg = s, .next_seq = next_seq,
		.room = much_room,
	};
	assert_int_equal(free_extents_insert(v->bs, &s->al, &s->avail,
					     (struct extent){ v->total, FILL_NR }), 0);
}

static void commit(struct server *s)
{
	assert_int_equal(block_set_write(s->v->bs), 0);
	s->stable = s->v->super;
}

static void work(struct server *s, const struct merge_request *req, size_t dirty_max)
{
	struct block_set *bs = volume_set(s->v);
	struct merge_complete comp;
	struct merge_run *run;
	int ret;

	assert_int_equal(merge_run_open(&run, bs, req, &req->logs_root, dirty_max), 0);
	do {
		ret = merge_run_step(run, 100);
	} while (ret == 0);
	assert_int_equal(ret, 1);
	merge_run_result(run, &comp);
	assert_int_equal(block_set_write(bs), 0);
	merge_run_close(run);
	block_set_close(bs);
	assert_int_equal(merge_server_commit(&s->ms, RID, &comp), 0);
	commit(s);
}

static void merge(struct volume *v, uint64_t *seed)
{
	struct merge_request req;
	struct server s;
	int ret;

	server_open(&s, v);
	assert_int_equal(merge_server_start(&s.ms), 0);
	commit(&s);
	for (unsigned n = 0;; n++) {
		assert_true(n < 1000);
		ret = merge_server_get(&s.ms, RID, &req);
		if (ret == -ENOENT)
			break;
		assert_true(ret == 0 || ret == -EINPROGRESS);
		commit(&s);
		if (ret == 0)
			work(&s, &req, 16 + rnd_below(seed, 60));
	}
	assert_int_equal(merge_server_free(&s.ms, UINT32_MAX), 0);
	commit(&s);
}

/* Items of one tree while another is walked. */
struct walk {
	struct volume *other;
	struct key next;
	uint64_t nr;
};

static int same_item(void *arg, const struct item *it)
{
	struct walk *w = arg;
	char text[KEY_TEXT_BYTES];
	struct btree_ref ref;
	bool same;

	assert_int_equal(btree_next(w->other->bs, &w->other->super.fs_root, &w->next, &ref), 0);
	same = key_eq(&ref.item.key, &it->key) && ref.item.seq == it->seq &&
	       ref.item.flags == it->flags && ref.item.val_len == it->val_len &&
	       (it->val_len == 0 || memcmp(ref.item.val, it->val, it->val_len) == 0);
	btree_put(w->other->bs, &ref);
	key_to_text(&it->key, text, sizeof(text));
	if (!same)
		fail_msg("item %s differs", text);
	w->next = key_next(it->key);
	w->nr++;
	return 0;
}

static void remove_dir(void)
{
	char cmd[sizeof(dir) + 16];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	assert_int_equal(system(cmd), 0);
}

static void our_merge_makes_what_upstreams_did(void **state)
{
	const struct key zeros = KEY_ZEROS, ones = KEY_ONES;
	struct volume ours, upstreams;
	struct walk w = { .nr = 0 };
	uint64_t seed = rig_seed(1);
	struct btree_ref ref;
	char cmd[1024];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(cmd, sizeof(cmd), "tar --zstd --sparse --wildcards -xf '%s' -C %s "
		 "'*A-clean-unmerged/meta.img' '*B-clean-merged/meta.img'", archive, dir);
	if (system(cmd) != 0) {
		remove_dir();
		fail_msg("cannot unpack: %s", cmd);
	}
	volume_open(&ours, "A-clean-unmerged");
	volume_open(&upstreams, "B-clean-merged");
	remove_dir();	/* open files stay */

	merge(&ours, &seed);
	assert_int_equal(ours.super.logs_root.height, 0);
	assert_int_equal(ours.super.log_merge.height, 0);
	w.other = &ours;
	assert_int_equal(btree_each(upstreams.bs, &upstreams.super.fs_root, &zeros, &ones,
				    same_item, &w), 0);
	assert_int_equal(btree_next(ours.bs, &ours.super.fs_root, &w.next, &ref), -ENOENT);
	assert_true(w.nr > 10000);
	assert_int_equal(le64_get(ours.super.inode_count), le64_get(upstreams.super.inode_count));
	volume_close(&upstreams);
	volume_close(&ours);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(our_merge_makes_what_upstreams_did),
	};
	const char *shared = getenv("SHARED");

	snprintf(archive, sizeof(archive), "%s/volumes/volumes.tar.zst",
		 shared ? shared : "../shared");
	if (access(archive, R_OK) != 0) {
		printf("1..1\nok 1 - ours and upstream's # SKIP no %s\n", archive);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
