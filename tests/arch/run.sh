#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh [--keep DIR] [ARCH...]: builds and tests for other processors (i386, armhf, arm64, ppc64el,
# s390x, riscv64) and for musl, with Debian 13's cross compilers and qemu-user, in a chroot; see
# build.sh. --keep: the chroot DIR, with what was installed and built in it, serves the next time.
# Needs root and about 4 GB; some hours with everything.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
sh "$top/tests/packages.sh" debootstrap git
. "$top/tests/lint/debian.sh"
keep=
if [ "${1:-}" = --keep ]; then
    mkdir -p "$2"
    keep=$(cd "$2" && pwd)
    shift 2
fi
root=${keep:-$(mktemp -d -p "${TMPDIR:-/var/tmp}")}
chmod 755 "$root"
trap 'debian_umount "$root"; [ -n "$keep" ] || debian_remove "$root"' EXIT
trap 'exit 1' HUP INT TERM

[ -x "$root/bin/sh" ] || debian_make "$root" trixie
debian_mount "$root"
if [ ! -f "$root/deps/ready" ]; then
    debian_run "$root" apt-get update -q
    # libc6-i386: this machine's kernel runs i386 itself.
    cross='libc6-i386'
    for pair in i686:i386 arm:armhf aarch64:arm64 powerpc64le:ppc64el s390x:s390x riscv64:riscv64; do
        suffix=linux-gnu
        [ "$pair" != arm:armhf ] || suffix=linux-gnueabihf
        cross="$cross gcc-${pair%:*}-$suffix libc6-dev-${pair#*:}-cross"
    done
    debian_run "$root" apt-get install -y -q --no-install-recommends gcc libc6-dev make cmake \
        ninja-build pkg-config python3 git gzip xz-utils dpkg-dev qemu-utils qemu-user musl-tools \
        locales $cross
    mkdir -p "$root/deps"
    debian_run "$root" sh -c 'cd /deps &&
        apt-get source -q --tar-only --download-only zlib libzstd liburing cmocka && touch ready'
fi
rm -rf "$root/src"
git clone -q "$top" "$root/src"
debian_run "$root" env ZQ_JOBS="${ZQ_JOBS:-}" sh /src/tests/arch/build.sh /deps "$@"
