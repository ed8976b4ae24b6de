#!/bin/sh
# SPDX-License-Identifier: MIT
# What a shrinking resize, a deleted snapshot, compact and commit free, the host has back, and the
# file ends where its last cluster does.
. "$(dirname "$0")/lib.sh"

kib() { echo $(($(stat -c %b "$1") / 2)); }
# File systems count blocks of their own as the file's, and more of them where it has holes.
slack=64
# gone WHAT FILE BEFORE KIB: so many have gone since.
gone() {
    now=$(kib "$2")
    verdict $([ $(($3 - now)) -ge $(($4 - slack)) ]; echo $?) "$1: $3 KiB became $now" && return 0
    echo "# after: $ran"
}

# ends WHAT FILE: the file does not go on behind the last cluster in use.
ends() {
    run 0 "$1 is sound" check --json "$2"
    end=$(sed -n 's/.*"image_end_offset": \([0-9]*\).*/\1/p' out)
    verdict $([ "$(stat -c %s "$2")" = "$end" ]; echo $?) "$1: ends at $end" && return 0
    echo "# but: $(stat -c %s "$2")"
}

head -c 8M /dev/urandom >data
for how in '' ,extended_l2=on ,cluster_size=4K; do
    run 0 "plain$how" create -o size=64M$how p.qcow2
    run 0 'data' write p.qcow2 0 <data
    run 0 'and more behind it' write p.qcow2 48M <data
    before=$(kib p.qcow2)
    run 0 'shrink' resize --shrink p.qcow2 16M
    gone "shrink$how" p.qcow2 "$before" 8192
    ends "shrink$how" p.qcow2

    run 0 "zones$how" create -o size=64M,zone.size=8M$how z.qcow2
    run 0 'data' append -q z.qcow2 0 <data
    run 0 'and more behind it' append -q z.qcow2 48M <data
    before=$(kib z.qcow2)
    run 0 'shrink' resize --discard-data z.qcow2 16M
    gone "shrink of zones$how" z.qcow2 "$before" 8192
    ends "shrink of zones$how" z.qcow2

    before=$(kib p.qcow2)
    run 0 'a snapshot' snapshot -c one p.qcow2
    run 0 'the data again' write p.qcow2 0 <data
    verdict $([ "$(kib p.qcow2)" -ge $((before + 8192 - slack)) ]; echo $?) 'takes space again'
    before=$(kib p.qcow2)
    run 0 'delete' snapshot -d one p.qcow2
    gone "snapshot -d$how" p.qcow2 "$before" 8192
    ends "snapshot -d$how" p.qcow2
    run 0 'the data' read p.qcow2 0 8M
    same 'is there' out data

    run 0 "an overlay$how" create -o size=16M$how -b p.qcow2 -F qcow2 o.qcow2
    run 0 'data' write o.qcow2 0 <data
    before=$(kib o.qcow2)
    run 0 'commit' commit o.qcow2
    gone "commit$how" o.qcow2 "$before" 8192
    ends "commit$how" o.qcow2
    rm ./*.qcow2
done

run 0 'a zone' create -o zone.size=4M k.qcow2 16M
yes | head -c 4M >text
run 0 'text' append -q k.qcow2 0 <text
before=$(kib k.qcow2)
run 0 'compact' compact k.qcow2
gone compact k.qcow2 "$before" 3900
ends compact k.qcow2
finish
