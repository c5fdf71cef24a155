#!/bin/bash
# Cells of the failure matrix (runtime.md 15) that no other test has: the table in README.md says where each is.  A leader that
# is paused for longer than its right to lead and goes on writes nothing; without a majority programs wait and none fails,
# and all goes on when it is back; a slot that is used twice is refused loudly.
. "$(dirname "$0")/../lib/cluster.sh"
leads() { property "$1" serverd StatusText | grep -q "^leader of"; }
leads_term() { property "$1" serverd StatusText | grep -qE "^leader of term $2([^0-9]|$)"; }
nobody_leads() { local n; for n in $NODES; do ! leads "$n" || return 1; done; }
has_failed() { [ "$(property "$1" quorumd ActiveState)" = failed ]; }
waits() { timeout 60 "$RIG" exec "$1" scoutfsctl status mnt | grep -qE 'waits for +(a lease from the leader|the leader|a leader)'; }

checked "three nodes boot" cluster_up
checked "mkfs" cluster_mkfs
checked "configured" cluster_conf lease_ms=5000 longest_io_ms=2000 heartbeat_timeout_ms=6000
checked "all start" cluster_start
ok "all are healthy" wait_for 90 all_healthy

# --- VM pause of the leader
somebody_leads
ok "the leader holds a file, and has changed it without an fsync" node "$L" sh -c "echo old >$MNT/paused && sync $MNT/paused && echo unsynced >$MNT/paused2"
term=$(property "$L" serverd StatusText | sed -n 's/^leader of term \([0-9]*\).*/\1/p')
"$RIG" freeze "$L"
checked "its host is paused: another writes what it held" timeout 90 "$RIG" exec "$O" sh -c "echo new >$MNT/paused && sync $MNT/paused"
ok "one leads" wait_for 60 one_leads "$V" "$O"
"$RIG" thaw "$L"
ok "it gives its term up" wait_for 60 said "$L" "term [0-9]+ (is served no more|of this host is over)"
gave_up() { ! leads_term "$L" "$term"; }
checked "and does not lead" wait_for 60 gave_up
ok "its mount learns that it was fenced" wait_for 120 is_down "$L"
is "what the others wrote is there" "$(node "$O" cat "$MNT/paused")" new
checked "it mounts again" cluster_start "$L"
is "and sees it" "$(node "$L" cat "$MNT/paused")" new
ok "all are healthy" wait_for 60 all_healthy

# --- no majority
somebody_leads
ok "a file" node "$L" sh -c "echo before >$MNT/majority && sync $MNT/majority"
"$RIG" cut "$L"
"$RIG" cut "$V"
ok "no majority: the last leader says whom it waits for" wait_for 60 waits "$L"
node "$L" sh -c "echo after >$MNT/majority && sync $MNT/majority" & writer=$!
ok "the other one waits as well" wait_for 60 waits "$O"
ok "nobody leads" wait_for 60 nobody_leads
ok "a program that writes waits" kill -0 "$writer"
"$RIG" heal
ok "with the majority somebody leads again" wait_for 90 leader
wait "$writer"; is "the program that waited had no error" $? 0
ok "all are healthy" wait_for 90 all_healthy
is "and what it wrote is seen" "$(node "$O" cat "$MNT/majority")" after

# --- one slot, two mounts
checked "a member leaves" cluster_stop n3
node n3 sed -i 's/^quorum_slot = .*/quorum_slot = 0/' /etc/scoutfs/mnt.conf
# it is given up after fewer starts than the units say (80-units.sh has that), for each takes a second on a busy machine
node n3 sh -c 'mkdir -p /etc/systemd/system/scoutfs-quorumd@.service.d; printf "[Unit]\nStartLimitBurst=10\n" \
	>/etc/systemd/system/scoutfs-quorumd@.service.d/test.conf; systemctl daemon-reload'
nok "a slot that is used twice does not start" node n3 timeout 30 systemctl start scoutfs@mnt
ok "its quorumd says why and gives up" wait_for 300 has_failed n3
ok "it says that the slot's address is not this node's" wait_for 60 said n3 "$(addr n1):12345, the address of this node's quorum slot"
ok "the rightful member does not notice" wait_for 60 healthy n1
node n3 systemctl stop scoutfs@mnt
node n3 sed -i 's/^quorum_slot = .*/quorum_slot = 2/' /etc/scoutfs/mnt.conf
node n3 systemctl reset-failed
checked "with its own it starts" cluster_start n3
ok "all are healthy" wait_for 90 all_healthy

checked "all stop" cluster_stop
cluster_check "check: clean"
tap_done
