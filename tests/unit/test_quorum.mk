UNIT_EXTRA_test_quorum = services/quorumd/quorum_fsm.c services/quorumd/quorum_slot.c
UNIT_EXTRA_test_quorum_steps = services/quorumd/quorum_fsm.c
