#!/bin/bash
# POSIX semantics on a real mount: what programs see (tests/posix/semantics.c says each promise), ACLs,
# requests of killed and of patient programs, and that all of it is still there after a remount.
. "$(dirname "$0")/../lib/common.sh"
SEM=$BUILD/tests/posix/semantics

vol_make || { fail "a volume"; tap_done; }
inst_conf
ok "mounts" inst_start
chmod 711 "$TMP"	# others reach the mount, so that it is the mount that refuses them

# ---- what a program sees
mkdir "$MNT/sem"
timeout 300 "$SEM" "$MNT/sem" >"$TMP/sem.out" 2>"$TMP/sem.err"
sem_rc=$?
while read -r line; do
	case $line in
	"ok "*) pass "${line#ok }" ;;
	*) fail "${line#not ok }" ;;
	esac
done <"$TMP/sem.out"
is "the program ended as it should" "$sem_rc $(cat "$TMP/sem.err")" "0 "

# ---- ACLs
acl() { getfacl -cnp "$1" 2>&1 | grep -v '^$' | tr '\n' ' '; }
as() { local uid=$1; shift; setpriv --reuid "$uid" --regid "$uid" --clear-groups -- "$@"; }
mode() { stat -c %a "$1"; }
umask 022
D=$MNT/acl
mkdir "$D"
echo secret >"$D/f"; chmod 640 "$D/f"
nok "a stranger cannot read" as 60001 cat "$D/f"
ok "an ACL entry is set" setfacl -m u:60001:r-- "$D/f"
is "... and reads back" "$(acl "$D/f")" "user::rw- user:60001:r-- group::r-- mask::r-- other::--- "
ok "... and lets who it names read" as 60001 cat "$D/f"
nok "... but not others" as 60002 cat "$D/f"
chmod 600 "$D/f"
is "chmod rewrites the mask" "$(acl "$D/f")" "user::rw- user:60001:r--	#effective:--- group::r--	#effective:--- mask::--- other::--- "
nok "... which takes the right away" as 60001 cat "$D/f"
setfacl -m m::rw- "$D/f"
is "setting the mask changes the mode" "$(mode "$D/f")" 660
ok "... and gives the right back" as 60001 cat "$D/f"
setfacl -b "$D/f"
is "without named entries no attribute is left" "$(getfattr -dm - "$D/f" 2>/dev/null)" ""
nok "... and the right is gone" as 60001 cat "$D/f"
setfacl -m u::rwx,g::r-x,o::--- "$D/f"
is "an ACL that says what mode bits say is folded into them" "$(mode "$D/f") $(getfattr -dm - "$D/f" 2>/dev/null)" "750 "

mkdir "$D/dir"
ok "a default ACL is set" setfacl -d -m u::rwx,u:60001:rwx,g::r-x,m::rwx,o::--- "$D/dir"
nok "... not on a file" setfacl -d -m u:60001:r "$D/f"
(umask 077; echo x >"$D/dir/file"; mkdir "$D/dir/sub")
is "a file inherits it, cut to what was asked for, and no umask" "$(acl "$D/dir/file")" \
	"user::rw- user:60001:rwx	#effective:rw- group::r-x	#effective:r-- mask::rw- other::--- "
ok "... which counts" as 60001 sh -c "echo more >>'$D/dir/file'"
is "a directory inherits it as its own and as its default" "$(acl "$D/dir/sub")" \
	"user::rwx user:60001:rwx group::r-x mask::rwx other::--- default:user::rwx default:user:60001:rwx default:group::r-x default:mask::rwx default:other::--- "
mkdir "$D/plain"
setfacl -d -m u::rwx,g::r--,o::--- "$D/plain"
(umask 0; echo x >"$D/plain/file")
is "a default ACL of mode bits only gives mode bits only" "$(mode "$D/plain/file") $(getfattr -dm - "$D/plain/file" 2>/dev/null)" "640 "
setfacl -k "$D/plain"
(umask 022; echo x >"$D/plain/file2")
is "without it the umask counts again" "$(mode "$D/plain/file2")" 644
echo x >"$D/sgid"; chown 60001:60002 "$D/sgid"; chmod 2775 "$D/sgid"
ok "an owner who is not of the file's group sets an ACL" as 60001 setfacl -m u:60003:r "$D/sgid"
is "... and setgid goes" "$(mode "$D/sgid")" 775
chmod 2775 "$D/sgid"
ok "one who is of the group sets an ACL" setpriv --reuid 60001 --regid 60001 --groups 60002 -- setfacl -m u:60003:- "$D/sgid"
is "... and setgid stays" "$(mode "$D/sgid")" 2775

# ---- programs that are interrupted while the leader is silent
is_waiting() { grep -q request_wait "/proc/$1/wchan" || grep -q '^137 ' "/proc/$1/syscall"; }
S=$(inst_pid serverd)
freeze "$S"
"$SEM" --patient "$MNT" >"$TMP/patient" & patient=$!
"$SEM" --patient "$MNT" >"$TMP/killed" & killed=$!
disown $killed
wait_for 90 is_waiting $patient || fail "a program waits for the silent leader"
wait_for 90 is_waiting $killed || fail "a program waits for the silent leader"
kill -USR1 $patient; kill -USR1 $killed
{ kill -KILL $killed; } 2>/dev/null
ok "a killed program ends while the leader is silent, though a signal came before" wait_for 60 no_process $killed
no_process $patient && fail "a patient program waits on" || pass "a patient program waits on"
kill -CONT "$S"
wait $patient
is "... and sees no error from its signals" "$? $(cat "$TMP/patient")" "0 waiting"

# ---- it lasts
mkdir "$MNT/kept"
cp -a "$D" "$MNT/kept/acl"
setfattr -n user.k -v "$(printf 'v%.0s' {1..3000})" "$MNT/kept"
ln -s "$(printf 't%.0s' {1..4000})" "$MNT/kept/link"
mknod "$MNT/kept/dev" b 259 70000
touch -d '1961-02-03 04:05:06.789' "$MNT/kept/dev"
picture() { (cd "$MNT" && find . -printf '%p %i %M %n %U %G %s %T@ %l\n' | sort; getfattr -Rhdm - . 2>/dev/null; getfacl -Rnp . 2>/dev/null); }
picture >"$TMP/before"
ok "unmounts" inst_stop
check_clean "the volume is clean"
ok "mounts again" inst_start
picture >"$TMP/after"
is "everything is as it was" "$(diff "$TMP/before" "$TMP/after" | head -n 5)" ""
ok "and can be removed" rm -rf "$MNT/sem" "$MNT/acl" "$MNT/kept"
is "nothing is left in the root" "$(ls -A "$MNT")" ""
ok "unmounts again" inst_stop
check_clean "the volume is clean after it"
tap_done
