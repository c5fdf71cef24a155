/*
 * The whole check, in order: super and quorum, then every structure of blocks (each block read
 * once and claimed for its owner), the lists that may name blocks still in use, the metadata
 * partition; then the resolved file system through forest_iter, and what compares it with the
 * rest.  That walk of the file system runs beside the structures, in a thread of its own, and its findings
 * are told afterwards (check_resolve.c).
 *
 * Memory is bounded whatever the volume's size: what has to be compared in another order than the one it is
 * found in goes through sorters (check_sort.h), and a large map of owners lies in a file.
 *
 * A later phase is left out, with a note, when an earlier one found what it stands on broken: a
 * wrong tree would otherwise be reported as thousands of missing items.
 */
#include "check_volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Blocks kept for finding paths, and for the walk of the file system where it has no thread. */
#define CACHE_BLOCKS 256u

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

static void check_file_system(struct check *ck, struct check_resolve *resolve)
{
	int ret;

	if (!ck->err)
		check_bad_items(ck);
	ret = check_resolve_end(ck, resolve);
	if (ck->err)
		return;
	if (ck->forest_broken) {
		check_note(
			ck,
			"not checked: files and directories (19-29), since the trees that hold them are damaged");
	} else {
		check_items_end(ck, ret);
		if (!ck->err && !ck->forest_broken) {
			check_links(ck);
			check_tagged(ck);
			check_srch_parity(ck);
		}
	}
	if (!ck->err)
		check_data_partition(ck);
}

void check_sorters_open(struct check *ck)
{
	sorter_init(&ck->data, sizeof(struct check_data), check_cmp_data);
	sorter_init(&ck->mapped, sizeof(struct check_data), check_cmp_data);
	sorter_init(&ck->inodes, sizeof(struct check_inode), NULL);
	sorter_init(&ck->dirents, sizeof(struct check_link), check_cmp_link);
	sorter_init(&ck->backrefs, sizeof(struct check_link), check_cmp_link);
	sorter_init(&ck->indexes, sizeof(struct check_index), check_cmp_index);
	sorter_init(&ck->orphans, sizeof(uint64_t), NULL);
	sorter_init(&ck->totals, sizeof(struct check_total), NULL);
	sorter_init(&ck->totals_want, sizeof(struct check_total), check_cmp_total);
	sorter_init(&ck->indx, sizeof(struct key), NULL);
	sorter_init(&ck->indx_want, sizeof(struct key), check_cmp_key);
	sorter_init(&ck->srch, sizeof(struct check_srch), check_cmp_srch);
	sorter_init(&ck->srch_want, sizeof(struct check_srch), check_cmp_srch);
}

/* Beyond this many blocks (4 TiB) the map of owners lies in a file: the kernel keeps what is in use of it. */
#define OWNERS_IN_MEMORY	(64u << 20)

static uint8_t *map_owners(struct check *ck)
{
	bool in_file = ck->meta_blocks > OWNERS_IN_MEMORY;
	int fd = in_file ? check_temp_file(ck) : -1;
	void *p = MAP_FAILED;

	if (!in_file)
		p = mmap(NULL, ck->meta_blocks, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	else if (fd >= 0 && posix_fallocate(fd, 0, (off_t)ck->meta_blocks) == 0)
		p = mmap(NULL, ck->meta_blocks, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	return p == MAP_FAILED ? NULL : p;
}

int check_volume(struct check *ck)
{
	struct check_resolve *resolve;
	uint8_t *block1;
	int ret;

	check_sorters_open(ck);
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

	ck->owner = map_owners(ck);
	if (!ck->owner)
		return ck->err ? ck->err : -ENOMEM;
	ret = block_set_open(&ck->bs, &ck->dev, ck->fsid, ck->meta_blocks, CACHE_BLOCKS);
	if (ret < 0)
		return ret;
	forest_roots_of_super(&ck->super, &ck->roots);
	resolve = check_resolve_begin(ck);
	check_structures(ck);
	check_file_system(ck, resolve);
	return ck->err;
}

void check_sorters_fini(struct check *ck)
{
	struct sorter *sorters[] = {
		&ck->data,    &ck->mapped,  &ck->inodes, &ck->dirents,	   &ck->backrefs,
		&ck->indexes, &ck->orphans, &ck->totals, &ck->totals_want, &ck->indx,
		&ck->indx_want, &ck->srch,  &ck->srch_want,
	};

	for (size_t i = 0; i < sizeof(sorters) / sizeof(sorters[0]); i++)
		sorter_fini(sorters[i]);
}

void check_fini(struct check *ck)
{
	struct vec *vecs[] = { &ck->logs, &ck->srch_files, &ck->compacts, &ck->merges,
			       &ck->bad_items };

	for (size_t i = 0; i < sizeof(vecs) / sizeof(vecs[0]); i++)
		vec_free(vecs[i]);
	check_sorters_fini(ck);
	if (ck->bs)
		block_set_close(ck->bs);
	ck->bs = NULL;
	if (ck->owner)
		munmap(ck->owner, ck->meta_blocks);
	ck->owner = NULL;
}
