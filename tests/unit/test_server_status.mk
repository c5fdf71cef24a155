UNIT_EXTRA_test_server_status = services/serverd/status.c
