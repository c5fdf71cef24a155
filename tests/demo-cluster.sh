#!/bin/bash
# make demo-cluster: three nodes with systemd on this machine, two devices that all of them share, one filesystem.
# What becomes of it when a leader dies, a node is cut off, or loses its power.  All of it is gone afterwards.
set -u
TOP=$(cd "$(dirname "$0")/.." && pwd)
BUILD=${BUILD:-$TOP/build}
[ "$(id -u)" = 0 ] || { echo "demo-cluster: must be root: it boots nodes in namespaces and mounts filesystems" >&2; exit 1; }
[ -c /dev/fuse ] || { echo "demo-cluster: /dev/fuse is missing: load the fuse module (modprobe fuse), or give this container the device" >&2; exit 1; }
[ -e /dev/loop-control ] || { echo "demo-cluster: there are no loop devices: load the loop module (modprobe loop)" >&2; exit 1; }
T=$(mktemp -d "${TMPDIR:-/tmp}/scoutfs-demo.XXXXXX")
export RIG_DIR=$T/rig RIG_NAME=demo$$ RIG_DISK_SIZE=16G RIG_NET=10.$((100 + $$ % 100)).$((RANDOM % 250))
RIG=$TOP/tests/rig/rig
M=/mnt/scoutfs	# in the nodes
NODES="n1 n2 n3"

step() { printf '\n== %s\n' "$*"; }
say() { printf '   %s\n' "$*"; }
node() { timeout 120 "$RIG" exec "$@"; }
on() { local n=$1; shift; printf '   %s# %s\n' "$n" "$*"; node "$n" sh -c "$*" 2>&1 | sed 's/^/       /'; return "${PIPESTATUS[0]}"; }
die() {
	echo "demo-cluster: FAILED: $*" >&2
	for n in $NODES; do echo "-- what the services on $n said last:"; node "$n" journalctl --no-pager -q -o cat -n 15 -u 'scoutfs*@demo.service' 2>&1; done >&2
	exit 1
}
cleanup() {
	rc=$?
	trap - EXIT
	"$RIG" down || rc=1
	rm -rf "$T"
	[ $rc = 0 ] && echo && echo "demo-cluster: done, nothing is left behind."
	exit $rc
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP
wait_for() { local end=$((SECONDS + $1)); shift; until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done; }
everywhere() { local n p pids=() rc=0; for n in $NODES; do node "$n" "$@" & pids+=($!); done; for p in "${pids[@]}"; do wait "$p" || rc=1; done; return $rc; }
addr() { echo "$RIG_NET.$((10 + ${1#n}))"; }
the_leader() { wait_for 90 leader && leader; }
leader() { local n; for n in $NODES; do case $(node "$n" systemctl show -P StatusText scoutfs-serverd@demo 2>/dev/null) in "leader of"*) echo "$n"; return ;; esac; done; return 1; }
is_well() { node "$1" scoutfsctl status --cluster demo; }

# A program that writes a line and makes it durable (fsync), again and again: how long did it ever wait for one?
cat >"$T/pulse.py" <<'PY'
import os, sys, time
path, report = sys.argv[1:]
f, worst, nr, last = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 0, 0, time.monotonic()
while not os.path.exists(report + ".stop"):
    try:
        os.write(f, b"%d\n" % nr)
        os.fsync(f)
    except OSError as e:
        open(report, "w").write("error: %s after %d" % (e.strerror, nr))
        sys.exit(1)
    now = time.monotonic()
    nr, worst, last = nr + 1, max(worst, now - last), now
    open(report + ".new", "w").write("%d %d" % (nr, worst * 1000))
    os.rename(report + ".new", report)
PY
# pulse_start NODE: on that node; its report is $RIG_DIR/shared/NODE
pulse_start() {
	local r=$RIG_DIR/shared/$1
	rm -f "$r" "$r.stop"
	"$RIG" exec "$1" python3 /shared/pulse.py "$M/pulse-$1" "/shared/$1" & eval "pulse_$1=$!"
	wait_for 60 test -s "$r" || die "the program on $1 does not write"
}
pulse_nr() { cut -d' ' -f1 "$RIG_DIR/shared/$1"; }
goes_on() { [ "$(pulse_nr "$1")" -gt $(($2 + 3)) ]; }
pulse_stop() {
	local pid=pulse_$1 nr worst
	touch "$RIG_DIR/shared/$1.stop"
	wait "${!pid}" || die "the program on $1 has seen an error: $(cat "$RIG_DIR/shared/$1")"
	read -r nr worst <"$RIG_DIR/shared/$1"
	say "the program on $1: $nr durable writes, no error, the longest one took $((worst / 1000)).$(printf %03d $((worst % 1000))) s"
}

