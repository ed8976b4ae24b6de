#!/bin/sh
# SPDX-License-Identifier: MIT
# create and info: every option arrives, what cannot be is refused by name, files are not lost.
. "$(dirname "$0")/lib.sh"

# member FILE KEY
member() {
    "$tool" info --json "$1" | python3 -c '
import json, sys
v = json.load(sys.stdin)[sys.argv[1]]
print(v if not isinstance(v, list) else ", ".join(v))' "$2"
}

run 0 'a zoned image, options of several kinds' create \
    -o zone.size=4M,zone.capacity=3M,zone.conventional_zones=2 -o zone.max_open_zones=3 \
    -o zone.max_active_zones=5,cluster_size=4K,refcount_bits=32 z.qcow2 64M
is 'create says nothing' '' "$(cat out err)"
while read -r key value; do
    is "$key is $value" "$value" "$(member z.qcow2 "$key")"
done <<'MEMBERS'
filename z.qcow2
virtual_size 67108864
zone_size 4194304
zone_capacity 3145728
nr_zones 16
nr_conventional 2
max_open_zones 3
max_active_zones 5
open_zones 0
active_zones 0
max_append_bytes 3145728
block_size 512
cluster_size 4096
refcount_bits 32
version 3
layout 44
compression_type 0
incompatible_features 32
features zoned format
MEMBERS
is 'file_size is the size of the file' "$(stat -c %s z.qcow2)" "$(member z.qcow2 file_size)"
run 0 'info as JSON' info --json z.qcow2
verdict $(python3 -m json.tool <out >/dev/null; echo $?) 'it is JSON'
run 0 'info as text' info z.qcow2
has 'text: the image' out '^image: z\.qcow2$'
has 'text: zones' out '^zones: 16, 2 of them conventional$'
has 'text: limits' out '^open zones: 0 of at most 3$'
has 'text: the layout' out '^zoned layout: 44$'
has 'text: the feature' out '^feature: zoned format$'

run 0 'zone.mode alone' create -o zone.mode=host-managed m.qcow2 1G
is 'makes zones of 256 MiB' 268435456 "$(member m.qcow2 zone_size)"
is 'four of them' 4 "$(member m.qcow2 nr_zones)"
run 0 'zone.size alone' create -o zone.size=128M,size=1G s.qcow2
is 'makes a zoned image' 8 "$(member s.qcow2 nr_zones)"
run 0 'neither' create -o lazy_refcounts=on p.qcow2 10M
is 'makes a plain one' 0 "$(member p.qcow2 nr_zones)"
is 'which has no layout' None "$(member p.qcow2 layout)"
is 'lazy_refcounts arrives' 'lazy refcounts' "$(member p.qcow2 features)"
run 0 'extended_l2' create -o extended_l2=on x.qcow2 10M
is 'arrives' 'extended L2 entries' "$(member x.qcow2 features)"
run 0 'extended_l2, with zones' create -o extended_l2=on,zone.size=1M xz.qcow2 10M
is 'arrives, too' 'extended L2 entries' "$(member xz.qcow2 features | tr , '\n' | sed -n 's/^ *\(extended.*\)/\1/p')"
run 0 'compression_type' create -o compression_type=zstd x2.qcow2 10M
is 'arrives' 'compression type' "$(member x2.qcow2 features)"
run 0 'the usual one' create -o compression_type=zlib x3.qcow2 10M
is 'needs no feature' '' "$(member x3.qcow2 features)"
run 0 'zone.mode=none' create -o zone.mode=none n.qcow2 10M
is 'makes a plain one, too' 0 "$(member n.qcow2 nr_zones)"
for layout in 44 48b 56 v7; do
    run 0 "layout $layout" create -o zone.size=4M,zone.layout=$layout "l$layout.qcow2" 64M
    is "is layout $layout" $layout "$(member "l$layout.qcow2" layout)"
    [ $layout = 44 ] && continue
    is "$layout: appends of 64K" 65536 "$(member "l$layout.qcow2" max_append_bytes)"
    run 0 "$layout stores zone.max_append_bytes" create --force \
        -o zone.size=4M,zone.layout=$layout,zone.max_append_bytes=1M "l$layout.qcow2" 64M
    is "$layout: appends of 1M" 1048576 "$(member "l$layout.qcow2" max_append_bytes)"
done
run 0 'a short last zone' create -o zone.size=4M short.qcow2 43516416
is 'counts' 11 "$(member short.qcow2 nr_zones)"

run 0 'descriptor extensions' create -o zone.size=4M,zone.descriptor_extension=192 ext.qcow2 64M
is 'in JSON' 192 "$(member ext.qcow2 descriptor_extension)"
run 0 'as text' info ext.qcow2
has 'has them' out '^descriptor extension: 192 bytes$'

