#!/bin/sh
# SPDX-License-Identifier: MIT
# layers.sh [STATES [SEED]]: the crash test in the worlds that have more than one file: overlays of
# one and two layers on raw and qcow2 sources, data files, images that are committed into their
# backing files. 300,000 distinct states by default, 0 violations. ZQ_BUILD: where to build.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
if [ -n "${ZQ_BUILD:-}" ]; then
    dir=$ZQ_BUILD
else
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    trap 'exit 1' HUP INT TERM
fi
cmake -S "$top" -B "$dir" -DCMAKE_BUILD_TYPE=Release -DZQCOW2_ASSERTS=ON >/dev/null
cmake --build "$dir" -j "$(nproc)" --target crash >/dev/null
"$dir/tests/crash/crash" --layers --states "${1:-300000}" --seed "${2:-1}" --workers "$(nproc)"
