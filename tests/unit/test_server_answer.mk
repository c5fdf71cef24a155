UNIT_EXTRA_test_server_answer = services/serverd/answer.c services/serverd/turns.c services/serverd/worker.c services/serverd/tasks.c services/serverd/txn.c
UNIT_THREADED += test_server_answer
