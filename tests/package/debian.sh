#!/bin/sh
# SPDX-License-Identifier: MIT
# debian.sh [--cache DIR] [SUITE...]: builds the Debian packages of the commit that is checked out,
# twice, in a bare Debian 12, and compares the bytes; runs lintian; then, in a fresh Debian of each
# SUITE (bookworm and trixie by default), installs only what was built and runs debian/tests there.
# Needs root, about 3 GB and half an hour. --cache: see ../lint/debian.sh. ZQ_OUT: keep the packages.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
sh "$top/tests/packages.sh" debootstrap git
. "$here/../lint/debian.sh"
if [ "${1:-}" = --cache ]; then
    cache=$2
    shift 2
fi
[ $# -gt 0 ] || set -- bookworm trixie
commit=$(git -C "$top" rev-parse HEAD)
root=
out=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
leave() {
    [ -z "$root" ] || { debian_umount "$root"; debian_remove "$root"; }
    root=
}
trap 'leave; rm -rf "$out"' EXIT
trap 'exit 1' HUP INT TERM

fresh() { # SUITE: a bare Debian at $root
    root=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
    debian_make "$root" "$1"
    debian_mount "$root"
    debian_run "$root" apt-get update -q >/dev/null
}

get() { # PACKAGE...: installs into $root
    debian_run "$root" apt-get install -y -q --no-install-recommends "$@" >"$out/apt.log" 2>&1 ||
        { tail -n 40 "$out/apt.log"; exit 1; }
}

source_tree() { # FOLDER: the commit, there, below $root
    rm -rf "${root:?}$1"
    mkdir -p "$root$1"
    git -C "$top" archive "$commit" | tar -x -C "$root$1"
}

fresh bookworm
get build-essential debhelper lintian
source_tree /build/zqcow2
debian_run "$root" sh -c 'cd /build/zqcow2 && apt-get build-dep -y -q --no-install-recommends .' \
    >"$out/apt.log" 2>&1 || { tail -n 40 "$out/apt.log"; exit 1; }
for time in first second; do
    begun=$(date +%s)
    source_tree /build/zqcow2
    debian_run "$root" sh -c 'umask 022; cd /build/zqcow2 && dpkg-buildpackage -us -uc' >"$out/build.log" 2>&1 ||
        { tail -n 60 "$out/build.log"; exit 1; }
    mkdir "$out/$time"
    mv "$root"/build/*.deb "$root"/build/*.dsc "$root"/build/*.tar.* "$root"/build/*.changes \
        "$root"/build/*.buildinfo "$out/$time/"
    echo "build, $time: $(($(date +%s) - begun)) s, $(ls "$out/$time"/*.deb | wc -l) packages"
done
differ=0
for file in "$out"/first/*.deb "$out"/first/*.dsc "$out"/first/*.tar.*; do
    cmp "$file" "$out/second/$(basename "$file")" || differ=$((differ + 1))
done
echo "reproducible: $(ls "$out"/first/*.deb "$out"/first/*.dsc "$out"/first/*.tar.* | wc -l) files, $differ differ"
[ $differ = 0 ]
cp -r "$out/first" "$root/build/first"
debian_run "$root" sh -c 'lintian --allow-root --fail-on error,warning --display-info /build/first/*.changes' >"$out/lintian" ||
    { cat "$out/lintian"; exit 1; }
cat "$out/lintian"
echo 'lintian: 0 errors, 0 warnings'
leave

for suite in "$@"; do
    fresh "$suite"
    mkdir "$root/debs"
    cp "$out"/first/*.deb "$root/debs/"
    rm -f "$root"/debs/*-dbgsym*
    get $(cd "$root" && ls debs/*.deb | sed 's,^,/,') man-db
    source_tree /tested
    # What the tests need of Debian besides.
    get $(sed -n 's/^Depends: //p' "$top/debian/tests/control" | tr -d ,)
    for test in $(sed -n 's/^Tests: //p' "$top/debian/tests/control"); do
        debian_run "$root" sh -c "cd /tested && AUTOPKGTEST_TMP=\$(mktemp -d) && export AUTOPKGTEST_TMP && debian/tests/$test" \
            >"$out/test.log" 2>&1 || { cat "$out/test.log"; echo "$suite: $test failed"; exit 1; }
        tail -n 3 "$out/test.log"
        echo "$suite: $test passed"
    done
    # Removing them leaves nothing.
    debian_run "$root" apt-get purge -y -q zqcow2 libzqcow2-dev libzqcow2-0 python3-zqcow2 >/dev/null
    rest=$(find "$root/usr" "$root/etc" -name '*zqcow2*')
    [ -z "$rest" ] || { echo "$suite: left behind: $rest"; exit 1; }
    leave
done
[ -z "${ZQ_OUT:-}" ] || { mkdir -p "$ZQ_OUT" && cp "$out"/first/* "$ZQ_OUT/"; }
echo "debian packages: built twice, installed on $*, 0 failed"
