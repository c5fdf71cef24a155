/*
 * Bytes of messages: a bounded writer and reader, and the types that fields may have.
 * Little-endian, no padding.  A type is four things: WIRE_MEMBER_t declares it, wire_put_t,
 * wire_get_t and wire_valid_t.
 *
 * Neither side moves beyond its end: `failed` is set instead and stays.  No length is used before
 * it was compared with what is left.
 */
#ifndef SCOUTFS_WIRE_H
#define SCOUTFS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "format/format.h"
#include "key/key.h"

struct wire_writer {
	uint8_t *pos, *end;
	bool failed;
};

struct wire_reader {
	const uint8_t *pos, *end;
	uint8_t minor; /* the sender's: fields since a later one are absent and become zero */
	bool failed;
};

static inline void wire_put_bytes(struct wire_writer *w, const void *buf, size_t len)
{
	if (w->failed || (size_t)(w->end - w->pos) < len) {
		w->failed = true;
		return;
	}
	if (len)
		memcpy(w->pos, buf, len);
	w->pos += len;
}

/* On failure the destination is all zero. */
static inline void wire_get_bytes(struct wire_reader *r, void *buf, size_t len)
{
	if (r->failed || (size_t)(r->end - r->pos) < len) {
		r->failed = true;
		memset(buf, 0, len);
		return;
	}
	if (len)
		memcpy(buf, r->pos, len);
	r->pos += len;
}

#define WIRE_MEMBER_u8(name) uint8_t name
static inline void wire_put_u8(struct wire_writer *w, const uint8_t *v) { wire_put_bytes(w, v, 1); }
static inline void wire_get_u8(struct wire_reader *r, uint8_t *v) { wire_get_bytes(r, v, 1); }
static inline bool wire_valid_u8(const uint8_t *v) { (void)v; return true; }

#define WIRE_MEMBER_u16(name) uint16_t name
static inline void wire_put_u16(struct wire_writer *w, const uint16_t *v)
{
	le16 x = le16_of(*v);

	wire_put_bytes(w, &x, sizeof(x));
}
static inline void wire_get_u16(struct wire_reader *r, uint16_t *v)
{
	le16 x;

	wire_get_bytes(r, &x, sizeof(x));
	*v = le16_get(x);
}
static inline bool wire_valid_u16(const uint16_t *v) { (void)v; return true; }

#define WIRE_MEMBER_u32(name) uint32_t name
static inline void wire_put_u32(struct wire_writer *w, const uint32_t *v)
{
	le32 x = le32_of(*v);

	wire_put_bytes(w, &x, sizeof(x));
}
static inline void wire_get_u32(struct wire_reader *r, uint32_t *v)
{
	le32 x;

	wire_get_bytes(r, &x, sizeof(x));
	*v = le32_get(x);
}
static inline bool wire_valid_u32(const uint32_t *v) { (void)v; return true; }

#define WIRE_MEMBER_u64(name) uint64_t name
static inline void wire_put_u64(struct wire_writer *w, const uint64_t *v)
{
	le64 x = le64_of(*v);

	wire_put_bytes(w, &x, sizeof(x));
}
static inline void wire_get_u64(struct wire_reader *r, uint64_t *v)
{
	le64 x;

	wire_get_bytes(r, &x, sizeof(x));
	*v = le64_get(x);
}
static inline bool wire_valid_u64(const uint64_t *v) { (void)v; return true; }

/* 27 bytes in the order of comparison. */
#define WIRE_MEMBER_key(name) struct key name
static inline void wire_put_key(struct wire_writer *w, const struct key *v)
{
	uint8_t bytes[KEY_SORT_BYTES];

	key_to_sortable(v, bytes);
	wire_put_bytes(w, bytes, sizeof(bytes));
}
static inline void wire_get_key(struct wire_reader *r, struct key *v)
{
	uint8_t bytes[KEY_SORT_BYTES];

	wire_get_bytes(r, bytes, sizeof(bytes));
	*v = key_from_sortable(bytes);
}
static inline bool wire_valid_key(const struct key *v) { (void)v; return true; }

/* Small closed sets in one byte, valid up to their greatest value. */
#define WIRE_ENUM(t, max)								\
static inline void wire_put_##t(struct wire_writer *w, const uint8_t *v) { wire_put_u8(w, v); } \
static inline void wire_get_##t(struct wire_reader *r, uint8_t *v) { wire_get_u8(r, v); }	\
static inline bool wire_valid_##t(const uint8_t *v) { return *v <= (max); }

enum msg_lock_mode { MSG_LOCK_NULL, MSG_LOCK_READ, MSG_LOCK_WRITE, MSG_LOCK_WRITE_ONLY };
#define WIRE_MEMBER_lock_mode(name) uint8_t name
WIRE_ENUM(lock_mode, MSG_LOCK_WRITE_ONLY)

#define WIRE_MEMBER_flag(name) uint8_t name
WIRE_ENUM(flag, 1)

#define GREETING_FLAG_FAREWELL	1u	/* this mount is already leaving */
#define GREETING_FLAG_QUORUM	2u	/* it has a quorum slot */
#define WIRE_MEMBER_greeting_flags(name) uint8_t name
WIRE_ENUM(greeting_flags, GREETING_FLAG_FAREWELL | GREETING_FLAG_QUORUM)

