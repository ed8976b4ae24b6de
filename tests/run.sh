#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh [STAGE...]: every test there is, in stages; without a STAGE, all of them. Minutes on two idle
# cores, at most:
#   lint       house rules, headers, man pages, ABI rules             1 min
#   build      gcc and clang, warnings as errors; unit tests; install 10 min
#   model      random operations against a model; fault sweeps        8 min
#   crash      power loss at every instant                           10 min
#   sanitize   AddressSanitizer, UBSan, ThreadSanitizer, fuzzing     10 min
#   guest      a Linux guest on a zoned disk, if tests/guest is here 12 min
# It ends with the names of what failed and "N passed, N failed", and the exit status says the same:
# only what is wrong fails.
# A busy machine takes longer; what has not run when the time is up is listed, and does not fail.
# ZQ_MINUTES: when the time is up, 80 by default (CI ends all after 90).
# ZQ_BUILD: where to build (a temporary directory otherwise, removed at the end).
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
export CTEST_OUTPUT_ON_FAILURE=1
jobs=$(nproc)
passed=0
failed=0
begun=$(date +%s)
deadline=$((begun + ${ZQ_MINUTES:-80} * 60))
missing= # what did not run, or not to its end
wrong=   # the tests and steps that failed, one a line
export ZQ_UNTIL=$((deadline - 60)) # the crash suite looks at it
if [ -n "${ZQ_BUILD:-}" ]; then
    dir=$ZQ_BUILD
    mkdir -p "$dir"
else
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    trap 'exit 1' HUP INT TERM
fi
# A folder of its own shows what is left behind.
TMPDIR=$dir/tmp
export TMPDIR
rm -rf "$TMPDIR"
mkdir "$TMPDIR"
model='^test_(model|faults)'
crash='^crash'

# unfinished WHAT: it did not run, or not to its end, for no fault of its own.
unfinished() {
    echo "!! $1: the time is up, it did not run to its end"
    missing="$missing
  $1"
}

# wrong WHAT: it failed. Said again at the end, because a long output is often cut to its end.
wrong() {
    echo "!! $1: failed"
    wrong="$wrong
  $1"
}

time_is_up() {
    [ "$(date +%s)" -ge "$deadline" ]
}

