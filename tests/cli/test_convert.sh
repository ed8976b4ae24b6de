#!/bin/sh
# SPDX-License-Identifier: MIT
# convert: content against qemu-img, zones kept, whole targets or none.
case ${2:-} in '' | /*) ;; *) set -- "$1" "$PWD/$2" ;; esac
. "$(dirname "$0")/lib.sh"

# left: the files in this folder whose names the command made up.
left() {
    find . -name '.zqcow2.*' | wc -l | tr -d ' '
}

if command -v qemu-img >/dev/null && command -v qemu-io >/dev/null; then
    # source SEED: a source of a random format in s.img, and how it is to be converted.
    source_of() {
        python3 - "$1" <<'END'
import random, subprocess, sys
r = random.Random(int(sys.argv[1]))
size = r.randrange(1, 60) * 65536 + r.choice([0, 512, 4096])
def call(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
form = r.choice(['raw', 'qcow2', 'chain'])
bits = r.choice([12, 16, 18])
kind = 'raw' if form == 'raw' else 'qcow2'
shape = [] if form == 'raw' else ['-o', f'cluster_size={1 << bits}']
if form == 'chain':
    call('qemu-img', 'create', '-f', 'qcow2', 's.base', str(size // 2 // 512 * 512 + 512))
    call('qemu-io', '-f', 'qcow2', '-c', 'write -P 9 0 20000', 's.base')
    shape += ['-b', 's.base', '-F', 'qcow2']
call('qemu-img', 'create', '-f', kind, *shape, 's.img', str(size))
for _ in range(r.randrange(0, 8)):
    at = r.randrange(0, size // 512) * 512
    call('qemu-io', '-f', kind, '-c', r.choice(['write -P 1', 'write -P 2', 'write -z', 'write -P 0']) +
         f' {at} {min(r.randrange(1, 900) * 512, size - at)}', 's.img')
words = ['-m', str(r.choice([1, 2, 8, 16]))]
if r.randrange(2):
    words += ['-S', r.choice(['0', '512', '64K'])]
if r.randrange(4):
    o = f'cluster_size={512 << r.randrange(0, 13)}'
    if r.randrange(3) == 0:
        o = 'cluster_size=64K,extended_l2=on'
    o += r.choice(['', ',compression_type=zstd'])
    words += ['-O', 'qcow2', '-o', o] + r.choice([[], ['-c']])
print(*words)
END
    }
    for seed in $(seq 1 "${ZQ_DISKS:-30}"); do
        rm -f s.img s.base d.img
        words=$(source_of "$seed")
        # shellcheck disable=SC2086
        run 0 "seed $seed: $words" convert $words s.img d.img || continue
        qemu-img compare s.img d.img >out 2>err
        verdict $? "seed $seed: the same content" || show
        case $words in *qcow2*)
            qemu-img check d.img >out 2>&1
            verdict $? "seed $seed: clean" || show ;;
        esac
    done
    qemu-img create -q -f raw s.img 64M
    qemu-io -f raw -c 'write -P 7 1M 64K' -c 'write -P 0 32M 8M' s.img >/dev/null
    rm -f d.img q.img
    run 0 'zeros in the data' convert -O qcow2 s.img d.img
    qemu-img convert -O qcow2 s.img q.img
    is 'take no cluster' "$(qemu-img map --output=json q.img | tr -d ' ' | grep -c 'data":true')" \
        "$(qemu-img map --output=json d.img | tr -d ' ' | grep -c 'data":true')"
    rm -f d.img
    run 0 'to raw' convert s.img d.img
    verdict $([ "$(du -k d.img | cut -f1)" -lt 1024 ]; echo $?) 'it is sparse' || du -k d.img
    rm -f d.img
    run 0 'all of it written' convert -S 0 s.img d.img
    verdict $([ "$(du -k d.img | cut -f1)" -ge 65536 ]; echo $?) 'it is not sparse' || du -k d.img
else
    echo '# no qemu-img here: not compared'
    truncate -s 64M s.img
    random 65536 5 | dd of=s.img bs=64K seek=16 conv=notrunc 2>/dev/null
fi

# Zones: of each layout, with states of all kinds and all active zones in use.
run 0 'a zoned image' create \
    -o zone.size=1M,zone.conventional_zones=1,zone.capacity=512K,zone.max_active_zones=4 \
    -o zone.max_open_zones=2 a.z 15104K
"$tool" finish -o 14M a.z
random 8192 1 | "$tool" append --quiet a.z 2M
random 100352 2 | "$tool" append --quiet a.z 4M
"$tool" finish -o 4M a.z
random 524288 3 | "$tool" append --quiet a.z 5M
"$tool" io -c 'write -z 6M 64K' -c 'write -P 6 6356992 4K' -c 'write -z 6361088 100K' a.z >/dev/null
random 4096 4 | "$tool" append --quiet a.z 7M
random 4096 5 | "$tool" append --quiet a.z 8M
random 4096 6 | "$tool" write a.z 12288
run 0 'one is read-only' state -o 7M a.z read-only
run 0 'and one offline' state -o 8M a.z offline
"$tool" report a.z >wanted
for layout in 44 48b 56 v7; do
    for cluster in 512 4K 64K; do
        rm -f b.z
        run 0 "to layout $layout, clusters of $cluster" convert \
            -O qcow2 -o "zone.layout=$layout,cluster_size=$cluster" a.z b.z
        run 0 'the same content and pointers' compare a.z b.z
        run 0 'clean' check b.z
        "$tool" report b.z >got
        same 'the same report' wanted got
    done
done
"$tool" info --json b.z | python3 -c '
import json, sys
i = json.load(sys.stdin)
print(i["layout"], i["max_open_zones"], i["max_active_zones"], i["nr_conventional"])' >got
is 'limits are kept' 'v7 2 4 1' "$(cat got)"
"$tool" state -o 8M -c 1 b.z normal
"$tool" state -o 8M -c 1 a.z normal
run 0 'so is what the offline zone holds' compare a.z b.z
rm -f b.z
run 1 'fewer active zones than are in use' convert -O qcow2 -o zone.max_active_zones=2 a.z b.z
has 'are refused' err '^zqcow2: b\.z: write at .*active zones.*limit is 2'
is 'and no file is left' '0 no' "$(left) $([ -e b.z ] && echo yes || echo no)"
# A limit on appends that the copy cannot store as it is.
for layout in 48b 56 v7; do
    small="cluster_size=1024,zone.layout=$layout,zone.size"
    "$tool" create --force -o "$small=1024,zone.capacity=512" small.z 4K || exit 99
    run 0 "layout $layout, without a limit" convert --force -O qcow2 small.z copy.z
    run 0 'the same' compare -s small.z copy.z
    "$tool" create --force -o "$small=128K" small.z 1M || exit 99
    run 0 "layout $layout, with less capacity" convert --force -O qcow2 -o zone.capacity=32K small.z copy.z
    run 0 'the limit' info copy.z
    has 'is the largest' out '^largest append: 31 KiB'
    rm small.z copy.z
done
# Compressed: the full zones and no others.
"$tool" report a.z >wanted
for layout in 44 48b 56 v7; do
    rm -f b.z
    run 0 "layout $layout, compressed" convert -c -O qcow2 -o "zone.layout=$layout,cluster_size=4K" a.z b.z
    run 0 'the same content and pointers' compare a.z b.z
    run 0 'clean' check b.z
    "$tool" report b.z >got
    same 'the same report' wanted got
done
run 0 'a zone of text' create -o zone.size=1M,zone.conventional_zones=1 t.z 8M
yes 'a line of text' | head -c 1048576 | "$tool" append --quiet t.z 1M
yes 'a line of text' | head -c 524288 | "$tool" append --quiet t.z 2M
rm -f b.z
run 0 'compressed' convert -c -O qcow2 t.z b.z
run 0 'the same content' compare t.z b.z
run 0 'clean' check --json b.z
is 'what is full' '24 16' "$(python3 -c 'import json
c = json.load(open("out"))
print(c["allocated_clusters"], c["compressed_clusters"])')"
run 0 'a copy that is compressed again' convert -c -O qcow2 -o zone.mode=none b.z p2.img
run 0 'is the same' compare b.z p2.img
run 0 'without zones' convert -O qcow2 -o zone.mode=none a.z p.img
run 0 'the content stays' compare a.z p.img
run 0 'raw' convert a.z r.img
run 0 'the content stays' compare p.img r.img
run 0 'with zones again, of another size' convert -O qcow2 -o zone.size=2M r.img c.z
run 0 'the content stays' compare r.img c.z
is 'a zone ends with its last data' 7344128 "$(zone c.z 3 write_pointer)"
run 1 'data beyond the capacity' convert -O qcow2 -o zone.size=8M,zone.capacity=1M r.img x.z
has 'is refused' err '^zqcow2: x\.z: write at '
run 0 'an overlay with zones' create -b a.z o.z
"$tool" reset -o 2M o.z
run 0 'is flattened' convert -O qcow2 o.z f.z
run 0 'and the same' compare o.z f.z
is 'has no backing file' null "$("$tool" info --json f.z |
    python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["backing_file"]))')"

# What images store of zones: states under the rules of ZNS, and descriptor extensions.
shape=zone.size=1M,zone.conventional_zones=1,zone.max_active_zones=5
run 0 'an image with descriptor extensions' create -o $shape,zone.descriptor_extension=128 e.z 12M
for n in 1 2 3 4 5 6 7; do
    random 128 1$n >e.bytes
    run 0 "zone $n" state -o ${n}M -d e.bytes e.z
    case $n in
    1) random 8192 1 | "$tool" append --quiet e.z 1M ;;
    2) "$tool" finish -o 2M e.z ;;
    3) random 1048576 3 | "$tool" append --quiet e.z 3M ;;
    4) "$tool" state -o 4M e.z read-only ;;
    5) random 512 5 | "$tool" append --quiet e.z 5M
       "$tool" state -o 5M e.z offline ;;
    7) "$tool" reset -o 7M e.z ;;
    esac
done
random 4096 8 | "$tool" append --quiet e.z 8M
# extensions FILE: of all zones; those of offline ones show once they are normal again.
extensions() {
    cp "$1" shown.z
    "$tool" state -o 5M shown.z normal
    "$tool" report --json shown.z >got.json
    python3 -c '
import json
for z in json.load(open("got.json")):
    print(z["index"], z["state"], z["write_pointer"], z["descriptor_extension"])'
}
extensions e.z >wanted
is 'six zones have one' 6 "$(grep -vc None wanted)"
for words in '' -c '-o cluster_size=4K' '-o zone.layout=48b' "-o zone.size=1M"; do
    rm -f b.z
    # shellcheck disable=SC2086
    run 0 "extensions, convert $words" convert -O qcow2 $words e.z b.z
    extensions b.z >got
    same 'the same extensions' wanted got
    run 0 'no difference' compare e.z b.z
    run 0 'clean' check b.z
done
rm -f b.z
run 0 'longer extensions' convert -O qcow2 -o zone.descriptor_extension=192 e.z b.z
extensions b.z >got
zeros=$(printf '%0128d' 0)
sed "/None/!s/\$/$zeros/" wanted >longer
same 'have zeros behind' longer got
run 1 'are another size of descriptor extensions' compare e.z b.z
is 'which is named' 'Zone mismatch: bytes of descriptor extensions: 128 and 192!' "$(cat out)"
run 1 'shorter ones' convert -O qcow2 -o zone.descriptor_extension=64 e.z x.img
is 'are refused' 'zqcow2: zone.descriptor_extension: SRC has 128 bytes' "$(cat err)"
# stored FILE ZONE [BYTE]: what the table of states has of the zone, or is to have.
stored() {
    python3 - "$@" <<'END'
import struct, sys
with open(sys.argv[1], 'r+b') as f:
    head = f.read(4096)
    at = struct.unpack_from('>I', head, 100)[0]
    while True:
        kind, length = struct.unpack_from('>II', head, at)
        if kind == 0x7a713273:
            break
        at += 8 + (length + 7) // 8 * 8
    f.seek(struct.unpack_from('>Q', head, at + 8)[0] + int(sys.argv[2]))
    if len(sys.argv) > 3:
        f.write(bytes([int(sys.argv[3])]))
    else:
        print(f.read(1)[0])
END
}
cp e.z c.z
is 'zone 6 is closed, and described' 48 "$(stored c.z 6)"
stored c.z 6 16
run 1 'an extension less' compare e.z c.z
is 'is named' 'Zone mismatch at offset 6291456: descriptor extension!' "$(cat out)"
rm -f b.z
run 0 'closed, though empty' convert -O qcow2 c.z b.z
is 'stays so' 16 "$(stored b.z 6)"
run 0 'no difference' compare c.z b.z
stored b.z 6 0
run 1 'an empty one' compare c.z b.z
is 'is another' 'Zone mismatch at offset 6291456: state CLOSED and EMPTY!' "$(cat out)"
cp e.z c.z
"$tool" reset -o 6M c.z
random 128 99 >e.bytes
"$tool" state -o 6M -d e.bytes c.z
run 1 'other bytes' compare e.z c.z
is 'are named' 'Zone mismatch at offset 6291456: descriptor extension!' "$(cat out)"
run 0 'an overlay' create -b e.z o.e
rm -f b.z
run 0 'is flattened' convert -O qcow2 o.e b.z
run 0 'with the extensions' compare e.z b.z

# Targets: whole or not there.
run 1 'a target that exists' convert r.img p.img
is 'is kept' 'zqcow2: p.img: the file exists; --force replaces it' "$(cat err)"
run 0 'unless --force' convert --force r.img p.img
same 'replaces it' r.img p.img
cp r.img own.img
run 1 'the source itself' convert --force own.img own.img
same 'stays as it is' r.img own.img
used='in use: locked by another program, or by this one'
is 'because it is in use' "zqcow2: own.img: $used" "$(cat err)"
run 0 'a backing file' create own.z 2M
run 0 'and what stands on it' create -b own.z -F qcow2 over.z
cp own.z kept.z
run 1 'is in use under it' convert --force over.z own.z
is 'which is said' "zqcow2: own.z: $used" "$(cat err)"
for to in own.img own.z; do
    from=own.img
    [ $to = own.z ] && from=over.z
    run 1 "an image over $to" convert --force -O qcow2 $from $to
    is 'is refused in one line' "zqcow2: $to: $used through another backend" "$(cat err)"
done
same 'an image stays as it is' r.img own.img
same 'a backing file stays as it is' kept.z own.z
run 1 'a folder that is missing' convert r.img none/x.img
has 'is named' err '^zqcow2: none/x\.img: '
run 1 'a raw file' convert -c r.img x.img
is 'is not compressed' 'zqcow2: convert: -c: a raw file cannot be compressed; see -O qcow2' "$(cat err)"
run 1 'options of a raw file' convert -o cluster_size=4K r.img x.img
run 1 'a size' convert -O qcow2 -o size=1M r.img x.img
has 'is that of SRC' err '^zqcow2: size: '
run 1 'a geometry that cannot be' convert -O qcow2 -o zone.size=3M r.img x.img
run 1 'no target' convert r.img
has 'is missing' err 'DST is missing'
for bad in '-S 100' '-m 0' '-m 17' '-O vmdk' '-f vmdk'; do
    # shellcheck disable=SC2086
    run 1 "refused: $bad" convert $bad r.img x.img
done
is 'nothing was left by any' '0 no' "$(left) $([ -e x.img ] && echo yes || echo no)"
(
    ulimit -f 2000
    "$tool" convert -S 0 s.img full.img >out 2>err
)
is 'a file that may not grow' '1 0 no' "$? $(left) $([ -e full.img ] && echo yes || echo no)"

# Where a long extent ends is looked for once: some file systems visit all its pages for that.
if [ -n "${2:-}" ]; then
    head -c 67108864 /dev/zero >long.img
    LD_PRELOAD=$2 ZQ_SYNCS=calls "$tool" convert -O qcow2 long.img x.img
    read -r _ seeks <calls
    verdict $([ "$seeks" -ge 1 ] && [ "$seeks" -le 8 ]; echo $?) "64 MiB of data: $seeks lookups"
    for format in raw qcow2; do
        rm -f x.img
        LD_PRELOAD=$2 ZQ_SYNCS=calls "$tool" convert -O $format a.z x.img
        read -r syncs _ <calls
        verdict $([ "$syncs" -ge 1 ]; echo $?) "$format: $syncs flushes"
        rm -f x.img
        LD_PRELOAD=$2 ZQ_SYNCS=calls "$tool" convert --no-sync -O $format a.z x.img
        read -r syncs _ <calls
        is 'none with --no-sync' 0 "$syncs"
        run 0 'the same content' compare -q a.z x.img
    done
    rm -f x.img
    LD_PRELOAD=$2 ZQ_SYNCS=calls "$tool" compare long.img long.img >out
    read -r _ seeks <calls
    verdict $([ "$seeks" -ge 1 ] && [ "$seeks" -le 8 ]; echo $?) "compared: $seeks lookups"
else
    echo '# a sanitizer: nothing can be preloaded'
fi

# --resume: stopped in the middle, here by a limit, what was copied stays, and the next run goes on there.
python3 -c '
import random
r = random.Random(4)
piece = [r.randbytes(1 << 20) for _ in range(4)]
with open("big.img", "wb") as f:
    for n in range(64):
        f.write(n.to_bytes(8, "big") + r.choice(piece)[8:])'
run 0 'large, with zones' convert -O qcow2 -o zone.size=4M big.img big.z
# resumed SOURCE WORD...: is stopped, marked at a byte that was copied, and goes on.
resumed() {
    from=$1
    shift
    rm -f y.img .zqcow2.y.img.part
    (
        ulimit -f 40000
        "$tool" convert --resume "$@" "$from" y.img >out 2>err
    )
    is "$*: stops in the middle" 1 $?
    has 'what was copied stays' err '^zqcow2: .*/\.zqcow2\.y\.img\.part: holds the part that was copied; see convert --resume$'
    verdict $([ ! -e y.img ]; echo $?) 'there is no target yet'
    kind=raw
    case "$*" in *qcow2*) kind=qcow2 ;; esac
    [ "$from" = big.z ] || qemu-io -f $kind -c 'write -P 9 65536 512' .zqcow2.y.img.part >/dev/null
    run 0 'goes on' convert --resume "$@" "$from" y.img
    is 'nothing is left' 0 "$(find . -name '.zqcow2.*' | wc -l | tr -d ' ')"
    if [ "$from" = big.z ]; then
        run 0 'to the end' compare -q "$from" y.img
    else
        run 1 'not from the start' compare "$from" y.img
        is 'but behind the mark' 'Content mismatch at offset 65536!' "$(cat out)"
        qemu-io -f $kind -c "write -s first 65536 512" y.img >/dev/null
        run 0 'to the end' compare -q "$from" y.img
    fi
    [ "$kind" = raw ] || run 0 'clean' check y.img
}
if command -v qemu-io >/dev/null; then
    dd if=big.img of=first bs=512 skip=128 count=1 2>/dev/null
    resumed big.img -m 1
    resumed big.img -O qcow2
    resumed big.img -O qcow2 -c
    resumed big.z -O qcow2
    # Not closed: entries may be missing in front of others, so all of it is copied again.
    rm -f y.img
    (
        ulimit -f 40000
        "$tool" convert --resume -O qcow2 big.img y.img >out 2>err
    )
    qemu-io -f qcow2 -c 'write -P 9 65536 512' .zqcow2.y.img.part >/dev/null
    printf '\001' | dd of=.zqcow2.y.img.part bs=1 seek=79 conv=notrunc 2>/dev/null
    run 0 'an image that was not closed' convert --resume -O qcow2 big.img y.img
    run 0 'is copied from the start' compare -q big.img y.img
    truncate -s 300M .zqcow2.y.img.part
    run 1 'a part of something else' convert --resume --force big.img y.img
    has 'is said so' err '^zqcow2: .*/\.zqcow2\.y\.img\.part: is a part of another copy$'
    "$tool" create --force .zqcow2.y.img.part 1M
    run 1 'an image of another size' convert --resume --force -O qcow2 big.img y.img
    has 'is not one either' err 'is a part of another copy$'
    is 'in one line' 1 "$(wc -l <err)"
    rm -f .zqcow2.y.img.part
