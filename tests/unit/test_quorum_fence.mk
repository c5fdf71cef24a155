UNIT_EXTRA_test_quorum_fence = services/quorumd/fence.c services/quorumd/quorum_slot.c
