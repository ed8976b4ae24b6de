#!/bin/sh
# SPDX-License-Identifier: MIT
# Plain images that grow and shrink, with qemu-img as the other program: both make the same of one
# image, each goes on where the other has stopped, and no cluster is counted wrong.
. "$(dirname "$0")/lib.sh"

run 0 'an image' create r.qcow2 10M
for bad in '' x 1.5x +x - -x; do
    run 1 "refused: size '$bad'" resize r.qcow2 "$bad"
done
has 'an option, for what it looks' err "option '-x' is unknown"
run 1 'refused: no size' resize r.qcow2
is 'as a missing operand' 'zqcow2: resize: SIZE is missing; see zqcow2 resize --help' "$(cat err)"
run 1 'refused: not a multiple of a sector' resize --shrink r.qcow2 1000
has 'says so' err 'must be a multiple of 512'
run 1 'refused: nothing left' resize --shrink r.qcow2 -10M
has 'names the size' err "10485760 bytes; '-10M'"
run 1 'refused: too large' resize r.qcow2 8E
run 1 'refused: smaller, without being asked for' resize r.qcow2 5M
is 'names the option' 'zqcow2: r.qcow2: the device would lose 5242880 bytes: give --shrink if they are not needed' "$(cat err)"
size_of() {
    "$tool" info --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["virtual_size"])'
}
is 'nothing has changed' 10485760 "$(size_of r.qcow2)"
run 0 'relative: more' resize r.qcow2 +2M
is 'is more' 12582912 "$(size_of r.qcow2)"
run 0 'relative: less' resize --shrink r.qcow2 -4.5M
is 'is less' 7864320 "$(size_of r.qcow2)"
run 0 'absolute' resize r.qcow2 1G
is 'is that' 1073741824 "$(size_of r.qcow2)"
run 0 'a file that has zones' create -o zone.size=4M z.qcow2 32M
run 1 'refused: a part of a zone' resize z.qcow2 +1M
has 'says so' err 'multiple of zone.size 4194304'
run 0 'more zones' resize z.qcow2 +8M
is 'are more' 41943040 "$(size_of z.qcow2)"
head -c 65536 /dev/zero >some
run 0 'data in the last one' write z.qcow2 36M <some
run 1 'refused: a zone that is not empty' resize --shrink z.qcow2 16M
has 'names it' err 'zone 9, which would be cut off, is not empty'
run 0 'with its data' resize --discard-data z.qcow2 16M
is 'is less' 16777216 "$(size_of z.qcow2)"
run 0 'is sound' check z.qcow2
run 0 'the zones that are left' report z.qcow2

# L1 is in one row of clusters, which one piece of refcounts counts: zqcow2_resize(3).
run 0 'small clusters' create -o cluster_size=512 l.qcow2 1M
run 1 'refused: L1 is too large' resize l.qcow2 600M
has 'says so' err 'the tables need too many contiguous clusters'
is 'nothing has changed' 1048576 "$(size_of l.qcow2)"
run 0 'is sound' check l.qcow2
run 0 'what it can have' resize l.qcow2 500M
run 0 'is sound, too' check l.qcow2

# Version 2, which has neither the mark nor the dirty bit.
yes | head -c 64K >ones
run 0 'an image' create v.qcow2 1M
run 0 'version 2' amend -o compat=0.10 v.qcow2
run 0 'data' write v.qcow2 512K <ones
run 0 'grows' resize v.qcow2 1G
run 0 'shrinks' resize --shrink v.qcow2 544K
run 0 'is sound' check v.qcow2
run 0 'its data' read v.qcow2 512K 32K
head -c 32K ones >half
same 'is there' out half
run 0 'grows again' resize v.qcow2 1M
run 0 'what was cut off' read v.qcow2 544K 32K
head -c 32K /dev/zero >half
same 'is zeros' out half

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
# alike NAME: a.qcow2, which zqcow2 has resized, and b.qcow2, which qemu-img has
alike() {
    ran='qemu-img compare a.qcow2 b.qcow2'
    is "$1: in size" "$(size_of b.qcow2)" "$(size_of a.qcow2)"
    qemu-img compare -q -f qcow2 -F qcow2 a.qcow2 b.qcow2 >out 2>err
    verdict $? "$1" || show
}
fill() {
    qemu-io -f qcow2 -c "write -P $1 $2 $3" "$4" >/dev/null
}
qemu_resize() {
    qemu-img resize -q -f qcow2 "$@"
}

