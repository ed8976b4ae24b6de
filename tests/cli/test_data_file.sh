#!/bin/sh
# SPDX-License-Identifier: MIT
# Data files: against QEMU's programs; names that are opened and names that are not; create, info.
. "$(dirname "$0")/lib.sh"

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
    echo '# no qemu-img here'
    exit 77
fi
mkdir images
ran="data_file.py $tool 1 ${ZQ_DATA_FILES:-25}"
(cd images && python3 "$here/data_file.py" "$tool" 1 "${ZQ_DATA_FILES:-25}")
verdict $? 'images with data files, written in turn'

# The name is relative to the image's folder, and the file is confined like a backing file.
mkdir in aside
run 0 'create' create -o data_file=disk.raw,data_file_raw=on in/i.qcow2 1M
is 'makes the file' 1048576 "$(stat -c %s in/disk.raw)"
run 0 'info' info in/i.qcow2
has 'names it' out '^data file: disk\.raw$'
has 'and says that it is raw' out '^feature: raw external data$'
run 0 'info --json' info --json in/i.qcow2
has 'names it, too' out '"data_file": "disk\.raw"'
run 0 'a write' io -c 'write -P 5 4k 4k' in/i.qcow2
is 'is in the file' 05 "$(od -An -tx1 -j4096 -N1 in/disk.raw | tr -d ' ')"
run 0 'map' map in/i.qcow2
has 'names the file' out ' in/disk\.raw$'
run 0 'within a folder' read --backing-root=in in/i.qcow2 0 512
run 1 'outside' read --backing-root=aside in/i.qcow2 0 512
has 'is refused' err 'in/i\.qcow2: data file "disk\.raw": lies outside'
run 1 'no file' read --no-backing in/i.qcow2 0 512
has 'is an error where it is needed' err 'needs a feature'
mv in/disk.raw in/gone
run 0 'info without it' info in/i.qcow2
run 1 'a read without it' read in/i.qcow2 0 512
has 'is refused' err 'data file "disk\.raw": No such file'
run 0 'check without it' check in/i.qcow2
has 'is a warning' out 'data file "disk\.raw": No such file'
head -c 4096 in/gone >in/disk.raw
run 1 'a short one' read in/i.qcow2 0 512
has 'is refused' err 'has 4096 bytes, fewer than the device'
ln -sf ../in/gone aside/disk.raw
cp in/i.qcow2 aside/i.qcow2
run 1 'a link out of the folder' read --backing-root=aside aside/i.qcow2 0 512
has 'is refused' err 'lies outside'
rm -f in/disk.raw
mkfifo in/disk.raw
run 1 'a fifo' read in/i.qcow2 0 512
has 'is refused' err 'not a regular file'

# Another one than the image names, and one that it does not name.
run 0 'create' create -o data_file=first.raw in/m.qcow2 1M
run 0 'a write' io -c 'write -P 7 0 64k' in/m.qcow2
mkdir 'other place'
mv in/first.raw 'other place/a:moved file'
moved='--data-file=other place/a:moved file'
run 1 'a moved data file' io -r -c 'read -P 7 0 64k' in/m.qcow2
has 'is missing' err 'data file "first\.raw": No such file'
run 0 'with its path' io -r "$moved" -c 'read -P 7 0 64k' in/m.qcow2
run 0 'write' io "$moved" -c 'write -P 8 64k 64k' in/m.qcow2
run 0 'check' check "$moved" in/m.qcow2
lacks 'finds it' out warning
run 0 'map' map "$moved" in/m.qcow2
has 'names it' out 'other place/a:moved file$'
run 1 'one outside of the root' read "$moved" --backing-root=in in/m.qcow2 0 512
has 'is refused' err 'data file "first\.raw": other place/a:moved file, given in its place: lies outside'
run 1 'one that is missing' read --data-file=gone in/m.qcow2 0 512
has 'is named' err 'data file "first\.raw": gone, given in its place: No such file'
run 1 'the image itself' read --data-file=in/m.qcow2 in/m.qcow2 0 512
has 'is refused' err 'the chain returns to the same file'
run 0 'convert' convert "$moved" in/m.qcow2 m.raw
run 0 'the same content' compare "$moved" in/m.qcow2 m.raw
run 0 'amend' amend "$moved" -o refcount_bits=32 in/m.qcow2
run 0 'create without one' create in/h.qcow2 1M
run 1 'a read' read "$moved" in/h.qcow2 0 512
has 'says so' err 'in/h\.qcow2: has no data file: omit --data-file'
# The extension with the name becomes one of unknown type.
python3 - in/m.qcow2 <<'EOF'
import sys
with open(sys.argv[1], "r+b") as f:
    head = f.read(4096)
    at = head.index(b"DATA\0\0\0\x09first.raw")
    f.seek(at)
    f.write(b"\x12\x34\x56\x78")
