/* Quorum slots as the verbs that make or change them read and show them. */
#include "tools/scoutfsctl/slots.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "format/super.h"
#include "tools/scoutfsctl/commands.h"

int slot_parse_addr(const char *text, size_t len, uint32_t *addr)
{
	char buf[INET_ADDRSTRLEN];
	struct in_addr in;

	if (len >= sizeof(buf))
		return -EINVAL;
	memcpy(buf, text, len);
	buf[len] = '\0';
	if (inet_pton(AF_INET, buf, &in) != 1)
		return -EINVAL;
	*addr = ntohl(in.s_addr);
	return 0;
}

int slot_parse_port(const char *text, uint16_t *port)
{
	uint64_t v;

	if (parse_u64(text, &v) < 0 || v < 1 || v > 65535)
		return -EINVAL;
	*port = (uint16_t)v;
	return 0;
}

int slot_parse(const char *verb, const char *text, struct mkfs_slot slots[QUORUM_SLOTS_MAX])
{
	const char *addr = strchr(text, ',');
	const char *port = addr ? strchr(addr + 1, ',') : NULL;
	struct mkfs_slot slot = { .is_used = true };
	char nr_text[24];
	uint64_t nr;

	if (!port || (size_t)(addr - text) >= sizeof(nr_text))
		return usage_error(verb, "-Q %s: a slot is NR,ADDR,PORT, as 0,10.0.0.1,12345",
				   text);
	memcpy(nr_text, text, (size_t)(addr - text));
	nr_text[addr - text] = '\0';
	if (parse_u64(nr_text, &nr) < 0 || nr >= QUORUM_SLOTS_MAX)
		return usage_error(verb, "-Q %s: the slot number must be from 0 to 14", text);
	if (slot_parse_addr(addr + 1, (size_t)(port - addr - 1), &slot.addr) < 0)
		return usage_error(verb, "-Q %s: the address is not an IPv4 address", text);
	if (slot_parse_port(port + 1, &slot.port) < 0)
		return usage_error(verb, "-Q %s: the port must be from 1 to 65535", text);
	if (!quorum_addr_is_valid(slot.addr, slot.port))
		return usage_error(verb, "-Q %s: the address is not a unicast address", text);
	if (slots[nr].is_used)
		return usage_error(verb, "-Q %s: slot %" PRIu64 " is given twice", text, nr);
	slots[nr] = slot;
	return 0;
}

void slots_print(const struct mkfs_slot slots[QUORUM_SLOTS_MAX])
{
	const char *label = "quorum slots:";

	for (unsigned i = 0; i < QUORUM_SLOTS_MAX; i++) {
		uint32_t a = slots[i].addr;

		if (!slots[i].is_used)
			continue;
		printf("  %-23s %u: %u.%u.%u.%u:%u\n", label, i, a >> 24, a >> 16 & 255,
		       a >> 8 & 255, a & 255, slots[i].port);
		label = "";
	}
}
