#!/bin/sh
# SPDX-License-Identifier: MIT
# mutants.sh [NUMBER...]: breaks one rule at a time in a copy of src/ and tools/ (mutants.txt says which) and
# runs the tests until one fails. Prints the survivors, and "mutants: N killed, M alive".
# ZQ_BUILD: where to build; ZQ_JOBS: mutants at a time; ZQ_STATES: crash states per mutant;
# ZQ_SUITE_ONLY=1: no other test than the one that the list names; ZQ_ASSERTS=OFF: without the
# assertions that every other tree of tests has.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
states=${ZQ_STATES:-60000}
asserts=${ZQ_ASSERTS:-ON}
jobs=${ZQ_JOBS:-$(nproc)}
if [ -n "${ZQ_BUILD:-}" ]; then
    dir=$ZQ_BUILD
    mkdir -p "$dir"
else
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    trap 'exit 1' HUP INT TERM
fi
tests='crash statetable mistakes semantics shared order queue model faults'

python3 "$here/mutate.py" - "$here/mutants.txt" - >"$dir/list" || exit 2
wanted() {
    case " $numbers " in '  ' | *" $1 "*) ;; *) return 1 ;; esac
}
numbers=$*
for n in $numbers; do
    grep -q "^$n " "$dir/list" || {
        echo "mutants.txt has no mutant $n"
        exit 2
    }
done
suites=$(while read -r number _ suite; do
    wanted "$number" && echo "$suite"
done <"$dir/list" | sort -u)
[ -n "${ZQ_SUITE_ONLY:-}" ] && tests=

program() {
    if [ "$1" = crash ]; then echo crash; else echo "test_$1"; fi
}

# The tests are built once; for each mutant only what it changes, and the tests are linked again.
base=$dir/base
cmake -S "$top" -B "$base" -DCMAKE_BUILD_TYPE=Release -DZQCOW2_ASSERTS="$asserts" >"$dir/base.log" 2>&1 || exit 2
# Some tests run the command.
runs_tool() {
    case $1 in vhost*) ;; *) return 1 ;; esac
}
targets=$(for t in $tests $suites; do
    program "$t"
    ! runs_tool "$t" || echo zqcow2_tool
done | sort -u)
# shellcheck disable=SC2086 # one word for each target
cmake --build "$base" -j "$(nproc)" --target zqcow2_static $targets >>"$dir/base.log" 2>&1 || {
    tail -n 20 "$dir/base.log"
    exit 2
}

# What a header changes: the sources that this system's library has.
built=$(cd "$base" && find . -path '*/src/*.c.o' | sed 's#.*/src/#src/#; s#\.o$##' | sort -u)

# relink TREE PROGRAM [TARGET]: the mutant's objects, then the base's library, from which the linker
# takes the rest, in whichever folder the program is. A program that has sources instead of the library
# gets the mutant's objects in their place; one that has neither fails.
relink() {
    link=$(find "$base/tests" "$base/tools" -path "*/CMakeFiles/${3:-$2}.dir/link.txt")
    objects=$(find "$1/src" -name '*.o' -printf '%p ' 2>/dev/null)
    # Those of the command are in the link by themselves, and give way.
    own=$(find "$1/tools" -name '*.o' -printf 's#[^ ]*/%P#%p#; ' 2>/dev/null)
    grep -q 'libzqcow2\.a' "$link" ||
        own=$own$(find "$1/src" -name '*.o' -printf 's#[^ ]*/src/%P#%p#; ' 2>/dev/null)
    command=$(sed "$own s#[^ ]*libzqcow2\.a#$objects$base/libzqcow2.a#; s#-o $2 #-o $1/$2 #" "$link")
    case ${objects:+$command} in '' | *"$1/src/"*) ;; *) return 1 ;; esac
    (cd "${link%/CMakeFiles/*}" && sh -c "$command")
}

# objects_of TREE NUMBER: of the files that the mutant changes, each beside its source.
objects_of() {
    cp -r "$top/src" "$top/tools" "$1/"
    files=$(python3 "$here/mutate.py" "$2" "$here/mutants.txt" "$1") || return 1
    case $files in *.h*) files=$built ;; esac
    [ "$asserts" = ON ] && ndebug=-UNDEBUG || ndebug=-DNDEBUG
    for f in $files; do
        gcc -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 "$ndebug" -O2 -fPIC -w -I"$1/src" -I"$1/tools" -I"$top/include" -c "$1/$f" -o "$1/$f.o" ||
            return 1
    done
}

# try TREE TEST: 0 when it passes; without a program there is no such test.
try() {
    p=$(program "$2")
    relink "$1" "$p" || return 2
    ! runs_tool "$2" || relink "$1" zqcow2 zqcow2_tool || return 2
    if [ "$2" = crash ]; then
        "$1/$p" --quick --workers 1 --cap 24 --states "$states"
    else
        (cd "$1" && ZQCOW2_TOOL=$1/zqcow2 ZQ_SOURCE_DIR=$top ZQ_OPS=50000 ZQ_STEP=7 timeout 240 "./$p")
    fi >"$1/log" 2>&1
}

# one NUMBER NAME SUITE: the likely test first, then the others; a line in $dir/results.
one() {
    tree=$dir/m$1
    rm -rf "$tree"
    mkdir -p "$tree"
    if ! objects_of "$tree" "$1" >"$dir/build$1.log" 2>&1; then
        echo "broken $1 $2: does not build, see $dir/build$1.log" >>"$dir/results"
        return
    fi
    for t in "$3" $tests; do
        try "$tree" "$t" && continue
        if [ ! -x "$tree/$(program "$t")" ]; then
            echo "broken $1 $2: there is no test $t" >>"$dir/results"
        else
            echo "killed $1 $2 by $t: $(grep -aE 'crash --replay|no end|Assertion|FAILED|rror:|^hung|library waits|seed' "$tree/log" |
                head -n 1)" >>"$dir/results"
        fi
        rm -rf "$tree"
        return
    done
    echo "ALIVE $1 $2" >>"$dir/results"
    rm -rf "$tree"
}

# What fails without a mutant kills nothing.
for t in $suites; do
    [ "$t" = crash ] && continue
    mkdir -p "$dir/sound"
    try "$dir/sound" "$t" || {
        echo "test $t fails without a mutant:"
        tail -n 20 "$dir/sound/log"
        exit 2
    }
    rm -rf "$dir/sound"
done

: >"$dir/results"
while read -r number name suite; do
    ! wanted "$number" || echo "$number $name $suite"
done <"$dir/list" >"$dir/todo"
job=0
while [ "$job" -lt "$jobs" ]; do
    awk -v n="$jobs" -v job="$job" 'NR % n == job' "$dir/todo" | while read -r number name suite; do
        one "$number" "$name" "$suite" </dev/null
    done &
    job=$((job + 1))
done
wait
sort -k 2n "$dir/results"
killed=$(grep -c '^killed' "$dir/results")
alive=$(grep -cv '^killed' "$dir/results")
echo "mutants: $killed killed, $alive alive"
[ "$alive" = 0 ]
