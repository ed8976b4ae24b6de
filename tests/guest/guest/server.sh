# SPDX-License-Identifier: MIT
# The server itself: add, list, del, messages for wrong use, and a plain device.
load ublk_drv
Z=/data/z.qcow2
P=/data/p.qcow2

# refused PATTERN COMMAND...: fails with exactly one line on standard error that matches.
refused() {
    pattern=$1
    shift
    "$@" >/tmp/out 2>/tmp/err && { echo "no error"; return 1; }
    cat /tmp/out /tmp/err
    [ "$(wc -l </tmp/err)" = 1 ] && grep -q "$pattern" /tmp/err
}

add_prints_geometry() {
    make_image $Z 256M zone.size=8M zone.capacity=6M zone.conventional_zones=2 \
        zone.max_open_zones=4 zone.max_active_zones=6 && serve $Z || return 1
    cat /tmp/add.log
    grep -q 'host-managed: 32 zones of 8 MiB, capacity 6 MiB, 2 conventional' /tmp/add.log &&
        grep -q 'max open 4, max active 6' /tmp/add.log &&
        grep -q '^  256 MiB, host-managed' /tmp/add.log &&
        grep -q 'largest append 512 KiB' /tmp/add.log &&
        [ "$(cat /sys/block/ublkb$ID/queue/zoned)" = host-managed ] &&
        [ "$(cat /sys/block/ublkb$ID/queue/nr_zones)" = 32 ] &&
        [ "$(cat /sys/block/ublkb$ID/queue/chunk_sectors)" = 16384 ] &&
        [ "$(cat /sys/block/ublkb$ID/queue/max_open_zones)" = 4 ] &&
        [ "$(cat /sys/block/ublkb$ID/queue/max_active_zones)" = 6 ] &&
        [ "$(cat /sys/block/ublkb$ID/queue/zone_append_max_bytes)" = 524288 ] &&
        [ "$(cat /sys/block/ublkb$ID/queue/write_cache)" = "write back" ]
}
ok "add prints the device and its geometry" add_prints_geometry

list_shows_it() {
    zqcow2 ublk list
    zqcow2 ublk list | grep -q "^$ID	$DEV	pid [0-9]*	$Z\$"
}
ok "list shows it" list_shows_it
# Without the kernel's own workers of a ring, which work with the rights of who submits.
every_thread_is_confined() {
    pid=$(server_pid $ID)
    grep -hE '^(Name|NoNewPrivs|Seccomp|CapEff):' /proc/$pid/task/*/status | sort | uniq -c
    for t in /proc/$pid/task/*/status; do
        ! grep -q '^Name:.iou-' $t || continue
        grep -q '^Seccomp:.2$' $t && grep -q '^NoNewPrivs:.1$' $t &&
            grep -q '^CapEff:.0000000000000000$' $t || return 1
    done
}
ok "every thread of the server is confined" every_thread_is_confined
ok "the image in use is refused" refused 'in use\|lock' zqcow2 ublk add $Z
make_image $P 64M
ok "an id in use is refused" refused "id $ID is in use" zqcow2 ublk add --id $ID $P

conventional_io() {
    zqguest io write $DEV 8192 65536 && zqguest io read $DEV 8192 65536 &&
        zqguest io write $DEV 4096 8192 2 && zqguest io read $DEV 4096 8192 2 &&
        zqguest io read $DEV 12288 61440
}
ok "a conventional zone is written, overwritten and read back" conventional_io

sequential_io() {
    off=$((2 * 8 * 1024 * 1024))
    zqguest io write $DEV $off 131072 7 && zqguest io read $DEV $off 131072 7 &&
        zqguest io zeros $DEV $((off + 131072)) 4096 && ! zqguest io write $DEV $off 4096
}
ok "a sequential zone takes writes at its pointer only" sequential_io

persists() {
    zqcow2 ublk del $Z && [ ! -e $DEV ] && ! zqcow2 ublk list | grep -q "$Z" &&
        check_image $Z && zqcow2 report $Z >/tmp/report && sed -n 3p /tmp/report &&
        sed -n 3p /tmp/report | grep -q 'wptr 0x000100' && serve $Z --id 7 && [ $ID = 7 ] &&
        zqguest io read $DEV $((2 * 8 * 1024 * 1024)) 131072 7
}
ok "del stops it; the image holds what was written; --id is honoured" persists

