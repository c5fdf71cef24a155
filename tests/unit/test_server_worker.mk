UNIT_THREADED += test_server_worker
UNIT_EXTRA_test_server_worker = services/serverd/worker.c services/serverd/tasks.c services/serverd/txn.c
