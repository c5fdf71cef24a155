UNIT_EXTRA_test_advisory = services/serverd/advisory_fsm.c services/serverd/advisory_objects.c