# refused: OPTIONS SIZE REGEX
while read -r options size regex; do
    run 1 "refused: $options $size" create -o "$options" r.qcow2 "$size"
    has "$options: the reason" err "^zqcow2: .*$regex"
    is "$options: no file is left" no "$([ -e r.qcow2 ] && echo yes || echo no)"
done <<'REFUSED'
zone.size=4M,zone.max_append_bytes=64K 64M zone\.max_append_bytes
zone.size=4M,zone.layout=44,zone.max_append_bytes=64K 64M zone\.max_append_bytes
zone.size=4M,zone.descriptor_extension=96 64M zone\.descriptor_extension 96: must be a multiple of 64
zone.size=512,cluster_size=512,zone.descriptor_extension=128 512M zone\.descriptor_extension 128: .* 64 MiB
zone.descriptor_extension=64 64M zone\.descriptor_extension
zone.capacity=1M 64M zone\.capacity
zone.conventional_zones=1 64M zone\.conventional_zones
zone.max_open_zones=1 64M zone\.max_open_zones
zone.max_active_zones=1 64M zone\.max_active_zones
zone.max_append_bytes=64K 64M zone\.max_append_bytes
zone.layout=v7 64M zone\.layout
zone.mode=none,zone.size=4M 64M zone\.size
zone.size=4M,lazy_refcounts=on 64M lazy_refcounts
zone.size=3M 64M zone
zone.size=4K 64M zone
zone.size=0 64M zone\.size
zone.size=4M,zone.capacity=5M 64M capacity
zone.size=4M,zone.capacity=1000 64M capacity
zone.size=4M,zone.conventional_zones=16 64M conventional
zone.size=4M,zone.max_open_zones=5,zone.max_active_zones=4 64M max_
zone.size=4M,zone.layout=v8 64M zone\.layout
zone.size=4M,zone.layout=v3 64M zone\.layout
zone.mode=host-aware 64M zone\.mode
cluster_size=3000 64M cluster_size
cluster_size=256 64M cluster_size
cluster_size=4M 64M cluster_size
refcount_bits=3 64M refcount_bits
refcount_bits=128 64M refcount_bits
refcount_bits=0 64M refcount_bits
refcount_bits=x 64M refcount_bits
lazy_refcounts=perhaps 64M lazy_refcounts
extended_l2=on,cluster_size=8K 64M cluster_size.*16.KiB
extended_l2=maybe 64M extended_l2
compression_type=lzma 64M compression_type.*zstd, zlib
compression=zstd 64M 'compression'
novalue 64M novalue
size=1M 2M size.*twice
cluster_size=64K 1000 size
lazy_refcounts=on,compat=0.10 64M lazy_refcounts:.not.with.compat=0\.10
zone.size=4M 0 size.0:.a.device.with.zones.has.bytes
zone.conventional_zones=4294967296,zone.size=4M 64M zone\.conventional_zones
REFUSED
run 1 'no size at all' create r.qcow2
has 'says so' err 'SIZE'

# A device of size 0, as qemu-img creates one.
run 0 'size 0' create empty.qcow2 0
is 'has no bytes' 0 "$(member empty.qcow2 virtual_size)"
run 0 'size 0: check' check empty.qcow2
run 0 'size 0: map' map --json empty.qcow2
is 'shows nothing' '[]' "$(tr -d '\n' <out)"
run 0 'size 0: convert' convert -O qcow2 empty.qcow2 copied.qcow2
is 'has no bytes either' 0 "$(member copied.qcow2 virtual_size)"
run 0 'size 0: compare' compare empty.qcow2 copied.qcow2
run 0 'size 0: measure' measure -O qcow2 --size=0
is 'as large as the file' "$(stat -c %s empty.qcow2)" "$(sed -n 's/^required size: //p' out)"
run 0 'size 0 of a backing file' create -b empty.qcow2 -F qcow2 above.qcow2
is 'is inherited' 0 "$(member above.qcow2 virtual_size)"
run 0 'size 0 above another size' create -b p.qcow2 -F qcow2 above0.qcow2 0
is 'is not inherited' 0 "$(member above0.qcow2 virtual_size)"
run 1 'size 0 above zones' create -b z.qcow2 above1.qcow2 0
has 'is refused' err 'size 0: the backing file has zones'
run 0 'size 0: grows' resize empty.qcow2 1M
run 0 'and takes data' io -c 'write -P 7 0 1M' empty.qcow2
run 0 'which is there' io -c 'read -P 7 0 1M' empty.qcow2
run 0 'grown: check' check empty.qcow2

