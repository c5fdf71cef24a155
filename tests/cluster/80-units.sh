#!/bin/bash
# The units, in one node of the rig (tests/rig): installed as a package would, an instance is started,
# looked at, hurt and stopped with systemctl alone, and mounted with mount(8).
. "$(dirname "$0")/../lib/node.sh"
check_in_node() { checked "$1" node scoutfsctl check /dev/shared0 /dev/shared1; }
status_says() { node scoutfsctl status mnt 2>/dev/null | grep -q "$1"; }

node_up
for d in runtime $DAEMONS; do
	out=$(node systemd-analyze verify "$(unit "$d")" 2>&1)
	is "$d: systemd-analyze verify finds nothing" "$out" ""
done

# --- what is not configured does not start, and says why
out=$(node systemctl start scoutfs@mnt 2>&1); rc=$?
is "without a configuration the start fails" "$rc" 1
ok "and the journal says what is missing" wait_for 60 sh -c '"$1" exec n1 journalctl -q -o cat -u "scoutfs*@mnt.service" | grep -q "/etc/scoutfs/mnt.conf: No such file"' - "$RIG"
ok "and it is given up, not tried for ever" wait_for 300 all_are "inactive failed"
node systemctl reset-failed 'scoutfs*' 2>/dev/null

# --- start
node_conf
checked "systemctl start scoutfs@mnt" node timeout 120 systemctl start scoutfs@mnt
ok "it is mounted" node mountpoint -q $MNT
ok "as fuse.scoutfs" node sh -c "findmnt -n -o FSTYPE $MNT | grep -qx fuse.scoutfs"
is "the runtime directory is a tmpfs of its own" "$(node findmnt -n -o FSTYPE /run/scoutfs/mnt)" tmpfs
nok "the mount is not seen on the host" sh -c 'findmnt -rn -t fuse.scoutfs -o TARGET | grep -qx "$1"' - "$MNT"
for d in $DAEMONS; do
	is "$d: active" "$(property $d ActiveState)" active
	text=$(property $d StatusText)
	if [ -n "$text" ]; then pass "$d: says its state: $text"; else fail "$d: says its state in words"; fi
	ok "$d: systemctl status shows it" sh -c '"$1" exec n1 systemctl status "$2" | grep -qF "Status: \"$3\"" ||
		"$1" exec n1 systemctl status "$2" | grep -q "Status: \"..*\""' - "$RIG" "$(unit $d)" "$text"
done
for d in quorumd serverd; do
	is "$d: does not run as root" "$(node ps -o user= -p "$(property $d MainPID)" | tr -d ' ')" scoutfs
done
for d in blockd fsd; do
	is "$d: runs as root" "$(node ps -o user= -p "$(property $d MainPID)" | tr -d ' ')" root
done
is "the runtime directory is theirs alone" "$(node stat -c '%a %U:%G' /run/scoutfs/mnt)" "750 scoutfs:scoutfs"
is "blockd's socket is for their group" "$(node stat -c '%a %U:%G' /run/scoutfs/mnt/blockd.sock)" "660 root:scoutfs"
is "quorumd's socket is its own" "$(node stat -c '%a %U' /run/scoutfs/mnt/quorumd.sock)" "660 scoutfs"
is "nobody else may look in" "$(node setpriv --reuid=nobody --clear-groups ls /run/scoutfs/mnt 2>/dev/null | wc -l)" 0
checked "scoutfsctl status: healthy" node scoutfsctl status mnt
ok "and without a name" node scoutfsctl status
ok "scoutfsctl status --json is JSON" sh -c '"$1" exec n1 scoutfsctl status --json mnt |
	python3 -c "import json, sys; o = json.load(sys.stdin); assert o[\"health\"] == \"healthy\" and len(o[\"services\"]) == 4"' - "$RIG"

# --- use
ok "a file is written" node sh -c "seq 100000 >$MNT/file && sync $MNT/file"
is "and read" "$(node md5sum <<<'' "$MNT/file" | cut -d' ' -f1)" "$(seq 100000 | md5sum | cut -d' ' -f1)"

# --- kill -9 under systemd: started again, nothing lost
for d in serverd quorumd blockd; do
	old=$(property $d MainPID)
	[ "$old" -gt 1 ] && node kill -9 "$old"	# 0 would be the test itself
	restarted() { local p; p=$(property $d MainPID); [ "$p" != 0 ] && [ "$p" != "$old" ] && [ "$(property $d ActiveState)" = active ]; }
	ok "$d: started again after kill -9" wait_for 60 restarted
	ok "$d: the mount goes on" node timeout 120 sh -c "echo $d >$MNT/after-$d && sync $MNT/after-$d && grep -qx $d $MNT/after-$d"
	is "$d: it was not the mount that was started again" "$(property fsd NRestarts)" 0
	ok "$d: healthy again" wait_for 60 node scoutfsctl status mnt
