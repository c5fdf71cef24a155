UNIT_EXTRA_test_alloc_fragmented = services/serverd/txn.c services/serverd/logs.c services/serverd/mounts.c \
	services/serverd/merge.c
