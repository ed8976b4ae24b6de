# SPDX-License-Identifier: MIT
# The host loses its power, not the guest of a virtual machine: dm-log-writes keeps what reaches the
# host's disk, and when. Each cut replays a part of it, mounts what there is, ext4, and serves the
# image that lies on it: everything that had been fsynced through our device is there.
. /tests/fslib.sh
load ublk_drv
load null_blk
load zonefs
load dm-log-writes
SEED=4711
STEPS=40

remove_disks() {
    for disk in host log again; do
        remove_null $disk || return 1
    done
}

dm() {
    dmsetup --noudevrules --noudevsync "$@"
}

# The log begins with an empty ext4, which is in `again` as well.
made() {
    make_plain host 96 && make_plain log 400 && make_plain again 96 &&
        mkfs.ext4 -q -F /dev/host && dd if=/dev/host of=/dev/again bs=1M 2>/dev/null &&
        dm create power --table "0 $((96 * 2048)) log-writes /dev/host /dev/log" &&
        mkdir -p /host /back && mount -t ext4 /dev/dm-0 /host
}

served() { # BACKEND
    ZQ_backend=$1
    fs_image zonefs /host/z.qcow2 && serve /host/z.qcow2 && fs_make zonefs && fs_mount zonefs &&
        sync && dm message power 0 mark 0
}

# A mark behind each step that is durable.
loaded() {
    for step in $(seq $STEPS); do
        fs_load zonefs $SEED $step $step && dm message power 0 mark $step || return 1
    done
}

unloaded() {
    umount /mnt && zqcow2 ublk del $ID && umount /host && dm remove power &&
        ENTRIES=$(zqguest relog count /dev/log) && echo "$ENTRIES entries" && [ "$ENTRIES" -gt $STEPS ]
}

# Before the first mark there may be no image.
cut() { # N
    entries=$((ENTRIES - (ENTRIES - FIRST) * ($1 - 1) / ROUNDS))
    dd if=/dev/zero of=/dev/again bs=1M 2>/dev/null
    cat /tmp/empty >/dev/again && LAST=$(zqguest relog replay /dev/log /dev/again $entries $1) &&
        mount -t ext4 /dev/again /back || return 1
    case $LAST in none) umount /back && return ;; dm-log-writes-end) LAST=$STEPS ;; esac
    check_image /back/z.qcow2 leaks && serve /back/z.qcow2 && fs_mount zonefs &&
        fs_verify zonefs $SEED $LAST && umount /mnt && zqcow2 ublk del $ID &&
        check_image /back/z.qcow2 && umount /back
}

# Where the image and its file system are durable.
first_mark() {
    low=1 high=$ENTRIES
    while [ $low -lt $high ]; do
        middle=$(((low + high) / 2))
        case $(zqguest relog replay /dev/log /dev/again $middle 1) in
        none) low=$((middle + 1)) ;;
        *) high=$middle ;;
        esac
    done
    FIRST=$low
}

ROUNDS=${ZQ_rounds:-8}
for backend in ${ZQ_backends:-file threads uring}; do
    ok "$backend: a disk with a log, and ext4 on it" made || break
    dd if=/dev/again of=/tmp/empty bs=1M 2>/dev/null
    ok "$backend: an image is made and served" served $backend
    ok "$backend: $STEPS steps, each fsynced" loaded
    ok "$backend: the log is whole" unloaded || break
    first_mark
    for n in $(seq $ROUNDS); do
        ok "$backend: power cut $n" cut $n || break
        tap_say "# $backend: cut after $entries of $ENTRIES writes, step $LAST: all there"
    done
    rm /tmp/empty
    ok "$backend: the disks go" remove_disks
done
