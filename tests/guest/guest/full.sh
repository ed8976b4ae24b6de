# SPDX-License-Identifier: MIT
# The host's file system is full: the device answers ENOSPC and lives, and with room again it goes
# on; nothing that was acknowledged and flushed is lost, be the server ended or killed (R10).
load ublk_drv
load null_blk
load btrfs
I=/full/z.qcow2
ZONES=32
ZONE=$((4 * 1024 * 1024))

# About 48 MiB, 8 of them ballast. btrfs writes everything elsewhere, what a round changes too.
full_host() { # FS
    mkdir -p /full
    case $1 in
    tmpfs) mount -t tmpfs -o size=48m none /full ;;
    ext4) make_plain host 48 && mke2fs -q /dev/host && mount -t ext4 /dev/host /full ;;
    btrfs) make_plain host 64 && mkfs.btrfs -q -M -m single -d single /dev/host &&
        mount -t btrfs /dev/host /full ;;
    esac && dd if=/dev/urandom of=/full/ballast bs=1M count=8 && : >/full/filler && sync
}

no_host() {
    umount /full && { [ ! -d /sys/kernel/config/nullb/host ] || remove_null host; }
}

made() { # FS
    full_host "$1" && make_image $I $((ZONES * 4))M zone.size=4M zone.conventional_zones=1 &&
        serve $I
}

# How much of zone $1 is written, as the device reports it.
written() {
    echo $(($(blkzone report -o $(($1 * ZONE / 512)) -c 1 $DEV |
        sed 's/.*wptr \(0x[0-9a-f]*\).*/\1/') * 512))
}

# Goes on behind the zone's pointer, up to the zone's end.
fill_zone() {
    at=$(written "$1")
    zqguest io write $DEV $(($1 * ZONE + at)) $((ZONE - at))
}

no_space() { # COMMAND...: fails for lack of space and for nothing else
    "$@" >/tmp/out 2>&1 && { echo "no error: $*"; return 1; }
    cat /tmp/out
    grep -q 'No space left on device' /tmp/out
}

# Zone by zone, each fsynced, until one finds no space: STOPPED, with HAD bytes.
fill() {
    zqguest io write $DEV 0 1048576 || return 1
    for STOPPED in $(seq $((ZONES - 1))); do
        fill_zone "$STOPPED" >/tmp/out 2>&1 || break
        sync $DEV || return 1
    done
    cat /tmp/out
    HAD=$(written "$STOPPED")
    [ "$STOPPED" -gt 4 ] && grep -q 'No space left on device' /tmp/out
}

# The rest of the host's space goes, too. The pointer of a zone that is finished is in a round: it
# finds no space where what it changes is written elsewhere; the others have had it before.
flush_when_full() { # FS
    for i in 1 2 3; do
        dd if=/dev/urandom of=/full/filler bs=4k oflag=append conv=notrunc
        sync
    done
    blkzone finish -o $((ZONE / 512 * (ZONES - 1))) -c 1 $DEV
    if [ "$1" = btrfs ]; then
        no_space sync $DEV && no_space sync $DEV
    else
        sync $DEV
    fi
}

finished() {
    blkzone report -o $((ZONE / 512 * (ZONES - 1))) -c 1 $DEV | grep -q 'zcond:14(fu)' &&
        zqguest io zeros $DEV $(((ZONES - 1) * ZONE)) $ZONE
}

all_there() {
    zqguest io read $DEV 0 1048576 || return 1
    for zone in $(seq $((STOPPED - 1))); do
        zqguest io read $DEV $((zone * ZONE)) $ZONE || return 1
    done
    [ "$HAD" = 0 ] || zqguest io read $DEV $((STOPPED * ZONE)) "$HAD"
}

still_full() {
    no_space fill_zone "$STOPPED" && HAD=$(written "$STOPPED") &&
        no_space fill_zone $((STOPPED + 1)) && all_there
}

room_again() {
    rm /full/ballast /full/filler && sync && fill_zone "$STOPPED" && sync $DEV &&
        [ "$(written "$STOPPED")" = $ZONE ] && HAD=$ZONE && all_there && finished
}

killed() {
    kill -9 "$(server_pid $ID)" || return 1
    for i in $(seq 50); do [ -e $DEV ] || break; usleep 100000; done
    zqcow2 ublk del $ID && check_image $I leaks && serve $I && all_there && finished && finished
}

stopped() {
    zqcow2 ublk del $I && check_image $I && serve $I && all_there && finished && zqcow2 ublk del $I
}

for fs in ${ZQ_fs:-tmpfs ext4 btrfs}; do
    ok "$fs: a small host, an image larger than it" made $fs || continue
    ok "$fs: zones are written until the host is full" fill
    tap_say "# $fs: zone $STOPPED found no space behind $HAD bytes"
    case $fs in btrfs) said='says so' ;; *) said='needs none' ;; esac
    ok "$fs: fsync without space $said" flush_when_full $fs
    ok "$fs: writes find no space, reads go on" still_full
    ok "$fs: with room again it is written on and fsynced" room_again
    ok "$fs: killed: all that was fsynced is there" killed
    ok "$fs: stopped: check is clean, all is there" stopped
    ok "$fs: the host goes" no_host
done
