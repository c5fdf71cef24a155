#!/bin/bash
# One order explains what programs on three nodes have seen: ROUNDS rounds of LIN_SECONDS of random operations on a few files and
# names (tests/lin/linwork.c) with faults from SEED meanwhile, after each of which all goes on.  Then the history is judged by
# the rules at the head of tests/lin/lin_check.c, everything is unmounted, and the volume is checked.
#
#   FAULTS="kill stop blip oneway pause slow disk power cut freeze hang ailing"    those that are taken from ("none": no faults)
#   LIN_DAEMONS="blockd quorumd serverd fsd"             whom they hit
#   LIN_PARTS="arena cell share map attr log sync"       the parts of the workload; PROCS (2) processes a node
#
# In every other round the leases are long and the faults short: a daemon is killed or, for 2 s, stopped, or a node is cut off,
# heard by one less, slow to talk to, or paused, or its devices fail; then no program may see an error, but EIO where the devices fail.
# In the others the leases are short and the faults long: power cut and boot; for 12 s a partition, a pause of the machine, a daemon that
# hangs (blockd: a device that stalls), devices that fail.  A mount may be given up then, its programs are told so, and it is mounted again.
. "$(dirname "$0")/../lib/cluster.sh"
SEED=${SEED:-$([ -n "${SOAK:-}" ] && date +%s || echo 1)}
ROUNDS=${ROUNDS:-$([ -n "${SOAK:-}" ] && echo 40 || echo 3)}
LIN_SECONDS=${LIN_SECONDS:-$([ -n "${SOAK:-}" ] && echo 60 || echo 10)}
FAULTS=${FAULTS:-kill stop blip oneway pause slow disk power cut freeze hang ailing}
export RIG_FLAKY=$BUILD/tests/rig/flakydisk
PROCS=${PROCS:-2} LIN_PARTS=${LIN_PARTS:-arena cell share map attr log sync}
GRACE_NS=3000000000
RANDOM=$((SEED % 32768))
echo "# SEED=$SEED ROUNDS=$ROUNDS LIN_SECONDS=$LIN_SECONDS FAULTS='$FAULTS' PROCS=$PROCS"