sigterm_is_clean() {
    pid=$(server_pid $ID)
    kill -TERM $pid && while kill -0 $pid 2>/dev/null; do sleep 0.1; done
    [ ! -e $DEV ] && [ -z "$(zqcow2 ublk list)" ] && check_image $Z
}
ok "SIGTERM stops it cleanly" sigterm_is_clean

read_only() {
    serve $Z --read-only && [ "$(cat /sys/block/ublkb$ID/ro)" = 1 ] &&
        zqguest io read $DEV $((2 * 8 * 1024 * 1024)) 131072 7 &&
        ! zqguest io write $DEV $((2 * 8 * 1024 * 1024 + 131072)) 4096 && zqcow2 ublk del $ID
}
ok "--read-only reads and does not write" read_only

foreground() {
    zqcow2 ublk add --foreground --id 9 $Z >/tmp/fg &
    pid=$!
    for i in 1 2 3 4 5 6 7 8 9 10; do [ -s /tmp/fg ] && break; sleep 0.3; done
    cat /tmp/fg
    grep -q '^/dev/ublkb9$' /tmp/fg && kill -INT $pid && wait $pid && [ ! -e /dev/ublkb9 ]
}
ok "--foreground serves until SIGINT" foreground

plain_device() {
    make_image $P 64M && serve $P && cat /tmp/add.log && grep -q 'not zoned' /tmp/add.log &&
        [ "$(cat /sys/block/ublkb$ID/queue/zoned)" = none ] &&
        zqguest io write $DEV 1048576 131072 3 && zqguest io read $DEV 1048576 131072 3 &&
        zqguest io zeros $DEV 0 65536 && /bin/blkdiscard -z -o 1048576 -l 65536 $DEV &&
        zqguest io zeros $DEV 1048576 65536 && zqguest io read $DEV 1114112 65536 3 &&
        /bin/blkdiscard -o 1114112 -l 65536 $DEV && zqguest io zeros $DEV 1114112 65536
}
ok "a plain image is a plain disk: write, read, write zeroes, discard" plain_device
plain_persists() {
    zqguest io write $DEV 8192 4096 5 && zqcow2 ublk del $ID && check_image $P && serve $P &&
        zqguest io read $DEV 8192 4096 5 && zqcow2 ublk del $P
}
ok "what was written to it stays" plain_persists

large_blocks() {
    make_image $Z.4k 64M zone.size=8M zone.capacity=6M && serve $Z.4k --block-size 4096 &&
        cat /tmp/add.log && grep -q 'host-managed, blocks of 4 KiB: ' /tmp/add.log &&
        [ "$(cat /sys/block/ublkb$ID/queue/logical_block_size)" = 4096 ] &&
        zqguest io write $DEV 0 8192 && zqguest io read $DEV 0 8192 &&
        blkzone report -c 1 $DEV | grep 'wptr 0x000010' && zqcow2 ublk del $Z.4k &&
        make_image $P.4k 64M cluster_size=512 && serve $P.4k --block-size 4096 &&
        [ "$(cat /sys/block/ublkb$ID/queue/logical_block_size)" = 4096 ] &&
        [ "$(cat /sys/block/ublkb$ID/queue/discard_granularity)" = 4096 ] &&
        zqguest io write $DEV 4096 4096 4 && zqguest io read $DEV 4096 4096 4 &&
        zqcow2 ublk del $P.4k && serve $P.4k &&
        [ "$(cat /sys/block/ublkb$ID/queue/logical_block_size)" = 512 ] &&
        zqguest io read $DEV 4096 4096 4 && zqcow2 ublk del $P.4k
}
ok "--block-size 4096: zoned and plain" large_blocks

# ---- how data comes and goes ----

# Requests whose data nobody has copied, in stages since the device is there.
zero_copies() {
    zqcow2 serve ctl ublk$ID stats --json | sed -n 's/.*"zero-copies": \([0-9]*\).*/\1/p'
}

