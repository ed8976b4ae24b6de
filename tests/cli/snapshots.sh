#!/bin/sh
# SPDX-License-Identifier: MIT
# snapshots.sh ZQCOW2 [COUNT [FIRST]]: random histories of images with snapshots, written by QEMU's
# programs and zqcow2 in turn, from the seed FIRST on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tool=$(realpath "$1")
command -v qemu-img >/dev/null && command -v qemu-io >/dev/null && command -v python3 >/dev/null || exit 77
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cd "$dir"
python3 "$here/snapshots.py" "$tool" "${3:-1}" "${2:-300}"
