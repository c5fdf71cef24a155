# Unit tests whose code has threads: they run under TSan as well.
UNIT_THREADED += test_blkcli test_blockd test_blockd_conn test_server_clients test_check
UNIT_THREADED += test_server_own_mount test_server_leases test_server_gather test_server_cluster_status
UNIT_THREADED += test_shortcut
UNIT_THREADED += test_blkcli_older test_blkcli_wait test_net_full test_net_older test_server_older test_server_status
