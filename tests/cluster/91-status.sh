#!/bin/bash
# `scoutfsctl status --cluster` says the same from every node, member or not: leader, members, mounts, who waits for
# whose lock, space.  A node that cannot reach the leader says so within seconds, and so does one that runs nothing.
NODES="n1 n2 n3 n4" SLOTS=3
. "$(dirname "$0")/../lib/cluster.sh"
MOUNTS=$(wc -w <<<"$NODES")

# summary RID: of what a node is told (stdin), in one line
summary() { python3 -c 'import json, sys
d = json.load(sys.stdin)
mounts, members = d["mounts"]["list"], d["quorum"]["members"]
print(d["mounts"]["nr"], "mounts,", len(mounts), "listed,", sum(m["is_well"] for m in mounts), "well,",
      sum(0 < m["lease_left_ms"] <= 31000 for m in mounts), "with a lease, this one at",
      *[m["address"] for m in mounts if m["rid"] == sys.argv[1]], "-", len(members), "members,",
      sum(m["heard"] for m in members), "heard, leads: slot", *[m["slot"] for m in members if m["role"] == "leader"],
      "- serves: slot", d["leader"]["slot"], d["leader"]["rid"], "- space:",
      all(0 < d[x]["free_bytes"] <= d[x]["total_bytes"] for x in ("metadata", "data")), "- log trees:", d["log_trees"]["open"] > 0)
' "$1" 2>&1; }
status() { timeout 60 "$RIG" exec "$1" scoutfsctl status --cluster --json mnt; }
rid_of() { node "$1" cat /run/scoutfs/mnt/rid; }
all_are_well() { local n; for n in $NODES; do status "$n" >/dev/null || return 1; done; }
# ... also if this machine was so slow that a node was given up all the same
well_again() { local n; for n in $NODES; do node "$n" systemctl start --no-block scoutfs@mnt; done; all_are_well; }
# waits NODE: the waits that it is told of, "RID HOLDER MODE INODES" one a line
waits() { status "$1" | python3 -c 'import json, sys
for w in json.load(sys.stdin)["locks"]["waits"]: print(w["rid"], w["holder"], w["mode"], w["lock"])'; }
waits_for() { waits "$1" | grep -q "^$2 $3 "; }
cannot_ask() { local out rc; out=$(status "$1"); rc=$?; [ $rc = 1 ] && [[ $out = *'"answers":false'* ]]; }
says() { [[ $(timeout 60 "$RIG" exec "$1" scoutfsctl status --cluster mnt) = *$2* ]]; }

checked "four nodes boot" cluster_up
checked "mkfs with three quorum slots" cluster_mkfs
# nobody is to be given up while the test looks, however slow this machine is
checked "configured: n4 is no member" cluster_conf client_timeout_ms=300000 lease_ms=30000 tcp_keepalive_timeout_ms=8000
checked "all start at the same time" cluster_start
checked "every node says that the cluster is healthy" wait_for 120 all_are_well

# told NODE: it is told of everything as it is; the leader may change meanwhile
told() {
	local l got want
	l=$(leader) || return 1
	want="$MOUNTS mounts, $MOUNTS listed, $MOUNTS well, $MOUNTS with a lease, this one at $(addr "$1") - 3 members, 3 heard, leads: slot $((${l#n} - 1)) - serves: slot $((${l#n} - 1)) $(rid_of "$l") - space: True - log trees: True"
	got=$(status "$1" | summary "$(rid_of "$1")")
	[ "$got" = "$want" ] || { echo "$got, wanted $want" >"$TMP/told"; return 1; }
}
for n in $NODES; do
	if wait_for 60 told "$n"; then pass "$n is told of everything"; else fail "$n is told of everything" "$(cat "$TMP/told")"; fi
done
for n in $NODES; do
	checked "as text from n4: the mount of $n" wait_for 60 says n4 "$(rid_of "$n") $(printf %-15s "$(addr "$n")") is mounted for "
done

# n2 holds what n3 wants, and does not answer
node n2 mkdir "$MNT/d" && node n2 sh -c "echo 1 >$MNT/d/f" || fail "a file on n2"
two=$(rid_of n2) three=$(rid_of n3)
node n2 kill -STOP "$(node_pid n2 fsd)"
timeout 120 "$RIG" exec n3 sh -c "echo 2 >$MNT/d/f" &
reader=$!
checked "who waits for whom is told while n2 is stopped" wait_for 60 waits_for n1 "$three" "$two"
ok "and from a node that is no member" wait_for 60 waits_for n4 "$three" "$two"
node n2 kill -CONT "$(node_pid n2 fsd)"
wait $reader; is "n3 goes on when n2 does" $? 0
is "with what it wrote" "$(node n1 cat "$MNT/d/f")" 2
checked "healthy again" wait_for 120 well_again

# n4 can reach nobody
"$RIG" cut n4
began=$SECONDS
checked "a node that is cut off says that the leader does not answer" wait_for 60 cannot_ask n4
echo "# said after $((SECONDS - began)) s"
checked "in words, with the term and the address" wait_for 60 says n4 "leader of term "
checked "and what the session has found out" wait_for 60 says n4 "which does not answer, for "
"$RIG" heal
checked "and answers again when it is healed" wait_for 120 well_again

checked "n4 leaves" cluster_stop n4
node n4 scoutfsctl status --cluster mnt >/dev/null; is "a node where nothing runs says so: exit status" $? 2
left() { [[ $(status n1) = *"\"mounts\":{\"nr\":$((MOUNTS - 1)),"* ]]; }
checked "and is no mount of the cluster any more" wait_for 60 left
checked "all stop" cluster_stop n1 n2 n3
cluster_check "check: clean"
tap_done
