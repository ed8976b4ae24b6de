#!/bin/sh
# SPDX-License-Identifier: MIT
# rpm.sh: builds the RPM packages of the commit that is checked out; rpmbuild fails if a file is in
# none of them, or a named one is missing. Then the command of these packages, unpacked in a folder of
# their own, makes an image and checks it. The dependencies are this machine's, Debian or not.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
sh "$top/tests/packages.sh" rpm cpio gcc cmake make pkg-config zlib1g-dev libzstd-dev \
    liburing-dev libnbd-dev python3 git
dir=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
version=$(sed -n 's/^Version: *//p' "$top/rpm/zqcow2.spec")
mkdir -p "$dir/SOURCES"
git -C "$top" archive --prefix="zqcow2-$version/" -o "$dir/SOURCES/zqcow2-$version.tar.gz" HEAD
rpmbuild --nodeps --define "_topdir $dir" --define '_docdir /usr/share/doc' -bb "$top/rpm/zqcow2.spec" \
    >"$dir/log" 2>&1 || { tail -n 40 "$dir/log"; exit 1; }
mkdir "$dir/root"
for package in "$dir"/RPMS/*/*.rpm; do
    echo "$(basename "$package"): $(rpm -qpl "$package" 2>/dev/null | wc -l) files"
    (cd "$dir/root" && rpm2cpio "$package" | cpio -id --quiet)
done
LD_LIBRARY_PATH=$(dirname "$(find "$dir/root" -name 'libzqcow2.so.0')")
export LD_LIBRARY_PATH
"$dir/root/usr/bin/zqcow2" create -o zone.size=8M "$dir/disk.qcow2" 64M
"$dir/root/usr/bin/zqcow2" check "$dir/disk.qcow2"
echo "rpm: $(find "$dir/RPMS" -name '*.rpm' | wc -l) packages"
