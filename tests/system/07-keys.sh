#!/bin/bash
# Keys on one host: keygen makes them so that nobody else can read them and never over another; what is wrong with
# key or list is named and nothing starts; with them an instance works as without; who knocks without a key is refused,
# counted and said; a list that cannot be read again leaves the old one.  Two nodes and more: tests/cluster/90-keys.sh.
. "$(dirname "$0")/../lib/common.sh"
# This machine's own keys and configurations are not there for this test.
mount -t tmpfs none /run
mkdir -p /var/lib/scoutfs /etc/scoutfs
mount -t tmpfs none /var/lib/scoutfs
mount -t tmpfs none /etc/scoutfs
KEY=$TMP/node.key LIST=$TMP/nodes.allow

says() { if grep -qE -- "$2" <<<"$out"; then pass "$1"; else fail "$1" "wanted $2, said: $out"; fi; }
# counter SERVICE NAME; empty: there is none
counter() {
	"$CTL" status --json "$CONF" | python3 -c "import json, sys
print([x['values'].get('$2', '') for x in json.load(sys.stdin)['services'] if x['service'] == '$1'][0])"
}
counted() { local v; v=$(counter "$1" "$2"); [ -n "$v" ] && [ "$v" -ge "$3" ]; }
logged() { grep -qE -- "$1" "$LOG"; }
running() { pgrep -x 'scoutfs-.*'; }
not_running() { ! running; }
# refused TEXT PATTERN: the instance does not start, and says why
refused() {
	: >"$LOG"
	"$CTL" run -d -l "$LOG" "$CONF" >/dev/null 2>"$TMP/err" & RUN=$!
	if wait_for 60 grep -qE -- "$2" "$LOG" "$TMP/err"; then pass "$1: said"; else
		fail "$1: said" "wanted $2: $(tail -n 5 "$LOG" "$TMP/err")"; fi
	nok "$1: not mounted" mountpoint -q "$MNT"
	"$CTL" stop "$CONF" >/dev/null 2>&1
	wait "$RUN"
	ok "$1: nothing is left running" wait_for 60 not_running
}

# --- keygen
ok "keygen" sh -c '"$1" keygen -n here "$2" >"$3" 2>"$3.err"' - "$CTL" "$KEY" "$LIST"
is "it prints one line" "$(wc -l <"$LIST")" 1
is "a key of 40 characters, and the name" "$(awk '{print length($1), $2}' "$LIST")" "40 here"
is "nobody else may read the file" "$(stat -c %A "$KEY" | cut -c 6,8-10)" "----"
is "the line holds the public key, which the file tells as well" "$(grep -cF -- "$(cut -d' ' -f1 "$LIST")" "$KEY")" 1
nok "and not the secret" grep -qF -- "$(awk '$1 == "secret" {print $2}' "$KEY")" "$LIST" "$LIST.err"
before=$(cat "$KEY")
nok "not over another key" "$CTL" keygen "$KEY"
is "which stays as it is" "$(cat "$KEY")" "$before"
is "-p prints the line again" "$("$CTL" keygen -p -n here "$KEY")" "$(cat "$LIST")"
ok "-f makes another" sh -c '"$1" keygen -f -n here "$2" >"$3" 2>/dev/null' - "$CTL" "$KEY" "$LIST"
nok "another it is" test "$(cat "$KEY")" = "$before"
is "nothing else is left there" "$(find "$TMP" -name 'node.key*' | wc -l)" 1
for bad in "-a 10.0.0.300" "-n 10.0.0.1" "-f -p" "-x"; do
	# shellcheck disable=SC2086
	"$CTL" keygen $bad "$KEY" >/dev/null 2>&1; is "keygen $bad: exit status" $? 64
done

