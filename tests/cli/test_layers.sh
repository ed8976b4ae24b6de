#!/bin/sh
# SPDX-License-Identifier: MIT
# Backing files: chains against qemu-img; names that are opened and names that are not; info, map.
. "$(dirname "$0")/lib.sh"

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
    echo '# no qemu-img here'
    exit 77
fi
mkdir chains
ran="layers.py $tool 1 ${ZQ_CHAINS:-12}"
(cd chains && python3 "$here/layers.py" "$tool" 1 "${ZQ_CHAINS:-12}")
verdict $? 'chains as qemu-img reads them'

# A folder with a base, a middle and the image; the names in it are relative.
mkdir in aside
(
    cd in || exit
    qemu-img create -q -f raw base.raw 1M
    qemu-io -f raw -c 'write -P 1 0 1M' base.raw
    qemu-img create -q -f qcow2 -b base.raw -F raw mid.qcow2
    qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 2M
) >/dev/null
run 0 'names start in the folder of the image' read in/top.qcow2 0 4096
is 'and the base is read' 01 "$(od -An -tx1 -N1 out | tr -d ' ')"
run 0 'info' info in/top.qcow2
has 'names the backing file' out '^backing file: mid\.qcow2$'
has 'and its format' out '^backing file format: qcow2$'
run 0 'info --json' info --json in/top.qcow2
has 'names it, too' out '"backing_file": "mid\.qcow2"'
run 0 'info --backing-chain' info --backing-chain in/top.qcow2
is 'shows all of it' 'image: in/top.qcow2 image: in/mid.qcow2 image: in/base.raw' \
    "$(grep '^image' out | paste -sd ' ')"
run 0 'as an array' info --json --backing-chain in/top.qcow2
is 'of three' '3 raw' "$(python3 -c 'import json
rows = json.load(open("out")); print(len(rows), rows[2]["format"])')"
run 0 'map names the file of each range' map in/top.qcow2
has 'which is the base' out ' in/base\.raw$'

run 1 'no backing file' read --no-backing in/top.qcow2 0 4096
has 'is an error where it is needed' err 'needs a feature'
run 0 'within a folder' read --backing-root=in in/top.qcow2 0 512
run 1 'outside' read --backing-root=aside in/top.qcow2 0 512
has 'is refused' err 'in/top\.qcow2: backing file "mid\.qcow2": lies outside'
ln -s ../in/mid.qcow2 aside/link.qcow2
qemu-img create -q -f qcow2 -u -b link.qcow2 -F qcow2 aside/top.qcow2 1M
run 1 'a link out of the folder' read --backing-root=aside aside/top.qcow2 0 512
has 'is refused' err 'lies outside'

