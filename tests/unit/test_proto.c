/*
 * The message table and its codec: each message has a golden vector, comes back as it went, and is
 * refused when it is cut, damaged, too long or holds a value that cannot be.  style.md 6.
 *
 * Vectors are files in proto/vectors, and docs/protocol.md is made from the table: with UPDATE=1 in
 * the environment both are written instead of compared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "csum/csum.h"
#include "msg.h"

#define VECTORS "proto/vectors"
#define DOCUMENT "docs/protocol.md"

static bool is_updating(void)
{
	return getenv("UPDATE") != NULL;
}

/* Everything that fills a struct with valid, different values, from the table itself. */
static uint64_t filler;

static uint8_t small(uint8_t max)
{
	return (uint8_t)(filler++ % (max + 1u));
}
static void fill_u16(uint16_t *v) { *v = (uint16_t)(0xa100 + filler++); }
static void fill_u32(uint32_t *v) { *v = (uint32_t)(0xb2000000 + filler++); }
static void fill_u64(uint64_t *v) { *v = 0xc300000000000000ull + filler++; }
static void fill_key(struct key *v)
{
	*v = (struct key){ .zone = (uint8_t)filler,
			   .first = filler + 1,
			   .type = 3,
			   .second = filler + 2,
			   .third = 0x0102030405060708ull,
			   .fourth = 9 };
	filler += 3;
}
static void fill_lock_mode(uint8_t *v) { *v = small(3); }
static void fill_flag(uint8_t *v) { *v = small(1); }
static void fill_greeting_flags(uint8_t *v) { *v = small(3); }
static void fill_greeting_status(uint8_t *v) { *v = small(4); }
static void fill_quorum_role(uint8_t *v) { *v = small(2); }
static void fill_server_status(uint8_t *v) { *v = small(3); }
static void fill_local_kind(uint8_t *v) { *v = small(3); }
static void fill_adv_kind(uint8_t *v) { *v = small(1); }
static void fill_adv_type(uint8_t *v) { *v = small(2); }
static void fill_adv_status(uint8_t *v) { *v = small(4); }
static void fill_slot(uint8_t *v) { *v = small(14); }
static void fill_bytes(void *v, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)v)[i] = (uint8_t)filler++;
}
static void fill_btree_root(struct disk_btree_root *v) { fill_bytes(v, sizeof(*v)); }
static void fill_log_trees(struct disk_log_trees *v) { fill_bytes(v, sizeof(*v)); }
static void fill_merge_request(struct disk_merge_request *v) { fill_bytes(v, sizeof(*v)); }
static void fill_merge_complete(struct disk_merge_complete *v) { fill_bytes(v, sizeof(*v)); }
static void fill_ino_bits(struct msg_ino_bits *v) { fill_bytes(v, sizeof(*v)); }
static void fill_slot_values(struct msg_slot_values *v)
{
	for (size_t i = 0; i < QUORUM_SLOTS_MAX; i++)
		fill_u64(&v->v[i]);
}
/* How full: an array or a string of `level` percent of its maximum. */
static unsigned level;
static void fill_string(char *s, size_t max)
{
	size_t len = max * level / 100;

	for (size_t i = 0; i < len; i++)
		s[i] = (char)('a' + filler++ % 26);
	s[len] = 0;
}

