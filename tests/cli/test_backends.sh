#!/bin/sh
# SPDX-License-Identifier: MIT
# --backend: every one that works here gives the same image.
. "$(dirname "$0")/lib.sh"

random 3000320 1 >data
for backend in file uring threads; do
    "$tool" create --backend=$backend --force p.qcow2 1M >out 2>err
    if grep -q 'is not available here' err; then
        echo "# $backend is not available here"
        continue
    fi
    run 0 "$backend: create" create --backend=$backend -o zone.size=4M $backend.qcow2 32M
    "$tool" append --backend=$backend $backend.qcow2 4M <data >out 2>err
    is "$backend: append" 0 $?
    run 0 "$backend: commands" io --backend=$backend -c 'aio_write -q -P 1 8M 64k' \
        -c 'aio_write -q -P 2 12M 4k' -c 'aio_flush' -c 'read -q -P 1 8M 64k' -c 'zf 16M 4M' \
        -c 'zap 20M 4k' -c 'zrs 20M 4M' -c 'flush' $backend.qcow2
    run 0 "$backend: read" read --backend=$backend $backend.qcow2 4M 3000320
    same "$backend: the same data" data out
    run 0 "$backend: check" check --backend=$backend $backend.qcow2
    run 0 "$backend: info" info --backend=$backend $backend.qcow2
    run 0 "$backend: report" report --backend=$backend $backend.qcow2
    [ -e report ] || cp out report
    same "$backend: the same report" report out
done
run 1 'another' info --backend=tape file.qcow2
has 'is refused by name' err "^zqcow2: --backend: 'tape'"
finish