fi
# A run that was killed when all but the name was there.
rm -f y.img
run 0 'zones' create -o zone.size=1M forced.z 4M
run 0 'one that is full' finish -o 1M -c 1 forced.z
run 0 'and read-only' state -o 1M forced.z read-only
run 0 'an offline one' state -o 2M forced.z offline
run 0 'a copy' convert -O qcow2 forced.z y.img
mv y.img .zqcow2.y.img.part
run 0 'goes on at its end' convert --resume -O qcow2 forced.z y.img
run 0 'and is the same' compare forced.z y.img
run 0 'the pointer, too' state -o 1M y.img normal
is 'of a full zone' FULL "$(zone y.img 1 state)"
rm -f forced.z big.img big.z y.img

# A raw file that may be resumed is as long as the disk at the end, whatever zeros there are, and however it was begun.
run 0 'zeros at its end' create tail.z 8M
run 0 'data at its start' io -c 'write -q -P 1 0 3M' tail.z
run 0 'nothing but zeros' create none.z 8M
run 0 'in one go' convert tail.z want.img
truncate -s 8M zero.img
for begun in 0 1 2100000 3145728 8388608; do
    rm -f y.img
    head -c "$begun" want.img >.zqcow2.y.img.part
    run 0 "begun with $begun bytes" convert --resume tail.z y.img
    verdict $(cmp -s want.img y.img; echo $?) 'all of it'
    head -c "$begun" zero.img >.zqcow2.y.img.part
    run 0 'zeros in the place of another' convert --resume --force none.z y.img
    verdict $(cmp -s zero.img y.img; echo $?) 'all of them'
    head -c "$begun" zero.img >.zqcow2.y.img.part
    run 0 'of a raw file' convert -f raw --resume --force --no-sync zero.img y.img
    verdict $(cmp -s zero.img y.img; echo $?) 'all of them too'
