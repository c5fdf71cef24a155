UNIT_EXTRA_test_fsd_txn = services/fsd/items.c services/fsd/items_range.c services/fsd/items_dirty.c services/fsd/names.c services/fsd/op.c services/fsd/txn.c \
	services/fsd/commit.c services/fsd/stream.c services/fsd/room.c services/fsd/dalloc.c services/fsd/reader.c \
	services/fsd/inos.c services/fsd/inode.c services/fsd/resume.c
UNIT_THREADED += test_fsd_txn
# Who waits for room is held up between its look at what is dirty and what it does then.
%/tests/unit/test_fsd_txn: LDFLAGS += -Wl,--wrap=items_dirty
