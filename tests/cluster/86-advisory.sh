#!/bin/bash
# flock and fcntl locks exclude programs on all nodes, and last: through the death of fsd, of the leader's serverd, a hand-over
# and the loss of the leader; they go with their owner, its process, and with a node that is cut off the power.  sqlite's rollback
# journal relies on them from two nodes.  TURNS: increments of each counting process.
. "$(dirname "$0")/../lib/cluster.sh"
TURNS=${TURNS:-$([ -n "${SOAK:-}" ] && echo 2000 || echo 30)}
INSERTS=${INSERTS:-$([ -n "${SOAK:-}" ] && echo 300 || echo 15)}
# Short enough to wait for, long enough for a slow machine.
LEASE=6000 SILENCE=8000

# Agents: programs that hold locks and are told what to do (tests/posix/advlock.c).  agent NAME NODE; tell NAME COMMAND; hear NAME:
# its answer, at most 90 s later.
declare -A to from agent_node agent_job
trap '' PIPE	# some agents are killed
agent() {
	mkfifo "$TMP/$1.in" "$TMP/$1.out"
	node "$2" /shared/bin/advlock agent $MNT <"$TMP/$1.in" >"$TMP/$1.out" 2>&1 &
	agent_job[$1]=$! agent_node[$1]=$2
	exec {to[$1]}>"$TMP/$1.in" {from[$1]}<"$TMP/$1.out"
}
tell() { echo "$2" >&"${to[$1]}"; }
hear() { local line; if read -r -t 90 -u "${from[$1]}" line; then echo "$line"; else echo "no answer"; fi; }
# do TEXT NAME COMMAND WANT: what the command is answered
does() { local got; tell "$2" "$3"; got=$(hear "$2"); if [ "$got" = "$4" ]; then pass "$1"; else fail "$1" "$2: $3: $got, wanted $4
$(journals)"; fi; }
hears() { local got; got=$(hear "$2"); if [ "$got" = "$3" ]; then pass "$1"; else fail "$1" "$2: $got, wanted $3
$(journals)"; fi; }
# The leader knows of a request that waits: then the others may go on.
waits() { local v; v=$(node "$(leader)" scoutfsctl status -v mnt 2>/dev/null | sed -n 's/^ *advisory_waiting *//p'); [ "${v:-0}" -ge "$1" ]; }
dies() { tell "$1" pid; node "${agent_node[$1]}" kill -9 "$(hear "$1")"; }
# A command that will be answered when another gives something back.
blocks() { tell "$2" "$3"; ok "$1" wait_for 60 waits "${4:-1}"; }
new_pid() { local p; p=$(node_pid "$1" "$2") && [ "$p" != 0 ] && [ "$p" != "$3" ]; }
kill_service() { old=$(node_pid "$1" "$2"); node "$1" kill -9 "$old"; ok "$2 on $1 is started again" wait_for 60 new_pid "$1" "$2" "$old"; }

checked "three nodes boot" cluster_up
checked "mkfs with three quorum slots" cluster_mkfs
checked "configured" cluster_conf lease_ms=$LEASE longest_io_ms=1000 heartbeat_timeout_ms=$LEASE tcp_keepalive_timeout_ms=$SILENCE \
	client_timeout_ms=$SILENCE recovery_timeout_ms=$SILENCE
checked "all start" cluster_start
[ "$tap_failed" = 0 ] || tap_done

echo "# one node"
out=$(node n1 timeout 120 /shared/bin/advlock self $MNT 2>&1)
while read -r line; do case $line in "ok - "*) pass "${line#ok - }" ;; *) fail "${line#not ok - }" ;; esac; done <<<"$out"

echo "# three nodes count"
for how in flock fcntl ofd; do
	node n1 sh -c "echo 0 >$MNT/count.$how"
	checked "$how: three nodes count $TURNS times each" on_nodes n1 n2 n3 -- timeout 300 /shared/bin/advlock count $MNT/count.$how "$TURNS" $how
	is "$how: no increment is lost" "$(node n2 cat $MNT/count.$how)" $((3 * TURNS))
done
lead=$(the_leader)
echo "# $(node "$lead" timeout 60 /shared/bin/advlock bench $MNT/bench 2) on the leader's node"
set -- ${NODES/$lead/}
echo "# $(node "$1" timeout 60 /shared/bin/advlock bench $MNT/bench 2) on another"

echo "# ranges"
agent a n1; agent b n2; agent c n3; agent a2 n1
for i in a b c a2; do does "$i opens" $i "open 0 f" ok; done
does "a write lock" a "wr 0 0 10" ok
does "... excludes another node" b "wr 0 5 1" EAGAIN
does "... for reading too" c "rd 0 9 5" EAGAIN
does "... but not beside it" b "wr 0 10 5" ok
does "F_GETLK on another node: the range, and no process" b "get 0 rd 0 100" "wr 0 10 0"
tell a pid; pid=$(hear a)
does "F_GETLK on its own node names the process" a2 "get 0 rd 0 5" "wr 0 10 $pid"
does "made a read lock in part" a "rd 0 0 5" ok
does "... others may read there" c "rd 0 0 5" ok
does "... not write" b "wr 0 4 1" EAGAIN
does "... nor can it become a write lock again" a "wr 0 0 5" EAGAIN
does "c gives its part back" c "un 0 0 5" ok
does "... now it can" a "wr 0 0 5" ok
does "a gap in the middle" a "un 0 4 2" ok
does "... is free" c "wr 0 4 2" ok
does "... and no more" c "wr 0 3 1" EAGAIN
does "flock does not see fcntl's" c "ex 0" ok
does "... but flock's" b "sh 0" EAGAIN

