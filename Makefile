# scoutfs in userspace.  One non-recursive file; everything is built under $(BUILD).
#
#   make            build the daemons and scoutfsctl
#   make deps       install the Debian packages the build and the tests need
#   make quickstart a volume in two files, mounted, walked, checked, gone again
#   make demo-cluster  three nodes on this machine: writers on all, a dead leader, a node cut off
#   make check      every test (see tests/README.md); make soak for the long ones
#   make sanitize   unit and fuzz targets under ASan and UBSan, threaded ones under TSan
#   make check-daemons  system and cluster tests with whole services under ASan and UBSan, and TSan (long)
#   make bench      ratios to a do-nothing FUSE server and to xfs; bench-cluster: what nodes cost one another
#   make install / uninstall / deb-deps / clean

BUILD   ?= build
PREFIX  ?= /usr
DESTDIR ?=
CC      ?= gcc
SAN     ?=

PACKAGES_BUILD = gcc make pkg-config libc6-dev libfuse3-dev libzmq3-dev libsodium-dev liblmdb-dev uuid-dev \
		 libsystemd-dev liburing-dev libisal-dev libcmocka-dev fuse3
PACKAGES_TEST  = zstd rsync attr acl python3 util-linux mount procps e2fsprogs xfsprogs systemd dbus iproute2 nftables \
		 iptables git fio

LIBS_PKG = fuse3 libzmq libsodium lmdb uuid libsystemd liburing libisal
VERSION := $(shell cat VERSION 2>/dev/null || echo 0)

WARN     = -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
CORE_WARN = -Wconversion -Wno-sign-conversion -Wvla
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=314 -DSCOUTFS_VERSION='"$(VERSION)"' \
	    -I. -Ilib/core -Ilib/run -Iproto
# override: what a command line says of them (the sanitizers' builds do) comes before these, not instead.
CFLAGS  ?= -O2 -g
override CFLAGS += -std=gnu11 -pthread -fno-strict-aliasing -MMD -MP $(WARN) $(SAN)
override LDFLAGS += -pthread $(SAN)