# Adds what ctest says: ctest_sum WHAT LOG
ctest_sum() {
    all=$(sed -n 's/.*% tests passed, .* out of \([0-9]*\).*/\1/p' "$2" | tail -n 1)
    bad=$(sed -n 's/.*% tests passed, \([0-9]*\) tests* failed.*/\1/p' "$2" | tail -n 1)
    # ctest counts a skipped test as passed, and one that the end of the time cut off as failed;
    # here they are neither.
    skipped=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*\*\*\*Skipped' "$2")
    cut=0
    if time_is_up; then
        cut=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*\*\*\*Timeout' "$2")
        for test in $(sed -nE 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: ([^ ]+) .*\*\*\*Timeout.*/\1/p' "$2"); do
            unfinished "$1: $test"
        done
    fi
    # Tests that were never started are in no sum.
    ! grep -q 'stop time has been passed' "$2" || unfinished "$1: tests that had not begun"
    passed=$((passed + all - bad - skipped))
    failed=$((failed + bad - cut))
    # What the time cut off is named above.
    passes=Skipped
    [ $cut = 0 ] || passes='Skipped|Timeout'
    for test in $(sed -nE "/\\*\\*\\*($passes)/d; "'s/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: ([^ ]+) .*\*\*\*.*/\1/p' "$2"); do
        wrong "$1: $test"
    done
}

# Adds what a step of a stage came to: count WHAT STATUS LOG
count() {
    if grep -qE '% tests passed, [0-9]+ tests? failed out of' "$3"; then
        ctest_sum "$1" "$3"
        return
    fi
    if [ "$2" = 124 ] || [ "$2" = 137 ] && time_is_up; then
        unfinished "$1"
        return
    fi
    summary=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$3" | tail -n 1)
    bad=$(echo "${summary:-0 passed, 0 failed}" | sed 's/.*passed, \([0-9]*\) .*/\1/')
    [ "$2" = 0 ] || [ "$bad" -gt 0 ] || bad=1
    good=${summary%% *}
    passed=$((passed + ${good:-$((1 - bad))}))
    failed=$((failed + bad))
    [ "$bad" = 0 ] || wrong "$1"
}

# left: seconds that remain, at least 1.
left() {
    now=$(date +%s)
    [ $((deadline - now)) -gt 1 ] && echo $((deadline - now)) || echo 1
}

# step WHAT COMMAND...: runs within what is left of the time; shows the end, or all if it failed.
step() {
    what=$1
    shift
    if time_is_up; then
        unfinished "$what"
        return 1
    fi
    log=$dir/log
    start=$(date +%s)
    timeout -k 10 "$(($(left) + slack))" "$@" </dev/null >"$log" 2>&1
    status=$?
    if [ $status = 0 ]; then
        grep -hE "$worth" "$log" || true
    else
        tail -n 400 "$log"
    fi
    count "$what" $status "$log"
    echo "-- $what: $(($(date +%s) - start)) s"
    return $status
}
slack=0
# What of a good run is worth showing: ctest's lines, and "WHAT: ... N" as some tests print it.
worth='^ *[0-9]+/[0-9]+ Test|% tests passed|^Total Test time|did not run|Skipped|^(not )?ok '
worth="$worth"'|^\||^fuzz, |^Against|^machine: |^kernel: |^open of |^reset of '
figures='^(I/O|[a-z])[a-z0-9 ,/+-]{2,40}: .*[0-9]'

# tree NAME OPTIONS...: configures and builds it; counted only when it fails.
tree() {
    name=$1
    shift
    if time_is_up; then
        unfinished "build $name, and its tests"
        return 1
    fi
    start=$(date +%s)
    if { timeout -k 10 "$(left)" cmake -S "$top" -B "$dir/$name" "$@" &&
        timeout -k 10 "$(left)" cmake --build "$dir/$name" -j "$jobs" --target "${ZQ_BUILD_TARGET:-all}"; } </dev/null >"$dir/log" 2>&1; then
        echo "-- build $name: $(($(date +%s) - start)) s"
        return 0
    fi
    if time_is_up; then
        unfinished "build $name, and its tests"
        return 1
    fi
    tail -n 100 "$dir/log"
    wrong "build $name"
    failed=$((failed + 1))
    return 1
}

tests() { # NAME CTEST-ARGUMENTS...: those tests of tree NAME, and the figures that they print
    name=$1
    shift
    # ctest ends what runs when the time is up, and still sums up.
    stop=$(date -d "@$(($(date +%s) + $(left)))" +%H:%M:%S)
    slack=30
    step "tests, $name" ctest --test-dir "$dir/$name" -j "$jobs" --no-tests=error \
        --stop-time "$stop" "$@"
    status=$?
    slack=0
    last=$dir/$name/Testing/Temporary/LastTest.log
    [ -f "$last" ] || return $status
    grep -hE "$figures" "$last" | grep -vE '^(not )?ok ' || true
    sh "$top/tests/reasons.sh" "$dir/log" "$last"
    return $status
}

gcc_tree() {
    tree gcc -DCMAKE_C_COMPILER=gcc -DZQCOW2_WERROR=ON -DZQCOW2_ASSERTS=ON
}

stage_lint() {
    step 'configure' cmake -S "$top" -B "$dir/gcc" -DCMAKE_C_COMPILER=gcc -DZQCOW2_WERROR=ON \
        -DZQCOW2_ASSERTS=ON &&
        tests gcc -L '^lint$'
}

# The second compiler also builds without io_uring, and then the portable library, so that every choice
# of files is tested. Other tests ask for holes in files, for the locks of QEMU or for system calls by name.
portable='^(example_|test_(answers|backend|bitmaps|calls|check|create|data_file|device|event_loop|handover'
portable="$portable"'|held|image_async|memory|order|queue|repair|resize|sizes|snapshots|threads|zones))'
stage_build() {
    gcc_tree && tests gcc -LE '^(lint|guest)$' -E "$model|$crash"
    tree clang -DCMAKE_C_COMPILER=clang -DZQCOW2_WERROR=ON -DZQCOW2_URING=OFF -DZQCOW2_ASSERTS=ON &&
        tests clang -LE '^(lint|package|guest)$' -E "$model|$crash|counts_instructions"
    tree portable -DCMAKE_C_COMPILER=clang -DZQCOW2_WERROR=ON -DZQCOW2_PORTABLE=ON -DZQCOW2_ASSERTS=ON &&
        tests portable -R "$portable"
    # Instructions are counted without assertions.
    tree plain -DCMAKE_C_COMPILER=gcc -DZQCOW2_WERROR=ON && tests plain -R '^(counts_instructions|test_counts|test_zone_costs)$'
    # Shown, not judged: other programs run on this machine, too.
    tree release -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Release -DZQCOW2_WERROR=ON &&
        step 'bench' env ZQ_BUILD="$dir/release" sh "$top/tests/bench/run.sh" --short
}

stage_model() {
    gcc_tree && tests gcc -R "$model"
}

stage_crash() {
    gcc_tree && tests gcc -R "$crash"
}

# Instrumented code is several times slower: fewer random operations, every 11th fault and power cut.
stage_sanitize() {
    ZQ_OPS=20000
    ZQ_STEP=11
    ZQ_MUTATIONS=0 # the fuzzer itself runs below
    export ZQ_OPS ZQ_STEP ZQ_MUTATIONS
    export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1
    export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
    tree asan -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Debug -DZQCOW2_SANITIZE=address &&
        tests asan -LE '^(lint|package|guest|slow)$' -E "$crash"
    tree tsan -DCMAKE_C_COMPILER=gcc -DZQCOW2_SANITIZE=thread -DZQCOW2_ASSERTS=ON &&
        tests tsan -R '^test_(threads|queue$|order|async|uring|image_async|held|stack)' &&
        ZQ_OPS=1000000 tests tsan -R '^test_queues_stress'
    unset ZQ_OPS ZQ_STEP ZQ_MUTATIONS
    ZQ_BUILD_TARGET=fuzz
    tree fuzz -DCMAKE_C_COMPILER=clang -DZQCOW2_SANITIZE=fuzzer -DZQCOW2_ASSERTS=ON &&
        step 'fuzz' sh "$top/tests/fuzz/run.sh" "$dir/fuzz" 1500
    unset ZQ_BUILD_TARGET
}

stage_guest() {
    if [ -f "$top/tests/guest/run.sh" ]; then
        step 'guest' sh "$top/tests/guest/run.sh"
    else
        echo 'no guest tests here'
    fi
}

budget() {
    case $1 in
    lint) echo 1 ;; build) echo 10 ;; model) echo 8 ;; crash | sanitize) echo 10 ;; guest) echo 12 ;;
    *) echo 0 ;;
    esac
}

[ $# -gt 0 ] || set -- lint build model crash sanitize guest
for stage in "$@"; do
    [ "$(budget "$stage")" != 0 ] && continue
    sed -n '3,16s/^# *//p' "$0"
    exit 2
done

if ! sh "$top/tests/packages.sh"; then
    echo '0 passed, 1 failed'
    exit 1
fi

for stage in "$@"; do
    minutes=$(budget "$stage")
    printf '\n==== %s (%s min)\n' "$stage" "$minutes"
    start_of_stage=$(date +%s)
    "stage_$stage"
    took=$(($(date +%s) - start_of_stage))
    [ $took -le $((minutes * 60)) ] || echo "-- $stage: $took s, more than its $minutes minutes on idle cores"
done

# What was cut off could not clean up after itself.
rest=$(ls -A "$TMPDIR")
if [ -n "$rest" ] && [ -z "$missing" ]; then
    wrong "left in the folder for temporary files: $(echo $rest)"
    failed=$((failed + 1))
fi
printf '\n%s s in all\n' $(($(date +%s) - begun))
[ -z "$missing" ] || echo "did not run to the end, for lack of time:$missing"
[ -z "$wrong" ] || echo "failed:$wrong"
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
