# Loads on several nodes at the same time: churn, which checks every answer, in a directory of its own on each.
# Source it after cluster.sh.
#
#   loads_start nX...           begin there
#   loads_mark nX...            what they have done until now; the longest stall is looked for anew
#   loads_go_on SECONDS nX...   each has done 50 operations more since the mark; what they stalled is $stall (ms), the
#                               worst of all, and $stalls, in words
#   loads_wait_more nX...       what they have done until now counts for the mark as well, not their stalls
#   loads_say nX WORD           a line for one of them
#   loads_stop nX...            they end; whether none has seen an error
#   loads_lose nX...            their node is gone, and they with it
declare -A load_in load_out load_pids load_was load_longest load_errors
load_complaints=0 load_starts=0
loads_start() {
	local n in out dir
	for n in "$@"; do
		rm -f "$TMP/load-$n".{in,out}
		mkfifo "$TMP/load-$n".{in,out}
		dir=$MNT/load-$n-$((load_starts += 1))	# a new one: what a lost load has left is its own
		"$RIG" exec "$n" sh -c "mkdir $dir && exec /shared/bin/churn $dir ${LOAD_THREADS:-2}" \
			<"$TMP/load-$n.in" >"$TMP/load-$n.out" 2>&1 &
		load_pids[$n]=$!
		exec {in}>"$TMP/load-$n.in" {out}<"$TMP/load-$n.out"
		load_in[$n]=$in load_out[$n]=$out load_was[$n]=0 load_longest[$n]=0 load_errors[$n]=0
	done
}
loads_say() { echo "$2" 2>/dev/null >&"${load_in[$1]}"; }
# load_read nX: churn's counters: $done_ops; what it complains of is said
load_read() {
	local line
	while IFS= read -r -t 120 -u "${load_out[$1]}" line; do
		# shellcheck disable=SC2086
		case $line in
		ops*)
			set -- "$1" $line
			done_ops=$3 load_errors[$1]=$5
			[ "$7" -le "${load_longest[$1]}" ] || load_longest[$1]=$7
			return 0 ;;
		*) [ $((load_complaints += 1)) -gt 20 ] || echo "# $1: $line" ;;
		esac
	done
	return 1
}
loads_mark() {
	local n
	for n in "$@"; do
		loads_say "$n" report && load_read "$n" || return 1
		load_was[$n]=$done_ops load_longest[$n]=0
	done
}
loads_wait_more() {
	local n
	for n in "$@"; do
		loads_say "$n" report && load_read "$n" || return 1
		load_was[$n]=$done_ops
	done
}
loads_go_on() {
	local end=$((SECONDS + $1)) n
	shift
	stall=0 stalls=
	for n in "$@"; do
		while :; do
			loads_say "$n" report && load_read "$n" || return 1
			[ "$done_ops" -gt $((${load_was[$n]} + 50)) ] && break
			[ $SECONDS -lt $end ] || return 1
			sleep 0.2
		done
	done
	for n in "$@"; do
		stalls+="${stalls:+, }$n ${load_longest[$n]} ms"
		[ "${load_longest[$n]}" -le $stall ] || stall=${load_longest[$n]}
	done
}
load_close() { exec {load_in[$1]}>&- {load_out[$1]}<&-; unset "load_pids[$1]"; }
loads_stop() {
	local n p rc=0
	for n in "$@"; do loads_say "$n" stop; done
	for n in "$@"; do
		p=${load_pids[$n]}
		load_read "$n" || { echo "# $n: its load does not end"; rc=1; }
		[ "${load_errors[$n]}" = 0 ] || rc=1
		load_close "$n"
		wait "$p" || rc=1
	done
	return $rc
}
loads_lose() {
	local n p
	for n in "$@"; do p=${load_pids[$n]}; load_close "$n"; kill "$p" 2>/dev/null; wait "$p" 2>/dev/null; done
	return 0
}