done
truncate -s 9M .zqcow2.y.img.part
run 1 'begun with more than there is' convert --resume --force tail.z y.img
has 'is of another copy' err 'is a part of another copy$'
rm -f .zqcow2.y.img.part tail.z none.z want.img zero.img y.img

# A target that cannot be replaced, as a device: it is no image before it is complete. Here it is a file without a name.
random 3000000 5 | head -c 2999808 >data.img
: >placed
exec 9<>placed
rm placed
run 0 'in its place' convert --force -f raw -O qcow2 data.img /proc/self/fd/9
run 0 'an image' check /proc/self/fd/9
run 0 'with all of it' compare -f raw data.img /proc/self/fd/9
run 0 'again, and not durable' convert --force --no-sync -f raw -O qcow2 -o zone.size=1M data.img /proc/self/fd/9
run 0 'with zones' check /proc/self/fd/9
(
    ulimit -f 2000
    "$tool" convert --force -f raw -O qcow2 data.img /proc/self/fd/9 >out 2>err
)
is 'a host without room' 1 $?
has 'is reported' err ': is incomplete$'
run 1 'what is there' check /proc/self/fd/9
has 'is no image' err 'not a qcow2 file'
truncate -s 512M long.img
"$tool" convert --force -S 0 -f raw -O qcow2 long.img /proc/self/fd/9 >/dev/null 2>&1 &
pid=$!
for i in 1 2 3 4 5 6 7 8 9; do
    [ "$(stat -L -c %s /proc/self/fd/9)" -gt 3000000 ] && break
    sleep 0.1
