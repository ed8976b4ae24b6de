#!/bin/sh
# SPDX-License-Identifier: MIT
# Internal snapshots of plain images, with qemu-img as the other program: whatever either of them
# has taken or deleted, the other one finds, and no cluster is counted wrong.
. "$(dirname "$0")/lib.sh"

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
    echo '# no qemu-img here'
    exit 77
fi

# sound NAME FILE
sound() {
    ran="qemu-img check $2"
    qemu-img check -q -f qcow2 "$2" >out 2>err
    verdict $? "$1" || show
}
# fill PATTERN OFFSET LENGTH FILE
fill() {
    qemu-io -f qcow2 -c "write -P $1 $2 $3" "$4" >/dev/null
}
# holds NAME PATTERN OFFSET LENGTH FILE
holds() {
    ran="qemu-io read -P $2 $3 $4 $5"
    qemu-io -f qcow2 -c "read -P $2 $3 $4" "$5" >out 2>err && ! grep -q 'Pattern verification failed' out
    verdict $? "$1" || show
}
# QEMU 10 writes other spaces, VM_SIZE for VM SIZE, hours of four digits, and -- for no icount.
flat() {
    sed 's/VM_/VM /g; s/ 00\([0-9][0-9]:[0-9][0-9]:[0-9][0-9]\.\)/ \1/' | tr -s ' ' | sed 's/ -*$//'
}

for how in compat=1.1 compat=0.10 compat=1.1,extended_l2=on compat=1.1,lazy_refcounts=on \
    compat=1.1,cluster_size=512 compat=1.1,refcount_bits=64; do
    rm -f a.qcow2
    qemu-img create -q -f qcow2 -o "$how" a.qcow2 5M
    fill 1 0 3M a.qcow2
    run 0 "$how: a first one" snapshot -c first a.qcow2
    sound "$how: is sound" a.qcow2
    fill 2 1M 1M a.qcow2
    qemu-img snapshot -c second a.qcow2
    run 0 "$how: writing" write --pad a.qcow2 2M <"$here/lib.sh"
    sound "$how: what both have taken is sound" a.qcow2
    run 0 "$how: a third one" snapshot -c third a.qcow2
    run 0 "$how: a list" snapshot a.qcow2
    qemu-img snapshot -l a.qcow2 | flat >wanted
    flat <out >listed
    same "$how: as qemu-img has it" wanted listed
    cp a.qcow2 b.qcow2
    qemu-img snapshot -a second b.qcow2
    holds "$how: the second one, applied" 2 1M 1M b.qcow2
    qemu-img snapshot -a first b.qcow2
    holds "$how: the first one, applied" 1 0 3M b.qcow2
    for which in first second third; do
        qemu-img convert -q -O raw -l "$which" a.qcow2 wanted.raw
        run 0 "$how: $which is copied" convert --force --snapshot="$which" a.qcow2 got.raw
        same "$how: $which is read as qemu-img reads it" wanted.raw got.raw
        run 0 "$how: $which is compared" compare --snapshot="$which" a.qcow2 wanted.raw
    done
    cp a.qcow2 b.qcow2
    run 0 "$how: the first one, applied here" snapshot -a first b.qcow2
    holds "$how: is what it was" 1 0 3M b.qcow2
    sound "$how: is sound when applied" b.qcow2
    fill 9 0 1M b.qcow2
    run 0 "$how: written after that" write --pad b.qcow2 2M <"$here/lib.sh"
    run 0 "$how: the second one, applied here" snapshot -a 2 b.qcow2
    holds "$how: has its own" 2 1M 1M b.qcow2
    holds "$how: and what both have" 1 0 1M b.qcow2
    qemu-img snapshot -a first b.qcow2
    holds "$how: the first one has not changed" 1 0 3M b.qcow2
    qemu-img snapshot -d first b.qcow2
    run 0 "$how: with another one gone" snapshot -a second b.qcow2
    holds "$how: it is still there" 2 1M 1M b.qcow2
    qemu-img snapshot -d second b.qcow2
    qemu-img snapshot -d third b.qcow2
    holds "$how: and the disk stands alone" 1 2M 1M b.qcow2
    sound "$how: without a leak" b.qcow2
    run 0 "$how: the second one deleted" snapshot -d second a.qcow2
    sound "$how: is sound, too" a.qcow2
    qemu-img snapshot -d third a.qcow2
    run 0 "$how: overwritten" write --pad a.qcow2 0 <"$here/lib.sh"
    cp a.qcow2 b.qcow2
    qemu-img snapshot -a first b.qcow2
    holds "$how: and the first one still holds what it held" 1 0 3M b.qcow2
    run 1 "$how: not by its ID" snapshot -d 1 a.qcow2
    has "$how: which is said" err '"1": is an ID: a snapshot is deleted by its name$'
    run 0 "$how: by its name" snapshot -d first a.qcow2
    sound "$how: and none is left" a.qcow2
    run 0 "$how: of which the list" snapshot -l a.qcow2
    is "$how: says nothing" '' "$(cat out)"
    run 0 "$how: check agrees" check a.qcow2
