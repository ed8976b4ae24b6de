#!/bin/sh
# SPDX-License-Identifier: MIT
# A full host: one line says so, with what was written before; the image stays sound and can go on.
. "$(dirname "$0")/lib.sh"
mkdir full
unshare -rm true 2>err || skip "no namespace of mounts for oneself: $(cat err)"
unshare -rm mount -t tmpfs none full 2>err || skip "no tmpfs: $(cat err)"

random 8388608 1 >data
cat >fill.sh <<'END'
set -u
tool=$1
here=$PWD
mount -t tmpfs -o size=4M none full || exit 1
cd full || exit 1
"$tool" create -o zone.size=4M z.qcow2 64M || exit 1
# attempt NAME ARGUMENT...: its output beside the test, data on standard input.
attempt() {
    name=$1
    shift
    "$tool" "$@" <"$here/data" >"$here/$name.out" 2>"$here/$name.err"
    echo $? >"$here/$name.status"
}
attempt append append z.qcow2 0
attempt check check z.qcow2
attempt pointer report --json z.qcow2
cat /dev/zero >ballast 2>"$here/ballast"
attempt write write z.qcow2 8M
attempt io io -c 'write 16M 1M' -c flush z.qcow2
attempt create create y.qcow2 1M
attempt replace create --force z.qcow2 64G
rm ballast
attempt again check z.qcow2
attempt more io -c 'write -q 20M 64K' -c flush z.qcow2
END
unshare -rm sh fill.sh "$tool" >out 2>err
is 'all was tried' 0 $?
[ ! -s err ] || sed 's/^/# /' err
# one_line NAME REGEX: it failed, and that is all that it said on standard error.
one_line() {
    ran=$1
    is "$1: fails" 1 "$(cat "$1.status")"
    is "$1: one line" 1 "$(wc -l <"$1.err" | tr -d ' ')"
    verdict "$(grep -qE "$2" "$1.err"; echo $?)" "$1: says no space" || sed 's/^/# /' "$1.err"
}
one_line append '^zqcow2: z\.qcow2: append at 0: No space left on device; [0-9]+ bytes were written$'
is 'what it printed is there' "$(awk '{ end = $1 + $2 } END { print end + 0 }' append.out)" \
    "$(python3 -c 'import json; print(json.load(open("pointer.out"))[0]["write_pointer"])')"
is 'the image is sound' 0 "$(cat check.status)"
one_line write '^zqcow2: z\.qcow2: write at 8388608: No space left on device; 0 bytes were written$'
is 'io: fails' 1 "$(cat io.status)"
is 'io: one line, where io has its errors' 'write failed: No space left on device' \
    "$(cat io.out io.err)"
is 'with room, the image is sound' 0 "$(cat again.status)"
is 'and goes on' 0 "$(cat more.status)"
if [ "$(cat create.status)" = 0 ]; then
    echo '# the file system still had room for an empty image'
else
    one_line create '^zqcow2: y\.qcow2: No space left on device$'
fi
if [ "$(cat replace.status)" != 0 ]; then
    one_line replace '^zqcow2: z\.qcow2: .*No space left on device$'
fi
finish