# as checked, for what starts and waits for processes of this shell
checked_here() { local t=$1; shift; if "$@" >"$TMP/said" 2>&1; then pass "$t"; else fail "$t" "$(cat "$TMP/said")
$(journals)"; fi; }
# the low bits of $RANDOM alone are not very random; not in a subshell, for that has numbers of its own
draw() { drawn=$((((RANDOM << 15 | RANDOM) >> 5) % $1)); }
now() { "$BUILD/tests/lin/linwork" now; }
nth_node() { local list; read -ra list <<<"$NODES"; echo "${list[$1 % ${#list[@]}]}"; }
declare -A agent inc says
# The agent of a node's mount; its output is said when it ends badly.
agent_start() {
	says[$1]=$TMP/agent.$1
	node "$1" env "LIN_PARTS=$parts" /shared/bin/linwork run "$DIR" "$LOGS" "${1#n}" "${inc[$1]}" "$PROCS" "$SEED" \
		>"${says[$1]}" 2>&1 &
	agent[$1]=$!
}
# Each of its processes works, or it has ended.
agent_begun() { local i; agent_gone "$1" && return; for ((i = 0; i < PROCS; i++)); do [ -s "$HOST_LOGS/lin.${1#n}.${inc[$1]}.$i" ] || return 1; done; }
agent_gone() { ! kill -0 "${agent[$1]}" 2>/dev/null; }
crash() { echo "crash ${1#n} ${inc[$1]} $2 $3 $4" >>"$HOST_LOGS/events"; }
# It has stored what its programs did before; or it was given up: they get errors and end.
synced_or_gone() { agent_gone "$1" || node "$1" timeout 20 /shared/bin/linwork sync "$DIR" "$LOGS" "${1#n}" "${inc[$1]}"; }
# settle SINCE ZOMBIE_UNTIL: after a fault; no two mounts may be in doubt at once.
settle() {
	local n rc lost=
	for n in $NODES; do
		wait_for 100 synced_or_gone "$n" || { fail "round $round: after '$say' $n goes on, or is told that it was given up" "$(journals)"; return 1; }
		agent_gone "$n" || continue
		wait "${agent[$n]}"; rc=$?
		is "round $round: $n is told that its mount is gone after '$say': $(paste -sd' ' "${says[$n]}")" "$rc" 3
		[ "$may_lose" = yes ] || fail "round $round: no mount is lost by '$say'" "$(journals)"
		crash "$n" "$1" "$(now)" "$2"
		cluster_stop "$n" >/dev/null 2>&1 || fail "round $round: the services of $n end" "$(journals)"
		lost+=" $n"
	done
	for n in $lost; do mount_again "$n"; done
	[ -z "$lost" ] || say+=", given up:$lost"
}
new_pid() { local p; p=$(node_pid "$1" "$2") && [ "$p" != 0 ] && [ "$p" != "$3" ]; }
# mount_again NODE: with a new number for its logs
mount_again() {
	inc[$1]=$((${inc[$1]} + 1))
	checked "round $round: $1 mounts again" cluster_start "$1"
	agent_start "$1"
	wait_for 90 agent_begun "$1" || fail "round $round: programs on $1 begin again" "$(journals)"
}

fault_kill() {
	local old d=${daemons[$(($2 % ${#daemons[@]}))]}
	say="kill -9 of $d on $1"
	old=$(node_pid "$1" "$d")
	node "$1" kill -9 "$old"
	wait_for 90 new_pid "$1" "$d" "$old" || fail "round $round: $d on $1 is started again" "$(journals)"
}
stop_for() {
	local d=${daemons[$(($3 % ${#daemons[@]}))]} pid
	say="$d on $2 stopped for $1 s"
	pid=$(node_pid "$2" "$d")
	node "$2" kill -STOP "$pid"
	sleep "$1"
	node "$2" kill -CONT "$pid" 2>/dev/null	# the supervisor may have replaced it
}
fault_stop() { stop_for 2 "$@"; }
fault_hang() { stop_for 12 "$@"; }
fault_blip() { say="$1 cut off for 2 s"; "$RIG" cut "$1"; sleep 2; "$RIG" heal; }
fault_oneway() {
	local peer
	peer=$(nth_node $((${1#n} + $2 % 2)))
	say="nothing from $1 to $peer for 2 s"
	ip netns exec "$RIG_NAME-sw" nft add element bridge rig cut "{ $1 . $peer }"
	sleep 2
	"$RIG" heal
}
fault_pause() { say="$1 paused for 2 s"; "$RIG" freeze "$1"; sleep 2; "$RIG" thaw "$1"; }
fault_slow() { say="$1 slow to talk to for 3 s"; "$RIG" slow "$1" || fail "round $round: the network of $1 gets slow"; sleep 3; "$RIG" heal; }
fault_power() {
	local from
	say="power cut of $1"
	from=$(now)
	"$RIG" kill "$1"
	crash "$1" "$from" "$(now)" 0
	wait "${agent[$1]}" 2>/dev/null
	"$RIG" start "$1" || fail "round $round: $1 boots"
	mount_again "$1"
}
fault_cut() { say="$1 cut off for 12 s"; "$RIG" cut "$1"; sleep 12; "$RIG" heal; }
fault_freeze() { say="$1 paused for 12 s"; "$RIG" freeze "$1"; sleep 12; zombie=$(($(now) + GRACE_NS)); "$RIG" thaw "$1"; }

# fail_for SECONDS NODE DRAWN: metadata device, data device or both; reads, writes, flushes, or all of them
fail_for() {
	local disks=("0" "1" "0 1") names=(metadata data both) asks=("read" "write" "flush" "write flush" "read write flush") d nr
	local ask=${asks[$(($3 / 3 % ${#asks[@]}))]} had
	had=$(refused "$2")
	ailing=$2
	: >"$HOST_LOGS/failing.${2#n}"
	# shellcheck disable=SC2086
	for d in ${disks[$(($3 % 3))]}; do "$RIG" fail "$2" "$d" $ask || fail "round $round: a device of $2 fails"; done
	sleep "$1"
	"$RIG" heal
	nr=$(($(refused "$2") - had)) total_refused=$((total_refused + nr))
	say="$2: ${names[$(($3 % 3))]}: $ask failed for $1 s, $nr times"
}
refused() { "$RIG" failed "$1" | awk '{nr += $3} END {print nr + 0}'; }
fault_disk() { fail_for 3 "$@"; }
fault_ailing() { fail_for 12 "$@"; }

round_setup() {
	local n
	DIR=$MNT/lin$round LOGS=/shared/lin/$round HOST_LOGS=$RIG_DIR/shared/lin/$round
	mkdir -p "$HOST_LOGS"
	for n in $NODES; do
		inc[$n]=0
		node "$n" timeout 90 /shared/bin/linwork setup "$DIR" "${n#n}" "$(wc -w <<<"$NODES")" || return 1
	done
	for n in $NODES; do agent_start "$n"; done
	for n in $NODES; do wait_for 90 agent_begun "$n" || return 1; done
}
# All agents end by themselves; one that does not is stuck in a call.
round_stop() {
	local n rc bad=0
	: >"$HOST_LOGS/stop"
	for n in $NODES; do
		wait_for 120 agent_gone "$n" || { echo "$n: a call does not come back"; tail -qn 1 "$HOST_LOGS/lin.${n#n}".*; bad=1; kill "${agent[$n]}"; continue; }
		wait "${agent[$n]}"; rc=$?
		[ $rc = 0 ] || { echo "$n: status $rc"; cat "${says[$n]}"; bad=1; }
	done
	return $bad
}
round_look() { local n; for n in $NODES; do node "$n" timeout 120 /shared/bin/linwork look "$DIR" "$LOGS" "${n#n}" "${inc[$n]}" || return 1; done; }
value() { awk -v k="$1" '{for (i = 1; i < NF; i += 2) if ($i == k) print $(i + 1)}' <<<"$verdict"; }

checked "three nodes boot" cluster_up
cp "$BUILD/tests/lin/linwork" "$RIG_DIR/shared/bin/"
checked "mkfs with three quorum slots" cluster_mkfs
if ! "$RIG" slow n1 2>/dev/null || ! "$RIG" heal; then
	echo "# no network is made slow: this kernel has no tbf (sch_tbf)"
	FAULTS=" $FAULTS " FAULTS=${FAULTS/ slow / }
fi
total_ops=0 total_faults=0 total_refused=0 worst=0
declare -A faults_nr
for round in $(seq "$ROUNDS"); do
	if [ $((round % 2)) = 1 ]; then
		# the leader's own mount has no longer lease than the leader, heartbeat_timeout_ms less the longest write
		kinds="kill stop blip oneway pause slow disk" may_lose=no
		conf="lease_ms=20000 longest_io_ms=2000 heartbeat_timeout_ms=12000"
	else
		kinds="power cut freeze hang ailing" may_lose=yes
		conf="lease_ms=4000 longest_io_ms=1000 heartbeat_timeout_ms=4000 tcp_keepalive_timeout_ms=6000 client_timeout_ms=6000"
	fi
	# An fsd that is killed while the kernel waits for a page that a parked write has locked cannot die: names only, then.
	parts=$LIN_PARTS daemons=(blockd quorumd serverd)
	if [ $((round % 4)) = 3 ]; then parts="arena attr sync" daemons+=(fsd); fi
	[ -z "${LIN_DAEMONS:-}" ] || read -ra daemons <<<"$LIN_DAEMONS"
	taken=()
	for f in $kinds; do case " $FAULTS " in *" $f "*) taken+=("$f") ;; esac; done
	# shellcheck disable=SC2086
	checked "round $round: configured" cluster_conf $conf
	checked "round $round: mounted" cluster_start
	before=$tap_failed
	checked_here "round $round: set up" round_setup
	end=$((SECONDS + LIN_SECONDS))
	while [ $SECONDS -lt $end ] && [ $tap_failed = "$before" ]; do
		sleep 1
		[ ${#taken[@]} != 0 ] || continue
		say='' zombie=0 ailing=''
		draw ${#taken[@]}; f=${taken[drawn]}
		draw 3; n=$(nth_node $drawn)
		draw 1000
		began=$SECONDS since=$(now)
		"fault_$f" "$n" $drawn
		settle "$since" "$zombie"
		# until it has stored something again: what was refused before the devices healed may be said after that
		[ -z "$ailing" ] || { echo "failing ${ailing#n} $since $(now)" >>"$HOST_LOGS/events"; rm -f "$HOST_LOGS/failing.${ailing#n}"; }
		total_faults=$((total_faults + 1)) faults_nr[$f]=$((${faults_nr[$f]:-0} + 1))
		echo "# round $round: $say ($((SECONDS - began)) s)"
	done
	checked_here "round $round: every call came back" round_stop
	checked "round $round: every node can look at all of it" round_look
	"$BUILD/tests/lin/lincheck" "$HOST_LOGS" >"$TMP/verdict"
	is "round $round: one order explains it" "$?" 0
	verdict=$(tail -n 1 "$TMP/verdict")
	echo "# round $round: $verdict"
	head -n -1 "$TMP/verdict" | head -n 150 | sed 's/^/# /'
	is "round $round: no mount that was not lost has answered with an error" "$(value errors)" 0
	[ -n "${LIN_KEEP:-}" ] && [ $tap_failed != "$before" ] && mkdir -p "$LIN_KEEP" && cp -r "$HOST_LOGS" "$TMP/verdict" "$LIN_KEEP/" && journals 2000 >"$LIN_KEEP/journals"
	total_ops=$((total_ops + $(value ops)))
	[ "$(value worst_ms)" -gt "$worst" ] && worst=$(value worst_ms)
	[ $tap_failed = "$before" ] || break
	rm -rf "$HOST_LOGS"
	checked "round $round: all stop at the same time" cluster_stop
	cluster_check "round $round: check: clean"
	[ $tap_failed = "$before" ] || break
done
for f in "${!faults_nr[@]}"; do echo "# $f: ${faults_nr[$f]} times"; done
echo "# $total_refused requests of devices were refused"
echo "# SEED=$SEED: $round rounds, $total_ops operations, $total_faults faults, the longest pause of a program $worst ms"
tap_done