# Kernels since 6.16 have zero copy.
has_zero_copy() {
    [ $(uname -r | cut -d. -f1) -ge 7 ]
}

# Holes, data, parts of clusters, and both in one request: the same bytes in both ways.
same_both_ways() {
    make_image $P 64M && serve $P $1 && zqguest io write $DEV 65536 196608 3 &&
        zqguest io write $DEV 1000448 1536 4 && zqguest io write $DEV 4194304 1048576 5 &&
        zqguest io zeros $DEV 0 65536 && zqguest io zeros $DEV 262144 65536 &&
        zqguest io read $DEV 4194304 1048576 5 && zqguest io read $DEV 65536 196608 3 &&
        /bin/blkdiscard -o 4259840 -l 131072 $DEV &&
        zqguest io zeros $DEV 4259840 131072 && zqguest io sum $DEV 0 8388608 >/tmp/sum1 &&
        sync -d $DEV && N=$(zero_copies) && zqcow2 ublk del $P && check_image $P &&
        serve $P $2 && zqguest io sum $DEV 0 8388608 >/tmp/sum2 && zqcow2 ublk del $P &&
        cat /tmp/sum1 /tmp/sum2 && echo "$N without a copy" && cmp /tmp/sum1 /tmp/sum2
}
by_copies() {
    same_both_ways --copy=user --copy=auto && [ $N = 0 ]
}
ok "--copy=user copies" by_copies
by_itself() {
    same_both_ways --copy=auto --copy=user &&
        if has_zero_copy; then [ $N -gt 10 ]; else [ $N = 0 ]; fi
}
ok "zero copy where the kernel has it" by_itself
zero_or_nothing() {
    if has_zero_copy; then
        same_both_ways --copy=zero --copy=user && [ $N -gt 10 ]
    else
        refused 'no zero copy (needs Linux 6.16)' zqcow2 ublk add --copy=zero $P
    fi
}
ok "--copy=zero is zero copy or refused" zero_or_nothing
needs_copies() {
    why='no zero copy'
    ! has_zero_copy || why='must be a regular file, without a data file or --faults'
    make_image $P.d 64M data_file=$P.raw && make_image $P 64M &&
        refused "$why" zqcow2 ublk add --copy=zero $P.d &&
        refused "$why" zqcow2 ublk add --copy=zero --faults=seed=1 $P &&
        refused 'must be auto, zero or user' zqcow2 ublk add --copy=none $P &&
        serve $P.d && zqguest io write $DEV 0 131072 6 && zqguest io read $DEV 0 131072 6 &&
        [ $(zero_copies) = 0 ] && zqcow2 ublk del $ID && check_image $P.d
}
ok "an image with a data file, and faults, need copies" needs_copies
many_sizes() {
    make_image $P 64M && serve $P --queues 2 || return 1
    fio --filename=$DEV --direct=1 --ioengine=libaio --iodepth=16 --thread --name=k \
        --rw=randwrite --bsrange=512-600k --blockalign=512 --size=48M --io_size=32M \
        --verify=crc32c --do_verify=1 --verify_fatal=1 --output=/tmp/fio.out ||
        { cat /tmp/fio.out; return 1; }
    echo "$(zero_copies) without a copy"
    zqcow2 ublk del $ID && check_image $P
}
ok "requests of many sizes on two queues, verified" many_sizes
cut_file() {
    make_image $P 64M && serve $P && zqguest io write $DEV 33554432 1048576 7 && sync -d $DEV &&
        truncate -s 300K $P && ! zqguest io read $DEV 33554432 1048576 7 &&
        zqcow2 ublk del --force $ID
    [ ! -e $DEV ]
}
ok "a file that someone cuts short does not read as zeros" cut_file

many_zones() {
    make_image $Z.many 1250M zone.size=64K zone.max_active_zones=7 && serve $Z.many &&
        [ "$(cat /sys/block/ublkb$ID/queue/nr_zones)" = 20000 ] &&
        [ "$(blkzone report $DEV | grep -c 'zcond: 1(em)')" = 20000 ] &&
        zqguest io write $DEV 1310654464 4096 && zqguest io read $DEV 1310654464 4096 &&
        blkzone report -o 2559872 -c 1 $DEV | grep 'wptr 0x000008' &&
        blkzone reset $DEV && [ "$(blkzone report $DEV | grep -c 'zcond: 1(em)')" = 20000 ] &&
        zqcow2 ublk del $Z.many
}
ok "20000 zones: the report comes in several pieces" many_zones

