/*
 * The open-inode map: which inodes of a group any mount uses.  runtime.md 10.3; pure.
 * emit() must only queue what it is given.  One thread owns a map.
 */
#ifndef SCOUTFS_SERVERD_OMAP_H
#define SCOUTFS_SERVERD_OMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OMAP_BYTES	128u		/* one bit for each inode of a group */
#define OMAP_ROUNDS_MAX	4096u

enum omap_act_kind {
	OMAP_ASK,	/* ask rid for its bits of group; id comes back with the answer */
	OMAP_ANSWER,	/* answer the request `handle` of rid with bits */
};

struct omap_act {
	enum omap_act_kind kind;
	uint64_t rid;
	uint64_t group;
	bool has_directories;	/* ASK: as in the request */
	uint64_t id;
	uint64_t handle;
	const uint8_t *bits;	/* ANSWER: OMAP_BYTES, valid during the call */
};

struct omap_ops {
	void *arg;
	void (*emit)(void *arg, const struct omap_act *act);
};

struct omap;

int omap_open(struct omap **out, const struct omap_ops *ops);	/* -ENOMEM */
void omap_close(struct omap *o);

/* rid answers from now on.  Adding it again does nothing.  -ENOMEM. */
int omap_add_member(struct omap *o, uint64_t rid);
/* rid is gone: nobody waits for it, and what it asked for is forgotten. */
void omap_drop_rid(struct omap *o, uint64_t rid);

/* While gated, requests wait; opening the gate starts them. */
void omap_set_gate(struct omap *o, bool gated);

/* rid asks for group (`has_directories`: passed on).  -EBUSY: too many at once; -ENOMEM.  On error the caller answers. */
int omap_request(struct omap *o, uint64_t rid, uint64_t handle, uint64_t group, bool has_directories);
/* A member's answer; one that nobody waits for is dropped (false). */
bool omap_response(struct omap *o, uint64_t rid, uint64_t id, const uint8_t bits[OMAP_BYTES]);

size_t omap_rounds_nr(const struct omap *o);

#endif
