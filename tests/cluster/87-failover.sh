#!/bin/bash
# The leader is lost, in every way, under a load on three members and on a node that is none: the writes go on
# everywhere, no program on another node sees an error, what was synced is there, and no term has two servers.
# With SOAK=1 also partitions, one way and both, and a paused host, ROUNDS times each.
NODES="n1 n2 n3 n4" SLOTS=3
. "$(dirname "$0")/../lib/cluster.sh"
. "$(dirname "$0")/../lib/node_loads.sh"
ROUNDS=${ROUNDS:-$([ -n "${SOAK:-}" ] && echo 5 || echo 1)}
ALL=$NODES MEMBERS="n1 n2 n3"

# "TERM NODE" of who serves, as the members say that can be asked; of two the later
served() {
	local n
	for n in $MEMBERS; do
		case " $NODES " in *" $n "*) ;; *) continue ;; esac
		timeout 30 "$RIG" exec "$n" systemctl show -P StatusText scoutfs-serverd@mnt 2>/dev/null |
			sed -n "s/^leader of term \([0-9]*\).*/\1 $n/p"
	done | sort -n | tail -n 1
}
look() { read -r term lead <<<"$(served)"; [ -n "${lead:-}" ]; }
later_than() { look && [ "$term" -gt "$1" ]; }
is_healthy() { timeout 60 "$RIG" exec "$1" scoutfsctl status mnt; }
kill9() { local p; p=$(node_pid "$1" "$2"); [ "${p:-0}" -gt 1 ] && node "$1" kill -9 "$p"; }
runs_again() { local p; p=$(node_pid "$1" "$2"); [ "${p:-0}" -gt 1 ] && [ "$p" != "$3" ]; }
without() { local n; for n in $ALL; do [ "$n" = "$1" ] || printf '%s ' "$n"; done; }

