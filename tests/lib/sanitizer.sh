# Services in nodes that are built with sanitizers.  tests/run gives the sanitizers' options, in which reports are files in
# $SAN_REPORTS, and fails the test when there is one; here the nodes get the same, by a folder that they share with the host:
# a service may see nothing else of it, and what a node said that has lost power must not be lost.  And make installs the
# build as it is: what it made anew would be without them.  Else nothing happens.
#
#   san_nodes nX...                     before the nodes boot: the folders of their reports
#   san_hears nX SERVICE                that a failed assertion of a service there is heard of: has it abort, forgets the report
#   san_collect                         before the rig is gone: their reports come to $SAN_REPORTS
#
# The options are set here, for the whole script: nodes may boot in a subshell of it (`ok`).
if [ -n "${SAN_REPORTS:-}" ]; then
	for san_name in ASAN_OPTIONS LSAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS; do
		san_value=${!san_name:-}
		san_value=${san_value//"$SAN_REPORTS"//shared/san/%n}
		RIG_ENV="${RIG_ENV:-}$san_name=${san_value//"$TOP/tests/tsan.supp"//shared/san/tsan.supp} "
	done
	export RIG_ENV
fi
san_nodes() {
	local n
	[ -n "${SAN_REPORTS:-}" ] || return 0
	for n; do mkdir -p "$RIG_DIR/shared/san/$n" && chmod 1777 "$RIG_DIR/shared/san/$n" || return 1; done
	cp "$TOP/tests/tsan.supp" "$RIG_DIR/shared/san/"
}
san_hears() {
	local pid report
	pid=$(node_pid "$1" "$2") || return 1
	report=$RIG_DIR/shared/san/$1/report.scoutfs-$2.$pid
	node "$1" kill -ABRT "$pid" && wait_for 90 grep -q SUMMARY "$report" && rm "$report"
}
san_collect() {
	local f
	[ -n "${SAN_REPORTS:-}" ] || return 0
	for f in "$RIG_DIR"/shared/san/*/*; do
		[ ! -e "$f" ] || cp "$f" "$SAN_REPORTS/$(basename "$(dirname "$f")").$(basename "$f")"
	done
}
