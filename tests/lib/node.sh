# Helpers for tests of the units in one node of the rig (tests/rig), with a volume on its two devices.  Sources common.sh.
#
#   node CMD...                         run CMD in the node
#   node_up                             boot it, and install the build in it as a package would
#   node_conf                           make the volume, and an instance "mnt" of it
#   unit SERVICE, property SERVICE P    of the instance
#   journal [LINES]                     what its services said
#   checked TEXT CMD...                 as ok; a failure shows what the services said
#   all_are "STATE..." [UNIT...]        each service of the instance, and these units, are in one of the states
# The trap takes everything down, however the test ends.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$(dirname "${BASH_SOURCE[0]}")/sanitizer.sh"
export RIG_DIR=$TMP/rig RIG_NAME=scoutfs$$ RIG_DISK_SIZE=16G
RIG=$TOP/tests/rig/rig
rig_down() { local rc=$?; san_collect; "$RIG" down; return $rc; }
trap 'rig_down; cleanup' EXIT
MNT=/mnt/units$$
DAEMONS="blockd quorumd serverd fsd"

node() { "$RIG" exec n1 "$@"; }
unit() { case $1 in fsd) echo scoutfs@mnt.service ;; *) echo "scoutfs-$1@mnt.service" ;; esac; }
property() { node systemctl show -P "$2" "$(unit "$1")"; }
journal() { node journalctl --no-pager -q -o cat -n "${1:-60}" -u 'scoutfs*@mnt.service'; }
checked() { local t=$1 out; shift; if out=$("$@" 2>&1); then pass "$t"; else fail "$t" "$out
$(journal)"; fi; }
all_are() {
	local d states=$1
	shift
	for d in runtime $DAEMONS "$@"; do
		case " $states " in *" $(property "$d" ActiveState) "*) ;; *) return 1 ;; esac
	done
}
node_up() {
	san_nodes n1
	ok "a node boots" "$RIG" up
	ok "the build is staged" make ${SAN_REPORTS:+-o all} -C "$TOP" --no-print-directory -s "BUILD=$BUILD" "DESTDIR=$RIG_DIR/shared/stage" install
	ok "and installed in the node" node sh -ec 'rm -rf /etc/scoutfs; cp -a --no-preserve=ownership /shared/stage/. /
		systemd-sysusers; systemd-tmpfiles --create scoutfs.conf; systemctl daemon-reload'
}
node_conf() {
	ok "mkfs" node scoutfsctl mkfs -A -Q 0,127.0.0.1,12345 /dev/shared0 /dev/shared1
	node sh -c "mkdir -p $MNT; printf '%s\n' 'meta_device = /dev/shared0' 'data_device = /dev/shared1' \
		'mountpoint = $MNT' 'quorum_slot = 0' 'cache_size = 64M' 'pool_size = 64M' >/etc/scoutfs/mnt.conf"
}
