/*
 * Operations on names, attributes and xattrs over the real item cache, against a model of a file
 * system.
 *
 * Random operations, with results and errors foretold by the model.  After every so many the open
 * generation is committed and the forest must hold exactly the items that format.md 12.3-12.6 wants
 * for what the model says: three equal ones for each entry, symlink fragments, xattr parts,
 * orphans, and inodes with the right sizes and link counts.  SEED and ROUNDS in the environment
 * choose another run.
 */
#include "fsd_fakes.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/xattr.h>

#include "csum/csum.h"
#include "services/fsd/caller.h"
#include "services/fsd/ops_attr.h"
#include "services/fsd/ops_dir.h"
#include "services/fsd/orphan.h"
#include "services/fsd/tmpfile.h"
#include "services/fsd/xattr.h"

#define NAMES_NR	16
#define INODES_MAX	256
#define ENTRIES_MAX	64
#define XATTRS_MAX	6

/* ---- the model ------------------------------------------------------------------------------- */

struct m_entry {
	unsigned name;		/* index in names[] */
	unsigned inode;		/* index in m.inodes */
	uint64_t pos;
};

struct m_xattr {
	unsigned name;		/* index in xnames[] */
	uint64_t id;
	size_t len;
	uint8_t *val;
};

struct m_inode {
	bool exists;		/* false: a free slot */
	bool never_had_a_name;	/* O_TMPFILE */
	uint64_t ino;
	uint32_t mode, nlink, uid, gid;
	uint64_t size, next_pos, next_xattr_id;
	unsigned parent;	/* of a directory */
	char *target;
	struct m_entry entries[ENTRIES_MAX];	/* in order of positions */
	unsigned entries_nr;
	struct m_xattr xattrs[XATTRS_MAX];
	unsigned xattrs_nr;
};

static struct {
	struct m_inode inodes[INODES_MAX];
} m;

static struct name names[NAMES_NR];
static char xnames[XATTRS_MAX][XATTR_NAME_MAX_BYTES + 1];

static unsigned m_pick(void)
{
	unsigned i;

	do
		i = (unsigned)below(INODES_MAX);
	while (!m.inodes[i].exists || (m.inodes[i].nlink == 0 && below(4)));
	return i;
}

/* A directory, mostly; one with a few names more often than not. */
static unsigned m_pick_dir(void)
{
	for (unsigned tries = 0; tries < 64; tries++) {
		unsigned i = m_pick();

		if (S_ISDIR(m.inodes[i].mode) || tries == 63)
			return i;
	}
	return 0;
}

static struct m_entry *m_find(struct m_inode *dir, unsigned name)
{
	for (unsigned i = 0; i < dir->entries_nr; i++) {
		if (dir->entries[i].name == name)
			return &dir->entries[i];
	}
	return NULL;
}

static void m_add(struct m_inode *dir, unsigned name, unsigned inode)
{
	dir->entries[dir->entries_nr++] = (struct m_entry){ name, inode, dir->next_pos++ };
	dir->size += names[name].len;
}

static void m_remove(struct m_inode *dir, struct m_entry *e)
{
	dir->size -= names[e->name].len;
	memmove(e, e + 1, (size_t)(dir->entries + --dir->entries_nr - e) * sizeof(*e));
}

static void m_forget(struct m_inode *i)
{
	free(i->target);
	for (unsigned x = 0; x < i->xattrs_nr; x++)
		free(i->xattrs[x].val);
	memset(i, 0, sizeof(*i));
}

/* Why nothing can be done in dir: the errors of a directory that is none, or is gone. */
static int m_dir_error(const struct m_inode *dir)
{
	if (!S_ISDIR(dir->mode))
		return -ENOTDIR;
	return dir->nlink ? 0 : -ENOENT;
}

static int m_unlink_error(const struct m_inode *i, bool want_dir)
{
	if (want_dir != S_ISDIR(i->mode))
		return want_dir ? -ENOTDIR : -EISDIR;
	return S_ISDIR(i->mode) && i->entries_nr ? -ENOTEMPTY : 0;
}

static void m_drop_link(struct m_inode *dir, struct m_inode *i)
{
	if (S_ISDIR(i->mode)) {
		i->nlink = 0;
		dir->nlink--;
	} else {
		i->nlink--;
	}
}

/* ---- random operations ----------------------------------------------------------------------- */

