#!/bin/bash
# Real programs across nodes: fio writes one file from three nodes and verifies it, at ranges of their own and taking
# turns at the same range; a part of this project is built on one node from sources written on another, with the objects
# used on a third; git works in one repository from three nodes.  With SOAK= longer.
. "$(dirname "$0")/../lib/cluster.sh"
SIZE=${SIZE:-$([ -n "${SOAK:-}" ] && echo 64 || echo 2)}	# MiB a node
ROUNDS=${ROUNDS:-$([ -n "${SOAK:-}" ] && echo 30 || echo 1)}

checked "three nodes boot" cluster_up
checked "mkfs" cluster_mkfs
checked "configured" cluster_conf
checked "all start" cluster_start
for n in $NODES; do ok "$n is healthy" wait_for 60 node "$n" scoutfsctl status mnt; done

# --- fio
# run_fio NODE OFFSET [OPTION]...: blocks with their checksums in $MNT/fio
run_fio() {
	local n=$1 at=$2
	shift 2
	node "$n" timeout 300 fio --name=job --filename=$MNT/fio --offset="${at}m" --size="${SIZE}m" --ioengine=psync --thread=1 \
		--verify=crc32c --verify_fatal=1 --allow_file_create=0 --output-format=terse "$@"
}
ok "a file for fio" node n1 truncate -s $((3 * SIZE))M $MNT/fio
pids=() at=0
for n in $NODES; do
	run_fio "$n" $at --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --randseed=7 --do_verify=1 >"$TMP/fio.$n" 2>&1 & pids+=($!)
	at=$((at + SIZE))
done
rc=0; for p in "${pids[@]}"; do wait "$p" || rc=1; done
if [ $rc = 0 ]; then pass "fio: three nodes write one file at ranges of their own, and read back what they wrote"; else
	fail "fio: three nodes write one file at ranges of their own" "$(cat "$TMP"/fio.*; journals)"; fi
rc=0
for i in $(seq "$ROUNDS"); do
	set -- $NODES
	for n in $NODES; do
		shift; other=${1:-n1}
		run_fio "$n" 0 --rw=write --bs=64k --randseed="$i" --verify_pattern=0x"${i}${n#n}" --verify=pattern --do_verify=0 \
			>"$TMP/fio.w" 2>&1 || rc=1
		run_fio "$other" 0 --rw=write --bs=64k --randseed="$i" --verify_pattern=0x"${i}${n#n}" --verify=pattern --verify_only \
			>"$TMP/fio.v" 2>&1 || rc=1
		[ $rc = 0 ] || break 2
	done
done
if [ $rc = 0 ]; then pass "fio: taking turns at the same range, each node verifies what another has written"; else
	fail "fio: taking turns at the same range ($n wrote, $other read, round $i)" "$(cat "$TMP/fio.w" "$TMP/fio.v"; journals)"; fi

# --- a build: sources on n1, compiled on n2 and n3, linked and run on n1
mkdir -p "$RIG_DIR/shared/src"
cp -a "$TOP"/lib/core/* "$TOP/tests/posix/mkfiles.c" "$RIG_DIR/shared/src/"
cat >"$RIG_DIR/shared/src/Makefile" <<-'X'
	SRC = $(wildcard csum/*.c key/*.c btree/*.c)
	OBJ = $(SRC:%.c=../obj/%.o) ../obj/mkfiles.o
	all: ../obj/libpart.a ../obj/mkfiles
	../obj/libpart.a: $(filter-out ../obj/mkfiles.o,$(OBJ)) ; ar rcs $@ $^
	../obj/mkfiles: ../obj/mkfiles.o ; gcc -o $@ $<
	../obj/%.o: %.c ; mkdir -p $(@D) && gcc -std=gnu11 -D_GNU_SOURCE -I. -MMD -c -o $@ $<
	-include $(OBJ:.o=.d)
X
ok "sources on n1" node n1 sh -c "mkdir $MNT/obj && cp -a /shared/src $MNT/src"
checked "a build on n2" node n2 make -C $MNT/src -j2
is "n3 has nothing left to build" "$(node n3 make -C $MNT/src 2>&1 | grep -c gcc)" 0
ok "a source is changed on n1" node n1 sh -c "echo '/* changed */' >>$MNT/src/mkfiles.c"
is "n3 builds just that" "$(node n3 make -C $MNT/src 2>&1 | grep -c 'gcc.* -c ')" 1
checked "what n3 has linked runs on n1" node n1 sh -c "mkdir $MNT/made && $MNT/obj/mkfiles $MNT/made 10 1"

# --- git: one repository, three nodes
git_on() { local n=$1; shift; node "$n" git -C $MNT/repo -c user.name=n -c user.email=n@example.org -c gc.auto=0 "$@"; }
checked "git init on n1" node n1 sh -c "git init -q -b main $MNT/repo && cp -a /shared/stage/usr/lib/systemd $MNT/repo/files"
checked "and a first commit" sh -c "$(declare -f git_on node); RIG='$RIG' MNT='$MNT'; git_on n1 add . && git_on n1 commit -q -m first"
commits=1
for i in $(seq "$ROUNDS"); do
	for n in $NODES; do
		node "$n" sh -c "echo $i $n >>$MNT/repo/log && echo $i >$MNT/repo/file-$n-$i" && git_on "$n" add -A &&
			git_on "$n" commit -q -m "$n $i" || { fail "a commit on $n in round $i" "$(journals)"; break 2; }
		commits=$((commits + 1))
	done
done
for n in $NODES; do is "$n has all commits" "$(git_on "$n" log --oneline | wc -l)" $commits; done
for n in $NODES; do is "$n sees nothing to commit" "$(git_on "$n" status --porcelain)" ""; done
# at the same time: each a branch of its own, objects and the index of refs in common
# shellcheck disable=SC2016
checked "three nodes commit to branches of their own at the same time" on_nodes $NODES -- sh -ec 'cd '$MNT'/repo
	export GIT_INDEX_FILE=/tmp/index GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=n@example.org GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=n@example.org
	at=$(git rev-parse main); git read-tree $at
	for i in 1 2 3 4 5; do
		blob=$(echo "$(hostname) $i" | git hash-object -w --stdin)
		git update-index --add --cacheinfo 100644,$blob,branch-$i
		at=$(git commit-tree -p $at -m "$i" "$(git write-tree)"); git update-ref refs/heads/$(hostname) $at
	done'
for n in $NODES; do is "$n sees the branches of all" "$(git_on "$n" for-each-ref --format='%(refname:short)' refs/heads | paste -sd' ')" "main n1 n2 n3"; done
checked "git fsck on n2" git_on n2 fsck --full --strict
checked "git gc on n3" git_on n3 gc -q --prune=now
checked "git fsck on n1 after it" git_on n1 fsck --full

checked "all stop at the same time" cluster_stop
cluster_check "check: clean"
tap_done
