#!/bin/sh
# SPDX-License-Identifier: MIT
# images.sh ZQCOW2: makes images of every layout and of many shapes, works on each, and prints the
# checksums of the files and of what was printed. Two machines' lists are equal, whatever their byte
# order and word size.
set -eu
tool=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cd "$dir"

# image NAME CREATE-OPTIONS IO-COMMAND...: the image after the commands, and after a repair.
image() {
    name=$1
    "$tool" create -o "$2" i.qcow2 64M
    shift 2
    for command in "$@"; do
        set -- "$@" -c "$command"
        shift
    done
    "$tool" io "$@" i.qcow2 >out 2>&1 || true
    "$tool" check --repair=all i.qcow2 >>out 2>&1 || true
    { "$tool" report i.qcow2; "$tool" info --json i.qcow2; } >>out 2>&1 || true
    printf '%s %s %s\n' "$name" "$(sha256sum <i.qcow2 | cut -c1-32)" \
        "$(sed 's/;.* sec.*//' out | sha256sum | cut -c1-32)"
    rm i.qcow2
}

for layout in 44 48b 56 v7; do
    for cluster in 512 4K 64K 1M; do
        for bits in 1 16 64; do
            image "zoned-$layout-$cluster-$bits" \
                "zone.size=4M,zone.capacity=3M,zone.conventional_zones=2,zone.max_open_zones=5,zone.max_active_zones=7,cluster_size=$cluster,refcount_bits=$bits,zone.layout=$layout" \
                'write -P 1 4k 100k' 'zone_append -P 3 8M 64k' 'write -P 4 12M 12k' \
                'write -P 5 12300k 4k' 'zone_open 16M 1' 'zone_finish 20M 1' 'zone_reset 12M 1' \
                'write -P 6 12M 512' 'write -z 0 64k' 'discard 64k 64k' flush
        done
    done
done
for cluster in 512 4K 64K 2M; do
    for bits in 2 8 32; do
        image "plain-$cluster-$bits" "cluster_size=$cluster,refcount_bits=$bits,lazy_refcounts=on" \
            'write -P 1 4k 100k' 'write -P 3 60M 1M' 'write -z 61M 512k' 'discard 62m 1m' \
            'write -P 2 513k 513k' 'discard 0 64k' flush
    done
done
