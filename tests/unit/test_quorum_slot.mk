UNIT_EXTRA_test_quorum_slot = services/quorumd/quorum_slot.c
