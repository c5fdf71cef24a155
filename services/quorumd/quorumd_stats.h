/* quorumd's counters (style.md 9). */
#ifndef SCOUTFS_QUORUMD_STATS_H
#define SCOUTFS_QUORUMD_STATS_H

#include "stats.h"

#define QUORUMD_STATS(C)								\
	C(slot_writes,		"Events recorded in the quorum block")			\
	C(slot_write_errors,	"Events that could not be recorded")			\
	C(elections_won,	"Times this member became leader")			\
	C(elections_tried,	"Times this member became candidate or saw a new term")	\
	C(resignations,		"Terms given up because an operator asked")		\
	C(adoptions,		"Times a running serverd was taken over after a restart") \
	C(fences_own,		"Earlier leaders of this host, fenced at once")		\
	C(fences_acked,		"Earlier leaders fenced by an operator's word")		\
	C(server_killed,	"Times serverd was killed because it did not answer")	\
	C(server_gone,		"Times serverd ended while it led")			\
	C(states_sent,		"States sent to other members")				\
	C(states_received,	"States received from other members")			\
	C(states_refused,	"Datagrams that were none of theirs")			\
	C(states_stale,		"... sealed by a member that did not know this process yet") \
	C(states_replayed,	"... sealed, and received before or overtaken")		\
	C(local_messages,	"Messages from services of this host")			\
	C(local_refused,	"... that were refused")

STATS_STRUCT(quorumd_stats, QUORUMD_STATS);

#endif
