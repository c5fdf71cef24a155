/*
 * What operations refuse, and that a refusal changes nothing: malformed ACLs, limits of the format,
 * what this version does not do yet (design.md 6), and items that contradict each other.
 */
#include "fsd_fakes.h"

#include <errno.h>
#include <linux/fs.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

#include "csum/csum.h"
#include "services/fsd/ops_attr.h"
#include "services/fsd/ops_dir.h"
#include "services/fsd/xattr.h"

static int setup(void **state)
{
	(void)state;
	fake_open(7, true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_close();
	return 0;
}

static struct name name_of(const char *text)
{
	struct name n = { .len = (uint16_t)strlen(text) };

	strcpy(n.bytes, text);
	return n;
}

static int make(uint64_t dir, const char *name, uint32_t mode, uint64_t *ino)
{
	struct dir_op d = {
		.dir = dir, .name = name_of(name), .mode = mode, .umask = 022, .target = "target"
	};
	int ret = fake_run(&d.op, true, dir_run_create);

	*ino = d.ino;
	return ret;
}

static int set_xattr(uint64_t ino, const char *name, const void *val, size_t len)
{
	struct xattr_op x = { .ino = ino, .len = len };
	int ret;

	strcpy(x.name, name);
	x.val = malloc(len + 1);
	if (len)
		memcpy(x.val, val, len);
	ret = fake_run(&x.op, true, xattr_run_set);
	free(x.val);
	return ret;
}

static ssize_t get_xattr(uint64_t ino, const char *name, void *buf)
{
	struct xattr_op x = { .ino = ino, .val = buf };
	int ret;

	strcpy(x.name, name);
	ret = fake_run(&x.op, false, xattr_run_get);
	return ret < 0 ? ret : (ssize_t)x.len;
}

static int unlink_of(uint64_t dir, const char *name)
{
	struct dir_op d = { .dir = dir, .name = name_of(name) };

	return fake_run(&d.op, true, dir_run_unlink);
}

static int rename_of(uint64_t dir, const char *name, uint64_t new_dir, const char *new_name)
{
	struct dir_op d = {
		.dir = dir, .name = name_of(name), .new_dir = new_dir, .new_name = name_of(new_name)
	};

	return fake_run(&d.op, true, dir_run_rename);
}

static int link_of(uint64_t ino, uint64_t dir, const char *name)
{
	struct dir_op d = { .ino = ino, .new_dir = dir, .new_name = name_of(name) };

	return fake_run(&d.op, true, dir_run_link);
}

static struct cinode inode_of(uint64_t ino)
{
	struct attr_op a = { .ino = ino };

	assert_int_equal(fake_run(&a.op, false, attr_run_get), 0);
	return a.ci;
}

static uint32_t mode_of(uint64_t ino)
{
	struct cinode ci = inode_of(ino);

	return inode_mode(&ci) & 0777;
}

static int drop_all(void)
{
	struct key first = KEY_ZEROS, last = KEY_ONES;

	return items_drop(&fake.fsd, &first, &last);
}

/* Commit, change an inode's item behind fsd's back, forget the cache. */
static struct disk_inode *on_disk(uint64_t ino)
{
	struct key key = key_inode(ino);

	fake_sync();
	assert_int_equal(drop_all(), 0);
	assert_non_null(forest_find(&key));
	return (struct disk_inode *)forest_find(&key)->val;
}

/* What is dirty: nothing after a refusal. */
static void assert_unchanged(void)
{
	struct items_dirty open, closed;

	items_dirty(&fake.fsd, &open, &closed);
	assert_false(open.any);
}

/* ---- ACLs ------------------------------------------------------------------------------------ */

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};
#define ACL_END { 0, 0, 0 }

static size_t acl_of(const struct acl_entry *e, uint8_t *out)
{
	size_t len = 4;

	out[0] = POSIX_ACL_XATTR_VERSION;
	out[1] = out[2] = out[3] = 0;
	for (; e->tag; e++, len += 8) {
		le16 tag = le16_of(e->tag), perm = le16_of(e->perm);
		le32 id = le32_of(e->id);

		memcpy(out + len, &tag, 2);
		memcpy(out + len + 2, &perm, 2);
		memcpy(out + len + 4, &id, 4);
	}
	return len;
}

