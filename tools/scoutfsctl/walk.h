/*
 * What the two forms of walk-inodes share: the range that was asked for and how a row is shown.
 */
#ifndef SCOUTFSCTL_WALK_H
#define SCOUTFSCTL_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "format/ioctl_abi.h"

#define WALK_VERB "walk-inodes"

struct walk {
	uint8_t index;
	bool is_json;
	struct ioc_walk_inodes_entry first;
	struct ioc_walk_inodes_entry last;
	uint64_t rows;
	uint64_t stable_end;	/* offline: entries from here on are not final */
};

/* One entry to stdout, as text (a line of names every so many rows) or JSON. */
void walk_print_row(struct walk *w, uint64_t major, uint32_t minor, uint64_t ino);

/*
 * The entries of w's range on devices that nobody uses, data may be NULL; the exit status.  In scoutfsctl, which
 * has no code for devices, it hands the whole command over to scoutfsctl-admin.
 */
int walk_devices(struct walk *w, const char *meta, const char *data);

#endif
