#!/bin/bash
# change-quorum-config: the whole table of slots is replaced and its version counted up, on a volume that nobody uses
# and only there; nothing else of the volume changes; what was written is there under the new members.
. "$(dirname "$0")/../lib/common.sh"
change() { "$CTL" change-quorum-config "$@"; }
# refused TEXT STATUS PATTERN ARGS...: fails so, says PATTERN on stderr, and has written nothing
refused() {
	local t=$1 want=$2 pattern=$3 out rc was
	shift 3
	was=$(supers)
	out=$(change "$@" 2>&1 >/dev/null); rc=$?
	if [ $rc != "$want" ] || ! grep -qE -- "$pattern" <<<"$out"; then fail "$t" "status $rc: $out"
	elif [ "$(supers)" != "$was" ]; then fail "$t" "it has written all the same"
	else pass "$t"; fi
}
# The system area without what a change may change: the checksum of the super block, version and slots.
supers() { head -c 131072 "$META" | sha256sum; head -c 131072 "$DATA" | sha256sum; }
rest() { head -c 131072 "$META" | { head -c 65536; head -c 4 >/dev/null; head -c 108; head -c 488 >/dev/null; cat; } | sha256sum; head -c 131072 "$DATA" | sha256sum; }
P2=$((PORT + 1)) P3=$((PORT + 2))

vol_make
inst_conf commit_interval_ms=100
ok "a mount of slot 0" inst_start
echo kept >"$MNT/file"
out=$(change -Q "0,127.0.0.1,$P2" -F "$META" 2>&1); is "a volume in use here is refused" $? 1
ok "and why" grep -q "in use" <<<"$out"
nok "and it has no other slot" grep -q "127.0.0.1:$P2" <("$CTL" print "$META")
ok "unmounted" inst_stop

refused "without -F" 64 "unmount it everywhere" -Q "0,127.0.0.1,$P2" "$META"
refused "without a slot" 64 "at least one quorum slot" -F "$META"
refused "without a device" 64 "name the metadata device" -F -Q "0,127.0.0.1,$P2"
refused "a slot that there cannot be" 64 "0 to 14" -F -Q "15,127.0.0.1,$P2" "$META"
refused "a slot twice" 64 "given twice" -F -Q "1,127.0.0.1,$P2" -Q "1,127.0.0.1,$P3" "$META"
refused "an address twice" 64 "same address" -F -Q "1,127.0.0.1,$P2" -Q "2,127.0.0.1,$P2" "$META"
refused "a multicast address" 64 "unicast" -F -Q "1,224.0.0.1,$P2" "$META"
refused "the data device" 1 "data device, not a metadata device" -F -Q "1,127.0.0.1,$P2" "$DATA"
head -c 1M /dev/zero >"$TMP/empty"
refused "no volume" 1 "no scoutfs super block" -F -Q "1,127.0.0.1,$P2" "$TMP/empty"

was=$(rest)
out=$(change -F -Q "1,127.0.0.1,$P2" "$META" 2>&1); is "changed to another slot" $? 0
ok "it says the new version" grep -qE 'quorum config version: +2' <<<"$out"
ok "and the slot" grep -q "1: 127.0.0.1:$P2" <<<"$out"
is "nothing else has changed" "$(rest)" "$was"
check_clean "check: clean"
ok "print shows the slot" grep -q "127.0.0.1:$P2" <("$CTL" print "$META")
nok "and not the old one" grep -q "127.0.0.1:$PORT" <("$CTL" print "$META")
nok "the old slot is no member any more" timeout 60 "$CTL" run -d -l "$LOG" "$CONF"
inst_conf quorum_slot=1 commit_interval_ms=100
ok "the new one leads and mounts" inst_start
is "what was written is there" "$(cat "$MNT/file")" kept
echo more >"$MNT/other"; sync "$MNT"
power_cut
refused "a volume that was not unmounted" 1 "not cleanly unmounted" -F -Q "0,127.0.0.1,$PORT" "$META"
ok "mounted again after the power cut" inst_start
is "with what was synced" "$(cat "$MNT/other")" more
ok "and unmounted" inst_stop

ok "three slots" change -F -Q "0,127.0.0.1,$PORT" -Q "1,127.0.0.1,$P2" -Q "2,127.0.0.1,$P3" "$META"
is "print shows all three" "$("$CTL" print "$META" | grep -c '127\.0\.0\.1:')" 3
check_clean "check at the end: clean"
tap_done