truncate -s 3M base.raw
tr '\0' '\252' <base.raw >full.raw
for how in compat=1.1 compat=0.10 compat=1.1,extended_l2=on compat=1.1,lazy_refcounts=on \
    compat=1.1,cluster_size=512 compat=0.10,cluster_size=512 compat=1.1,refcount_bits=1; do
    for under in '' -Ffull; do
        name="$how$under"
        rm -f a.qcow2 b.qcow2
        case $name in compat=0.10*-Ffull) continue ;; esac # qemu-img cannot grow these
        if [ -n "$under" ]; then
            qemu-img create -q -f qcow2 -o "$how" -b full.raw -F raw a.qcow2 1000K
        else
            qemu-img create -q -f qcow2 -o "$how" a.qcow2 1000K
        fi
        fill 1 64K 300K a.qcow2
        fill 2 900K 100K a.qcow2
        cp a.qcow2 b.qcow2
        run 0 "$name: grows" resize a.qcow2 2345K
        qemu_resize b.qcow2 2345K
        alike "$name: as with qemu-img"
        sound "$name: is sound" a.qcow2
        fill 3 1500K 600K a.qcow2
        fill 3 1500K 600K b.qcow2
        run 0 "$name: shrinks" resize --shrink a.qcow2 1111K
        qemu_resize --shrink b.qcow2 1111K
        alike "$name: as with qemu-img, too"
        sound "$name: is sound when smaller" a.qcow2
        run 0 "$name: grows what qemu-img has shrunk" resize b.qcow2 40M
        qemu_resize a.qcow2 40M
        alike "$name: and the other way round"
        sound "$name: one is sound" a.qcow2
        sound "$name: and the other" b.qcow2
    done
done

# Preallocation: what is added, behind 1000 KiB, has the same places and space as with qemu-img.
places() {
    qemu-img map --output=json "$1" | python3 -c '
import json, sys
runs = []
for e in json.load(sys.stdin):
    start, end = max(e["start"], 1024000), e["start"] + e["length"]
    if "offset" not in e or e["depth"] or end <= start:
        continue
    if runs and runs[-1][1] == start:
        runs[-1][1] = end
    else:
        runs.append([start, end])
print(runs)'
}
for how in compat=1.1 compat=0.10 compat=1.1,extended_l2=on; do
    for under in '' -Ffull; do
        for mode in metadata falloc full; do
            name="preallocation $mode, $how$under"
            rm -f a.qcow2 b.qcow2
            case $name in *compat=0.10-Ffull) continue ;; esac
            if [ -n "$under" ]; then
                qemu-img create -q -f qcow2 -o "$how" -b full.raw -F raw a.qcow2 1000K
            else
                qemu-img create -q -f qcow2 -o "$how" a.qcow2 1000K
            fi
            fill 1 64K 300K a.qcow2
            cp a.qcow2 b.qcow2
            run 0 "$name: grows" resize --preallocation=$mode a.qcow2 2344K
            qemu_resize --preallocation=$mode b.qcow2 2344K
            alike "$name: as with qemu-img"
            is "$name: has the same places" "$(places b.qcow2)" "$(places a.qcow2)"
            mine=$(stat -c %b a.qcow2) theirs=$(stat -c %b b.qcow2)
            is "$name: and space, to within 128 KiB" yes \
                "$([ $((mine - theirs)) -le 256 ] && [ $((theirs - mine)) -le 256 ] && echo yes)"
            sound "$name: is sound" a.qcow2
        done
    done
done
run 1 'refused: smaller' resize --shrink --preallocation=full a.qcow2 1M
has 'says so' err 'preallocation: the device would become smaller'
run 1 'refused: a kind that is none' resize --preallocation=some a.qcow2 4M
has 'names those' err 'not one of off, metadata, falloc, full'
run 1 'refused: with zones' resize --preallocation=metadata z.qcow2 +4M
has 'says so' err 'preallocation: not for images with zones'

