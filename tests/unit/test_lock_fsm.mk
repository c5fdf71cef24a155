UNIT_EXTRA_test_lock_fsm = services/serverd/lock_fsm.c services/serverd/omap.c
