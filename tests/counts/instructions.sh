#!/bin/sh
# SPDX-License-Identifier: MIT
# instructions.sh HOT: counts by callgrind the library's instructions for one request of 4 KiB, over
# a backend that does nothing. HOT is the program made of hot.c, with the release library. Fails
# above the limits (docs/PERFORMANCE.md); 77: no valgrind here.
set -eu
hot=$1
command -v valgrind >/dev/null || exit 77
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# total KIND N FUNCTION...: instructions inside the library's calls, of a run with N requests.
total() (
    kind=$1
    n=$2
    shift 2
    valgrind --tool=callgrind --callgrind-out-file="$dir/out" $(printf -- '--toggle-collect=%s ' "$@") \
        "$hot" "$kind" "$n" 2>&1 | sed -n 's/.*Collected : //p'
)

bad=0
# each WHAT KIND LIMIT FUNCTION...: what one more request costs.
each() {
    what=$1
    kind=$2
    limit=$3
    shift 3
    few=$(total "$kind" "$nr" "$@")
    many=$(total "$kind" $((3 * nr)) "$@")
    if [ -z "$few" ] || [ -z "$many" ]; then
        echo "instructions: callgrind gave no figure for $kind"
        exit 1
    fi
    one=$(((many - few) / (2 * nr)))
    echo "instructions of a 4 KiB $what: $one (at most $limit)"
    [ "$one" -gt 0 ] && [ "$one" -le "$limit" ] || bad=1
}

nr=1024

each 'append' append "${ZQ_APPEND_LIMIT:-550}" zqcow2_append
each 'read' read "${ZQ_READ_LIMIT:-360}" zqcow2_read
each 'first write to a cluster' first "${ZQ_FIRST_LIMIT:-3815}" zqcow2_write
each 'overwrite without a write pointer' over "${ZQ_OVER_LIMIT:-650}" zqcow2_write
each 'append in a queue' qappend "${ZQ_QAPPEND_LIMIT:-718}" zqcow2_queue_submit zqcow2_queue_wait
each 'read in a queue' qread "${ZQ_QREAD_LIMIT:-545}" zqcow2_queue_submit zqcow2_queue_wait
each 'read of an image without zones' read0 "${ZQ_READ0_LIMIT:-640}" zqcow2_read
each 'read through 1 level' read1 "${ZQ_READ1_LIMIT:-829}" zqcow2_read
each 'read through 4 levels' read4 "${ZQ_READ4_LIMIT:-1260}" zqcow2_read
nr=40
each 'first write to a zone' zone "${ZQ_ZONE_LIMIT:-16500}" zqcow2_write
each 'write to a zone whose rest a drain gives back' drain "${ZQ_DRAIN_LIMIT:-26500}" zqcow2_drain
exit $bad