EOF
run 0 'info without a name' info in/m.qcow2
has 'says what to give' out '^data file: its name is not stored; give --data-file=FILE$'
run 1 'a read' read in/m.qcow2 0 512
has 'says it, too' err 'in/m\.qcow2: data file: its name is not stored: .*--data-file=FILE'
run 0 'check' check in/m.qcow2
has 'warns' out 'data file: its name is not stored'
run 0 'with its path' compare "$moved" in/m.qcow2 m.raw
run 0 'a write' io "$moved" -c 'write -P 9 128k 64k' -c 'read -P 9 128k 64k' in/m.qcow2
run 0 'an overlay of it' create -b m.qcow2 -F qcow2 in/over.qcow2 1M
run 1 'a read of that' read "$moved" in/over.qcow2 0 512
has 'is refused' err 'backing file "m\.qcow2": data file: its name is not stored$'

# The space of what is discarded or reset goes back to the host, if this file system has holes.
blocks() {
    stat -c %b "$1"
}
run 0 'create' create -o data_file=space.bin in/space.qcow2 8M
run 0 'a write' io -c 'write -P 5 0 8M' in/space.qcow2
full=$(blocks in/space.bin)
run 0 'a discard' io -c 'discard 1M 6M' in/space.qcow2
run 0 'create with zones' create -o zone.size=4M,zone.conventional_zones=1,data_file=zones.bin in/zspace.qcow2 8M
run 0 'writes' io -c 'write -P 5 0 4M' -c 'write -P 5 4M 4M' in/zspace.qcow2
head -c 1M /dev/urandom >holes
if fallocate -p -o 0 -l 1M holes 2>/dev/null; then
    is 'gives three quarters of the space back' 1 $(($(blocks in/space.bin) <= full / 4 + 64))
    full=$(blocks in/zones.bin)
    run 0 'a reset' reset -o 4M in/zspace.qcow2
    is 'gives half of it back' 1 $(($(blocks in/zones.bin) <= full / 2 + 64))
    run 0 'a discard there' io -c 'discard 0 4M' in/zspace.qcow2
    is 'the rest' 1 $(($(blocks in/zones.bin) <= 64))
    run 0 'an overlay' create -b zspace.qcow2 -o data_file=layer.bin in/layer.qcow2
    run 0 'writes' io -c 'write -P 6 0 4M' -c 'write -P 6 4M 4M' in/layer.qcow2
    full=$(blocks in/layer.bin)
    run 0 'a commit that keeps' commit -d in/layer.qcow2
    is 'nothing' 1 $(($(blocks in/layer.bin) == full))
    run 0 'a commit' commit in/layer.qcow2
    is 'all of it' 1 $(($(blocks in/layer.bin) <= 64))
    run 0 'check' check in/layer.qcow2
    run 0 'compare' compare in/layer.qcow2 in/zspace.qcow2
else
    echo '# no holes here'
fi

# What is there is kept, unless it is to be replaced.
yes | head -c 1048576 >in/old.raw
cp in/old.raw kept
run 0 'create over a file' create -o data_file=old.raw,data_file_raw=on in/k.qcow2 1M
same 'keeps it' kept in/old.raw
run 0 'as the device' read in/k.qcow2 0 1M
same 'which has its content' kept out
run 1 'again' create -o data_file=old.raw,data_file_raw=on in/k.qcow2 1M
same 'changes nothing' kept in/old.raw
run 0 'with --force' create --force -o data_file=old.raw,data_file_raw=on in/k.qcow2 1M
is 'it is empty' 0 "$(tr -d '\0' <in/old.raw | wc -c)"
cp in/m.qcow2 kept
run 1 'another image' create -o data_file=m.qcow2 in/n.qcow2 1M
has 'is refused' err 'data file "m\.qcow2": is a qcow2 image, which would be overwritten'
same 'and is as it was' kept in/m.qcow2
run 1 'the image itself' create -o data_file=s.qcow2 in/s.qcow2 1M
has 'is refused' err 'data file "s\.qcow2": the chain returns to the same file'
run 1 'raw, but over a file' create -b old.raw -F raw -o data_file=d,data_file_raw=on in/n.qcow2
has 'is refused' err 'data_file_raw 1: not with a backing file'
run 1 'raw, but with zones' create -o data_file=d,data_file_raw=on,zone.size=1M in/n.qcow2 4M
has 'is refused' err 'data_file_raw 1: not with zones'
run 1 'raw, but no file' create -o data_file_raw=on in/n.qcow2 1M
has 'is refused' err 'data_file_raw 1: requires data_file'
verdict $([ ! -e in/n.qcow2 ] && [ ! -e in/d ]; echo $?) 'nothing is left of those'

# Zones: below the write pointer other programs can read the file.
run 0 'zones' create -o data_file=z.raw,zone.size=1M in/z.qcow2 4M
yes | head -c 5120 >data
run 0 'an append' append in/z.qcow2 1M <data
dd if=in/z.raw bs=512 skip=2048 count=10 2>/dev/null >got
same 'is in the file' data got
run 0 'an overlay' create -b z.qcow2 in/zz.qcow2
run 0 'reads it' read in/zz.qcow2 1M 5120
same 'through the template' data out
run 1 'convert to two files' convert -O qcow2 -o data_file=two.raw in/z.qcow2 in/c.qcow2
has 'is refused' err 'data_file: DST is one file'
run 0 'a reset' reset -o 1M in/z.qcow2
run 0 'check' check in/z.qcow2
run 0 'the zone' read in/z.qcow2 1M 5120
is 'is zeros' 0 "$(tr -d '\0' <out | wc -c)"
finish
