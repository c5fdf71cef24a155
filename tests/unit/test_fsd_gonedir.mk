UNIT_EXTRA_test_fsd_gonedir = services/fsd/gonedir.c services/fsd/op.c
UNIT_THREADED += test_fsd_gonedir
