#!/bin/sh
# SPDX-License-Identifier: MIT
# mutants.sh [NUMBER...]: builds the library with one rule broken at a time (mutants.txt) and runs
# the tests until one fails. Prints the survivors, and "mutants: N killed, M alive".
# ZQ_BUILD: where to build; ZQ_JOBS: mutants at a time; ZQ_SECONDS: of crash testing per mutant.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
seconds=${ZQ_SECONDS:-60}
jobs=${ZQ_JOBS:-$(nproc)}
if [ -n "${ZQ_BUILD:-}" ]; then
    dir=$ZQ_BUILD
    mkdir -p "$dir"
else
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    trap 'exit 1' HUP INT TERM
fi

# suite TREE FIRST: the likely test first, then the others; 0 when all pass.
suite() {
    for try in $2 crash statetable semantics queue model faults; do
        if [ "$try" = crash ]; then
            [ -x "$1/tests/crash/crash" ] || return 99
            "$1/tests/crash/crash" --quick --workers 1 --cap 24 --seconds "$seconds" \
                --states 1000000000 >"$1/log" 2>&1 || return 1
        elif [ -x "$1/tests/test_$try" ]; then
            (cd "$1" && ZQ_OPS=50000 timeout 300 "./tests/test_$try" >"$1/log" 2>&1) || return 1
        fi
    done
}

# one NUMBER NAME SUITE: builds and tries; leaves a line in $dir/results.
one() {
    tree=$dir/m$1
    if ! { cmake -S "$top" -B "$tree" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=ON \
        -DCMAKE_C_FLAGS="-DZQ_MUTANT=$1 -Wno-unused" && cmake --build "$tree" -j 2; } \
        >"$dir/build$1.log" 2>&1; then
        echo "broken $1 $2: does not build, see $dir/build$1.log" >>"$dir/results"
        return
    fi
    if suite "$tree" "$3"; then
        echo "ALIVE $1 $2" >>"$dir/results"
    else
        echo "killed $1 $2: $(grep -aE 'crash --replay|rror|ailed|seed' "$tree/log" | head -n 1)" \
            >>"$dir/results"
    fi
    rm -rf "$tree"
}

: >"$dir/results"
running=0
while read -r number name suite what; do
    case $number in '' | '#'*) continue ;; esac
    case " $* " in '  ' | *" $number "*) ;; *) continue ;; esac
    grep -rqE "ZQ_BREAK\($number\)" "$top/src" || {
        echo "broken $number $name: no ZQ_BREAK($number) in src" >>"$dir/results"
        continue
    }
    one "$number" "$name" "$suite" &
    running=$((running + 1))
    if [ "$running" -ge "$jobs" ]; then
        wait
        running=0
    fi
done <"$here/mutants.txt"
wait
sort -k2n "$dir/results"
killed=$(grep -c '^killed' "$dir/results")
alive=$(grep -cv '^killed' "$dir/results")
echo "mutants: $killed killed, $alive alive"
[ "$alive" = 0 ] && [ "$killed" -gt 0 ]