# Zones: every verb that opens the template stays in the folder; a report does not need it.
"$tool" create -o zone.size=1M in/zones.qcow2 4M >/dev/null
"$tool" create -b zones.qcow2 in/disk.qcow2 >/dev/null
head -c 4096 /dev/zero >data
for verb in 'append in/disk.qcow2 0' 'open -o 0 in/disk.qcow2' 'close -o 0 in/disk.qcow2' \
    'finish -o 0 in/disk.qcow2' 'reset -o 0 in/disk.qcow2' 'state -o 0 in/disk.qcow2 normal'; do
    # shellcheck disable=SC2086
    run 1 "outside: $verb" ${verb%% *} --backing-root=aside ${verb#* } <data
    has 'is refused' err 'in/disk\.qcow2: backing file "zones\.qcow2": lies outside'
    # shellcheck disable=SC2086
    run 0 "within the folder: $verb" ${verb%% *} --backing-root=in ${verb#* } <data
done
run 0 'a report' report in/disk.qcow2
cp out with
mv in/zones.qcow2 in/moved.qcow2
run 0 'a report without the template' report in/disk.qcow2
same 'is the same' with out
run 1 'a write without the template' append in/disk.qcow2 0 <data

# named NAME TEXT: an image that names NAME is refused with TEXT.
named() {
    qemu-img create -q -f qcow2 -u -b "$1" -F "${3:-qcow2}" bad.qcow2 1M
    run 1 "refused: $1" read bad.qcow2 0 512
    has 'by name' err "bad\.qcow2: backing file \".*\": .*$2"
}
mkfifo fifo
named fifo 'not a regular file' raw
named /dev/null 'not a regular file' raw
named /dev/zero 'not a regular file' raw
named . 'not a regular file'
qemu-img create -q -f qcow2 bad.qcow2 1M
qemu-img rebase -q -u -f qcow2 -b bad.qcow2 -F qcow2 bad.qcow2
run 1 'its own backing file' read bad.qcow2 0 512
has 'is refused' err 'returns to the same file'
named none.qcow2 'No such file'
named 'json:{"driver":"null-co"}' 'protocol'
named nbd://localhost/x 'protocol' raw
named file:in/base.raw 'protocol' raw
named in/base.raw 'not a qcow2 file'
ln -f bad.qcow2 hard.qcow2
qemu-img rebase -q -u -f qcow2 -b hard.qcow2 -F qcow2 bad.qcow2
run 1 'another name of the image' read bad.qcow2 0 512
has 'is the image' err 'returns to the same file'
qemu-img create -q -f qcow2 -u -b two.qcow2 -F qcow2 one.qcow2 1M
qemu-img create -q -f qcow2 -u -b one.qcow2 -F qcow2 two.qcow2 1M
run 1 'a loop' read one.qcow2 0 512
has 'is found' err 'returns to the same file'

qemu-img create -q -f qcow2 -u -b in/mid.qcow2 -F qcow2 old.qcow2 1M
python3 - old.qcow2 <<'END'
import sys
with open(sys.argv[1], 'r+b') as f:
    head = f.read(4096)
    f.seek(head.find(b'\xe2\x79\x2a\xca'))
    f.write(b'none')
END
run 1 'a name without a format' read old.qcow2 0 512
has 'is refused, and what helps is named' err 'backing-format=raw|qcow2'
run 0 'with the format' read --backing-format=qcow2 old.qcow2 0 512
run 1 'a format that there is not' read --backing-format=vdi old.qcow2 0 512

# Locks: the whole chain is held as QEMU's programs hold it.
(sleep 2 | "$tool" io -r in/top.qcow2 >/dev/null) &
sleep 0.5
qemu-io -f raw -c 'write 0 512' in/base.raw >o 2>&1
has 'the base is locked while the image is open' o 'lock'
wait
qemu-io -f raw -c 'write -P 1 0 512' in/base.raw >o 2>&1
has 'and not after' o 'wrote 512'

# What a repair drops must not show what is below.
qemu-img create -q -f qcow2 -b in/base.raw -F raw fix.qcow2 1M
qemu-io -c 'write -P 9 0 64k' fix.qcow2 >/dev/null
python3 - fix.qcow2 <<'END'
import struct, sys
with open(sys.argv[1], 'r+b') as f:
    head = f.read(104)
    f.seek(struct.unpack_from('>Q', head, 40)[0])
    l2 = struct.unpack('>Q', f.read(8))[0] & 0xfffffffffffe00
    f.seek(l2)
    f.write(struct.pack('>Q', 1 << 63 | 1 << 50)) # far beyond the end
END
run 0 'a repair that drops an entry' check --repair=all fix.qcow2
run 0 'leaves a sound image' check fix.qcow2
run 0 'the cluster' read fix.qcow2 0 512
is 'is zeros, not the base' 00 "$(od -An -tx1 -N1 out | tr -d ' ')"

# Creating: the name is relative to the new image, and the size is the base's.
run 0 'an overlay on a raw file' create -b base.raw -F raw in/new.qcow2
run 0 'info' info in/new.qcow2
has 'has its size' out '^virtual size: 1 MiB '
has 'its name' out '^backing file: base\.raw$'
has 'and its format' out '^backing file format: raw$'
run 0 'on an overlay, larger' create -b new.qcow2 -F qcow2 -o cluster_size=4K in/newer.qcow2 3M
run 0 'partial writes' io -c 'write -P 5 1000k 512' -c 'write -z 512 512' -c 'discard 8k 5k' in/newer.qcow2
qemu-img convert -O raw in/newer.qcow2 got.raw
python3 - <<'END'
want = bytearray(b'\1' * 2**20 + bytes(2 * 2**20))
want[1000 * 1024:1000 * 1024 + 512] = b'\5' * 512
want[512:1024] = bytes(512)
want[8 * 1024:12 * 1024] = bytes(4096)
open('want.raw', 'wb').write(want)
END
same 'are what qemu-img reads' want.raw got.raw
qemu-img check -q in/newer.qcow2
verdict $? 'qemu-img check'
run 0 'check' check in/newer.qcow2
for size in 512 2M; do
    run 0 "clusters of $size" create -b base.raw -F raw -o "cluster_size=$size" in/c.qcow2
    qemu-img check -q in/c.qcow2
    verdict $? "clusters of $size: qemu-img check"
    rm in/c.qcow2
done
run 1 'no format' create -b base.raw in/no.qcow2
has 'is refused' err 'backing file "base\.raw": it has no zones, so its format must be given'
run 1 'a base that is not there' create -b none.raw -F raw in/no.qcow2
has 'is refused' err 'backing file "none\.raw": No such file'
run 1 'of another format' create -b base.raw -F qcow2 in/no.qcow2
has 'is refused' err 'base\.raw'
run 1 'zones' create -b base.raw -F raw -o zone.size=1M in/no.qcow2 8M
has 'are refused' err 'zone\.size 1048576: the backing file has no zones'
run 1 'a limit of zones' create -b base.raw -F raw -o zone.max_open_zones=1 in/no.qcow2
has 'is refused' err 'zone\.max_open_zones 1: requires zone\.size'
is 'and no file is left' no "$([ -e in/no.qcow2 ] && echo yes || echo no)"
run 0 'a zoned base' create -o zone.size=1M,zone.max_active_zones=4 in/z.qcow2 8M
yes | head -c 5120 >data
run 0 'that is written' write in/z.qcow2 1M <data
run 0 'and finished' finish -o 2M in/z.qcow2
run 0 'is inherited' create -b z.qcow2 -o zone.max_open_zones=2 in/zz.qcow2
run 0 'its report' report in/z.qcow2
cp out of_base
run 0 'and that of the overlay' report in/zz.qcow2
is 'are the same' "$(cat of_base)" "$(cat out)"
run 0 'info' info in/zz.qcow2
has 'has the limit that was given' out '^open zones: 0 of at most 2$'
has 'and the other' out '^active zones: 1 of at most 4$'
run 0 'what is inherited' read in/zz.qcow2 1M 5120
is 'is read' "$(cksum <data)" "$(cksum <out)"
run 1 'other zones' create -b z.qcow2 -o zone.size=2M in/no.qcow2
has 'are refused' err 'zone\.size 2097152: the backing file has 1048576'
run 0 'check compares it with its base' check in/zz.qcow2
cp in/z.qcow2 in/kept.qcow2
run 0 'the base is reset' reset -o 1M in/z.qcow2
run 2 'and check sees it' check in/zz.qcow2
has 'with both pointers' out 'zone 1 has 1 clusters that are mapped nowhere: .*0x101400, .*0x100000'
run 2 'as JSON' check --json in/zz.qcow2
run 0 'the image alone' check --no-backing in/zz.qcow2
run 1 'what was inherited' read in/zz.qcow2 1M 512
has 'is an error, not zeros' err 'a backing file has changed: .*0x101400.*0x100000'
mv in/kept.qcow2 in/z.qcow2
run 0 'the base is as it was' read in/zz.qcow2 1M 5120
is 'and is read' "$(cksum <data)" "$(cksum <out)"
mv in/z.qcow2 in/gone.qcow2
run 0 'without it' check in/zz.qcow2
has 'is a warning' out 'backing file "z\.qcow2": No such file'
mv in/gone.qcow2 in/z.qcow2
run 1 'the mode' create -b z.qcow2 -o zone.mode=host-managed in/no.qcow2
has 'is refused' err 'zone\.mode: FILE has the zones'
verdict $([ ! -e in/no.qcow2 ]; echo $?) 'nothing is left of those'

# A limit on appends that another program has stored, and no new image may have.
for limit in 65536 4294967295; do
    "$tool" create --force -o cluster_size=4K,zone.layout=56,zone.size=64K limit.z 1M || exit 99
    python3 -c 'import struct, sys
d = open("limit.z", "rb").read()
old = struct.pack(">I", 64512)
assert d.count(old) == 1
open("limit.z", "wb").write(d.replace(old, struct.pack(">I", int(sys.argv[1]))))' $limit || exit 99
    run 0 "a template with the limit $limit" create --force -b limit.z on.z
    run 0 'the limit of the new image' info on.z
    has 'fits' out '^largest append: 63 KiB'
done
finish
