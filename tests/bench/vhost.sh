#!/bin/sh
# SPDX-License-Identifier: MIT
# Random requests of 4 KiB, 32 at a time, on one queue of a vhost-user disk: zqcow2 vhost-user against the
# export of qemu-storage-daemon, both behind the same program of libblkio.
#
#   sh tests/bench/vhost.sh TOOL [ROUNDS [SECONDS]]
#
# The image is a plain qcow2 of 512 MiB that is full and in the page cache; "fresh" is an empty one, whose
# clusters are allocated by the writes. Each figure is the median of the rounds, in requests per second; the
# servers take turns. QEMU has an I/O thread, and the better of its ways to access a file counts.
set -u
here=$(cd "$(dirname "$0")/../interop" && pwd)
[ $# -gt 0 ] || { sed -n '6s/^# *//p' "$0"; exit 2; }
. "$here/blkio_lib.sh"
rounds=${2:-5}
seconds=${3:-2}
size=$((512 << 20))

start_qemu() { # AIO IMAGE
    "$NEWEST/run" qemu-storage-daemon --object iothread,id=t0 \
        --blockdev "driver=file,node-name=f,filename=$2,aio=$1" --blockdev driver=qcow2,node-name=d,file=f \
        --export "type=vhost-user-blk,id=e,node-name=d,addr.type=unix,addr.path=$WORK/$1.sock,writable=on,num-queues=1,iothread=t0" \
        >"$WORK/$1.log" 2>&1 </dev/null &
    QEMU_PID=$!
    SERVERS="$SERVERS $QEMU_PID"
    wait_for_socket "$WORK/$1.sock" $QEMU_PID || die "qemu-storage-daemon: $(cat "$WORK/$1.log")"
}

# once NAME KIND: a server of its own on an image of its own; appends to $WORK/NAME.KIND.
once() {
    image=$WORK/image.qcow2
    rm -f "$image" "$WORK/ours.sock"
    case $2 in
    fresh) "$TOOL" create "$image" $size >/dev/null ;;
    *) cp "$WORK/full.qcow2" "$image" ;;
    esac
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
    "$WORK/blkio" bench "$socket" $way "$seconds" 4096 32 >>"$WORK/$1.$2" || die "$1, $2: failed"
    kill $pid
    wait $pid
}

median() { # NAME KIND
    sort -n "$WORK/$1.$2" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

need_blkio
"$TOOL" create "$WORK/full.qcow2" $size >/dev/null
head -c $size /dev/urandom | "$TOOL" write "$WORK/full.qcow2" 0 >/dev/null || die 'cannot fill the image'
round=0
while [ $round -lt "$rounds" ]; do
    for kind in read write fresh; do
        for name in file threads uring qemu-threads qemu-io_uring; do
            once $name $kind
        done
    done
    round=$((round + 1))
done
say "$("$NEWEST/run" qemu-storage-daemon --version | head -1); 4 KiB, 32 at a time, $rounds rounds of $seconds s"
printf '%-8s %10s %10s %10s %14s %14s %8s %8s %8s\n' '' file threads uring qemu-threads qemu-io_uring \
    file/ threads/ uring/
for kind in read write fresh; do
    file=$(median file $kind) threads=$(median threads $kind) uring=$(median uring $kind)
    qemu="$(median qemu-threads $kind) $(median qemu-io_uring $kind)"
    echo "$kind $file $threads $uring $qemu" | awk '{ q = $5 > $6 ? $5 : $6
        printf "%-8s %10d %10d %10d %14d %14d %8.2f %8.2f %8.2f\n", $1, $2, $3, $4, $5, $6, $2 / q, $3 / q, $4 / q }'
done
