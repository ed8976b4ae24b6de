#!/bin/sh
# SPDX-License-Identifier: MIT
# coverage.sh [BUILD]: builds with gcov, runs the tests that are not lint, guest or crash, and prints
# how many lines of src/ they reach. Fails below 90 %, or when a test fails.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    build=$(cd "$1" && pwd)
else
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
fi
sh "$top/tests/packages.sh" gcc make cmake pkg-config zlib1g-dev libzstd-dev liburing-dev \
    libcmocka-dev gcovr qemu-utils
{
    cmake -S "$top" -B "$build" -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Debug \
        -DCMAKE_C_FLAGS=-O1 -DZQCOW2_COVERAGE=ON
    cmake --build "$build" -j "$(nproc)"
} >"$build/coverage.log" 2>&1 || { tail -n 50 "$build/coverage.log"; exit 1; }
find "$build" -name '*.gcda' -delete
status=0
# Fewer operations and faults: a line is reached or not, however often.
ZQ_OPS=50000 ZQ_STEP=7 ctest --test-dir "$build" -j "$(nproc)" -LE '^(lint|package|guest|slow)$' -E '^crash' \
    --output-on-failure </dev/null >"$build/coverage.log" 2>&1 || status=$?
grep -E '% tests passed' "$build/coverage.log" || true
[ $status = 0 ] || grep -E '\*\*\*' "$build/coverage.log" || true
gcovr --root "$top" --filter "$top/src/" --object-directory "$build" --txt "$build/coverage.txt" \
    "$build" >/dev/null
awk '$4 ~ /%$/ && $1 != "TOTAL" && $4 + 0 < 85 { print "below 85 %:", $1, $4 }
    $1 == "TOTAL" { lines = $2; reached = $3 }
    END {
        printf "lines: %.1f %% of src/ reached (%d of %d)\n", lines ? 100 * reached / lines : 0,
            reached, lines
        exit !(lines > 0 && 100 * reached >= 90 * lines)
    }' "$build/coverage.txt" || status=1
exit $status