done
kill -KILL $pid
wait $pid
[ $? = 137 ] && run 1 'what a killed one has left' check /proc/self/fd/9
exec 9>&-
rm -f data.img long.img

# A signal while it works; zeros that are written take a while and no source.
truncate -s 512M long.img
for name in INT TERM HUP; do
    python3 - "$tool" $name >out 2>err <<'END'
import glob, os, signal, subprocess, sys, time
number = getattr(signal, 'SIG' + sys.argv[2])
child = subprocess.Popen([sys.argv[1], 'convert', '-S', '0', '-O', 'qcow2', 'long.img', 'x.img'],
                         stderr=subprocess.PIPE)
while child.poll() is None and not glob.glob('.zqcow2.*'):
    time.sleep(0.001)
child.send_signal(number)
text = child.communicate()[1].decode()
left = glob.glob('.zqcow2.*') + glob.glob('x.img')
if child.returncode != -number or left or 'stopped by SIG' + sys.argv[2] not in text:
    sys.exit(f'status {child.returncode}, left {left}: {text}')
END
    verdict $? "SIG$name leaves nothing" || show
done
# Full zones whose capacity ends within a cluster: that cluster is not packed, and is copied.
for shape in '16384 16384 15360' '4096 32768 26112' '65536 131072 117248'; do
    set -- $shape
    run 0 "$shape: zones" create --force -o "cluster_size=$1,zone.size=$2,zone.capacity=$3" c.z $(($2 * 3))
    "$tool" io -c "write -P 7 0 $3" -c "write -P 8 $2 $3" -c "write -P 9 $(($2 * 2)) 512" c.z >/dev/null
    for cluster in 512 "$1"; do
        rm -f d.z
        run 0 "$shape: compressed, clusters of $cluster" convert -c -O qcow2 -o "cluster_size=$cluster" c.z d.z
        run 0 "$shape: the same" compare c.z d.z
        run 0 "$shape: sound" check d.z
    done
