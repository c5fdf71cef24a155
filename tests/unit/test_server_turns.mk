UNIT_EXTRA_test_server_turns = services/serverd/turns.c
UNIT_THREADED += test_server_turns
