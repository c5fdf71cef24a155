/* How print writes records, and the decoding of items for it; shared by print's files only. */
#ifndef SCOUTFSCTL_PRINT_H
#define SCOUTFSCTL_PRINT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "btree/btree_block.h"
#include "format/format.h"
#include "format/item_check.h"

/* A record is one line: "kind name value name value", or one JSON object with the same names. */
struct out {
	FILE *f;
	bool is_json;
	bool needs_comma;
};

void out_begin(struct out *o, const char *kind);
void out_end(struct out *o);
void out_u64(struct out *o, const char *name, uint64_t v);
void out_s64(struct out *o, const char *name, int64_t v);
void out_hex(struct out *o, const char *name, uint64_t v);	/* a string in JSON */
void out_word(struct out *o, const char *name, const char *text);
void out_bytes(struct out *o, const char *name, const void *p, size_t len);
void out_key(struct out *o, const char *name, const struct key *k);
void out_group(struct out *o, const char *name);
void out_group_end(struct out *o);
void out_list(struct out *o, const char *name);
/* An element of a list: [a, b], in text a,b. */
void out_pair(struct out *o, uint64_t a, uint64_t b);
void out_list_end(struct out *o);

void out_ref(struct out *o, const char *name, const struct disk_block_ref *ref);
void out_root(struct out *o, const char *name, const struct disk_btree_root *root);
void out_alloc_root(struct out *o, const char *name, const struct disk_alloc_root *root);
void out_list_head(struct out *o, const char *name, const struct disk_alloc_list_head *head);
void out_srch_file(struct out *o, const char *name, const struct disk_srch_file *sf);
void out_addr(struct out *o, const char *name, const struct disk_inet_addr *a);
void out_time(struct out *o, const char *name, const struct disk_timespec *ts);

/* The fields of a value that passed item_check. */
void out_item_value(struct out *o, enum tree_kind tree, const struct item *it);

#endif
