#!/bin/sh
# SPDX-License-Identifier: MIT
# libblkio's vhost-user driver against zqcow2 vhost-user, with every backend:
#
#   sh tests/interop/blkio.sh TOOL [REQUESTS [SEED]]
#
# Debian 12 has no libblkio, so that of Debian's newest release is unpacked in the cache of the guest tests.
set -u
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { sed -n '4,5s/^# *//p' "$0"; exit 2; }
. "$here/blkio_lib.sh"
requests=${2:-20000}
seed=${3:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
passed=0 failed=0

verdict() { # STATUS NAME
    if [ "$1" = 0 ]; then
        passed=$((passed + 1))
        echo "ok - $2"
    else
        failed=$((failed + 1))
        echo "not ok - $2"
        sed 's/^/# /' "$WORK/log" "$WORK/server"
    fi
}

judge() { # NAME COMMAND...
    name=$1
    shift
    "$@" >"$WORK/log" 2>&1
    verdict $? "$name"
}

# refused TEXT ARGUMENTS...: the program fails, and says why.
refused() {
    reason=$1
    shift
    ! "$WORK/blkio" "$@" >"$WORK/refusal" 2>&1 && cat "$WORK/refusal" && grep -q "$reason" "$WORK/refusal"
}

empty_zones() {
    "$TOOL" report "$WORK/d.qcow2" >"$WORK/report" && [ "$(grep -c 'zcond: 1(em)' "$WORK/report")" = 12 ]
}

need_blkio
for backend in file threads uring; do
    for create in '-o cluster_size=64k' '-o cluster_size=4k' '-o extended_l2=on'; do
        "$TOOL" create --force $create "$WORK/d.qcow2" 48M >/dev/null || exit 1
        judge "$backend, $create: the server starts" start_ours --queues=2 --backend=$backend "$WORK/d.qcow2"
        judge "$backend, $create: random requests" \
            "$WORK/blkio" verify "$WORK/ours.sock" "$requests" "$seed"
        sed 's/^/# /' "$WORK/log"
        judge "$backend, $create: the server ends well" stop_ours
        judge "$backend, $create: the image is sound" "$TOOL" check "$WORK/d.qcow2"
    done
done
"$TOOL" create --force "$WORK/d.qcow2" 48M >/dev/null
judge 'read-only: the server starts' start_ours --read-only "$WORK/d.qcow2"
judge 'read-only: the driver knows' refused 'Device is read-only' \
    verify "$WORK/ours.sock" 100 1
judge 'read-only: the server ends well' stop_ours
"$TOOL" create --force -o zone.size=4M "$WORK/d.qcow2" 48M >/dev/null
judge 'zoned: the server starts' start_ours "$WORK/d.qcow2"
judge 'zoned: a driver that knows no zones cannot write' refused 'a request: Input/output error' \
    bench "$WORK/ours.sock" write 1 4096 4
judge 'zoned: it reads' "$WORK/blkio" bench "$WORK/ours.sock" read 0 4096 4
judge 'zoned: the server ends well' stop_ours
judge 'zoned: nothing was written' empty_zones
echo "$passed passed, $failed failed"
[ $failed = 0 ]
