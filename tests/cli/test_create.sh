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

# refused: OPTIONS SIZE REGEX
while read -r options size regex; do
    run 1 "refused: $options $size" create -o "$options" r.qcow2 "$size"
    has "$options: the reason" err "^zqcow2: .*$regex"
    is "$options: no file is left" no "$([ -e r.qcow2 ] && echo yes || echo no)"
done <<'REFUSED'
zone.size=4M,zone.max_append_bytes=64K 64M zone\.max_append_bytes
zone.size=4M,zone.layout=44,zone.max_append_bytes=64K 64M zone\.max_append_bytes
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
compression=zstd 64M 'compression'
novalue 64M novalue
size=1M 2M size.*twice
cluster_size=64K 1000 size
cluster_size=64K 0 size
zone.conventional_zones=4294967296,zone.size=4M 64M zone\.conventional_zones
REFUSED
run 1 'no size at all' create r.qcow2
has 'says so' err 'SIZE'

echo 'precious' >file
run 1 'an existing file' create file 1M
has 'is named, and the way out' err '^zqcow2: file: .*exists.*--force'
is 'and left alone' precious "$(cat file)"
run 0 '--force' create --force file 1M
is 'overwrites it' 1048576 "$(member file virtual_size)"
run 1 '--force with options that cannot be' create --force -o cluster_size=3000 file 2M
is 'leaves the old image' 1048576 "$(member file virtual_size)"
run 1 'a directory that is not there' create no/such/dir.qcow2 1M
has 'is named' err '^zqcow2: no/such/dir\.qcow2: No such file'
cp /dev/null empty
head -c 65536 /dev/zero >zeros
run 1 'info of an empty file' info empty
run 1 'info of zeros' info zeros
has 'tells that it is not qcow2' err '^zqcow2: zeros: .*qcow2'

name=$(printf 'a"b\\c\n\377.qcow2')
run 0 'a file name with odd bytes' create "$name" 1M
run 0 'its info' info --json "$name"
verdict $(python3 -m json.tool <out >/dev/null; echo $?) 'is JSON all the same'
has 'with a sign for the byte that is no UTF-8' out 'a\\"b.*\\ufffd\.qcow2'
finish
