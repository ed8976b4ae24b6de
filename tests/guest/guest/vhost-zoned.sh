# SPDX-License-Identifier: MIT
# A zoned disk of zqcow2 vhost-user, which runs on the host: /dev/vdb. ZQ_part: what is tested. The host
# compares the lines that begin with "# REPORT" with its own report.
DEV=/dev/vdb
. /tests/fslib.sh
. /tests/fiolib.sh
SEED=1234

limit() { # NAME VALUE
    read -r limit </sys/block/vdb/queue/$1 && echo "$1: $limit" && [ "$limit" = "$2" ]
}

# Zones in every state that a zone can have after its image was closed; the open ones are closed then.
states() {
    zqguest io write $DEV 0 65536 1 && blkzone reset $DEV -o 32768 &&
        zqguest io write $DEV 16777216 65536 2 && zqguest io write $DEV 20971520 3145728 3 &&
        zqguest io write $DEV 25165824 4096 4 && blkzone close -o 49152 -c 1 $DEV &&
        zqguest io write $DEV 29360128 4096 5 && blkzone finish -o 57344 -c 1 $DEV &&
        blkzone finish -o 65536 -c 1 $DEV && blkzone open -o 73728 -c 1 $DEV &&
        zqguest io write $DEV 41943040 8192 6 && blkzone open -o 81920 -c 1 $DEV &&
        zqguest io read $DEV 16777216 65536 2 && zqguest io read $DEV 20971520 3145728 3 &&
        zqguest io read $DEV 29360128 4096 5
}

refusals() {
    ! zqguest io write $DEV 16777216 4096 2 && ! blkzone reset -o 32769 -c 1 $DEV &&
        ! zqguest io write $DEV 25182208 4096 4 && ! blkzone open -o 0 -c 1 $DEV &&
        zqguest io write $DEV 25169920 4096 4 && zqguest io read $DEV 25169920 4096 4
}

too_many_open() { # the zones from 64 MiB on
    n=0
    while blkzone open -o $((131072 + n * 8192)) -c 1 $DEV; do n=$((n + 1)); done
    echo "$n opened" && [ $n = 12 ] && blkzone reset -o 32768 $DEV
}

small_tests() {
    ok "it is zoned" limit zoned host-managed
    ok "its zones" limit nr_zones 64
    ok "the length of a zone" limit chunk_sectors 8192
    ok "open zones" limit max_open_zones 12
    ok "active zones" limit max_active_zones 14
    ok "no discard" limit discard_max_bytes 0
    ok "as many zones can be open as the limit says" too_many_open
    fio_zoned
    ok "every state" states
    ok "what the rules forbid fails" refusals
    blkzone report $DEV | sed 's/^/# REPORT/' >$TAP
}

first_life() {
    fs_make $ZQ_fs && fs_mount $ZQ_fs
}

# What cut.sh does with the power of the machine, with that of the disk.
one_life() {
    load $ZQ_fs
    if [ "$ZQ_last" = none ]; then
        ok "$ZQ_fs: made and mounted" first_life
        [ $ZQ_fs = zonefs ] || ok "$ZQ_fs: a tree written, synced, remounted, compared" tree $ZQ_fs
        ZQ_last=0
    else
        ok "$ZQ_fs: mounts" fs_mount $ZQ_fs
        ok "$ZQ_fs: everything up to step $ZQ_last is there" fs_verify $ZQ_fs $SEED $ZQ_last
    fi
    if [ "$ZQ_final" = 1 ]; then
        ok "$ZQ_fs: unmount" umount /mnt
        ok "$ZQ_fs: its own check" fs_check $ZQ_fs
    else
        tap_say "# LOADING"
        fs_load $ZQ_fs $SEED $((ZQ_last + 1)) 1000000 >$TAP 2>&1
        tap_say "# the load ended"
    fi
}

case $ZQ_part in
fs) one_life ;;
*) small_tests ;;
esac
