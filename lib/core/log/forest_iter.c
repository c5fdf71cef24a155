/*
 * A merged walk over all trees of the forest in key order: what walks of the change indexes, the
 * checker and print see.  format.md 11.3, 11.6.
 *
 * Promises: every key that exists at the roots given comes exactly once, in order, in its newest
 * version.  Each tree contributes a copy of one leaf at a time, so memory is bounded by the number
 * of trees and no block is held between calls.
 *
 * Relies on btree_read_leaf to say how far the leaf reaches: the next leaf starts right behind,
 * also where a leaf is empty.  After an error the walk is over: close it, and start again where it
 * was.
 */
#include "log/forest.h"

#include <errno.h>
#include <stdlib.h>

#include "log/forest_impl.h"

struct walker {
	struct forest_src src;
	struct item_list leaf;
	size_t pos;		/* in leaf */
	struct key want;	/* where the next leaf starts, unless done */
	bool done;
};

struct forest_iter {
	struct block_set *bs;
	struct key end;
	struct key at;		/* no key below this is given any more */
	bool at_end;		/* nothing is: the greatest of all keys was */
	struct resolve res;
	size_t nr;
	struct walker w[];
};

int forest_iter_open(struct forest_iter **out, struct block_set *bs,
		     const struct forest_roots *roots, const struct key *start,
		     const struct key *end)
{
	struct forest_iter *fi;
	struct forest_src *srcs;
	size_t nr;
	int ret;

	ret = forest_sources(bs, roots, &srcs, &nr);
	if (ret < 0)
		return ret;
	fi = calloc(1, sizeof(*fi) + nr * sizeof(fi->w[0]));
	if (!fi) {
		free(srcs);
		return -ENOMEM;
	}
	fi->bs = bs;
	fi->at = *start;
	fi->end = *end;
	fi->at_end = key_cmp(start, end) > 0;
	fi->nr = nr;
	for (size_t i = 0; i < nr; i++) {
		fi->w[i].src = srcs[i];
		fi->w[i].want = *start;
		fi->w[i].done = fi->at_end;
	}
	free(srcs);
	*out = fi;
	return 0;
}

void forest_iter_close(struct forest_iter *fi)
{
	if (!fi)
		return;
	for (size_t i = 0; i < fi->nr; i++)
		item_list_free(&fi->w[i].leaf);
	free(fi);
}

static int keep_item(void *arg, const struct item *it)
{
	struct walker *w = arg;

	return item_list_add(&w->leaf, it, w->src.rank);
}

/* Read on until the walker has an item or its tree has no more. */
static int walker_fill(struct forest_iter *fi, struct walker *w)
{
	struct key start, end;
	int ret;

	while (w->pos == w->leaf.nr && !w->done) {
		item_list_clear(&w->leaf);
		w->pos = 0;
		start = w->want;
		end = fi->end;
		ret = btree_read_leaf(fi->bs, &w->src.root, &w->want, &start, &end, keep_item, w);
		if (ret < 0) {
			item_list_clear(&w->leaf);
			return ret;
		}
		if (key_cmp(&end, &w->want) < 0)
			return -EBADMSG;
		w->done = key_cmp(&end, &fi->end) >= 0;
		if (!w->done)
			w->want = key_next(end);
	}
	return 0;
}

static const struct key *walker_key(const struct walker *w)
{
	return w->pos < w->leaf.nr ? &w->leaf.v[w->pos].key : NULL;
}

/* Offer every tree's version of key to fi->res, and step over it. */
static int take_versions(struct forest_iter *fi, const struct key *key)
{
	const struct key *k;
	struct item it;
	int ret;

	fi->res = (struct resolve){ 0 };
	for (size_t i = 0; i < fi->nr; i++) {
		k = walker_key(&fi->w[i]);
		if (!k || !key_eq(k, key))
			continue;
		it = item_list_get(&fi->w[i].leaf, fi->w[i].pos++);
		ret = resolve_add(&fi->res, &fi->w[i].src, &it);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int forest_iter_next(struct forest_iter *fi, struct item *it)
{
	const struct key *k, *least;
	struct key key;
	int ret;

	for (;;) {
		least = NULL;
		for (size_t i = 0; i < fi->nr; i++) {
			ret = walker_fill(fi, &fi->w[i]);
			if (ret < 0)
				return ret;
			k = walker_key(&fi->w[i]);
			if (k && (!least || key_cmp(k, least) < 0))
				least = k;
		}
		if (!least)
			return -ENOENT;
		key = *least;
		ret = take_versions(fi, &key);
		if (ret < 0)
			return ret;
		fi->at = key_next(key);
		fi->at_end = key_cmp(&fi->at, &key) < 0;
		if (resolve_finish(&fi->res, it))
			return 0;
	}
}

/* The first position >= key in what is left of a leaf. */
static size_t leaf_find(const struct walker *w, const struct key *key)
{
	size_t lo = w->pos, hi = w->leaf.nr, mid;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if (key_cmp(&w->leaf.v[mid].key, key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int forest_iter_seek(struct forest_iter *fi, const struct key *key)
{
	struct walker *w;

	if (fi->at_end)
		return 0;
	if (key_cmp(key, &fi->at) < 0)
		return -EINVAL;
	fi->at = *key;
	for (size_t i = 0; i < fi->nr; i++) {
		w = &fi->w[i];
		w->pos = leaf_find(w, key);
		if (w->pos < w->leaf.nr || w->done)
			continue;
		if (key_cmp(key, &fi->end) > 0)
			w->done = true;
		else if (key_cmp(key, &w->want) > 0)
			w->want = *key;
	}
	return 0;
}
