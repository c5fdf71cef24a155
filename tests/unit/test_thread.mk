UNIT_THREADED += test_thread