static void do_create(void)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFDIR,
					  S_IFDIR, S_IFLNK, S_IFIFO, S_IFCHR };
	unsigned slot = 0, dir_nr = m_pick_dir(), name = (unsigned)below(NAMES_NR);
	struct m_inode *dir = &m.inodes[dir_nr], *i;
	struct dir_op d = { .dir = dir->ino,
			    .name = names[name],
			    .umask = 022,
			    .uid = (uint32_t)below(3) * 500,
			    .gid = (uint32_t)below(3) };
	char target[SYMLINK_MAX_BYTES];
	int want;

	while (slot < INODES_MAX && m.inodes[slot].exists)
		slot++;
	if (slot == INODES_MAX || dir->entries_nr == ENTRIES_MAX)
		return;
	d.mode = types[below(sizeof(types) / sizeof(types[0]))] | 0666;
	if (S_ISLNK(d.mode)) {
		/* the lengths around the fragments' own, and the limits */
		static const unsigned lens[] = { 1, 20, 894, 895, 896, 1791, 4095 };
		unsigned len = lens[below(7)];

		memset(target, 'a' + (int)below(26), len);
		target[len] = 0;
		d.target = target;
		d.mode |= 0777;
	}
	want = m_dir_error(dir);
	if (!want && m_find(dir, name))
		want = -EEXIST;
	assert_int_equal(fake_run(&d.op, true, dir_run_create), want);
	if (want)
		return;
	i = &m.inodes[slot];
	*i = (struct m_inode){ .exists = true,
			       .ino = d.ino,
			       .mode = d.mode,
			       .uid = d.uid,
			       .gid = d.gid,
			       .nlink = 1,
			       .next_pos = 2 };
	if (dir->mode & S_ISGID) {
		i->gid = dir->gid;
		i->mode |= S_ISDIR(d.mode) ? S_ISGID : 0;
	}
	if (!S_ISLNK(d.mode))
		i->mode &= ~022u;
	if (S_ISDIR(d.mode)) {
		i->nlink = 2;
		i->parent = dir_nr;
		dir->nlink++;
	}
	if (S_ISLNK(d.mode)) {
		i->target = strdup(target);
		i->size = strlen(target) + 1;
	}
	m_add(dir, name, slot);
}

static void do_link(void)
{
	unsigned nr = m_pick(), name = (unsigned)below(NAMES_NR);
	struct m_inode *dir = &m.inodes[m_pick_dir()], *i = &m.inodes[nr];
	struct dir_op d = { .ino = i->ino, .new_dir = dir->ino, .new_name = names[name] };
	int want = m_dir_error(dir);

	if (dir->entries_nr == ENTRIES_MAX)
		return;
	if (!want && S_ISDIR(i->mode))
		want = -EPERM;
	if (!want && !i->nlink && !i->never_had_a_name)
		want = -ENOENT;
	if (!want && m_find(dir, name))
		want = -EEXIST;
	assert_int_equal(fake_run(&d.op, true, dir_run_link), want);
	if (!want) {
		assert_int_equal(d.was_tmpfile, i->never_had_a_name);
		i->never_had_a_name = false;
		i->nlink++;
		m_add(dir, name, nr);
	}
}

static void do_tmpfile(void)
{
	unsigned slot = 0;
	struct m_inode *dir = &m.inodes[m_pick_dir()];
	struct dir_op d = { .dir = dir->ino, .mode = S_IFREG | 0666, .umask = 022, .uid = 500, .gid = 501 };
	int want = m_dir_error(dir);

	while (slot < INODES_MAX && m.inodes[slot].exists)
		slot++;
	if (slot == INODES_MAX)
		return;
	assert_int_equal(fake_run(&d.op, true, dir_run_tmpfile), want);
	if (want)
		return;
	assert_true(d.is_pinned);
	m.inodes[slot] = (struct m_inode){ .exists = true, .never_had_a_name = true, .ino = d.ino,
					   .mode = S_IFREG | 0644, .uid = 500,
					   .gid = dir->mode & S_ISGID ? dir->gid : 501, .next_pos = 2 };
}

static void do_remove(void)
{
	unsigned name = (unsigned)below(NAMES_NR);
	struct m_inode *dir = &m.inodes[m_pick_dir()], *i = NULL;
	struct dir_op d = { .dir = dir->ino, .name = names[name] };
	bool want_dir = chance(3);
	struct m_entry *e;
	int want = m_dir_error(dir);

	e = m_find(dir, name);
	if (!want && !e)
		want = -ENOENT;
	if (!want) {
		i = &m.inodes[e->inode];
		want = m_unlink_error(i, want_dir);
	}
	assert_int_equal(fake_run(&d.op, true, want_dir ? dir_run_rmdir : dir_run_unlink), want);
	if (want)
		return;
	m_remove(dir, e);
	m_drop_link(dir, i);
	assert_int_equal(d.lost_last_link, i->nlink == 0);
	assert_int_equal(d.victim, i->ino);
}

