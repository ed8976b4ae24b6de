#!/bin/sh
# SPDX-License-Identifier: MIT
# Three zoned disks: a load on each, an accident under it, and a check of everything that was fsynced.
#
#   sh zoned.sh [--no-device] [SEED]
#
# As root with the driver ublk_drv the disks are block devices, and the accident is a power loss that
# destroys a part of what was not flushed; SEED determines which. Otherwise, or with --no-device,
# `zqcow2 io` writes the images, and the accident is a kill of that process: it shows that the images
# are consistent, but the host loses nothing. test_power.py has power losses without a device.
#
# Needs zqcow2 in PATH, works in the current folder, and for the file system needs mkfs.btrfs.
set -eu
device=yes
[ "${1:-}" != --no-device ] || { device= && shift; }
seed=${1:-$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}
[ "$(id -u)" = 0 ] && [ -e /dev/ublk-control ] || device=
BLOCK=65536
loader= server=
trap '[ -z "$loader" ] || kill -9 $loader; [ -z "$server" ] || zqcow2 ublk del --force $server' EXIT
trap 'exit 1' HUP INT TERM

fail() {
    echo "FAILED, seed $seed: $*"
    exit 1
}

# ---- the disks: NAME, then where block N of the load lies ----

create() { # NAME
    case $1 in
    plain) zqcow2 create -o zone.size=16M plain.qcow2 256M ;;
    tight) zqcow2 create -o zone.size=4M,zone.capacity=3M,zone.conventional_zones=2 \
        -o zone.max_open_zones=2,zone.max_active_zones=3 tight.qcow2 256M ;;
    files) zqcow2 create -o zone.size=16M,zone.capacity=12M,zone.max_active_zones=20 files.qcow2 768M ;;
    esac >/dev/null
}

place() { # NAME N: in blocks, from zone 2 on
    case $1 in
    tight) echo $(((2 + $2 / 48) * 64 + $2 % 48)) ;;
    *) echo $((2 * 256 + $2)) ;;
    esac
}

block() { # NAME N
    yes "$1, block $2" | head -c $BLOCK
}

# Every fourth block is fsynced, and its number then goes to NAME.fsynced.
fsynced() { # N
    [ $(($1 % 4)) = 3 ]
}

check() { # NAME: leaks (3) are normal after an accident
    zqcow2 check "$1.qcow2" >"$1.check" && return 0
    [ $? = 3 ] || { cat "$1.check"; fail "$1: the image is damaged"; }
}

# ---- with block devices ----

attach() { # NAME: flushes that take their time leave more to lose
    zqcow2 ublk add --faults=delay=flush:20-80,log="$PWD/$1.faults" "$1.qcow2" >"$1.added"
    server=$1.qcow2
    dev=$(head -n 1 "$1.added")
}

detach() {
    zqcow2 ublk del --force $server
    server=
}

put() { # NAME N [fsync]
    case $1 in
    files) block "$1" "$2" | dd of=mnt/"$2" bs=$BLOCK iflag=fullblock ${3:+conv=fsync} ;;
    *) block "$1" "$2" | dd of="$dev" bs=$BLOCK seek="$(place "$1" "$2")" iflag=fullblock oflag=direct \
        conv=notrunc${3:+,fsync} ;;
    esac 2>>"$1.load"
}

get() { # NAME N
    case $1 in
    files) cat mnt/"$2" ;;
    *) dd if="$dev" bs=$BLOCK skip="$(place "$1" "$2")" count=1 iflag=direct 2>/dev/null ;;
    esac
}

load_device() { # NAME: until the first error
    n=0
    while [ $n -lt 2000 ]; do
        if fsynced $n; then
            put "$1" $n fsync || return 0
            echo $n >>"$1.fsynced"
        else
            put "$1" $n || return 0
        fi
        n=$((n + 1))
    done
}

make_files() {
    mkfs.btrfs -q -f -O zoned -d single -m single "$dev" >files.mkfs 2>&1 || { cat files.mkfs; fail 'mkfs.btrfs'; }
    mkdir -p mnt
    mount "$dev" mnt
}

on_device() { # NAME
    attach "$1"
    [ "$1" != files ] || make_files
    load_device "$1" &
    loader=$!
    wait_for "$1" 10
    zqcow2 serve ctl "$1.qcow2" cut --seed "$seed" --how torn-512+reorder
    wait $loader || true
    loader=
    [ "$1" != files ] || umount mnt
    detach
    check "$1"
    attach "$1"
    [ "$1" != files ] || mount "$dev" mnt
    while read -r n; do
        block "$1" "$n" >wanted
        get "$1" "$n" | cmp -s - wanted || fail "$1: block $n was fsynced and is lost"
    done <"$1.fsynced"
    [ "$1" != files ] || umount mnt
    detach
}

# ---- without ----

commands() { # NAME
    n=0
    while [ $n -lt 45 ]; do
        f=$(fsynced $n && echo -f || true)
        echo "write $f -P $((n + 1)) $(($(place "$1" $n) * BLOCK)) $BLOCK"
        n=$((n + 1))
    done
}

# Every second line of the output is that of a block; block N is done when N + 1 of them are there.
without_device() { # NAME
    rm -f pipe
    mkfifo pipe
    zqcow2 io "$1.qcow2" <pipe >"$1.out" &
    loader=$!
    exec 3>pipe # open until after the kill: the process waits for more commands
    commands "$1" >&3
    until [ "$(grep -c '^wrote' "$1.out")" = 45 ]; do
        kill -0 $loader || fail "$1: zqcow2 io ended"
        sleep 0.1
    done
    kill -9 $loader
    wait $loader 2>/dev/null || true
    loader=
    exec 3>&-
    check "$1"
    seq 3 4 44 >"$1.fsynced"
    while read -r n; do
        zqcow2 io -r -c "read -q -P $((n + 1)) $(($(place "$1" "$n") * BLOCK)) $BLOCK" "$1.qcow2" ||
            fail "$1: block $n was flushed and is lost"
    done <"$1.fsynced"
}

wait_for() { # NAME COUNT: until so many blocks are fsynced
    until [ "$(wc -l <"$1.fsynced")" -ge "$2" ]; do
        kill -0 $loader 2>/dev/null || { cat "$1.load"; fail "$1: the load has ended"; }
        sleep 0.1
    done
}

disks='plain tight'
if [ -n "$device" ] && command -v mkfs.btrfs >/dev/null; then disks="$disks files"; fi
[ -n "$device" ] || disks="$disks files"
for disk in $disks; do
    create $disk
    : >$disk.fsynced
    if [ -n "$device" ]; then on_device $disk; else without_device $disk; fi
    echo "$disk: $(wc -l <$disk.fsynced) fsynced blocks, all there after $([ -n "$device" ] &&
        echo "a power loss, seed $seed" || echo 'a kill')"
done
