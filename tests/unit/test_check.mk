UNIT_EXTRA_test_check = $(sort $(wildcard tools/scoutfsctl/check_*.c))
UNIT_EXTRA_test_check_state = $(UNIT_EXTRA_test_check)
