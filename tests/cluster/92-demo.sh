#!/bin/bash
# `make demo-cluster` shows what it promises, from the boot of three nodes to a clean volume, and leaves nothing behind.
. "$(dirname "$0")/../lib/common.sh"
log=$TMP/demo.log
left() { ls -d "$TMP"/scoutfs-demo.* 2>/dev/null; }

if TMPDIR=$TMP timeout -k 60 600 "$TOP/tests/demo-cluster.sh" >"$log" 2>&1; then pass "the demo ends well"; else fail "the demo ends well" "$(tail -n 100 "$log")"; fi
grep -h 'the longest one took' "$log" | sed 's/^ */# /'
for line in 'healthy$' 'and from n2$' '600 files, all durable' '604 changed inodes' 'no answer: this node waits for' 'n[123] leads: leader of term' \
	'n[123] waits$' 'durable on n[123]$' 'clean.* 0 warnings' 'nothing is left behind'; do
	ok "it says: $line" grep -q "$line" "$log"
done
is "programs saw pauses and no error" "$(grep -c 'durable writes, no error' "$log")" 6
is "the leader that lost power alarms nobody at the end" "$(grep 'not cleanly unmounted' "$log")" ""
is "nothing is left behind" "$(left)" ""
tap_done
