UNIT_EXTRA_test_fsd_room = services/fsd/room.c
