#!/bin/sh
# SPDX-License-Identifier: MIT
# snapshots.sh [STATES [SEED]]: random histories of images that change while requests are in flight:
# snapshots taken, applied and deleted, other sizes, compressed zones, bitmaps, other features; plain
# and zoned, with a backing file or without; the power cut at every position (test_histories.c).
# 300,000 states by default, 0 violations. ZQ_BUILD: where to build.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
trap 'exit 1' HUP INT TERM
dir=${ZQ_BUILD:-$temp/build}
jobs=$(nproc)
cmake -S "$top" -B "$dir" -DCMAKE_BUILD_TYPE=Release -DZQCOW2_ASSERTS=ON >/dev/null
cmake --build "$dir" -j "$jobs" --target test_histories >/dev/null
test=$dir/tests/crash/test_histories
export ZQ_EVERY="$jobs" ZQ_STATES=$(((${1:-300000} + jobs - 1) / jobs))
pids=
for i in $(seq 0 $((jobs - 1))); do
    ZQ_FIRST=$((${2:-1} + i)) "$test" >"$temp/$i" 2>&1 &
    pids="$pids $!"
done
failed=0
for pid in $pids; do
    wait "$pid" || failed=$((failed + 1))
done
grep -hA1 '^ERROR' "$temp"/[0-9]* || true
grep -h '^histories:' "$temp"/[0-9]* || true
grep -h '^histories:' "$temp"/[0-9]* /dev/null | awk -v failed="$failed" '
    { n += $2; for (i = 3; i < NF; i++) if ($(i + 1) == "crash") states += $i }
    END { printf "snapshots: %d histories, %d crash states, %d violations\n", n, states, failed }'
[ "$failed" = 0 ]
