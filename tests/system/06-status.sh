#!/bin/bash
# What an operator asks and is told: status in words, in JSON and as an exit status, for an instance that is
# well, hurt and gone; fencing of what nobody waits for; mount(8) where there is no systemd.
. "$(dirname "$0")/../lib/common.sh"
# This machine's own configurations and systemd are not there for this test.
mount -t tmpfs none /run
mkdir -p /var/lib/scoutfs /etc/scoutfs
mount -t tmpfs none /var/lib/scoutfs
mount -t tmpfs none /etc/scoutfs

status() { out=$("$CTL" status "$@" 2>&1); rc=$?; }
says() { if grep -qE -- "$2" <<<"$out"; then pass "$1"; else fail "$1" "wanted $2, said: $out"; fi; }
# json EXPRESSION: of o, the object, and s, its services by name
json() {
	"$CTL" status --json "$CONF" | python3 -c "import json, sys
o = json.loads(sys.stdin.readline()); s = {x['service']: x for x in o['services']}
assert not sys.stdin.read()
assert $1, o"
}

status
is "no configuration at all: exit status" "$rc" 2
says "no configuration at all: said" "no configuration in /etc/scoutfs"
status none
is "no such configuration: exit status" "$rc" 2
says "no such configuration: named" "/etc/scoutfs/none.conf: No such file"
"$CTL" status --nonsense >/dev/null 2>&1; is "a wrong option: exit status" $? 64

vol_make
inst_conf
status "$CONF"
is "nothing runs: exit status" "$rc" 2
says "nothing runs: said" "^scoutfs t on $MNT: not running"
status --cluster "$CONF"
is "nothing runs, and the cluster is asked: exit status" "$rc" 2
says "nothing runs, and the cluster is asked: said" "^scoutfs t: no service of t runs on this node"
says "nothing runs: of each service" "^  serverd +down: not running"
ok "nothing runs: in JSON" json "o['health'] == 'not running' and [x['service'] for x in o['services']] == ['blockd', 'quorumd', 'serverd', 'fsd'] and not any(x['answers'] for x in o['services'])"

ok "mount" inst_start
ok "healthy: exit status 0" wait_for 60 "$CTL" status "$CONF"
status "$CONF"
says "healthy: said" "^scoutfs t on $MNT: healthy"
says "fsd in words" "^  fsd +mounted at $MNT"
says "serverd in words" "^  serverd +leader of term [0-9]+, 1 mounts"
says "since when, by which process" "^    for +[0-9.]+ (s|min).*\(pid $(inst_pid serverd), version "
status -v "$CONF"
says "counters with -v" "^    commits [0-9]+"
ok "healthy: in JSON" json "o['health'] == 'healthy' and o['instance'] == 't' and o['mountpoint'] == '$MNT' and all(x['answers'] and x['state'] and x['version'] and x['since_ms'] >= 0 and x['waiting_for'] == '' for x in o['services']) and s['fsd']['pid'] == $(inst_pid fsd) and s['serverd']['values']['mounts'] == 1"

status --prom "$CONF"
is "counters for Prometheus: exit status" "$rc" 0
says "counters for Prometheus: who is up" '^scoutfs_up\{instance="t",service="fsd"\} 1$'
says "counters for Prometheus: a counter" '^scoutfs_commits\{instance="t",service="serverd"\} [1-9][0-9]*$'
is "counters for Prometheus: nothing else" "$(grep -vcE '^scoutfs_[a-z0-9_]+\{instance="t",service="[a-z]+"\} [0-9]+$' <<<"$out")" 0
is "counters for Prometheus: each once" "$(sed 's/ [0-9]*$//' <<<"$out" | sort | uniq -d)" ""