static bool m_is_at_or_above(unsigned i, unsigned dir)
{
	while (dir != i && dir != 0)
		dir = m.inodes[dir].parent;
	return dir == i;
}

/* Looking up all the way to the root takes many items: they must not go faster than they come. */
static int run_rename(struct dir_op *d)
{
	unsigned evict_one_in = fake.evict_one_in;
	int ret;

	if (evict_one_in < 50)
		fake.evict_one_in = 50;
	ret = fake_run(&d->op, true, dir_run_rename);
	fake.evict_one_in = evict_one_in;
	return ret;
}

/* RENAME_EXCHANGE: names and positions stay, what they name changes places. */
static void do_exchange(void)
{
	unsigned from_nr = m_pick_dir(), to_nr = chance(3) ? from_nr : m_pick_dir(), moved;
	unsigned name = (unsigned)below(NAMES_NR), new_name = (unsigned)below(NAMES_NR);
	struct m_inode *from = &m.inodes[from_nr], *to = &m.inodes[to_nr], *a, *b;
	struct dir_op d = { .dir = from->ino, .name = names[name], .new_dir = to->ino,
			    .new_name = names[new_name], .flags = RENAME_EXCHANGE };
	struct m_entry *e = m_find(from, name), *r = m_find(to, new_name);
	int want = m_dir_error(from);

	if (!want)
		want = m_dir_error(to);
	if (!want && (!e || !r))
		want = -ENOENT;
	if (!want && e->inode != r->inode && from_nr != to_nr) {
		if (S_ISDIR(m.inodes[e->inode].mode) && m_is_at_or_above(e->inode, to_nr))
			want = -EINVAL;
		if (S_ISDIR(m.inodes[r->inode].mode) && m_is_at_or_above(r->inode, from_nr))
			want = -EINVAL;
	}
	assert_int_equal(run_rename(&d), want);
	assert_false(d.lost_last_link);
	if (want || e->inode == r->inode)
		return;
	a = &m.inodes[e->inode];
	b = &m.inodes[r->inode];
	moved = e->inode;
	e->inode = r->inode;
	r->inode = moved;
	if (S_ISDIR(a->mode)) {
		from->nlink--;
		to->nlink++;
		a->parent = to_nr;
	}
	if (S_ISDIR(b->mode)) {
		to->nlink--;
		from->nlink++;
		b->parent = from_nr;
	}
}

static void do_rename(void)
{
	unsigned from_nr = m_pick_dir(), to_nr = chance(3) ? from_nr : m_pick_dir();
	unsigned name = (unsigned)below(NAMES_NR), new_name = (unsigned)below(NAMES_NR), moved = 0;
	struct m_inode *from = &m.inodes[from_nr], *to = &m.inodes[to_nr], *i, *victim = NULL;
	struct dir_op d = { .dir = from->ino,
			    .name = names[name],
			    .new_dir = to->ino,
			    .new_name = names[new_name],
			    .flags = chance(4)    ? RENAME_NOREPLACE
				     : chance(30) ? RENAME_WHITEOUT
						  : 0 };
	struct m_entry *e = NULL, *r = NULL;
	int want = d.flags & RENAME_WHITEOUT ? -EINVAL : m_dir_error(from);

	if (to->entries_nr == ENTRIES_MAX)
		return;
	if (!want)
		want = m_dir_error(to);
	if (!want) {
		e = m_find(from, name);
		r = m_find(to, new_name);
		want = e ? 0 : -ENOENT;
	}
	if (!want && r && d.flags & RENAME_NOREPLACE)
		want = -EEXIST;
	if (!want) {
		i = &m.inodes[e->inode];
		if (r && r->inode == e->inode) {
			assert_int_equal(run_rename(&d), 0);
			assert_false(d.lost_last_link);
			return;
		}
		if (r)
			want = m_unlink_error(&m.inodes[r->inode], S_ISDIR(i->mode));
		if (!want && S_ISDIR(i->mode) && from_nr != to_nr &&
		    m_is_at_or_above(e->inode, to_nr))
			want = -EINVAL;
	}
	assert_int_equal(run_rename(&d), want);
	if (want)
		return;
	moved = e->inode;
	i = &m.inodes[moved];
	if (r) {
		victim = &m.inodes[r->inode];
		m_drop_link(to, victim);
		m_remove(to, r);
	}
	m_remove(from, m_find(from, name));
	m_add(to, new_name, moved);
	if (S_ISDIR(i->mode)) {
		from->nlink--;
		to->nlink++;
		i->parent = to_nr;
	}
	assert_int_equal(d.lost_last_link, victim && victim->nlink == 0);
	if (victim)
		assert_int_equal(d.victim, victim->ino);
}