#define FILL_F(type, name, since) fill_##type(&m->name);
#define FILL_S(name, max, since) fill_string(m->name, (max));
#define FILL_A(part, name, max, since)						\
	m->name##_nr = (max) * level / 100;					\
	for (size_t i = 0; i < m->name##_nr; i++)				\
		fill_part_##part(&m->name[i]);
#define FILL_PART(name)                                                                            \
	static void fill_part_##name(struct msg_##name *m)                                         \
	{                                                                                          \
		(void)m;                                                                           \
		name##_FIELDS(FILL_F, FILL_S, FILL_A)                                              \
	}
#define FILL_MESSAGE(name, number, from, to, reply) FILL_PART(name)
MESSAGE_PARTS(FILL_PART)
MESSAGES(FILL_MESSAGE)

static void fill(unsigned type, union msg_body *body)
{
	memset(body, 0, sizeof(*body));
	switch (type) {
#define FILL_CASE(name, number, from, to, reply)                                                   \
	case (number):                                                                             \
		fill_part_##name(&body->name);                                                     \
		break;
		MESSAGES(FILL_CASE)
	}
}

static struct msg_header header_for(unsigned type)
{
	return (struct msg_header){
		.type = (uint16_t)type,
		.flags = type % 2 ? MSG_FLAG_RESPONSE : 0,
		.frame_nr = (uint16_t)(type + 1),
		.id = 0x1000 + type,
		.seq = 0x2000 + type,
		.recv_seq = 0x3000 + type,
		.term = 0x4000 + type,
		.rid = 0x5000000000000000ull + type,
	};
}

static uint8_t buf[MSG_FRAME_MAX], again[MSG_FRAME_MAX];
static union msg_body in, out;

/* A message of that fullness as a frame; its length. */
static size_t make(unsigned type, unsigned full)
{
	struct msg_header hdr = header_for(type);
	int len;

	filler = type;
	level = full;
	fill(type, &in);
	len = msg_put(&hdr, &in, buf, sizeof(buf));
	assert_true(len >= (int)MSG_HEADER_BYTES);
	return (size_t)len;
}

static void every_message_comes_back_as_it_went(void **state)
{
	(void)state;
	for (size_t i = 0; i < msg_descs_nr; i++) {
		static const unsigned levels[] = { 0, 3, 100 };
		unsigned type = msg_descs[i].type;

		for (size_t k = 0; k < 3; k++) {
			struct msg_header want = header_for(type), hdr;
			size_t len = make(type, levels[k]);

			memset(&out, 0xee, sizeof(out));
			assert_int_equal(msg_get(buf, len, &hdr, &out), 0);
			assert_int_equal(hdr.type, want.type);
			assert_int_equal(hdr.flags, want.flags);
			assert_int_equal(hdr.frame_nr, want.frame_nr);
			assert_true(hdr.id == want.id && hdr.seq == want.seq &&
				    hdr.recv_seq == want.recv_seq);
			assert_true(hdr.term == want.term && hdr.rid == want.rid);
			assert_int_equal(hdr.error, 0);
			assert_int_equal(hdr.minor, MSG_MINOR);
			/* Padding has no value: what would be sent again is compared. */
			assert_int_equal(msg_put(&hdr, &out, again, sizeof(again)), (int)len);
			assert_memory_equal(buf, again, len);
			/* Nothing beyond the struct of its type was written. */
			for (size_t b = msg_struct_bytes(type); b < sizeof(out); b++)
				assert_int_equal(((uint8_t *)&out)[b], 0xee);
		}
	}
}

static void every_prefix_and_every_flipped_bit_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < msg_descs_nr; i++) {
		struct msg_header hdr;
		size_t len = make(msg_descs[i].type, 3);
		uint8_t *exact;

		/* In memory of just that length, so that a sanitizer sees a read beyond it. */
		for (size_t n = 0; n < len; n++) {
			exact = malloc(n ? n : 1);
			memcpy(exact, buf, n);
			assert_int_equal(msg_get(exact, n, &hdr, &out), -EPROTO);
			free(exact);
		}
		buf[len] = 0;
		assert_int_equal(msg_get(buf, len + 1, &hdr, &out), -EPROTO);
		for (size_t bit = 0; bit < len * 8; bit++) {
			buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_true(msg_get(buf, len, &hdr, &out) < 0);
			buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		assert_int_equal(msg_get(buf, len, &hdr, &out), 0);
	}
}

/* Make the checksum right again, as a lying peer would. */
static void sign(size_t len)
{
	le32 crc;

	memset(buf + 60, 0, 4);
	crc = le32_of(crc32c(buf, len));
	memcpy(buf + 60, &crc, 4);
}

static void lies_with_a_right_checksum_are_refused(void **state)
{
	struct msg_header hdr;

	(void)state;
	for (size_t i = 0; i < msg_descs_nr; i++) {
		size_t len = make(msg_descs[i].type, 3);
		le32 body = le32_of((uint32_t)(len - MSG_HEADER_BYTES - 1));

		/* Each body cut short, with a length that admits it. */
		for (size_t n = MSG_HEADER_BYTES; n < len; n++) {
			body = le32_of((uint32_t)(n - MSG_HEADER_BYTES));
			memcpy(buf + 12, &body, 4);
			sign(n);
			assert_int_equal(msg_get(buf, n, &hdr, &out), -EPROTO);
		}
		/* And one byte too many. */
		buf[len] = 0;
		body = le32_of((uint32_t)(len + 1 - MSG_HEADER_BYTES));
		memcpy(buf + 12, &body, 4);
		sign(len + 1);
		assert_int_equal(msg_get(buf, len + 1, &hdr, &out), -EPROTO);
		/* Any single byte changed: refused, or a valid message again. */
		len = make(msg_descs[i].type, 3);
		for (size_t at = 4; at < len; at++) {
			uint8_t saved = buf[at];

			if (at >= 60 && at < 64)
				continue;
			for (unsigned v = 0; v < 256; v += 15) {
				buf[at] = (uint8_t)v;
				sign(len);
				if (msg_get(buf, len, &hdr, &out) == 0 && !hdr.error)
					assert_int_equal(msg_check(hdr.type, &out), 0);
			}
			buf[at] = saved;
		}
	}
}

