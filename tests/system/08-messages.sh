#!/bin/bash
# docs/operations.md says of every message at level notice and above what it means and what to do, and of no others.
. "$(dirname "$0")/../lib/common.sh"
cd "$TOP" || exit 1
nr=$(python3 tests/lib/messages.py list | wc -l)
ok "messages are found in the sources ($nr)" test "$nr" -gt 250
ok "each has an entry in docs/operations.md, and each entry a message" python3 tests/lib/messages.py check docs/operations.md
sed 's/elected leader of term/chosen leader of term/' docs/operations.md >"$TMP/other.md"
out=$(python3 tests/lib/messages.py check "$TMP/other.md"); rc=$?
is "a message without an entry is found, and an entry without a message" "$rc $(grep -c 'elected leader of term …' <<<"$out") $(grep -c 'chosen leader of term …' <<<"$out")" "1 1 1"
tap_done
