#!/bin/sh
# SPDX-License-Identifier: MIT
# Words that a native reader stumbles over, in documents, man pages, messages and comments alike.
set -eu
cd "$(dirname "$0")/../.."
bad=0
joined=$(mktemp)
trap 'rm -f "$joined"' EXIT
files=$(find README.md CHANGELOG.md CMakeLists.txt docs src include tools tests examples python debian cmake \
    -type f \( -name '*.[ch]' -o -name '*.sh' -o -name '*.py' -o -name '*.md' -o -name '*.[1-8]' \
    -o -name '*.txt' -o -name '*.def' -o -name '*.in' -o -name '*.cmake' -o -name control \
    -o -name changelog \) -not -name english.sh -not -name selftest.sh | sort)
# The end of each line and the beginning of the next: words that a new line separates.
awk '
    FNR > 1 { text = $0; sub(/^[ \t]*([*#]|\/\/)*[ \t]*/, "", text)
        print FILENAME ":" FNR ": " last " " text }
    { last = $0 }' $files >"$joined"

# avoid REGEX INSTEAD: a whole word, in either case of its first letter.
avoid() {
    hits=$(grep -nIE -- "(^|[^A-Za-z_])($1)([^A-Za-z_]|\$)" $files || true)
    case $1 in
    *' '*) [ -n "$hits" ] || hits=$(grep -E -- "[^A-Za-z_]($1)([^A-Za-z_]|\$)" "$joined" || true) ;;
    esac
    [ -n "$hits" ] || return 0
    printf '%s\n' "$hits" | sed "s/\$/   <- $2/"
    bad=1
}

avoid '[Hh]e|[Hh]is|[Hh]im|[Hh]imself' 'the caller, the thread, it'
avoid 'Who|[Ww]hoever|[Ww]homever' 'an operation that, a program that'
avoid '[Tt]ells?|[Tt]old|[Tt]elling' 'report, return, show'
avoid '[Mm]end|[Mm]ends|[Mm]ended|[Mm]ending' 'repair, fix'
avoid '[Ff]or ever' 'forever, permanently, fixed by the ABI'
avoid '[Bb]y way of' 'through'
avoid '[Bb]ut for' 'except'
avoid '([Ss]hort|[Ll]ong|[Hh]ot) way' 'fast path, slow path'
avoid '[Ll]ives? off' 'relies on'
avoid '[Ww]ants? to know' 'needs'
avoid 'says? -E[A-Z]*|says? E[A-Z]+' 'returns'
avoid '(is|are|be) no (qcow2|multiple|part|power)' 'is not a'
avoid '[Oo]pened anew' 'reopened'
avoid '[Ff]or want of' 'for lack of'
avoid 'where it is there' 'if available'
avoid '(bytes|one|heap|GiB|MB|KiB|allocations) an? (image|zone|guest|cluster|entry)' 'per'
echo "english: $(printf '%s\n' "$files" | wc -l) files, $([ $bad = 0 ] && echo in order || echo not in order)"
exit $bad
