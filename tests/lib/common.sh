# Helpers for system tests: a volume in two files, an instance that serves it, TAP lines, cleaning up.
# Source it first.  A test that sources this leaves nothing behind, however it ends.
#
#   vol_make [META_SIZE DATA_SIZE]      sparse files $META and $DATA, mkfs with one slot on loopback
#   inst_conf [key=value]...            writes $CONF for them; mount point $MNT
#   inst_start / inst_stop              bring all services up (mounted) / down in reverse
#   inst_pid SERVICE                    pid of blockd, quorumd, serverd, fsd
#   power_cut                           SIGKILL everything, forget the runtime directory
#   check_clean TEXT                    `scoutfsctl check` finds nothing (an ok/not ok line)
#   ok TEXT CMD... / nok TEXT CMD...    runs CMD; prints ok or not ok
#   is TEXT GOT WANT                    equality
#   wait_for SECONDS CMD...             poll a condition with a deadline
#   freeze PID                          SIGSTOP, and every thread has stopped
#   tap_done                            exit status
set -u
TOP=${TOP:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
BUILD=${BUILD:-$TOP/build}
SHARED=${SHARED:-$TOP/../shared}
CTL=$BUILD/scoutfsctl
TMP=$(mktemp -d "${TMPDIR:-/tmp}/scoutfs-test.XXXXXX")
META=$TMP/meta DATA=$TMP/data MNT=$TMP/mnt CONF=$TMP/t.conf LOG=$TMP/daemons.log
PORT=$((20000 + RANDOM % 12000))	# none that the kernel gives to connections, which start at 32768
tap_n=0 tap_failed=0

tap_line() { tap_n=$((tap_n + 1)); echo "$1 $tap_n - $(brief "$2" 400)"; }
# brief TEXT [LENGTH]: in one line, the middle left out when it is long
brief() {
	local t=${1//$'\n'/ \\n } max=${2:-150}
	[ ${#t} -le "$max" ] || t="${t:0:max - 45} ... ${t: -40}"
	printf '%s\n' "$t"
}
pass() { tap_line ok "$1"; }
fail() {
	tap_failed=$((tap_failed + 1))
	tap_line "not ok" "$1"
	[ -z "${2:-}" ] || printf '%s\n' "$2" | sed 's/^/# /'
	complaints | tail -n 3
}
# complaints: what the services have warned of, in their log
complaints() { [ ! -e "$LOG" ] || grep -E ' (err|warning): ' "$LOG" | sed 's/^/# log: /'; }
skip() { tap_n=$((tap_n + 1)); echo "ok $tap_n # SKIP $1"; }
ok() { local t=$1 out; shift; if out=$("$@" 2>&1); then pass "$t"; else fail "$t" "status $?: $(brief "$*") : $out"; fi; }
nok() { local t=$1 out; shift; if out=$("$@" 2>&1); then fail "$t" "succeeded: $* : $out"; else pass "$t"; fi; }
is() {
	if [ "$2" = "$3" ]; then pass "$1"; return; fi
	fail "$1" "got '$(brief "$2")', wanted '$(brief "$3")'"
	case $2$3 in *$'\n'*) printf '%s\n' "all of it:" "$2" | sed 's/^/# /' ;; esac
}
tap_done() {
	echo "1..$tap_n"
	[ "$tap_failed" = 0 ] || { echo "# daemons:"; complaints | tail -n 100; tail -n 40 "$LOG" 2>/dev/null | sed 's/^/# /'; }
	exit $((tap_failed != 0))
}
wait_for() { local end=$((SECONDS + $1)); shift; until "$@" >/dev/null 2>&1; do
	[ $SECONDS -lt $end ] || return 1; sleep 0.1; done; }

vol_make() {
	rm -f "$META" "$DATA"
	truncate -s "${1:-8G}" "$META"; truncate -s "${2:-16G}" "$DATA"
	"$CTL" mkfs -f -A -Q "0,127.0.0.1,$PORT" "$META" "$DATA" >/dev/null
}
inst_conf() {
	mkdir -p "$MNT"
	{ printf '%s = %s\n' meta_device "$META" data_device "$DATA" mountpoint "$MNT" quorum_slot 0 \
		runtime_dir "$TMP/run" state_dir "$TMP/state" cache_size 64M pool_size 64M
	  for kv in "$@"; do echo "${kv%%=*} = ${kv#*=}"; done; } | awk -F' = ' '{v[$1] = $0; if (!($1 in n)) o[++i] = $1; n[$1] = 1}
		END {for (j = 1; j <= i; j++) print v[o[j]]}' >"$CONF"
}
inst_start() { "$CTL" run -d -l "$LOG" "$CONF"; }
inst_stop() { "$CTL" stop "$CONF"; }
inst_pid() { cat "$TMP/run/$1.pid"; }
power_cut() {
	local pid pids
	pids=$(cat "$TMP/run"/{run,fsd,serverd,quorumd,blockd}.pid 2>/dev/null)
	# all in one go: none of them may have time to notice that another has died, and the death of
	# the supervisor, which the services are told of by a signal, must not begin an orderly stop
	# shellcheck disable=SC2086
	kill -STOP $pids 2>/dev/null
	# shellcheck disable=SC2086
	kill -9 $pids 2>/dev/null
	for pid in $pids; do wait_for 90 no_process "$pid"; done
	umount -l "$MNT" 2>/dev/null
	umount -l "$TMP/run" 2>/dev/null
	rm -rf "$TMP/run"
	return 0
}
# freeze PID: SIGSTOP, until every thread has stopped: one that has not been scheduled since goes on answering
is_frozen() { local f s; for f in "/proc/$1"/task/*/stat; do s=$(<"$f") || return 1; s=${s##*) }; [ "${s%% *}" = T ] || return 1; done; }
freeze() { kill -STOP "$1" && wait_for 60 is_frozen "$1"; }
no_process() { [ -z "${1:-}" ] || ! kill -0 "$1" 2>/dev/null || [ "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null)" = Z ]; }
check_clean() {
	local out rc
	out=$("$CTL" check "$META" "$DATA" 2>&1); rc=$?
	if [ $rc = 0 ]; then pass "$1"; else fail "$1" "status $rc: $(printf '%s\n' "$out" | tail -n 20)"; fi
}
cleanup() {
	local s rc=$?
	trap - EXIT
	[ -e "$TMP/run/run.pid" ] && power_cut
	umount -l "$MNT" 2>/dev/null; umount -l "$TMP/run" 2>/dev/null
	[ -n "${KEEP:-}" ] || rm -rf "$TMP"
	exit $rc
}
trap cleanup EXIT
trap 'exit 143' TERM INT HUP
