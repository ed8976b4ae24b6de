#!/bin/sh
# SPDX-License-Identifier: MIT
# Preallocation of create and convert: the same as qemu-img makes, in its maps and on the host.
. "$(dirname "$0")/lib.sh"

blocks() { stat -c %b "$1"; }
# The map, without places: QEMU puts its tables between the data.
shape() {
    qemu-img map --output=json "$1" | python3 -c '
import itertools, json, sys
for key, run in itertools.groupby(json.load(sys.stdin), lambda e: [e[k] for k in ("present", "zero", "data")]):
    print(key, sum(e["length"] for e in run))'
}
mapped() { "$tool" check "$1" | sed -n 's/^\([0-9]*\) of .* clusters hold data.*/\1/p'; }

# refused: OPTIONS SIZE REGEX
while read -r options size regex; do
    run 1 "refused: $options $size" create -o "$options" r.qcow2 "$size"
    has "$options: the reason" err "^zqcow2: .*$regex"
    is "$options: no file is left" no "$([ -e r.qcow2 ] && echo yes || echo no)"
done <<'REFUSED'
preallocation=some 64M preallocation: 'some' is not one of off, metadata, falloc, full
preallocation=metadata,cluster_size=512 1T L1 table
preallocation=metadata,refcount_bits=64 1P refcount table would exceed
REFUSED
run 0 'a base' create base.qcow2 8M
run 1 'refused: with a backing file' create -o preallocation=full -b base.qcow2 -F qcow2 r.qcow2
has 'says so' err 'with a backing file, extended_l2 is required'
run 0 'a base with zones' create -o zone.size=1M,cluster_size=16K zbase.qcow2 8M
run 1 'refused: zones with a backing file' create -o preallocation=full,extended_l2=on -b zbase.qcow2 r.qcow2
has 'says so' err 'not for zones'
run 0 'with subclusters' create -o preallocation=metadata,extended_l2=on -b base.qcow2 -F qcow2 o.qcow2
run 0 'shows the backing file' compare base.qcow2 o.qcow2

run 0 'zones' create -o preallocation=falloc,zone.size=1M,zone.capacity=768K,cluster_size=16K z.qcow2 8M
is 'every cluster below a capacity is mapped' 384 "$(mapped z.qcow2)"
verdict $([ "$(blocks z.qcow2)" -ge 12288 ]; echo $?) 'the host has given their space'
size=$(stat -c %s z.qcow2)
head -c 100000 /dev/urandom | head -c 99840 >data
run 0 'an append' append -q z.qcow2 2M <data
is 'takes nothing' 384 "$(mapped z.qcow2)"
is 'and no more space' "$size" "$(stat -c %s z.qcow2)"
run 0 'is sound' check z.qcow2
run 0 'the data' read z.qcow2 2M 99840
same 'is there' out data

run 0 'a data file' create -o preallocation=falloc,data_file=d.raw d.qcow2 4M
verdict $([ "$(blocks d.raw)" -ge 8192 ]; echo $?) 'has its space'
is 'and no more than the device' 4194304 "$(stat -c %s d.raw)"
run 1 'refused: one that holds something' create -o preallocation=full,data_file=d.raw e.qcow2 4M
has 'says so' err 'd\.raw.*not with preallocation'

run 0 'converted' convert -O qcow2 -o preallocation=falloc z.qcow2 c.qcow2
run 0 'is the same disk' compare z.qcow2 c.qcow2
is 'mapped as a new one, in larger clusters' 96 "$(mapped c.qcow2)"
run 1 'refused: compressed' convert -c -O qcow2 -o preallocation=falloc z.qcow2 cc.qcow2
has 'says so' err '^zqcow2: preallocation: not with -c'

if unshare -rm true 2>/dev/null; then
    mkdir full
    cat >full.sh <<'END'
mount -t tmpfs -o size=4M none full || exit 77
for how in falloc full; do
    "$1" create -o preallocation=$how full/x.qcow2 64M 2>>said && exit 1
    [ -e full/x.qcow2 ] && exit 2
done
"$1" create -o preallocation=falloc full/x.qcow2 1M 2>>said
END
    unshare -rm sh full.sh "$tool" >out 2>err
    status=$?
    if [ $status = 77 ]; then
        echo '# no tmpfs here'
    else
        is 'a full host: no file, and a small one has room' 0 $status
        is 'says so' 2 "$(grep -c 'x.qcow2: preallocation: the host has no room for 67108864 bytes$' said)"
    fi
fi

# Stopped while it writes: no file. A file that it would have replaced is as it was.
cp z.qcow2 old.qcow2
timeout -s INT 0.3 "$tool" create --force -o preallocation=full old.qcow2 8T 2>err
ran='zqcow2 create --force, stopped'
run 0 'the old file is there' compare z.qcow2 old.qcow2

command -v qemu-img >/dev/null || { echo '# no qemu-img here'; finish; }
for mode in off metadata falloc full; do
    for more in extended_l2=on extended_l2=off cluster_size=4K,refcount_bits=1; do
        what="$mode,$more"
        run 0 "$what" create --force -o preallocation=$what a.qcow2 9M
        qemu-img create -q -f qcow2 -o preallocation=$what b.qcow2 9M
        ran="qemu-img check, $what"
        qemu-img check -q a.qcow2 >out 2>err
        verdict $? "$what: qemu-img check" || show
        is "$what: the map is QEMU's" "$(shape b.qcow2)" "$(shape a.qcow2)"
        a=$(blocks a.qcow2) b=$(blocks b.qcow2)
        verdict $([ $((a > b ? a - b : b - a)) -le 2048 ]; echo $?) "$what: the space is QEMU's ($a, $b)"
        qemu-io -c 'write -P 7 1000K 3M' a.qcow2 >/dev/null
        qemu-io -c 'write -P 7 1000K 3M' b.qcow2 >/dev/null
        run 0 "$what: written by QEMU, the same" compare a.qcow2 b.qcow2
        run 0 "$what: and sound" check a.qcow2
    done
done
finish
