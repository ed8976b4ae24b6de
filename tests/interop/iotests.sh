#!/bin/sh
# SPDX-License-Identifier: MIT
# QEMU's own test suite, tests/qemu-iotests of Debian's source package, as a judge of the command:
#
#   sh tests/interop/iotests.sh TOOL [alone|mixed [TEST...]]
#
# The suite calls qemu-img and qemu-io; those in iotests/ stand there and run TOOL. "alone": ours
# alone, QEMU's own programs cannot be run. "mixed": these judge what ours wrote: they check,
# compare, map and read, and do what the scripts cannot translate; a test counts only if ours ran in
# it. iotests.txt has a line for each test: whether it passes, and why if it does not. One that is
# said to pass must pass. Needs root, and Debian 12, whose QEMU the list is for; the suite stays in
# ZQ_IOTESTS_CACHE, ~/.cache/zqcow2-iotests by default. ZQ_KEEP: a folder for the reports of the suite.
# Each test has ZQ_LIMIT seconds, 900, and a run of the suite of its own: -j 2 gives it a folder.
set -u
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { sed -n '5s/^# *//p' "$0"; exit 2; }
tool=$(realpath "$1") || exit 2
modes=${2:-alone mixed}
shift
[ $# -eq 0 ] || shift
list=$here/iotests.txt
cache=${ZQ_IOTESTS_CACHE:-$HOME/.cache/zqcow2-iotests}
jobs=${ZQ_JOBS:-$(nproc)}
limit=${ZQ_LIMIT:-900}
sh "$here/../packages.sh" dpkg-dev qemu-utils python3 xz-utils || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/zqcow2-iotests-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# With lists of its own for apt, so that those of the machine stay as they are.
fetch_suite() {
    mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)*\([^ ]*\) .*/\2/p' /etc/apt/sources.list \
        /etc/apt/sources.list.d/debian* 2>/dev/null | head -n 1)
    apt=$work/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$work/new/tests" "$(dirname "$cache")"
    echo "deb-src ${mirror:-http://deb.debian.org/debian} bookworm main" >"$apt/sources.list"
    set -- -q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root
    (cd "$work" && apt-get "$@" update && apt-get "$@" source qemu) >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; exit 1; }
    source=$(find "$work" -maxdepth 1 -type d -name 'qemu-*')
    cp -r "$source/tests/qemu-iotests" "$work/new/tests/" && cp -r "$source/python" "$work/new/" &&
        mv "$work/new" "$cache" || exit 1
    rm -rf "$source"
}

# Stands where the suite expects QEMU's servers: the tests of the list do not need them.
write_none() {
    cat >"$work/none" <<'END'
#!/bin/sh
case "$*" in
'-machine help') echo 'none (default)' ;;
*'-drive format=help') echo 'Supported formats: bochs file luks qcow qcow2 qed raw' ;;
*'-device help') echo 'name "virtio-blk", bus none' ;;
*) exit 1 ;;
esac
END
    chmod +x "$work/none"
}

# run_suite MODE TEST...: the suite's report is in $work/MODE.
run_suite() {
    mode=$1
    shift
    hide=:
    judge=
    if [ "$mode" = mixed ]; then
        judge=$(dirname "$(command -v qemu-img)")
    else
        hide='for p in /usr/bin/qemu-*; do mount --bind /dev/null "$p" || exit 1; done'
    fi
    mkdir -p "$work/out-$mode/sock"
    : >"$work/ledger-$mode"
    mkdir -p "$work/tap-$mode"
    (cd "$work/suite/tests/qemu-iotests" && printf '%s\n' "$@" |
        ZQ_TOOL=$tool ZQ_JUDGE=$judge ZQ_LEDGER=$work/ledger-$mode TEST_DIR=$work/out-$mode \
            SOCK_DIR=$work/out-$mode/sock QEMU_PROG=$work/none QSD_PROG=$work/none \
            QEMU_NBD_PROG=$work/none QEMU_IMG_PROG=$work/suite/scripts/qemu-img \
            QEMU_IO_PROG=$work/suite/scripts/qemu-io \
            unshare -m sh -c "$hide; "'exec xargs -P "$0" -I TEST sh -c "$1"' "$jobs" \
            "timeout $limit python3 ./check -qcow2 -tap -j 2 TEST >'$work/tap-$mode/TEST' 2>&1")
    cat "$work/tap-$mode"/* >"$work/$mode"
}

# The verdict on each TEST, against the list; false: one that is said to pass does not.
judge_suite() {
    mode=$1
    shift
    awk -v mode="$mode" -v tests="$*" -v out="$work/out-$mode/" '
        FILENAME ~ /ledger/ { ours[substr($1, length(out) + 1)]++; next }
        FILENAME ~ /iotests.txt$/ {
            if ($1 ~ /^[0-9]/) {
                said[$1] = mode == "alone" ? $2 : $3
                why[$1] = $0
                sub(/^[^ ]+ +[^ ]+ +[^ ]+ */, "", why[$1])
            }
            next
        }
        /^ok qcow2 .*SKIP/ { state[$3] = "skip"; next }
        /^ok qcow2 / { state[$3] = ours[$3] ? "pass" : "fail"; next }
        /^not ok qcow2 / { state[$4] = "fail" }
        END {
            n = split(tests, t, " ")
            for (i = 1; i <= n; i++) {
                s = state[t[i]] ? state[t[i]] : "fail"
                sum[s]++
                if (s != "pass")
                    printf "%s: %s %ss: %s\n", mode, t[i], s, why[t[i]] ? why[t[i]] : "not in the list"
                if (s != "pass" && said[t[i]] == "pass" && ++broken)
                    printf "%s: %s is said to pass\n", mode, t[i]
                if (s == "pass" && said[t[i]] != "pass")
                    printf "%s: %s passes now: change the list\n", mode, t[i]
            }
            printf "%d %d %d %d\n", sum["pass"], sum["fail"], sum["skip"], broken >"/dev/stderr"
        }' "$work/ledger-$mode" "$list" "$work/$mode" 2>"$work/sums"
    read -r passed failed skipped broken <"$work/sums"
    figures="${figures:+$figures; }$mode $passed passed, $failed failed, $skipped skipped"
    [ -n "${ZQ_KEEP:-}" ] && mkdir -p "$ZQ_KEEP" && cp -r "$work/$mode" "$work/out-$mode" "$work/ledger-$mode" "$ZQ_KEEP"
    [ "$broken" = 0 ]
}

[ -d "$cache" ] || fetch_suite
cp -r "$cache" "$work/suite" && mkdir "$work/suite/scripts" &&
    cp "$here/iotests/"* "$work/suite/scripts/" || exit 1
write_none
[ $# -gt 0 ] || set -- $(sed -n 's/^\([0-9][0-9]*\) .*/\1/p' "$list")
figures= status=0
for mode in $modes; do
    run_suite "$mode" "$@"
    judge_suite "$mode" "$@" || status=1
done
echo "iotests: $figures"
exit $status