static void values_out_of_range_are_not_sent_and_not_taken(void **state)
{
	struct msg_header hdr = { .type = MSG_lock };
	struct msg_lock lock = { .old_mode = 4 };
	struct msg_status_reply *status = calloc(1, sizeof(*status));
	struct msg_quorum_state quorum = { .slot = 15 };
	struct msg_lock_recover_reply *recover = calloc(1, sizeof(*recover));
	size_t len;

	(void)state;
	assert_int_equal(msg_put(&hdr, &lock, buf, sizeof(buf)), -EINVAL);
	hdr.type = MSG_quorum_state;
	assert_int_equal(msg_put(&hdr, &quorum, buf, sizeof(buf)), -EINVAL);
	quorum.slot = MSG_NO_SLOT;
	assert_true(msg_put(&hdr, &quorum, buf, sizeof(buf)) > 0);
	hdr.type = MSG_status_reply;
	memset(status->service, 'x', sizeof(status->service));
	assert_int_equal(msg_put(&hdr, status, buf, sizeof(buf)), -EINVAL);
	memset(status->service, 0, sizeof(status->service));
	status->values_nr = STATUS_VALUES_MAX + 1;
	assert_int_equal(msg_put(&hdr, status, buf, sizeof(buf)), -EINVAL);
	hdr.type = MSG_lock_recover_reply;
	recover->locks_nr = 1;
	recover->locks[0].mode = 9;
	assert_int_equal(msg_put(&hdr, recover, buf, sizeof(buf)), -EINVAL);
	hdr.type = 9999;
	assert_int_equal(msg_put(&hdr, NULL, buf, sizeof(buf)), -EINVAL);
	hdr.type = MSG_lock;
	hdr.flags = 0x8000;
	assert_int_equal(msg_put(&hdr, NULL, buf, sizeof(buf)), -EINVAL);
	hdr.flags = 0;
	assert_int_equal(msg_put(&hdr, NULL, buf, MSG_HEADER_BYTES - 1), -EMSGSIZE);
	assert_int_equal(msg_put(&hdr, NULL, buf, MSG_HEADER_BYTES + 28), -EMSGSIZE);

	/* The same from a peer: lock mode 4, an array that claims too much, a NUL inside a string.
	 */
	len = make(MSG_lock, 0);
	buf[len - 1] = 4;
	sign(len);
	assert_int_equal(msg_get(buf, len, &hdr, &out), -EPROTO);
	len = make(MSG_lock_recover_reply, 100);
	assert_int_equal(buf[MSG_HEADER_BYTES], 255);
	buf[MSG_HEADER_BYTES + 1] = 1;
	sign(len);
	assert_int_equal(msg_get(buf, len, &hdr, &out), -EPROTO);
	len = make(MSG_ctl_command, 50);
	buf[MSG_HEADER_BYTES + 3] = 0;
	sign(len);
	assert_int_equal(msg_get(buf, len, &hdr, &out), -EPROTO);
	free(status);
	free(recover);
}

