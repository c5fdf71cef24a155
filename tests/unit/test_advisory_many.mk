UNIT_EXTRA_test_advisory_many = services/serverd/advisory_fsm.c services/serverd/advisory_objects.c
