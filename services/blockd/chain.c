/*
 * Chains: a commit of serverd in one call.  Pure but for the memory of one block; what is done with
 * the operations is conn_io.c's.
 *
 * A commit is the blocks, the flushes that make them durable, and then the super block that names
 * them.  Sent as two calls it costs the client a wake-up between them.  Here it sends everything at
 * once, and blockd keeps the super block back.  What makes that as safe as two calls:
 *
 * - The super block goes to the kernel when all that stood before it has ended and ended well, and
 *   so many as the client says that there were: one that was refused, or went to a blockd of
 *   before, is missed.
 * - Tokens and the lease are looked at when it is submitted, not when it was sent (conn_io.c).
 *   That is also why the kernel is not left to chain them (IOSQE_IO_LINK): it would submit the last
 *   one at a time that nobody looks at.
 * - What stands at its place must be the super block that the client knows, or somebody else works
 *   on the volume.  It is read while the others are under way, and once more if they took long.
 * - A connection that ends takes its chain along, so one that is sent again starts from its start.
 */
#include "blockd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/super.h"

void chain_fini(struct chain *ch)
{
	free(ch->block);
	*ch = (struct chain){ 0 };
}

int chain_take(struct chain *ch, const struct blkring_desc *desc)
{
	bool is_last = desc->flags & BLKRING_LAST;

	if (ch->has_last || (desc->chain != ch->id && ch->pending > 0))
		return -EBUSY;
	if (desc->chain != ch->id)
		*ch = (struct chain){ .id = desc->chain, .block = ch->block };
	if (!is_last) {
		ch->taken++;
		ch->pending++;
		return 0;
	}
	if (!ch->block)
		ch->block = aligned_alloc(BLKRING_ALIGN, SMALL_SIZE);
	if (!ch->block)
		return -ENOMEM;
	ch->has_last = true;
	ch->expect_seq = desc->expect_seq;
	ch->expect_crc = desc->expect_crc;
	if (ch->taken != desc->before_nr && ch->error == 0)
		ch->error = -ECANCELED;
	return 0;
}

void chain_ended(struct chain *ch, int result)
{
	ch->pending--;
	if (result < 0 && ch->error == 0)
		ch->error = result;
}

int chain_check_look(const struct chain *ch)
{
	struct disk_super super;
	const char *why;

	memcpy(&super, ch->block, sizeof(super));
	if (super_check(&super, &why) < 0 || le64_get(super.hdr.seq) != ch->expect_seq ||
	    le32_get(super.hdr.crc) != ch->expect_crc)
		return -EUCLEAN;
	return 0;
}

enum chain_step chain_next(const struct chain *ch, uint64_t now_ns, uint64_t look_known_ns)
{
	if (!ch->last || ch->pending > 0)
		return CHAIN_WAIT;
	if (ch->error < 0)
		return CHAIN_FAIL;
	if (!ch->has_looked_twice && now_ns - ch->looked_ns > look_known_ns)
		return CHAIN_LOOK_AGAIN;
	return CHAIN_WRITE;
}

void chain_end(struct chain *ch)
{
	ch->id = 0;
	ch->has_last = false;
	ch->last = NULL;
}
