#!/bin/sh
# SPDX-License-Identifier: MIT
# From a bare Debian 12 to a zoned image with real data in it: builds the library and the command in
# a temporary directory, stores this source tree in a zone, and takes it out again.
set -eu
[ $# = 0 ] || { echo 'quickstart.sh takes no arguments; it installs, builds and shows' >&2; exit 2; }
top=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

step() {
    printf '\n== %s\n' "$*"
}

show() { # the command as a user would type it, and what it answers
    printf '$ %s\n' "$*"
    "$@"
}

step 'What the build needs'
sh "$top/tests/packages.sh" gcc libc6-dev make cmake pkg-config zlib1g-dev libzstd-dev liburing-dev
echo 'is there'

step 'Build the library and the command'
if ! { cmake -S "$top" -B "$tmp/build" -DBUILD_TESTING=OFF &&
    cmake --build "$tmp/build" -j "$(nproc)"; } >"$tmp/build.log" 2>&1; then
    cat "$tmp/build.log"
    echo "the build failed; it needs 30 MB in $tmp"
    exit 1
fi
PATH=$(dirname "$(find "$tmp/build" -name zqcow2 -type f -perm -u+x)"):$PATH
show zqcow2 --version
cd "$tmp"

step 'A zoned disk of 1 GiB: 2 conventional and 14 sequential zones of 64 MiB'
show zqcow2 create -o zone.mode=host-managed,zone.size=64M,zone.capacity=48M \
    -o zone.conventional_zones=2,zone.max_open_zones=6,zone.max_active_zones=8 disk.qcow2 1G
show zqcow2 info disk.qcow2
show ls -s --block-size=K disk.qcow2

step 'Append real data to zone 3 and zone 5: the source of this library'
tar -C "$top" --exclude=.git --exclude='./build*' -cf source.tar .
size=$(stat -c %s source.tar)
zone3=192M # 3 * 64 MiB
zone5=320M
printf '$ zqcow2 append disk.qcow2 %s <source.tar\n' $zone3
zqcow2 append disk.qcow2 $zone3 <source.tar
zqcow2 append disk.qcow2 $zone5 <source.tar >/dev/null
show zqcow2 finish -o $zone5 -c 1 disk.qcow2

step 'The device as a picture, and the report in the form of blkzone'
show zqcow2 report --map disk.qcow2
show zqcow2 report -o $zone3 -c 3 disk.qcow2

step 'Read back and compare; every command opens the image anew'
printf '$ zqcow2 read disk.qcow2 %s %s | cmp - source.tar\n' $zone3 "$size"
zqcow2 read disk.qcow2 $zone3 "$size" | cmp - source.tar
zqcow2 read disk.qcow2 $zone5 "$size" | cmp - source.tar
echo "the same, $size bytes, twice"

step 'A zone is written from its start to its end, or reset; nothing else'
if zqcow2 write disk.qcow2 $zone3 <source.tar 2>refused; then
    echo 'a write at the start of a zone that holds data was not refused'
    exit 1
fi
printf '$ zqcow2 write disk.qcow2 %s <source.tar\n' $zone3
cat refused

step 'Reset both zones and check'
show zqcow2 reset -o $zone3 -c 1 disk.qcow2
show zqcow2 reset -o $zone5 -c 1 disk.qcow2
zqcow2 read disk.qcow2 $zone3 "$size" | cmp -n "$size" - /dev/zero
echo 'what was there reads as zeros'
show zqcow2 check disk.qcow2
show ls -s --block-size=K disk.qcow2

printf '\nquickstart: everything as it should be\n'
