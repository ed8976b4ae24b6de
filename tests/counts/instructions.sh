#!/bin/sh
# SPDX-License-Identifier: MIT
# instructions.sh HOT: counts the instructions of the library for a blocking append and read of
# 4 KiB whose mapping is known, by callgrind, over a backend that does nothing. HOT is the program
# made of hot.c, with the release library. Fails above the limits; 77: no valgrind here.
# The limits are the targets (docs/PERFORMANCE.md).
set -eu
hot=$1
append_limit=${ZQ_APPEND_LIMIT:-600}
read_limit=${ZQ_READ_LIMIT:-400}
command -v valgrind >/dev/null || exit 77
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# total KIND N: instructions inside the library's call, of a run with N calls.
total() {
    valgrind --tool=callgrind --callgrind-out-file="$dir/out" --toggle-collect="zqcow2_$1" \
        "$hot" "$1" "$2" 2>&1 | sed -n 's/.*Collected : //p'
}

bad=0
for kind in append read; do
    few=$(total $kind 1000)
    many=$(total $kind 3000)
    if [ -z "$few" ] || [ -z "$many" ]; then
        echo "instructions: callgrind gave no figure for $kind"
        exit 1
    fi
    each=$(((many - few) / 2000))
    eval "limit=\$${kind}_limit"
    echo "instructions of a 4 KiB $kind: $each (at most $limit)"
    [ "$each" -gt 0 ] && [ "$each" -le "$limit" ] || bad=1
done
exit $bad
