# Helpers for tests with several nodes: a rig of systemd nodes (tests/rig) with the build installed in each, one volume
# on the two devices that all of them share, and an instance "mnt" of it in each node.  Sources common.sh.
#
#   NODES="n1 n2 n3" SLOTS=3            set before, when there are to be others
#   KEYS=no                             set before: the nodes talk without keys (insecure = yes); else with them
#   cluster_up                          boot the nodes, install the build and the test programs (/shared/bin) in each
#   cluster_keys [nX]...                a new key for each (all), and the list of all nodes' keys to all of them
#   cluster_list nX...                  the lines of these nodes for the list of allowed nodes
#   cluster_mkfs                        make the volume: quorum slots 0..SLOTS-1 at the nodes n1..nSLOTS
#   cluster_conf [key=value]...         write /etc/scoutfs/mnt.conf in every node; members get their quorum_slot
#   node nX CMD...                      run CMD in a node
#   cluster_start [nX]...               systemctl start scoutfs@mnt there, all at once (all nodes)
#   cluster_stop [nX]...                systemctl stop there, all at once
#   unit SERVICE, property nX SERVICE P of the instance in a node; node_pid nX SERVICE, once there is one
#   journal nX [LINES]                  what the services of a node said
#   checked TEXT CMD...                 as ok; a failure shows what the services of all nodes said
#   cluster_check TEXT                  `scoutfsctl check` from n1 finds nothing; nothing is mounted then
#   leader, followers                   the node whose serverd serves (nothing, when none does just now), the others
#   the_leader                          the same, waited for: on a slow machine there may be an election at any time
#   one_leads [nX]...                   exactly one (of these) says that it leads
#   roles, somebody_leads               $L leads, $V and $O do not; the same, waited for and told
#   healthy nX, all_healthy             its status says that all is well; that of all nodes
#   said nX REGEX                       the services of a node have said so, once
#   is_down nX                          its mount is over, and nothing of it is left
#   addr nX                             its address
#   outside nX                          the path of its mount as the host sees it: for a program that uses several at once
#   verdicts SECONDS CMD...             run a program that says "ok - TEXT" and "not ok - TEXT"; its verdicts become ours
# The trap takes everything down, however the test ends.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$(dirname "${BASH_SOURCE[0]}")/sanitizer.sh"
export RIG_DIR=$TMP/rig RIG_NAME=scoutfs$$ RIG_DISK_SIZE=${RIG_DISK_SIZE:-16G}
export RIG_NET=${RIG_NET:-10.$((100 + $$ % 100)).$((RANDOM % 250))}
RIG=$TOP/tests/rig/rig
NODES=${NODES:-n1 n2 n3} SLOTS=${SLOTS:-3} KEYS=${KEYS:-yes}
DAEMONS="blockd quorumd serverd fsd"
MNT=/mnt/c		# in the nodes; there is no such folder on the host
rig_down() { local rc=$?; san_collect; "$RIG" down; return $rc; }
trap 'rig_down; cleanup' EXIT

