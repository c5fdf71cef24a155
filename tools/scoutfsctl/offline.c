/*
 * The reading half of a file system over the committed state of a volume: items through the forest,
 * paths through directory entries.  It is what ls, cat and walk-inodes use on devices that no
 * service has open, so there is nothing to wait for and nothing to retry: a block that is not what
 * its reference says is damage here, not a race.
 */
#include "tools/scoutfsctl/offline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "btree/btree.h"
#include "csum/csum.h"
#include "format/item_check.h"
#include "key/key.h"
#include "tools/scoutfsctl/commands.h"

#define SYMLINKS_MAX 40

int offline_open(struct volume *v, const char *meta_path, const char *data_path, const char *verb)
{
	struct volume_holders hs;
	int ret;

	ret = volume_open(v, meta_path, data_path, DEVICE_READ, verb);
	if (ret < 0)
		return ret;
	ret = volume_find_holders(v, &hs);
	if (ret < 0) {
		say_error(verb, "could not read the quorum blocks of '%s': %s", meta_path,
			  strerror(-ret));
		volume_close(v);
		return ret;
	}
	if (hs.nr || hs.unreadable) {
		volume_say_holders(stderr, &hs);
		fprintf(stderr, "%s: %s: what was committed last is shown\n", program_name(), verb);
	}
	return 0;
}

static int say_damage(const char *verb, const struct key *key, const char *why)
{
	char text[KEY_TEXT_BYTES];

	key_to_text(key, text, sizeof(text));
	say_error(verb, "damaged metadata at key %s: %s; run check on the volume", text, why);
	return -EUCLEAN;
}

/* Damage is said here, with the place; the rest is the caller's to say. */
static int tree_error(int err, const char *verb, const struct key *at)
{
	switch (err) {
	case -ESTALE:
		return say_damage(verb, at, "a block is not what its reference says");
	case -EBADMSG:
		return say_damage(verb, at, "a block is malformed");
	case -EINVAL:
		return say_damage(verb, at, "a reference beyond the device");
	default:
		return err;
	}
}

int offline_each(struct volume *v, const struct key *first, const struct key *last,
		 const char *verb, offline_item_fn each, void *arg)
{
	struct forest_iter *fi;
	struct key at = *first;
	struct item it;
	const char *why;
	int ret;

	ret = forest_iter_open(&fi, v->bs, &v->roots, first, last);
	if (ret < 0)
		return tree_error(ret, verb, first);
	for (;;) {
		ret = forest_iter_next(fi, &it);
		if (ret == -ENOENT) {
			ret = 0;
			break;
		}
		if (ret < 0) {
			ret = tree_error(ret, verb, &at);
			break;
		}
		at = it.key;
		if (item_check(TREE_FS, v->fmt_vers, &it, &why) < 0) {
			ret = say_damage(verb, &it.key, why);
			break;
		}
		ret = each(arg, &it);
		if (ret)
			break;
	}
	forest_iter_close(fi);
	return ret;
}

int offline_inode(struct volume *v, uint64_t ino, struct disk_inode *inode, const char *verb)
{
	struct key key = key_inode(ino);
	uint8_t val[ITEM_VAL_MAX];
	struct item it;
	const char *why;
	int ret;

	ret = forest_lookup(v->bs, &v->roots, &key, &it, val);
	if (ret < 0)
		return ret == -ENOENT ? ret : tree_error(ret, verb, &key);
	if (item_check(TREE_FS, v->fmt_vers, &it, &why) < 0)
		return say_damage(verb, &key, why);
	inode_from_item(&it, inode);
	return 0;
}

struct link_text {
	char *buf;
	size_t len;
	uint64_t next;
	bool is_broken;
};

static int add_fragment(void *arg, const struct item *it)
{
	struct link_text *lt = arg;

	if (it->key.second != lt->next++ || it->val_len > SYMLINK_MAX_BYTES - lt->len) {
		lt->is_broken = true;
		return 1;
	}
	memcpy(lt->buf + lt->len, it->val, it->val_len);
	lt->len += it->val_len;
	return 0;
}

int offline_readlink(struct volume *v, uint64_t ino, char target[SYMLINK_MAX_BYTES],
		     const char *verb)
{
	struct key first = key_symlink(ino, 0), last = key_symlink(ino, UINT64_MAX);
	struct link_text lt = { .buf = target };
	struct disk_inode inode;
	int ret;

	ret = offline_inode(v, ino, &inode, verb);
	if (ret < 0)
		return ret;
	ret = offline_each(v, &first, &last, verb, add_fragment, &lt);
	if (ret < 0)
		return ret;
	if (lt.is_broken || lt.len < 2 || lt.len != le64_get(inode.size) ||
	    memchr(target, 0, lt.len) != target + lt.len - 1)
		return say_damage(verb, &first, "symbolic link incomplete or without its end");
	return 0;
}

struct name_search {
	const char *name;
	size_t len;
	uint64_t ino;
};

