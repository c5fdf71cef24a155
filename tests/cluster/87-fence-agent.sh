#!/bin/bash
# The external fence agent (interface.md 5): its program is run on the leader for a mount that must be dead, with who that
# is in its environment; one that fails is run again, and status says so; when it says yes what the mount had goes to
# others at once, long before its lease is over.  And requests are files, for agents of others.
. "$(dirname "$0")/../lib/cluster.sh"
F=$RIG_DIR/shared	# /shared in the nodes
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }
lists() { node "$L" scoutfsctl fence list mnt | grep -qE -- "$1"; }
reclaimed() { node "$L" journalctl --no-pager -q -o cat -u 'scoutfs*@mnt.service' | grep -q "mount $1 has been fenced; its resources are free again"; }
more_requests() { [ "$(grep -c . "$F/requests")" -gt "$1" ]; }
files() { node "$L" sh -c 'cd /run/scoutfs/mnt/fence/'"$1"' && for f in rid ipv4_addr reason fenced error; do echo "$(cat $f)"; done' | paste -sd' '; }

checked "three nodes boot" cluster_up
# The first time it fails; then it asks the rig (the power switch) and waits until that is done.
cat >"$F/bin/fence-node" <<'X'
#!/bin/sh
echo "$SCOUTFS_FENCED_REQ_RID $SCOUTFS_FENCED_REQ_IP $SCOUTFS_FENCED_REQ_REASON $SCOUTFS_FENCED_REQ_NAME $SCOUTFS_FENCED_REQ_FSID" >>/shared/requests
[ -e /shared/agent-works ] || exit 3
until [ -e "/shared/off-$SCOUTFS_FENCED_REQ_IP" ]; do sleep 0.1; done
X
chmod +x "$F/bin/fence-node"
checked "mkfs" cluster_mkfs
# Without an agent a lost mount would be waited for five minutes.
checked "configured" cluster_conf fence_command=/shared/bin/fence-node lease_ms=30000 longest_io_ms=300000 \
	client_timeout_ms=3000 tcp_keepalive_timeout_ms=5000
checked "all start" cluster_start
ok "all are healthy" wait_for 60 all_healthy
if wait_for 60 roles; then pass "somebody leads, others do not"; else fail "somebody leads"; fi
rid=$(node "$V" cat /run/scoutfs/mnt/rid)
ok "a follower holds a directory" node "$V" sh -c "mkdir $MNT/dir && echo kept >$MNT/dir/kept && sync $MNT/dir/kept"

"$RIG" cut "$V"
t=$(now)
node "$O" sh -c "echo new >$MNT/dir/new && sync $MNT/dir/new" & writer=$!
ok "it is to be fenced" wait_for 60 lists "^$rid mnt serverd "
ok "the agent's program is run" wait_for 60 grep -q "^$rid $(addr "$V") client_reconnect mnt [0-9a-f]\{16\}$" "$F/requests"
ok "that it failed is said" wait_for 60 lists "^$rid .*agent: /shared/bin/fence-node failed [0-9]+ times, last: exit status 3"
is "the request is a directory, as agents know it" "$(files "$rid")" "$rid $(addr "$V") client_reconnect 0 0"
ok "nobody has what the mount held" kill -0 "$writer"
nok "nor was it given back" reclaimed "$rid"
was=$(grep -c . "$F/requests")
touch "$F/agent-works"
ok "it is run again" wait_for 60 more_requests "$was"
"$RIG" kill "$V"; touch "$F/off-$(addr "$V")"
ok "the mount's resources are free when its power is off" wait_for 120 reclaimed "$rid"
wait "$writer"; is "another writes what it held" $? 0
took=$(since "$t"); echo "# written $took s after the cut"
ok "before the lease was over" test "${took%.*}" -lt 300
ok "the request is gone" wait_for 60 sh -c "! '$RIG' exec $L test -e /run/scoutfs/mnt/fence/$rid"
is "what was fsynced is there" "$(node "$O" cat "$MNT/dir/kept")" kept

# --- an agent of somebody else's answers in the files
rm -f "$F/agent-works"
"$RIG" heal
ok "the node boots" "$RIG" start "$V"
checked "and mounts" cluster_start "$V"
ok "all are healthy" wait_for 60 all_healthy
rid=$(node "$O" cat /run/scoutfs/mnt/rid)
"$RIG" kill "$O"
ok "the other follower is to be fenced too" wait_for 60 node "$L" test -e "/run/scoutfs/mnt/fence/$rid/fenced"
ok "somebody writes that it is done" node "$L" sh -c "echo 1 >/run/scoutfs/mnt/fence/$rid/fenced"
ok "its resources are free" wait_for 120 reclaimed "$rid"

ok "the node boots" "$RIG" start "$O"
checked "and mounts" cluster_start "$O"
ok "all are healthy" wait_for 60 all_healthy
checked "all stop" cluster_stop
cluster_check "check: clean"
tap_done