done

# --- stop
checked "systemctl stop scoutfs@mnt" node timeout 200 systemctl stop scoutfs@mnt
nok "it is not mounted any more" node mountpoint -q $MNT
if wait_for 120 all_are inactive; then pass "all units have stopped"; else
	fail "all units have stopped" "$(node systemctl --no-pager list-units --all 'scoutfs*'; journal)"; fi
nok "no process is left" node pgrep -x 'scoutfs-.*'
nok "the runtime directory is unmounted" node mountpoint -q /run/scoutfs/mnt
check_in_node "check after the stop: clean"

# --- a wrong device: the start fails by name, and nothing goes on trying; fewer times than above, where it is as the units say
for d in $DAEMONS; do
	node sh -c 'd=/etc/systemd/system/$1.d; mkdir -p "$d"; printf "[Unit]\nStartLimitBurst=10\n" >"$d/test.conf"' - "$(unit $d)"
done
node systemctl daemon-reload
node sed -i.good 's,^data_device.*,data_device = /dev/null,' /etc/scoutfs/mnt.conf
nok "a wrong device: the start fails" node timeout 120 systemctl start scoutfs@mnt
ok "and the journal says which" wait_for 60 sh -c '"$1" exec n1 journalctl -q -o cat -u scoutfs-blockd@mnt | grep -q "data_device /dev/null: neither"' - "$RIG"
ok "and it is given up, with everything it had started" wait_for 300 all_are "inactive failed"
nok "not mounted" node mountpoint -q $MNT
nok "the runtime directory is unmounted again" node mountpoint -q /run/scoutfs/mnt
node mv /etc/scoutfs/mnt.conf.good /etc/scoutfs/mnt.conf
for d in $DAEMONS; do node rm "/etc/systemd/system/$(unit $d).d/test.conf"; done
node systemctl daemon-reload
node systemctl reset-failed 'scoutfs*'

# --- mount(8), by a configuration and by options alone
options=metadev_path=/dev/shared0,quorum_slot_nr=0
checked "mount -t scoutfs, as /etc/scoutfs/mnt.conf has it" node timeout 120 mount -t scoutfs -o $options /dev/shared1 $MNT
is "it is that instance" "$(property fsd ActiveState)" active
is "the file is there" "$(node tail -n 1 $MNT/file)" 100000
nok "a second mount is refused" node timeout 120 mount -t scoutfs -o $options /dev/shared1 $MNT
ok "umount" node umount $MNT
ok "umount stops everything" wait_for 120 all_are inactive
nok "options that disagree with the configuration are refused" node timeout 120 mount -t scoutfs -o $options,noacl /dev/shared1 $MNT
node mkdir -p /mnt/other
checked "mount -t scoutfs by options alone, read-only" node timeout 120 mount -t scoutfs -o $options,ro,nosuid /dev/shared1 /mnt/other
ok "it is read-only" node sh -c 'findmnt -n -o OPTIONS /mnt/other | grep -q "^ro,nosuid"'
nok "nothing can be written" node touch /mnt/other/x
is "what is there can be read" "$(node tail -n 1 /mnt/other/file)" 100000
ok "mount -o remount,rw" node mount -o remount,rw /mnt/other
ok "then it can be written" node sh -c 'echo y >/mnt/other/y && sync /mnt/other/y'
ok "systemctl stop of that instance" node timeout 200 systemctl stop scoutfs@mnt-other
nok "unmounts it" node mountpoint -q /mnt/other
nok "a bad option fails" node mount -t scoutfs -o $options,nonsense /dev/shared1 $MNT

# --- a shutdown of the node is a clean unmount; a power cut is recovered from
checked "enabled, and started" node timeout 120 systemctl enable --now scoutfs@mnt
node sh -c "echo before >$MNT/shutdown"
ok "the node shuts down" "$RIG" stop n1
ok "and boots" "$RIG" start n1
ok "the mount comes back at boot" wait_for 120 node mountpoint -q $MNT
is "with what was written before the shutdown" "$(node cat $MNT/shutdown)" before
node sh -c "echo synced >$MNT/cut && sync $MNT/cut"
ok "the power of the node is cut" "$RIG" kill n1
ok "it boots again" "$RIG" start n1
ok "the mount comes back without a word of an operator" wait_for 120 node mountpoint -q $MNT
is "with what was synced" "$(node cat $MNT/cut)" synced
checked "stopped" node timeout 200 systemctl stop scoutfs@mnt
ok "all units have stopped after all" wait_for 120 all_are inactive
check_in_node "check at the end: clean"
[ "$tap_failed" = 0 ] || journal 200 | sed 's/^/# /'
tap_done