done

# Onto what is there, in place.
random 1048576 11 | head -c 700000 >n.raw
truncate -s 1M n.raw
run 0 'a target below which there is data' create n.base 2M
run 0 'all of it written' io -c 'write -q -P 5 0 2M' n.base
for cluster in 4k 64k; do
    run 0 "$cluster: the target" create --force -o cluster_size=$cluster -b n.base -F qcow2 n.img 2M
    run 0 "$cluster: in use" io -c 'write -q -P 6 300k 900k' n.img
    run 0 "$cluster: written over" convert -n -f raw -O qcow2 n.raw n.img
    run 0 "$cluster: as it should be" compare -q n.raw n.img
    run 0 "$cluster: zeros behind it" io -c 'read -q -P 0 1M 1M' n.img
    run 0 "$cluster: sound" check n.img
    is "$cluster: above the same file" '"backing_file": "n.base",' \
        "$("$tool" info --json n.img | grep -o '"backing_file": .*')"
done
for length in 1048576 1500001; do
    head -c $length /dev/zero | tr '\0' x >n.out
    run 0 "a raw file of $length bytes" convert -n -f raw n.raw n.out
    cp n.raw wanted
    truncate -s $length wanted
    same 'has it, and zeros' wanted n.out
done
cp n.out wanted
run 1 'a target that is too small' convert -n -f qcow2 n.img n.out
is 'is reported' 'zqcow2: n.out: is smaller than what is to be copied' "$(cat err)"
run 1 'a missing one' convert -n n.img missing
run 1 'one that is no image' convert -n -f raw -O qcow2 n.raw n.out
same 'are as they were' wanted n.out
run 0 'one with zones' create --force -o zone.size=1M n.z 4M
run 1 'is refused' convert -n -f raw -O qcow2 n.raw n.z
run 1 'options of create' convert -n -o cluster_size=4k -f raw -O qcow2 n.raw n.img
run 1 'its own source' convert -n -O qcow2 n.img n.img
run 0 'all of which changed nothing' compare -q n.raw n.img

finish
