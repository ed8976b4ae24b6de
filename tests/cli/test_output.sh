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
            if k not in ("compressed", "disk-size", "children")
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
# alike STATUS ARGUMENT...: qemu-img says the same.
alike() {
    wanted=$1
    verb=$2
    shift 2
    run "$wanted" "$verb $*" "$verb" --output=human "$@"
    qemu-img "$verb" --output=human "$@" >judge 2>/dev/null
    is "$verb $*: the same text" "$(text judge)" "$(text out)"
    run "$wanted" "$verb $*: JSON" "$verb" --output=json "$@"
    qemu-img "$verb" --output=json "$@" >judge 2>/dev/null
    members judge >judge.members
    members out >members
    is "$verb $*: the same members" "$(cat judge.members)" "$(cat members)"
}
# --progress=percent of convert and compare, off a terminal.
qemu-img create -q -f qcow2 some.qcow2 64M
qemu-io -c 'write 0 1M' -c 'write -P 3 6M 2M' -c 'write -z 9M 1M' -c 'write 40M 64k' some.qcow2 >/dev/null
for options in '-O raw' '-O qcow2'; do
    # shellcheck disable=SC2086
    qemu-img convert -p -m 1 $options some.qcow2 theirs.img | tr '\r' '\n' >judge
    # shellcheck disable=SC2086
    run 0 "convert $options: percentages" convert --force --progress=percent -m 1 $options some.qcow2 ours.img
    is "convert $options: as qemu-img prints them" "$(cat judge)" "$(tr '\r' '\n' <out)"
done
run 0 'of a comparison' compare --progress=percent some.qcow2 ours.img
is 'the last is 100' '    (100.00/100%)
Images are identical.' "$(tr '\r' '\n' <out | sed '/^$/d' | tail -n 2)"
: >empty.img
run 0 'of nothing' convert --force --progress=percent empty.img ours.img
is 'it is complete' '    (100.00/100%)' "$(tr '\r' '\n' <out | sed '/^$/d')"
run 0 'on a terminal only' convert --force -p some.qcow2 ours.img
is 'nothing otherwise' '' "$(cat out err)"
run 1 'another form' convert --force --progress=dots some.qcow2 ours.img
has 'is refused' err "^zqcow2: --progress: 'dots' is not one of bar, percent$"
# Percentages of zones, of a copy that goes on, and of a backup: they rise, up to 100.
# rises NAME
rises() {
    tr '\r' '\n' <out | sed -n 's/^ *(\([0-9.]*\).*/\1/p' >steps
    is "$1: rises to 100" "$(sort -n steps; echo 100.00)" "$(cat steps; tail -n 1 steps)"
}
run 0 'zones' create -o zone.size=1M,zone.conventional_zones=1 zones.qcow2 8M
head -c 1048576 /dev/zero | tr '\0' a | "$tool" append --quiet zones.qcow2 1M
head -c 300032 /dev/zero | tr '\0' b | "$tool" append --quiet zones.qcow2 2M
for options in '-O qcow2' '-O raw' '-O qcow2 -c'; do
    # shellcheck disable=SC2086
    run 0 "zones: $options" convert --force --progress=percent $options zones.qcow2 ours.img
    rises "zones: $options"
done
for options in '-S 0' '-c -O qcow2'; do
    # shellcheck disable=SC2086
    run 0 "plain: $options" convert --force --progress=percent $options some.qcow2 ours.img
    rises "plain: $options"
done
run 0 'onto a backing file' convert --force --progress=percent -O qcow2 -B some.qcow2 -F qcow2 some.qcow2 onto.qcow2
rises 'onto a backing file'
run 0 'a bitmap' bitmap --add some.qcow2 since
run 0 'a last backup' convert --force -O qcow2 some.qcow2 backup.qcow2
qemu-io -c 'write -P 9 5M 64k' some.qcow2 >/dev/null
run 0 'a backup' export --since=since -b backup.qcow2 -F qcow2 --progress=percent some.qcow2 increment.qcow2
rises 'a backup'
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
# Clusters in an order of their own, compressed ones among them, in several tables; and in a data file.
for opts in '' cluster_size=512 extended_l2=on,cluster_size=16k data_file=parts.bin; do
    rm -f parts.qcow2 parts.bin
    qemu-img create -q -f qcow2 ${opts:+-o "$opts"} parts.qcow2 1G
    qemu-io -c 'write 640k 64k' -c 'write 0 256k' -c 'write 512k 64k' -c 'write -z 320k 64k' -c 'write 600M 128k' \
        -c 'write 100k 400k' -c 'discard 128k 64k' -c 'write 599M 64k' parts.qcow2 >/dev/null
    alike 0 check parts.qcow2
    [ "$opts" = data_file=parts.bin ] || qemu-io -c 'write -c 1M 64k' -c 'write -c 2M 64k' \
        -c 'write 1088k 64k' parts.qcow2 >/dev/null
    alike 0 check parts.qcow2
done
run 0 'the check in its own form' check parts.qcow2
has 'says how many are fragmented' out 'clusters hold data, [0-9]+ fragmented; the image ends at'
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
