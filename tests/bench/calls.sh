#!/bin/sh
# SPDX-License-Identifier: MIT
# calls.sh [--dir DIRECTORY] [-n ROUNDS] [-m MIB]: builds the release library and prints how long single calls
# of the file, threads and io_uring backends take: median, 99 %, 99.9 % and the longest. About a minute.
# DIRECTORY, on the file system to measure, takes 64 MiB; without it, a temporary one.
# ZQ_BUILD: where to build (a temporary directory otherwise, removed at the end).
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
data=$scratch
if [ "${1:-}" = --dir ]; then
    data=$2
    shift 2
fi
build=${ZQ_BUILD:-$scratch/build}
if ! { cmake -S "$top" -B "$build" -DCMAKE_BUILD_TYPE=Release &&
    cmake --build "$build" --target bench_calls -j "$(nproc)"; } >"$scratch/log" 2>&1; then
    tail -n 40 "$scratch/log"
    exit 1
fi
echo "kernel: $(uname -sr); file system: $(stat -f -c %T "$data"); load: $(cut -d' ' -f1-3 /proc/loadavg)"
"$build/tests/bench/bench_calls" "$@" "$data"
