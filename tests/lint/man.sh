#!/bin/sh
# SPDX-License-Identifier: MIT
# The man pages are well formed, their synopses are the headers' declarations, and what they refer
# to exists.
set -eu
cd "$(dirname "$0")/../.."
bad=0
# "referenced manual not found" is judged below: the pages need not be installed here.
if mandoc -T lint -W warning docs/man/*.[1-8] | grep -v 'referenced manual not found'; then
    bad=1
fi
names=$(for f in docs/man/*.[1-8]; do
    s=${f##*.}
    sed -n "s/^\.Nm \([a-z0-9_-]*\)\( ,\)*\$/\1 $s/p" "$f"
done)
refs=$(sed -n 's/^\.Xr \(zqcow2[a-z0-9_-]*\) \([0-9]\).*/\1 \2/p' docs/man/*.[1-8] | sort -u)
printf '%s\n' "$refs" | while read -r name section; do
    printf '%s\n' "$names" | grep -qx "$name $section" || echo "no page for $name($section)"
done | grep . && bad=1

# Each .Fo or .Fn of a SYNOPSIS, as plain text, must stand in a header.
headers=$(cat include/zqcow2/*.h | sed 's,/\*.*\*/,,' | tr '\n' ' ' |
    sed 's/ZQCOW2_API/\n/g' | sed -n 's/^ *\([^;{]*)\) *;.*/\1/p' | tr -d ' \t')
for f in docs/man/*.3; do
    awk '
        /^\.Sh / { on = $2 == "SYNOPSIS" }
        !on { next }
        /^\.Ft / { type = substr($0, 5); gsub(/"/, "", type) }
        /^\.Fo / { text = type $2 "("; n = 0 }
        /^\.Fa / { arg = substr($0, 5); gsub(/"/, "", arg); text = text (n++ ? "," : "") arg }
        /^\.Fc/ { print text ")" }
        /^\.Fn / {
            line = $0
            sub(/^\.Fn /, "", line)
            name = line
            sub(/ .*/, "", name)
            sub(/^[^ ]* ?/, "", line)
            gsub(/" +"/, ",", line)
            gsub(/"/, "", line)
            print type name "(" line ")"
        }' "$f" | tr -d ' \t' | while read -r declared; do
        printf '%s\n' "$headers" | grep -qxF -- "$declared" || echo "$f: not so in the headers: $declared"
    done
done | grep . && bad=1
echo "man pages: $(ls docs/man/*.[1-8] | wc -l), $([ $bad = 0 ] && echo in order || echo not in order)"
exit $bad