static void versions_are_handled_as_promised(void **state)
{
	struct msg_header hdr;
	size_t len;
	le16 type = le16_of(9999);
	le32 body;

	(void)state;
	len = make(MSG_greeting, 0);
	buf[4] = MSG_MAJOR + 1;
	sign(len);
	assert_int_equal(msg_get(buf, len, &hdr, &out), -EPROTONOSUPPORT);
	/* A later minor version may append, and set flags that we do not know. */
	len = make(MSG_greeting, 0);
	buf[5] = MSG_MINOR + 1;
	buf[9] = 0x80;
	memset(buf + len, 0x77, 10);
	body = le32_of((uint32_t)(len + 10 - MSG_HEADER_BYTES));
	memcpy(buf + 12, &body, 4);
	sign(len + 10);
	assert_int_equal(msg_get(buf, len + 10, &hdr, &out), 0);
	assert_int_equal(hdr.flags & ~MSG_FLAGS, 0);
	filler = MSG_greeting;
	fill(MSG_greeting, &in);
	assert_memory_equal(&in.greeting, &out.greeting, sizeof(in.greeting));
	/* Or send what we do not know at all: its header is good. */
	len = make(MSG_greeting, 0);
	memcpy(buf + 6, &type, 2);
	sign(len);
	assert_int_equal(msg_get(buf, len, &hdr, &out), -EOPNOTSUPP);
	assert_int_equal(hdr.type, 9999);
	assert_int_equal(hdr.id, 0x1000 + MSG_greeting);
}

static void errors_cross_by_number(void **state)
{
	struct msg_header hdr = { .type = MSG_statfs_reply, .error = -ENOSPC }, got;
	le32 number;
	int len;

	(void)state;
#define ROUND_TRIP(nr, code)								\
	assert_int_equal(errors_to_wire(-(code)), (nr));				\
	assert_int_equal(errors_from_wire(nr), -(code));
	WIRE_ERRORS(ROUND_TRIP)
	assert_int_equal(errors_to_wire(0), 0);
	assert_int_equal(errors_from_wire(0), 0);
	assert_int_equal(errors_to_wire(-EISDIR), WIRE_ERROR_UNKNOWN);
	assert_int_equal(errors_from_wire(WIRE_ERROR_UNKNOWN), -EIO);
	assert_int_equal(errors_from_wire(12345), -EIO);
	/* An error has no body, and the number on the wire is ours. */
	len = msg_put(&hdr, NULL, buf, sizeof(buf));
	assert_int_equal(len, MSG_HEADER_BYTES);
	memcpy(&number, buf + 56, 4);
	assert_int_equal(le32_get(number), 4);
	assert_int_equal(msg_get(buf, (size_t)len, &got, &out), 0);
	assert_int_equal(got.error, -ENOSPC);
}

static void the_table_is_consistent(void **state)
{
	(void)state;
	for (size_t i = 0; i < msg_descs_nr; i++) {
		const struct msg_desc *d = &msg_descs[i];

		assert_true(msg_type_is_known(d->type));
		assert_string_equal(msg_name(d->type), d->name);
		assert_int_equal(msg_reply_type(d->type), d->reply);
		assert_true(d->reply == MSG_none || msg_type_is_known(d->reply));
		for (size_t k = 0; k < i; k++) {
			assert_true(msg_descs[k].type < d->type);
			assert_string_not_equal(msg_descs[k].name, d->name);
		}
		/* Whatever can be sent fits into a frame. */
		assert_true(make(d->type, 100) <= MSG_FRAME_MAX);
		for (size_t f = 0; f < d->fields_nr; f++)
			assert_true(d->fields[f].since <= MSG_MINOR);
	}
	assert_true(msg_is_from(MSG_lock, MSG_FROM_CLIENT));
	assert_false(msg_is_from(MSG_lock, MSG_FROM_SERVER));
	assert_false(msg_is_from(9999, MSG_FROM_ANY));
	assert_string_equal(msg_name(9999), "?");
	assert_int_equal(msg_struct_bytes(9999), 0);
}

/* Compare text with a file, or write it. */
static void compare_file(const char *path, const char *text, size_t len)
{
	char *old = malloc(len + 2);
	size_t n;
	FILE *f;

	f = fopen(path, is_updating() ? "w" : "r");
	if (!f)
		fail_msg("%s: not there (run this test in the top directory; UPDATE=1 makes it)",
			 path);
	if (is_updating()) {
		assert_int_equal(fwrite(text, 1, len, f), len);
	} else {
		n = fread(old, 1, len + 1, f);
		if (n != len || memcmp(old, text, len) != 0)
			fail_msg(
				"%s is not what the table makes; if the protocol shall change so: UPDATE=1",
				path);
	}
	assert_int_equal(fclose(f), 0);
	free(old);
}

