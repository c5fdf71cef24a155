#!/bin/bash
# make bench-cluster: what several nodes cost one another, in one run: times of one node alone beside those of the same
# node with the others busy, and pauses that programs feel when a part of the cluster fails.  Medians of $RUNS.
# Nodes are systemd nodes of tests/rig on this machine: they share its processors and its disk.
. "$(dirname "$0")/../lib/cluster.sh"
RUNS=${RUNS:-5} SECS=${SECS:-5} RATE=${RATE:-50}
B=/shared/bin

stop_on() { "$@" >"$TMP/out" 2>&1 || { cat "$TMP/out" >&2; echo "bench-cluster: failed: $*" >&2; exit 1; }; }
median() { sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {if (b > 0) printf "%.2f", a / b; else printf "-"}'; }
row() { printf '| %-58s | %14s | %s |\n' "$@"; }
field() { awk -v f="$1" '{for (i = 1; i < NF; i++) if ($i == f) print $(i + 1)}' "$2"; }

# pulse_start NODE NAME ARGS...: in a directory of the node's own, until pulse_end NAME; its line is in $TMP/NAME
declare -A pulse_pid pulse_fd
pulse_start() {
	local n=$1 name=$2 fd
	shift 2
	node "$n" mkdir -p "$MNT/own-$n"
	rm -f "$TMP/$name.in"; mkfifo "$TMP/$name.in"
	node "$n" "$B/pulse" "$@" "$MNT/own-$n" 600 <"$TMP/$name.in" >"$TMP/$name" 2>"$TMP/$name.err" &
	pulse_pid[$name]=$!
	exec {fd}>"$TMP/$name.in"
	pulse_fd[$name]=$fd
}
pulse_end() {
	local name fd
	for name; do fd=${pulse_fd[$name]}; echo >&"$fd"; exec {fd}>&-; done
	for name; do wait "${pulse_pid[$name]}" || { cat "$TMP/$name.err" >&2; echo "bench-cluster: an operation failed on $name" >&2; exit 1; }; done
}
pulse_for() { pulse_start "$@"; sleep "$SECS"; pulse_end "$2"; }
worst() { local n; for n; do field longest_ms "$TMP/$n"; done | sort -g | tail -n 1; }
serving() { leader >"$TMP/leader"; }
healthy() { local n; for n; do node "$n" timeout 20 scoutfsctl status mnt || return 1; done; }
settle() { stop_on wait_for 120 healthy "$@"; stop_on wait_for 120 serving; }

stop_on cluster_up
cp "$BUILD/tests/bench/"{pulse,pingpong} "$RIG_DIR/shared/bin/"
stop_on cluster_mkfs
stop_on cluster_conf
stop_on cluster_start
# shellcheck disable=SC2086
settle $NODES

echo "| what | here | aim |"
echo "| --- | --- | --- |"

for i in $(seq "$RUNS"); do
	node n2 "$B/pingpong" second "$MNT/b$i" "$MNT/a$i" 200 2>"$TMP/pp.err" &
	node n1 "$B/pingpong" first "$MNT/a$i" "$MNT/b$i" 200 >"$TMP/pp" && wait $! || { cat "$TMP/pp.err" >&2; exit 1; }
	field median_us "$TMP/pp" >>"$TMP/pp.all"
	field p99_us "$TMP/pp" >>"$TMP/pp99.all"
done
row "file ping-pong between two nodes, a round" "$(awk '{printf "%.1f ms", $1 / 1000}' <<<"$(median <"$TMP/pp.all")")" "5 ms"
row "... the slowest of a hundred rounds" "$(awk '{printf "%.1f ms", $1 / 1000}' <<<"$(median <"$TMP/pp99.all")")" ""

# A directory that one node uses, while the others are busy elsewhere: they do $RATE steps a second each, so that it is
# the cluster that is measured and not the two processors that all nodes share.
for i in $(seq "$RUNS"); do
	pulse_for n1 alone
	pulse_start n2 busy2 -r "$RATE"; pulse_start n3 busy3 -r "$RATE"
	pulse_for n1 beside
	pulse_end busy2 busy3
	ratio "$(field median_us "$TMP/alone")" "$(field median_us "$TMP/beside")" >>"$TMP/own.all"; echo >>"$TMP/own.all"
done
row "operations in a directory of one node, others busy, to alone" "$(median <"$TMP/own.all")" "0.95"

# Concurrent writers: durable steps of one node, then of three at the same time in three directories.
for i in $(seq "$RUNS"); do
	pulse_for n1 one -s
	for n in $NODES; do pulse_start "$n" "all-$n" -s; done
	sleep "$SECS"
	pulse_end all-n1 all-n2 all-n3
	ratio "$(($(field steps "$TMP/all-n1") + $(field steps "$TMP/all-n2") + $(field steps "$TMP/all-n3")))" "$(field steps "$TMP/one")" >>"$TMP/three.all"
	echo >>"$TMP/three.all"
done
row "commits of three nodes at the same time, to those of one" "$(median <"$TMP/three.all")" "3"
for i in $(seq "$RUNS"); do
	pulse_for n1 small -s -r "$RATE"
	node n2 dd if=/dev/zero of="$MNT/big" bs=1M count=256 conv=fsync status=none &
	pulse_for n1 besides -s -r "$RATE"
	wait $! || exit 1
	node n2 rm "$MNT/big"
	ratio "$(field median_us "$TMP/besides")" "$(field median_us "$TMP/small")" >>"$TMP/big.all"; echo >>"$TMP/big.all"
done
row "create + fsync while another node commits 256 MiB, to alone" "$(median <"$TMP/big.all")" ""

# Pauses: what a program on each of the other nodes feels.
others() { local n; for n in $NODES; do [ "$n" = "$1" ] || echo "$n"; done; }
# pause NAME NODES -- CMD...: the longest stall of a program on each of NODES while CMD, and a second more
pause() {
	local name=$1 n list=()
	shift
	while [ "$1" != -- ]; do list+=("$1"); shift; done
	shift
	for n in "${list[@]}"; do pulse_start "$n" "pause-$n" -s -r "$RATE"; done
	sleep 1
	stop_on "$@"
	sleep "${AFTER:-1}"
	pulse_end "${list[@]/#/pause-}"
	worst "${list[@]/#/pause-}" >>"$TMP/$name.all"
}
kill_serverd() { local l; l=$(leader) && node "$l" kill -9 "$(node_pid "$l" serverd)"; }
for i in $(seq "$RUNS"); do
	# shellcheck disable=SC2086
	AFTER=4 pause serverd $NODES -- kill_serverd
	# shellcheck disable=SC2086
	settle $NODES
done
row "kill -9 of serverd on the leader: longest pause" "$(median <"$TMP/serverd.all") ms" "2000 ms"
if node n1 scoutfsctl --help 2>&1 | grep -qw resign; then
	for i in $(seq "$RUNS"); do
		l=$(leader)
		# shellcheck disable=SC2086
		AFTER=2 pause resign $NODES -- node "$l" scoutfsctl resign mnt
		# shellcheck disable=SC2086
		settle $NODES
	done
	row "planned hand-over: longest pause" "$(median <"$TMP/resign.all") ms" "300 ms"
fi
for i in $(seq "$RUNS"); do
	n=$(followers | tail -n 1)
	# shellcheck disable=SC2046
	pause leave $(others "$n") -- cluster_stop "$n"
	# shellcheck disable=SC2046
	pause join $(others "$n") -- cluster_start "$n"
	# shellcheck disable=SC2086
	settle $NODES
done
row "a node leaves: longest pause of the others" "$(median <"$TMP/leave.all") ms" "100 ms"
row "a node joins: longest pause of the others" "$(median <"$TMP/join.all") ms" "100 ms"
for i in $(seq "${POWER_RUNS:-$RUNS}"); do
	l=$(leader)
	# shellcheck disable=SC2046
	AFTER=15 pause power $(others "$l") -- "$RIG" kill "$l"
	stop_on "$RIG" start "$l"
	stop_on wait_for 120 cluster_start "$l"
	# shellcheck disable=SC2086
	settle $NODES
done
row "power cut of the leader's node: longest pause of the others" "$(median <"$TMP/power.all") ms" "lease (10 s) + 3 s"

stop_on cluster_stop
stop_on node n1 scoutfsctl check /dev/shared0 /dev/shared1
echo
echo "check: clean"
