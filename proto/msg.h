/*
 * Messages as structs, and their bytes.  design.md D9, §8; style.md 6.
 *
 * For each line of messages.h there are MSG_NAME, struct msg_NAME and a member of union msg_body.
 * A frame is a header of MSG_HEADER_BYTES and a body.  A struct is whole and valid or it is not
 * handed out.
 */
#ifndef SCOUTFS_MSG_H
#define SCOUTFS_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"
#include "messages.h"
#include "wire.h"

#define MSG_MAGIC		0x73637566u
#define MSG_MAJOR		1u
#define MSG_MINOR		2u
/* Of a session: a client that has more requests and unheard answers with its server is cut off. */
#define MSG_QUEUE_MAX		16384u
#define MSG_HEADER_BYTES	64u
#define MSG_FRAME_MAX		(1u << 20)	/* nothing longer is read or sent */

#define MSG_FLAG_RESPONSE	1u		/* answers the request of that id */
#define MSG_FLAGS		MSG_FLAG_RESPONSE

#define MSG_ENUM_(name, number, from, to, reply) MSG_##name = (number),
enum msg_type {
	MSG_none = 0,
	MESSAGES(MSG_ENUM_)
};
#undef MSG_ENUM_

#define MSG_F_(type, name, since) WIRE_MEMBER_##type(name);
#define MSG_S_(name, max, since) char name[(max) + 1];
#define MSG_A_(part, name, max, since) uint32_t name##_nr; struct msg_##part name[max];
#define MSG_PART_(name) struct msg_##name { name##_FIELDS(MSG_F_, MSG_S_, MSG_A_) };
#define MSG_STRUCT_(name, number, from, to, reply) \
	struct msg_##name { name##_FIELDS(MSG_F_, MSG_S_, MSG_A_) };
MESSAGE_PARTS(MSG_PART_)
MESSAGES(MSG_STRUCT_)
#undef MSG_F_
#undef MSG_S_
#undef MSG_A_
#undef MSG_PART_
#undef MSG_STRUCT_

#define MSG_MEMBER_(name, number, from, to, reply) struct msg_##name name;
union msg_body {
	MESSAGES(MSG_MEMBER_)
};
#undef MSG_MEMBER_

/* What travels before the body; magic, versions, length and checksum are the codec's. */
struct msg_header {
	uint16_t type;		/* enum msg_type */
	uint16_t flags;
	uint16_t
		frame_nr; /* sessions: counts the frames of a socket from 1, so that a hole shows */
	uint64_t id;		/* of the request; the answer repeats it */
	uint64_t seq;		/* of the sender, 0: outside the numbering */
	uint64_t recv_seq;	/* the greatest that the sender has received */
	uint64_t term;
	uint64_t rid;		/* the sender's */
	int error;		/* 0 or a negative errno of errors.h; then there is no body */
	uint8_t minor;		/* the sender's; set by msg_get */
};

/* A name for logs; "?" for a number that is none. */
const char *msg_name(unsigned type);
/* The type of a request's answer, MSG_none if it has none. */
unsigned msg_reply_type(unsigned type);
/* sizeof the struct of a type; 0 also for a number that is none. */
size_t msg_struct_bytes(unsigned type);
bool msg_type_is_known(unsigned type);

/* Who may send a type. */
enum msg_party {
	MSG_FROM_CLIENT = 1,
	MSG_FROM_SERVER = 2,
	MSG_FROM_QUORUM = 4,
	MSG_FROM_LOCAL = 8,
	MSG_FROM_TOOL = 16,
	MSG_FROM_SERVICE = 32,
	MSG_FROM_ANY = 63,
};
bool msg_is_from(unsigned type, enum msg_party party);

/* Whether all values of a struct are of their types: 0 or -EINVAL. */
int msg_check(unsigned type, const void *body);

/*
 * Write a frame into buf.  body is the struct of hdr->type, or NULL for all zero; with hdr->error
 * it is left out.  The frame's length, or -EINVAL: unknown type or a value out of its range;
 * -EMSGSIZE: longer than size or than MSG_FRAME_MAX.
 */
int msg_put(const struct msg_header *hdr, const void *body, uint8_t *buf, size_t size);

/*
 * Read a frame of len bytes.  -EPROTO: not a frame of ours, damaged, truncated or with a value out
 * of its range; -EPROTONOSUPPORT: another major version; -EOPNOTSUPP: a type we do not know (hdr is
 * filled).  Nothing in *body counts on an error.  Only the struct of hdr->type in *body is written.
 */
int msg_get(const uint8_t *buf, size_t len, struct msg_header *hdr, union msg_body *body);

/* A frame's struct alone, for the tests: the body's bytes without a header. */
int msg_put_body(unsigned type, const void *body, struct wire_writer *w);
int msg_get_body(unsigned type, struct wire_reader *r, void *body);

/* One description per message, for documents and tests that walk all of them. */
struct msg_field_desc {
	const char *type;	/* wire type, "string" or the part's name */
	const char *name;
	unsigned max;		/* of a string or an array, else 0 */
	unsigned since;
	bool is_array;
};
struct msg_desc {
	const char *name;
	unsigned type;
	unsigned reply;
	const char *from, *to;
	const struct msg_field_desc *fields;
	size_t fields_nr;
};
extern const struct msg_desc msg_descs[];
extern const size_t msg_descs_nr;
/* The fields of an array's element; NULL: no such part. */
const struct msg_field_desc *msg_part_fields(const char *part, size_t *nr);

#endif