# --- what is wrong is named, and nothing starts
vol_make
inst_conf "key_file=$KEY" "allow_file=$LIST"
chmod 644 "$KEY"
refused "a key that others can read" "$KEY: its mode 644 .*chmod 640"
chmod 600 "$KEY"
mv "$KEY" "$KEY.away"
refused "a key that is not there" "$KEY: No such file.*scoutfsctl keygen"
echo "secret something" >"$KEY"; chmod 600 "$KEY"
refused "a file that is no key" "$KEY: not a key file"
mv "$KEY.away" "$KEY"
cp "$LIST" "$TMP/good"
mv "$LIST" "$TMP/away"
refused "a list that is not there" "$LIST: No such file.*one line for each node"
{ cat "$TMP/good"; echo "nonsense n2"; } >"$LIST"
refused "a line that is none" "$LIST:2: does not begin with a node's public key"
{ cat "$TMP/good"; echo "$(awk '$1 == "secret" {print $2}' "$KEY") n2"; } >"$LIST"
refused "the secret in the list" "$LIST:2: this is the SECRET key of this node"
"$CTL" keygen "$TMP/other.key" 2>/dev/null >"$TMP/other"
{ cat "$TMP/good"; sed 's/ .*/ 127.0.0.1 n2/' "$TMP/other"; } >"$LIST"
refused "the own address with another node's key" "$LIST: 127.0.0.1:$PORT, the address of this node's quorum slot, is not in the line"
cp "$TMP/good" "$LIST"; chmod 666 "$LIST"
refused "a list that others can change" "$LIST: its mode 666.*chmod 644"
chmod 644 "$LIST"
inst_conf "key_file=$KEY" "allow_file=$LIST" insecure=yes
out=$("$CTL" status "$CONF" 2>&1)
says "with keys and insecure at once: said" "key_file: contradicts insecure = yes"

# --- with keys it works as without
inst_conf "key_file=$KEY" "allow_file=$LIST"
: >"$LOG"
ok "mount" inst_start
ok "a file is written" sh -c 'seq 100000 >"$1/f" && sync "$1/f"' - "$MNT"
out=$("$CTL" status "$CONF")
is "status says with which key, of all that talk" "$(grep -cF -- "$(cut -d' ' -f1 "$LIST"); 1 nodes in $LIST" <<<"$out")" 3
for s in serverd quorumd; do
	for c in refused_no_key refused_key refused_foreign refused_format refused_version refused_term; do
		is "$s counts $c: none" "$(counter $s $c)" 0
	done
done
for s in serverd quorumd fsd blockd; do
	old=$(inst_pid $s)
	kill -9 "$old"
	came_back() { local p; p=$(inst_pid $s) && [ "$p" != "$old" ] && "$CTL" status "$CONF"; }
	ok "$s is killed: healthy again" wait_for 120 came_back
	ok "$s is killed: the mount goes on" timeout 120 sh -c 'echo x >"$1/after-$2" && sync "$1/after-$2"' - "$MNT" $s
done

# --- somebody without a key: ZeroMQ's greeting with the mechanism NULL
knock() {
	python3 -c "import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)
s.settimeout(10)
s.sendall(b'\xff' + bytes(8) + b'\x7f\x03\x00' + b'NULL'.ljust(20, b'\0') + bytes(32))
try:
    while s.recv(4096): pass
except OSError: pass" "$PORT"
}
knocked() { knock; counted serverd refused_no_key 1; }
ok "who has no key is refused and counted" wait_for 60 knocked
ok "and said, with its address" wait_for 60 logged "refused: (127.0.0.1|an unknown address): a node without a key.*scoutfsctl keygen"
ok "the mount goes on" touch "$MNT/x"

# --- the list is read again, whole or not at all
echo nonsense >>"$LIST"
: >"$LOG"
ok "reload of a list that is wrong" "$CTL" reload "$CONF"
is_said() { [ "$(grep -cE -- "$1" "$LOG")" -ge "$2" ]; }
ok "is said by all that use it" wait_for 60 is_said "$LIST:2: does not begin.*the list of before is used on" 3
ok "and they go on" timeout 120 touch "$MNT/y"
{ cat "$TMP/good"; cat "$TMP/other"; } >"$LIST"
ok "reload" "$CTL" reload "$CONF"
ok "is said" wait_for 60 is_said "$LIST: read again, 2 nodes" 3
ok "healthy" wait_for 60 "$CTL" status "$CONF"
ok "unmount" inst_stop
nok "reload of what does not run" "$CTL" reload "$CONF"

# --- keys at their usual place, for mount(8) by options alone
"$CTL" keygen 2>/dev/null >/etc/scoutfs/nodes.allow
ok "mount by options alone" "$BUILD/mount.scoutfs" "$DATA" "$MNT" -o "rw,metadev_path=$META,quorum_slot_nr=0"
out=$("$CTL" status)
says "uses them" "key +.{40}; 1 nodes in /etc/scoutfs/nodes.allow"
is "what was written is there" "$(md5sum <"$MNT/f")" "$(seq 100000 | md5sum)"
ok "umount" umount "$MNT"
ok "nothing is left running" wait_for 120 not_running
check_clean "check: clean"
tap_done
