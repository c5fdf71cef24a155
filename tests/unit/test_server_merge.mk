UNIT_EXTRA_test_server_merge = services/serverd/txn.c services/serverd/logs.c services/serverd/mounts.c \
	services/serverd/merge.c
