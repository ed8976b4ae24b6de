#!/bin/sh
# SPDX-License-Identifier: MIT
# compact: full zones compressed in place. With the feature bit cleared a copy of the image is a
# plain one for qemu-img, which reads the compressed clusters and counts the references.
. "$(dirname "$0")/lib.sh"

text() {
    python3 -c '
import random, sys
r = random.Random(7)
words = ["zone", "cluster", "table", "round", "barrier", "entry", "write", "pointer"]
n = int(sys.argv[1])
sys.stdout.write("".join(r.choice(words) + " " for i in range(n))[:n])' "$1"
}
used() {
    du -k "$1" | cut -f1
}

run 1 'refused: no file' compact none.qcow2
run 0 'a plain image' create p.qcow2 8M
run 1 'refused: no zones' compact p.qcow2
has 'says so' err 'only images with zones'
run 0 'a data file' create -o zone.size=4M,data_file=d.data d.qcow2 16M
run 1 'refused: a data file' compact d.qcow2
has 'says so' err 'data file has no compressed clusters'
for bad in --level=0 --level=23 -j0 -j65; do
    run 1 "refused: $bad" compact "$bad" d.qcow2
    has 'says so' err 'is out of range'
done

text 4194304 >text
random 4194304 1 >noise
for type in zlib zstd; do
    run 0 "$type" create --force -o "zone.size=4M,zone.conventional_zones=1,compression_type=$type" z.qcow2 40M
    run 1 "$type: a level that it does not have, or another one" compact --level=30 z.qcow2
    "$tool" write z.qcow2 0 <text >out 2>err
    is "$type: a conventional zone" 0 $?
    for zone in 4M 8M 12M; do
        "$tool" append z.qcow2 "$zone" <text >out 2>err
        is "$type: a full zone" 0 $?
    done
    "$tool" append z.qcow2 16M <noise >out 2>err
    head -c 1048576 text | "$tool" append z.qcow2 20M >out 2>err
    is "$type: an open zone" 0 $?
    run 0 "$type: a finished one" finish -o 20M -c 1 z.qcow2
    head -c 1048576 text | "$tool" append z.qcow2 24M >out 2>err
    "$tool" report z.qcow2 >before.report
    run 0 "$type: as it is" convert --force -O raw z.qcow2 before.raw
    before=$(used z.qcow2)
    cp z.qcow2 old.qcow2
    run 0 "$type: compact" compact -j 3 z.qcow2
    has "$type: says what it saved" out '^z\.qcow2: 208 of 272 clusters compressed: 13 MiB became .* saved$'
    after=$(used z.qcow2)
    verdict "$([ "$after" -lt $((before - 9000)) ]; echo $?)" "$type: the host has the space again" ||
        echo "# $before KiB before, $after after"
    "$tool" report z.qcow2 >after.report
    same "$type: the same zones" before.report after.report
    run 0 "$type: reading" convert --force -O raw z.qcow2 after.raw
    same "$type: the same content" before.raw after.raw
    run 0 "$type: check" check z.qcow2
    lacks "$type: nothing leaks" out leak
    run 0 "$type: again" compact --level=9 -j 1 z.qcow2
    has "$type: has nothing to do" out ' 0 of 64 clusters compressed'
    run 0 "$type: a zone is reset" reset -o 4M -c 1 z.qcow2
    "$tool" append z.qcow2 4M <noise >out 2>err
    is "$type: and written again" 0 $?
    run 0 "$type: reading it" read z.qcow2 4M 4M
    same "$type: as it was written" noise out
    run 0 "$type: check" check z.qcow2
    lacks "$type: nothing leaks then" out leak

    if command -v qemu-img >/dev/null; then
        "$tool" compact old.qcow2 >out 2>err
        is "$type: another copy" 0 $?
        bits=$(dd if=old.qcow2 bs=1 skip=79 count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
        printf "\\$(printf %o $((bits & ~32)))" | dd of=old.qcow2 bs=1 seek=79 conv=notrunc 2>/dev/null
        ran='qemu-img compare'
        qemu-img compare -q -f qcow2 -F raw old.qcow2 before.raw >out 2>err
        verdict $? "$type: qemu-img reads the same" || show
        ran='qemu-img check'
        qemu-img check --output=json -f qcow2 old.qcow2 >out 2>err
        # The write-pointer table is one cluster, which qemu-img does not know.
        is "$type: qemu-img finds nothing but the table of write pointers" '0 1 208' "$(python3 -c '
import json
d = json.load(open("out"))
print(d.get("corruptions", 0), d.get("leaks", 0), d.get("compressed-clusters", 0))')"
    fi
done

# Levels: the highest is not worse than the lowest.
for level in 1 9; do
    run 0 'an image' create --force -o zone.size=4M z.qcow2 8M
    "$tool" append z.qcow2 0 <text >out 2>err
    run 0 "level $level" compact --level=$level z.qcow2
    sed 's/.* became //; s/,.*//' out >"level.$level"
done
verdict "$(cmp -s level.1 level.9 && echo 1 || echo 0)" 'levels make a difference' ||
    echo "# $(cat level.1) and $(cat level.9)"
finish
