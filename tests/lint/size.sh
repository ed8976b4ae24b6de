#!/bin/sh
# SPDX-License-Identifier: MIT
# No function above 60 lines, no macro above 30, no file above 600, the event loop's example under
# 120; prints the medians of src/.
set -eu
cd "$(dirname "$0")/../.."
files=$(find src include tools examples tests -name '*.[ch]' | sort)
# name, lines of each function; ctags calls a function by its first line and its end.
functions() {
    ctags --languages=C --langmap=C:.c.h --kinds-C=f --fields=+ne -x \
        --_xformat='%{end} %n %F:%n %N' "$@" | awk '$1 > 0 { print $1 - $2 + 1, $3, $4 }'
}
bad=0
long=$(for f in $files; do wc -l "$f"; done | awk '$1 > 600')
big=$(functions $files | awk '$1 > 60')
if [ -n "$long" ]; then
    printf 'files above 600 lines:\n%s\n' "$long"
    bad=1
fi
if [ "$(wc -l <examples/epoll_server.c)" -ge 120 ]; then
    echo 'examples/epoll_server.c has 120 lines or more'
    bad=1
fi
if [ -n "$big" ]; then
    printf 'functions above 60 lines:\n%s\n' "$big"
    bad=1
fi
macros=$(awk '
    /\\$/ { n++; next }
    n >= 30 { print n + 1, FILENAME ":" FNR }
    { n = 0 }' $files)
if [ -n "$macros" ]; then
    printf 'lines joined by \\, above 30:\n%s\n' "$macros"
    bad=1
fi
# A brace that begins a line closes a function, a struct or a table; one alone, a function.
awk '
    /^[{]$/ { start = FNR }
    /^[}]/ { if (start && FNR - start > 60) print FNR - start, FILENAME ":" start; start = 0 }' $files |
    grep . && { echo 'bodies above 60 lines'; bad=1; }
functions $(find src -name '*.[ch]') | sort -n | awk '
    { n[NR] = $1 }
    END {
        if (!NR) { print "ctags found no function in src/"; exit 1 }
        printf "functions of src/: %d, median %d lines, p90 %d, longest %d\n", NR,
            n[int((NR + 1) / 2)], n[int((NR * 9 + 9) / 10)], n[NR]
    }'
for f in $(find src -name '*.[ch]'); do wc -l <"$f"; done | sort -n | awk '
    { n[NR] = $1; sum += $1 }
    END { printf "files of src/: %d, %d lines, median %d, longest %d\n", NR, sum, n[int((NR + 1) / 2)], n[NR] }'
exit $bad