static struct m_xattr *m_xattr(struct m_inode *i, unsigned name)
{
	for (unsigned x = 0; x < i->xattrs_nr; x++) {
		if (i->xattrs[x].name == name)
			return &i->xattrs[x];
	}
	return NULL;
}

static void do_setxattr(void)
{
	static const unsigned lens[] = { 0, 1, 100, 800, 896, 3000, 65535, 65536 };
	unsigned name = (unsigned)below(XATTRS_MAX);
	struct m_inode *i = &m.inodes[m_pick()];
	struct m_xattr *a = m_xattr(i, name);
	struct xattr_op x = { .ino = i->ino, .len = lens[below(chance(10) ? 8 : 6)],
			      .flags = chance(4) ? XATTR_CREATE : chance(4) ? XATTR_REPLACE : 0 };
	int want = 0;

	strcpy(x.name, xnames[name]);
	x.val = malloc(x.len + 1);
	memset(x.val, (int)below(256), x.len);
	if (x.len > XATTR_VALUE_MAX_BYTES)
		want = -E2BIG;
	else if (a && x.flags == XATTR_CREATE)
		want = -EEXIST;
	else if (!a && x.flags == XATTR_REPLACE)
		want = -ENODATA;
	assert_int_equal(fake_run(&x.op, true, xattr_run_set), want);
	if (want) {
		free(x.val);
		return;
	}
	if (!a) {
		a = &i->xattrs[i->xattrs_nr++];
		*a = (struct m_xattr){ .name = name, .id = i->next_xattr_id++ };
	}
	free(a->val);
	a->val = x.val;
	a->len = x.len;
}

static void do_removexattr(void)
{
	unsigned name = (unsigned)below(XATTRS_MAX);
	struct m_inode *i = &m.inodes[m_pick()];
	struct m_xattr *a = m_xattr(i, name);
	struct xattr_op x = { .ino = i->ino };

	strcpy(x.name, xnames[name]);
	assert_int_equal(fake_run(&x.op, true, xattr_run_remove), a ? 0 : -ENODATA);
	if (!a)
		return;
	free(a->val);
	*a = i->xattrs[--i->xattrs_nr];
}

static void do_getxattrs(void)
{
	struct m_inode *i = &m.inodes[m_pick()];
	struct xattr_op x = { .ino = i->ino, .val = malloc(XATTR_LIST_BYTES) };
	size_t want = 0;

	for (unsigned name = 0; name < XATTRS_MAX; name++) {
		struct m_xattr *a = m_xattr(i, name);

		strcpy(x.name, xnames[name]);
		assert_int_equal(fake_run(&x.op, false, xattr_run_get), a ? 0 : -ENODATA);
		if (!a)
			continue;
		assert_int_equal(x.len, a->len);
		assert_memory_equal(x.val, a->val, a->len);
		want += strlen(x.name) + 1;
	}
	assert_int_equal(fake_run(&x.op, false, xattr_run_list), 0);
	assert_int_equal(x.len, want);
	for (size_t at = 0; at < x.len; at += strlen((char *)x.val + at) + 1) {
		unsigned name = 0;

		while (name < XATTRS_MAX && strcmp(xnames[name], (char *)x.val + at) != 0)
			name++;
		assert_in_range(name, 0, XATTRS_MAX - 1);
		assert_non_null(m_xattr(i, name));
	}
	free(x.val);
}

static void do_setattr(void)
{
	struct m_inode *i = &m.inodes[m_pick()];
	struct attr_op a = { .ino = i->ino, .to_set = FUSE_SET_ATTR_MODE };

	a.attr.st_mode = (i->mode & S_IFMT) | (uint32_t)below(07777);
	if (chance(2)) {
		a.to_set |= FUSE_SET_ATTR_UID;
		a.attr.st_uid = (uint32_t)below(9);
		i->uid = a.attr.st_uid;
	}
	if (chance(3) && S_ISREG(i->mode)) {
		a.to_set |= FUSE_SET_ATTR_SIZE;
		a.attr.st_size = (off_t)below(100000);
		i->size = (uint64_t)a.attr.st_size;
	}
	assert_int_equal(fake_run(&a.op, true, attr_run_set), 0);
	i->mode = a.attr.st_mode;
	assert_int_equal(inode_mode(&a.ci), i->mode);
}

static void do_lookup(void)
{
	unsigned dir_nr = m_pick_dir(), name = (unsigned)below(NAMES_NR);
	struct m_inode *dir = &m.inodes[dir_nr], *i = NULL;
	struct dir_op d = { .dir = dir->ino, .name = names[name] };
	struct attr_op a = { 0 };
	struct m_entry *e = m_find(dir, name);
	int want = !S_ISDIR(dir->mode) ? -ENOTDIR : e ? 0 : -ENOENT;

	if (chance(4)) {
		d.name = (struct name){ 1, "." };
		want = dir->nlink ? 0 : -ESTALE;
		i = dir;
	} else if (chance(4)) {
		d.name = (struct name){ 2, ".." };
		want = !S_ISDIR(dir->mode) ? -ENOTDIR : dir->nlink ? 0 : -ENOENT;
		i = S_ISDIR(dir->mode) ? &m.inodes[dir->parent] : NULL;
	} else if (e) {
		i = &m.inodes[e->inode];
	}
	assert_int_equal(fake_run(&d.op, false, dir_run_lookup), want);
	if (want)
		return;
	assert_int_equal(d.ino, i->ino);
	assert_int_equal(le32_get(d.ci.d.nlink), i->nlink);
	a.ino = i->ino;
	assert_int_equal(fake_run(&a.op, false, attr_run_get), 0);
	assert_int_equal(inode_mode(&a.ci), i->mode);
	assert_int_equal(le32_get(a.ci.d.uid), i->uid);
	assert_int_equal(inode_size(&a.ci), i->size);
	if (S_ISLNK(i->mode)) {
		struct readlink_op r = { .ino = i->ino };

		assert_int_equal(fake_run(&r.op, false, attr_run_readlink), 0);
		assert_string_equal(r.target, i->target);
	}
}

/* The kernel's struct fuse_dirent, as FUSE buffers hold it. */
struct dirent_head {
	uint64_t ino, off;
	uint32_t namelen, type;
};

/* The whole listing, in pieces of `size` bytes, in order. */
static void do_readdir(void)
{
	struct m_inode *dir = &m.inodes[m_pick_dir()];
	size_t size = 300 + below(600);
	struct readdir_op r = { .ino = dir->ino, .size = size, .buf = malloc(size) };
	unsigned at = 0;

	if (!S_ISDIR(dir->mode)) {
		assert_int_equal(fake_run(&r.op, false, readdir_run), -ENOTDIR);
		free(r.buf);
		return;
	}
	for (;;) {
		assert_int_equal(fake_run(&r.op, false, readdir_run), 0);
		if (!r.used)
			break;
		for (size_t b = 0; b < r.used; at++) {
			struct dirent_head h;
			const char *name = r.buf + b + sizeof(h);

			memcpy(&h, r.buf + b, sizeof(h));
			if (at < 2) {
				assert_int_equal(h.namelen, at + 1);
				assert_memory_equal(name, "..", h.namelen);
				assert_int_equal(h.ino, at == 0 || !dir->nlink
								? dir->ino
								: m.inodes[dir->parent].ino);
			} else {
				const struct m_entry *e = &dir->entries[at - 2];

				assert_in_range(at - 2, 0, dir->entries_nr - 1);
				assert_int_equal(h.namelen, names[e->name].len);
				assert_memory_equal(name, names[e->name].bytes, h.namelen);
				assert_int_equal(h.ino, m.inodes[e->inode].ino);
				assert_int_equal(h.type, m.inodes[e->inode].mode >> 12);
				assert_int_equal(h.off, e->pos + 1);
			}
			r.off = h.off;
			b += (sizeof(h) + h.namelen + 7) & ~7ull;
		}
	}
	assert_int_equal(at, dir->entries_nr + 2);
	free(r.buf);
}

