UNIT_EXTRA_test_fsd_extents = services/fsd/items.c services/fsd/items_range.c services/fsd/items_dirty.c services/fsd/names.c services/fsd/op.c \
	services/fsd/extents.c services/fsd/data.c services/fsd/pool.c services/fsd/ops_file.c services/fsd/pending.c services/fsd/mapped.c services/fsd/content.c services/fsd/shown.c services/fsd/busy.c \
	services/fsd/inode.c services/fsd/ops_attr.c services/fsd/xattr.c
UNIT_THREADED += test_fsd_extents