# Files that a node has synced, and whether another one reads them.
keep_nr=0
keep() {
	keep_nr=$((keep_nr + 1)) keep_of=$1
	timeout 100 "$RIG" exec "$1" sh -ec "mkdir $MNT/keep-$keep_nr; cd $MNT/keep-$keep_nr
		for i in 1 2 3 4 5; do echo $keep_nr-\$i >f\$i; done; sync f5"
}
kept() {
	local n
	for n; do
		timeout 100 "$RIG" exec "$n" sh -ec "cd $MNT/keep-$keep_nr
			for i in 1 2 3 4 5; do [ \"\$(cat f\$i)\" = $keep_nr-\$i ]; done" || { echo "$n does not read what $keep_of had synced"; return 1; }
	done
}
# go_on WHAT WORST_S NODE...: the loads there go on, later than the term $was
go_on() {
	local what=$1 worst=$2
	shift 2
	if loads_go_on 120 "$@"; then pass "$what: writes go on everywhere (longest pause: $stalls)"
	else fail "$what: writes go on everywhere, not on $n" "$(journals)"; return 1; fi
	ok "$what: within reason ($stall ms)" test "$stall" -lt $((worst * 1000))
}
another_serves() { if wait_for 120 later_than "$was"; then pass "$1: term $term is served, by $lead"; else fail "$1: a later term than $was is served" "$(journals)"; return 1; fi; }
begin() { wait_for 120 look && keep "$lead" && loads_mark $NODES || { fail "$1: before it there is a leader, and all go on" "$(journals)"; return 1; }; was=$term old=$lead; }

serverd_killed() {
	begin "$1" || return
	kill9 "$old" serverd
	another_serves "$1" && loads_wait_more $NODES && go_on "$1" 40 $NODES
}
quorumd_killed() {
	local pid
	begin "$1" || return
	pid=$(node_pid "$old" quorumd)
	kill9 "$old" quorumd
	ok "$1: it is started again" wait_for 60 runs_again "$old" quorumd "$pid"
	wait_for 120 look
	loads_wait_more $NODES && go_on "$1" 40 $NODES
}
resigned() {
	begin "$1" || return
	# On a busy machine no other member may have been heard within the last second: then it is refused.
	checked "$1: scoutfsctl resign" wait_for 60 node "$old" timeout 60 scoutfsctl resign mnt
	ok "$1: again, where nothing is led any more, is no error" wait_for 60 node "$old" timeout 60 scoutfsctl resign mnt
	another_serves "$1" && loads_wait_more $NODES && go_on "$1" 40 $NODES
	nok "$1: a node without a slot has nothing to resign from" node n4 timeout 60 scoutfsctl resign mnt
}
stopped() {
	begin "$1" || return
	rest=$(without "$old")
	loads_stop "$old" || fail "$1: the load of $old ended well"
	checked "$1: systemctl stop on the leader" cluster_stop "$old"
	NODES=$rest
	another_serves "$1" && loads_wait_more $rest && go_on "$1" 40 $rest
	loads_mark $rest
	NODES=$ALL
	checked "$1: it comes back" cluster_start "$old"
	loads_wait_more $rest && go_on "$1, coming back" 40 $rest
	loads_start "$old"
}
# lost WHAT HOW BACK: the leader's node is gone by HOW and comes back by BACK
lost() {
	local what=$1 n began
	begin "$what" || return
	rest=$(without "$old")
	loads_lose "$old"
	began=$SECONDS
	"$2" "$old"
	NODES=$rest
	another_serves "$what" && loads_wait_more $rest && go_on "$what" 100 $rest
	checked "$what: what $old had synced is there ($((SECONDS - began)) s later)" kept $rest
	NODES=$ALL
	"$3" "$old"
	ok "$what: $old is back" wait_for 120 is_healthy "$old"
	loads_start "$old"
	loads_mark $rest && loads_wait_more $ALL && go_on "$what, coming back" 100 $ALL
}
power_off() { "$RIG" kill "$1"; }
power_on() { "$RIG" start "$1" && checked "$1 boots and mounts" cluster_start "$1"; }
cut_off() { "$RIG" cut "$1"; }
deafen() { local n; for n in $ALL; do [ "$n" = "$1" ] || "$RIG" cut -o "$n" "$1"; done; }
mute() { local n; for n in $ALL; do [ "$n" = "$1" ] || "$RIG" cut -o "$1" "$n"; done; }
# The mount of a node that others had to go on without may have been fenced: then it is mounted anew.
mount_anew() { checked "$1 unmounts" cluster_stop "$1"; node "$1" systemctl reset-failed; checked "$1 mounts" cluster_start "$1"; }
heal() { "$RIG" heal; mount_anew "$1"; }
freeze() { "$RIG" freeze "$1"; }
thaw() { "$RIG" thaw "$1"; mount_anew "$1"; }

checked "four nodes boot" cluster_up
checked "mkfs with three quorum slots" cluster_mkfs
checked "configured" cluster_conf
checked "all start at the same time" cluster_start
# shellcheck disable=SC2086
loads_start $NODES
for round in $(seq "$ROUNDS"); do
	serverd_killed "kill -9 of serverd ($round)"
	quorumd_killed "kill -9 of quorumd ($round)"
	resigned "resign ($round)"
	stopped "stop ($round)"
	lost "power cut ($round)" power_off power_on
	[ -n "${SOAK:-}" ] || continue
	lost "partition ($round)" cut_off heal
	lost "nobody is heard by the leader ($round)" deafen heal
	lost "the leader is heard by nobody ($round)" mute heal
	lost "paused ($round)" freeze thaw
done
# shellcheck disable=SC2086
loads_stop $ALL; rc=$?
is "no load has seen an error" "$rc" 0
checked "what was synced last is there" kept $ALL
terms=$(for n in $MEMBERS; do node "$n" journalctl -q -o cat -u scoutfs-serverd@mnt | sed -n 's/.*serving term \([0-9]*\);.*/\1/p'; done | sort -n | uniq -d | tr '\n' ' ')
is "no term has been served twice" "$terms" ""
checked "all stop at the same time" cluster_stop
cluster_check "check: clean"
tap_done
