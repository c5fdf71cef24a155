/*
 * srch leaf and parent blocks and the files that name them: log/srch.h, format.md 13.  The input is
 * the description of a file and the body of a block, which stands on the device once as a leaf and
 * once as a parent, both with a good header.
 */
#include "csum/csum.h"
#include "log/srch.h"
#include "tests/unit/memdev.h"

#define TOTAL 5000u
#define LEAF_BLKNO 2u
#define PARENT_BLKNO 3u
#define FSID 7u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max);

struct input {
	struct disk_srch_compact_input in;
	uint8_t body[LARGE_SIZE - sizeof(struct disk_header)];
};

struct seen {
	struct srch_entry first, last, prev;
	bool sorted;
	uint64_t nr;
};

static int see_entry(void *arg, const struct srch_entry *e)
{
	struct seen *s = arg;

	assert(srch_entry_cmp(e, &s->first) >= 0 && srch_entry_cmp(e, &s->last) <= 0);
	assert(!s->sorted || s->nr == 0 || srch_entry_cmp(&s->prev, e) <= 0);
	s->prev = *e;
	s->nr++;
	return 0;
}

static int see_block(void *arg, const struct srch_visit *v)
{
	uint64_t *nr = arg;

	assert((v->bl != NULL) == (v->err == 0));
	assert(v->err == 0 || v->why != NULL);
	return ++*nr > 20000 ? -ELOOP : 0;
}

static void put_block(struct memdev *dev, uint64_t blkno, uint32_t magic, const struct input *in)
{
	uint8_t *at = memdev_at(dev, blkno);

	memcpy(at + sizeof(struct disk_header), in->body, sizeof(in->body));
	block_header_init(at, magic, FSID, 1, blkno);
	((struct disk_header *)at)->crc = le32_of(block_crc(at, LARGE_SIZE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct input in;
	const struct disk_srch_block *b;
	struct disk_srch_file sf;
	struct block_set *bs;
	struct memdev dev;
	const char *why;
	uint64_t nr;
	int ret;

	memset(&in, 0, sizeof(in));
	memcpy(&in, data, size < sizeof(in) ? size : sizeof(in));
	memdev_init(&dev, 1);
	put_block(&dev, LEAF_BLKNO, MAGIC_SRCH_BLOCK, &in);
	put_block(&dev, PARENT_BLKNO, MAGIC_SRCH_PARENT, &in);
	ret = block_set_open(&bs, &dev.dev, FSID, TOTAL, 16);
	assert(ret == 0);

	b = (const struct disk_srch_block *)memdev_at(&dev, LEAF_BLKNO);
	for (int sorted = 0; sorted < 2; sorted++) {
		struct seen s = { .first = srch_entry_get(&b->first),
				  .last = srch_entry_get(&b->last),
				  .sorted = sorted };

		if (srch_block_check(b, sorted, &why) < 0)
			continue;
		ret = srch_block_each(b, see_entry, &s);
		assert(ret == 0);
		assert(s.nr == le32_get(b->entry_nr));
	}
	for (uint64_t blkno = LEAF_BLKNO; blkno <= PARENT_BLKNO; blkno++) {
		sf = in.in.file;
		sf.ref = (struct disk_block_ref){ le64_of(blkno), le64_of(1) };
		(void)srch_file_verify(bs, &sf, in.body[0] & 1, &why);
		in.in.file.ref = sf.ref;
		nr = 0;
		ret = srch_input_visit_unfreed(bs, &in.in, false, see_block, &nr);
		assert(ret != -ELOOP);
	}
	block_set_close(bs);
	memdev_fini(&dev);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max)
{
	static struct disk_srch_block b;
	struct input *in = (struct input *)buf;
	struct disk_srch_parent *parent;
	struct srch_entry prev = { 0 }, e = { 0 };
	uint32_t bytes = 0, nr = 0;

	if (i >= 4 || max < sizeof(*in))
		return 0;
	memset(in, 0, sizeof(*in));
	memset(&b, 0, sizeof(b));
	if (i == 3) {
		/* A parent whose only leaves are the block after it, and it is none. */
		parent = (struct disk_srch_parent *)&b;
		for (unsigned k = 0; k < 3; k++)
			parent->refs[k] =
				(struct disk_block_ref){ le64_of(k ? PARENT_BLKNO : LEAF_BLKNO),
							 le64_of(1) };
		in->in.file.blocks = le64_of(3);
		in->in.file.height = 2;
	} else {
		for (; bytes <= (i == 2 ? SRCH_LAST_START : i * 2000u); nr++) {
			prev = e;
			e = (struct srch_entry){ nr / 100 + 1, 1024 + nr % 100, nr };
			if (nr == 0)
				b.first = (struct disk_srch_entry){ le64_of(1), le64_of(1024),
								    le64_of(0) };
			bytes += (uint32_t)srch_entry_encode(&prev, &e, b.entries + bytes);
		}
		b.last = b.tail =
			(struct disk_srch_entry){ le64_of(e.hash), le64_of(e.ino), le64_of(e.id) };
		b.entry_nr = le32_of(nr);
		b.entry_bytes = le32_of(bytes);
		in->in.file = (struct disk_srch_file){ .first = b.first,
						       .last = b.last,
						       .blocks = le64_of(1),
						       .entries = le64_of(nr),
						       .height = 1 };
	}
	memcpy(in->body, (uint8_t *)&b + sizeof(b.hdr), sizeof(in->body));
	return sizeof(*in);
}
