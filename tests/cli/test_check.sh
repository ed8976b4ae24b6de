#!/bin/sh
# SPDX-License-Identifier: MIT
# check: exit status 0, 1, 2, 3 as with qemu-img, JSON, repairs.
. "$(dirname "$0")/lib.sh"

# count KEY: of check --json's output in out.
count() {
    python3 -c '
import json, sys
print(json.load(open("out"))[sys.argv[1]])' "$1"
}

# poke FILE OFFSET HEX
poke() {
    python3 -c '
import sys
f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); f.write(bytes.fromhex(sys.argv[3]))' "$@"
}

# offset FILE OFFSET: the host offset that an 8-byte field of the file holds, without its flags.
offset() {
    python3 -c '
import sys
f = open(sys.argv[1], "rb"); f.seek(int(sys.argv[2]))
print(int.from_bytes(f.read(8), "big") & 0xfffffffffffe00)' "$@"
}

run 0 'an image' create -o zone.size=4M,zone.capacity=3M,zone.conventional_zones=1 z.qcow2 32M
random 300032 1 >data
"$tool" write z.qcow2 64K <data >out 2>err
is 'data in the conventional zone' 0 $?
"$tool" append z.qcow2 4M <data >out 2>err
is 'and in another' 0 $?

run 0 'a clean image' check z.qcow2
has 'text: no errors' out '^no errors$'
run 0 'as JSON' check --json z.qcow2
verdict $(python3 -m json.tool <out >/dev/null; echo $?) 'it is JSON'
is 'no corruptions' 0 "$(count corruptions)"
is 'no leaks' 0 "$(count leaked_clusters)"
is 'clusters of the device' 512 "$(count total_clusters)"
is 'the name' z.qcow2 "$(count filename)"
run 0 'nothing to repair' check --repair z.qcow2

