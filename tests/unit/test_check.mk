UNIT_EXTRA_test_check = $(sort $(wildcard tools/scoutfsctl/check_*.c))
