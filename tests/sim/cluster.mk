# The cluster's worlds (tests/sim/cluster): most of serverd, both ends of a session, fsd's lock table.
SIM_SRC += $(sort $(wildcard tests/sim/cluster/*.c)) \
	$(filter-out services/serverd/main.c services/serverd/status.c services/serverd/worker.c,$(sort $(wildcard services/serverd/*.c))) \
	services/fsd/locks.c services/fsd/revoke.c \
	lib/run/session.c lib/run/keys.c lib/run/zmqu_curve.c lib/run/net_client.c lib/run/thread.c lib/run/net_client_link.c lib/run/net_client_call.c lib/run/net_server.c lib/run/net_refuse.c \
	lib/run/testhook.c \
	$(sort $(wildcard tools/scoutfsctl/check_*.c))
