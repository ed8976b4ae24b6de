#!/bin/sh
# SPDX-License-Identifier: MIT
# The binary interface against that of every release.
#   abi.sh compare BUILD       the library in BUILD against libzqcow2-*.abi here
#   abi.sh baseline [COMMIT]   builds COMMIT, or the last tag, and writes libzqcow2-MAJOR.MINOR.abi
#   abi.sh selftest            the suppressions let through what they should, and no more
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

compare() { # OLD NEW [MORE]: abidiff's answer, 4 for a change that is not suppressed
    abidiff --suppressions "$here/suppressions.ini" ${3:+--suppressions "$3"} --no-added-syms \
        "$1" "$2" >"$tmp/diff" 2>&1
}

# stub NAME [SED...]: a library with the public interface and no inside, its headers edited by SED.
stub() {
    name=$1
    shift
    mkdir -p "$tmp/$name"
    cp -r "$top/include" "$tmp/$name/"
    [ $# = 0 ] || sed -i "$@" "$tmp/$name"/include/zqcow2/*.h
    cat >"$tmp/$name/x.c" <<'END'
#include <zqcow2/backend.h>
#include <zqcow2/queue.h>
int zqcow2_get_info(struct zqcow2_image *img, struct zqcow2_info *info) { return !img + !info; }
int zqcow2_zone_report(struct zqcow2_image *img, uint64_t off, struct zqcow2_zone *zones,
                       uint32_t *nr) { return !img + !off + !zones + !nr; }
int zqcow2_close(struct zqcow2_image *img) { return !img; }
int zqcow2_queue_submit(struct zqcow2_queue *q, const struct zqcow2_request *reqs, uint32_t n)
{ return !q + !reqs + !n; }
END
    gcc -g -shared -fPIC -I"$tmp/$name/include" "$tmp/$name/x.c" -o "$tmp/$name/libstub.so"
}

expect() { # accepted|reported NAME WHAT [MORE]
    if compare "$tmp/base/libstub.so" "$tmp/$2/libstub.so" "${4:-}"; then got=accepted; else got=reported; fi
    [ $got = "$1" ] && return 0
    echo "$3 was $got, should be $1:"
    cat "$tmp/diff"
    exit 1
}

case ${1:-} in
compare)
    readelf -S "$2/libzqcow2.so" | grep -q '\.debug_info' || { echo 'built without debug information'; exit 77; }
    count=0
    for abi in "$here"/libzqcow2-*.abi; do
        more=${abi%.abi}.ini # what has changed since that release, and breaks no program
        [ -f "$more" ] || more=
        if ! compare "$abi" "$2/libzqcow2.so" "$more"; then
            echo "against $(basename "$abi"):"
            cat "$tmp/diff"
            exit 1
        fi
        count=$((count + 1))
    done
    [ $count -gt 0 ]
    echo "abi: compared with $count releases: the same, or grown as allowed"
    ;;
baseline)
    commit=${2:-$(git -C "$top" describe --tags --abbrev=0)} || { echo 'there is no tag'; exit 1; }
    git -C "$top" archive --prefix=src/ "$commit" | tar -x -C "$tmp"
    release=$(sed -n 's/^#define ZQCOW2_VERSION_M[AI][JN]OR //p' "$tmp/src/include/zqcow2/zqcow2.h" | paste -sd .)
    abi=$here/libzqcow2-$release.abi
    cmake -S "$tmp/src" -B "$tmp/b" -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Debug >/dev/null
    cmake --build "$tmp/b" --target zqcow2 >/dev/null
    abidw --headers-dir "$tmp/src/include" --drop-private-types --no-corpus-path --no-comp-dir-path \
        "$tmp/b/libzqcow2.so" >"$abi"
    echo "wrote $abi from $commit"
    ;;
selftest)
    # Exactly the structs led by a size_t may grow, and two that are the library's.
    cat "$top"/include/zqcow2/*.h | awk '
        /^struct zqcow2_[a-z0-9_]+ \{/ { name = $2; first = 1; next }
        first { if (/^ +size_t size;/) print name; first = 0 }' | sort >"$tmp/led"
    sed -n 's/^ *name = //p' "$here/suppressions.ini" | grep -vE '^zqcow2_(io|backend)$' | sort >"$tmp/listed"
    if ! diff "$tmp/led" "$tmp/listed" >"$tmp/diff"; then
        echo 'structs led by size_t size (<) against suppressions.ini (>):'
        cat "$tmp/diff"
        exit 1
    fi
    stub base
    stub same
    expect accepted same 'the same interface'
    stub grown '/^struct zqcow2_info {/,/^}/s/^};/uint64_t grown; };/'
    expect accepted grown 'a member at the end of a struct led by its size'
    stub middle 's/uint32_t cluster_size, refcount_bits;/& uint64_t middle;/'
    expect reported middle 'a member in the middle of such a struct'
    stub zone 's/attributes, reserved\[29\];/attributes, reserved[37];/'
    expect reported zone 'a larger zone array element'
    stub gone 's/uint16_t op; .*/uint32_t op;/'
    expect reported gone 'a member of another width'
    # What 0.2 has put in the place of reserved members, and nothing beside it.
    old=$here/libzqcow2-0.1.ini
    stub state 's/attributes, reserved\[29\];/other, attributes, reserved[28];/'
    expect accepted state 'a member in the place of reserved bytes' "$old"
    expect reported state 'a member in the place of reserved bytes, without the list'
    stub early 's/uint8_t type, state,/uint8_t type, early, state,/;s/reserved\[29\];/reserved[28];/'
    expect reported early 'a member before the state of a zone' "$old"
    echo 'abi: 8 changes judged rightly'
    ;;
*)
    sed -n '3,6s/^# *//p' "$0"
    exit 2
    ;;
esac
