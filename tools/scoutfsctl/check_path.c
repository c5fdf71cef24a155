/*
 * A path for an inode number, for messages: link backrefs are followed to the root over the
 * resolved items.  Nothing here reports or fails loudly; a volume under check may lack any of
 * them, and loops end at PATH_MAX.
 */
#include "check_volume.h"

#include <errno.h>
#include <string.h>

/* Any one name of ino and the directory it is in. */
static int first_name(struct check *ck, uint64_t ino, uint64_t *dir, uint8_t *name, size_t *len)
{
	struct key start = key_backref(ino, 0, 0), end = key_backref(ino, UINT64_MAX, UINT64_MAX);
	struct forest_iter *fi;
	struct item it;
	const char *why;
	int ret;

	ret = forest_iter_open(&fi, ck->bs, &ck->roots, &start, &end);
	if (ret < 0)
		return ret;
	while (!(ret = forest_iter_next(fi, &it)))
		if (!item_check(TREE_FS, ck->fmt_vers, &it, &why))
			break;
	if (!ret) {
		*dir = it.key.second;
		*len = it.val_len - sizeof(struct disk_dirent);
		memcpy(name, ((const struct disk_dirent *)it.val)->name, *len);
	}
	forest_iter_close(fi);
	return ret;
}

int check_path(struct check *ck, uint64_t ino, char *buf, size_t size)
{
	uint8_t name[NAME_MAX_BYTES];
	size_t at = size - 1, len = 0;

	if (ck->forest_broken || !ck->bs)
		return -ENOENT;
	buf[at] = '\0';
	if (ino == ROOT_INO)
		buf[--at] = '/';
	while (ino != ROOT_INO) {
		if (first_name(ck, ino, &ino, name, &len) < 0)
			return -ENOENT;
		if (len + 1 > at)
			return -ENOENT;
		at -= len;
		memcpy(buf + at, name, len);
		buf[--at] = '/';
	}
	memmove(buf, buf + at, size - at);
	return 0;
}
