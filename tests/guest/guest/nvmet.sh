# SPDX-License-Identifier: MIT
# A ublk disk behind the kernel's NVMe target, over TCP on loopback: examples/nvmet.sh, and what a
# host sees of its zones; then the image has what the host wrote.
load ublk_drv
load nvmet-tcp
load nvme-tcp
ifconfig lo 127.0.0.1 up
I=/data/nvmet.qcow2
NQN=nqn.2026-11.example:zqcow2
ZONE=16384 # sectors

target() {
    sh /tests/target.sh "$@"
}

# What the target cannot offer, it refuses, and nothing of it stays.
refused() {
    make_image $I 64M zone.size=8M zone.conventional_zones=1 && serve $I &&
        ! target start $DEV $NQN 2>/tmp/err && cat /tmp/err && grep 'the target refuses it' /tmp/err &&
        [ -z "$(ls /sys/kernel/config/nvmet/subsystems)" ] &&
        [ -z "$(ls /sys/kernel/config/nvmet/ports)" ] && zqcow2 ublk del $ID
}
ok "nvmet: conventional zones are refused" refused

connect() {
    nvme connect -t tcp -a 127.0.0.1 -s 4420 -n $NQN --hostnqn=nqn.2026-11.example:host \
        --hostid=11111111-2222-4333-8444-555555555555 || return 1
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -b /dev/nvme0n1 ] && [ -c /dev/ng0n1 ] && return 0
        sleep 1
    done
    return 1
}

begin() {
    make_image $I 64M zone.size=8M && serve $I && target start $DEV $NQN 127.0.0.1 4420 && connect &&
        [ "$(cat /sys/block/nvme0n1/queue/zoned)" = host-managed ]
}
ok "nvmet: nvme connect finds a zoned disk" begin

same_report() {
    nvme zns report-zones /dev/nvme0n1 | tee /tmp/zns && [ "$(grep -c '^SLBA:' /tmp/zns)" = 8 ] &&
        blkzone report $DEV >/tmp/a && blkzone report /dev/nvme0n1 >/tmp/b && diff /tmp/a /tmp/b
}
ok "nvmet: zones as on the disk" same_report

ok "nvmet: fio writes zones and verifies them" fio --name=zns --filename=/dev/nvme0n1 --zonemode=zbd \
    --rw=write --bs=64k --size=24M --direct=1 --ioengine=libaio --iodepth=1 --verify=crc32c

# At 8 MiB times 4 there is an empty zone; its second append lands behind the first.
appends() {
    head -c 65536 /bin/busybox >/tmp/one && head -c 4096 /bin/zqguest >/tmp/two &&
        nvme zns zone-append /dev/ng0n1 -n 1 -s $((4 * ZONE)) -z 65536 -d /tmp/one &&
        nvme zns zone-append /dev/ng0n1 -n 1 -s $((4 * ZONE)) -z 4096 -d /tmp/two | tee /tmp/where &&
        grep "LBA $(printf %x $((4 * ZONE + 128)))\$" /tmp/where &&
        blkzone report -o $((4 * ZONE)) -c 1 $DEV | grep 'wptr 0x000088'
}
ok "nvmet: zone append through /dev/ng0n1" appends

states() {
    nvme zns finish-zone /dev/nvme0n1 -n 1 -s $((5 * ZONE)) &&
        nvme zns reset-zone /dev/nvme0n1 -n 1 -s 0 &&
        blkzone report -o $((5 * ZONE)) -c 1 $DEV | grep 'zcond:14(fu)' &&
        blkzone report -o 0 -c 1 $DEV | grep 'zcond: 1(em)'
}
ok "nvmet: finish and reset" states

past() { # a write that is not at the write pointer
    ! dd if=/tmp/two of=/dev/nvme0n1 bs=4096 seek=$((6 * ZONE / 8 + 4)) oflag=direct conv=notrunc,fsync
}
ok "nvmet: a write elsewhere fails" past

finish_all() {
    nvme flush /dev/nvme0n1 -n 1 && dd if=/dev/nvme0n1 of=/tmp/zone1 bs=64k skip=128 count=128 &&
        nvme disconnect -n $NQN && target stop $NQN && zqcow2 ublk del $ID && check_image $I
}
ok "nvmet: disconnect" finish_all

content() {
    zqcow2 read $I 8M 8M | cmp - /tmp/zone1 && zqcow2 read $I 32M 65536 | cmp - /tmp/one &&
        zqcow2 read $I $((33554432 + 65536)) 4096 | cmp - /tmp/two &&
        zqcow2 report $I | tee /tmp/report && [ "$(grep -c '(fu)' /tmp/report)" = 3 ]
}
ok "nvmet: the image has what the host wrote" content