echo "# waiting"
blocks "who waits for a lock waits" b "wwr 0 3 1"
does "... and gets it when it is given back" a "un 0 3 1" ok
hears "... at once" b ok
does "a signal is set up" a "alarm 300" ok
does "a signal ends a wait with EINTR" a "wwr 0 3 1" EINTR
does "... also one for flock" a "alarm 300" ok
does "... of another node" a "wex 0" EINTR
blocks "b waits for c" b "wwr 0 4 1"
does "c would close a circle: EDEADLK" c "wwr 0 3 1" EDEADLK
does "... which holds what it had" c "un 0 4 2" ok
hears "... and then b goes on" b ok
blocks "a circle of three: a waits for b" a "wwr 0 3 1"
does "c has something" c "wr 0 20 1" ok
blocks "... b waits for c" b "wwr 0 20 1" 2
does "... and c may not wait for a" c "wwr 0 0 1" EDEADLK
does "c gives back" c "un 0 0 100" ok
hears "... b goes on" b ok
does "b gives back" b "un 0 0 100" ok
hears "... a goes on" a ok

echo "# owners end"
does "flock of another node" c "no 0" ok
does "a has the file" a "wr 0 0 0" ok
does "... twice" a "sh 0" ok
blocks "b waits for a" b "wwr 0 0 0"
does "a closes it" a "close 0" ok
hears "... b has it" b ok
does "... and flock" b "ex 0" ok
blocks "c waits for b" c "wex 0"
dies b
hears "b is killed: c has it" c ok
does "... and the rest" c "wwr 0 0 0" ok
agent b2 n2
does "another process of n2" b2 "open 0 f" ok

echo "# fsd dies"
blocks "b2 waits for c" b2 "wwr 0 0 10"
kill_service n3 fsd
does "fsd of the holder was killed: c holds on" a2 "rd 0 0 1" EAGAIN
does "... its flock too" a2 "sh 0" EAGAIN
does "... and can change it" c "un 0 5 5" ok
does "... as others see" a2 "wr 0 6 1" ok
does "... and give it back" a2 "un 0 6 1" ok
kill_service n2 fsd
does "fsd of the waiter was killed: c gives back" c "un 0 0 5" ok
hears "... b2 has it" b2 ok
does "... and holds it" a2 "rd 0 0 1" EAGAIN

echo "# leaders die"
lead=$(the_leader)
blocks "a2 waits for b2" a2 "wwr 0 0 1"
kill_service "$lead" serverd
does "the leader's serverd was killed: what is held is held" c "rd 0 9 1" EAGAIN
does "... and free what is free" c "wr 0 50 1" ok
does "... b2 gives back" b2 "un 0 0 1" ok
hears "... and a2, who waited, has it" a2 ok
lead=$(the_leader)
# refused as long as no other member has been heard within the last second: on a busy machine that happens
ok "hand-over" wait_for 60 node "$lead" timeout 60 scoutfsctl resign mnt
another_leads() { local l; l=$(leader) && [ "$l" != "$lead" ]; }
ok "another node leads" wait_for 60 another_leads
does "... what is held is held" c "rd 0 0 1" EAGAIN
does "... by all" a2 "wr 0 8 1" EAGAIN

echo "# sqlite"
cat >"$RIG_DIR/shared/bin/insert.py" <<'END'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=120, isolation_level=None)
db.execute("pragma journal_mode=delete")
if sys.argv[2] == "make":
    db.execute("create table t (node text, n integer)")
elif sys.argv[2] == "check":
    print(db.execute("pragma integrity_check").fetchone()[0], db.execute("select count(*) from t").fetchone()[0])
else:
    for i in range(int(sys.argv[3])):
        db.execute("begin immediate")
        db.execute("insert into t values (?, (select count(*) from t))", (sys.argv[2],))
        db.execute("commit")
END
insert() { node "$1" timeout 300 python3 /shared/bin/insert.py $MNT/db "$1" "$INSERTS"; }
both_insert() { local p rc=0; insert n1 & p=$!; insert n2 || rc=1; wait $p || rc=1; return $rc; }
checked "sqlite: a table" node n3 python3 /shared/bin/insert.py $MNT/db make
checked "sqlite: two nodes insert $INSERTS rows each" both_insert
is "sqlite: integrity_check, and every row is there" "$(node n3 python3 /shared/bin/insert.py $MNT/db check)" "ok $((2 * INSERTS))"

echo "# the leader's node loses power"
lead=$(the_leader)
set -- ${NODES/$lead/}
agent x "$lead"; agent y "$1"; agent z "$2"
for i in x y z; do does "$i opens" $i "open 0 g" ok; done
does "the leader's node holds one lock" x "wr 0 0 1" ok
does "... another node another" y "wr 0 1 1" ok
blocks "... the third waits for the first" z "wwr 0 0 1"
began=$(date +%s%N)
ok "power cut of the leader" "$RIG" kill "$lead"
hears "the lock of the dead node is free after its lease" z ok
echo "# $((($(date +%s%N) - began) / 1000000)) ms after the power cut (lease $LEASE ms)"
does "... what the others hold is held" z "wr 0 1 1" EAGAIN
does "... and can be given back" y "un 0 1 1" ok
does "... to the other" z "wr 0 1 1" ok
checked "the node boots again" "$RIG" up -n 3
checked "... and mounts" cluster_start "$lead"
ok "... and its programs lock" node "$lead" timeout 60 flock -n $MNT/h true

for i in "${!agent_job[@]}"; do tell "$i" quit 2>/dev/null; done
for i in "${!agent_job[@]}"; do ok "$i ends" wait_for 60 no_process "${agent_job[$i]}"; done
checked "all stop" cluster_stop
cluster_check "check: clean"
tap_done
