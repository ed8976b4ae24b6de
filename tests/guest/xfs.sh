#!/bin/sh
# SPDX-License-Identifier: MIT
# XFS on a zoned image, by hand on a machine with Linux 6.15, xfsprogs 6.15 and the ublk driver:
#   sh tests/guest/xfs.sh TOOL [DIRECTORY]
# As root. Exit status 77: this machine cannot.
set -eu
tool=$(realpath "${1:?path of the tool zqcow2}")
dir=$(mktemp -d "${2:-/var/tmp}/zqcow2-xfs.XXXXXX")
mnt=$dir/mnt
image=$dir/x.qcow2

finish() {
    umount "$mnt" 2>/dev/null || true
    "$tool" ublk del --force "$image" 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT

cannot() {
    echo "skipped: $*"
    exit 77
}

newest() {
    printf '%s\n%s\n' "$1" "$2" | sort -V | tail -1
}

[ "$(id -u)" = 0 ] || cannot "not root"
release=$(uname -r)
[ "$(newest "$release" 6.15)" = "$release" ] || cannot "Linux $release; 6.15 is needed"
modprobe ublk_drv 2>/dev/null || [ -c /dev/ublk-control ] || cannot "no ublk driver"
command -v mkfs.xfs >/dev/null || cannot "no xfsprogs"
version=$(mkfs.xfs -V | sed 's/.* //')
[ "$(newest "$version" 6.15.0)" = "$version" ] || cannot "xfsprogs $version; 6.15 is needed"

mkdir "$mnt"
# Conventional zones hold XFS's metadata, sequential ones its data.
"$tool" create -o zone.size=64M,zone.conventional_zones=16,zone.max_open_zones=16 "$image" 8G
dev=$("$tool" ublk add "$image" | head -1)
mkfs.xfs -q -f "$dev"
mount -t xfs "$dev" "$mnt"
cp -a "$(dirname "$0")/../.." "$mnt/tree"
dd if=/dev/urandom of="$mnt/big" bs=1M count=1500 conv=fsync status=none
(cd "$mnt" && find . -type f -exec sha256sum {} + | sort -k 2) >"$dir/before"
umount "$mnt"
xfs_repair -n "$dev" >/dev/null
"$tool" ublk del "$image"
"$tool" check "$image"
dev=$("$tool" ublk add "$image" | head -1)
mount -t xfs "$dev" "$mnt"
(cd "$mnt" && find . -type f -exec sha256sum {} + | sort -k 2) >"$dir/after"
cmp "$dir/before" "$dir/after"
umount "$mnt"
"$tool" ublk del "$image"
"$tool" check "$image"
echo "1 passed, 0 failed"
