UNIT_EXTRA_test_fsd_resume = $(UNIT_EXTRA_test_fsd_txn)
UNIT_THREADED += test_fsd_resume
%/tests/unit/test_fsd_resume: LDFLAGS += -Wl,--wrap=items_dirty
