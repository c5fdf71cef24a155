UNIT_EXTRA_test_fsd_pending = $(UNIT_EXTRA_test_fsd_extents)
UNIT_THREADED += test_fsd_pending
