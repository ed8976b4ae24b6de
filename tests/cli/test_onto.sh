#!/bin/sh
# SPDX-License-Identifier: MIT
# convert -B: a copy on a backing file reads as the disk, and has what differs; whatever stands where.
. "$(dirname "$0")/lib.sh"

# copied TITLE SRC BASE FORMAT OPTION...: to the new image out.
copied() {
    title=$1
    src=$2
    base=$3
    format=$4
    shift 4
    rm -f out.qcow2
    run 0 "$title" convert -O qcow2 -B "$base" -F "$format" "$@" "$src" out.qcow2
    run 0 "$title: the same content" compare "$src" out.qcow2
    run 0 "$title: check" check out.qcow2
    run 0 "$title: the backing file" info --json out.qcow2
    has "$title: is named" out "\"backing_file\": \"$base\""
}
# refused TEXT ARGUMENT...: and nothing is left.
refused() {
    text=$1
    shift
    run 1 "refused: $*" convert -O qcow2 "$@" new.qcow2
    has "$*: says why" err "$text"
    is "$*: leaves nothing" '' "$(find . -name '*new.qcow2*')"
}
# holds TITLE TEXT: what out itself maps.
holds() {
    run 0 "$1: map" map --no-backing out.qcow2
    is "$1: only what differs" "$2" "$(awk 'NR > 1 { print $1, $2 }' out)"
}

run 0 'a base' create -o cluster_size=4K base.qcow2 8M
run 0 'with data' io -c 'write -P 1 0 4M' base.qcow2
run 0 'an overlay' create -b base.qcow2 -F qcow2 -o cluster_size=4K top.qcow2 9M
run 0 'with other data' io -c 'write -P 2 1M 8K' -c 'write -z 3M 64K' -c 'write -P 3 8M 4K' top.qcow2
copied 'its own base' top.qcow2 base.qcow2 qcow2 -o cluster_size=4K
holds 'its own base' '0x100000 0x2000
0x800000 0x1000'
if command -v qemu-img >/dev/null; then
    ran='qemu-img compare'
    qemu-img compare -q top.qcow2 out.qcow2 >out 2>err
    verdict $? 'qemu-img reads the same' || show
    qemu-img check -q out.qcow2 >out 2>err
    verdict $? 'qemu-img finds nothing' || show
fi
cp base.qcow2 moved.qcow2
copied 'a copy of its base' top.qcow2 moved.qcow2 qcow2 -o cluster_size=4K
holds 'a copy of its base' '0x100000 0x2000
0x800000 0x1000'
head -c 3000000 /dev/urandom >other.raw
copied 'something else' top.qcow2 other.raw raw
copied 'a raw disk' other.raw base.qcow2 qcow2
copied 'the disk itself' top.qcow2 top.qcow2 qcow2
holds 'the disk itself' ''
run 0 'a data file' create -o data_file=data.bin with.qcow2 2M
run 0 'with data' io -c 'write -P 9 512K 1M' with.qcow2
copied 'a disk with a data file' with.qcow2 base.qcow2 qcow2
copied 'on a disk with a data file' top.qcow2 with.qcow2 qcow2
mkdir folder
run 0 'the name counts from the folder of the copy' \
    convert -O qcow2 -B ../base.qcow2 -F qcow2 top.qcow2 folder/out.qcow2
run 0 'where it is found' compare top.qcow2 folder/out.qcow2
run 0 'as options' convert -O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 top.qcow2 opt.qcow2
run 0 'the same copy' compare top.qcow2 opt.qcow2
run 0 'options of create' create -o backing_file=base.qcow2,backing_fmt=qcow2 made.qcow2
run 0 'an image on it' compare base.qcow2 made.qcow2
run 0 'in place of another copy' convert --force -O qcow2 -B base.qcow2 -F qcow2 base.qcow2 opt.qcow2
run 0 'which it replaces' compare base.qcow2 opt.qcow2
# A target that cannot be replaced, as a device. Here it is a file without a name.
cp other.raw kept.raw
exec 9<>kept.raw
rm kept.raw
run 1 'over a device' convert --force -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 /proc/self/fd/9
has 'says why' err 'another file cannot take its place$'
same 'which keeps what it has' other.raw /proc/self/fd/9
exec 9>&-