echo 'precious' >file
run 1 'an existing file' create file 1M
has 'is named, and the way out' err '^zqcow2: file: .*exists.*--force'
is 'and left alone' precious "$(cat file)"
run 0 '--force' create --force file 1M
is 'overwrites it' 1048576 "$(member file virtual_size)"
# A create that fails half-way leaves the old image: here the file may not grow as far as it must.
cp file before
cat >small.sh <<'END'
trap '' XFSZ
ulimit -f 64
exec "$@"
END
ran='create --force under ulimit -f 64'
sh small.sh "$tool" create --force -o cluster_size=2M file 1G >out 2>err
is 'a --force that fails' 1 $?
has 'is reported by the name of the file' err '^zqcow2: file: .*File too large'
same 'leaves the old image as it was' before file
is 'and nothing beside it' '' "$(find . -name '.zqcow2.*')"
for delay in 0 0.002 0.004 0.01 0.02 0.05; do
    "$tool" create --force -o cluster_size=512,refcount_bits=64 file 4G >out 2>err &
    sleep $delay
    kill -TERM $! 2>/dev/null
    { wait $!; } 2>/dev/null
    is "ended after $delay s: leaves nothing beside it" '' "$(find . -name '.zqcow2.*')"
    run 0 'and an image in its place' check file
done
run 0 'a small one' create --force file 1M
chmod 640 file
ln -s file link
run 0 '--force through a symbolic link' create --force link 3M
is 'replaces what it points to' 3145728 "$(member file virtual_size)"
is 'which stays a link' file "$(readlink link)"
is 'the mode stays' 640 "$(stat -c %a file)"
mkdir closed
cp file closed/
chmod 555 closed
if [ "$(id -u)" != 0 ]; then
    run 0 'a folder that takes no new file' create --force closed/file 1M
    is 'its file is written over' 1048576 "$(member closed/file virtual_size)"
fi
chmod 755 closed

# An image in use is not replaced.
mkfifo hold
"$tool" io file <hold >held 2>&1 &
holder=$!
exec 3>hold
echo length >&3
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -s held ] && break
    sleep 0.2
done
cp file before
run 1 'create --force on an image in use' create --force file 5M
has 'says so' err '^zqcow2: file: in use: locked by another program, or by this one'
same 'and leaves it' before file
exec 3>&-
wait $holder
run 0 'when it is free again' create --force file 1M
run 1 '--force with options that cannot be' create --force -o cluster_size=3000 file 2M
is 'leaves the old image' 1048576 "$(member file virtual_size)"
run 1 'a directory that is not there' create no/such/dir.qcow2 1M
has 'is named' err '^zqcow2: no/such/dir\.qcow2: No such file'
cp /dev/null empty
head -c 65536 /dev/zero >zeros
run 1 'info of an empty file' info empty
mkfifo pipe
for name in pipe /dev/null; do
    for verb in info check 'create --force'; do
        size=
        [ "$verb" = 'create --force' ] && size=1M
        # shellcheck disable=SC2086
        run 1 "$verb of $name" $verb $name $size
        is "$verb: says what it is not" "zqcow2: $name: not a regular file or block device" \
            "$(cat err)"
    done
done

# Numbers that are out of range: with the range.
while read -r options range; do
    run 1 "refused: $options" create -o "$options" r.qcow2 64M
    has "$options: with the range" err "out of range \\($range\\)$"
done <<'RANGES'
cluster_size=4G 512 to 2M
cluster_size=256 512 to 2M
refcount_bits=128 1 to 64
zone.size=0 512 to 4E
zone.size=4M,zone.capacity=8E 512 to zone\.size
zone.size=4M,zone.conventional_zones=4294967296 0 to 4294967295
zone.size=4M,zone.max_open_zones=4294967296 0 to 4294967295
zone.size=4M,zone.layout=v7,zone.max_append_bytes=4G 512 to 4G - 1
RANGES
run 1 'a size that is out of range' create r.qcow2 5E
is 'with the range' 'zqcow2: size: 5E is out of range (0, or 512 to 4E)' "$(cat err)"
run 1 'info of zeros' info zeros
has 'reports that it is not qcow2' err '^zqcow2: zeros: .*qcow2'

name=$(printf 'a"b\\c\n\377.qcow2')
run 0 'a file name with odd bytes' create "$name" 1M
run 0 'its info' info --json "$name"
verdict $(python3 -m json.tool <out >/dev/null; echo $?) 'is JSON all the same'
has 'with a sign for the byte that is no UTF-8' out 'a\\"b.*\\ufffd\.qcow2'
run 0 'its info as text' info "$name"
is 'one line for the name' 'image: a"b\c\n\xff.qcow2' "$(head -n 1 out)"