static void golden_vectors_are_unchanged(void **state)
{
	(void)state;
	for (size_t i = 0; i < msg_descs_nr; i++) {
		size_t len = make(msg_descs[i].type, 3), n = 0;
		char *text = malloc(len * 3 + 2);
		char path[128];

		for (size_t b = 0; b < len; b++)
			n += (size_t)sprintf(text + n, "%02x%c", buf[b],
					     b % 32 == 31 || b == len - 1 ? '\n' : ' ');
		snprintf(path, sizeof(path), VECTORS "/%s.hex", msg_descs[i].name);
		compare_file(path, text, n);
		free(text);
	}
}

static void put_fields(FILE *f, const struct msg_field_desc *fields, size_t nr)
{
	if (nr == 0)
		fputs("-", f);
	for (size_t i = 0; i < nr; i++) {
		fprintf(f, "%s%s", i ? ", " : "", fields[i].name);
		if (fields[i].is_array)
			fprintf(f, ": up to %u × %s", fields[i].max, fields[i].type);
		else if (fields[i].max)
			fprintf(f, ": string of up to %u bytes", fields[i].max);
		else
			fprintf(f, ": %s", fields[i].type);
		if (fields[i].since)
			fprintf(f, " (since 1.%u)", fields[i].since);
	}
}

static void lower(char *to, const char *from)
{
	do
		*to++ = (char)(*from >= 'A' && *from <= 'Z' ? *from + 32 : *from);
	while (*from++);
}

/* What holds while an upgrade goes from service to service; what it says of each message is tested where it says. */
static const char neighbours[] =
	"\n## Older and newer peers\n\n"
	"An upgrade goes from service to service, so each talks for a while with neighbours of an older or a newer version:\n\n"
	"- A type that the receiver does not know is answered with EOPNOTSUPP, in both directions; the session goes on "
	"(`tests/unit/test_net_older.c`). Fields and flags of a later minor version are skipped, those that an older one lacks are 0 "
	"(`test_proto.c`). Another major version is refused in the greeting.\n"
	"- The rings and socket messages of blockd (`lib/run/blkring.h`) have a version of their own: another one is refused with a word. Within it, "
	"blockd says in its greeting what it can; what it does not know would end its connection and is not said to it. "
	"A flag of a descriptor that it does not know is refused, and done without (`test_blkcli_older.c`).\n"
	"- What a mount keeps for its next process (`services/fsd/keep.h`) is only gone on from by the same KEEP_VERSION. Another one says so and "
	"begins anew: programs get errors, and what was not fsynced is lost. So unmount before an upgrade whose notes name it.\n\n"
	"| what came later | with an older peer | tested in |\n|---|---|---|\n"
	"| get_log_merge, commit_log_merge | an older leader gives no work: EOPNOTSUPP is as \"none\", and it is asked again later | `test_net_older.c` |\n"
	"| commit_unflushed | an older leader is asked once a term; then the mount flushes itself | `test_fsd_txn.c` |\n"
	"| lease; heard_state, lease_ms of quorum_state; lease_until_ns of leader_state | came with version 2 of blockd's rings, before which nobody "
	"lived by leases: a host of before is no neighbour, stop it before the first newer one starts | - |\n"
	"| failing_ms of lease | an older leader goes on giving leases: others wait until the devices of that mount heal | `test_proto.c` |\n"
	"| the roots in lock_reply | an older leader sends none, and they are asked for | `test_fsd_txn.c` |\n"
	"| roots in lock_reply (1.2) | an older leader sends none, and the mount asks for them; an older mount skips them | `test_proto.c` |\n"
	"| has_directories of open_ino_map (1.2) | from an older mount, or by an older leader, no kernel hears of removed directories: it does when somebody "
	"looks for the name | - |\n"
	"| failing_ms of lease (1.2) | an older mount never says that its devices fail: it is given up with its lease, as before | - |\n"
	"| cluster_status, cluster_mounts, cluster_waits | the tool says that the leader does not answer, and shows what this node knows | `tests/cluster/91-status.sh` |\n"
	"| adv_lock, adv_cancel, adv_test | with an older leader flock and fcntl fail (EIO): nobody believes to have a lock | - |\n"
	"| adv_recover | an older mount never asked for locks and has none | `test_server_older.c` |\n"
	"| revoke_mount of blockd | the leader's own mount is waited for, which is said once, until blockd is restarted or an operator speaks | `test_server_own_mount.c`, `test_blkcli_older.c` |\n"
	"| commits in one call of blockd (`BLK_CAN_CHAIN`) | serverd writes the blocks with their flushes, then the super block | `test_blkcli_older.c` |\n"
	"| durable writes, ordered flushes of blockd | a write and a flush; a flush after the writes | `test_blkcli_older.c` |\n";