CORE_SRC  := $(sort $(wildcard lib/core/*/*.c))
RUN_SRC   := $(sort $(wildcard lib/run/*.c))
PROTO_SRC := $(sort $(wildcard proto/*.c))
CORE_LIB  := $(BUILD)/libcore.a
RUN_LIB   := $(BUILD)/librun.a
PROTO_LIB := $(BUILD)/libproto.a

DAEMONS   := blockd quorumd serverd fsd
PROGRAMS  := $(DAEMONS:%=$(BUILD)/scoutfs-%) $(BUILD)/scoutfsctl $(BUILD)/scoutfsctl-admin $(BUILD)/mount.scoutfs

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

.DEFAULT_GOAL := all
.PHONY: all deps deb-deps check soak sanitize bench bench-cluster quickstart demo-cluster install uninstall clean headers-check purity-check
.DELETE_ON_ERROR:
.SECONDARY:

all: $(PROGRAMS)
	@:

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# Libraries a program may need; resolved once, quietly empty where pkg-config is not there yet.
LDLIBS_ALL = $(shell pkg-config --libs $(LIBS_PKG) 2>/dev/null)
CFLAGS_PKG := $(shell pkg-config --cflags $(LIBS_PKG) 2>/dev/null)

$(BUILD)/obj/lib/core/%.o: override CFLAGS += $(CORE_WARN)
$(BUILD)/obj/proto/%.o: override CFLAGS += $(CORE_WARN)

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_PKG) -c -o $@ $<

$(CORE_LIB): $(call obj,$(CORE_SRC))
$(RUN_LIB): $(call obj,$(RUN_SRC))
$(PROTO_LIB): $(call obj,$(PROTO_SRC))
$(CORE_LIB) $(RUN_LIB) $(PROTO_LIB):
	@mkdir -p $(@D)
	@echo "  AR      $@"
	@rm -f $@ && ar rcs $@ $^

LIBS = $(RUN_LIB) $(PROTO_LIB) $(CORE_LIB)
link = @mkdir -p $(@D) && echo "  LINK    $@" && $(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) \
	-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LDLIBS_ALL) -lm

$(BUILD)/scoutfs-%: $(LIBS)
	$(link)
define daemon_rule
$(BUILD)/scoutfs-$(1): $(call obj,$(sort $(wildcard services/$(1)/*.c)))
endef
$(foreach d,$(DAEMONS),$(eval $(call daemon_rule,$(d))))

# scoutfsctl asks a mount by itself and starts scoutfsctl-admin for the rest: docs/decisions/0007-two-programs.md.
# Sanitizers' libraries cannot be linked to a static program.
CTL_COMMON := $(patsubst %,tools/scoutfsctl/%.c,main cmdutil cmd_walk_inodes cmd_stat cmd_ino_path)
CTL_ADMIN  := $(filter-out $(CTL_COMMON) %/hand_over.c,$(sort $(wildcard tools/scoutfsctl/*.c)))
$(BUILD)/scoutfsctl: LDLIBS_ALL = $(if $(SAN),,-static-pie)
$(BUILD)/scoutfsctl: $(call obj,$(CTL_COMMON) tools/scoutfsctl/hand_over.c) $(LIBS)
	$(link)
$(BUILD)/scoutfsctl-admin: LDLIBS_ALL = -Wl,--as-needed $(shell pkg-config --libs $(LIBS_PKG) 2>/dev/null)
$(BUILD)/scoutfsctl-admin: $(call obj,$(CTL_COMMON) $(CTL_ADMIN)) $(LIBS)
	$(link)
$(BUILD)/mount.scoutfs: $(call obj,tools/mount.scoutfs.c) $(LIBS)
	$(link)

include tests/tests.mk

# --- a machine's packages ----------------------------------------------------------------------
# Quiet and quick when everything is there.
APT = DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300
deb-deps:
	@echo $(PACKAGES_BUILD) $(PACKAGES_TEST)
deps:
	@missing=$$(dpkg-query -W -f '$${Package} $${Status}\n' $(PACKAGES_BUILD) $(PACKAGES_TEST) 2>/dev/null | \
		awk '$$4 == "installed" {print $$1}' | sort -u > /tmp/.scoutfs-have.$$$$; \
		printf '%s\n' $(PACKAGES_BUILD) $(PACKAGES_TEST) | sort -u | comm -23 - /tmp/.scoutfs-have.$$$$; \
		rm -f /tmp/.scoutfs-have.$$$$); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		{ $(APT) update && $(APT) install -y --no-install-recommends $$missing; } >/dev/null || { \
		echo "make deps: apt-get could not install" $$missing "- is the network there, and are you root?" >&2; exit 1; }; \
	fi

# As many compilers as processors, if nobody has said how many.
make_first = $(MAKE) --no-print-directory -s $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

demo-cluster: deps
	+@$(make_first) all
	@BUILD="$(abspath $(BUILD))" tests/demo-cluster.sh

quickstart: deps
	+@$(make_first) all
	@BUILD="$(abspath $(BUILD))" tools/quickstart.sh

bench: deps
	+@$(make_first) test-programs
	@BUILD="$(abspath $(BUILD))" tests/bench/bench.sh

bench-cluster: deps
	+@$(make_first) test-programs
	@BUILD="$(abspath $(BUILD))" tests/bench/cluster.sh

# --- installation ------------------------------------------------------------------------------
UNITS = $(wildcard systemd/*.service systemd/*.mount systemd/*.target)
install: all
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system \
		$(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d $(DESTDIR)/etc/scoutfs
	install $(DAEMONS:%=$(BUILD)/scoutfs-%) $(BUILD)/mount.scoutfs $(BUILD)/scoutfsctl-admin $(DESTDIR)$(PREFIX)/sbin
	install $(BUILD)/scoutfsctl $(DESTDIR)$(PREFIX)/bin
	ln -sf scoutfsctl $(DESTDIR)$(PREFIX)/bin/scoutfs
	ln -sf mount.scoutfs $(DESTDIR)$(PREFIX)/sbin/mount.fuse.scoutfs
	install -m 644 $(UNITS) $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 644 systemd/scoutfs.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/scoutfs.conf
	install -m 644 systemd/scoutfs.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/scoutfs.conf
	install -m 644 systemd/example.conf $(DESTDIR)/etc/scoutfs/example.conf.sample
	@if [ -z "$(DESTDIR)" ] && command -v systemd-sysusers >/dev/null; then \
		systemd-sysusers $(PREFIX)/lib/sysusers.d/scoutfs.conf && \
		systemd-tmpfiles --create $(PREFIX)/lib/tmpfiles.d/scoutfs.conf; fi
uninstall:
	rm -f $(DAEMONS:%=$(DESTDIR)$(PREFIX)/sbin/scoutfs-%) $(DESTDIR)$(PREFIX)/sbin/mount.scoutfs \
		$(DESTDIR)$(PREFIX)/sbin/scoutfsctl-admin \
		$(DESTDIR)$(PREFIX)/sbin/mount.fuse.scoutfs $(DESTDIR)$(PREFIX)/bin/scoutfsctl $(DESTDIR)$(PREFIX)/bin/scoutfs \
		$(patsubst systemd/%,$(DESTDIR)$(PREFIX)/lib/systemd/system/%,$(UNITS)) \
		$(DESTDIR)$(PREFIX)/lib/sysusers.d/scoutfs.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/scoutfs.conf \
		$(DESTDIR)/etc/scoutfs/example.conf.sample
	@rmdir $(DESTDIR)/etc/scoutfs 2>/dev/null || true

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan
