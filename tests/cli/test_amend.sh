#!/bin/sh
# SPDX-License-Identifier: MIT
# Images whose features change, with qemu-img as the other program: both make the same of one image,
# each goes on where the other has stopped, and no cluster is counted wrong.
. "$(dirname "$0")/lib.sh"

# field FILE NAME
field() {
    "$tool" info --json "$1" | python3 -c "import json, sys; print(json.load(sys.stdin)['$2'])"
}

run 0 'an image' create p.qcow2 10M
cp p.qcow2 before.qcow2
run 1 'refused: nothing to change' amend p.qcow2
for bad in compat=1.2 lazy_refcounts=yes refcount_bits=3 refcount_bits=128 data_file_raw=on \
    zone.layout=56; do
    run 1 "refused: $bad" amend -o "$bad" p.qcow2
    has 'names it' err "^zqcow2: ${bad%%=*}: '${bad#*=}' is not one of"
done
run 1 'refused: what cannot be amended' amend -o cluster_size=4K p.qcow2
run 1 'refused: twice' amend -o refcount_bits=8,refcount_bits=4 p.qcow2
run 1 'refused: a layout of no zones' amend -o zone.layout=44 p.qcow2
has 'says so' err 'the image has no zones'
run 1 'refused: lazy refcounts of version 2' amend -o compat=0.10,lazy_refcounts=on p.qcow2
run 0 'what it is already' amend -o compat=1.1,refcount_bits=16,lazy_refcounts=off p.qcow2
same 'nothing has changed' before.qcow2 p.qcow2

# What the other version, or width, could not hold.
run 0 'zones' create -o zone.size=4M z.qcow2 32M
run 1 'refused: zones' amend -o compat=0.10 z.qcow2
has 'by name' err 'compat 0.10 has no zones'
run 1 'refused: zones' amend -o lazy_refcounts=on z.qcow2
run 0 'subclusters' create -o extended_l2=on x.qcow2 32M
run 1 'refused: subclusters' amend -o compat=0.10 x.qcow2
has 'by name' err 'compat 0.10 has no subclusters'
run 0 'a compression type' create --force -o compression_type=zstd x.qcow2 32M
run 1 'refused: compression type' amend -o compat=0.10 x.qcow2
has 'by name' err 'compat 0.10 has no compression type'
run 0 'a data file' create -o data_file=x.data,data_file_raw=on d.qcow2 1M
run 1 'refused: data file' amend -o compat=0.10 d.qcow2
has 'by name' err 'compat 0.10 has no data file'
run 1 'refused: a width that version 2 does not have' amend -o compat=0.10,refcount_bits=8 p.qcow2
has 'by name' err 'refcounts of 16 bits, not of 8'
random 1048576 7 >data
"$tool" write d.qcow2 0 <data >out 2>err
is 'data for the data file' 0 $?
run 0 'a data file that is no longer raw' amend -o data_file_raw=off d.qcow2
run 0 'reads' read d.qcow2 0 1M
same 'as before' data out

# Layouts: every revision becomes the newest one, and its zones and their data stay.
for layout in 48b 56 v7 44; do
    rm -f z.qcow2
    run 0 "layout $layout" create -o "zone.size=4M,zone.capacity=3M,zone.conventional_zones=1,zone.layout=$layout" z.qcow2 30M
    "$tool" append z.qcow2 4M <data >out 2>err
    is "$layout: data" 0 $?
    run 0 "$layout: finish" finish -o 8M z.qcow2
    run 0 "$layout: finish the short last one" finish -o 28M z.qcow2
    "$tool" report --json z.qcow2 >before
    run 0 "$layout: amend" amend -o zone.layout=44,refcount_bits=8 z.qcow2
    is "$layout: is layout 44" 44 "$(field z.qcow2 layout)"
    "$tool" report --json z.qcow2 >after
    same "$layout: the same zones" before after
    run 0 "$layout: reading" read z.qcow2 4M 1M
    same "$layout: the same data" data out
    run 0 "$layout: check" check z.qcow2
    lacks "$layout: nothing leaks" out leak
    run 0 "$layout: goes on" reset -o 4M z.qcow2
    is "$layout: works" EMPTY "$(zone z.qcow2 1 state)"
