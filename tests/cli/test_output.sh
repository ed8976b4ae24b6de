#!/bin/sh
# SPDX-License-Identifier: MIT
# --output=human|json of info, check, map and measure: what qemu-img prints.
. "$(dirname "$0")/lib.sh"

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
    echo '# no qemu-img here'
    exit 77
fi
# members FILE: sorted, without what only one of the two programs has.
members() {
    python3 -c '
import json, sys
def plain(v):
    if isinstance(v, list):
        return [plain(e) for e in v]
    if not isinstance(v, dict):
        return v
    return {k: plain(e) for k, e in v.items()
            if k not in ("fragmented-clusters", "compressed", "disk-size", "children")
            and not (k == "format-specific" and e["type"] == "file")}
print(json.dumps(plain(json.load(open(sys.argv[1]))), sort_keys=True, indent=1))' "$1"
}
# text FILE: later releases of QEMU also show the file below, and space the snapshots otherwise.
text() {
    below='/^Child node/ { below = 1; next } below && /^    / { next } { below = 0; print }'
    if grep -q VM_SIZE judge; then
        awk "$below" "$1" |
            sed 's/VM_/VM /g; s/ 0000:/ 00:/; /^ID /,/^Format/s/  */ /g'
    else
        awk "$below" "$1"
    fi
}
# alike STATUS ARGUMENT...: qemu-img says the same; its check also counts fragments.
alike() {
    wanted=$1
    verb=$2
    shift 2
    run "$wanted" "$verb $*" "$verb" --output=human "$@"
    qemu-img "$verb" --output=human "$@" 2>/dev/null | sed '/ fragmented, /d' >judge
    is "$verb $*: the same text" "$(text judge)" "$(text out)"
    run "$wanted" "$verb $*: JSON" "$verb" --output=json "$@"
    qemu-img "$verb" --output=json "$@" >judge 2>/dev/null
    members judge >judge.members
    members out >members
    is "$verb $*: the same members" "$(cat judge.members)" "$(cat members)"
}
mkdir folder
qemu-img create -q -f raw folder/base.raw 3M
qemu-img create -q -f qcow2 -b base.raw -F raw -o extended_l2=on,compression_type=zstd \
    folder/mid.qcow2 8M
qemu-img create -q -f qcow2 -o compat=0.10 -b "$dir/folder/mid.qcow2" -F qcow2 old.qcow2
qemu-img create -q -f qcow2 -o data_file=data.bin,data_file_raw=on,refcount_bits=1 data.qcow2 1M
qemu-img create -q -f qcow2 -o lazy_refcounts=on,cluster_size=4k marked.qcow2 5G
qemu-img bitmap --add marked.qcow2 one
qemu-img bitmap --add --disable -g 4k marked.qcow2 two
qemu-io -c 'write -P 1 1M 640k' marked.qcow2 >/dev/null
qemu-img snapshot -c first marked.qcow2
qemu-img snapshot -c second marked.qcow2
qemu-img create -q -f qcow2 empty.qcow2 0
for image in folder/mid.qcow2 old.qcow2 data.qcow2 marked.qcow2 empty.qcow2; do
    alike 0 info $image
    alike 0 check $image
    [ $image = empty.qcow2 ] || alike 0 map $image
    alike 0 measure -O qcow2 $image
done
alike 0 info --backing-chain old.qcow2
run 1 'both forms' info --json --output=json marked.qcow2
has 'are refused' err 'info: --json and --output cannot be given together'
run 1 'both forms of check' check --json --output=human marked.qcow2
has 'are refused as well' err 'check: --json and --output cannot be given together'
run 1 'another form' info --output=yaml marked.qcow2
has 'is refused' err "^zqcow2: --output: 'yaml' is not one of human, json$"

# A refcount too high, and one too low, in a copy each: qemu-img counts the entry of L2, too.
patch() {
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
qemu-img create -q -f qcow2 leak.qcow2 1M
qemu-io -c 'write 0 128k' leak.qcow2 >/dev/null
patch leak.qcow2 131074 '\0\3'
alike 3 check leak.qcow2
has 'findings are on the other stream' err '^leak at '
run 0 'repaired' check --repair=all --output=human leak.qcow2
has 'says what was done' out '^    1 leaked clusters$'
has 'and what is left' out '^No errors were found on the image\.$'

# qemu-img knows no zones, so they are not shown.
run 0 'a zoned image' create -o zone.size=1M zoned.qcow2 4M
run 0 'has the other properties' info --output=json zoned.qcow2
is 'its size' 4194304 "$(python3 -c 'import json; print(json.load(open("out"))["virtual-size"])')"
run 0 'its check' check --output=json zoned.qcow2
is 'counts its clusters' 64 "$(python3 -c 'import json; print(json.load(open("out"))["total-clusters"])')"
finish