step "Boot three nodes with systemd, an address each, and two disks that all three share"
"$RIG" up -n 3 >"$T/up" 2>&1 || { cat "$T/up" >&2; die "the nodes do not boot"; }
make -C "$TOP" --no-print-directory -s "BUILD=$BUILD" "DESTDIR=$RIG_DIR/shared/stage" install || die "make install"
cp "$T/pulse.py" "$RIG_DIR/shared/"
everywhere sh -ec "{ cp -a --no-preserve=ownership /shared/stage/. /; systemd-sysusers; systemd-tmpfiles --create scoutfs.conf; systemctl daemon-reload; mkdir -p $M; } >/shared/\$(hostname).install 2>&1" || die "the installation"
for n in $NODES; do say "$n at $(addr "$n")"; done

step "Make the volume, once: each of the three nodes has a vote (-Q: slot, address, port)"
on n1 "scoutfsctl mkfs -A -Q 0,$(addr n1),12345 -Q 1,$(addr n2),12345 -Q 2,$(addr n3),12345 /dev/shared0 /dev/shared1" || die mkfs

step "Start the services everywhere at the same time: the nodes elect a leader, and all mount"
for n in $NODES; do
	printf '%s\n' 'meta_device = /dev/shared0' 'data_device = /dev/shared1' "mountpoint = $M" "quorum_slot = $((${n#n} - 1))" \
		'insecure = yes' 'heartbeat_timeout_ms = 4000' 'lease_ms = 5000' 'recovery_timeout_ms = 8000' \
		'client_timeout_ms = 60000' 'cache_size = 64M' 'pool_size = 64M' |
		node "$n" sh -c 'cat >/etc/scoutfs/demo.conf' || die "the configuration"
done
say "(no keys in this demo: insecure = yes; shorter leases and timeouts than by default, so that you wait less)"
say "n1, n2, n3# systemctl start scoutfs@demo"
everywhere systemctl start scoutfs@demo || die "the services do not start"
wait_for 60 is_well n1 || { on n1 scoutfsctl status --cluster demo; die "the cluster is not healthy"; }
wait_for 60 is_well n3
on n3 scoutfsctl status --cluster demo || die status

step "The same file everywhere: written on n1, read on n2 and n3 at once, without a wait for any timeout"
on n1 "echo 'hello from n1' >$M/hello" || die write
on n2 "cat $M/hello; echo 'and from n2' >>$M/hello" || die "n2 does not see it"
on n3 "cat $M/hello" || die "n3 does not see it"
[ "$(node n3 cat "$M/hello")" = "$(printf 'hello from n1\nand from n2')" ] || die "n3 does not see what n2 has written"

step "Three writers at the same time: each node fills a directory of its own, in its own log, without waiting for the others"
everywhere sync "$M" || die sync
seq=$(node n3 scoutfsctl walk-inodes meta_seq 0 -1 "$M" | awk '!/^#/ && $2 > m {m = $2} END {print m + 1}')
say "n1, n2, n3# mkdir $M/\$(hostname); for i in \$(seq 200); do echo \$i >$M/\$(hostname)/\$i; done; sync $M"
began=$(date +%s%N)
everywhere sh -ec "mkdir $M/\$(hostname); cd $M/\$(hostname); for i in \$(seq 200); do echo \$i >\$i; done; sync $M" || die "three writers"
say "600 files, all durable, in $((($(date +%s%N) - began) / 1000000)) ms"
[ "$(node n2 sh -c "ls $M/n[123] | grep -c '^[0-9]'")" = 600 ] || die "n2 does not see all 600 files"

step "What changed since seq $seq?  Any node knows, whoever wrote it, without walking the tree"
say "n2# scoutfsctl walk-inodes meta_seq $seq -1 $M"
# what n2 has written into hello may become visible only now
hello=$(node n1 stat -c %i "$M/hello")
changed() { node n2 scoutfsctl walk-inodes meta_seq "$seq" -1 "$M" | awk -v ino="$hello" '$4 != ino' >"$T/changed" && [ "$(grep -vc '^#' "$T/changed")" = 604 ]; }
began=$(date +%s%N)
wait_for 120 changed || die "the index lists $(grep -vc '^#' "$T/changed") inodes, 604 have changed"
head -3 "$T/changed" | sed 's/^/       /'
say "    ... 604 changed inodes: 600 files, their 3 directories, and the root directory, all listed after $((($(date +%s%N) - began) / 1000000)) ms"
say "(a change is in the index when all transactions that were opened before it are committed: so whoever goes on from the last seq misses nothing)"