/* A transaction may be the last one before the power goes: no attribute may be there in part (finding 25 of check). */
static int expect_whole_xattr(struct itx *tx, uint64_t ino)
{
	struct key first = key_xattr(ino, 0, 0, 0), last = key_xattr(ino, UINT32_MAX, UINT64_MAX, UINT8_MAX);
	struct ival iv;
	int ret = item_next(tx, &first, &last, &iv);

	if (ret == 0)
		assert_int_equal(iv.key.fourth, 0);
	return ret == -ENOENT ? 0 : ret;
}

/* What orphan.c does with an inode that nobody uses. */
struct end_op {
	struct op op;
	uint64_t ino;
};

static int end_run(struct op *op, struct itx *tx)
{
	uint64_t ino = ((struct end_op *)op)->ino;
	struct key key, last = key_symlink(ino, UINT64_MAX);
	struct cinode ci;
	struct ival iv;
	int ret = txn_hold(op, tx, 16 + XATTR_REMOVE_MAX(8), false);

	if (ret == 0)
		ret = lock_inode(op, ino, LOCK_MODE_WRITE);
	if (ret == 0)
		ret = inode_get(tx, ino, &ci);
	if (ret == 0)
		ret = inode_may_delete(tx, ino, &ci);
	if (ret == 0)
		ret = xattr_remove_some(tx, ino, 8);
	if (ret == OP_MORE) {
		ret = expect_whole_xattr(tx, ino);
		return ret == 0 ? OP_MORE : ret;
	}
	for (key = key_symlink(ino, 0); ret == 0 && (ret = item_next(tx, &key, &last, &iv)) == 0;
	     key = key_next(key)) {
		key = iv.key;
		ret = item_delete(tx, &iv.key, NULL, 0);
	}
	if (ret != -ENOENT)
		return ret;
	ret = tmpfile_end(tx, ino);
	if (ret == 0)
		ret = inode_delete(tx, ino, &ci);
	return ret < 0 ? ret : txn_inode_count_add(tx, -1);
}

static void do_end(void)
{
	for (unsigned n = 0; n < INODES_MAX; n++) {
		struct m_inode *i = &m.inodes[n];
		struct end_op e = { .ino = i->ino };

		if (!i->exists || i->nlink || chance(2))
			continue;
		assert_int_equal(fake_run(&e.op, true, end_run), 0);
		m_forget(i);
		return;
	}
}

/* ---- the forest against the model ------------------------------------------------------------ */

static size_t expected;		/* items of the forest that were looked at and are right */

static void expect_item(const struct key *key, const void *val, size_t len)
{
	const struct fake_item *it = forest_find(key);

	assert_non_null(it);
	assert_int_equal(it->len, len);
	if (len)
		assert_memory_equal(it->val, val, len);
	expected++;
}

static void expect_entry(const struct m_inode *dir, const struct m_entry *e)
{
	struct { struct disk_dirent head; char name[NAME_MAX_BYTES]; } v = { 0 };
	const struct m_inode *i = &m.inodes[e->inode];
	const struct name *name = &names[e->name];
	uint64_t hash = dirent_name_hash(name->bytes, name->len);
	struct key keys[3] = { key_dirent(dir->ino, hash, e->pos), key_readdir(dir->ino, e->pos),
			       key_backref(i->ino, dir->ino, e->pos) };

	v.head.ino = le64_of(i->ino);
	v.head.hash = le64_of(hash);
	v.head.pos = le64_of(e->pos);
	v.head.type = (uint8_t)dirent_type_of_mode(i->mode);
	memcpy((char *)&v + sizeof(v.head), name->bytes, name->len);
	for (unsigned k = 0; k < 3; k++)
		expect_item(&keys[k], &v, sizeof(v.head) + name->len);
}

/* A byte string in parts of ITEM_VAL_MAX under keys that differ in their number. */
static void expect_parts(struct key (*key_of)(const void *arg, unsigned part), const void *arg,
			 const uint8_t *bytes, size_t len)
{
	for (unsigned part = 0; len; part++) {
		struct key key = key_of(arg, part);
		size_t n = len < ITEM_VAL_MAX ? len : ITEM_VAL_MAX;

		expect_item(&key, bytes, n);
		bytes += n;
		len -= n;
	}
}

static struct key symlink_part(const void *arg, unsigned part)
{
	return key_symlink(*(const uint64_t *)arg, part);
}

static struct key xattr_part(const void *arg, unsigned part)
{
	struct key key = *(const struct key *)arg;

	key.fourth = (uint8_t)part;
	return key;
}

