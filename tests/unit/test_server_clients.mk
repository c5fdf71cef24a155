# Those with server_world.h: a whole server.
SERVER_WORLD = services/serverd/txn.c services/serverd/logs.c services/serverd/mounts.c \
	services/serverd/worker.c services/serverd/tasks.c services/serverd/clients.c services/serverd/lease.c services/serverd/requests.c services/serverd/merge.c \
	services/serverd/gather.c services/serverd/cluster_status.c services/serverd/stable.c \
	services/serverd/server.c services/serverd/advisory.c services/serverd/advisory_fsm.c services/serverd/advisory_objects.c services/serverd/lock_fsm.c services/serverd/omap.c
UNIT_EXTRA_test_server_clients = $(SERVER_WORLD)
UNIT_EXTRA_test_server_own_mount = $(SERVER_WORLD)
UNIT_EXTRA_test_server_leases = $(SERVER_WORLD)
UNIT_EXTRA_test_server_gather = $(SERVER_WORLD)
UNIT_EXTRA_test_server_cluster_status = $(SERVER_WORLD)
