#!/bin/sh
# SPDX-License-Identifier: MIT
# reasons.sh CTEST-OUTPUT LAST-TEST-LOG: a line for each test that was skipped, as ctest printed it,
# and for each skipped part of one; with the reason, which is what it printed last.
set -eu
awk 'NR == FNR {
        if (/\*\*\*Skipped/)
            for (i = 1; i < NF; i++)
                if ($i ~ /^#[0-9]+:$/)
                    skipped[$(i + 1)] = 1
        next
    }
    /^[0-9]+\/[0-9]+ Testing: / { name = $3; listed = 0 }
    /^Output:$/ || /\[ RUN/ { last = ""; next }
    /listed below/ { listed = 1 }
    /\[ *SKIPPED *\] [a-z]/ && !listed {
        print "-- skipped: " name ", " $NF ": " (last == "" ? "?" : last)
    }
    /^<end of output>/ && name in skipped { print "-- skipped: " name ": " (last == "" ? "?" : last) }
    !/^$|^-+$|^\[/ { last = $0; sub(/^1\.\.0 # SKIP /, "", last) }' "$1" "$2" | sort -u
