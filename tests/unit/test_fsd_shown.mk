UNIT_EXTRA_test_fsd_shown = services/fsd/shown.c
