#!/bin/sh
# SPDX-License-Identifier: MIT
# The binary interface against that of the last tag.
#   abi.sh compare BUILD    the library in BUILD against libzqcow2.abi here; 77 while there is none
#   abi.sh baseline         builds the last tag and writes libzqcow2.abi
#   abi.sh selftest         the suppressions let through what they should, and no more
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
abi=$here/libzqcow2.abi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

compare() { # OLD NEW: abidiff's answer, 4 for a change that is not suppressed
    abidiff --suppressions "$here/suppressions.ini" --no-added-syms "$1" "$2" >"$tmp/diff" 2>&1
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

expect() { # accepted|reported NAME WHAT
    if compare "$tmp/base/libstub.so" "$tmp/$2/libstub.so"; then got=accepted; else got=reported; fi
    [ $got = "$1" ] && return 0
    echo "$3 was $got, should be $1:"
    cat "$tmp/diff"
    exit 1
}

case ${1:-} in
compare)
    [ -f "$abi" ] || { echo 'no baseline yet: sh tests/abi/abi.sh baseline after the first tag'; exit 77; }
    if compare "$abi" "$2/libzqcow2.so"; then
        echo 'abi: as at the last tag, or grown as allowed'
    else
        cat "$tmp/diff"
        exit 1
    fi
    ;;
baseline)
    tag=$(git -C "$top" describe --tags --abbrev=0) || { echo 'there is no tag'; exit 1; }
    git -C "$top" archive --prefix=src/ "$tag" | tar -x -C "$tmp"
    cmake -S "$tmp/src" -B "$tmp/b" -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Debug >/dev/null
    cmake --build "$tmp/b" --target zqcow2 >/dev/null
    abidw --headers-dir "$tmp/src/include" --drop-private-types --no-corpus-path --no-comp-dir-path \
        "$tmp/b/libzqcow2.so" >"$abi"
    echo "wrote $abi from $tag"
    ;;
selftest)
    # Exactly the structs led by a size_t may grow, and struct zqcow2_io, which is the library's.
    cat "$top"/include/zqcow2/*.h | awk '
        /^struct zqcow2_[a-z0-9_]+ \{/ { name = $2; first = 1; next }
        first { if (/^ +size_t size;/) print name; first = 0 }' | sort >"$tmp/led"
    sed -n 's/^ *name = //p' "$here/suppressions.ini" | grep -v '^zqcow2_io$' | sort >"$tmp/listed"
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
    echo 'abi: 5 changes judged rightly'
    ;;
*)
    sed -n '3,7s/^# *//p' "$0"
    exit 2
    ;;
esac
