# Unit tests whose code has threads: they run under TSan as well.
UNIT_THREADED += test_blkcli test_blockd test_blockd_conn test_server_clients test_check
