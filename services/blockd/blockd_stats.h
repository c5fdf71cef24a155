/* What blockd counts. */
#ifndef SCOUTFS_BLOCKD_STATS_H
#define SCOUTFS_BLOCKD_STATS_H

#include "stats.h"

#define BLOCKD_STATS(C)									\
	C(meta_reads, "Reads of the metadata device")					\
	C(meta_read_bytes, "Bytes read from the metadata device")			\
	C(meta_writes, "Writes of the metadata device")					\
	C(meta_write_bytes, "Bytes written to the metadata device")			\
	C(meta_flushes, "Flushes of the metadata device")				\
	C(data_reads, "Reads of the data device")					\
	C(data_read_bytes, "Bytes read from the data device")				\
	C(data_writes, "Writes of the data device")					\
	C(data_write_bytes, "Bytes written to the data device")				\
	C(data_flushes, "Flushes of the data device")					\
	C(discards, "Discards")								\
	C(read_errors, "Reads that failed")						\
	C(write_errors, "Writes that failed")						\
	C(flush_errors, "Flushes that failed")						\
	C(discard_errors, "Discards that failed")					\
	C(io_us, "Microseconds that operations took, summed")				\
	C(refused_descriptors, "Descriptors that made no sense")			\
	C(refused_kind, "Writes of blocks that are not the client's to write")		\
	C(refused_stale_term, "Writes of a server whose term had passed")		\
	C(refused_revoked, "Writes of a rid that was fenced")				\
	C(refused_lease, "Writes whose writer had no lease")				\
	C(fuse_cut, "Mounts cut off because their lease had run out and nobody was there") \
	C(clients_accepted, "Connections")						\
	C(clients_refused, "Greetings refused")						\
	C(clients_lied, "Connections closed because the client broke the rules")	\
	C(ios_full, "Times the limit of operations in flight was met")			\
	C(doorbells_sent, "Sleeping clients woken")					\
	C(sleeps, "Times the loop slept")

STATS_STRUCT(blockd_stats, BLOCKD_STATS);

#endif
