#!/bin/sh
# SPDX-License-Identifier: MIT
# mutants.sh [NUMBER...]: breaks one rule at a time in a copy of src/ (mutants.txt says which) and
# runs the tests until one fails. Prints the survivors, and "mutants: N killed, M alive".
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
tests='statetable mistakes semantics shared order queue model faults'

# The tests are built once; for each mutant only what it changes, and the tests are linked again.
base=$dir/base
cmake -S "$top" -B "$base" -DCMAKE_BUILD_TYPE=Release >"$dir/base.log" 2>&1 || exit 2
targets=$(for t in $tests; do echo "test_$t"; done)
# shellcheck disable=SC2086 # one word for each target
cmake --build "$base" -j "$(nproc)" --target zqcow2_static crash $targets >>"$dir/base.log" 2>&1 || {
    tail -n 20 "$dir/base.log"
    exit 2
}

# relink TREE FOLDER PROGRAM: against the mutant's library.
relink() {
    link=$base/$2/CMakeFiles/$3.dir/link.txt
    (cd "$base/$2" && sh -c "$(sed "s#[^ ]*libzqcow2\.a#$1/libzqcow2.a#g; s#-o $3 #-o $1/$3 #" "$link")")
}

# library TREE NUMBER: the base's objects, but for the files that the mutant changes.
library() {
    cp -r "$top/src" "$1/src"
    cp "$base/libzqcow2.a" "$1/libzqcow2.a"
    files=$(python3 "$here/mutate.py" "$2" "$here/mutants.txt" "$1") || return 1
    case $files in *.h*) files=$(cd "$1" && find src -name '*.c' ! -name '*_none.c') ;; esac
    for f in $files; do
        o=$1/$(basename "$f").o
        gcc -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DNDEBUG -O2 -fPIC -w -I"$1/src" -I"$top/include" -c "$1/$f" -o "$o" &&
            ar r "$1/libzqcow2.a" "$o" 2>/dev/null || return 1
    done
}

# try TREE TEST: 0 when it passes.
try() {
    if [ "$2" = crash ]; then
        relink "$1" tests/crash crash && "$1/crash" --quick --workers 1 --cap 24 --seconds "$seconds" \
            --states 1000000000 >"$1/log" 2>&1
    else
        relink "$1" tests "test_$2" &&
            (cd "$1" && ZQ_OPS=50000 ZQ_STEP=7 timeout 240 "./test_$2" >"$1/log" 2>&1)
    fi
}

# one NUMBER NAME SUITE: the likely test first, then the others; a line in $dir/results.
one() {
    tree=$dir/m$1
    rm -rf "$tree"
    mkdir -p "$tree"
    if ! library "$tree" "$1" >"$dir/build$1.log" 2>&1; then
        echo "broken $1 $2: does not build, see $dir/build$1.log" >>"$dir/results"
        return
    fi
    for t in "$3" crash $tests; do
        if ! try "$tree" "$t"; then
            echo "killed $1 $2 by $t: $(grep -aE 'crash --replay|rror|ailed|seed' "$tree/log" |
                head -n 1)" >>"$dir/results"
            rm -rf "$tree"
            return
        fi
    done
    echo "ALIVE $1 $2" >>"$dir/results"
    rm -rf "$tree"
}

: >"$dir/results"
running=0
python3 "$here/mutate.py" - "$here/mutants.txt" - >"$dir/list" || exit 2
while read -r number name suite; do
    case " $* " in '  ' | *" $number "*) ;; *) continue ;; esac
    one "$number" "$name" "$suite" &
    running=$((running + 1))
    if [ $running -ge "$jobs" ]; then
        wait
        running=0
    fi
done <"$dir/list"
wait
sort -k 2n "$dir/results"
killed=$(grep -c '^killed' "$dir/results")
alive=$(grep -cv '^killed' "$dir/results")
echo "mutants: $killed killed, $alive alive"
[ "$alive" = 0 ]
