#!/bin/sh
# SPDX-License-Identifier: MIT
# images.sh FOLDER: small images by qemu-img, as further seeds; none where it is missing.
set -u
command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || exit 0
cd "$1" || exit 1
make() { # NAME SIZE OPTIONS: with some data and zeros in it
    qemu-img create -q -f qcow2 -o "$3" "$1.qcow2" "$2" &&
        qemu-io -f qcow2 -c 'write -P 1 0 20k' -c 'write -P 2 200k 3k' -c 'write -z 64k 64k' \
            -c 'write -P 3 -c 128k 64k' "$1.qcow2" >/dev/null
}
make qemu-v2 1M compat=0.10,cluster_size=4k
make qemu-zlib 1M cluster_size=4k
make qemu-zstd 1M cluster_size=64k,compression_type=zstd
make qemu-lazy 1M cluster_size=512,lazy_refcounts=on
make qemu-bits 1M cluster_size=1k,refcount_bits=64
make qemu-snapshots 1M cluster_size=2k
qemu-img snapshot -c one qemu-snapshots.qcow2
qemu-io -f qcow2 -c 'write -P 4 4k 10k' qemu-snapshots.qcow2 >/dev/null
qemu-img snapshot -c two qemu-snapshots.qcow2
make qemu-bitmap 1M cluster_size=4k
qemu-img bitmap --add -g 4k qemu-bitmap.qcow2 b
qemu-io -f qcow2 -c 'write -P 4 4k 10k' qemu-bitmap.qcow2 >/dev/null
