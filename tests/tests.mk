# How tests are built and run.  A unit test is tests/unit/test_NAME.c (one cmocka program); what it
# needs of a daemon's own files stands in UNIT_EXTRA_test_NAME (tests/unit/test_NAME.mk).  A fuzz target
# is tests/fuzz/fuzz_NAME.c (one LLVMFuzzerTestOneInput).  A system test is tests/system/NN-name.sh,
# a helper program for them tests/posix/NAME.c or tests/rig/NAME.c, a test with nodes of its own tests/cluster/NN-name.sh.

UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/tests/unit/%)
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BIN := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/tests/fuzz/%)
POSIX_SRC := $(sort $(wildcard tests/posix/*.c))
POSIX_BIN := $(POSIX_SRC:tests/posix/%.c=$(BUILD)/tests/posix/%) $(BUILD)/tests/posix/coherence
RIG_SRC := $(sort $(wildcard tests/rig/*.c))
RIG_BIN := $(RIG_SRC:tests/rig/%.c=$(BUILD)/tests/rig/%)
BENCH_SRC := $(sort $(wildcard tests/bench/*.c))
BENCH_BIN := $(BENCH_SRC:tests/bench/%.c=$(BUILD)/tests/bench/%)
# Histories of several nodes: the workload runs in the nodes, the checker here.
LIN_BIN := $(BUILD)/tests/lin/linwork $(BUILD)/tests/lin/lincheck
SYSTEM_TESTS := $(sort $(wildcard tests/system/[0-9]*.sh))
SOAK_TESTS := $(sort $(wildcard tests/soak/[0-9]*.sh))
CLUSTER_TESTS := $(sort $(wildcard tests/cluster/[0-9]*.sh))
# The simulator: machines compiled again, with the planted bugs in them (tests/sim/README.md).
SIM_BIN := $(BUILD)/tests/sim
SIM_SRC := $(sort $(wildcard tests/sim/*.c)) $(CORE_SRC) $(PROTO_SRC)
# Unit tests with threads add themselves to UNIT_THREADED in their .mk: these run under TSan as well.
-include $(sort $(wildcard tests/unit/*.mk) $(wildcard tests/fuzz/*.mk) $(wildcard tests/sim/*.mk))

link_test = @mkdir -p $(@D) && echo "  LINK    $@" && $(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) \
	-Wl,--start-group $(LIBS) -Wl,--end-group $(1) $(LDLIBS_ALL) -lm

.SECONDEXPANSION:
$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $$(call obj,$$(UNIT_EXTRA_$$*)) $(LIBS)
	$(call link_test,-lcmocka)
$(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/obj/tests/fuzz/driver.o $$(call obj,$$(UNIT_EXTRA_$$*)) $(LIBS)
	$(call link_test)
# Programs that are clients of a mount: nothing of the project is in them, and a sanitizer is for the services.
CLIENTS := posix lin
$(CLIENTS:%=$(BUILD)/tests/%/%) $(CLIENTS:%=$(BUILD)/obj/tests/%/%.o): private override SAN =
link_tool = @mkdir -p $(@D) && echo "  LINK    $@" && $(CC) $(LDFLAGS) -o $@ $^ $(1)
$(BUILD)/tests/posix/%: $(BUILD)/obj/tests/posix/%.o
	$(call link_tool)
$(BUILD)/tests/posix/coherence: $(call obj,$(sort $(wildcard tests/posix/coherence/*.c)))
	$(call link_tool)
$(BUILD)/tests/bench/%: $(BUILD)/obj/tests/bench/%.o
	$(call link_tool,$(shell pkg-config --libs fuse3))
# Devices that fail when a test wants it.
$(BUILD)/tests/rig/%: $(BUILD)/obj/tests/rig/%.o
	$(call link_tool,$(shell pkg-config --libs fuse3))
$(BUILD)/tests/lin/linwork: $(BUILD)/obj/tests/lin/linwork.o $(BUILD)/obj/tests/lin/lin_log.o
	$(call link_tool)
$(BUILD)/tests/lin/lincheck: $(patsubst %,$(BUILD)/obj/tests/lin/%.o,lincheck lin_check lin_search lin_log)
	$(call link_tool)
# This one is a client of blockd, with the services' own library.
$(BUILD)/tests/bench/blkio: $(LIBS)

# In SIM_SRC too: what tests/sim/*.mk adds of the daemons' machines.
$(BUILD)/obj/sim/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC      $< (simulator)"
	@$(CC) $(CPPFLAGS) -DSCOUTFS_SIMULATOR $(CFLAGS) $(CFLAGS_PKG) -c -o $@ $<
$(SIM_BIN): $(SIM_SRC:%.c=$(BUILD)/obj/sim/%.o)
	@mkdir -p $(@D) && echo "  LINK    $@" && $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

.PHONY: unit fuzz sim check-sim test-programs system-programs check-unit check-fuzz check-system check-daemons \
	check-cluster
unit: $(UNIT_BIN)
fuzz: $(FUZZ_BIN)
system-programs: all $(POSIX_BIN) $(RIG_BIN) $(BENCH_BIN) $(LIN_BIN)
test-programs: system-programs $(UNIT_BIN) $(FUZZ_BIN) $(SIM_BIN)

RUN = BUILD="$(abspath $(BUILD))" tests/run
ASAN_BUILD = $(BUILD)-asan
TSAN_BUILD = $(BUILD)-tsan
# Static: only so do both of them take log_path (tests/run).
asan_flags = -fsanitize=address,undefined -fno-omit-frame-pointer -static-libasan -static-libubsan
# GCC says of fences (blkring.h) that TSan does not follow them.
tsan_flags = -fsanitize=thread -Wno-tsan
# A sanitizer that is not in the objects finds nothing, and says so of everything.
instrumented = nm $(1)/obj/services/fsd/txn.o | grep -q ' U __$(2)_' || \
	       { echo "$(1) is not built with its sanitizer"; exit 1; }

# make_asan TARGET..., make_tsan TARGET...: what is built with the sanitizers, in folders of its own.
make_asan = $(MAKE) --no-print-directory -s BUILD=$(ASAN_BUILD) SAN="$(asan_flags)" CFLAGS="-O1 -g"
make_tsan = $(MAKE) --no-print-directory -s BUILD=$(TSAN_BUILD) SAN="$(tsan_flags)" CFLAGS="-O1 -g"

# Whole services under sanitizers: every system test but these.  Unlike programs, they run for a while, with all
# their threads, and are stopped, killed and started again.
#   02-reasons 08-messages	no service runs in them
#   60-many-files		the memory that services may have; a sanitizer has several times as much
NO_SERVICES = 02-reasons 08-messages
ASAN_NOT = $(NO_SERVICES) 60-many-files
ASAN_SYSTEM := $(filter-out $(ASAN_NOT:%=tests/system/%.sh),$(SYSTEM_TESTS))
# Those of `make check`, a minute: every call of a mount; any service killed, each replaced under load; recovery of files
# without a name; devices that fail.
ASAN_SHORT := $(patsubst %,tests/system/%.sh,30-posix 33-unnamed 40-kill 42-restart 72-device-errors)

# Tests with nodes, too: all of them, but what is not about the services.
#   92-demo			the demo makes nodes of its own
ASAN_CLUSTER := $(filter-out tests/cluster/92-demo.sh,$(CLUSTER_TESTS))

# Under TSan, which makes all ten times slower: those whose time limits hold then, of system tests and those with nodes, and
# one for `make check`.  46-catalogue starts services hundreds of times, 32-data and 55-merge write gigabytes: too long for it.
TSAN_SYSTEM := $(patsubst %,tests/system/%.sh,06-status 33-unnamed 34-ioctl 40-kill 42-restart 44-lease 45-cut-off 72-device-errors)
TSAN_SHORT := tests/system/40-kill.sh
TSAN_CLUSTER := $(patsubst %,tests/cluster/%.sh,83-three-nodes 84-coherence 87-failover 88-fencing)

check-unit: $(UNIT_BIN) all
	@$(RUN) $(UNIT_BIN:%=unit:%)
check-fuzz: $(FUZZ_BIN)
	@$(RUN) $(FUZZ_BIN:%=fuzz:%)
# SEED= replays one world (SIM=machine PLANT=bug TRACE=1), else many are run: SEEDS=, JOBS=.
sim: $(SIM_BIN)
ifdef SEED
	@$(SIM_BIN) -s $(SEED) $(if $(SIM),-m $(SIM)) $(if $(PLANT),-p $(PLANT)) $(if $(TRACE),-t)
else
	@$(SIM_BIN) -n $(or $(SEEDS),10000) -j $(or $(JOBS),2) $(if $(SIM),-m $(SIM))
endif
check-sim: $(SIM_BIN)
	@$(RUN) sim:$(SIM_BIN)
check-system: test-programs
	@$(RUN) $(SYSTEM_TESTS:%=system:%)
check-cluster: test-programs
	@$(RUN) $(CLUSTER_TESTS:%=host:%)

# Everything, in one run of tests/run so that one closing line counts it all.
check: test-programs headers-check purity-check
	+@$(make_asan) unit fuzz system-programs
	+@$(make_tsan) system-programs $(UNIT_THREADED:%=$(TSAN_BUILD)/tests/unit/%)
	@$(call instrumented,$(ASAN_BUILD),asan)
	@$(call instrumented,$(TSAN_BUILD),tsan)
	@$(RUN) $(UNIT_BIN:%=unit:%) $(FUZZ_BIN:%=fuzz:%) sim:$(SIM_BIN) \
		$(UNIT_SRC:tests/unit/%.c=unit:$(ASAN_BUILD)/tests/unit/%) \
		$(FUZZ_SRC:tests/fuzz/%.c=fuzz:$(ASAN_BUILD)/tests/fuzz/%) \
		$(UNIT_THREADED:%=unit:$(TSAN_BUILD)/tests/unit/%) \
		$(SYSTEM_TESTS:%=system:%) $(ASAN_SHORT:%=asan:%) $(TSAN_SHORT:%=tsan:%) $(CLUSTER_TESTS:%=host:%)

check-daemons:
	+@$(make_asan) system-programs
	+@$(make_tsan) system-programs
	@$(call instrumented,$(ASAN_BUILD),asan)
	@$(call instrumented,$(TSAN_BUILD),tsan)
	@$(RUN) $(ASAN_SYSTEM:%=asan:%) $(ASAN_CLUSTER:%=asan-host:%) $(TSAN_SYSTEM:%=tsan:%) $(TSAN_CLUSTER:%=tsan-host:%)

sanitize:
	+@$(make_asan) unit fuzz all $(ASAN_BUILD)/tests/sim
	+@$(make_tsan) $(UNIT_THREADED:%=$(TSAN_BUILD)/tests/unit/%)
	@$(call instrumented,$(ASAN_BUILD),asan)
	@$(call instrumented,$(TSAN_BUILD),tsan)
	@SIM_SEEDS=500 $(RUN) $(UNIT_SRC:tests/unit/%.c=unit:$(ASAN_BUILD)/tests/unit/%) \
		sim:$(ASAN_BUILD)/tests/sim \
		$(FUZZ_SRC:tests/fuzz/%.c=fuzz:$(ASAN_BUILD)/tests/fuzz/%) \
		$(UNIT_THREADED:%=unit:$(TSAN_BUILD)/tests/unit/%)

# The long ones: the same system tests with more rounds, hours allowed.
soak: test-programs
	+@$(make_asan) system-programs
	+@$(make_tsan) system-programs
	@$(call instrumented,$(ASAN_BUILD),asan)
	@$(call instrumented,$(TSAN_BUILD),tsan)
	@SOAK=1 SYSTEM_TIMEOUT=$(or $(SOAK_TIMEOUT),14400) SIM_SEEDS=$(or $(SEEDS),1000000) SIM_SECONDS=1800 $(RUN) \
		sim:$(SIM_BIN) $(SYSTEM_TESTS:%=system:%) $(SOAK_TESTS:%=system:%) $(CLUSTER_TESTS:%=host:%) \
		$(ASAN_SYSTEM:%=asan:%) $(ASAN_CLUSTER:%=asan-host:%) $(TSAN_SYSTEM:%=tsan:%) $(TSAN_CLUSTER:%=tsan-host:%)

# Every header compiles alone.
headers-check:
	@for h in $$(git ls-files '*.h' 2>/dev/null || find lib proto services tools -name '*.h'); do \
		case $$h in tests/*) continue ;; esac; \
		$(CC) $(CPPFLAGS) $(CFLAGS_PKG) -I$$(dirname $$h) -std=gnu11 -fsyntax-only -x c $$h || exit 1; done

# lib/core decides; it does not act (style.md 1): no file, socket, thread, clock, random or log symbol.
IMPURE = open|openat|read|write|pread|pwrite|close|socket|connect|send|recv|ioctl|mmap|fopen|printf|fprintf|vfprintf|puts|perror|syslog|pthread_[a-z_]*|clock_gettime|gettimeofday|time|rand|random|getrandom|getenv|exit|fork|nanosleep|usleep
# What may ask for the time of day: it stores or shows it.
SHOWS_TIME = lib/run/clock.c|services/fsd/inode.c|tools/scoutfsctl/cmd_mkfs.c
purity-check: $(CORE_LIB)
	@bad=$$(nm -A --undefined-only $(CORE_LIB) | grep -E ' U ($(IMPURE))(@.*)?$$'); \
	if [ -n "$$bad" ]; then echo "lib/core must be pure, but uses:"; echo "$$bad"; exit 1; fi
	@bad=$$(grep -rl --include='*.c' CLOCK_REALTIME lib services tools | grep -vE '^($(SHOWS_TIME))$$'); \
	if [ -n "$$bad" ]; then echo "the time of day may be set, so nothing waits by it (lib/run/clock.h):"; echo "$$bad"; exit 1; fi
