/*
 * walk-inodes on devices that nobody uses: the change index through the forest (format.md 12.2).
 */
#include "tools/scoutfsctl/walk.h"

#include <stdio.h>

#include "tools/scoutfsctl/commands.h"
#include "tools/scoutfsctl/offline.h"

#define VERB WALK_VERB

static int print_item(void *arg, const struct item *it)
{
	struct walk *w = arg;

	if (it->key.second >= w->stable_end || ferror(stdout))
		return 1;
	walk_print_row(w, it->key.second, 0, it->key.third);
	return 0;
}

int walk_devices(struct walk *w, const char *meta, const char *data)
{
	uint8_t type = w->index == WALK_INDEX_META_SEQ ? TYPE_INDEX_META_SEQ : TYPE_INDEX_DATA_SEQ;
	struct key first, last;
	struct volume v;
	int ret;

	/* The minor number is always 0: a greater one begins after its major and ends at it. */
	first = key_index(type, w->first.major, w->first.minor ? UINT64_MAX : w->first.ino);
	if (w->first.minor)
		first = key_next(first);
	last = key_index(type, w->last.major, w->last.minor ? UINT64_MAX : w->last.ino);

	ret = offline_open(&v, meta, data, VERB);
	if (ret < 0)
		return verb_failed(VERB, ret);
	ret = offline_stable_end(&v, &w->stable_end, VERB);
	if (ret == 0 && key_cmp(&first, &last) <= 0)
		ret = offline_each(&v, &first, &last, VERB, print_item, w);
	volume_close(&v);
	return ret < 0 ? verb_failed(VERB, ret) : 0;
}
