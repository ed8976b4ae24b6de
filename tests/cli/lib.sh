# SPDX-License-Identifier: MIT
# What the tests of the command share: sourced with the path of zqcow2 as the test's $1.
set -u
here=$(cd "$(dirname "$0")" && pwd)
tool=${1:?usage: $0 PATH_OF_ZQCOW2}
case $tool in /*) ;; *) tool=$PWD/$tool ;; esac
export tool # a shell started below needs no quoting of the path
[ -x "$tool" ] || { echo "Bail out! $tool cannot be run"; exit 99; }
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT
trap 'exit 99' HUP INT TERM
cd "$dir" || exit 99
tests=0
failures=0
ran=

# verdict STATUS NAME: one line of TAP.
verdict() {
    tests=$((tests + 1))
    if [ "$1" = 0 ]; then
        echo "ok $tests - $2"
    else
        echo "not ok $tests - $2"
        failures=$((failures + 1))
    fi
    return "$1"
}

# What replays a failure: the command and what it said.
show() {
    echo "# command: $ran"
    sed 's/^/# stdout: /' out
    sed 's/^/# stderr: /' err
}

# run WANTED_STATUS NAME ARGUMENT...: runs zqcow2; its output is in the files out and err.
run() {
    run_wanted=$1
    run_name=$2
    shift 2
    ran="zqcow2 $*"
    "$tool" "$@" >out 2>err
    run_got=$?
    verdict $([ "$run_got" = "$run_wanted" ]; echo $?) "$run_name" && return 0
    echo "# exit status $run_got, not $run_wanted"
    show
    return 1
}

# is NAME WANTED GOT
is() {
    verdict $([ "$2" = "$3" ]; echo $?) "$1" && return 0
    printf '%s\n' "$2" | sed 's/^/# wanted: /'
    printf '%s\n' "$3" | sed 's/^/# got:    /'
    echo "# after: ${ran:-}"
    return 1
}

# has NAME FILE REGEX, lacks NAME FILE REGEX
has() {
    verdict $(grep -qE -- "$3" "$2"; echo $?) "$1" && return 0
    echo "# nothing in $2 matches: $3"
    show
    return 1
}
lacks() {
    verdict $(grep -qE -- "$3" "$2"; echo $((!$?))) "$1" && return 0
    echo "# $2 matches: $3"
    show
    return 1
}

# same NAME FILE FILE
same() {
    verdict $(cmp -s "$2" "$3"; echo $?) "$1" && return 0
    echo "# $(cmp "$2" "$3" 2>&1)"
    echo "# after: ${ran:-}"
    return 1
}

# zone FILE INDEX KEY: from report --json.
zone() {
    "$tool" report --json "$1" | python3 -c '
import json, sys
print(json.load(sys.stdin)[int(sys.argv[1])][sys.argv[2]])' "$2" "$3"
}

# random BYTES SEED: the same bytes every time.
random() {
    python3 -c '
import random, sys
sys.stdout.buffer.write(random.Random(int(sys.argv[2])).randbytes(int(sys.argv[1])))' "$1" "$2"
}

skip() {
    echo "1..0 # SKIP $1"
    exit 77
}

finish() {
    echo "1..$tests"
    [ "$failures" = 0 ] || echo "# $failures of $tests failed"
    [ "$failures" = 0 ]
    exit $?
}
