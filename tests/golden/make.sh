#!/bin/bash
# Make a golden volume: tests/golden/make.sh NAME (needs a build; root).  A small volume with one of
# everything that this version writes, and what a mount shows of it.  Later versions must read it
# (tests/system/25-golden.sh); an old golden volume is never made again.
. "$(dirname "$0")/../lib/common.sh"
name=${1:?usage: tests/golden/make.sh NAME}
vol_make 8G 8G
inst_conf
inst_start >/dev/null || exit 1
(
	set -e
	cd "$MNT"
	mkdir -p dir/sub empty long
	echo "a small file" >dir/small
	seq 20000 >dir/numbers
	truncate -s 1M sparse; echo tail >>sparse
	dd if=/dev/zero of=zeroes bs=1M count=2 status=none
	ln dir/small dir/sub/hardlink
	ln -s ../dir/small dir/sub/symlink
	ln -s "$(printf 'x%.0s' $(seq 2000))" long/symlink
	mknod fifo p; mknod null c 1 3
	: >"long/$(printf 'n%.0s' $(seq 255))"
	setfattr -n user.small -v value dir/small
	setfattr -n user.large -v "0x$(head -c 5000 /dev/zero | od -An -v -tx1 | tr -d ' \n')" dir/numbers
	setfacl -m u:1:rw,d:u:2:r dir
	: >dir/inherits
	for i in $(seq 300); do echo "$i" >"long/f$i"; done
	rm long/f1??; mv long/f2 long/renamed
	chown 12:34 dir/numbers; chmod 4750 dir/numbers
	fallocate -l 1M prealloc; fallocate -n -l 2M prealloc
	touch -d '2001-02-03 04:05:06.789' empty
	sync .
) || exit 1
"$(dirname "$0")/list.sh" "$MNT" >"$TMP/$name.list"
inst_stop >/dev/null && "$CTL" check "$META" "$DATA" || exit 1
tar --sparse -C "$TMP" -cf - meta data "$name.list" | zstd -q -19 -o "$(dirname "$0")/$name.tar.zst"
ls -l "$(dirname "$0")/$name.tar.zst"
