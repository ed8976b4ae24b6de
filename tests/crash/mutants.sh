#!/bin/sh
# SPDX-License-Identifier: MIT
# mutants.sh [NUMBER...]: proof that the tests bite. Builds the library once so that one rule can be
# broken at a time (mutants.txt), then runs the tests against each until one fails. Mutant 0 breaks
# nothing and has to live. Prints a line for each and "mutants: N killed, M alive".
# ZQ_BUILD: where to build; ZQ_JOBS: mutants at a time; ZQ_SECONDS: of crash testing for a mutant.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
seconds=${ZQ_SECONDS:-90}
jobs=${ZQ_JOBS:-$(nproc)}
if [ -n "${ZQ_BUILD:-}" ]; then
    dir=$ZQ_BUILD
    mkdir -p "$dir"
else
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    trap 'exit 1' HUP INT TERM
fi
names='statetable semantics mistakes order queue model faults'
targets=crash
for name in $names; do
    [ -f "$top/tests/test_$name.c" ] && targets="$targets test_$name"
done
# shellcheck disable=SC2086
if ! { cmake -S "$top" -B "$dir" -DCMAKE_BUILD_TYPE=Release \
    "-DCMAKE_C_FLAGS=-include $here/mutant.h" &&
    cmake --build "$dir" -j "$(nproc)" --target $targets; } >"$dir.log" 2>&1; then
    tail -n 50 "$dir.log"
    echo 'mutants: 0 killed, the build failed'
    exit 1
fi

# try TEST: runs it; the figures are such that a test which passes takes no longer than it must.
try() {
    if [ "$1" = crash ]; then
        "$dir/tests/crash/crash" --quick --workers 1 --cap 24 --seconds "$seconds" \
            --states 1000000000
    elif [ -x "$dir/tests/test_$1" ]; then
        (cd "$dir/tests" && ZQ_OPS=30000 timeout 300 "./test_$1")
    fi
}

# one NUMBER NAME TEST: leaves a line in $dir/results.
one() {
    export ZQ_MUTANT="$1"
    for test in "$3" crash $names; do
        if ! try "$test" >"$dir/log.$1" 2>&1; then
            echo "killed $1 $2 by $test: $(grep -aE 'crash --replay|rror|ailed|seed' \
                "$dir/log.$1" | head -n 1 | cut -c 1-120)" >>"$dir/results"
            return
        fi
        [ "$1" = 0 ] && [ "$test" = crash ] && break
    done
    echo "ALIVE $1 $2" >>"$dir/results"
}

: >"$dir/results"
[ $# -gt 0 ] || one 0 nothing crash
running=0
while read -r number name test what; do
    case $number in '' | '#'*) continue ;; esac
    case " $* " in '  ' | *" $number "*) ;; *) continue ;; esac
    if grep -rqE "ZQ_BREAK\($number\)" "$top/src"; then
        one "$number" "$name" "$test" &
        running=$((running + 1))
    else
        echo "ALIVE $number $name: there is no ZQ_BREAK($number) in src ($what)" >>"$dir/results"
    fi
    if [ "$running" -ge "$jobs" ]; then
        wait
        running=0
    fi
done <"$here/mutants.txt"
wait
sort -k2n "$dir/results"
if grep '^killed 0 ' "$dir/results"; then
    echo 'mutants: the tests fail with nothing broken'
    exit 1
fi
killed=$(grep -c '^killed' "$dir/results")
alive=$(grep '^ALIVE' "$dir/results" | grep -vc '^ALIVE 0 ')
echo "mutants: $killed killed, $alive alive"
[ "$alive" = 0 ] && [ "$killed" -gt 0 ]
