#!/bin/sh
# SPDX-License-Identifier: MIT
# recipes.sh NAME...: the recipes of zqcow2-testing(7) with these names, in order, as a reader sees them.
page=$(dirname "$0")/../docs/man/zqcow2-testing.7
for name; do
    awk -v mark=".\\\\\" recipe: $name" '
        $0 == mark { marked = 1 }
        /^\.Ed$/ { on = marked = 0 }
        on { gsub(/\\e/, "\\"); print; lines++ }
        /^\.Bd / && marked { on = 1 }
        END { exit !lines }' "$page" || { echo "zqcow2-testing.7 has no recipe $name" >&2; exit 1; }
done
