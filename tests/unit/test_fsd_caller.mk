UNIT_EXTRA_test_fsd_caller = services/fsd/caller.c
UNIT_THREADED += test_fsd_caller
