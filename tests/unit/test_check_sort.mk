UNIT_EXTRA_test_check_sort = $(UNIT_EXTRA_test_check)
