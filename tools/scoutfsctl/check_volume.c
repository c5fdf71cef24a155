/*
 * The whole check, in order: super and quorum, then every structure of blocks (each block read
 * once and claimed for its owner), the lists that may name blocks still in use, the metadata
 * partition; then the resolved file system through forest_iter, and what compares it with the
 * rest.
 *
 * A later phase is left out, with a note, when an earlier one found what it stands on broken: a
 * wrong tree would otherwise be reported as thousands of missing items.
 */
#include "check_volume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Blocks the resolved walk keeps; a leaf of each tree and the parents above it are what it
 * needs. */
#define CACHE_BLOCKS 512u

uint64_t check_findings(const struct check *ck)
{
	uint64_t nr = 0;

	for (unsigned i = 1; i <= CHECK_INVARIANTS_NR; i++)
		nr += ck->findings_nr[i];
	return nr;
}

static void check_structures(struct check *ck)
{
	struct disk_super *s = &ck->super;
	char name[48];

	check_logs(ck);
	check_merge_items(ck);
	check_srch_root(ck);
	check_free_extents(ck, &s->data_alloc, OWNER_DATA_ALLOC, "data_alloc", "data_alloc");
	for (unsigned i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "server_meta_avail[%u]", i);
		check_alloc_list(ck, &s->server_meta_avail[i], OWNER_SERVER_LIST,
				 OWNER_ENTRY_SERVER, name);
		snprintf(name, sizeof(name), "server_meta_freed[%u]", i);
		check_alloc_list(ck, &s->server_meta_freed[i], OWNER_SERVER_LIST,
				 OWNER_ENTRY_SERVER, name);
	}
	for (unsigned i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "meta_alloc[%u]", i);
		check_free_extents(ck, &s->meta_alloc[i], OWNER_META_ALLOC, name, NULL);
	}
	check_merge_shared(ck);
	check_srch_shared(ck);
	if (!ck->err)
		check_meta_partition(ck);
}

static void check_file_system(struct check *ck)
{
	check_bad_items(ck);
	if (ck->forest_broken) {
		check_note(
			ck,
			"not checked: files and directories (19-29), since the trees that hold them are damaged");
	} else {
		check_items(ck);
		if (!ck->err && !ck->forest_broken) {
			check_links(ck);
			check_tagged(ck);
			check_srch_parity(ck);
		}
	}
	if (!ck->err)
		check_data_partition(ck);
}

int check_volume(struct check *ck)
{
	uint8_t *block1;
	int ret;

	block1 = malloc(LARGE_SIZE);
	if (!block1)
		return -ENOMEM;
	ret = ck->dev.read(ck->dev.arg, 1, block1);
	if (!ret)
		ret = check_super(ck, block1);
	if (!ret)
		check_quorum(ck, block1);
	free(block1);
	if (ret < 0)
		return ret;

	ck->owner = calloc(ck->meta_blocks, 1);
	if (!ck->owner)
		return -ENOMEM;
	ret = block_set_open(&ck->bs, &ck->dev, ck->fsid, ck->meta_blocks, CACHE_BLOCKS);
	if (ret < 0)
		return ret;
	forest_roots_of_super(&ck->super, &ck->roots);
	check_structures(ck);
	if (!ck->err)
		check_file_system(ck);
	return ck->err;
}

void check_fini(struct check *ck)
{
	struct vec *all[] = {
		&ck->logs,    &ck->srch_files, &ck->compacts,	 &ck->merges,	&ck->bad_items,
		&ck->data,    &ck->inodes,     &ck->dirents,	 &ck->backrefs, &ck->indexes,
		&ck->orphans, &ck->totals,     &ck->totals_want, &ck->indx,	&ck->indx_want,
		&ck->srch,    &ck->srch_want,
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		vec_free(all[i]);
	if (ck->bs)
		block_set_close(ck->bs);
	ck->bs = NULL;
	free(ck->owner);
	ck->owner = NULL;
}
