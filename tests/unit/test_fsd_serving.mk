UNIT_EXTRA_test_fsd_serving = services/fsd/serving.c
UNIT_THREADED += test_fsd_serving
