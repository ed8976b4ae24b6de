#!/bin/sh
# SPDX-License-Identifier: MIT
# What reasons.sh prints of tests that pass, are skipped, or skip a part of themselves, as this
# ctest records them.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
cd "$tmp"

cat >CTestTestfile.cmake <<'END'
add_test(whole sh -c "echo first; echo 'no such tool here'; exit 77")
add_test(tap sh -c "echo '1..0 # SKIP only root may'; exit 77")
add_test(silent sh -c "exit 77")
add_test(sound sh -c "echo 'ok 1 - all of it'")
add_test(parts sh -c "cat parts")
set_tests_properties(whole tap silent sound parts PROPERTIES SKIP_RETURN_CODE 77)
END
cat >parts <<'END'
[==========] Running 3 test(s).
[ RUN      ] ring
no io_uring here
[  SKIPPED ] ring
[ RUN      ] shuffled
10 operations
[       OK ] shuffled
[ RUN      ] speechless
[  SKIPPED ] speechless
[==========] 3 test(s) run.
[  SKIPPED ] 2 test(s), listed below:
[  SKIPPED ] ring
END
cat >want <<'END'
-- skipped: parts, ring: no io_uring here
-- skipped: parts, speechless: ?
-- skipped: silent: ?
-- skipped: tap: only root may
-- skipped: whole: no such tool here
END
ctest >out 2>&1 || { cat out; exit 1; }
sh "$top/tests/reasons.sh" out Testing/Temporary/LastTest.log >got
diff want got
echo "reasons: $(wc -l <got) skips and their reasons"
