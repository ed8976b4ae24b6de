#!/bin/sh
# SPDX-License-Identifier: MIT
# Each public header alone compiles without a warning as C99, C11, C17 and C++17, with no hole in
# any struct.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
strict='-Iinclude -fsyntax-only -Wall -Wextra -Wpedantic -Wpadded -Wshadow -Wconversion -Werror'
count=0
for header in include/zqcow2/*.h; do
    printf '#include <zqcow2/%s>\n' "$(basename "$header")" >"$tmp/x.c"
    cp "$tmp/x.c" "$tmp/x.cc"
    for cc in gcc clang; do
        command -v $cc >/dev/null || continue
        for std in c99 c11 c17; do
            $cc -std=$std $strict "$tmp/x.c"
            count=$((count + 1))
        done
    done
    for cxx in g++ clang++; do
        command -v $cxx >/dev/null || continue
        $cxx -std=c++17 $strict "$tmp/x.cc"
        count=$((count + 1))
    done
done
[ $count -gt 0 ] || { echo 'no compiler was found'; exit 1; }
# The struct of which callers hold arrays keeps its size: the ABI fixes it.
cat >"$tmp/x.c" <<'END'
#include <zqcow2/zqcow2.h>
_Static_assert(sizeof(struct zqcow2_zone) == 64, "zqcow2_zone");
_Static_assert(sizeof(struct zqcow2_error) == 256, "zqcow2_error");
END
gcc -std=c11 $strict "$tmp/x.c"
echo "headers: $count compilations without a warning"
