UNIT_EXTRA_test_server_older = $(SERVER_WORLD)