# Control characters of a name are shown, not sent to the terminal, whatever names it.
name=$(printf 'e\033[31m\r\t\177\302\2331m.qcow2')
shown='e\x1b[31m\r\t\x7f\u009b1m.qcow2'
is 'no such file' "zqcow2: $shown: No such file or directory" "$("$tool" info "$name" 2>&1)"
is 'an operand too many' "zqcow2: info: unexpected operand '$shown'; see zqcow2 info --help" \
    "$("$tool" info file "$name" 2>&1)"
is 'an unknown verb' "zqcow2: unknown verb '$shown'; see zqcow2 --help" "$("$tool" "$name" 2>&1)"
is 'a source of io' 'e\x1b[31m: No such file or directory' \
    "$(printf 'write -s e\033[31m 0 512\n' | "$tool" io file 2>&1)"
run 0 'an image of that name' create -o zone.size=1M "$name" 4M
run 0 'its map' report --map "$name"
lacks 'is clean' out "$(printf '[\001-\010\013-\037\177]')"
run 1 'an error of its zones' finish -o 5M "$name"
lacks 'is clean, too' err "$(printf '[\001-\010\013-\037\177]')"

# The space that the file takes of its file system.
run 0 'an image' create --force disk.qcow2 64M
blocks=$(($(stat -c %b disk.qcow2) * 512))
run 0 'info' info --json disk.qcow2
is 'disk_size' $blocks "$(member disk.qcow2 disk_size)"
is 'is less than its length' yes "$([ $blocks -lt "$(stat -c %s disk.qcow2)" ] && echo yes)"
head -c 1048576 /dev/zero | tr '\0' x | "$tool" write disk.qcow2 0
run 0 'info with data' info disk.qcow2
has 'disk size' out "^disk size: .* \\($(($(stat -c %b disk.qcow2) * 512)) bytes\\)$"
is 'has grown' yes "$([ "$(member disk.qcow2 disk_size)" -ge $((blocks + 1048576)) ] && echo yes)"
# What a newcomer may try.
mkdir folder
run 1 'a folder' create folder 1M
is 'is not to be replaced' 'zqcow2: folder: is a folder; give the name of a file' "$(cat err)"
run 1 'a format alone' create -F qcow2 alone.qcow2 1M
is 'asks for the file' 'zqcow2: create: -F is the format of a backing file: give -b BASE, too' "$(cat err)"
run 1 'a backing file without a name' create -b '' alone.qcow2 1M
has 'is a mistake' err '^zqcow2: create: -b needs the name'
verdict $([ ! -e alone.qcow2 ]; echo $?) 'and nothing is left of it'

# The older version of the format.
run 0 'version 2' create -o compat=0.10 v2.qcow2 1M
is 'is stored' 2 "$(member v2.qcow2 version)"
run 0 'and written' io -c 'write -q -P 1 0 64k' -c 'write -q -z 0 4k' -c 'read -q -P 1 4k 60k' v2.qcow2
run 0 'clean' check v2.qcow2
lacks 'nor marked as in use' out warning
after() {
    run 0 "$1: clean" check v2.qcow2
    lacks "$1: not marked" out warning
}
for how in '-c one' '-a one' '-d one'; do
    run 0 "snapshot $how" snapshot $how v2.qcow2
    after "snapshot $how"
done
for size in 2M 1M; do
    run 0 "resize to $size" resize --shrink v2.qcow2 $size
    after "resize to $size"
done
run 0 'a layer of version 2' create -o compat=0.10 -b v2.qcow2 -F qcow2 top.qcow2
run 0 'written' io -c 'write -q 64k 4k' top.qcow2
run 0 'committed' commit top.qcow2
after commit
run 0 'above another' create -o compat=v2 -b v2.qcow2 -F qcow2 o2.qcow2
is 'too' 2 "$(member o2.qcow2 version)"
run 0 'version 3 by name' create -o compat=1.1 v3.qcow2 1M
is 'is stored' 3 "$(member v3.qcow2 version)"
run 1 'what version 2 has no room for' create -o compat=0.10,zone.size=1M no.qcow2 4M
has 'is named' err 'compat 0.10 has no zones'
echo content >kept
run 1 'a data file' create --force -o compat=0.10,data_file=kept no.qcow2 1M
is 'is left as it is' content "$(cat kept)"
verdict $([ ! -e no.qcow2 ]; echo $?) 'and no image is there'
run 1 'a copy' convert -O qcow2 -o compat=0.10 v3.qcow2 no.qcow2
has 'has version 3' err 'compat: DST has version 3'
finish
