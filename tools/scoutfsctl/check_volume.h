/*
 * The checker's inside: one struct check, the phases that fill it, and the findings they report.
 * Numbers of findings are those of the invariants in format.md 20.  Shared by check_*.c only.
 */
#ifndef SCOUTFSCTL_CHECK_VOLUME_H
#define SCOUTFSCTL_CHECK_VOLUME_H

#include <stdatomic.h>

#include "btree/block.h"
#include "btree/btree_block.h"
#include "format/format.h"
#include "format/item_check.h"
#include "key/key.h"
#include "log/forest.h"

#include "tools/scoutfsctl/check_sort.h"

#define CHECK_INVARIANTS_NR 33u
/* Messages of one kind that are given in full; the rest are counted. */
#define CHECK_SHOWN_MAX 100u

enum check_severity { CHECK_NOTE, CHECK_WARNING, CHECK_FINDING };

/* One line of the answer.  Strings live for the call only; path is NULL where there is none. */
struct check_message {
	enum check_severity severity;
	unsigned invariant; /* 0 for notes */
	const char *path;
	uint64_t ino;	       /* 0: none */
	uint64_t blkno;	       /* large, 0: none */
	const struct key *key; /* NULL: none */
	const char *text;
};

/* A growing array of equal elements; vec_push in check_report.c. */
struct vec {
	void *p;
	size_t nr;
	size_t cap;
};

/* Who owns a metadata block.  Up to OWNER_LAST_REF the block itself is referenced, beyond that its
 * number stands in an allocator. */
enum check_owner {
	OWNER_NONE,
	OWNER_FS_ROOT,
	OWNER_LOGS_ROOT,
	OWNER_LOG_MERGE,
	OWNER_CLIENTS,
	OWNER_SRCH_ROOT,
	OWNER_META_ALLOC,
	OWNER_DATA_ALLOC,
	OWNER_SERVER_LIST,
	OWNER_LOG_ITEMS,
	OWNER_BLOOM,
	OWNER_LOG_LIST,
	OWNER_LOG_DATA,
	OWNER_SRCH_FILE,
	OWNER_SRCH_INPUT,
	OWNER_SRCH_OUT,
	OWNER_COMPACT_LIST,
	OWNER_MERGE_LIST,
	OWNER_COMPLETE,
	OWNER_FREEING,
	/* Of one of the above, and in work that does not count yet (16.4): still used there, or freed by it. */
	OWNER_FS_KEPT,
	OWNER_FS_FREED,
	OWNER_SRCH_FREED,
	OWNER_LAST_REF = OWNER_SRCH_FREED,
	OWNER_ENTRY_SERVER,
	OWNER_ENTRY_LOG,
	OWNER_ENTRY_COMPACT,
	OWNER_ENTRY_MERGE,
	OWNER_FREE_EXTENT,
	OWNERS_NR,
};

struct check_link { /* a dirent, or a backref */
	uint64_t dir;
	uint64_t pos;
	uint64_t ino;
	uint64_t digest; /* hash64 of the whole value */
	uint8_t type;
};

struct check_inode {
	uint64_t ino;
	uint64_t meta_seq;
	uint64_t data_seq;
	uint32_t nlink;
	uint32_t mode;
};

struct check_index {
	uint64_t ino, seq;
	uint8_t type;
};
struct check_total {
	uint64_t a, b, c, total, count;
};
struct check_data {
	uint64_t start, len;
	uint64_t ino;		/* 0: who says */
	const char *who;
};
struct check_srch {
	uint64_t hash, ino, id;
};

struct check_log { /* a logs_root item, kept for the second look */
	struct disk_log_trees lt;
	uint64_t rid;
	uint64_t nr;
};

/* The srch_root items and log_merge items, decoded when their tree was walked. */
struct check_srch_file {
	struct disk_srch_file file;
	struct key key;
	bool is_input;
};
struct check_compact {
	struct disk_srch_compact c;
	struct key key;
};
struct check_merge {
	struct key key;
	uint16_t len;
	uint8_t val[sizeof(struct disk_merge_request)];
};

/* A malformed item of zone 16; why is a string constant. */
struct check_bad_item {
	struct key key;
	uint64_t blkno;
	const char *why;
	unsigned invariant;
	char tree[80];
};