static int match_name(void *arg, const struct item *it)
{
	struct name_search *ns = arg;
	const struct disk_dirent *d = it->val;

	if (it->val_len - sizeof(*d) != ns->len || memcmp(d->name, ns->name, ns->len) != 0)
		return 0;
	ns->ino = le64_get(d->ino);
	return 1;
}

static int lookup_name(struct volume *v, uint64_t dir, const char *name, size_t len, uint64_t *ino,
		       const char *verb)
{
	uint64_t hash = dirent_name_hash(name, len);
	struct key first = key_dirent(dir, hash, 0), last = key_dirent(dir, hash, UINT64_MAX);
	struct name_search ns = { .name = name, .len = len };
	int ret;

	if (len > NAME_MAX_BYTES)
		return -ENAMETOOLONG;
	ret = offline_each(v, &first, &last, verb, match_name, &ns);
	if (ret < 0)
		return ret;
	*ino = ns.ino;
	return ret == 1 ? 0 : -ENOENT;
}

static int keep_parent(void *arg, const struct item *it)
{
	*(uint64_t *)arg = it->key.second;
	return 1;
}

/* 12.4: a directory's only backref names its parent; the root is its own. */
static int parent_of(struct volume *v, uint64_t dir, uint64_t *parent, const char *verb)
{
	struct key first = key_backref(dir, 0, 0), last = key_backref(dir, UINT64_MAX, UINT64_MAX);
	int ret;

	*parent = ROOT_INO;
	if (dir == ROOT_INO)
		return 0;
	ret = offline_each(v, &first, &last, verb, keep_parent, parent);
	if (ret < 0)
		return ret;
	return ret == 1 ? 0 : -ENOENT;
}

/* Put a link's target in front of what is left of the path. */
static int expand_link(char **path, const char **rest, const char *target)
{
	char *joined;

	if (asprintf(&joined, "%s/%s", target, *rest) < 0)
		return -ENOMEM;
	free(*path);
	*path = joined;
	*rest = joined;
	return 0;
}

int offline_resolve(struct volume *v, const char *path, bool follow_last, uint64_t *ino,
		    const char *verb)
{
	char target[SYMLINK_MAX_BYTES];
	struct disk_inode inode;
	uint64_t at = ROOT_INO, next;
	unsigned links = 0;
	const char *rest;
	char *copy;
	int ret = 0;

	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	for (rest = copy; ret == 0;) {
		size_t len;
		bool is_last;

		rest += strspn(rest, "/");
		len = strcspn(rest, "/");
		if (len == 0)
			break;
		is_last = rest[len + strspn(rest + len, "/")] == '\0';

		ret = offline_inode(v, at, &inode, verb);
		if (ret < 0)
			break;
		if (!S_ISDIR(le32_get(inode.mode))) {
			ret = -ENOTDIR;
			break;
		}
		next = at;
		if (len == 2 && memcmp(rest, "..", 2) == 0)
			ret = parent_of(v, at, &next, verb);
		else if (!(len == 1 && rest[0] == '.'))
			ret = lookup_name(v, at, rest, len, &next, verb);
		if (ret < 0)
			break;
		rest += len;

		ret = offline_inode(v, next, &inode, verb);
		if (ret == -ENOENT) {
			struct key key = key_inode(next);

			ret = say_damage(verb, &key, "an entry names an inode that does not exist");
		}
		if (ret < 0)
			break;
		if (!S_ISLNK(le32_get(inode.mode)) || (is_last && !follow_last && *rest != '/')) {
			at = next;
			continue;
		}
		if (++links > SYMLINKS_MAX) {
			ret = -ELOOP;
			break;
		}
		ret = offline_readlink(v, next, target, verb);
		if (ret == 0)
			ret = expand_link(&copy, &rest, target);
		if (ret == 0 && target[0] == '/')
			at = ROOT_INO;
	}
	free(copy);
	*ino = at;
	return ret;
}

struct stable_search {
	const char *verb;
	uint64_t seq;
	int err;
};

static int note_open_seq(void *arg, const struct item *it)
{
	struct stable_search *ss = arg;
	struct disk_log_trees lt;
	uint64_t open_seq;

	if (log_trees_check(it, &lt) < 0) {
		ss->err = say_damage(ss->verb, &it->key, "malformed log trees item");
		return ss->err;
	}
	open_seq = le64_get(lt.get_trans_seq);
	if (open_seq > le64_get(lt.commit_trans_seq) && open_seq < ss->seq)
		ss->seq = open_seq;
	return 0;
}

int offline_stable_end(struct volume *v, uint64_t *seq, const char *verb)
{
	struct key first = KEY_ZEROS, last = KEY_ONES;
	struct stable_search ss = { .verb = verb, .seq = UINT64_MAX };
	int ret;

	ret = btree_each(v->bs, &v->roots.logs_root, &first, &last, note_open_seq, &ss);
	*seq = ss.seq;
	if (ss.err)
		return ss.err;
	return ret < 0 ? tree_error(ret, verb, &first) : 0;
}

int offline_failed(const char *verb, const char *path, int err)
{
	if (err != -EUCLEAN)
		say_error(verb, "'%s': %s", path, strerror(-err));
	return 1;
}
