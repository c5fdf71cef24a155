/* Quorum slots on the command line and in what is printed: interface.md 3.1, 3.2. */
#ifndef SCOUTFSCTL_SLOTS_H
#define SCOUTFSCTL_SLOTS_H

#include <stddef.h>
#include <stdint.h>

#include "format/format.h"
#include "format/mkfs_layout.h"

/* The first len bytes of text are an IPv4 address; text is a port from 1 to 65535.  Numbers.  -EINVAL. */
int slot_parse_addr(const char *text, size_t len, uint32_t *addr);
int slot_parse_port(const char *text, uint16_t *port);
/* "NR,ADDR,PORT" into its slot.  Not 0: the status of usage_error, which has been said for the verb. */
int slot_parse(const char *verb, const char *text, struct mkfs_slot slots[QUORUM_SLOTS_MAX]);
/* Lines of "quorum slots:" to stdout, as mkfs prints them. */
void slots_print(const struct mkfs_slot slots[QUORUM_SLOTS_MAX]);

#endif