struct check {
	/* Set by the caller.  dev reads large blocks; 1 holds the super and the quorum blocks. */
	struct block_dev dev;
	uint64_t meta_bytes; /* sizes of the devices */
	uint64_t data_bytes;
	const struct disk_super *data_super; /* SMALL_SIZE bytes; NULL: no data device at hand */
	void (*message)(void *arg, const struct check_message *m); /* may be NULL */
	void *message_arg;
	/* May be NULL; total 0: not known. */
	void (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *progress_arg;
	const char *temp_dir; /* for what memory must not hold; NULL: /var/tmp */
	size_t sort_bytes;    /* of records of a kind kept in memory; 0: some megabytes */

	/* The answer. */
	uint64_t findings_nr[CHECK_INVARIANTS_NR + 1]; /* [0] unused */
	uint64_t warnings_nr[CHECK_INVARIANTS_NR + 1];
	uint64_t inodes_nr, blocks_nr, data_blocks_nr; /* what was looked at */
	bool is_in_use;				       /* not cleanly unmounted, 6.2 */

	/* Between the phases. */
	atomic_bool is_cancelled; /* what is being done is not wanted any more; any thread */
	int err;	      /* first failure of ours: memory, or a temporary file */
	const char *err_what; /* what failed, where it was a temporary file */
	struct disk_super super;
	unsigned fmt_vers;
	uint64_t fsid;
	uint64_t meta_blocks, data_blocks;
	uint64_t seq_max;    /* no item may be newer (16.1) */
	uint8_t *owner;	     /* enum check_owner of each large block; mapped */
	bool blocks_unknown; /* a structure was unreadable: what it owns is not known */
	bool forest_broken;  /* the resolved view cannot be trusted */
	bool data_unknown;   /* a tree of data extents was unreadable */
	bool srch_unknown;   /* some srch file was unreadable */
	struct block_set *bs;
	struct forest_roots roots;
	bool has_root;
	uint32_t root_mode;
	/* As many as there are mounts, merges and files of searches. */
	struct vec logs, srch_files, compacts, merges, bad_items;
	/* As many as there are files: in memory only so far (check_sort.h). */
	struct sorter data, mapped, inodes, dirents, backrefs, indexes, orphans, totals, totals_want, indx,
		indx_want, srch, srch_want;
};

/*
 * Check a whole volume.  0: done, the counts say what was found; -EBADMSG: the super is so wrong
 * that nothing can be checked (reported as a finding too); -ENOMEM; -EIO when the super cannot be
 * read; where ck->err_what is set, what the temporary file said (-ENOSPC).
 */
int check_volume(struct check *ck);
uint64_t check_findings(const struct check *ck);
void check_fini(struct check *ck);

/* check_report.c: where.ino gives the message a path if one can be found. */
struct check_where {
	uint64_t blkno;
	const struct key *key;
	uint64_t ino;
};
#define AT_BLOCK(b) (&(struct check_where){ .blkno = (b) })
#define AT_KEY(k) (&(struct check_where){ .key = (k) })
#define AT_INO(i) (&(struct check_where){ .ino = (i) })
#define AT_ITEM(i, k) (&(struct check_where){ .ino = (i), .key = (k) })
#define AT_BLOCK_KEY(b, k) (&(struct check_where){ .blkno = (b), .key = (k) })
#define NOWHERE (&(struct check_where){ 0 })
void check_find(struct check *ck, unsigned invariant, const struct check_where *at, const char *fmt,
		...) __attribute__((format(printf, 4, 5)));
void check_warn(struct check *ck, unsigned invariant, const struct check_where *at, const char *fmt,
		...) __attribute__((format(printf, 4, 5)));
void check_note(struct check *ck, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_progress(struct check *ck, const char *phase, uint64_t done, uint64_t total);
/* Append a copy of *elem; a failure is kept in ck->err. */
void vec_push(struct check *ck, struct vec *v, const void *elem, size_t size);
void vec_free(struct vec *v);
#define VEC_AT(v, type, i) (&((type *)(v)->p)[i])

/* check_super.c */
int check_super(struct check *ck, const uint8_t *block1);
void check_quorum(struct check *ck, const uint8_t *block1);

/* check_blocks.c: reading, ownership, trees. */
const char *check_owner_name(enum check_owner owner);
/* Make a block belong to owner; false, and a finding, if it cannot. */
bool check_claim(struct check *ck, uint64_t blkno, enum check_owner owner, const char *name);
/* Read and verify what ref names into buf (LARGE_SIZE bytes); false, and a finding, if it is
 * wrong. */
bool check_read(struct check *ck, struct block_ref ref, uint32_t magic, const char *name,
		void *buf);
void check_meta_partition(struct check *ck);
/* check_leak.c: whether a block in nothing is of the kind that 0002-leaked-blocks.md excuses. */
bool check_is_known_leak(struct check *ck, uint64_t blkno, const void *data);

struct check_tree {
	enum check_owner owner;
	enum tree_kind kind;
	char name[80];
	/* Called for each well-formed item, in key order. */
	void (*item)(struct check *ck, struct check_tree *t, const struct item *it, uint64_t blkno);
	void *arg;
	const struct key *freed_below; /* blocks wholly below are free already (14.1 freeing) */
	bool may_share_fs;	       /* blocks of fs_root may be met (16.4) */
	bool is_broken;		       /* out: some block could not be used */
};
void check_walk_tree(struct check *ck, struct check_tree *t, const struct disk_btree_root *root);
/* Report the malformed file system items that the walks met. */
void check_bad_items(struct check *ck);

/* check_tree.c: one block.  order gets the slots in key order; false: the block cannot be used. */
#define CHECK_ITEMS_MAX 1170u
bool check_tree_block(struct check *ck, const struct check_tree *t,
		      const struct disk_btree_block *b, uint64_t blkno, unsigned level,
		      const struct key *low, const struct key *high, bool is_right_edge,
		      uint16_t *order);

/* check_alloc.c */
void check_alloc_list(struct check *ck, const struct disk_alloc_list_head *head,
		      enum check_owner block_owner, enum check_owner entry_owner, const char *name);
/* The freed list of a merge or compaction, after everything else: its entries may still be in
 * use. */
void check_freed_list(struct check *ck, const struct disk_alloc_list_head *head,
		      enum check_owner block_owner, enum check_owner entry_owner, const char *name);
/* who NULL: metadata. */
void check_free_extents(struct check *ck, const struct disk_alloc_root *root,
			enum check_owner owner, const char *name, const char *who);
void check_data_partition(struct check *ck);

/* check_forest.c, check_merge.c, check_srch.c */
void check_logs(struct check *ck);
void check_merge_items(struct check *ck);
void check_merge_shared(struct check *ck);
void check_srch_root(struct check *ck);
/* One file's blocks and entries; collects entries for the parity rule if they count. */
void check_srch_file(struct check *ck, const struct disk_srch_file *f, enum check_owner owner,
		     const char *name, bool entries_count);
void check_srch_shared(struct check *ck);
void check_srch_parity(struct check *ck);

/*
 * check_inodes.c, check_xattrs.c, check_links.c: the resolved view.  The walk fills the sorters and says what
 * it finds; 0, -ECANCELED, or why it could not be done.  The end compares what was gathered; ret is what
 * the walk returned.
 */
int check_items_walk(struct check *ck);
void check_items_end(struct check *ck, int ret);
/* check_resolve.c: the same walk beside the structures, in a thread of its own. */
struct check_resolve;
/* NULL: it could not be started (or ck->err); then it is done by check_resolve_end. */
struct check_resolve *check_resolve_begin(struct check *ck);
/* Take over what it found, if ck can use it; returns what check_items_walk returned.  Frees r. */
int check_resolve_end(struct check *ck, struct check_resolve *r);
void check_sorters_open(struct check *ck);
void check_sorters_fini(struct check *ck);
struct check_xattrs;
struct check_xattrs *check_xattrs_alloc(struct check *ck);
void check_xattrs_free(struct check_xattrs *x);
void check_xattrs_inode(struct check_xattrs *x, uint64_t ino, const struct disk_inode *inode);
void check_xattrs_item(struct check_xattrs *x, const struct item *it);
void check_xattrs_end(struct check_xattrs *x); /* of an inode */
void check_tagged(struct check *ck);
struct check_dir;
struct check_dir *check_dir_alloc(struct check *ck);
void check_dir_free(struct check_dir *d);
void check_dir_item(struct check_dir *d, const struct item *it);
/* The end of an inode: inode is NULL if it has no inode item. */
void check_dir_end(struct check_dir *d, uint64_t ino, const struct disk_inode *inode);
void check_links(struct check *ck);
int check_cmp_key(const void *a, const void *b);
/* The orders of what the sorters hold. */
int check_cmp_data(const void *a, const void *b);	/* by place */
int check_cmp_link(const void *a, const void *b);	/* by inode, directory, position */
int check_cmp_index(const void *a, const void *b);	/* by type, inode, seq */
int check_cmp_total(const void *a, const void *b);	/* by name */
int check_cmp_srch(const void *a, const void *b);

/* check_path.c: one path of an inode, from the committed items.  0, or -ENOENT. */
int check_path(struct check *ck, uint64_t ino, char *buf, size_t size);

#endif