done

run 0 'a last one' snapshot -c 'a name' a.qcow2
run 0 'as JSON' snapshot -l --json a.qcow2
is 'has the members of qemu-img' "$(qemu-img info --output=json a.qcow2 | python3 -c '
import json, sys
s = json.load(sys.stdin)["snapshots"][0]
print([s[k] for k in ("id", "name", "date-sec", "date-nsec", "vm-state-size", "vm-clock-sec")])')" \
    "$(python3 -c '
import json
s, = json.load(open("out"))
print([s[k] for k in ("id", "name", "date-sec", "date-nsec", "vm-state-size", "vm-clock-sec")])')"

# What is refused changes nothing.
cp a.qcow2 was.qcow2
run 1 'a name that is in use' snapshot -c 'a name' a.qcow2
has 'is refused' err '"a name": a snapshot has this name or id already'
run 1 'an unknown name' snapshot -d other a.qcow2
has 'is refused, too' err '"other": no snapshot has this name or id'
run 1 'an unknown one' snapshot -a other a.qcow2
has 'cannot be applied' err '"other": no snapshot has this name or id'
run 1 'it cannot be read either' read --snapshot=other a.qcow2 0 512
has 'and that is said' err 'no snapshot has the name or id "other"'
run 1 'nor one of a raw file' convert --snapshot=x wanted.raw got2.raw
has 'which has none' err 'a raw file has none'
run 0 'io opens for reading' io --snapshot='a name' -c 'read 0 512' a.qcow2
run 0 'map shows it' map --snapshot='a name' a.qcow2
run 1 'two at once' snapshot -c x -d y a.qcow2
has 'are too many' err 'only one of'
same 'and nothing has changed' was.qcow2 a.qcow2
qemu-img create -q -f qcow2 -o refcount_bits=1 one.qcow2 1M
fill 1 0 64k one.qcow2
run 1 'refcounts of one bit' snapshot -c x one.qcow2
has 'leave no room' err 'do not fit into 1 bits'
sound 'and nothing has happened' one.qcow2
head -c 65536 "$tool" >zone.raw
run 0 'a zoned image' create -o zone.size=1M z.qcow2 4M
run 0 'is written' write z.qcow2 1M <zone.raw
run 0 'is taken' snapshot -c x z.qcow2
run 0 'is written on' write z.qcow2 $((1024 * 1024 + 65536)) <zone.raw
run 0 'and a zone is finished' finish -o 3M z.qcow2
run 0 'a zoned snapshot is read' read --snapshot=x z.qcow2 1M 65536
same 'and has what it had' zone.raw out
run 0 'it is applied' snapshot -a x z.qcow2
run 0 'its zones' report z.qcow2
has 'have their write pointers' out 'wptr 0x000080 .* zcond: 4.cl'
lacks 'all of them' out 'zcond:14'
run 0 'it is deleted' snapshot -d x z.qcow2
run 0 'and the image is sound' check z.qcow2

# A word is an ID first, and then a name, as for qemu-img, which deletes by name only. Two have the same name.
qemu-img create -q -f qcow2 ids.qcow2 1M
byte=1
for name in 2 x x 1; do
    fill $byte 0 64k ids.qcow2
    qemu-img snapshot -c "$name" ids.qcow2
    byte=$((byte + 1))
done
fill 9 0 64k ids.qcow2
for word in 1 2 3 4 x 9; do
    cp ids.qcow2 theirs.qcow2
    cp ids.qcow2 ours.qcow2
    want=0
    qemu-img snapshot -a "$word" theirs.qcow2 >/dev/null 2>&1 || want=1
    run $want "$word: is applied" snapshot -a "$word" ours.qcow2
    "$tool" convert --force theirs.qcow2 wanted.raw
    "$tool" convert --force ours.qcow2 got.raw
    same "$word: as by qemu-img" wanted.raw got.raw
    want=0
    rm -f wanted.raw got.raw
    qemu-img convert -l "$word" -O raw ids.qcow2 wanted.raw 2>/dev/null || want=1
    run $want "$word: is converted" convert --snapshot="$word" ids.qcow2 got.raw
    [ $want = 1 ] || same "$word: as it is by qemu-img" wanted.raw got.raw
    cp ids.qcow2 theirs.qcow2
    cp ids.qcow2 ours.qcow2
    want=0
    qemu-img snapshot -d "$word" theirs.qcow2 >/dev/null 2>&1 || want=1
    run $want "$word: is deleted" snapshot -d "$word" ours.qcow2
    is "$word: the same is left" "$(qemu-img snapshot -l theirs.qcow2)" "$(qemu-img snapshot -l ours.qcow2)"
