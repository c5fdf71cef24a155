UNIT_EXTRA_test_quorum = services/quorumd/quorum_fsm.c services/quorumd/quorum_slot.c
