#!/bin/sh
# SPDX-License-Identifier: MIT
# A full host file system under a zoned image: write until there is no space, flush, make room, go
# on, die. Nothing that was answered is lost by it (R10). On tmpfs and on ext4, both small; root only.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || { echo '1..0 # SKIP only root can mount a small file system'; exit 77; }
host=$dir/host
mkdir "$host" || exit 99
pid=
cleanup() {
    exec 3>&-
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
    umount "$host" 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT

small_tmpfs() { mount -t tmpfs -o size=12m none "$host"; }
small_ext4() {
    command -v mkfs.ext4 >/dev/null || return 1
    truncate -s 16M ext4.img && mkfs.ext4 -q -O ^has_journal ext4.img && mount -o loop ext4.img "$host"
}

# ask COMMAND...: sends them, and waits until they have been carried out: out has another answer.
asked=0
ask() {
    for command; do echo "$command" >&3; done
    echo length >&3
    asked=$((asked + 1))
    waited=0
    while [ "$(grep -c '^32 MiB$' out)" -lt $asked ] && [ $waited -lt 600 ]; do
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.1
        waited=$((waited + 1))
    done
    [ $waited -lt 600 ]
}

# errors: how many requests have failed so far.
errors() { grep -c 'failed' out; }

# pieces FIRST LAST: 64 KiB writes, one after the other, in zones of 1 MiB.
pieces() {
    i=$1
    while [ "$i" -le "$2" ]; do
        echo "write -q -P $((i % 250 + 1)) $((i * 65536)) 64k"
        i=$((i + 1))
    done
}

# holds IMAGE NAME LAST: pieces 0 to LAST are there.
holds() {
    : >wanted
    i=0
    while [ "$i" -le "$3" ]; do
        echo "read -q -P $((i % 250 + 1)) $((i * 65536)) 64k" >>wanted
        i=$((i + 1))
    done
    ran="zqcow2 io --read-only $1 <wanted"
    "$tool" io --read-only "$1" <wanted >found 2>&1
    verdict $([ $? = 0 ] && [ ! -s found ]; echo $?) "$2" || sed 's/^/# /' found | head -n 3
}

try() { # NAME
    fs=$1
    image=$host/z.qcow2
    if ! "small_$fs" 2>/dev/null; then
        tests=$((tests + 1))
        echo "ok $tests # SKIP $fs cannot be mounted here"
        return
    fi
    run 0 "$fs: an image" create -o zone.size=1M "$image" 32M
    head -c 3M /dev/zero >"$host/ballast"
    rm -f pipe
    mkfifo pipe
    : >out
    : >err
    asked=0
    "$tool" io "$image" <pipe >out 2>err &
    pid=$!
    exec 3>pipe
    ran="zqcow2 io $image"

    # From the first refusal on every write of that zone is refused: go on until there is one.
    last=-1
    while [ "$(errors)" = 0 ] && [ $last -lt 400 ]; do
        pieces $((last + 1)) $((last + 1)) >next
        ask "$(cat next)" || break
        [ "$(errors)" = 0 ] && last=$((last + 1))
    done
    is "$fs: full after $((last + 1)) pieces" 'write failed: No space left on device' \
        "$(grep failed out)"
    ask flush
    is "$fs: a flush of a full host succeeds" 1 "$(errors)"
    ask 'read -q -P 1 0 64k'
    is "$fs: reads go on" 1 "$(errors)"
    rm "$host/ballast"
    sync
    ask "$(pieces $((last + 1)) $((last + 8)))" flush
    is "$fs: with room again it goes on" 1 "$(errors)"
    kill -9 "$pid"
    wait "$pid" 2>/dev/null
    pid=
    exec 3>&-
    holds "$image" "$fs: after a kill all that was flushed is there" $((last + 8))
    run 0 "$fs: it is sound" check --repair=leaks "$image"
    umount "$host"
}

try tmpfs
try ext4
finish
