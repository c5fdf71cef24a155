/*
 * The codec: every function here is made from the table in messages.h.
 *
 * A frame is refused as a whole unless its magic, major version, length and crc are right, its type
 *is known, each field is there and valid, and nothing is left over (but for fields that a newer
 *minor version has appended).  The reader never trusts a length; msg_get reads exactly the bytes it
 *was given.
 *
 *	0 magic  4 major  5 minor  6 type  8 flags  10 number of the frame  12 body length  16 id 24
 *seq  32 recv_seq  40 term 48 rid  56 error  60 crc32c of the frame with these four bytes zero
 */
#include "msg.h"

#include <assert.h>

#include "csum/csum.h"

#define CRC_OFFSET 60u

uint32_t errors_to_wire(int error)
{
	if (error == 0)
		return 0;
#define TO_WIRE(number, code) if (error == -(code)) return (number);
	WIRE_ERRORS(TO_WIRE)
#undef TO_WIRE
	return WIRE_ERROR_UNKNOWN;
}

int errors_from_wire(uint32_t number)
{
	switch (number) {
	case 0:
		return 0;
#define FROM_WIRE(nr, code) case (nr): return -(code);
	WIRE_ERRORS(FROM_WIRE)
#undef FROM_WIRE
	}
	return -EIO;
}

/* Functions of each struct: parts first, since messages hold them. */
#define PUT_F(type, name, since) wire_put_##type(w, &m->name);
#define PUT_S(name, max, since) wire_put_string(w, m->name, (max));
#define PUT_A(part, name, max, since) do {					\
	uint16_t nr_ = (uint16_t)m->name##_nr;					\
	wire_put_u16(w, &nr_);							\
	for (size_t i_ = 0; i_ < nr_; i_++)					\
		put_##part(w, &m->name[i_]);					\
} while (0);

#define GET_F(type, name, since) do {						\
	if (r->minor < (since))							\
		memset(&m->name, 0, sizeof(m->name));				\
	else									\
		wire_get_##type(r, &m->name);					\
} while (0);
#define GET_S(name, max, since) do {						\
	if (r->minor < (since))							\
		memset(m->name, 0, sizeof(m->name));				\
	else									\
		wire_get_string(r, m->name, (max));				\
} while (0);
#define GET_A(part, name, max, since) do {					\
	uint16_t nr_ = 0;							\
	memset(m->name, 0, sizeof(m->name));					\
	if (r->minor >= (since))						\
		wire_get_u16(r, &nr_);						\
	if (nr_ > (max)) {							\
		r->failed = true;						\
		nr_ = 0;							\
	}									\
	m->name##_nr = nr_;							\
	for (size_t i_ = 0; i_ < nr_ && !r->failed; i_++)			\
		get_##part(r, &m->name[i_]);					\
} while (0);

