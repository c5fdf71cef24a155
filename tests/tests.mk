# How tests are built and run.  A unit test is tests/unit/test_NAME.c (one cmocka program); what it
# needs of a daemon's own files stands in UNIT_EXTRA_test_NAME.  A fuzz target is
# tests/fuzz/fuzz_NAME.c (one LLVMFuzzerTestOneInput).  A system test is tests/system/NN-name.sh.

UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/tests/unit/%)
-include $(sort $(wildcard tests/unit/*.mk))

.SECONDEXPANSION:
$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $$(call obj,$$(UNIT_EXTRA_$$*)) $(LIBS)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(LIBS) -Wl,--end-group -lcmocka $(LDLIBS_ALL) -lm

FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BIN := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/tests/fuzz/%)
$(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/obj/tests/fuzz/driver.o $$(call obj,$$(UNIT_EXTRA_$$*)) $(LIBS)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(LIBS) -Wl,--end-group $(LDLIBS_ALL) -lm

unit: $(UNIT_BIN)
fuzz: $(FUZZ_BIN)
