UNIT_EXTRA_test_fsd_pending = $(UNIT_EXTRA_test_fsd_extents) services/fsd/lost.c
UNIT_THREADED += test_fsd_pending
