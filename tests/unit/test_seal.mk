UNIT_EXTRA_test_seal = services/quorumd/seal.c