mounted_is_kept() {
    make_image $P 64M && serve $P && mke2fs -q $DEV && mount -t ext4 $DEV /mnt &&
        refused 'in use' zqcow2 ublk del $P && echo data >/mnt/file && sync -f /mnt &&
        zqcow2 ublk del --force $P && umount /mnt && check_image $P && serve $P &&
        mount -t ext4 $DEV /mnt && [ "$(cat /mnt/file)" = data ] && umount /mnt &&
        zqcow2 ublk del $P
}
ok "a mounted device goes by force only" mounted_is_kept

dead_server() {
    serve $Z && zqguest io write $DEV 0 4096 && kill -9 $(server_pid $ID) || return 1
    for i in $(seq 50); do [ -e $DEV ] || break; usleep 100000; done
    zqcow2 ublk list
    [ ! -e $DEV ] && zqcow2 ublk list | grep -q 'server gone' && zqcow2 ublk del $ID &&
        [ -z "$(zqcow2 ublk list)" ] && [ ! -e /dev/ublkc$ID ] && serve $Z --id $ID &&
        zqcow2 ublk del $ID
}
ok "what a killed server leaves behind is listed and taken away" dead_server
same_image_again() {
    serve $Z && kill -9 $(server_pid $ID) && usleep 300000 && serve $Z && zqcow2 ublk list &&
        [ "$(zqcow2 ublk list | wc -l)" = 1 ] && zqcow2 ublk del $Z
}
ok "the image of a killed server is served again at once" same_image_again

suspended() {
    serve $Z || return 1
    pid=$(server_pid $ID)
    kill -STOP $pid
    began=$(cut -d. -f1 /proc/uptime)
    zqcow2 ublk list | grep -q "^$ID	$DEV	pid $pid	" &&
        refused "server $pid is suspended" zqcow2 ublk del $ID &&
        refused "server $pid is suspended" zqcow2 ublk del --force $ID &&
        [ $(($(cut -d. -f1 /proc/uptime) - began)) -lt 30 ]
    status=$?
    kill -CONT $pid
    [ $status = 0 ] && zqcow2 ublk del $ID && [ -z "$(zqcow2 ublk list)" ]
}
ok "a suspended server is named, and nobody waits for it" suspended

slow_end() {
    serve $P --faults=delay=flush:4000 && zqguest io write $DEV 0 4096 || return 1
    pid=$(server_pid $ID)
    refused "server $pid has not ended within 1 s" zqcow2 ublk del --timeout 1 $ID || return 1
    for i in $(seq 300); do [ -d /proc/$pid ] || break; usleep 100000; done
    [ ! -e $DEV ] && [ -z "$(zqcow2 ublk list)" ]
}
ok "del waits no longer than it should" slow_end

others_server() {
    serve $P && refused "server $(server_pid $ID): no permission" \
        /bin/setpriv --reuid 1000 --clear-groups zqcow2 ublk del $ID && zqcow2 ublk del $ID
}
ok "the server of another user stays" others_server

odd_name() {
    O=$(printf '/data/odd\nname\\012\\')
    make_image "$O" 64M zone.size=8M && serve "$O" && cat /tmp/add.log && zqcow2 ublk list &&
        [ "$(zqcow2 ublk list | wc -l)" = 1 ] && kill -9 $(server_pid $ID) && usleep 300000 &&
        serve "$O" && [ "$(zqcow2 ublk list | wc -l)" = 1 ] && zqcow2 ublk del "$O" &&
        [ ! -e $DEV ] && [ -z "$(zqcow2 ublk list)" ] && check_image "$O"
}
ok "an image whose name holds a newline is served, again after a kill, and deleted" odd_name

