/* Frames of messages from a peer: refused, or a struct that is valid and is written as it was read.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "csum/csum.h"
#include "msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max);

static union msg_body body, second;
static uint8_t frame[MSG_FRAME_MAX], again[MSG_FRAME_MAX];

static void try_frame(const uint8_t *data, size_t size)
{
	struct msg_header hdr, hdr2;
	int len;

	if (msg_get(data, size, &hdr, &body) < 0)
		return;
	if (!hdr.error)
		assert(msg_check(hdr.type, &body) == 0);
	len = msg_put(&hdr, &body, again, sizeof(again));
	assert(len >= (int)MSG_HEADER_BYTES);
	/* What we write is at our own version and is read as the same. */
	assert(msg_get(again, (size_t)len, &hdr2, &second) == 0);
	assert(msg_put(&hdr2, &second, frame, sizeof(frame)) == len);
	assert(memcmp(frame, again, (size_t)len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	le32 len, crc;
	uint8_t *copy;

	try_frame(data, size);
	if (size < MSG_HEADER_BYTES)
		return 0;
	/* The same from a peer who can count and sign. */
	copy = malloc(size);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	len = le32_of((uint32_t)(size - MSG_HEADER_BYTES));
	memcpy(copy + 12, &len, sizeof(len));
	memset(copy + 60, 0, 4);
	crc = le32_of(crc32c(copy, size));
	memcpy(copy + 60, &crc, sizeof(crc));
	try_frame(copy, size);
	free(copy);
	return 0;
}

/* Every string has something in it and every array a few elements, or mutations would hardly reach these. */
#define SEED_FIELD(type, name, since)
#define SEED_STRING(name, max, since) m->name[0] = 's';
#define SEED_ARRAY(part, name, max, since)			\
	m->name##_nr = (max) < 3 ? (max) : 3;			\
	for (unsigned n = 0; n < m->name##_nr; n++)		\
		seed_##part(&m->name[n]);
#define SEED_STRUCT(name)					\
	static void seed_##name(struct msg_##name *m)		\
	{							\
		(void)m;					\
		name##_FIELDS(SEED_FIELD, SEED_STRING, SEED_ARRAY)	\
	}
#define SEED_MESSAGE(name, number, from, to, reply) SEED_STRUCT(name)
MESSAGE_PARTS(SEED_STRUCT)
MESSAGES(SEED_MESSAGE)

static void seed(unsigned type)
{
	memset(&body, 0, sizeof(body));
	switch (type) {
#define SEED_CASE(name, number, from, to, reply)		\
	case (number):						\
		seed_##name(&body.name);			\
		break;
		MESSAGES(SEED_CASE)
	}
}

size_t fuzz_seed(unsigned i, uint8_t *buf, size_t max)
{
	struct msg_header hdr = { 0 };
	int len;

	if (i >= msg_descs_nr)
		return 0;
	hdr.type = (uint16_t)msg_descs[i].type;
	seed(hdr.type);
	len = msg_put(&hdr, &body, buf, max);
	return len < 0 ? 0 : (size_t)len;
}