static void malformed_acls_are_refused(void **state)
{
	static const struct acl_entry bad[][8] = {
		{ ACL_END },
		{ { ACL_USER_OBJ, 7, 0 }, { ACL_GROUP_OBJ, 5, 0 }, ACL_END },
		{ { ACL_USER_OBJ, 7, 0 }, { ACL_OTHER, 5, 0 }, ACL_END },
		{ { ACL_GROUP_OBJ, 7, 0 }, { ACL_OTHER, 5, 0 }, ACL_END },
		{ { ACL_USER_OBJ, 8, 0 }, { ACL_GROUP_OBJ, 5, 0 }, { ACL_OTHER, 0, 0 }, ACL_END },
		{ { ACL_USER_OBJ, 7, 0 }, { ACL_OTHER, 5, 0 }, { ACL_GROUP_OBJ, 0, 0 }, ACL_END },
		{ { ACL_USER_OBJ, 7, 0 },
		  { ACL_USER_OBJ, 7, 0 },
		  { ACL_GROUP_OBJ, 5, 0 },
		  { ACL_OTHER, 0, 0 },
		  ACL_END },
		{ { ACL_USER_OBJ, 7, 0 },
		  { ACL_USER, 7, 1 },
		  { ACL_GROUP_OBJ, 5, 0 },
		  { ACL_OTHER, 0, 0 },
		  ACL_END },
		{ { ACL_USER_OBJ, 7, 0 },
		  { ACL_GROUP_OBJ, 5, 0 },
		  { ACL_MASK, 7, 0 },
		  { ACL_MASK, 7, 0 },
		  { ACL_OTHER, 0, 0 },
		  ACL_END },
		{ { ACL_USER_OBJ, 7, 0 },
		  { ACL_GROUP_OBJ, 5, 0 },
		  { 0x40, 7, 0 },
		  { ACL_OTHER, 0, 0 },
		  ACL_END },
	};
	uint8_t val[256];
	uint64_t ino;
	size_t len;

	(void)state;
	assert_int_equal(make(ROOT_INO, "d", S_IFDIR | 0755, &ino), 0);
	fake_sync();
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		len = acl_of(bad[i], val);
		assert_int_equal(set_xattr(ino, ACL_ACCESS_NAME, val, len), -EINVAL);
		assert_int_equal(set_xattr(ino, ACL_DEFAULT_NAME, val, len), -EINVAL);
	}
	len = acl_of((struct acl_entry[]){ { ACL_USER_OBJ, 7, 0 },
					   { ACL_GROUP_OBJ, 5, 0 },
					   { ACL_OTHER, 0, 0 },
					   ACL_END },
		     val);
	assert_int_equal(set_xattr(ino, ACL_ACCESS_NAME, val, len - 1), -EINVAL);
	assert_int_equal(set_xattr(ino, ACL_ACCESS_NAME, val, len), 0);
	fake_sync();
	val[0] = 1;
	assert_int_equal(set_xattr(ino, ACL_ACCESS_NAME, val, len), -EINVAL);
	assert_int_equal(set_xattr(ino, ACL_ACCESS_NAME, val, 3), -EINVAL);
	assert_unchanged();
}

