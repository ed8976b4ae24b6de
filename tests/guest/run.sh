#!/bin/sh
# SPDX-License-Identifier: MIT
# Linux's block layer and its zoned file systems, in a guest, against our images. See README.md.
#
#   sh tests/guest/run.sh [--long] [--only NAME[,NAME...]] [--tool PATH] [--jobs N] [--keep]
#      [--kernel 6.12|7]
#
# Prints TAP of every guest and ends with `N passed, N failed`.
HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
CACHE=${ZQ_GUEST_CACHE:-$HOME/.cache/zqcow2-guest}
ALL="boot diff cut-btrfs cut-f2fs cut-zonefs fs kill fio live move vhost recover server full nvmet" # long ones first
ONLY= TOOL= LONG=0 KEEP= JOBS=2 SERIES=6.12 ZONED_FS="btrfs zonefs"

usage() {
    sed -n '3,8p' "$0" | sed 's/^# \{0,1\}//' >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --long) LONG=1 ;;
    --only) [ $# -gt 1 ] || usage; ONLY=$(echo "$2" | tr , ' '); shift ;;
    --tool) [ $# -gt 1 ] || usage; TOOL=$(realpath "$2") || exit 2; shift ;;
    --jobs) [ $# -gt 1 ] || usage; JOBS=$2; shift ;;
    --keep) KEEP=1 ;;
    --kernel) [ $# -gt 1 ] || usage; SERIES=$2; shift ;;
    *) usage ;;
    esac
    shift
done

WORK=$(mktemp -d "${TMPDIR:-/tmp}/zqcow2-guest.XXXXXX") || exit 1
. "$HERE/host.sh"
. "$HERE/newest.sh"
. "$HERE/power_cut.sh"
. "$HERE/vhost.sh"
WORKERS=
clean_up() {
    [ -z "$WORKERS" ] || { kill $WORKERS; wait; } 2>/dev/null
    [ -n "$KEEP" ] || rm -rf "$WORK"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

run_test() {
    case $1 in
    boot) run_guest boot 200 ;;
    server) run_guest server 300 ;;
    recover) run_guest recover $((LONG ? 3600 : 600)) zq.rounds=$((LONG ? 50 : 4)) ;;
    full) run_guest full 300 ;;
    rates) run_guest rates 1800 zq.rounds=$((LONG ? 21 : 7)) ;;
    diff) run_guest diff $((LONG ? 5400 : 1800)) zq.ops=$((LONG ? 2000 : 300)) \
        zq.seeds=$([ $LONG = 1 ] && echo 1,2,3,4,5,6 || echo 1,2) ;;
    fio) run_guest fio 1800 ;;
    fs) run_guest fs 1800 ;;
    nvmet) run_guest nvmet 600 ;;
    move) run_guest move 1800 ;;
    vhost) run_vhost $((LONG ? 60 : 10)) ;;
    vhost-zoned) run_vhost_zoned $((LONG ? 10 : 2)) ;;
    kill) run_guest kill $((LONG ? 3600 : 1800)) zq.rounds=$((LONG ? 30 : 4)) \
        zq.backend=uring ;;
    power) run_guest power $((LONG ? 7200 : 1200)) zq.rounds=$((LONG ? 60 : 8)) ;;
    live) run_guest live $((LONG ? 7200 : 900)) zq.rounds=$((LONG ? 100 : 2)) ;;
    live-*) run_guest "$1" $((LONG ? 7200 : 900)) zq.test=live zq.fs=${1#live-} \
        zq.rounds=$((LONG ? 100 : 2)) ;;
    cut-btrfs) run_cuts btrfs $((LONG ? 30 : 4)) uring ;;
    cut-xfs) run_cuts xfs $((LONG ? 30 : 4)) uring ;;
    cut-f2fs) run_cuts f2fs $((LONG ? 30 : 4)) file ;;
    cut-zonefs) run_cuts zonefs $((LONG ? 30 : 4)) threads ;;
    *) die "no test named $1" ;;
    esac
}

# Each worker takes the next test that nobody has; a test's output appears when it is done.
work() {
    trap kill_guest EXIT
    trap 'exit 1' TERM
    for test in ${ONLY:-$ALL}; do
        mkdir "$WORK/taken-$test" 2>/dev/null || continue
        run_test "$test" >"$WORK/$test.out" 2>&1
        cat "$WORK/$test.out"
    done
}

start=$(seconds)
need_packages
lock_cache
need_kernel "$SERIES"
if [ "$SERIES" != 6.12 ]; then
    ALL="vhost-zoned cut-xfs $ALL"
    ZONED_FS="btrfs zonefs xfs"
    need_newest
    QEMU=$NEWEST_QEMU
elif [ $LONG = 1 ]; then
    ALL="vhost-zoned $ALL"
fi
[ $LONG = 0 ] || ALL="power $ALL"
case " ${ONLY:-$ALL} " in *' vhost-zoned '*) [ -n "$NEWEST" ] || need_newest ;; esac
unlock_cache
build_tool
make_root
say "ready after $(($(seconds) - start)) s"
n=0
while [ $n -lt "$JOBS" ]; do
    work &
    WORKERS="$WORKERS $!"
    n=$((n + 1))
done
wait
WORKERS=
cat "$WORK"/*.out >"$WORK/all"
passed=$(grep -c '^ok ' "$WORK/all")
failed=$(grep -c '^not ok ' "$WORK/all")
say "power cuts: $(grep -c '^# .*: power cut' "$WORK/all");" \
    "all of it took $(($(seconds) - start)) s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
