#!/bin/sh
# SPDX-License-Identifier: MIT
# What the documents name exists: functions, structs, macros, files, links, and the numbers of rules.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
docs='README.md docs/DESIGN.md docs/SPEC.md docs/PERFORMANCE.md docs/CONFORMANCE.md tests/README.md tests/guest/README.md'
code='src include tools tests examples'
checked=0
bad=0

missing() {
    echo "$1: no such $2: $3"
    bad=1
}

# Every word of the code, every file and every folder, once.
find $code -name '*.[ch]' -exec cat {} + | grep -oE '[A-Za-z_][A-Za-z0-9_]+' | sort -u >"$tmp/words"
cat tests/run.sh tests/*/*.sh tests/*/*/*.sh | grep -oE 'ZQ_[A-Z_]+' | sort -u >>"$tmp/words"
find $code docs -type f >"$tmp/files"
find $code docs -type d | sed 's,$,/,' >>"$tmp/files"

for doc in $docs; do
    # The code in the text, `like this`, except for commands, which hold a space.
    grep -oE '`[^`]+`' "$doc" | tr -d '`' | sort -u >"$tmp/spans"
    while IFS= read -r span; do
        case $span in
        *' '*' '*|*[*~=\$]*|/*|'<'*) continue ;;
        'struct '*) kind=struct name=${span#struct } ;;
        *' '*|-*) continue ;;
        *\([0-9]\))
            page=docs/man/${span%(*}.$(printf %s "${span##*(}" | tr -d ')')
            case $span in zqcow2*) ;; *) continue ;; esac
            checked=$((checked + 1))
            [ -f "$page" ] || missing "$doc" page "$span"
            continue ;;
        *'()') kind=function name=${span%()} ;;
        ZQ*) kind=macro name=$span ;;
        */|*.c|*.h|*.sh|*.txt|*.py)
            checked=$((checked + 1))
            grep -qE "(^|/)$(printf %s "$span" | sed 's/\./\\./g')\$" "$tmp/files" ||
                missing "$doc" file "$span"
            continue ;;
        *) continue ;;
        esac
        checked=$((checked + 1))
        grep -qxF "$name" "$tmp/words" || missing "$doc" "$kind" "$span"
    done <"$tmp/spans"
    for link in $(grep -oE '\]\([^):]+\)' "$doc" | sed 's/^](//; s/)$//' | sort -u); do
        checked=$((checked + 1))
        case $link in
        '#'*)
            sed -n 's/^##* //p' "$doc" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9\n_-' |
                grep -qxF -- "${link#?}" || missing "$doc" heading "$link" ;;
        *) [ -e "$(dirname "$doc")/$link" ] || missing "$doc" file "$link" ;;
        esac
    done
done

# A rule has one number and is stated once; what the code cites is stated.
stated=$(grep -oE '^\* \*\*[REIK][0-9]+ ?' docs/DESIGN.md | tr -d '* ' | sort)
for twice in $(printf '%s\n' "$stated" | uniq -d); do
    echo "docs/DESIGN.md: $twice is stated twice"
    bad=1
done
for cited in $(find src tests -name '*.[ch]' -exec cat {} + | grep -oE '\b[REIK][0-9]{1,2}\b' | sort -u); do
    checked=$((checked + 1))
    printf '%s\n' "$stated" | grep -qxF "$cited" || missing docs/DESIGN.md rule "$cited"
done
echo "docs: $checked names and links, $([ $bad = 0 ] && echo all exist || echo not all exist)"
exit $bad
