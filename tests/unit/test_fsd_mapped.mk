UNIT_EXTRA_test_fsd_mapped = $(UNIT_EXTRA_test_fsd_extents)
UNIT_THREADED += test_fsd_mapped