short_last_zone() {
    make_image $Z.short 60M zone.size=8M && refused 'last zone is short' zqcow2 ublk add $Z.short
}
ok "a short last zone is refused" short_last_zone
corrupt() {
    make_image $Z.bad 64M zone.size=8M || return 1
    dd if=/dev/zero of=$Z.bad bs=512 count=1 conv=notrunc 2>/dev/null
    refused "$Z.bad" zqcow2 ublk add $Z.bad
}
ok "a corrupt image is refused" corrupt
ok "a missing file is refused" refused 'No such file' zqcow2 ublk add /data/missing
ok "an unknown device is refused" refused 'no such' zqcow2 ublk del 99
ok "a bad number is refused" refused '\-\-depth' zqcow2 ublk add --depth 0 $Z
unprivileged() {
    chmod 666 $Z
    refused 'permission' /bin/setpriv --bounding-set -sys_admin zqcow2 ublk add $Z
}
ok "no privileges: refused" unprivileged
as_user() {
    /bin/setpriv --reuid 1000 --clear-groups "$@"
}
# What a rule of udev does for such a device: it gives it to its owner.
give_device() {
    for i in $(seq 200); do
        [ -e /dev/ublkc$1 ] && chown 1000 /dev/ublkc$1 && return 0
        usleep 50000
    done
}
serve_as_user() { # ID
    give_device $1 &
    as_user zqcow2 ublk add --id $1 $U/p.qcow2 >/tmp/add.log 2>&1
    status=$?
    cat /tmp/add.log
    [ $status = 0 ] && [ "$(head -1 /tmp/add.log)" = /dev/ublkb$1 ]
}
# A user who has access to the driver, and no place for a state file.
users_device() {
    U=/data/user
    mkdir -p $U && make_image $U/p.qcow2 64M && make_image $U/z.qcow2 64M zone.size=8M &&
        chown -R 1000 $U && mkdir -p /run/zqcow2 && chmod 755 /run/zqcow2 &&
        refused 'no permission' as_user zqcow2 ublk add $U/p.qcow2 && chmod 666 /dev/ublk-control &&
        refused 'image without zones' as_user zqcow2 ublk add $U/z.qcow2 &&
        refused 'image without zones\|no zero copy' as_user zqcow2 ublk add --copy=zero $U/p.qcow2 || return 1
    serve_as_user 50 && pid=$(pidof zqcow2) && pid=${pid##* } && ps | grep zqcow2 &&
        grep '^Uid:.1000' /proc/$pid/status && [ -z "$(zqcow2 ublk list)" ] &&
        zqguest io write /dev/ublkb50 65536 1048576 3 &&
        zqguest io read /dev/ublkb50 65536 1048576 3 && zqguest io zeros /dev/ublkb50 0 65536 &&
        zqguest io zeros /dev/ublkb50 1114112 524288 &&
        /bin/blkdiscard -o 131072 -l 65536 /dev/ublkb50 &&
        zqguest io zeros /dev/ublkb50 131072 65536 && sync -d /dev/ublkb50 || return 1
    kill -TERM $pid
    for i in $(seq 100); do [ -e /dev/ublkb50 ] || break; usleep 100000; done
    [ ! -e /dev/ublkb50 ] && check_image $U/p.qcow2
}
ok "a user without rights serves a plain image" users_device
users_list() {
    mkdir -p /run/zqcow2 && chown 1000 /run/zqcow2 && serve_as_user 51 &&
        as_user zqcow2 ublk list | grep "^51	/dev/ublkb51	pid [0-9]*	$U/p.qcow2\$" &&
        zqguest io read /dev/ublkb51 196608 131072 3 &&
        as_user zqcow2 serve ctl ublk51 stats >/dev/null &&
        as_user zqcow2 ublk del 51 && [ ! -e /dev/ublkc51 ] &&
        serve_as_user 51 && zqcow2 ublk del 51 && [ ! -e /dev/ublkc51 ] && check_image $U/p.qcow2
    status=$?
    rm -rf /run/zqcow2
    return $status
}
ok "such a device is listed and deleted, by its user and by root" users_list
no_driver() {
    rmmod ublk_drv && refused 'modprobe ublk_drv' zqcow2 ublk add $Z
}
ok "no driver: refused" no_driver
