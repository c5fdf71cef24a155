UNIT_EXTRA_test_fsd_names = services/fsd/names.c
