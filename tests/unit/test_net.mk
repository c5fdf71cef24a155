UNIT_THREADED += test_net
