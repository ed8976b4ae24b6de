#!/bin/sh
# SPDX-License-Identifier: MIT
# rebase: the same content on another backing file, as qemu-img sees it; names, formats, refusals.
. "$(dirname "$0")/lib.sh"

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
    echo '# no qemu-img here'
    exit 77
fi
# fill FILE FORMAT COMMAND...
fill() {
    fill_file=$1
    fill_format=$2
    shift 2
    for c in "$@"; do
        qemu-io -f "$fill_format" -c "$c" "$fill_file" >/dev/null || echo "# failed: $c"
    done
}
qemu-img create -q -f raw a.raw 1M
fill a.raw raw 'write -P 1 0 600k'
qemu-img create -q -f qcow2 b.qcow2 3M
fill b.qcow2 qcow2 'write -P 1 0 300k' 'write -P 2 300k 900k' 'write -z 2M 64k' 'write -P 3 2560k 64k'

# same_content NAME: top.qcow2 has what saved.raw has, to both programs.
same_content() {
    ran='qemu-img compare'
    qemu-img compare -q -f raw -F qcow2 saved.raw top.qcow2 >out 2>err
    verdict $? "$1: the content is the same" || show
    qemu-img check -q top.qcow2 >out 2>err
    verdict $? "$1: qemu-img check" || show
    run 0 "$1: check" check top.qcow2
}
for opts in '' 'compat=0.10' 'extended_l2=on' 'cluster_size=512' 'compression_type=zstd'; do
    rm -f top.qcow2
    qemu-img create -q -f qcow2 ${opts:+-o "$opts"} -b a.raw -F raw top.qcow2 2M
    fill top.qcow2 qcow2 'write -P 4 100k 70k' 'write -z 500k 90k' 'write -P 5 1500k 3k'
    qemu-img convert -f qcow2 -O raw top.qcow2 saved.raw
    run 0 "[$opts] onto another format" rebase -b b.qcow2 -F qcow2 top.qcow2
    run 0 'info' info top.qcow2
    has 'names the new one' out '^backing file: b\.qcow2$'
    has 'and its format' out '^backing file format: qcow2$'
    is 'qemu-img reads the name, too' 'b.qcow2 qcow2' "$(qemu-img info --output=json top.qcow2 |
        python3 -c 'import json, sys
i = json.load(sys.stdin); print(i["backing-filename"], i["backing-filename-format"])')"
    same_content "[$opts] onto another"
    long=$(printf '%0300d' 0).qcow2
    case $opts in cluster_size=512) long=b2.qcow2 ;; *) long=$(printf '%0200d' 0).qcow2 ;; esac
    ln -f b.qcow2 "$long"
    run 0 'a longer name' rebase -u -b "$long" -F qcow2 top.qcow2
    same_content "[$opts] a longer name"
    run 0 'back' rebase -b a.raw -F raw top.qcow2
    same_content "[$opts] back"
    run 0 'onto nothing' rebase -b '' top.qcow2
    run 0 'info' info top.qcow2
    lacks 'has no backing file' out 'backing'
    same_content "[$opts] alone"
done

qemu-img create -q -f qcow2 -b a.raw -F raw top.qcow2 2M
qemu-img convert -f qcow2 -O raw top.qcow2 saved.raw
mkdir moved
mv a.raw moved
run 1 'a backing file that has gone' rebase -b b.qcow2 -F qcow2 top.qcow2
has 'is named' err 'top\.qcow2: backing file "a\.raw": No such file'
run 0 'its new name' rebase -u -b moved/a.raw -F raw top.qcow2
same_content 'moved'
run 1 'a new one that there is not' rebase -b none.qcow2 -F qcow2 top.qcow2
has 'is named' err 'top\.qcow2: backing file "none\.qcow2": No such file'
run 1 'the image itself' rebase -b top.qcow2 -F qcow2 top.qcow2
has 'is refused' err 'returns to the same file'
run 1 'outside of a folder' rebase --backing-root=moved -b b.qcow2 -F qcow2 top.qcow2
has 'is refused' err 'lies outside'
run 1 'no format' rebase -b b.qcow2 top.qcow2
has 'is refused' err '-F raw'
run 1 'no base' rebase top.qcow2
has 'is refused' err 'give -b BASE'
run 1 'a format that there is not' rebase -b b.qcow2 -F vdi top.qcow2
has 'is refused' err 'must be raw or qcow2'
qemu-img snapshot -c s top.qcow2
run 1 'with snapshots' rebase -b b.qcow2 -F qcow2 top.qcow2
has 'is refused' err 'snapshots'
same_content 'after all of it'

# Zones: only onto the same zones.
run 0 'a zoned base' create -o zone.size=1M z1.qcow2 4M
head -c 307200 /dev/urandom | "$tool" append -q z1.qcow2 0
cp z1.qcow2 z2.qcow2
head -c 307200 /dev/urandom | "$tool" append -q z1.qcow2 1M
run 0 'an overlay' create -b z1.qcow2 ztop.qcow2
run 0 'its content' convert ztop.qcow2 z.raw
same_zones() {
    run 0 "$1: convert" convert --force ztop.qcow2 now.raw
    cmp z.raw now.raw >out 2>err
    verdict $? "$1: the content is the same" || show
    run 0 "$1: check" check ztop.qcow2
}
run 1 'only the name, but not the same pointers' rebase -u -b z2.qcow2 -F qcow2 ztop.qcow2
has 'is refused' err 'zone 1 has data in the old backing file only'
run 0 'onto one that lacks a zone' rebase -b z2.qcow2 -F qcow2 ztop.qcow2
same_zones 'onto another'
mv z2.qcow2 z3.qcow2
run 0 'moved' rebase -u -b z3.qcow2 -F qcow2 ztop.qcow2
same_zones 'moved'
run 1 'onto a raw file' rebase -b a.raw -F raw ztop.qcow2
has 'is refused' err 'a\.raw|zones'
run 1 'onto one without zones' rebase -b b.qcow2 -F qcow2 ztop.qcow2
has 'is refused' err 'zones'
qemu-img create -q -f qcow2 zoneless.qcow2 4M
run 1 'one without zones onto zones' rebase -b z3.qcow2 -F qcow2 zoneless.qcow2
has 'is refused' err 'zones'
run 1 'the name of none' rebase -u -b '' ztop.qcow2
has 'is refused' err 'zone 0 has data'
run 0 'onto nothing' rebase -b '' ztop.qcow2
rm z1.qcow2 z3.qcow2
same_zones 'alone'

# A raw data file has all data itself.
qemu-img create -q -f qcow2 -o data_file=data.raw,data_file_raw=on file.qcow2 1M
qemu-io -f qcow2 -c 'write -P 7 64k 64k' file.qcow2 >out || exit 1
run 1 'a raw data file' rebase -b b.qcow2 -F qcow2 file.qcow2
has 'is refused' err 'raw data file'
run 1 'a raw data file, only the name' rebase -u -b b.qcow2 -F qcow2 file.qcow2
has 'is refused' err 'raw data file'
run 0 'none to none' rebase -b '' file.qcow2
qemu-img info file.qcow2 >out
has 'the data file is still raw' out 'data file raw: true'
run 0 'check' check file.qcow2
finish
