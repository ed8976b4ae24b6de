#!/bin/sh
# SPDX-License-Identifier: MIT
# chroot.sh [CHROOT]: makes a bare Debian 12 with debootstrap, clones this repository into it as it
# is committed, and runs the two commands of the README there. Needs root and about 3 GB; an hour
# with everything. ZQ_STAGES: the stages of tests/run.sh to run, all by default.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
[ "$(id -u)" = 0 ] || { echo 'must be root'; exit 1; }
sh "$top/tests/packages.sh" debootstrap git
root=${1:-$(mktemp -d)}
mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)*\([^ ]*\) .*/\2/p' /etc/apt/sources.list \
    /etc/apt/sources.list.d/debian* 2>/dev/null | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}

leave() {
    for mount in proc dev/shm dev/pts dev; do
        umount "$root/$mount" 2>/dev/null || true
    done
    # Never across a mount that is still there: it would be the machine's own.
    if [ -z "${1:-}" ] && ! grep -q " $root/" /proc/mounts; then
        rm -rf --one-file-system "$root"
    fi
}
trap 'leave "${1:-}"' EXIT
trap 'exit 1' HUP INT TERM

[ -x "$root/bin/sh" ] || debootstrap --variant=minbase bookworm "$root" "$mirror" >/dev/null
printf 'deb %s bookworm main\n' "$mirror" >"$root/etc/apt/sources.list"
cp /etc/resolv.conf "$root/etc/resolv.conf"
# Whatever the machine needs to reach its mirror, the chroot needs too.
cp /etc/apt/apt.conf.d/*prox* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
mount --bind /dev "$root/dev"
mount --bind /dev/pts "$root/dev/pts"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev/shm"
rm -rf "$root/src"
git clone -q "$top" "$root/src"
commands=$(sed -n 's/^ \{4\}\(sh [a-z/.]*\.sh\) .*/\1/p' "$top/README.md")
[ "$(printf '%s\n' "$commands" | wc -l)" = 2 ] || { echo 'README.md has not two commands'; exit 1; }
printf '%s\n' "$commands" | while read -r command; do
    case $command in *run.sh) command="$command ${ZQ_STAGES:-}" ;; esac
    echo "chroot: $command"
    chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp CI=true \
        sh -c "cd /src && $command" </dev/null
done
echo 'chroot: both commands succeeded'
