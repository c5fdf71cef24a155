UNIT_THREADED += test_keys