# The same numbers by two ways: from the leader, and by statvfs and an ioctl of the mount.
df_agrees() {
	"$CTL" df --json -p "$MNT" >"$TMP/df" && "$CTL" status --cluster --json "$CONF" >"$TMP/cluster" && python3 - "$TMP/df" "$TMP/cluster" <<-'PY'
	import json, sys
	d, c = (json.loads(open(n).readline()) for n in sys.argv[1:3])
	m = c['metadata']
	assert d['free_meta_blocks'] * 65536 == m['free_bytes'] - m['reserved_bytes'], (d, m)
	assert d['free_data_blocks'] * 4096 == c['data']['free_bytes'], (d, c['data'])
	for k, n in ('meta', m['total_bytes'] // 65536), ('data', c['data']['total_bytes'] // 4096):
	    assert d['total_%s_blocks' % k] == n == d['used_%s_blocks' % k] + d['free_%s_blocks' % k], d
	PY
}
dd if=/dev/urandom of="$MNT/blocks" bs=1M count=3 conv=fsync status=none
ok "df has what is free of metadata and of data as the leader has it" wait_for 60 df_agrees
is "df: the rows and columns of its table" "$("$CTL" df -p "$MNT" | awk '{print NF, $1, $2}' | tr '\n' ' ')" "6 Type Size 6 MetaData 64KB 6 Data 4KB "
rm "$MNT/blocks"
status --cluster "$CONF"
is "the cluster of one node: exit status" "$rc" 0
says "its leader" "^  leader +term [0-9]+, slot 0 at 127.0.0.1:$PORT"
says "its mount" "^    $(cat "$TMP/run/rid") 127.0.0.1 +is mounted for"
says "its space" "^  metadata +[0-9.]+ GiB of 8.0 GiB free"
cluster_json() { "$CTL" status --cluster --json "$CONF" | python3 -c "import json, sys; o = json.loads(sys.stdin.readline()); assert not sys.stdin.read(); assert $1, o"; }
ok "the same in JSON" cluster_json "o['health'] == 'healthy' and o['leader']['answers'] and o['mounts']['nr'] == 1 and o['mounts']['list'][0]['rid'] == '$(cat "$TMP/run/rid")' and o['locks']['waits'] == [] and o['metadata']['total_bytes'] == 8 << 30"
freeze "$(inst_pid serverd)"
status --cluster "$CONF"
is "a leader that hangs: exit status" "$rc" 1
says "a leader that hangs: said" "^scoutfs t: no answer: "
kill -CONT "$(inst_pid serverd)" 2>/dev/null
ok "healthy again" wait_for 120 "$CTL" status --cluster "$CONF"

freeze "$(inst_pid quorumd)"
out=$("$CTL" fence list "$CONF" 2>&1); rc=$?
is "fence list while one that may wait does not answer: exit status" "$rc" 1
says "and who" "^scoutfsctl: fence: quorumd of "
status "$CONF"
is "a service that hangs: exit status" "$rc" 1
says "a service that hangs: named" "^  quorumd +down: does not answer"
says "the others are well" "^  fsd +mounted"
kill -CONT "$(inst_pid quorumd)"
ok "it goes on: healthy again" wait_for 120 "$CTL" status "$CONF"

# --- somebody who may not look is told so, and nothing untrue
cp "$CTL" "$CTL-admin" "$TMP"
chmod 711 "$TMP"
chmod 755 "$TMP/scoutfsctl" "$TMP/scoutfsctl-admin"
chmod 644 "$CONF"
anybody() { out=$(setpriv --reuid=65534 --regid=65534 --clear-groups "$TMP/scoutfsctl" "$@" "$CONF" 2>&1); rc=$?; }
anybody status
is "status of somebody else: exit status" "$rc" 3
says "status of somebody else: said" "^scoutfsctl: status: $TMP/run: permission denied: run as root"
anybody stop
says "stop of somebody else" "^scoutfsctl: stop: $TMP/run: permission denied: run as root"
anybody fence ack 123456789abcdef0
is "fence ack of somebody else: exit status" "$rc" 1
says "fence ack of somebody else: that nobody was told" "123456789abcdef0: nobody was told"
if grep -q "nothing here waits" <<<"$out"; then fail "and not that nothing waits for it" "$out"; else pass "and not that nothing waits for it"; fi
chmod 700 "$TMP"

# --- the sessions with the leader: counted on both sides
net() { "$CTL" status --json "$CONF" | python3 -c "import json, sys
print([x['values']['$2'] for x in json.load(sys.stdin)['services'] if x['service'] == '$1'][0])"; }
net_is() { [ "$(net "$1" "$2")" "$3" "$4" ]; }
ok "serverd: one session" wait_for 60 net_is serverd net_sessions -eq 1
ok "serverd: which is connected" wait_for 60 net_is serverd net_connected -eq 1
ok "serverd: it was greeted" net_is serverd net_greetings -ge 1
before=$(net serverd net_requests)
touch "$MNT/counted"; sync "$MNT"
ok "serverd: requests are counted" wait_for 60 net_is serverd net_requests -gt "$before"
is "serverd: nothing malformed" "$(net serverd net_malformed)" 0
ok "fsd: calls are counted" net_is fsd net_calls -gt 0
ok "--prom has them" grep -q '^scoutfs_net_requests{.*service="serverd"} [1-9]' <("$CTL" status --prom "$CONF")

# --- fencing: nothing waits
is "fence list is empty" "$("$CTL" fence list "$CONF" 2>&1)" ""
out=$("$CTL" fence ack 123456789abcdef0 "$CONF" 2>&1); rc=$?
is "ack of a rid that nobody waits for fails" "$rc" 1
says "and is said" "123456789abcdef0: nothing here waits for that rid"
rid=$("$CTL" status --json "$CONF" | python3 -c "import json, sys
print([t['text'] for x in json.load(sys.stdin)['services'] for t in x['texts'] if t['name'] == 'rid'][0])")
nok "a mount that is well cannot be acknowledged dead" "$CTL" fence ack "$rid" "$CONF"
ok "and goes on" touch "$MNT/x"
for bad in xyz 0 123456789abcdef01 ""; do
	"$CTL" fence ack "$bad" "$CONF" >/dev/null 2>&1
	is "'$bad' is no rid" $? 64
done
# --- a program holds the mount at its stop
exec 7>"$MNT/held"
inst_stop >/dev/null 2>&1 7>&- & stop=$!
unmounting() { status "$CONF"; grep -q "^  fsd  *unmounting" <<<"$out"; }
ok "while it unmounts it says so" wait_for 120 unmounting
is "and is not healthy: exit status" "$rc" 1
exec 7>&-
wait $stop
ok "unmounted" test $? = 0
nok "fence list where nothing runs fails" "$CTL" fence list "$CONF"

# --- mount(8)'s helper: by options alone, then by a configuration
M=$BUILD/mount.scoutfs
o=rw,metadev_path=$META,quorum_slot_nr=0
ok "-f writes and starts nothing" "$M" -f "$DATA" "$MNT" -o "$o"
nok "no configuration" test -e /run/scoutfs
ok "mounts by options alone" "$M" "$DATA" "$MNT" -o "$o,ro"
ok "it is mounted" mountpoint -q "$MNT"
nok "read-only" touch "$MNT/y"
ok "remount" "$M" "$DATA" "$MNT" -o remount,rw
ok "then it can be written" touch "$MNT/y"
status
is "status finds it: exit status" "$rc" 0
says "status finds it" "^scoutfs .* on $MNT: healthy"
nok "not twice" "$M" "$DATA" "$MNT" -o "$o"
ok "umount" umount "$MNT"
nothing() { ! pgrep -x 'scoutfs.*' && [ -z "$(findmnt -rn -t tmpfs -o TARGET | grep "^/run/scoutfs/")" ]; }
ok "nothing is left running" wait_for 120 nothing
status
is "status has forgotten it" "$rc" 2
inst_conf
sed "s,^runtime_dir.*,,; s,^state_dir.*,," "$CONF" >/etc/scoutfs/m.conf
ok "mounts by the configuration that is for it" "$M" "$DATA" "$MNT" -o "$o"
status m
says "it is that one" "^scoutfs m on $MNT: healthy"
ok "stop by name" "$CTL" stop m
ok "nothing is left running after that" wait_for 120 nothing
out=$("$M" "$DATA" "$MNT" -o "$o,noacl" 2>&1); rc=$?
is "an option that the configuration contradicts fails" "$rc" 32
says "and both are named" "acl=no: /etc/scoutfs/m.conf"
check_clean "clean after all"
tap_done
