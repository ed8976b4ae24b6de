#!/bin/sh
# SPDX-License-Identifier: MIT
# regress.sh TARGET FUZZ-CORPUS FOLDER: runs the plain driver over the seeds and over FOLDER, with a few
# mutations of each (ZQ_MUTATIONS, 3). What fails is kept as TARGET.failed.
set -u
target=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/seeds"
"$2" "$dir/seeds" >/dev/null || exit 1
set -- "$dir/seeds" "$3"
[ -d "$2" ] || set -- "$1"
cd "$dir" || exit 1
"$target" -m "${ZQ_MUTATIONS:-3}" "$@"
status=$?
if [ -f failed ]; then
    cp failed "$target.failed"
    "$target" -p "$target.failed"
fi
exit $status