static void an_acl_of_any_size_is_inherited_within_what_was_held(void **state)
{
	enum { NAMED = 8000 };
	struct acl_entry *e = calloc(NAMED + 5, sizeof(*e));
	uint8_t *val = malloc(XATTR_VALUE_MAX_BYTES), *got = malloc(XATTR_VALUE_MAX_BYTES);
	uint64_t dir, sub, file;
	size_t len;

	(void)state;
	e[0] = (struct acl_entry){ ACL_USER_OBJ, 7, 0 };
	for (uint32_t i = 0; i < NAMED; i++)
		e[1 + i] = (struct acl_entry){ ACL_USER, 6, 1000 + i };
	e[NAMED + 1] = (struct acl_entry){ ACL_GROUP_OBJ, 5, 0 };
	e[NAMED + 2] = (struct acl_entry){ ACL_MASK, 7, 0 };
	e[NAMED + 3] = (struct acl_entry){ ACL_OTHER, 5, 0 };
	len = acl_of(e, val);
	assert_int_equal(make(ROOT_INO, "d", S_IFDIR | 0755, &dir), 0);
	assert_int_equal(set_xattr(dir, ACL_DEFAULT_NAME, val, len), 0);
	assert_int_equal(make(dir, "sub", S_IFDIR | 0750, &sub),
			 0); /* fake_run compares with what was held */
	assert_int_equal(get_xattr(sub, ACL_DEFAULT_NAME, got), len);
	assert_memory_equal(got, val, len);
	assert_int_equal(make(sub, "file", S_IFREG | 0640, &file), 0);
	assert_int_equal(mode_of(file), 0640);
	e[0].perm = 6;
	e[NAMED + 2].perm = 4;
	e[NAMED + 3].perm = 0;
	acl_of(e, val);
	assert_int_equal(get_xattr(file, ACL_ACCESS_NAME, got), len);
	assert_memory_equal(got, val, len);
	free(e);
	free(val);
	free(got);
}

static void without_acls_they_are_neither_served_nor_inherited(void **state)
{
	static const struct acl_entry acl[] = { { ACL_USER_OBJ, 7, 0 },  { ACL_USER, 7, 5 },
						{ ACL_GROUP_OBJ, 5, 0 }, { ACL_MASK, 7, 0 },
						{ ACL_OTHER, 7, 0 },     ACL_END };
	uint8_t val[256], got[XATTR_VALUE_MAX_BYTES];
	uint64_t dir, file;

	(void)state;
	assert_int_equal(make(ROOT_INO, "d", S_IFDIR | 0755, &dir), 0);
	assert_int_equal(set_xattr(dir, ACL_DEFAULT_NAME, val, acl_of(acl, val)), 0);
	fake.fsd.conf.acl = false;
	assert_int_equal(make(dir, "f", S_IFREG | 0666, &file), 0);
	assert_int_equal(mode_of(file), 0644);
	assert_int_equal(get_xattr(dir, ACL_DEFAULT_NAME, got), -EOPNOTSUPP);
	assert_int_equal(set_xattr(dir, ACL_DEFAULT_NAME, val, acl_of(acl, val)), -EOPNOTSUPP);
	fake.fsd.conf.acl = true;
	assert_int_equal(get_xattr(file, ACL_ACCESS_NAME, got), -ENODATA);
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void link_counts_and_positions_end_where_the_format_says(void **state)
{
	uint64_t file, dir, other, sub, ino;

	(void)state;
	assert_int_equal(make(ROOT_INO, "file", S_IFREG | 0644, &file), 0);
	assert_int_equal(make(ROOT_INO, "dir", S_IFDIR | 0755, &dir), 0);
	assert_int_equal(make(ROOT_INO, "other", S_IFDIR | 0755, &other), 0);
	assert_int_equal(make(other, "sub", S_IFDIR | 0755, &sub), 0);
	on_disk(file)->nlink = le32_of(LINK_MAX_NR);
	on_disk(dir)->nlink = le32_of(LINK_MAX_NR);
	assert_int_equal(link_of(file, dir, "l"), -EMLINK);
	assert_int_equal(make(dir, "sub", S_IFDIR | 0755, &ino), -EMLINK);
	assert_int_equal(rename_of(other, "sub", dir, "sub"), -EMLINK);
	assert_unchanged();
	assert_int_equal(make(dir, "f", S_IFREG | 0755, &ino), 0);

	on_disk(other)->next_readdir_pos = le64_of(DIRENT_LAST_POS);
	assert_int_equal(make(other, "last", S_IFREG | 0644, &ino), 0);
	fake_sync();
	assert_int_equal(make(other, "f", S_IFREG | 0644, &ino), -ENOSPC);
	assert_int_equal(link_of(ino = file, other, "f"), -EMLINK);
	assert_int_equal(rename_of(other, "last", other, "f"), -ENOSPC);
	assert_unchanged();
	assert_int_equal(unlink_of(other, "last"), 0);
}

static void nothing_has_a_type_that_there_is_not(void **state)
{
	uint64_t ino;

	(void)state;
	assert_int_equal(make(ROOT_INO, "x", 0644, &ino), -EINVAL);
	assert_int_equal(make(ROOT_INO, "x", 0170000 | 0644, &ino), -EINVAL);
	assert_unchanged();
}

/* ---- what a later version does --------------------------------------------------------------- */

static void put_tagged(uint64_t ino, const char *name)
{
	struct key key = key_xattr(ino, xattr_name_hash(name, strlen(name)), 77, 0);
	uint8_t val[300] = { 0 };
	struct disk_xattr *x = (struct disk_xattr *)val;

	x->name_len = (uint8_t)strlen(name);
	memcpy(val + sizeof(*x), name, strlen(name));
	on_disk(ino);
	forest_put(&key, val, sizeof(*x) + strlen(name));
}

static void effects_of_tags_are_never_lost(void **state)
{
	static const char *const tagged[] = { "scoutfs.srch.a", "scoutfs.hide.srch.a",
					      "scoutfs.totl.a.1.2.3", "scoutfs.indx.a.1.2" };
	uint8_t buf[XATTR_VALUE_MAX_BYTES];
	uint64_t ino, other;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		char name[16];

		sprintf(name, "f%u", i);
		assert_int_equal(make(ROOT_INO, name, S_IFREG | 0644, &ino), 0);
		assert_int_equal(make(ROOT_INO, "other", S_IFREG | 0644, &other), 0);
		put_tagged(ino, tagged[i]);
		assert_int_equal(unlink_of(ROOT_INO, name), -EOPNOTSUPP);
		assert_int_equal(rename_of(ROOT_INO, "other", ROOT_INO, name), -EOPNOTSUPP);
		assert_int_equal(set_xattr(ino, tagged[i], "1", 1), -EOPNOTSUPP);
		assert_unchanged();
		assert_int_equal(get_xattr(ino, tagged[i], buf), 0);
		/* it may lose a name as long as it has another */
		assert_int_equal(link_of(ino, ROOT_INO, "second"), 0);
		assert_int_equal(unlink_of(ROOT_INO, "second"), 0);
		assert_int_equal(unlink_of(ROOT_INO, "other"), 0);
	}
	assert_int_equal(make(ROOT_INO, "hidden", S_IFREG | 0644, &ino), 0);
	put_tagged(ino, "scoutfs.hide.only");
	assert_int_equal(unlink_of(ROOT_INO, "hidden"), 0);
}

