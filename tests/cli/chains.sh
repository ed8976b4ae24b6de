#!/bin/sh
# SPDX-License-Identifier: MIT
# chains.sh ZQCOW2 [COUNT [FIRST]]: random chains of 2 to 4 layers, written by QEMU's programs and
# zqcow2 in turn, from the seed FIRST on. test_layers.sh does the first of them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tool=$(realpath "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cd "$dir"
python3 "$here/layers.py" "$tool" "${3:-1}" "${2:-300}"