done
# Snapshots have zones of their layout: the image cannot get another one until they are deleted.
for layout in 48b 56 v7; do
    rm -f z.qcow2
    run 0 "$layout: with a snapshot" create -o "zone.size=4M,zone.layout=$layout" z.qcow2 32M
    "$tool" append -q z.qcow2 4M <data
    run 0 "$layout: its snapshot" snapshot -c s z.qcow2
    run 0 "$layout: a reset" reset -o 4M z.qcow2
    cp z.qcow2 before
    run 1 "$layout: refused: snapshots" amend -o zone.layout=44 z.qcow2
    is "$layout: by name" \
        'zqcow2: z.qcow2: layout: the image has snapshots, whose zones have the old layout' "$(cat err)"
    same "$layout: nothing has changed" before z.qcow2
    run 0 "$layout: something else" amend -o refcount_bits=32 z.qcow2
    run 0 "$layout: and the snapshot is applied" snapshot -a s z.qcow2
    run 0 "$layout: it has" read z.qcow2 4M 1M
    same "$layout: its data" data out
    run 0 "$layout: deleted" snapshot -d s z.qcow2
    run 0 "$layout: it is amended" amend -o zone.layout=44 z.qcow2
    run 0 "$layout: check" check z.qcow2
    run 0 "$layout: a snapshot of the new layout" snapshot -c s z.qcow2
    run 0 "$layout: another reset" reset -o 4M z.qcow2
    run 0 "$layout: is applied" snapshot -a s z.qcow2
    run 0 "$layout: and has" read z.qcow2 4M 1M
    same "$layout: the data" data out
done
run 0 'an image without the feature bit' create --force -o zone.size=4M,zone.layout=v7 z.qcow2 32M
printf '\000' | dd of=z.qcow2 bs=1 seek=79 conv=notrunc 2>/dev/null
run 1 'refused: another feature of it' amend -o refcount_bits=8 z.qcow2
run 0 'the newest layout' amend -o zone.layout=44 z.qcow2
run 0 'has the bit' reset --all z.qcow2

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
    echo '# no qemu-img here'
    finish
fi

sound() {
    ran="qemu-img check $2"
    qemu-img check -q -f qcow2 "$2" >out 2>err
    verdict $? "$1" || show
    run 0 "$1: check agrees" check "$2"
}
alike() {
    ran="qemu-img compare $2 $3"
    qemu-img compare -q -f qcow2 -F qcow2 "$2" "$3" >out 2>err
    verdict $? "$1" || show
}
fill() {
    qemu-io -f qcow2 -c "write -P $1 $2 $3" "$4" >/dev/null
}
# What qemu-img says of FILE's features.
features() {
    qemu-img info --output=json -f qcow2 "$1" |
        python3 -c 'import json, sys; d = json.load(sys.stdin)["format-specific"]["data"]
print(d["compat"], d["refcount-bits"], d.get("lazy-refcounts", False))'
}

tr '\0' '\252' </dev/zero | head -c 3000000 | head -c 2998272 >base.raw
for made in cluster_size=512 cluster_size=64K,refcount_bits=64,backing_file=base.raw,backing_fmt=raw \
    cluster_size=4K,lazy_refcounts=on; do
    rm -f a.qcow2 b.qcow2 o.qcow2
    qemu-img create -q -f qcow2 -o "$made" o.qcow2 6M
    fill 1 64K 300K o.qcow2
    qemu-io -f qcow2 -c 'write -z 1M 900K' -c 'write -z 100K 100K' o.qcow2 >/dev/null
    fill 2 3M 100K o.qcow2
    cp o.qcow2 a.qcow2
    cp o.qcow2 b.qcow2
    for to in refcount_bits=1 refcount_bits=32,lazy_refcounts=on lazy_refcounts=off \
        compat=0.10,refcount_bits=16 compat=0.10 compat=1.1,refcount_bits=2 compat=1.1; do
        name="$made $to"
        run 0 "$name" amend -o "$to" a.qcow2
        ran="qemu-img amend -o $to b.qcow2"
        qemu-img amend -q -f qcow2 -o "$to" b.qcow2 >out 2>err
        verdict $? "$name: by qemu-img" || show
        is "$name: the same features" "$(features b.qcow2)" "$(features a.qcow2)"
        alike "$name: the same content" a.qcow2 o.qcow2
        sound "$name: is sound" a.qcow2
        mv a.qcow2 c.qcow2 # each goes on with what the other has made
        mv b.qcow2 a.qcow2
        mv c.qcow2 b.qcow2
    done
    for f in a.qcow2 b.qcow2; do
        fill 3 2M 900K $f
        sound "$made: is sound after writing" $f
    done
    alike "$made: and both are alike" a.qcow2 b.qcow2
