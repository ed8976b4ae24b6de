#!/bin/sh
# SPDX-License-Identifier: MIT
# nightly.sh [STATES [HOURS]]: the crash test for a night: a seventh of all sequences of up to three
# operations on every geometry, another one every day of a week; then 50 million distinct states by
# default, wider samples of each power cut, another seed every day. ZQ_BUILD: where to build.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
states=${1:-50000000}
hours=${2:-10}
if [ -n "${ZQ_BUILD:-}" ]; then
    dir=$ZQ_BUILD
else
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    trap 'exit 1' HUP INT TERM
fi
cmake -S "$top" -B "$dir" -DCMAKE_BUILD_TYPE=Release -DZQCOW2_ASSERTS=ON >/dev/null
cmake --build "$dir" -j "$(nproc)" --target crash kill >/dev/null
seed=$(($(date +%s) / 86400))
echo "seed $seed"
"$dir/tests/crash/kill" "$dir/kill.qcow2" 3000 "$seed"
"$dir/tests/crash/crash" --sequences 3 --parts 7 --part $((seed % 7)) --states 200000000 \
    --seconds $((hours * 1800)) --workers "$(nproc)" || [ $? = 77 ]
"$dir/tests/crash/crash" --states "$states" --seconds $((hours * 3600)) --cap 1500 \
    --seed "$seed" --workers "$(nproc)"