# Zones: those of the disk, whatever the base has in them.
head -c 614400 /dev/urandom >bytes
run 0 'a zoned base' create -o zone.size=1M,zone.max_active_zones=4 zbase.qcow2 8M
for at in 0 1M 2M; do
    "$tool" append zbase.qcow2 $at <bytes >/dev/null
done
run 0 'a zoned overlay' create -b zbase.qcow2 ztop.qcow2
run 0 'one is empty again' reset -o 1M ztop.qcow2
run 0 'one is written anew' reset -o 2M ztop.qcow2
"$tool" append ztop.qcow2 2M <bytes >/dev/null
"$tool" append ztop.qcow2 4M <bytes >/dev/null
run 0 'one is full' finish -o 5M ztop.qcow2
copied 'zones' ztop.qcow2 zbase.qcow2 qcow2
copied 'zones, in another layout' ztop.qcow2 zbase.qcow2 qcow2 -o zone.layout=56
refused 'zones of the new backing file are not' -B base.qcow2 -F qcow2 ztop.qcow2
refused 'size 9437184: the backing file has 8388608' -B zbase.qcow2 -F qcow2 top.qcow2
refused 'zone.mode: DST has' -B zbase.qcow2 -F qcow2 -o zone.mode=none ztop.qcow2

refused 'backing file "none": No such file' -B none -F qcow2 top.qcow2
refused 'its format: -F raw or -F qcow2' -B base.qcow2 top.qcow2
refused 'give -B BASE, too' -F qcow2 top.qcow2
refused '^zqcow2: -F: ' -B base.qcow2 -F vmdk top.qcow2
refused '^zqcow2: -B: also given as -o backing_file$' -B base.qcow2 -o backing_file=base.qcow2 top.qcow2
refused '^zqcow2: -F: also given as -o backing_fmt$' -B base.qcow2 -F qcow2 -o backing_fmt=raw top.qcow2
for o in -c '-S 0' '-m 2' -U --no-sync --resume --snapshot=x --no-backing --data-file=x; do
    # shellcheck disable=SC2086
    refused '^zqcow2: convert: -B cannot be given with' -B base.qcow2 -F qcow2 $o top.qcow2
done
refused 'lies outside' -B base.qcow2 -F qcow2 --backing-root=folder top.qcow2
run 1 'a raw copy' convert -B base.qcow2 -F qcow2 top.qcow2 new.raw
has 'has no backing file' err '-B: a raw file has no backing file'
run 1 'the base is not replaced by its copy' \
    convert --force -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 base.qcow2
run 0 'and is as it was' compare base.qcow2 moved.qcow2
run 1 'measure' measure -O qcow2 -o backing_file=base.qcow2 top.qcow2
has 'has no backing file' err 'measure: -o backing_file and backing_fmt are for create and convert only'

# A full host, at any step: the old copy stays.
run 0 'a copy' convert --force -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 opt.qcow2
cp opt.qcow2 before
cat >small.sh <<'END'
trap '' XFSZ
ulimit -f $1
shift
exec "$@"
END
for blocks in 1 64 256 1024 2048; do
    ran="convert -B under ulimit -f $blocks"
    sh small.sh $blocks "$tool" convert --force -O qcow2 -B folder/out.qcow2 -F qcow2 \
        other.raw opt.qcow2 >out 2>err
    is "$ran fails" 1 $?
    same "$ran: the old copy" before opt.qcow2
    is "$ran: nothing beside it" '' "$(find . -name '.zqcow2.*')"
done
finish
