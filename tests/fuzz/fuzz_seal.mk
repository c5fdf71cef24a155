UNIT_EXTRA_fuzz_seal = services/quorumd/seal.c
