#!/bin/sh
# SPDX-License-Identifier: MIT
# nightly.sh [SECONDS [WORDS]]: the adversary for a night, in one process for each processor, with
# seeds of the day. WORDS force a choice, such as zoned,snaps,queue. ZQ_BUILD: where to build.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
seconds=${1:-28800}
words=${2:-any}
if [ -n "${ZQ_BUILD:-}" ]; then
    dir=$ZQ_BUILD
else
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    trap 'exit 1' HUP INT TERM
fi
cmake -S "$top" -B "$dir" -DCMAKE_BUILD_TYPE=Release -DZQCOW2_ASSERTS=ON >/dev/null
cmake --build "$dir" -j "$(nproc)" --target powercut >/dev/null
first=$(($(date +%s) / 86400 * 10000000))
pids= failed=0
for i in $(seq "$(nproc)"); do
    "$dir/tests/powercut/powercut" --seed $((first + i * 1000000)) --seconds "$seconds" \
        --only "$words" >"$dir/powercut.$i" 2>&1 &
    pids="$pids $!"
done
for pid in $pids; do
    wait "$pid" || failed=1
done
cat "$dir"/powercut.*
exit "$failed"
