UNIT_EXTRA_test_fsd_advisory = services/fsd/items.c services/fsd/items_range.c services/fsd/items_dirty.c services/fsd/names.c services/fsd/op.c services/fsd/advisory.c services/fsd/advisory_rows.c
UNIT_THREADED += test_fsd_advisory
