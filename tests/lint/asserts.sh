#!/bin/sh
# SPDX-License-Identifier: MIT
# A table of src/: lines, assertions in 1,000 lines, share of lines with comment. At least 15 %
# comment in each folder, and at least 15 assertions in 1,000 lines in the folders that keep the
# invariants of docs/DESIGN.md.
set -eu
cd "$(dirname "$0")/../.."
bad=0
printf '%-8s %6s %8s %8s\n' folder lines per1000 comment
for dir in src/*/; do
    name=$(basename "$dir")
    line=$(cat "$dir"*.[ch] | awk -v name="$name" '
        /^[ \t]*zq_assert(_k)?\(/ { asserts++ }
        /\/\*/ { open = 1 }
        open { comment++ }
        /\*\// { open = 0 }
        END { printf "%-8s %6d %8.1f %7d%%", name, NR, asserts * 1000 / NR, comment * 100 / NR }')
    echo "$line"
    echo "$line" | awk '{ exit $4 + 0 < 15 }' || {
        echo "src/$name: less than 15 % of the lines are comment"
        bad=1
    }
    case $name in
    cache | qcow2 | zone | loop | round | space | ops)
        echo "$line" | awk '{ exit $3 < 15 }' || {
            echo "src/$name: fewer than 15 assertions in 1,000 lines"
            bad=1
        } ;;
    esac
done
exit $bad
