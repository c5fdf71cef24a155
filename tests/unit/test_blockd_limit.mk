UNIT_EXTRA_test_blockd_limit = services/blockd/limit.c