static void retention_keeps_a_file_as_it_is(void **state)
{
	struct attr_op a = { .to_set = FUSE_SET_ATTR_MODE };
	uint64_t ino, other;

	(void)state;
	assert_int_equal(make(ROOT_INO, "kept", S_IFREG | 0644, &ino), 0);
	assert_int_equal(make(ROOT_INO, "other", S_IFREG | 0644, &other), 0);
	on_disk(ino)->flags = le32_of(INODE_FLAG_RETENTION);
	assert_int_equal(unlink_of(ROOT_INO, "kept"), -EPERM);
	assert_int_equal(rename_of(ROOT_INO, "kept", ROOT_INO, "new"), -EPERM);
	assert_int_equal(rename_of(ROOT_INO, "other", ROOT_INO, "kept"), -EPERM);
	assert_int_equal(set_xattr(ino, "user.a", "1", 1), -EPERM);
	a.ino = ino;
	assert_int_equal(fake_run(&a.op, true, attr_run_set), -EPERM);
	assert_unchanged();
	assert_int_equal(set_xattr(ino, "trusted.a", "1", 1), 0);
}

/* ---- items that contradict each other -------------------------------------------------------- */

static void contradicting_items_are_told_and_left_alone(void **state)
{
	struct name name = name_of("f");
	uint64_t hash = dirent_name_hash("f", 1), ino, link;
	struct dir_op d = { .dir = ROOT_INO, .name = name };
	struct key key;

	(void)state;
	assert_int_equal(make(ROOT_INO, "f", S_IFREG | 0644, &ino), 0);
	/* one of the three items of an entry is missing, each in its turn */
	for (unsigned i = 0; i < 3; i++) {
		struct key keys[3] = { key_dirent(ROOT_INO, hash, 2), key_readdir(ROOT_INO, 2),
				       key_backref(ino, ROOT_INO, 2) };
		struct fake_item *it;
		uint8_t val[64];
		size_t len;

		on_disk(ino);
		it = forest_find(&keys[i]);
		len = it->len;
		memcpy(val, it->val, len);
		forest_remove(&keys[i]);
		assert_int_equal(unlink_of(ROOT_INO, "f"), i == 0 ? -ENOENT : -EIO);
		assert_unchanged();
		assert_int_equal(drop_all(), 0);
		forest_put(&keys[i], val, len);
	}
	/* a position that is taken */
	on_disk(ROOT_INO)->next_readdir_pos = le64_of(2);
	assert_int_equal(make(ROOT_INO, "g", S_IFREG | 0644, &link), -EIO);
	assert_unchanged();
	on_disk(ROOT_INO)->next_readdir_pos = le64_of(3);
	/* a symlink without its target */
	assert_int_equal(make(ROOT_INO, "l", S_IFLNK | 0777, &link), 0);
	on_disk(link);
	key = key_symlink(link, 0);
	forest_remove(&key);
	{
		struct readlink_op r = { .ino = link };

		assert_int_equal(fake_run(&r.op, false, attr_run_readlink), -EIO);
	}
	/* a name without its inode; an inode that is gone is stale */
	on_disk(ino);
	key = key_inode(ino);
	forest_remove(&key);
	assert_int_equal(fake_run(&d.op, false, dir_run_lookup), -EIO);
	assert_int_equal(unlink_of(ROOT_INO, "f"), -EIO);
	assert_unchanged();
	{
		struct attr_op a = { .ino = ino };
		uint8_t buf[XATTR_VALUE_MAX_BYTES];

		assert_int_equal(fake_run(&a.op, false, attr_run_get), -ESTALE);
		assert_int_equal(fake_run(&a.op, true, attr_run_set), -ESTALE);
		assert_int_equal(get_xattr(ino, "user.a", buf), -ESTALE);
	}
	assert_in_range(fake.fsd.stats.corrupt_items, 6, 99);
}

