/*
 * Allocation list blocks as somebody else may have left them: alloc/meta_alloc.h, format.md 10.2.
 * The input is a head and the body of a list block, given a good header, so that nothing but the
 * checks of the lists themselves stands between it and the allocator.
 */
#include "alloc/meta_alloc.h"
#include "csum/csum.h"
#include "tests/unit/memdev.h"

#define TOTAL 20000u
#define LIST_BLKNO 19000u
#define FSID 7u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max);

struct input {
	struct disk_alloc_list_head head;
	uint8_t body[LARGE_SIZE - sizeof(struct disk_header)];
};

static int count_entries(void *arg, struct block_ref ref, const struct disk_alloc_list_block *b)
{
	uint64_t *nr = arg;

	(void)ref;
	for (uint32_t i = 0; i < le32_get(b->nr); i++) {
		uint64_t blkno = le64_get(b->blknos[le32_get(b->start) + i]);

		assert(blkno >= META_FIRST_BLKNO && blkno < TOTAL);
	}
	*nr += le32_get(b->nr);
	return 0;
}

static void use_as_lists(struct block_set *bs, struct disk_alloc_list_head avail,
			 struct disk_alloc_list_head freed)
{
	struct meta_alloc ma;
	uint32_t can_alloc, can_free;
	uint64_t blkno;
	int ret;

	meta_alloc_open(&ma, bs, &avail, &freed);
	can_alloc = meta_alloc_avail_nr(&ma);
	can_free = meta_alloc_freed_room(&ma);
	ret = ma.al.alloc(ma.al.arg, &blkno);
	if (ret == 0) {
		assert(blkno >= META_FIRST_BLKNO && blkno < TOTAL);
		assert(meta_alloc_avail_nr(&ma) == can_alloc - 1);
		assert(meta_alloc_freed_room(&ma) == can_free);
		for (uint32_t i = 0; i < can_free; i++) {
			ret = ma.al.free(ma.al.arg, META_FIRST_BLKNO + i);
			assert(ret == 0);
		}
	}
	meta_alloc_close(&ma);
	block_set_abort(bs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct input in;
	static struct disk_alloc_list_block other;
	struct disk_alloc_list_head head, good = { 0 };
	struct disk_alloc_root root = { 0 };
	struct disk_alloc_list_block *b;
	struct block_set *bs;
	struct memalloc ma;
	struct memdev dev;
	uint64_t nr = 0;
	int ret;

	memset(&in, 0, sizeof(in));
	memcpy(&in, data, size < sizeof(in) ? size : sizeof(in));
	memdev_init(&dev, 1);
	memalloc_init(&ma, TOTAL);
	ret = block_set_open(&bs, &dev.dev, FSID, TOTAL, 16);
	assert(ret == 0);

	b = (struct disk_alloc_list_block *)memdev_at(&dev, LIST_BLKNO);
	memcpy((uint8_t *)b + sizeof(b->hdr), in.body, sizeof(in.body));
	block_header_init(b, MAGIC_ALLOC_LIST, FSID, 1, LIST_BLKNO);
	b->hdr.crc = le32_of(block_crc(b, LARGE_SIZE));
	ma.now[LIST_BLKNO] = MEMALLOC_USED;

	/* A good list beside it, so that each of the two can be the bad one. */
	memset(&other, 0, sizeof(other));
	other.nr = le32_of(100);
	for (uint32_t i = 0; i < 100; i++)
		other.blknos[i] = le64_of(15000 + i);
	block_header_init(&other, MAGIC_ALLOC_LIST, FSID, 1, LIST_BLKNO + 1);
	other.hdr.crc = le32_of(block_crc(&other, LARGE_SIZE));
	memcpy(memdev_at(&dev, LIST_BLKNO + 1), &other, LARGE_SIZE);
	ma.now[LIST_BLKNO + 1] = MEMALLOC_USED;
	good = (struct disk_alloc_list_head){ .ref = { le64_of(LIST_BLKNO + 1), le64_of(1) },
					      .total_nr = le64_of(100), .first_nr = le32_of(100) };

	head = in.head;
	head.ref = (struct disk_block_ref){ le64_of(LIST_BLKNO), le64_of(1) };
	ret = alloc_list_each(bs, &head, count_entries, &nr);
	assert(ret != 0 || nr == le64_get(head.total_nr));
	use_as_lists(bs, head, good);
	use_as_lists(bs, good, head);
	use_as_lists(bs, in.head, good);

	ret = alloc_list_splice(bs, &ma.al, &good, &head);
	if (ret == 0) {
		nr = 0;
		ret = alloc_list_each(bs, &good, count_entries, &nr);
		assert(ret == 0);
		do {
			ret = alloc_list_empty(bs, &ma.al, &good, &root, 1);
		} while (ret == -EINPROGRESS);
		assert(ret != 0 ||
		       (le64_get(root.total_len) == nr && le64_get(good.ref.blkno) == 0));
	}
	block_set_close(bs);
	memalloc_fini(&ma);
	memdev_fini(&dev);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max)
{
	static const uint32_t nrs[] = { 0, 2, 50, 5000, ALLOC_LIST_ENTRIES };
	static struct disk_alloc_list_block b;
	struct input *in = (struct input *)buf;

	if (i >= sizeof(nrs) / sizeof(nrs[0]) || max < sizeof(*in))
		return 0;
	memset(&b, 0, sizeof(b));
	b.nr = le32_of(nrs[i]);
	b.start = le32_of((ALLOC_LIST_ENTRIES - nrs[i]) / 2);
	for (uint32_t e = 0; e < nrs[i]; e++)
		b.blknos[le32_get(b.start) + e] = le64_of(100 + e + (e & 1) * (i == 3));
	memset(&in->head, 0, sizeof(in->head));
	in->head.total_nr = le64_of(nrs[i]);
	in->head.first_nr = le32_of(nrs[i]);
	memcpy(in->body, (uint8_t *)&b + sizeof(b.hdr), sizeof(in->body));
	return sizeof(*in);
}
