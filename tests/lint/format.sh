#!/bin/sh
# SPDX-License-Identifier: MIT
# The C code is as .clang-format has it. Versions of clang-format differ, so only one judges.
set -eu
cd "$(dirname "$0")/../.."
wanted=14
tool=$(command -v clang-format-$wanted || command -v clang-format || true)
version=$("${tool:-true}" --version | sed -n 's/.*version \([0-9]*\)\..*/\1/p')
if [ "$version" != $wanted ]; then
    echo "no clang-format $wanted here (found: ${version:-none})"
    exit 77
fi
files=$(find src include tools examples tests -name '*.[ch]' | sort)
bad=0
for f in $("$tool" --dry-run $files 2>&1 | sed -n 's/^\([^:]*\):[0-9]*:.*warning: .*/\1/p' | sort -u); do
    echo "not as .clang-format has it: $f; clang-format -i $f"
    bad=1
done
echo "format: $(echo "$files" | wc -l) files"
exit $bad
