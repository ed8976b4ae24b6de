#!/bin/sh
# SPDX-License-Identifier: MIT
# Random requests of 4 KiB, 32 at a time, on one queue of a vhost-user disk: zqcow2 vhost-user against the
# export of qemu-storage-daemon, both behind the same program of libblkio.
#
#   sh tests/bench/vhost.sh TOOL [ROUNDS [SECONDS]]
#
# The image is a plain qcow2 of 256 MiB that is full and in the page cache; "fresh" is an empty one, whose
# clusters are allocated by the writes. The figures are medians of the rounds: requests per second, and the
# processor time that the server takes for one, in microseconds, which other programs disturb less. The servers
# take turns. QEMU has an I/O thread; the ratios are those to the better of its ways to access a file.
set -u
here=$(cd "$(dirname "$0")/../interop" && pwd)
[ $# -gt 0 ] || { sed -n '6s/^# *//p' "$0"; exit 2; }
. "$here/blkio_lib.sh"
rounds=${2:-5}
seconds=${3:-2}
size=$((256 << 20))

start_qemu() { # AIO IMAGE
    export=type=vhost-user-blk,id=e,node-name=d,addr.type=unix,writable=on,num-queues=1,iothread=t0
    "$NEWEST/run" qemu-storage-daemon --object iothread,id=t0 \
        --blockdev "driver=file,node-name=f,filename=$2,aio=$1" --blockdev driver=qcow2,node-name=d,file=f \
        --export "$export,addr.path=$WORK/$1.sock" \
        >"$WORK/$1.log" 2>&1 </dev/null &
    QEMU_PID=$!
    SERVERS="$SERVERS $QEMU_PID"
    wait_for_socket "$WORK/$1.sock" $QEMU_PID || die "qemu-storage-daemon: $(cat "$WORK/$1.log")"
}

ticks() { # PID
    awk '{ print $14 + $15 }' "/proc/$1/stat"
}

# once NAME KIND: a server of its own on an image of its own; appends to $WORK/NAME.KIND.
once() {
    image=$WORK/$1.qcow2
    rm -f "$WORK/ours.sock"
    if [ $2 = fresh ]; then
        image=$WORK/fresh.qcow2
        "$TOOL" create --force "$image" $size >/dev/null
    elif [ ! -e "$image" ]; then
        cp "$WORK/full.qcow2" "$image"
    fi
    way=$2
    [ $way = fresh ] && way=write
    case $1 in
    qemu-*)
        start_qemu "${1#qemu-}" "$image"
        socket=$WORK/${1#qemu-}.sock pid=$QEMU_PID
        ;;
    *)
        start_ours --queues=1 --backend="$1" "$image" || die "$(cat "$WORK/server")"
        socket=$WORK/ours.sock pid=$OURS
        ;;
    esac
    before=$(ticks $pid)
    rate=$("$WORK/blkio" bench "$socket" $way "$seconds" 4096 32) || die "$1, $2: failed"
    echo "$rate" >>"$WORK/$1.$2.rate"
    echo "$before $(ticks $pid) $rate" | awk -v t="$(getconf CLK_TCK)" -v s="$seconds" \
        '{ printf "%.2f\n", ($2 - $1) * 1e6 / t / ($3 * s) }' >>"$WORK/$1.$2.time"
    kill $pid
    wait $pid
}

NAMES='file threads uring qemu-threads qemu-io_uring'

table() { # rate|time HIGHER-IS-BETTER
    for kind in read write fresh; do
        row=
        for name in $NAMES; do
            row="$row $(sort -n "$WORK/$name.$kind.$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }')"
        done
        echo "$kind $row" | awk -v up=$2 '{
            q = up == ($5 > $6) ? $5 : $6
            printf "%-6s", $1
            for (i = 2; i <= 6; i++) printf " %13s", $i
            for (i = 2; i <= 4; i++) printf " %9.2f", up ? $i / q : q / $i
            print "" }'
    done
}

need_blkio
"$TOOL" create "$WORK/full.qcow2" $size >/dev/null
head -c $size /dev/urandom | "$TOOL" write "$WORK/full.qcow2" 0 >/dev/null || die 'cannot fill the image'
round=0
while [ $round -lt "$rounds" ]; do
    for kind in read write fresh; do
        for name in $NAMES; do
            once $name $kind
        done
    done
    round=$((round + 1))
done
say "$("$NEWEST/run" qemu-storage-daemon --version | head -1); 4 KiB, 32 at a time, $rounds rounds of $seconds s"
printf '%-6s %13s %13s %13s %13s %13s %9s %9s %9s\n' '' $NAMES file/ threads/ uring/
table rate 1
say 'microseconds of processor time for each request'
table time 0
