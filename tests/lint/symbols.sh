#!/bin/sh
# SPDX-License-Identifier: MIT
# symbols.sh BUILD: what the shared library exports is what the headers declare and the map lists,
# each in a man page and used by a test or example.
set -eu
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0

differ() { # WHAT FILE FILE
    diff "$2" "$3" >"$tmp/diff" && return 0
    printf '%s\n' "$1"
    grep '^[<>]' "$tmp/diff"
    bad=1
}

cat include/zqcow2/*.h | tr '\n' ' ' | grep -oE 'ZQCOW2_API [^;(]*\(' |
    grep -oE 'zqcow2_[a-z0-9_]+ *\($' | tr -d ' (' | sort >"$tmp/declared"
grep -oE '^ +zqcow2_[a-z0-9_]+;' src/api/libzqcow2.map | tr -d ' ;' | sort >"$tmp/listed"
nm -D --defined-only "$build/libzqcow2.so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' |
    sort >"$tmp/exported"
differ 'declared in the headers (<) against the map (>)' "$tmp/declared" "$tmp/listed"
differ 'the map (<) against what is exported (>)' "$tmp/listed" "$tmp/exported"

find tests examples -name '*.[ch]' >"$tmp/users"
while read -r name; do
    if ! grep -qE "^\.Nm $name( ,)?\$" docs/man/*.3; then
        echo "$name: in no man page"
        bad=1
    fi
    if ! xargs grep -qw "$name" <"$tmp/users"; then
        echo "$name: no test and no example uses it"
        bad=1
    fi
done <"$tmp/exported"

# Constants too: every one in a page, except for the errors' numbers, which one page lists.
cat include/zqcow2/*.h | sed 's,/\*.*\*/,,' | grep -oE '^ *ZQCOW2_[A-Z0-9_]+|, ZQCOW2_[A-Z0-9_]+|\{ ZQCOW2_[A-Z0-9_]+|define ZQCOW2_[A-Z0-9_]+' |
    grep -oE 'ZQCOW2_[A-Z0-9_]+' | grep -vE '_H$|^ZQCOW2_API$' | sort -u >"$tmp/constants"
while read -r name; do
    if ! grep -qw "$name" docs/man/*.3; then
        echo "$name: in no man page"
        bad=1
    fi
done <"$tmp/constants"
echo "symbols: $(wc -l <"$tmp/exported") exported, $(wc -l <"$tmp/constants") constants," \
    "$([ $bad = 0 ] && echo all documented and used || echo not in order)"
exit $bad