static void the_document_is_what_the_table_says(void **state)
{
	static const char head[] =
		"# Messages between the services\n\n"
		"Made from `proto/messages.h` by `tests/unit/test_proto.c` (`UPDATE=1`); do not edit.\n\n"
		"A frame is a header of 64 bytes and a body, little-endian, without padding:\n\n"
		"| offset | field |\n|---|---|\n"
		"| 0 | u32 magic 0x73637566 |\n| 4 | u8 major, u8 minor version |\n| 6 | u16 type |\n"
		"| 8 | u16 flags: 1 = response |\n"
		"| 10 | u16 number of the frame on its socket, from 1 (sessions; else 0) |\n"
		"| 12 | u32 length of the body |\n| 16 | u64 id of the request; its response repeats it |\n"
		"| 24 | u64 seq of the sender, 0 outside the numbering |\n"
		"| 32 | u64 greatest seq that the sender has received |\n| 40 | u64 term |\n"
		"| 48 | u64 rid of the sender |\n| 56 | u32 error (below); then there is no body |\n"
		"| 60 | u32 CRC-32C of the frame with these four bytes zero |\n\n"
		"Types of fields: u8, u16, u32, u64; flag, lock_mode, quorum_role, server_status, local_kind, "
		"greeting_status, greeting_flags, adv_kind, adv_type, adv_status: one byte, checked; slot: one byte, 0..14 or 255 for none; key: 27 "
		"bytes in the order of comparison; btree_root, log_trees, merge_request, merge_complete: bytes as "
		"on the volume (24, 472, 208, 208); "
		"ino_bits: 128 bytes; slot_values: 15 u64; a string is a u16 length and its bytes; an array is a "
		"u16 length and its elements.\n\n"
		"How sessions use them: `lib/run/net_client.h`, `lib/run/net_server.h`. Another major version is "
		"refused in the greeting; a minor version only appends.\n\n";
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	static const char *const parts[] = {
#define PART_NAME(name) #name,
		MESSAGE_PARTS(PART_NAME)
	};

	(void)state;
	fputs(head, f);
	fputs("| type | message | from, to | answer | body |\n|---|---|---|---|---|\n", f);
	for (size_t i = 0; i < msg_descs_nr; i++) {
		const struct msg_desc *d = &msg_descs[i];
		char from[16], to[16];

		lower(from, d->from);
		lower(to, d->to);
		fprintf(f, "| %u | %s | %s, %s | %s | ", d->type, d->name, from, to,
			d->reply ? msg_name(d->reply) : "-");
		put_fields(f, d->fields, d->fields_nr);
		fputs(" |\n", f);
	}
	fputs("\n| element | fields |\n|---|---|\n", f);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		size_t nr;
		const struct msg_field_desc *fields = msg_part_fields(parts[i], &nr);

		assert_non_null(fields);
		fprintf(f, "| %s | ", parts[i]);
		put_fields(f, fields, nr);
		fputs(" |\n", f);
	}
	assert_null(msg_part_fields("nothing", &len));
	fputs("\n| error | meaning |\n|---|---|\n| 0 | none |\n", f);
#define PUT_ERROR(nr, code) fprintf(f, "| %u | " #code " |\n", (unsigned)(nr));
	WIRE_ERRORS(PUT_ERROR)
	fprintf(f, "| %u | any other, taken for EIO |\n", WIRE_ERROR_UNKNOWN);
	fputs(neighbours, f);
	assert_int_equal(fclose(f), 0);
	compare_file(DOCUMENT, text, len);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_is_consistent),
		cmocka_unit_test(every_message_comes_back_as_it_went),
		cmocka_unit_test(every_prefix_and_every_flipped_bit_is_refused),
		cmocka_unit_test(lies_with_a_right_checksum_are_refused),
		cmocka_unit_test(values_out_of_range_are_not_sent_and_not_taken),
		cmocka_unit_test(versions_are_handled_as_promised),
		cmocka_unit_test(errors_cross_by_number),
		cmocka_unit_test(golden_vectors_are_unchanged),
		cmocka_unit_test(the_document_is_what_the_table_says),
	};

	return cmocka_run_group_tests_name("proto", tests, NULL, NULL);
}
