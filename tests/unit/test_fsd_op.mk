UNIT_EXTRA_test_fsd_op = services/fsd/op.c
UNIT_THREADED += test_fsd_op
