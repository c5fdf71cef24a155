UNIT_EXTRA_test_fsd_merge = services/fsd/merge.c
UNIT_THREADED += test_fsd_merge
