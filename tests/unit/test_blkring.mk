UNIT_EXTRA_test_blkring = services/blockd/ring.c
UNIT_EXTRA_fuzz_blkring = services/blockd/ring.c
UNIT_EXTRA_test_blkcli = $(filter-out services/blockd/main.c,$(sort $(wildcard services/blockd/*.c)))
