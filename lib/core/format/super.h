/* Checks of the super block and the quorum blocks: format.md 2.3, 5.3, 6. */
#ifndef SCOUTFS_SUPER_H
#define SCOUTFS_SUPER_H

#include <stdbool.h>
#include <stddef.h>

#include "format/format.h"

/*
 * Whether 4096 bytes read at small block 16 are a super we can work with: magic, blkno, crc,
 * version (5.3, rule 1).  0, or -EINVAL (not a super), -EBADMSG (damaged), -EOPNOTSUPP (a version
 * we do not know); *why in words.
 */
int super_check(const struct disk_super *s, const char **why);

/*
 * Whether a checked copy belongs on this kind of device (5.3, rule 2) and its totals fit into a
 * device of `bytes` bytes (2.3).  0, -EINVAL: wrong kind of device; -ENOSPC: the device is too
 * small.
 */
int super_check_meta(const struct disk_super *s, uint64_t bytes, const char **why);
int super_check_data(const struct disk_super *s, uint64_t bytes, const char **why);
/* Whether two checked copies are of one volume (5.3, rule 3; both size rules of 2.3).  -EINVAL. */
int super_check_pair(const struct disk_super *meta, const struct disk_super *data,
		     uint64_t meta_bytes, uint64_t data_bytes, const char **why);

/* Whether slot i of the configuration is used (5.1). */
bool quorum_slot_is_configured(const struct disk_quorum_config *qc, unsigned slot);
/* An address a slot may have: unicast IPv4 and a port (5.1).  Numbers, not network order. */
bool quorum_addr_is_valid(uint32_t addr, uint16_t port);

/* Crc, magic, fsid and blkno of slot's block (6.1).  0 or -EBADMSG. */
int quorum_block_check(const struct disk_quorum_block *b, unsigned slot, uint64_t fsid,
		       const char **why);
/* Whether the member of that slot may still be running, for offline tools (6.2). */
bool quorum_block_is_in_use(const struct disk_quorum_block *b);
/* Whether its last leader has not stopped (6.2). */
bool quorum_block_is_elected(const struct disk_quorum_block *b);
/* The term of that block's FENCE: its leader had fenced all earlier ones (6.1); 0 if there is none. */
uint64_t quorum_block_fence_term(const struct disk_quorum_block *b);
/* Whether its last leader may still do harm: it has not stopped, and no later one has fenced it.
 * fence_term is the greatest of all slots (6.2). */
bool quorum_block_is_unfenced(const struct disk_quorum_block *b, uint64_t fence_term);

#endif