#define VALID_F(type, name, since) if (!wire_valid_##type(&m->name)) return false;
#define VALID_S(name, max, since) if (strnlen(m->name, (max) + 1) > (max)) return false;
#define VALID_A(part, name, max, since) do {					\
	if (m->name##_nr > (max))						\
		return false;							\
	for (size_t i_ = 0; i_ < m->name##_nr; i_++) {				\
		if (!valid_##part(&m->name[i_]))				\
			return false;						\
	}									\
} while (0);

#define FUNCTIONS(name)								\
static void put_##name(struct wire_writer *w, const struct msg_##name *m)	\
{										\
	(void)w;								\
	(void)m;								\
	name##_FIELDS(PUT_F, PUT_S, PUT_A)					\
}										\
static void get_##name(struct wire_reader *r, struct msg_##name *m)		\
{										\
	(void)r;								\
	(void)m;								\
	name##_FIELDS(GET_F, GET_S, GET_A)					\
}										\
static bool valid_##name(const struct msg_##name *m)				\
{										\
	(void)m;								\
	name##_FIELDS(VALID_F, VALID_S, VALID_A)				\
	return true;								\
}
#define MESSAGE_FUNCTIONS(name, number, from, to, reply) FUNCTIONS(name)
MESSAGE_PARTS(FUNCTIONS)
MESSAGES(MESSAGE_FUNCTIONS)

/* Descriptions. */
#define DESC_F(type, name, since) { #type, #name, 0, (since), false },
#define DESC_S(name, max, since) { "string", #name, (max), (since), false },
#define DESC_A(part, name, max, since) { #part, #name, (max), (since), true },
/* The last entry has no name; it keeps the array from being empty. */
#define DESC_FIELDS(name) \
static const struct msg_field_desc name##_fields[] = { \
	name##_FIELDS(DESC_F, DESC_S, DESC_A) { NULL, NULL, 0, 0, false } };
#define MESSAGE_DESC_FIELDS(name, number, from, to, reply) DESC_FIELDS(name)
MESSAGE_PARTS(DESC_FIELDS)
MESSAGES(MESSAGE_DESC_FIELDS)

#define MESSAGE_DESC(name, number, from, to, reply) \
	{ #name, (number), MSG_##reply, #from, #to, name##_fields, \
	  sizeof(name##_fields) / sizeof(name##_fields[0]) - 1 },
const struct msg_desc msg_descs[] = { MESSAGES(MESSAGE_DESC) };
const size_t msg_descs_nr = sizeof(msg_descs) / sizeof(msg_descs[0]);

const struct msg_field_desc *msg_part_fields(const char *part, size_t *nr)
{
#define PART_FIELDS(name)							\
	if (strcmp(part, #name) == 0) {						\
		*nr = sizeof(name##_fields) / sizeof(name##_fields[0]) - 1;	\
		return name##_fields;						\
	}
	MESSAGE_PARTS(PART_FIELDS)
#undef PART_FIELDS
	return NULL;
}

const char *msg_name(unsigned type)
{
	switch (type) {
#define NAME(name, number, from, to, reply) case (number): return #name;
	MESSAGES(NAME)
#undef NAME
	}
	return "?";
}

unsigned msg_reply_type(unsigned type)
{
	switch (type) {
#define REPLY(name, number, from, to, reply) case (number): return MSG_##reply;
	MESSAGES(REPLY)
#undef REPLY
	}
	return MSG_none;
}

size_t msg_struct_bytes(unsigned type)
{
	switch (type) {
#define BYTES(name, number, from, to, reply) case (number): return sizeof(struct msg_##name);
	MESSAGES(BYTES)
#undef BYTES
	}
	return 0;
}

bool msg_type_is_known(unsigned type)
{
	switch (type) {
#define KNOWN(name, number, from, to, reply) case (number):
	MESSAGES(KNOWN)
#undef KNOWN
		return true;
	}
	return false;
}

bool msg_is_from(unsigned type, enum msg_party party)
{
	switch (type) {
#define FROM(name, number, from, to, reply) case (number): return (MSG_FROM_##from & party) != 0;
	MESSAGES(FROM)
#undef FROM
	}
	return false;
}

int msg_check(unsigned type, const void *body)
{
	bool is_valid = false;

	switch (type) {
#define CHECK(name, number, from, to, reply) case (number): is_valid = valid_##name(body); break;
	MESSAGES(CHECK)
#undef CHECK
	}
	return is_valid ? 0 : -EINVAL;
}

int msg_put_body(unsigned type, const void *body, struct wire_writer *w)
{
	if (msg_check(type, body) < 0)
		return -EINVAL;
	switch (type) {
#define PUT(name, number, from, to, reply) case (number): put_##name(w, body); break;
	MESSAGES(PUT)
#undef PUT
	}
	return w->failed ? -EMSGSIZE : 0;
}

int msg_get_body(unsigned type, struct wire_reader *r, void *body)
{
	switch (type) {
#define GET(name, number, from, to, reply) case (number): get_##name(r, body); break;
	MESSAGES(GET)
#undef GET
	default:
		return -EOPNOTSUPP;
	}
	if (r->failed || (r->pos != r->end && r->minor <= MSG_MINOR))
		return -EPROTO;
	return msg_check(type, body) < 0 ? -EPROTO : 0;
}

static void put_header(struct wire_writer *w, const struct msg_header *hdr, uint32_t body_len)
{
	uint32_t magic = MSG_MAGIC, error = errors_to_wire(hdr->error), crc = 0;
	uint8_t major = MSG_MAJOR, minor = MSG_MINOR;

	wire_put_u32(w, &magic);
	wire_put_u8(w, &major);
	wire_put_u8(w, &minor);
	wire_put_u16(w, &hdr->type);
	wire_put_u16(w, &hdr->flags);
	wire_put_u16(w, &hdr->frame_nr);
	wire_put_u32(w, &body_len);
	wire_put_u64(w, &hdr->id);
	wire_put_u64(w, &hdr->seq);
	wire_put_u64(w, &hdr->recv_seq);
	wire_put_u64(w, &hdr->term);
	wire_put_u64(w, &hdr->rid);
	wire_put_u32(w, &error);
	wire_put_u32(w, &crc);
}

/* The header's checksum is over the frame with the checksum's own bytes zero. */
static uint32_t frame_crc(const uint8_t *buf, size_t len)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(buf, CRC_OFFSET);

	crc = crc32c_more(crc, zero, sizeof(zero));
	return crc32c_more(crc, buf + MSG_HEADER_BYTES, len - MSG_HEADER_BYTES);
}

int msg_put(const struct msg_header *hdr, const void *body, uint8_t *buf, size_t size)
{
	static const union msg_body zero_body;
	struct wire_writer w = { buf, buf + (size < MSG_FRAME_MAX ? size : MSG_FRAME_MAX), false };
	struct wire_writer head;
	size_t len;
	le32 crc;
	int ret;

	if (!msg_type_is_known(hdr->type) || (hdr->flags & ~MSG_FLAGS))
		return -EINVAL;
	if (size < MSG_HEADER_BYTES)
		return -EMSGSIZE;
	w.pos += MSG_HEADER_BYTES;
	if (!hdr->error) {
		ret = msg_put_body(hdr->type, body ? body : &zero_body, &w);
		if (ret < 0)
			return ret;
	}
	len = (size_t)(w.pos - buf);
	head = (struct wire_writer){ buf, buf + MSG_HEADER_BYTES, false };
	put_header(&head, hdr, (uint32_t)(len - MSG_HEADER_BYTES));
	assert(head.pos == head.end && !head.failed);
	crc = le32_of(frame_crc(buf, len));
	memcpy(buf + CRC_OFFSET, &crc, sizeof(crc));
	return (int)len;
}

int msg_get(const uint8_t *buf, size_t len, struct msg_header *hdr, union msg_body *body)
{
	struct wire_reader r = { buf, buf + len, 0, false };
	uint32_t magic, body_len, error, crc;
	uint8_t major;

	if (len < MSG_HEADER_BYTES || len > MSG_FRAME_MAX)
		return -EPROTO;
	wire_get_u32(&r, &magic);
	wire_get_u8(&r, &major);
	wire_get_u8(&r, &hdr->minor);
	wire_get_u16(&r, &hdr->type);
	wire_get_u16(&r, &hdr->flags);
	wire_get_u16(&r, &hdr->frame_nr);
	wire_get_u32(&r, &body_len);
	wire_get_u64(&r, &hdr->id);
	wire_get_u64(&r, &hdr->seq);
	wire_get_u64(&r, &hdr->recv_seq);
	wire_get_u64(&r, &hdr->term);
	wire_get_u64(&r, &hdr->rid);
	wire_get_u32(&r, &error);
	wire_get_u32(&r, &crc);
	if (magic != MSG_MAGIC || body_len != len - MSG_HEADER_BYTES || crc != frame_crc(buf, len))
		return -EPROTO;
	if (major != MSG_MAJOR)
		return -EPROTONOSUPPORT;
	/* Flags of a newer minor version may be there; what we do not know has no meaning for us.
	 */
	if (hdr->minor <= MSG_MINOR && (hdr->flags & ~MSG_FLAGS))
		return -EPROTO;
	hdr->flags = (uint16_t)(hdr->flags & MSG_FLAGS);
	hdr->error = errors_from_wire(error);
	if (!msg_type_is_known(hdr->type))
		return -EOPNOTSUPP;
	if (hdr->error) {
		if (body_len)
			return -EPROTO;
		if (msg_struct_bytes(hdr->type))
			memset(body, 0, msg_struct_bytes(hdr->type));
		return 0;
	}
	r.minor = hdr->minor;
	return msg_get_body(hdr->type, &r, body);
}
