#!/bin/sh
# SPDX-License-Identifier: MIT
# nvmet.sh start DEVICE NQN [ADDRESS [PORT]], nvmet.sh stop NQN: gives a disk to other machines by
# the kernel's own NVMe target over TCP. As root, with the modules nvmet-tcp and configfs.
#
#   zqcow2 create -o zone.size=64M disk.qcow2 4G
#   zqcow2 ublk add disk.qcow2                          # prints /dev/ublkb0
#   sh nvmet.sh start /dev/ublkb0 nqn.2026-11.example:disk 192.0.2.1
# and on the other machine, as root:
#   nvme connect -t tcp -a 192.0.2.1 -s 4420 -n nqn.2026-11.example:disk
#   nvme zns report-zones /dev/nvme0n1
#
# The target refuses disks with conventional zones, and those whose last zone is smaller than the
# others: the size of the disk must be a multiple of the zone size. Every host may connect.
set -eu
target=/sys/kernel/config/nvmet
usage() {
    sed -n '3,4s/^# //p' "$0" >&2
    exit 2
}
die() {
    echo "nvmet.sh: $*" >&2
    exit 1
}
[ $# -ge 2 ] || usage
action=$1
shift

# The first number that no port has, or the port that serves at this address.
find_port() { # ADDRESS PORT
    number=1
    while [ -d "$target/ports/$number" ]; do
        [ "$(cat "$target/ports/$number/addr_traddr")" != "$1" ] ||
            [ "$(cat "$target/ports/$number/addr_trsvcid")" != "$2" ] || return 0
        number=$((number + 1))
    done
    mkdir "$target/ports/$number"
    case $1 in *:*) family=ipv6 ;; *) family=ipv4 ;; esac
    echo tcp >"$target/ports/$number/addr_trtype"
    echo $family >"$target/ports/$number/addr_adrfam"
    echo "$1" >"$target/ports/$number/addr_traddr"
    echo "$2" >"$target/ports/$number/addr_trsvcid"
}

stop() { # NQN
    for link in "$target"/ports/*/subsystems/"$1"; do
        [ -L "$link" ] || continue
        port=${link%/subsystems/*}
        rm "$link"
        [ -n "$(ls "$port/subsystems")" ] || rmdir "$port"
    done
    if [ -d "$target/subsystems/$1/namespaces/1" ]; then
        echo 0 >"$target/subsystems/$1/namespaces/1/enable"
        rmdir "$target/subsystems/$1/namespaces/1"
    fi
    rmdir "$target/subsystems/$1"
}

start() { # DEVICE NQN ADDRESS PORT
    [ -b "$1" ] || die "$1: not a block device"
    modprobe -q nvmet-tcp 2>/dev/null || true # it may be built in
    [ -d "$target" ] || die "$target: not there: no module nvmet, or configfs is not mounted"
    mkdir "$target/subsystems/$2" || die "$2: exists"
    echo 1 >"$target/subsystems/$2/attr_allow_any_host"
    mkdir "$target/subsystems/$2/namespaces/1"
    printf %s "$1" >"$target/subsystems/$2/namespaces/1/device_path"
    if ! echo 1 2>/dev/null >"$target/subsystems/$2/namespaces/1/enable"; then
        stop "$2"
        die "$1: the target refuses it: are there conventional zones, or a smaller last one?"
    fi
    find_port "$3" "$4"
    if ! ln -s "$target/subsystems/$2" "$target/ports/$number/subsystems/$2"; then
        stop "$2"
        rmdir "$target/ports/$number" 2>/dev/null
        die "$3:$4: cannot be served"
    fi
    echo "$2 at $3:$4"
}

case $action in
start)
    [ $# -le 4 ] && [ $# -ge 2 ] || usage
    start "$1" "$2" "${3:-127.0.0.1}" "${4:-4420}"
    ;;
stop)
    [ $# = 1 ] || usage
    [ -d "$target/subsystems/$1" ] || die "$1: is not there"
    stop "$1"
    ;;
*) usage ;;
esac