done
qemu-img create -q -f qcow2 ids.qcow2 1M
for name in x x 2; do
    qemu-img snapshot -c $name ids.qcow2
done
run 1 'neither word means it alone' snapshot -a 2 ids.qcow2
has 'and that is said' err '"2": is the name of another snapshot, and'
rm -f ids.qcow2 ours.qcow2 theirs.qcow2

# Compressed clusters share clusters of the file; an overlay has few of its own.
qemu-img convert -q -c -O qcow2 "$tool" packed.qcow2
run 0 'of a compressed image' snapshot -c x packed.qcow2
sound 'it is sound' packed.qcow2
fill 3 0 64k packed.qcow2
run 0 'and deleted' snapshot -d x packed.qcow2
sound 'is sound again' packed.qcow2
qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2
fill 4 64k 64k top.qcow2
run 0 'of an overlay' snapshot -c x top.qcow2
fill 5 64k 128k top.qcow2
sound 'it is sound' top.qcow2
qemu-img snapshot -a x top.qcow2
holds 'and holds what it held' 4 64k 64k top.qcow2

run 0 'applied here' snapshot -a x top.qcow2
holds 'it holds it, too' 4 64k 64k top.qcow2
sound 'and is sound' top.qcow2

# A disk of no bytes is one, too.
qemu-img create -q -f qcow2 none.qcow2 0
qemu-img snapshot -c was none.qcow2
qemu-img resize -q none.qcow2 1M
fill 6 0 64k none.qcow2
run 0 'without bytes: applied' snapshot -a was none.qcow2
is 'without bytes: has none' 0 "$(qemu-img info --output=json none.qcow2 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["virtual-size"])')"
sound 'without bytes: is sound' none.qcow2

# A disk that was made larger or smaller meanwhile gets its size back.
for to in 1G 512K; do
    rm -f size.qcow2
    qemu-img create -q -f qcow2 -o cluster_size=4k size.qcow2 3M
    fill 6 0 3M size.qcow2
    qemu-img snapshot -c was size.qcow2
    qemu-img resize -q --shrink -f qcow2 size.qcow2 "$to"
    fill 7 0 512k size.qcow2
    run 0 "$to: of another size" snapshot -c other size.qcow2
    run 0 "$to: back to what it was" snapshot -a was size.qcow2
    is "$to: with its size" 3145728 "$(qemu-img info --output=json size.qcow2 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["virtual-size"])')"
    holds "$to: and what it held" 6 0 3M size.qcow2
    sound "$to: is sound" size.qcow2
    run 0 "$to: and on again" snapshot -a other size.qcow2
    holds "$to: to the other one" 7 0 512k size.qcow2
    run 0 "$to: deleted" snapshot -d was size.qcow2
    sound "$to: is sound, too" size.qcow2
done

# With zones, too: a snapshot has its own zones, whatever the disk has since become.
reads_as() { # NAME REPORT OFFSET
    "$tool" report size.qcow2 >now
    same "$1: the zones" "$2" now
    run 0 "$1: the data" read size.qcow2 "$3" 65536
    same "$1: as they were" zone.raw out
    run 0 "$1: is sound" check size.qcow2
}
for layout in 44 48b 56 v7; do
    run 0 "$layout: zones" create --force -o "zone.size=1M,cluster_size=4k,zone.layout=$layout" \
        size.qcow2 8M
    run 0 "$layout: are written" write size.qcow2 1M <zone.raw
    "$tool" report size.qcow2 >eight
    run 0 "$layout: eight of them" snapshot -c eight size.qcow2
    run 0 "$layout: get more" resize size.qcow2 12M
    run 0 "$layout: which are written" write size.qcow2 9M <zone.raw
    "$tool" report size.qcow2 >twelve
    run 0 "$layout: twelve of them" snapshot -c twelve size.qcow2
    run 0 "$layout: get fewer" resize --shrink --discard-data size.qcow2 4M
    run 0 "$layout: twelve again" snapshot -a twelve size.qcow2
    reads_as "$layout: twelve" twelve 9M
    run 0 "$layout: eight again" snapshot -a eight size.qcow2
    reads_as "$layout: eight" eight 1M
    run 0 "$layout: deleted" snapshot -d twelve size.qcow2
    run 0 "$layout: deleted, too" snapshot -d eight size.qcow2
    reads_as "$layout: without snapshots" eight 1M
done

# Space is given back.
qemu-img create -q -f qcow2 big.qcow2 64M
fill 1 0 32M big.qcow2
"$tool" snapshot -c x big.qcow2
fill 2 0 32M big.qcow2
before=$(du -k big.qcow2 | cut -f1)
run 0 'a large one deleted' snapshot -d x big.qcow2
after=$(du -k big.qcow2 | cut -f1)
verdict $([ $((before - after)) -ge 30000 ]; echo $?) 'gives its space back' ||
    echo "# $before KiB before, $after KiB after"

finish
