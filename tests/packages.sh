#!/bin/sh
# SPDX-License-Identifier: MIT
# packages.sh [NAME...]: installs those of the Debian packages NAME that are missing; without a NAME,
# of those that the tests of run.sh need.
set -eu
[ $# -gt 0 ] || set -- gcc g++ libc6-dev make cmake pkg-config zlib1g-dev libzstd-dev liburing-dev \
    libcmocka-dev clang libclang-rt-dev clang-format universal-ctags mandoc abigail-tools binutils \
    qemu-utils python3 python3-pytest mypy git gzip valgrind libnbd-dev libnbd-bin nbdkit \
    nbdkit-plugin-dev libssl-dev
missing=
for name in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] ||
        missing="$missing $name"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "not a Debian; going on without installing:$missing" >&2
    exit 0
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    if ! { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; then
        echo "please install, as root: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
echo "installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# An old list of packages may do; only if it does not is a new one fetched.
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing \
    </dev/null >"$log" 2>&1 && exit 0
{ $as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends $missing; } </dev/null >"$log" 2>&1 && exit 0
cat "$log" >&2
exit 1
