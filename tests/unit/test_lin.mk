UNIT_EXTRA_test_lin = tests/lin/lin_check.c tests/lin/lin_search.c tests/lin/lin_log.c
