UNIT_THREADED += test_net_wait
