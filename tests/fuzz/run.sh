#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh BUILD EXECUTIONS [CORPUS]: runs the libFuzzer targets of BUILD so many executions each, over the
# seeds, tests/fuzz/corpus and CORPUS, into which new inputs go (CORPUS/TARGET; thrown away otherwise).
# ZQ_FUZZ_SEED: of the mutations, 1. ZQ_FUZZ_TARGETS: which. Failing inputs: BUILD/findings.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
runs=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
new=$dir/new
[ $# -lt 3 ] || new=$3
mkdir -p "$dir/seeds" "$dir/images" "$new" "$build/findings"
new=$(cd "$new" && pwd)
sh "$top/tests/fuzz/images.sh" "$dir/images"
ZQ_FUZZ_IMAGES=$dir/images
export ZQ_FUZZ_IMAGES
"$build/tests/fuzz/fuzz_corpus" "$dir/seeds" >/dev/null || exit 1
cd "$dir" || exit 1
passed=0
failed=0
sum=0
for target in ${ZQ_FUZZ_TARGETS:-header zones read repair ops command ctl ring}; do
    mkdir -p "$new/$target"
    set -- "$new/$target"
    [ ! -d "$top/tests/fuzz/corpus/$target" ] || set -- "$@" "$top/tests/fuzz/corpus/$target"
    case $target in command | ctl | ring) ;; *) set -- "$@" "$dir/seeds" ;; esac
    [ ! -f "$top/tests/fuzz/$target.dict" ] || set -- "-dict=$top/tests/fuzz/$target.dict" "$@"
    "$build/tests/fuzz/fuzz_$target" -runs="$runs" -seed="${ZQ_FUZZ_SEED:-1}" -max_len=4096 -len_control=0 \
        -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$build/findings/$target-" \
        "$@" </dev/null >"$dir/log" 2>&1
    status=$?
    done=$(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/log" | tail -n 1)
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$dir/log" | tail -n 1)
    sum=$((sum + ${done:-0}))
    if [ $status = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        grep -vE '^#[0-9]+	' "$dir/log" | tail -n 60
    fi
    echo "fuzz, $target: ${done:-0} executions, ${edges:-0} edges, $([ $status = 0 ] && echo 0 || echo 1) findings"
done
echo "fuzz, all: $sum executions"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
