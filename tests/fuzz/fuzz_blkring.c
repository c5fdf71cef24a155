/*
 * A client that writes anything into its ring.  Input: the client's index, then the submission array.
 * Whatever passes the check must lie inside the region and the device that it names.
 */
#include <stdlib.h>
#include <string.h>

#include "services/blockd/blockd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct blkring_shared ring;
	struct ring_limits lim = { .region_bytes = { 8 << 20, 1 << 20 },
				   .device_bytes = { 64 << 20, 16 << 20 } };
	struct blkring_desc d;
	uint32_t head = 0;
	unsigned taken = 0;
	int ret;

	if (size < 8)
		return 0;
	memset(&ring, 0, sizeof(ring));
	memcpy(&ring.sq_tail.v, data, sizeof(ring.sq_tail.v));
	lim.kind = 1 + data[4] % 4;
	data += 8;
	size -= 8;
	memcpy(ring.sq, data, size < sizeof(ring.sq) ? size : sizeof(ring.sq));

	while ((ret = blkring_pop(&ring.sq_tail, &ring.sq_head, &head, ring.sq, &d)) > 0) {
		if (++taken > BLKRING_ENTRIES)
			abort();
		if (ring_desc_check(&d, &lim) != 0 || d.op == BLK_OP_FLUSH)
			continue;
		if (d.dev >= BLK_DEVS_NR || d.len == 0 || d.len % 4096 || d.dev_off % 4096 ||
		    (unsigned __int128)d.dev_off + d.len > lim.device_bytes[d.dev])
			abort();
		if (d.op != BLK_OP_DISCARD &&
		    (d.region >= BLK_REGIONS_NR || d.len > BLKRING_LEN_MAX || d.region_off % 4096 ||
		     (unsigned __int128)d.region_off + d.len > lim.region_bytes[d.region]))
			abort();
		if (d.op != BLK_OP_READ && (lim.kind == BLK_KIND_TOOL || d.dev_off < 65536))
			abort();
	}
	if (ret < 0 && ring.sq_tail.v <= BLKRING_ENTRIES)
		abort();
	return 0;
}