enum greeting_status {
	GREETING_OK,
	GREETING_INVALID,	/* another fsid or format version */
	GREETING_FENCED,	/* this rid was or is being fenced: it must not go on */
	GREETING_NOT_LEADER,	/* look for the leader again */
	GREETING_BUSY,		/* too many mounts, or no room: try again */
};
#define WIRE_MEMBER_greeting_status(name) uint8_t name
WIRE_ENUM(greeting_status, GREETING_BUSY)

enum quorum_role { QUORUM_FOLLOWER, QUORUM_CANDIDATE, QUORUM_LEADER };
#define WIRE_MEMBER_quorum_role(name) uint8_t name
WIRE_ENUM(quorum_role, QUORUM_LEADER)

enum server_status { SERVER_DOWN, SERVER_STARTING, SERVER_UP, SERVER_STOPPING };
#define WIRE_MEMBER_server_status(name) uint8_t name
WIRE_ENUM(server_status, SERVER_STOPPING)

enum local_kind { LOCAL_SERVERD, LOCAL_FSD, LOCAL_BLOCKD, LOCAL_TOOL };
#define WIRE_MEMBER_local_kind(name) uint8_t name
WIRE_ENUM(local_kind, LOCAL_TOOL)

/* Advisory locks: of fcntl(2) or flock(2); what is asked for, or held; what became of a request. */
enum msg_adv_kind { MSG_ADV_POSIX, MSG_ADV_FLOCK };
#define WIRE_MEMBER_adv_kind(name) uint8_t name
WIRE_ENUM(adv_kind, MSG_ADV_FLOCK)

enum msg_adv_type { MSG_ADV_UNLOCK, MSG_ADV_READ, MSG_ADV_WRITE };
#define WIRE_MEMBER_adv_type(name) uint8_t name
WIRE_ENUM(adv_type, MSG_ADV_WRITE)

enum msg_adv_status { MSG_ADV_GRANTED, MSG_ADV_WOULD_BLOCK, MSG_ADV_DEADLOCK, MSG_ADV_CANCELED, MSG_ADV_LIMIT };
#define WIRE_MEMBER_adv_status(name) uint8_t name
WIRE_ENUM(adv_status, MSG_ADV_LIMIT)

/* A slot's number, or MSG_NO_SLOT. */
#define MSG_NO_SLOT	255u
#define WIRE_MEMBER_slot(name) uint8_t name
static inline void wire_put_slot(struct wire_writer *w, const uint8_t *v) { wire_put_u8(w, v); }
static inline void wire_get_slot(struct wire_reader *r, uint8_t *v) { wire_get_u8(r, v); }
static inline bool wire_valid_slot(const uint8_t *v)
{
	return *v < QUORUM_SLOTS_MAX || *v == MSG_NO_SLOT;
}

/* Plain bytes: structures of the volume, which their users check, and the like. */
#define WIRE_BLOB(t, ctype)									\
static inline void wire_put_##t(struct wire_writer *w, ctype const *v) { wire_put_bytes(w, v, sizeof(*v)); } \
static inline void wire_get_##t(struct wire_reader *r, ctype *v) { wire_get_bytes(r, v, sizeof(*v)); } \
static inline bool wire_valid_##t(ctype const *v) { (void)v; return true; }

#define WIRE_MEMBER_btree_root(name) struct disk_btree_root name
WIRE_BLOB(btree_root, struct disk_btree_root)

#define WIRE_MEMBER_log_trees(name) struct disk_log_trees name
WIRE_BLOB(log_trees, struct disk_log_trees)

#define WIRE_MEMBER_merge_request(name) struct disk_merge_request name
WIRE_BLOB(merge_request, struct disk_merge_request)

#define WIRE_MEMBER_merge_complete(name) struct disk_merge_complete name
WIRE_BLOB(merge_complete, struct disk_merge_complete)

/* One bit for each inode of a group, as in the open-inode map. */
struct msg_ino_bits {
	uint8_t bytes[INODE_LOCK_GROUP / 8];
};
#define WIRE_MEMBER_ino_bits(name) struct msg_ino_bits name
WIRE_BLOB(ino_bits, struct msg_ino_bits)

/* One number for each quorum slot. */
struct msg_slot_values {
	uint64_t v[QUORUM_SLOTS_MAX];
};
#define WIRE_MEMBER_slot_values(name) struct msg_slot_values name
static inline void wire_put_slot_values(struct wire_writer *w, const struct msg_slot_values *v)
{
	for (size_t i = 0; i < QUORUM_SLOTS_MAX; i++)
		wire_put_u64(w, &v->v[i]);
}
static inline void wire_get_slot_values(struct wire_reader *r, struct msg_slot_values *v)
{
	for (size_t i = 0; i < QUORUM_SLOTS_MAX; i++)
		wire_get_u64(r, &v->v[i]);
}
static inline bool wire_valid_slot_values(const struct msg_slot_values *v) { (void)v; return true; }

/* Strings: a 16-bit length and bytes without NUL; in memory an array of max + 1 with the NUL. */
static inline void wire_put_string(struct wire_writer *w, const char *s, size_t max)
{
	uint16_t len = (uint16_t)strnlen(s, max);

	wire_put_u16(w, &len);
	wire_put_bytes(w, s, len);
}
static inline void wire_get_string(struct wire_reader *r, char *s, size_t max)
{
	uint16_t len;

	memset(s, 0, max + 1);
	wire_get_u16(r, &len);
	if (len > max)
		r->failed = true;
	else
		wire_get_bytes(r, s, len);
	/* Text ends at its NUL: one inside would be lost bytes. */
	if (!r->failed && strnlen(s, max) != len)
		r->failed = true;
}

#endif
