#!/bin/sh
# SPDX-License-Identifier: MIT
# test_nbdkit.sh ZQCOW2 PLUGIN: the nbdkit plugin of the examples, with nbdinfo, nbdcopy, qemu-img.
. "$(dirname "$0")/../cli/lib.sh"
plugin=${2:-}
[ -n "$plugin" ] || skip 'built without nbdkit-plugin-dev, or instrumented'
for program in nbdkit nbdinfo nbdcopy qemu-img qemu-io; do
    command -v $program >/dev/null || skip "$program is not installed"
done

# export WANTED NAME COMMAND ARGUMENT...: a shell command with $uri while the plugin serves.
export_image() {
    wanted=$1
    name=$2
    command=$3
    shift 3
    ran="nbdkit -U - nbdkit_plugin.so $* --run '$command'"
    timeout 100 nbdkit -U - "$plugin" "$@" --run "$command" >out 2>err
    got=$?
    verdict $([ $got = "$wanted" ]; echo $?) "$name" && return 0
    echo "# exit status $got, not $wanted"
    show
}

# A plain image: everything that NBD has.
run 0 'a plain image' create plain.qcow2 8M
random 8388608 1 >data
export_image 0 'nbdinfo' 'nbdinfo "$uri"' file=plain.qcow2
has 'size' out 'export-size: 8388608'
for word in can_trim can_zero can_fast_zero can_fua can_flush can_multi_conn; do
    has $word out "$word: true"
done
has 'blocks' out 'block_size_minimum: 512'
export_image 0 'nbdcopy to the image' 'nbdcopy data "$uri"' file=plain.qcow2
run 0 'is clean' check plain.qcow2
"$tool" read plain.qcow2 0 8M >got
same 'and the image holds the data' data got
export_image 0 'nbdcopy from the image' 'nbdcopy "$uri" got2' file=plain.qcow2 readonly=true
same 'gives the data' data got2
export_image 0 'qemu-img compares' 'qemu-img compare -f raw -F raw "$uri" data' file=plain.qcow2
export_image 0 'write, zero, trim, flush' 'qemu-io -f raw -c "write -f -P 7 64k 512" \
    -c "write -z 1M 64k" -c "discard 2M 1M" -c "read -v 64k 512" -c "read -P 0 1M 64k" \
    -c "read -P 0 2M 1M" -c flush "$uri" | tee /dev/stderr | { ! grep -qi "fail\|error"; }' \
    file=plain.qcow2
run 0 'is still clean' check plain.qcow2
export_image 1 'read-only takes no write' 'qemu-io -f raw -c "write 0 512" "$uri"' \
    file=plain.qcow2 readonly=true

# A zoned image: holes beyond write pointers; writes go where the write pointer is.
run 0 'a zoned image' create -o zone.size=1M -o zone.capacity=512k \
    -o zone.conventional_zones=1 zoned.qcow2 4M
head -c 131072 data >piece
run 0 'zone 1' io -c 'write -q -P 5 1M 64k' -c 'flush' zoned.qcow2
export_image 0 'nbdinfo --map' 'nbdinfo --map "$uri"' file=zoned.qcow2
is 'shows the zones' '0 1114112 0
1114112 3080192 3' "$(awk '{ print $1, $2, $3 }' out)"
export_image 0 'a write at the write pointer' 'qemu-io -f raw -c "write -P 6 1088k 4k" "$uri"' \
    file=zoned.qcow2
is 'moves it' $((1048576 + 65536 + 4096)) "$(zone zoned.qcow2 1 write_pointer)"
export_image 1 'another is refused' 'qemu-io -f raw -c "write 2M+512 512" "$uri"' file=zoned.qcow2
export_image 0 'qemu-img convert' 'qemu-img convert -f raw -O raw "$uri" got3' file=zoned.qcow2
"$tool" read zoned.qcow2 0 4M >got4
same 'copies what the tool reads' got3 got4
run 0 'a clean end' check zoned.qcow2

ran='nbdkit -f nbdkit_plugin.so file=data'
timeout 20 nbdkit -f -U socket "$plugin" file=data >out 2>err
is 'no image' 1 $?
has 'is refused by name' err 'data: '
export_image 1 'no file' 'true' readonly=true
has 'says which parameter' err 'file=IMAGE is missing'
finish