l=$(the_leader) || die "nobody leads"
set -- ${NODES/$l/}
step "Kill the leader's server ($l) while programs on $1 and $2 write: they see a pause, and no error"
pulse_start "$1"; pulse_start "$2"
on "$l" "pkill -9 -x scoutfs-serverd" || die "no server on $l"
a=$(pulse_nr "$1") b=$(pulse_nr "$2")
wait_for 120 goes_on "$1" "$a" && wait_for 120 goes_on "$2" "$b" || die "the programs do not go on"
pulse_stop "$1"; pulse_stop "$2"
l=$(the_leader) || die "nobody leads"
say "now $l leads: $(node "$l" systemctl show -P StatusText scoutfs-serverd@demo)"

set -- ${NODES/$l/}
step "Cut $1 off from the others, its disks still there.  When its lease (5 s) is over its programs wait: it shows nothing old, writes nothing"
pulse_start "$1"; pulse_start "$2"
say "$1's network: cut"
"$RIG" cut "$1"
stalls() { local was; was=$(pulse_nr "$1"); sleep 3; [ "$(pulse_nr "$1")" = "$was" ]; }
# a slow disk may stall it, too
waits() { stalls "$1" && node "$1" scoutfsctl status --cluster demo | grep -q 'no answer: this node waits for'; }
wait_for 120 waits "$1" || die "the program on $1 goes on without a lease"
on "$1" "scoutfsctl status --cluster demo | head -1"
a=$(pulse_nr "$2")
wait_for 120 goes_on "$2" "$a" || die "the program on $2 does not go on"
say "the program on $2 goes on, the one on $1 waits"
say "$1's network: healed.  (Had others needed what it holds, it had been fenced by now, and its programs had got errors.)"
"$RIG" heal
a=$(pulse_nr "$1")
wait_for 120 goes_on "$1" "$a" || die "the program on $1 does not go on"
pulse_stop "$1"; pulse_stop "$2"

l=$(the_leader) || die "nobody leads"
set -- ${NODES/$l/}
step "Pull the plug of the leader, the whole node $l, while the others write: they elect another, which waits until $l's leases are over"
pulse_start "$1"; pulse_start "$2"
node "$l" sh -c "echo 'durable on $l' >$M/from-$l; sync $M" || die "a file on $l"
rid=$(node "$l" cat /run/scoutfs/demo/rid)
"$RIG" kill "$l"
say "$l: off"
a=$(pulse_nr "$1") b=$(pulse_nr "$2")
wait_for 120 goes_on "$1" "$a" && wait_for 120 goes_on "$2" "$b" || die "the programs do not go on"
pulse_stop "$1"; pulse_stop "$2"

step "What $l held goes to others when it is certain that it writes no more: its lease is over, or an operator says that it is off"
lead() { NODES="$1 $2" leader; }
is_listed() { node "$(lead "$1" "$2")" scoutfsctl fence list demo | grep -q "^$rid"; }
is_gone() { local out; out=$(node "$(lead "$1" "$2")" scoutfsctl status --cluster --json demo); [[ $out = *'"mounts"'* && $out != *"$rid"* ]]; }
either() { is_listed "$@" || is_gone "$@"; }
wait_for 120 either "$1" "$2" || die "the mount of $l is not fenced"
is_listed "$1" "$2" && { on "$(lead "$1" "$2")" "scoutfsctl fence list demo; scoutfsctl fence ack $rid demo" || is_gone "$1" "$2" || die "fence ack"; }
wait_for 120 is_gone "$1" "$2" || die "the mount of $l is not given back"
on "$1" "cat $M/from-$l" || die "what was durable is lost"

step "$l boots again and mounts: what the others wrote meanwhile is there"
"$RIG" start "$l" >"$T/up" 2>&1 || { cat "$T/up" >&2; die "$l does not boot"; }
on "$l" "systemctl start scoutfs@demo && tail -n 1 $M/pulse-$1" || die "$l does not mount"

step "Stop everywhere, and check every structure on the devices"
say "n1, n2, n3# systemctl stop scoutfs@demo"
everywhere systemctl stop scoutfs@demo || die "stop"
on n1 "scoutfsctl check /dev/shared0 /dev/shared1" || die check
