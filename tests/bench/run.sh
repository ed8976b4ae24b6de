#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh [--short] [--dir DIRECTORY] [BENCH-OPTION...]: builds the release library and compares it
# with bare loops and, where it is installed, with qemu-img. --short: at most 90 s.
# DIRECTORY, on the file system to measure, takes 2 GiB; without it, a temporary one.
# ZQ_BUILD: where to build (a temporary directory otherwise, removed at the end).
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
short=
where=
while [ $# -gt 0 ]; do
    case $1 in
    --short) short=-s ;;
    --dir) shift && where=$1 ;;
    *) break ;;
    esac
    shift
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
build=${ZQ_BUILD:-$scratch/build}
if [ -n "$where" ]; then
    data=$(mktemp -d "$where/zqbench.XXXXXX")
    trap 'rm -rf "$scratch" "$data"' EXIT
else
    data=$scratch
fi
if ! { cmake -S "$top" -B "$build" -DCMAKE_BUILD_TYPE=Release &&
    cmake --build "$build" --target bench -j "$(nproc)"; } >"$scratch/log" 2>&1; then
    tail -n 40 "$scratch/log"
    exit 1
fi

cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "machine: $(nproc) x ${cpu:-unknown}, $(sed -n 's/MemTotal: *//p' /proc/meminfo)"
echo "kernel: $(uname -sr); file system: $(stat -f -c %T "$data"); load: $(cut -d' ' -f1-3 /proc/loadavg)"
if command -v qemu-img >/dev/null; then
    qemu-img --version | head -n 1
else
    echo 'qemu-img is not installed'
fi
"$build/tests/bench/bench" $short "$@" "$data"