node() { "$RIG" exec "$@"; }
addr() { echo "$RIG_NET.$((10 + ${1#n}))"; }
outside() { local pid; read -r pid _ <"$RIG_DIR/node/$1/init" && echo "/proc/$pid/root$MNT"; }
verdicts() {
	local line rc said=0
	timeout -k 10 "$@" >"$TMP/said" 2>&1; rc=$?
	while IFS= read -r line; do
		case $line in "ok - "*) pass "${line#ok - }" ;; "not ok - "*) said=1; fail "${line#not ok - }" ;; *) echo "# $line" ;; esac
	done <"$TMP/said"
	[ $rc = 0 ] && return
	[ $said = 1 ] || fail "$(basename "$2") ends as it should" "status $rc"
	journals | sed 's/^/# /'
}
leader() { local n; for n in $NODES; do case $(property "$n" serverd StatusText) in "leader of"*) echo "$n"; return ;; esac; done; return 1; }
the_leader() { wait_for 90 leader && leader; }
# shellcheck disable=SC2048
one_leads() { local n nr=0; for n in ${*:-$NODES}; do case $(property "$n" serverd StatusText) in "leader of"*) nr=$((nr + 1)) ;; esac; done; [ $nr = 1 ]; }
healthy() { node "$1" scoutfsctl status mnt; }
all_healthy() { local n; for n in $NODES; do healthy "$n" || return 1; done; }
said() { node "$1" journalctl --no-pager -q -o cat -u 'scoutfs*@mnt.service' | grep -qE -- "$2"; }
is_down() { [ "$(property "$1" fsd ActiveState)" = failed ] && ! node "$1" test -e /run/scoutfs/mnt/rid; }
followers() { local n l; l=$(leader); for n in $NODES; do [ "$n" = "$l" ] || echo "$n"; done; }
# shellcheck disable=SC2046
roles() { L=$(leader) || return 1; set -- $(followers); V=$1 O=$2; }
somebody_leads() { if wait_for 60 roles; then pass "somebody leads, others do not"; else fail "somebody leads"; fi; }
unit() { case $1 in fsd) echo scoutfs@mnt.service ;; *) echo "scoutfs-$1@mnt.service" ;; esac; }
property() { node "$1" systemctl show -P "$3" "$(unit "$2")"; }
# Nothing rather than 0, which systemd says of a service that is not there just now: to kill(1) that is the test itself.
has_pid() { pid_now=$(property "$1" "$2" MainPID) && [ "${pid_now:-0}" -gt 1 ]; }
node_pid() { local pid_now; wait_for 60 has_pid "$1" "$2" && echo "$pid_now"; }
journal() { node "$1" journalctl --no-pager -q -o short-iso-precise -n "${2:-60}" -u 'scoutfs*@mnt.service'; }
journals() { local n; for n in $NODES; do echo "--- $n"; timeout 20 "$RIG" exec "$n" journalctl --no-pager -q -o cat -n "${1:-30}" -u 'scoutfs*@mnt.service' 2>&1; done; }
checked() { local t=$1 out; shift; if out=$("$@" 2>&1); then pass "$t"; else fail "$t" "status $?: $(brief "$*") : $out
$(journals)"; fi; }

install_in() {
	node "$1" sh -ec 'rm -rf /etc/scoutfs; cp -a --no-preserve=ownership /shared/stage/. /; systemd-sysusers;
		systemd-tmpfiles --create scoutfs.conf; systemctl daemon-reload; mkdir -p '"$MNT"
}
cluster_up() {
	local n
	# shellcheck disable=SC2086
	san_nodes $NODES || return 1
	"$RIG" up -n "$(wc -w <<<"$NODES")" || return 1
	make ${SAN_REPORTS:+-o all} -C "$TOP" --no-print-directory -s "BUILD=$BUILD" "DESTDIR=$RIG_DIR/shared/stage" install || return 1
	mkdir -p "$RIG_DIR/shared/bin" && cp "$BUILD"/tests/posix/* "$RIG_DIR/shared/bin/" || return 1
	for n in $NODES; do install_in "$n" || return 1; done
	[ "$KEYS" = no ] || cluster_keys
}
cluster_list() { local n; for n; do node "$n" scoutfsctl keygen -p -a "$(addr "$n")" -n "$n" || return 1; done; }
cluster_keys() {
	local n
	for n in ${*:-$NODES}; do node "$n" scoutfsctl keygen -f >/dev/null 2>&1 || return 1; done
	# shellcheck disable=SC2086
	cluster_list $NODES >"$TMP/nodes.allow" || return 1
	for n in $NODES; do node "$n" sh -c 'cat >/etc/scoutfs/nodes.allow' <"$TMP/nodes.allow" || return 1; done
}
cluster_mkfs() {
	local i q=()
	for i in $(seq "$SLOTS"); do q+=(-Q "$((i - 1)),$(addr "n$i"),12345"); done
	node n1 scoutfsctl mkfs -f -A "${q[@]}" /dev/shared0 /dev/shared1
}
cluster_conf() {
	local n kv
	for n in $NODES; do
		{ printf '%s = %s\n' meta_device /dev/shared0 data_device /dev/shared1 mountpoint $MNT cache_size 64M pool_size 64M
		  [ "$KEYS" = no ] && echo "insecure = yes"
		  [ "${n#n}" -le "$SLOTS" ] && echo "quorum_slot = $((${n#n} - 1))"
		  for kv in "$@"; do echo "${kv%%=*} = ${kv#*=}"; done; } |
		awk -F' = ' '{v[$1] = $0; if (!($1 in n)) o[++i] = $1; n[$1] = 1} END {for (j = 1; j <= i; j++) print v[o[j]]}' |
		node "$n" sh -c 'cat >/etc/scoutfs/mnt.conf' || return 1
	done
}
# on_nodes nX... -- CMD...: CMD in each, at the same time; fails when one of them does
on_nodes() {
	local n list=() pids=() p rc=0
	while [ "$1" != -- ]; do list+=("$1"); shift; done
	shift
	for n in "${list[@]}"; do node "$n" "$@" & pids+=($!); done
	for p in "${pids[@]}"; do wait "$p" || rc=1; done
	return $rc
}
# shellcheck disable=SC2086
cluster_start() { on_nodes ${*:-$NODES} -- timeout 240 systemctl start scoutfs@mnt; }
# The service of the mount ends first; the device is free when the others have ended, too.
ended() { [ -z "$(node "$1" systemctl list-units --no-legend --plain --state=active,activating,deactivating 'scoutfs*@mnt.service')" ]; }
cluster_stop() {
	local n list=${*:-$NODES} rc
	# shellcheck disable=SC2086
	on_nodes $list -- timeout 200 systemctl stop scoutfs@mnt; rc=$?
	for n in $list; do wait_for 120 ended "$n" || rc=1; done
	return $rc
}
cluster_check() { checked "$1" node n1 scoutfsctl check /dev/shared0 /dev/shared1; }
