UNIT_EXTRA_test_fsd_leave = services/fsd/leave.c
