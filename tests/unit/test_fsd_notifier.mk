UNIT_EXTRA_test_fsd_notifier = $(addprefix services/fsd/,locks.c revoke.c notifier.c busy.c pending.c op.c)
UNIT_THREADED += test_fsd_notifier
