/*
 * The two forms of print's records.  Both have the same names in the same order, so what is said of
 * one form holds for the other.  64-bit values that are identities (fsid, rid, block seq) are 16
 * hex digits in both; a reader of JSON that keeps numbers as doubles would otherwise change them.
 */
#include "tools/scoutfsctl/print.h"

#include <inttypes.h>

#include "key/key.h"
#include "tools/scoutfsctl/commands.h"

static void put_name(struct out *o, const char *name)
{
	if (!o->is_json) {
		fprintf(o->f, " %s", name);
		return;
	}
	fprintf(o->f, "%s\"%s\":", o->needs_comma ? "," : "", name);
	o->needs_comma = true;
}

void out_begin(struct out *o, const char *kind)
{
	if (o->is_json)
		fprintf(o->f, "{\"kind\":\"%s\"", kind);
	else
		fputs(kind, o->f);
	o->needs_comma = true;
}

void out_end(struct out *o)
{
	fputs(o->is_json ? "}\n" : "\n", o->f);
}

void out_u64(struct out *o, const char *name, uint64_t v)
{
	put_name(o, name);
	fprintf(o->f, o->is_json ? "%" PRIu64 : " %" PRIu64, v);
}

void out_s64(struct out *o, const char *name, int64_t v)
{
	put_name(o, name);
	fprintf(o->f, o->is_json ? "%" PRId64 : " %" PRId64, v);
}

void out_hex(struct out *o, const char *name, uint64_t v)
{
	put_name(o, name);
	fprintf(o->f, o->is_json ? "\"%016" PRIx64 "\"" : " %016" PRIx64, v);
}

void out_word(struct out *o, const char *name, const char *text)
{
	put_name(o, name);
	fprintf(o->f, o->is_json ? "\"%s\"" : " %s", text);
}

void out_bytes(struct out *o, const char *name, const void *p, size_t len)
{
	put_name(o, name);
	if (o->is_json) {
		json_string(o->f, p, len);
		return;
	}
	fputs(" \"", o->f);
	text_string(o->f, p, len);
	fputc('"', o->f);
}

void out_key(struct out *o, const char *name, const struct key *k)
{
	char text[KEY_TEXT_BYTES];

	key_to_text(k, text, sizeof(text));
	out_word(o, name, text);
}

void out_group(struct out *o, const char *name)
{
	put_name(o, name);
	fputs(o->is_json ? "{" : " (", o->f);
	o->needs_comma = false;
}

void out_group_end(struct out *o)
{
	fputs(o->is_json ? "}" : " )", o->f);
	o->needs_comma = true;
}

void out_list(struct out *o, const char *name)
{
	put_name(o, name);
	if (o->is_json)
		fputc('[', o->f);
	o->needs_comma = false;
}

void out_pair(struct out *o, uint64_t a, uint64_t b)
{
	if (o->is_json)
		fprintf(o->f, "%s[%" PRIu64 ",%" PRIu64 "]", o->needs_comma ? "," : "", a, b);
	else
		fprintf(o->f, " %" PRIu64 ",%" PRIu64, a, b);
	o->needs_comma = true;
}

void out_list_end(struct out *o)
{
	if (o->is_json)
		fputc(']', o->f);
	o->needs_comma = true;
}

static void put_ref(struct out *o, const struct disk_block_ref *ref)
{
	out_u64(o, "blkno", le64_get(ref->blkno));
	out_hex(o, "seq", le64_get(ref->seq));
}

static void put_root(struct out *o, const struct disk_btree_root *root)
{
	put_ref(o, &root->ref);
	out_u64(o, "height", root->height);
}

void out_ref(struct out *o, const char *name, const struct disk_block_ref *ref)
{
	out_group(o, name);
	put_ref(o, ref);
	out_group_end(o);
}

void out_root(struct out *o, const char *name, const struct disk_btree_root *root)
{
	out_group(o, name);
	put_root(o, root);
	out_group_end(o);
}

void out_alloc_root(struct out *o, const char *name, const struct disk_alloc_root *root)
{
	out_group(o, name);
	out_u64(o, "total_len", le64_get(root->total_len));
	out_u64(o, "flags", le32_get(root->flags));
	put_root(o, &root->root);
	out_group_end(o);
}

void out_list_head(struct out *o, const char *name, const struct disk_alloc_list_head *head)
{
	out_group(o, name);
	put_ref(o, &head->ref);
	out_u64(o, "total_nr", le64_get(head->total_nr));
	out_u64(o, "first_nr", le32_get(head->first_nr));
	out_u64(o, "flags", le32_get(head->flags));
	out_group_end(o);
}

static void put_srch_entry(struct out *o, const char *name, const struct disk_srch_entry *e)
{
	out_group(o, name);
	out_hex(o, "hash", le64_get(e->hash));
	out_u64(o, "ino", le64_get(e->ino));
	out_u64(o, "id", le64_get(e->id));
	out_group_end(o);
}

void out_srch_file(struct out *o, const char *name, const struct disk_srch_file *sf)
{
	out_group(o, name);
	put_ref(o, &sf->ref);
	out_u64(o, "height", sf->height);
	out_u64(o, "blocks", le64_get(sf->blocks));
	out_u64(o, "entries", le64_get(sf->entries));
	put_srch_entry(o, "first", &sf->first);
	put_srch_entry(o, "last", &sf->last);
	out_group_end(o);
}

void out_addr(struct out *o, const char *name, const struct disk_inet_addr *a)
{
	uint32_t addr = le32_get(a->addr);
	char text[40];

	if (le16_get(a->family) == ADDR_IPV4)
		snprintf(text, sizeof(text), "%u.%u.%u.%u:%u", addr >> 24, addr >> 16 & 255,
			 addr >> 8 & 255, addr & 255, le16_get(a->port));
	else
		snprintf(text, sizeof(text), "family-%u", le16_get(a->family));
	out_word(o, name, text);
}

void out_time(struct out *o, const char *name, const struct disk_timespec *ts)
{
	char text[40];

	snprintf(text, sizeof(text), "%" PRId64 ".%09u", (int64_t)le64_get(ts->sec),
		 le32_get(ts->nsec));
	out_word(o, name, text);
}