# With a data file both files change, and a raw one by itself has the bytes of the device.
for how in data_file_raw=on data_file_raw=off data_file_raw=on,extended_l2=on; do
    rm -f a.qcow2 b.qcow2 a.data b.data
    for f in a b; do
        qemu-img create -q -f qcow2 -o "$how,data_file=$f.data" $f.qcow2 1000K
        fill 1 64K 300K $f.qcow2
        fill 2 900K 100K $f.qcow2
    done
    run 0 "data file, $how: grows" resize a.qcow2 2345K
    qemu_resize b.qcow2 2345K
    alike "data file, $how: as with qemu-img"
    sound "data file, $how: is sound" a.qcow2
    fill 3 1500K 600K a.qcow2
    fill 3 1500K 600K b.qcow2
    run 0 "data file, $how: shrinks" resize --shrink a.qcow2 1111K
    qemu_resize --shrink b.qcow2 1111K
    alike "data file, $how: as with qemu-img, too"
    is "data file, $how: ends with the device" 1137664 "$(stat -c %s a.data)"
    sound "data file, $how: is sound when smaller" a.qcow2
    run 0 "data file, $how: grows what qemu-img has shrunk" resize b.qcow2 4M
    qemu_resize a.qcow2 4M
    alike "data file, $how: and the other way round"
    sound "data file, $how: one is sound" a.qcow2
    sound "data file, $how: and the other" b.qcow2
    case $how in *raw=on*)
        ran='qemu-img compare b.qcow2 b.data'
        qemu-img compare -q -f qcow2 -F raw b.qcow2 b.data >out 2>err
        verdict $? "data file, $how: the raw file is the device" || show
        is "data file, $how: each cluster has a place" '' \
            "$(qemu-img map --output=json b.qcow2 | grep '"data": false' | grep -v '"offset"')"
        ;;
    esac
done

# Version 2 has no entry for zeros: they are written where the backing file has more.
rm -f a.qcow2
qemu-img create -q -f qcow2 -o compat=0.10 -b full.raw -F raw a.qcow2 1000K
run 0 'version 2, below it a longer file: grows' resize a.qcow2 2345K
ran='qemu-io read'
qemu-io -f qcow2 -c 'read -P 0 1000K 1345K' -c 'read -P 170 0 1000K' a.qcow2 >out 2>err &&
    ! grep -q 'Pattern verification' out
verdict $? 'version 2: what is new is zeros' || show
sound 'version 2: is sound' a.qcow2

# What lies behind the end, of a compressed cluster and of one that another program has cut in two.
rm -f a.qcow2
qemu-img convert -q -c -f raw -O qcow2 full.raw a.qcow2
qemu_resize --shrink a.qcow2 1000K
cp a.qcow2 b.qcow2
run 0 'compressed: grows' resize a.qcow2 3M
truncate -s 1000K full.raw
truncate -s 3M full.raw
ran='qemu-img compare a.qcow2 full.raw'
qemu-img compare -q -f qcow2 -F raw a.qcow2 full.raw >out 2>err
verdict $? 'compressed: what is new is zeros' || show
sound 'compressed: is sound' a.qcow2

# With snapshots: each keeps its size. Version 2 does not store it: both programs refuse.
rm -f a.qcow2
qemu-img create -q -f qcow2 a.qcow2 2M
fill 1 0 2M a.qcow2
qemu-img snapshot -c old a.qcow2
run 0 'snapshots: shrinks' resize --shrink a.qcow2 1M
sound 'snapshots: is sound' a.qcow2
run 0 'snapshots: grows' resize a.qcow2 1G
sound 'snapshots: is sound when larger' a.qcow2
qemu-img snapshot -a old a.qcow2
ran='qemu-io read'
qemu-io -f qcow2 -c 'read -P 1 0 2M' a.qcow2 >out 2>err && ! grep -q 'Pattern verification' out
verdict $? 'snapshots: the old one is what it was' || show
sound 'snapshots: is sound when applied' a.qcow2
qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 2M
qemu-img snapshot -c old v2.qcow2
run 1 'snapshots of version 2: refused' resize v2.qcow2 4M
has 'says so' err 'version 2 that have snapshots'

# The space of what is cut off goes back to the host.
rm -f a.qcow2
qemu-img create -q -f qcow2 a.qcow2 64M
fill 1 0 32M a.qcow2
before=$(du -k a.qcow2 | cut -f1)
run 0 'space: shrinks' resize --shrink a.qcow2 1M
after=$(du -k a.qcow2 | cut -f1)
verdict "$([ "$after" -lt $((before / 8)) ]; echo $?)" 'space: the host has it again' ||
    echo "# $before KiB before, $after after"
finish
