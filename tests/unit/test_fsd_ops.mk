UNIT_EXTRA_test_fsd_ops = $(addprefix services/fsd/,items.c items_range.c items_dirty.c names.c inode.c ops_dir.c ops_attr.c ops_xattr.c \
	ops_dirread.c listing.c shown.c xattr.c acl.c tmpfile.c)
UNIT_EXTRA_test_fsd_refuse = $(UNIT_EXTRA_test_fsd_ops)
UNIT_EXTRA_test_fsd_outgrown = $(UNIT_EXTRA_test_fsd_ops)
