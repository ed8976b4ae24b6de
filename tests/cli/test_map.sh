#!/bin/sh
# SPDX-License-Identifier: MIT
# map: against qemu-img map on images of all shapes; what it shows of zones; ranges.
. "$(dirname "$0")/lib.sh"

# compare NAME IMAGE: the same rows as qemu-img's, except for the key that only newer ones have, and
# for holes in data: in a file that looks preallocated it asks the file system for them, we do not.
compare() {
    ran="zqcow2 map --json $2"
    "$tool" map --json "$2" >ours 2>err && qemu-img map --output=json "$2" >theirs 2>>err &&
        python3 - ours theirs >>err 2>&1 <<'END'
import json, sys
ours, theirs = (json.load(open(f)) for f in sys.argv[1:])
for row in ours + theirs:
    row.pop('compressed', None)
    if row['data']:
        row['zero'] = False
joined = []
for row in theirs:
    last = joined[-1] if joined else {'offset': None}
    if 'offset' in row and last.get('offset') is not None and row['data'] and last['data'] and \
            row['offset'] == last['offset'] + last['length']:
        last['length'] += row['length']
    else:
        joined.append(row)
theirs = joined
if ours != theirs:
    for i, (a, b) in enumerate(zip(ours, theirs)):
        if a != b:
            sys.exit(f'row {i}: {a}, qemu-img: {b}')
    sys.exit(f'{len(ours)} rows, qemu-img: {len(theirs)}')
END
}

if command -v qemu-img >/dev/null && command -v qemu-io >/dev/null; then
    images=0
    wrong=0
    for seed in $(seq 1 "${ZQ_IMAGES:-40}"); do
        # A random shape, and some writes of data, of zeros with and without clusters, compressed.
        python3 - "$seed" >script <<'END'
import random, sys
r = random.Random(int(sys.argv[1]))
bits = r.choice([9, 12, 14, 16, 16, 16, 18, 21])
version = r.choice(['0.10', '1.1', '1.1'])
size = r.randrange(1, 400) * (512 << r.randrange(0, 6)) + (1 << bits) * r.randrange(0, 300)
wide = 'on' if version == '1.1' and bits >= 14 and r.randrange(2) else 'off'
print(f'-o cluster_size={1 << bits},compat={version},extended_l2={wide}', size)
for _ in range(r.randrange(0, 12)):
    at = r.randrange(0, size // 512) * 512
    length = min(r.randrange(1, 200) * 512 << r.choice([0, 0, 3]), size - at)
    if r.randrange(3) == 0: # compressed writes take whole clusters
        at = at >> bits << bits
        length = 1 << bits
        if at + length > size:
            continue
        print(f'write -c -P 7 {at} {length}')
    else:
        print(r.choice(['write -P 5', 'write -P 6', 'write -z', 'write -zu', 'discard']), at, length)
END
        rm -f q.qcow2
        # shellcheck disable=SC2046 # words: -o OPTIONS SIZE
        set -- $(sed -n 1p script)
        qemu-img create -q -f qcow2 "$1" "$2" q.qcow2 "$3" || continue
        sed 1d script | qemu-io q.qcow2 >/dev/null 2>&1
        images=$((images + 1))
        compare "seed $seed" q.qcow2 && continue
        wrong=$((wrong + 1))
        echo "# seed $seed:"
        sed 's/^/#   /' script err
    done
    echo "# map: $images images, $wrong of them otherwise than qemu-img's"
    verdict $([ "$wrong" = 0 ] && [ "$images" -gt 0 ]; echo $?) 'as qemu-img map'
    qemu-img create -q -f qcow2 q.qcow2 10M
    qemu-io -c 'write 0 128k' -c 'write -z 256k 64k' -c 'write 512k 64k' q.qcow2 >/dev/null
    run 0 'as text' map q.qcow2
    qemu-img map q.qcow2 >wanted
    same 'like theirs' wanted out
else
    echo '# no qemu-img here: not compared'
fi

run 0 'a zoned image' create -o zone.size=1M,zone.conventional_zones=1 z.qcow2 8M
random 8192 1 | "$tool" append --quiet z.qcow2 2M >out 2>err
run 0 'map' map --json z.qcow2
is 'data below the pointer only' '[(0, 2097152, False), (2097152, 8192, True), (2105344, 6283264, False)]' \
    "$(python3 -c 'import json; print([(r["start"], r["length"], r["data"]) for r in json.load(open("out"))])')"
run 0 'of a range' map --json -o 2M -l 4K z.qcow2
is 'is that range' '[(2097152, 4096, True)]' \
    "$(python3 -c 'import json; print([(r["start"], r["length"], r["data"]) for r in json.load(open("out"))])')"
run 0 'a range that goes on' map -o 7M -l 100M z.qcow2
is 'ends with the device' 1 "$(wc -l <out | tr -d ' ')"
run 1 'beyond the device' map -o 8M z.qcow2
has 'is refused' err '^zqcow2: z\.qcow2: offset 8388608 '
run 1 'within a sector' map -o 100 z.qcow2
has 'is refused' err '^zqcow2: z\.qcow2: offset 100 '
run 1 'not whole sectors' map -l 100 z.qcow2
has 'is refused' err '^zqcow2: z\.qcow2: length 100 '
run 1 'no file' map
run 1 'none there' map none.qcow2
finish
