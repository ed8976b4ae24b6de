# SPDX-License-Identifier: MIT
# What the scripts share that use libblkio: the program blkio, our server, QEMU's. $here and $1 are set.
TOOL=$(realpath "$1") || exit 2
TOP=$(cd "$here/../.." && pwd)
CACHE=${ZQ_GUEST_CACHE:-$HOME/.cache/zqcow2-guest}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/zqcow2-blkio.XXXXXX") || exit 1
. "$TOP/tests/guest/newest.sh"
SERVERS=

say() {
    echo "# $*"
}

die() {
    echo "blkio: $*" >&2
    exit 1
}

clean_up() {
    [ -z "$SERVERS" ] || kill $SERVERS 2>/dev/null
    wait
    rm -rf "$WORK"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

# Sets BLKIO, the program: built by this machine's compiler, run with the newest libraries.
need_blkio() {
    lock_cache
    need_newest
    unlock_cache
    libs=$NEWEST/usr/lib/x86_64-linux-gnu
    cc -O2 -g -Wall -Wextra -I"$NEWEST/usr/include" -o "$WORK/blkio.bin" "$TOP/tests/interop/blkio.c" \
        "$(ls "$libs"/libblkio.so.* | head -1)" -Wl,--allow-shlib-undefined || die 'cannot build blkio.c'
    cat >"$WORK/blkio" <<EOF
#!/bin/sh
exec "$NEWEST/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libs" "$WORK/blkio.bin" "\$@"
EOF
    chmod +x "$WORK/blkio"
}

wait_for_socket() { # SOCKET PID
    for i in $(seq 100); do
        [ -S "$1" ] && return 0
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

start_ours() { # ARGUMENTS...
    "$TOOL" vhost-user --foreground --socket="$WORK/ours.sock" "$@" >"$WORK/server" 2>&1 </dev/null &
    OURS=$!
    SERVERS="$SERVERS $OURS"
    wait_for_socket "$WORK/ours.sock" $OURS
}

stop_ours() {
    kill $OURS
    wait $OURS
}
