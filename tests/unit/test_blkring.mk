BLOCKD_SRC := $(sort $(wildcard services/blockd/*.c))
UNIT_EXTRA_test_blkring = services/blockd/ring.c
UNIT_EXTRA_fuzz_blkring = services/blockd/ring.c
UNIT_EXTRA_test_blkcli = $(filter-out %/main.c,$(BLOCKD_SRC))
UNIT_EXTRA_test_blockd = $(UNIT_EXTRA_test_blkcli)
UNIT_EXTRA_test_blockd_conn = $(filter-out %/main.c %/engine.c,$(BLOCKD_SRC))
UNIT_EXTRA_test_blockd_chain = $(UNIT_EXTRA_test_blockd_conn)