static void expect_xattr(const struct m_inode *i, const struct m_xattr *a)
{
	const char *name = xnames[a->name];
	size_t len = sizeof(struct disk_xattr) + strlen(name) + a->len;
	struct key key = key_xattr(i->ino, xattr_name_hash(name, strlen(name)), a->id, 0);
	struct disk_xattr *x = calloc(1, len);

	x->val_len = le16_of((uint16_t)a->len);
	x->name_len = (uint8_t)strlen(name);
	memcpy((uint8_t *)x + sizeof(*x), name, strlen(name));
	memcpy((uint8_t *)x + sizeof(*x) + strlen(name), a->val, a->len);
	expect_parts(xattr_part, &key, (uint8_t *)x, len);
	free(x);
}

static void expect_inode(const struct m_inode *i)
{
	struct key key = key_inode(i->ino), orphan = key_orphan(i->ino);
	const struct fake_item *it = forest_find(&key);
	const struct disk_inode *d;

	assert_non_null(it);
	expected++;
	d = (const struct disk_inode *)it->val;
	assert_int_equal(le32_get(d->mode), i->mode);
	assert_int_equal(le32_get(d->nlink), i->nlink);
	assert_int_equal(le32_get(d->uid), i->uid);
	assert_int_equal(le32_get(d->gid), i->gid);
	assert_int_equal(le64_get(d->size), i->size);
	assert_int_equal(le64_get(d->next_readdir_pos), i->next_pos);
	assert_int_equal(le64_get(d->next_xattr_id), i->next_xattr_id);
	assert_int_equal(le64_get(d->meta_seq), it->index_meta);
	if (i->nlink == 0)
		expect_item(&orphan, NULL, 0);
	for (unsigned e = 0; e < i->entries_nr; e++)
		expect_entry(i, &i->entries[e]);
	for (unsigned x = 0; x < i->xattrs_nr; x++)
		expect_xattr(i, &i->xattrs[x]);
	if (S_ISLNK(i->mode))
		expect_parts(symlink_part, &i->ino, (uint8_t *)i->target, i->size);
}

static void check_forest(void)
{
	int64_t inodes = 0;

	expected = 0;
	for (unsigned i = 0; i < INODES_MAX; i++) {
		if (!m.inodes[i].exists)
			continue;
		expect_inode(&m.inodes[i]);
		inodes++;
	}
	/* and nothing else */
	assert_int_equal(fake.forest_nr, expected);
	assert_int_equal(fake.inode_count, inodes);
}

/* ---- names that meet ------------------------------------------------------------------------- */

struct hashed {
	uint64_t hash;
	uint64_t n;
};

static int hashed_cmp(const void *a, const void *b)
{
	const struct hashed *x = a, *y = b;

	return x->hash < y->hash ? -1 : x->hash > y->hash;
}

/* Two names of the form prefix + 26 letters with the same hash: looked for, found among some
 * 200,000. */
static void find_colliding(const char *prefix, uint64_t (*hash)(const char *name, size_t len),
			   char *a, char *b)
{
	const size_t nr = 250000;
	struct hashed *all = calloc(nr, sizeof(*all));
	char name[64];

	for (size_t i = 0; i < nr; i++) {
		all[i].n = test_random(&fake.seed);
		sprintf(name, "%s%026llu", prefix, (unsigned long long)all[i].n);
		all[i].hash = hash(name, strlen(name));
	}
	qsort(all, nr, sizeof(*all), hashed_cmp);
	for (size_t i = 1; i < nr; i++) {
		if (all[i].hash != all[i - 1].hash || all[i].n == all[i - 1].n)
			continue;
		sprintf(a, "%s%026llu", prefix, (unsigned long long)all[i].n);
		sprintf(b, "%s%026llu", prefix, (unsigned long long)all[i - 1].n);
		free(all);
		return;
	}
	fail_msg("no two names with one hash: try another SEED");
}

static uint64_t hash_of_entry(const char *name, size_t len)
{
	return dirent_name_hash(name, len);
}

static uint64_t hash_of_xattr(const char *name, size_t len)
{
	return xattr_name_hash(name, len);
}

