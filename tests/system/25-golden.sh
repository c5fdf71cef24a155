#!/bin/bash
# Volumes that earlier versions of this project wrote: they are clean, mount, and show what they showed.
. "$(dirname "$0")/../lib/common.sh"
for golden in "$TOP"/tests/golden/*.tar.zst; do
	name=$(basename "$golden" .tar.zst)
	tar --zstd --sparse -C "$TMP" -xf "$golden" || { fail "$name: unpack"; continue; }
	sync "$META" "$DATA"
	check_clean "$name: clean as it comes"
	inst_conf
	ok "$name: mounts" inst_start
	if "$TOP/tests/golden/list.sh" "$MNT" | diff "$TMP/$name.list" - >"$TMP/diff"; then
		pass "$name: $(wc -l <"$TMP/$name.list") lines as they were"
	else
		fail "$name: shows something else than it did" "$(head -c 2000 "$TMP/diff")"
	fi
	echo more >"$MNT/dir/small.new" && rm -r "$MNT/long" || fail "$name: changes"
	ok "$name: unmounts" inst_stop
	check_clean "$name: clean after changes"
	rm -rf "$META" "$DATA" "$TMP/state"
done
tap_done