/* A directory's only parent is one that lies in it. */
static void a_directory_below_itself_ends_a_rename(void **state)
{
	uint64_t above, below, other;
	struct key key;
	struct fake_item *it;
	uint8_t val[64];
	size_t len;

	(void)state;
	assert_int_equal(make(ROOT_INO, "above", S_IFDIR | 0755, &above), 0);
	assert_int_equal(make(above, "below", S_IFDIR | 0755, &below), 0);
	assert_int_equal(make(ROOT_INO, "other", S_IFDIR | 0755, &other), 0);
	on_disk(above);
	key = key_backref(above, ROOT_INO, 2);
	it = forest_find(&key);
	assert_non_null(it);
	len = it->len;
	memcpy(val, it->val, len);
	forest_remove(&key);
	key = key_backref(above, below, 2);
	forest_put(&key, val, len);
	assert_int_equal(rename_of(ROOT_INO, "other", above, "other"), -EIO);
	assert_unchanged();
	assert_in_range(fake.fsd.stats.corrupt_items, 1, 99);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(malformed_acls_are_refused),
		T(an_acl_of_any_size_is_inherited_within_what_was_held),
		T(without_acls_they_are_neither_served_nor_inherited),
		T(link_counts_and_positions_end_where_the_format_says),
		T(nothing_has_a_type_that_there_is_not),
		T(effects_of_tags_are_never_lost),
		T(retention_keeps_a_file_as_it_is),
		T(contradicting_items_are_told_and_left_alone),
		T(a_directory_below_itself_ends_a_rename),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
