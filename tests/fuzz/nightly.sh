#!/bin/sh
# SPDX-License-Identifier: MIT
# nightly.sh [EXECUTIONS [CORPUS]]: each libFuzzer target so many executions (2 million) with the seed of
# the day; then which lines of src/ the corpus alone reaches. New inputs go to CORPUS, if it is given.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
sh "$top/tests/packages.sh" clang gcc cmake make pkg-config zlib1g-dev libzstd-dev liburing-dev \
    libcmocka-dev gcovr qemu-utils || exit 1
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$build/new"
new=$build/new
[ $# -lt 2 ] || new=$2
compile() { # NAME OPTIONS...
    name=$1
    shift
    { cmake -S "$top" -B "$build/$name" "$@" &&
        cmake --build "$build/$name" -j "$(nproc)" --target fuzz; } >"$build/log" 2>&1 ||
        { tail -n 50 "$build/log"; exit 1; }
}
compile fuzz -DCMAKE_C_COMPILER=clang -DZQCOW2_SANITIZE=fuzzer -DZQCOW2_ASSERTS=ON
ZQ_FUZZ_SEED=${ZQ_FUZZ_SEED:-$(date +%Y%m%d)}
export ZQ_FUZZ_SEED
sh "$top/tests/fuzz/run.sh" "$build/fuzz" "${1:-2000000}" "$new"
status=$?
for input in "$build"/fuzz/findings/*; do
    [ ! -f "$input" ] || cp "$input" .
done
compile gcov -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 -DZQCOW2_COVERAGE=ON
for target in header zones read repair ops command ctl ring; do
    mkdir -p "$build/all/$target"
    cp -r "$new/$target/." "$build/all/$target"
    [ ! -d "$top/tests/fuzz/corpus/$target" ] || cp -r "$top/tests/fuzz/corpus/$target/." "$build/all/$target"
    ZQ_MUTATIONS=0 sh "$top/tests/fuzz/regress.sh" "$build/gcov/tests/fuzz/fuzz_$target" \
        "$build/gcov/tests/fuzz/fuzz_corpus" "$build/all/$target" >>"$build/log" 2>&1 || status=1
done
gcovr --root "$top" --filter "$top/src/" --object-directory "$build/gcov" --txt "$build/coverage.txt" \
    "$build/gcov" >/dev/null
awk '$1 == "TOTAL" { printf "coverage of src/ by fuzzing alone: %s of lines\n", $4; exit }' "$build/coverage.txt"
exit $status
