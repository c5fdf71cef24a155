#!/bin/bash
# Closed by default: three nodes with keys work, also when the leader goes; a fourth whose key is in no list, and one
# without a key, is refused by each of them in turn and told why, while the volume goes on; once its line is in the
# lists and they are read again it mounts; taken out of them it is cut off, back in them it goes on.
NODES="n1 n2 n3 n4" SLOTS=3 KEYS=yes
. "$(dirname "$0")/../lib/cluster.sh"

# echoes NAME nX nY: what nX writes nY reads
echoes() { node "$2" timeout 60 sh -c "echo ${1#*/} >$MNT/$1" && node "$3" timeout 60 grep -qx "${1#*/}" "$MNT/$1"; }
# counter nX SERVICE NAME
counter() {
	node "$1" scoutfsctl status --json mnt | python3 -c "import json, sys
print([x['values'].get('$3', '') for x in json.load(sys.stdin)['services'] if x['service'] == '$2'][0])"
}
counted() { local v; v=$(counter "$1" "$2" "$3"); [ -n "$v" ] && [ "$v" -ge "$4" ]; }
said() { node "$1" journalctl --no-pager -q -o cat -b -u 'scoutfs*@mnt.service' | grep -qE -- "$2"; }
said_by_one() { local n; for n in n1 n2 n3; do said "$n" "$1" && return; done; return 1; }
waits() { node "$1" scoutfsctl status mnt | grep -qE -- "waits for +.*$2"; }
leads() { [ "$(leader)" = "$1" ]; }
other_leads() { local l; l=$(leader) && [ -n "$l" ] && [ "$l" != "$1" ]; }
mounted() { node "$1" mountpoint -q $MNT; }
# lists nX... : these nodes' lines are the list of the members, and it is read again
lists() {
	local n
	cluster_list "$@" >"$TMP/list" || return 1
	for n in n1 n2 n3; do
		node "$n" sh -c 'cat >/etc/scoutfs/nodes.allow' <"$TMP/list" || return 1
		[ -z "${RELOAD:-}" ] || node "$n" systemctl reload scoutfs@mnt || return 1
	done
}
# A mount that has not been let in has nothing to wait for; systemd would kill it after 120 s.
fourth_stops() {
	local began=$SECONDS
	node n4 timeout 240 systemctl stop scoutfs@mnt
	if [ $((SECONDS - began)) -lt 100 ]; then pass "stopped, the fourth ends ($((SECONDS - began)) s)"; else
		fail "stopped, the fourth ends ($((SECONDS - began)) s)" "$(journal n4 100)"; fi
}
members="n1 n2 n3"

checked "four nodes boot, with keys" cluster_up
checked "mkfs" cluster_mkfs
checked "configured" cluster_conf
checked "the fourth is in no list" lists n1 n2 n3
checked "three start at the same time" cluster_start n1 n2 n3
for n in $members; do ok "$n is healthy" wait_for 60 node "$n" scoutfsctl status mnt; done
asks_for_keys() { node "$(leader)" scoutfsctl status mnt | grep -q "3 nodes in /etc/scoutfs/nodes.allow"; }
ok "the leader says that it asks for keys" wait_for 60 asks_for_keys
nok "and nobody is insecure" sh -c '"$1" exec n1 scoutfsctl status mnt | grep insecure' - "$RIG"
checked "what n1 writes n2 reads" echoes one n1 n2

