#!/bin/sh
# SPDX-License-Identifier: MIT
# differ.sh ZQCOW2 [STEPS [SEED]]: random histories of one image and the layers below it, in which
# QEMU's programs and zqcow2 take turns, from the seed SEED on. At last it is damaged,
# and both repair it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tool=$(realpath "$1")
command -v qemu-img >/dev/null && command -v qemu-io >/dev/null && command -v python3 >/dev/null || exit 77
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cd "$dir"
PYTHONDONTWRITEBYTECODE=1 python3 "$here/differ.py" "$tool" "${3:-1}" "${2:-20000}"
