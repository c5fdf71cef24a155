/*
 * The walk of the resolved file system beside the walk of the structures: both take about as long, both read
 * the same blocks at about the same time, and neither needs to know of the other.
 *
 * The second walk has a struct check of its own, so nothing is shared but the device, and what it finds is
 * kept.  When the structures have been walked it is known whether its answer counts: where the trees are
 * damaged it is thrown away, else its messages are told as if they had been found just then.
 */
#include "check_volume.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Blocks kept: a leaf of each tree and the parents above it are what the walk needs. */
#define CACHE_BLOCKS 256u

struct kept {
	struct check_message m;
	struct key key;
	bool has_key;
	char *path, *text;
};

struct check_resolve {
	struct check ck;
	struct vec kept;
	pthread_t thread;
	int ret;
};

static void keep_message(void *arg, const struct check_message *m)
{
	struct check_resolve *r = arg;
	struct kept k = { .m = *m, .text = strdup(m->text),
			  .path = m->path ? strdup(m->path) : NULL, .has_key = m->key };

	if (m->key)
		k.key = *m->key;
	if (!k.text || (m->path && !k.path)) {
		r->ck.err = -ENOMEM;
		free(k.text);
		free(k.path);
		return;
	}
	vec_push(&r->ck, &r->kept, &k, sizeof(k));
}

static void *walk(void *arg)
{
	struct check_resolve *r = arg;

	r->ret = check_items_walk(&r->ck);
	return NULL;
}

static void resolve_free(struct check_resolve *r)
{
	for (size_t i = 0; i < r->kept.nr; i++) {
		free(VEC_AT(&r->kept, struct kept, i)->text);
		free(VEC_AT(&r->kept, struct kept, i)->path);
	}
	vec_free(&r->kept);
	check_sorters_fini(&r->ck);
	if (r->ck.bs)
		block_set_close(r->ck.bs);
	free(r);
}

struct check_resolve *check_resolve_begin(struct check *ck)
{
	struct check_resolve *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return NULL;
	r->ck = (struct check){
		.dev = ck->dev,
		.message = ck->message ? keep_message : NULL,
		.message_arg = r,
		.temp_dir = ck->temp_dir,
		.sort_bytes = ck->sort_bytes,
		.super = ck->super,
		.fmt_vers = ck->fmt_vers,
		.fsid = ck->fsid,
		.meta_blocks = ck->meta_blocks,
		.data_blocks = ck->data_blocks,
		.roots = ck->roots,
	};
	check_sorters_open(&r->ck);
	ret = block_set_open(&r->ck.bs, &ck->dev, ck->fsid, ck->meta_blocks, CACHE_BLOCKS);
	if (ret == 0)
		ret = pthread_create(&r->thread, NULL, walk, r);
	if (ret == 0)
		return r;
	resolve_free(r);
	return NULL;
}

static void tell(struct check *ck, const struct check_resolve *r)
{
	uint64_t findings[CHECK_INVARIANTS_NR + 1] = { 0 }, warnings[CHECK_INVARIANTS_NR + 1] = { 0 };

	for (size_t i = 0; i < r->kept.nr; i++) {
		const struct kept *k = VEC_AT(&r->kept, struct kept, i);
		struct check_message m = k->m;
		uint64_t *nr = m.severity == CHECK_FINDING ? &ck->findings_nr[m.invariant]
							   : &ck->warnings_nr[m.invariant];

		m.path = k->path;
		m.text = k->text;
		m.key = k->has_key ? &k->key : NULL;
		if (m.severity == CHECK_NOTE || (*nr)++ < CHECK_SHOWN_MAX)
			ck->message(ck->message_arg, &m);
		findings[m.invariant] += m.severity == CHECK_FINDING;
		warnings[m.invariant] += m.severity == CHECK_WARNING;
	}
	/* What was only counted there is only counted here. */
	for (unsigned i = 1; i <= CHECK_INVARIANTS_NR; i++) {
		ck->findings_nr[i] += r->ck.findings_nr[i] - findings[i];
		ck->warnings_nr[i] += r->ck.warnings_nr[i] - warnings[i];
	}
}

/* What the walk gathered becomes ck's; the walk gathers nothing of what the structures did. */
static void take_sorters(struct check *ck, struct check *from)
{
	struct sorter *to[] = { &ck->mapped,	  &ck->inodes, &ck->dirents, &ck->backrefs,
				&ck->indexes,	  &ck->orphans, &ck->totals, &ck->totals_want,
				&ck->indx,	  &ck->indx_want, &ck->srch_want };
	struct sorter *of[] = { &from->mapped,	    &from->inodes, &from->dirents, &from->backrefs,
				&from->indexes,	    &from->orphans, &from->totals, &from->totals_want,
				&from->indx,	    &from->indx_want, &from->srch_want };

	for (size_t i = 0; i < sizeof(to) / sizeof(to[0]); i++) {
		struct sorter tmp = *to[i];

		*to[i] = *of[i];
		*of[i] = tmp;
	}
}

int check_resolve_end(struct check *ck, struct check_resolve *r)
{
	int ret;

	if (!r)
		return ck->err || ck->forest_broken ? -ECANCELED : check_items_walk(ck);
	if (ck->err || ck->forest_broken)
		atomic_store(&r->ck.is_cancelled, true);
	pthread_join(r->thread, NULL);
	ret = r->ret;
	if (!ck->err && !ck->forest_broken) {
		ck->err = r->ck.err;
		ck->err_what = r->ck.err_what;
		/* A walk that failed did so at once or is told by itself: half of it is no answer. */
		if (ret == 0 && !ck->err) {
			tell(ck, r);
			take_sorters(ck, &r->ck);
			ck->inodes_nr = r->ck.inodes_nr;
			ck->has_root = r->ck.has_root;
			ck->root_mode = r->ck.root_mode;
			ck->data_unknown |= r->ck.data_unknown;
		}
	}
	resolve_free(r);
	return ret;
}
