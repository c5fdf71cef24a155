UNIT_EXTRA_test_fsd_items = services/fsd/items.c services/fsd/items_range.c services/fsd/items_dirty.c services/fsd/names.c
