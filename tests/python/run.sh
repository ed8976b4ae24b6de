#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh LIBRARY NAME [ARGUMENT...]: test_NAME.py with the library, under pytest; types: mypy --strict.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
ZQCOW2_LIBRARY=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
PYTHONPATH=$top/python
PYTHONDONTWRITEBYTECODE=1
export ZQCOW2_LIBRARY PYTHONPATH PYTHONDONTWRITEBYTECODE
name=$2
shift 2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"

if [ "$name" = types ]; then
    command -v mypy >/dev/null || { echo 'mypy is missing (on Debian: mypy)'; exit 77; }
    mypy --strict --python-version 3.9 --cache-dir "$tmp/cache" "$top/python/zqcow2.py" \
        "$top/python/zqcow2_pytest.py"
    exit 0
fi

# The first python3 may be one of somebody's own, without pytest.
for python in python3 /usr/bin/python3; do
    "$python" -c 'import pytest' 2>/dev/null && break
    python=
done
[ -n "$python" ] || { echo 'pytest is missing (on Debian: python3-pytest)'; exit 77; }
"$python" -W error -m pytest -q -s -p no:cacheprovider --strict-markers --basetemp "$tmp/base" --rootdir "$here" \
    "$here/test_$name.py" "$@"
