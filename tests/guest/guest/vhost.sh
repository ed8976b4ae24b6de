# SPDX-License-Identifier: MIT
# A disk of zqcow2 vhost-user, which runs on the host: /dev/vdb. While "# LOADING" is the last line,
# the host kills the server again and again.
DEV=/dev/vdb

run_fio() {
    fio --filename=$DEV --direct=1 --ioengine=libaio --iodepth=16 --thread --randrepeat=1 \
        --output-format=terse --output=/tmp/fio.out --verify=crc32c --do_verify=1 \
        --verify_fatal=1 "$@"
    status=$?
    [ $status = 0 ] || cat /tmp/fio.out
    return $status
}

is_zero() { # OFFSET LENGTH, in MiB
    dd if=$DEV bs=1M skip=$1 count=$2 iflag=direct 2>/dev/null | tr -d '\0' | wc -c | grep -qx 0
}

mount_btrfs() {
    mkfs.btrfs -q -f $DEV && mount -t btrfs $DEV /mnt && cp -r /tests /mnt/ && sync &&
        umount /mnt && mount -t btrfs $DEV /mnt && cmp /tests/vhost.sh /mnt/tests/vhost.sh &&
        umount /mnt
}

ok "its size" grep -qx 524288 /sys/block/vdb/size
ok "its queues" [ "$(ls /sys/block/vdb/mq | wc -l)" = 2 ]
ok "its name" grep -q '^vhost.qcow2' /sys/block/vdb/serial
ok "sequential write, verify" run_fio --name=seq --rw=write --bs=128k --size=64M
ok "random write of many sizes, 2 jobs, verify" run_fio --name=rnd --rw=randwrite \
    --bsrange=4k-64k --blockalign=4k --numjobs=2 --size=32M --offset_increment=64M
ok "discard" blkdiscard -o 1M -l 8M $DEV
ok "what is discarded is zero" is_zero 1 8
load btrfs
ok "btrfs" mount_btrfs
# Blocks of 64 KiB, each durable before the next is begun. A block whose write fails is written again.
# No block may be missing at the end.
LAST=300
block() { # NUMBER
    yes "block $1 of the load" | head -c 65536
}
write_block() { # NUMBER
    block $1 | dd of=$DEV bs=64k seek=$(($1 + 1024)) oflag=direct conv=fsync iflag=fullblock 2>/dev/null
}
load_blocks() {
    i=0 failed=0
    while [ $i -lt $LAST ] && [ $failed -lt 100 ]; do
        if write_block $i; then i=$((i + 1)); else failed=$((failed + 1)); fi
    done
    tap_say "# $i blocks, $failed of them failed and were written again"
    [ $i = $LAST ]
}
all_there() {
    i=0
    while [ $i -lt $LAST ]; do
        block $i >/tmp/want
        dd if=$DEV bs=64k skip=$((i + 1024)) count=1 iflag=direct 2>/dev/null | cmp - /tmp/want || return 1
        i=$((i + 1))
    done
}
tap_say "# LOADING"
ok "durable writes while servers die" load_blocks
tap_say "# LOADED"
ok "all of them are there" all_there
ok "random write behind it, verify" run_fio --name=end --rw=randwrite --bs=16k --size=32M
