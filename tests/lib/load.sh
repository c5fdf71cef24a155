# Loads behind a test's back, spoken to over two pipes.  Source it after common.sh.
#
#   load_start CMD...           the load; one at a time
#   load_say WORD               a line for it
#   load_report                 churn's counters since the last question: $done_ops $errors $longest
#   load_goes_on WAS            it has done 50 operations more than WAS: it did not only survive
#   load_stop                   churn ends; its last line is $load_last, its status ours
#   load_expect PREFIX SECONDS  crashload's lines until one begins with PREFIX ($line); its verdicts become ours
#   load_kill                   the load is not wanted any more
#   restarted SERVICE PID       SERVICE runs, and is not the process PID
load_start() {
	coproc LOAD { exec "$@" 2>&1; }
	# shellcheck disable=SC2153
	exec {load_from}<&"${LOAD[0]}" {load_to}>&"${LOAD[1]}"
	load_pid=$LOAD_PID load_last=
}
load_say() { echo "$1" >&"$load_to"; }
load_report() {
	load_say report
	while IFS= read -r -t 120 -u "$load_from" line; do
		# shellcheck disable=SC2086
		case $line in ops*) set -- $line; done_ops=$2 errors=$4 longest=$6; return 0 ;; *) echo "# $line" ;; esac
	done
	done_ops=0 errors=1 longest=none
	return 1
}
# Also called with its output thrown away: what the load complains of is kept as well.
load_goes_on() { load_report >>"$TMP/complaints" && [ "$done_ops" -gt $(($1 + 50)) ]; }
load_stop() {
	load_say stop
	while IFS= read -r -t 120 -u "$load_from" line; do
		# shellcheck disable=SC2086
		case $line in ops*) load_last=$line; set -- $line; done_ops=$2 errors=$4 longest=$6 ;; *) echo "# $line" ;; esac
	done
	[ -s "$TMP/complaints" ] && cat "$TMP/complaints"
	rm -f "$TMP/complaints"
	exec {load_to}>&- {load_from}<&-
	wait "$load_pid"
}
load_expect() {
	while IFS= read -r -t "$2" -u "$load_from" line; do
		case $line in
		ok*) pass "${line#ok - }" ;;
		"not ok"*) fail "${line#not ok - }" ;;
		"#"*) echo "$line" ;;
		esac
		case $line in "$1"*) return 0 ;; esac
	done
	return 1
}
load_kill() {
	exec {load_to}>&- {load_from}<&-
	kill "$load_pid" 2>/dev/null
	wait "$load_pid" 2>/dev/null
	return 0
}
restarted() { local p; p=$(inst_pid "$1" 2>/dev/null) && [ -n "$p" ] && [ "$p" != "$2" ] && kill -0 "$p"; }