# Bitmaps, as info lists them; one that is in use, and a directory that cannot be read.
run 0 'an image with bitmaps' create m.qcow2 16M
run 0 'two' bitmap --add -g 4K m.qcow2 one
run 0 'of which one' bitmap --add m.qcow2 two
run 0 'is disabled' bitmap --disable m.qcow2 two
run 0 'written' io -c 'write 1M 64K' m.qcow2
run 0 'check' check m.qcow2
grep '^bitmap: ' out >checked
is 'names both' 'bitmap: one, granularity 4 KiB, enabled, 64 KiB dirty
bitmap: two, granularity 64 KiB, disabled, 0 bytes dirty' "$(cat checked)"
run 0 'info' info m.qcow2
grep '^bitmap: ' out >informed
same 'as info does' checked informed
# bitmaps: of check --json's output: name, flags, dirty bytes.
bitmaps() {
    python3 -c '
import json
for b in json.load(open("out"))["bitmaps"]:
    print(b["name"], *b["flags"], b.get("dirty-bytes"))'
}
run 0 'as JSON' check --json m.qcow2
is 'has both' 'one auto 65536
two 0' "$(bitmaps)"
directory=$(python3 -c '
f = open("m.qcow2", "rb").read(4096)
at = int.from_bytes(f[100:104], "big")
while int.from_bytes(f[at:at + 4], "big") != 0x23852875:
    at += 8 + (int.from_bytes(f[at + 4:at + 8], "big") + 7) // 8 * 8
print(int.from_bytes(f[at + 24:at + 32], "big"))')
poke m.qcow2 $((directory + 12)) 00000003
run 0 'one that is in use' check m.qcow2
has 'is inconsistent' out '^bitmap: one, granularity 4 KiB, inconsistent$'
run 0 'as JSON, too' check --json m.qcow2
is 'without a number' 'one in-use auto None
two 0' "$(bitmaps)"
poke m.qcow2 $((directory + 16)) 09
run 2 'a broken one' check --json m.qcow2
is 'is found, and not listed' '' "$(bitmaps)"
is 'nor is there an error' '' "$(cat err)"

# A leak: a cluster at the file's end with a refcount that nothing accounts for.
# The refcounts are 16 bits wide; the refcount table is at the header's field 48.
cp z.qcow2 leak.qcow2
table=$(offset leak.qcow2 48)
block=$(offset leak.qcow2 "$table")
end=$(($(stat -c %s leak.qcow2) / 65536))
truncate -s $(((end + 1) * 65536)) leak.qcow2
poke leak.qcow2 $((block + 2 * end)) 0001
run 3 'a leak' check leak.qcow2
has 'is reported' out '^leak at 0x'
has 'and counted' out '^1 leaked cluster found'
run 3 'as JSON' check --json leak.qcow2
is 'one leak' 1 "$(count leaked_clusters)"
is 'no corruption' 0 "$(count corruptions)"
has 'with its kind' out '"kind": "leak"'
run 0 'its repair' check --repair=leaks leak.qcow2
has 'is reported' out '1 repaired'
run 0 'and lasts' check leak.qcow2
has 'nothing is left' out '^no errors$'

# A corruption: the refcount of a cluster in use is 0.
cp z.qcow2 corrupt.qcow2
l1=$(offset corrupt.qcow2 40)
l2=$(offset corrupt.qcow2 "$l1")
cluster=$(offset corrupt.qcow2 $((l2 + 8)))
poke corrupt.qcow2 $((block + 2 * (cluster / 65536))) 0000
run 2 'a corruption' check corrupt.qcow2
has 'is reported' out '^corruption: '
run 2 'repair of leaks only' check --repair=leaks corrupt.qcow2
run 2 'as JSON' check --json corrupt.qcow2
verdict $(python3 -m json.tool <out >/dev/null; echo $?) 'it is JSON'
is 'counted' yes "$([ "$(count corruptions)" -ge 1 ] && echo yes)"
run 0 'its repair' check --repair corrupt.qcow2
run 0 'lasts' check corrupt.qcow2
"$tool" read corrupt.qcow2 64K 300032 >out 2>err
random 300032 1 >data
same 'and the data are there' data out

run 1 'a missing file' check missing.qcow2
run 1 'a missing file as JSON' check --json missing.qcow2
is 'is JSON with the error' 'No such file or directory' "$(count error)"
has 'and on standard error' err '^zqcow2: missing\.qcow2: No such file or directory$'
is 'with the name' missing.qcow2 "$(count filename)"
is 'and no findings' '[]' "$(count findings)"
run 1 'a device that is none for images, as JSON' check --json /dev/null
is 'is JSON' 'not a regular file or block device' "$(count error)"
run 1 'a mistake before --json' check --repair=everything --json z.qcow2
is 'is JSON' "--repair: 'everything' is not one of leaks, refcounts, all" "$(count error)"
run 1 'no file' check --json
is 'is JSON' 'check: FILE is missing; see zqcow2 check --help' "$(count error)"
head -c 100000 /dev/zero >zeros
run 1 'a file that is no image' check zeros
has 'is reported' err '^zqcow2: zeros: cannot be checked: '
is 'and nothing on stdout' '' "$(cat out)"
run 1 'the same as JSON' check --json zeros
verdict $(python3 -m json.tool <out >/dev/null; echo $?) 'is JSON all the same'
run 1 'an unknown repair' check --repair=everything z.qcow2
run 1 'repair without a lock' check --repair -U z.qcow2
cp z.qcow2 busy.qcow2
mkfifo hold
"$tool" io busy.qcow2 <hold >held 2>&1 &
holder=$!
exec 3>hold
echo length >&3
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -s held ] && break
    sleep 0.2
done
run 1 'an image in use' check busy.qcow2
run 1 'an image in use, as JSON' check --json busy.qcow2
is 'is JSON' 'in use: locked by another program, or by this one through another backend' \
    "$(count error)"
run 1 'repair of one in use' check --repair busy.qcow2
exec 3>&-
wait $holder
run 0 'when it is free again' check busy.qcow2
finish
