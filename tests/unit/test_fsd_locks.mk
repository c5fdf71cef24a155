UNIT_EXTRA_test_fsd_locks = services/fsd/locks.c services/fsd/revoke.c services/fsd/notifier.c services/fsd/busy.c services/fsd/pending.c services/fsd/op.c services/serverd/lock_fsm.c
UNIT_THREADED += test_fsd_locks