# --- a key that is in no list
timeout 300 "$RIG" exec n4 mount -t scoutfs -o metadev_path=/dev/shared0 /dev/shared1 $MNT >"$TMP/mount.out" 2>&1 & MOUNT=$!
l1=$(the_leader)
ok "$l1 refuses the fourth and counts it" wait_for 60 counted "$l1" serverd refused_key 1
ok "and says whom, and what to do" wait_for 60 said "$l1" "refused: $(addr n4): its node's key .{40} is not in /etc/scoutfs/nodes.allow: .*scoutfsctl keygen -p"
ok "the fourth says why it waits" wait_for 60 said n4 "does not allow this node's key .{40}: add its line"
ok "in its status, too" wait_for 60 waits n4 "does not allow this node's key"
checked "the volume goes on" echoes two n2 n3
l1=$(the_leader)
ok "$l1 leaves" cluster_stop "$l1"
ok "another leads" wait_for 120 other_leads "$l1"
l2=$(the_leader)
ok "$l2 refuses the fourth as well" wait_for 60 counted "$l2" serverd refused_key 1
# refused as long as the other has not been heard within the last second: on a busy machine that happens
checked "$l2 resigns" wait_for 60 node "$l2" scoutfsctl resign mnt
ok "the third leads" wait_for 120 other_leads "$l2"
l3=$(the_leader)
nok "it is another" test "$l3" = "$l1"
ok "$l3 refuses the fourth as well" wait_for 60 counted "$l3" serverd refused_key 1
checked "the volume goes on" echoes three "$l2" "$l3"
checked "$l1 comes back" cluster_start "$l1"
checked "and sees what was written" node "$l1" grep -qx three $MNT/three
ok "mount(8) on the fourth says why it waits" wait_for 120 grep -q "still waiting for the leader .* does not allow this node's key" "$TMP/mount.out"
nok "the fourth is not in" mounted n4
fourth_stops
wait $MOUNT; is "stopped, mount(8) fails" $? 32

# --- no key at all
node n4 mv /etc/scoutfs/node.key /etc/scoutfs/away
node n4 systemctl start --no-block scoutfs@mnt
ok "without a key it does not even ask" wait_for 60 said n4 "is not loopback, and this node has no keys: make one with scoutfsctl keygen"
fourth_stops
node n4 sh -c 'echo "insecure = yes" >>/etc/scoutfs/mnt.conf'
node n4 systemctl start --no-block scoutfs@mnt
ok "and when it does it is told" wait_for 60 said n4 "talks only to nodes with keys, and this one has none"
counted_by_leader() { counted "$(leader)" serverd "$1" 1; }
ok "and counted" wait_for 60 counted_by_leader refused_no_key
# what is thrown at the members' ports is none of theirs
node n4 python3 -c "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for a in sys.argv[1:]:
	for i in range(20): s.sendto(bytes([i]) * 200, (a, 12345))" "$(addr n1)" "$(addr n2)" "$(addr n3)"
for n in $members; do ok "$n: datagrams of a stranger are counted" wait_for 60 counted "$n" quorumd states_refused 20; done
checked "the volume goes on" echoes four n1 n3
nok "the fourth is not in" mounted n4
ok "a directory of n2" node n2 mkdir $MNT/d
fourth_stops
node n4 sed -i '/^insecure/d' /etc/scoutfs/mnt.conf
node n4 mv /etc/scoutfs/away /etc/scoutfs/node.key

# --- let in, cut off, let in
node n4 systemctl start --no-block scoutfs@mnt
ok "with its key it is refused again" wait_for 60 waits n4 "does not allow this node's key"
RELOAD=1
checked "its line is added, and the lists are read again" lists n1 n2 n3 n4
ok "it mounts" wait_for 60 mounted n4
checked "and works" echoes five n4 n1
checked "its line is taken out again" lists n1 n2 n3
ok "it is cut off" wait_for 60 said_by_one "its node's key is not in /etc/scoutfs/nodes.allow any more: its connection is cut"
ok "and says why it waits" wait_for 60 waits n4 "does not allow this node's key"
# what the fourth has locked waits for its lease, like for any mount that is lost; the rest does not
checked "the volume goes on" echoes d/six n2 n1
checked "its line is added again" lists n1 n2 n3 n4
ok "it goes on" wait_for 60 node n4 scoutfsctl status mnt
checked "and works" echoes seven n4 n2
checked "all stop" cluster_stop
cluster_check "check: clean"
tap_done