static void make_names(void)
{
	char a[64], b[64];

	for (unsigned i = 0; i < NAMES_NR; i++) {
		char *p = names[i].bytes;

		memset(p, 'a' + (int)i, NAME_MAX_BYTES);
		names[i].len = i < 12 ? (uint16_t)(1 + i) : NAME_MAX_BYTES;
		p[names[i].len] = 0;
	}
	/* 32 bytes of ASCII: the fingerprint half of the hash is the same for all, so 32 bits must
	 * meet */
	find_colliding("entry-", hash_of_entry, a, b);
	names[0].len = names[1].len = (uint16_t)strlen(a);
	strcpy(names[0].bytes, a);
	strcpy(names[1].bytes, b);
	assert_int_equal(dirent_name_hash(a, 32), dirent_name_hash(b, 32));

	find_colliding("user.x", hash_of_xattr, xnames[0], xnames[1]);
	strcpy(xnames[2], "user.a");
	strcpy(xnames[3], "trusted.b");
	strcpy(xnames[4], "security.selinux");
	memcpy(xnames[5], "user.", 5);
	memset(xnames[5] + 5, 'z', XATTR_NAME_MAX_BYTES - 5);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void any_history_leaves_exactly_the_items_of_the_model(void **state)
{
	static void (*const ops[])(void) = {
		do_create,      do_create,    do_create,  do_link,   do_link,     do_remove,
		do_remove,      do_rename,    do_rename,  do_rename, do_setxattr, do_setxattr,
		do_removexattr, do_getxattrs, do_setattr, do_lookup, do_readdir,  do_end,
		do_exchange,    do_exchange,  do_tmpfile,
	};
	unsigned rounds = (unsigned)test_env("ROUNDS", 30000);
	uint64_t seed = test_env("SEED", 20240607);

	(void)state;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	fake_open(seed, false);
	make_names();
	memset(&m, 0, sizeof(m));
	m.inodes[0] = (struct m_inode){
		.exists = true, .ino = ROOT_INO, .mode = S_IFDIR | 0755, .nlink = 2, .next_pos = 2
	};

	for (unsigned i = 0; i < rounds; i++) {
		ops[below(sizeof(ops) / sizeof(ops[0]))]();
		/* a generation is being committed while the next one goes on */
		if (chance(12))
			fake_close_gen();
		else if (chance(12))
			fake_commit_gen();
		if (i % 500 == 499) {
			fake_sync();
			check_forest();
			/* what was read is "persistent" from the start; what stays cached must
			 * learn it */
			fake.evict_one_in = chance(3) ? 6 : 2000;
		}
	}
	/* the test is one of restarts: most operations must have met some */
	assert_in_range(fake.parked, rounds / 20, UINT32_MAX);
	for (unsigned i = 0; i < INODES_MAX; i++)
		m_forget(&m.inodes[i]);
	fake_close();
}

/* The kernel of a node that has the file open since before does not know that it was given away. */
static void who_was_the_owner_is_no_more(void **state)
{
	static const struct {
		int to_set;
		unsigned cap;
		bool is_free;
	} kinds[] = {
		{ FUSE_SET_ATTR_MODE, CAP_FOWNER, false },
		{ FUSE_SET_ATTR_UID, CAP_CHOWN, false },
		{ FUSE_SET_ATTR_GID, CAP_CHOWN, false },
		{ FUSE_SET_ATTR_MTIME, CAP_FOWNER, false },
		{ FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW, 0, true },
		{ FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_ATIME_NOW, CAP_FOWNER, false },
		{ FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW, CAP_FOWNER, false },
	};
	const struct asker owner = { 1000, 77 }, other = { 1001, 77 }, unseen = { 1001, 0 }, root = { 0, 77 };

	(void)state;
	fake_open(1, false);
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		struct attr_op a = { .ino = ROOT_INO, .to_set = FUSE_SET_ATTR_UID, .attr.st_uid = 1000,
				     .by = root };

		caller_has = 0;
		assert_int_equal(fake_run(&a.op, true, attr_run_set), 0);
		a = (struct attr_op){ .ino = a.ino, .to_set = kinds[k].to_set, .by = other,
				      .attr = { .st_mode = k % 2 ? 0700 : 0750, .st_uid = 1000 } };
		assert_int_equal(fake_run(&a.op, true, attr_run_set), kinds[k].is_free ? 0 : -EPERM);
		caller_has = 1ull << kinds[k].cap;
		assert_int_equal(fake_run(&a.op, true, attr_run_set), 0);
		caller_has = ~caller_has;
		assert_int_equal(fake_run(&a.op, true, attr_run_set), kinds[k].is_free ? 0 : -EPERM);
		a.by = unseen;
		assert_int_equal(fake_run(&a.op, true, attr_run_set), 0);
		a.by = owner;
		assert_int_equal(fake_run(&a.op, true, attr_run_set), 0);
	}
	fake_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_was_the_owner_is_no_more),
		cmocka_unit_test(any_history_leaves_exactly_the_items_of_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