done

# Snapshots share clusters: what is counted twice does not fit into one bit.
rm -f a.qcow2
qemu-img create -q -f qcow2 a.qcow2 2M
fill 1 0 1M a.qcow2
qemu-img snapshot -c one a.qcow2
cp a.qcow2 before.qcow2
run 1 'refused: too many references' amend -o refcount_bits=1 a.qcow2
has 'says so' err '2 references: too many for refcounts of 1 bits'
same 'nothing has changed' before.qcow2 a.qcow2
run 0 'two bits are enough' amend -o refcount_bits=2 a.qcow2
sound 'snapshots: is sound' a.qcow2
run 0 'version 2 with a snapshot of the same size' amend -o compat=0.10,refcount_bits=16 a.qcow2
sound 'snapshots: is sound in version 2' a.qcow2
run 0 'and back' amend -o compat=1.1 a.qcow2
sound 'snapshots: is sound in version 3' a.qcow2
run 0 'another size' resize a.qcow2 3M
run 1 'refused: snapshots of another size' amend -o compat=0.10 a.qcow2
has 'by name' err 'compat 0.10 has no snapshots of another size'
rm -f a.qcow2
qemu-img create -q -f qcow2 a.qcow2 2M
qemu-io -f qcow2 -c 'write -z 0 1M' a.qcow2 >/dev/null
qemu-img snapshot -c one a.qcow2
run 1 'refused: zeros of a snapshot' amend -o compat=0.10 a.qcow2
has 'by name' err 'compat 0.10 has no zero clusters'
# The zeros of the device are not replaced if the image is refused for something else.
for held in refcount_bits=64 lazy_refcounts=on,extended_l2=on; do
    rm -f a.qcow2
    qemu-img create -q -f qcow2 -o $held a.qcow2 2M
    qemu-io -f qcow2 -c 'write -z 0 1M' a.qcow2 >/dev/null
    run 0 "$held: closed by us" amend -o compat=1.1 a.qcow2
    cp a.qcow2 before.qcow2
    run 1 "refused: $held" amend -o compat=0.10 a.qcow2
    same "$held: nothing has changed" before.qcow2 a.qcow2
done
qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 2M
qemu-img snapshot -c old v2.qcow2
run 0 'a snapshot of version 2' amend -o compat=1.1 v2.qcow2
sound 'is sound' v2.qcow2

# More references than 32 bits count, and a refcount that says so: it is believed, and is not cut off.
run 0 'wide refcounts' create -o refcount_bits=64 many.qcow2 1M
run 0 'a cluster' io -c 'write -q -P 1 0 64k' many.qcow2
python3 - many.qcow2 <<'END'
import struct, sys
tables, cluster = 1 << 20, 65536
with open(sys.argv[1], 'rb') as f:
    b = bytearray(f.read())
def get(at):
    return struct.unpack_from('>Q', b, at)[0]
def put(at, value, form='>Q'):
    struct.pack_into(form, b, at, value)
l1, counts = get(40), get(get(48))
l2 = get(l1) & 0xffffffffffff00
data = get(l2) & 0xffffffffffff00
b += bytes(-len(b) % cluster)
new = len(b)
b += struct.pack('>Q', l2) * tables
for k in range(cluster // 8):
    put(l2 + 8 * k, data)
put(40, new)
put(36, tables, '>I')
put(24, tables * (cluster // 8) * cluster)
put(counts + l2 // cluster * 8, tables)
put(counts + data // cluster * 8, tables * (cluster // 8))
put(counts + l1 // cluster * 8, 0)
for k in range(tables * 8 // cluster):
    put(counts + (new // cluster + k) * 8, 1)
with open(sys.argv[1], 'wb') as f:
    f.write(b)
END
run 0 '2^33 references' check many.qcow2
run 0 'no leak' check --repair=all many.qcow2
run 1 'refused: too many for 32 bits' amend -o refcount_bits=32 many.qcow2
has 'is said' err 'has 8589934592 references: too many for refcounts of 32 bits$'
rm -f many.qcow2
finish
