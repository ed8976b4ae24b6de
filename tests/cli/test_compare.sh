#!/bin/sh
# SPDX-License-Identifier: MIT
# compare: words and exit statuses of qemu-img compare; zones, which that knows nothing of.
. "$(dirname "$0")/lib.sh"

if command -v qemu-img >/dev/null && command -v qemu-io >/dev/null; then
    # like NAME ARGUMENT...: what qemu-img prints on standard output, and its exit status.
    like() {
        like_name=$1
        shift
        qemu-img compare "$@" >theirs 2>theirs.err
        like_status=$?
        run "$like_status" "$like_name" compare "$@"
        same "$like_name: the same words" theirs out
    }
    # pair SEED: a.img and b.img, of random formats and sizes, alike except for one write or none.
    pair() {
        python3 - "$1" <<'END'
import random, subprocess, sys
r = random.Random(int(sys.argv[1]))
size = r.randrange(1, 40) * 65536 + r.choice([0, 512, 4096])
script = [(r.choice(['write -P 1', 'write -P 2', 'write -z', 'write -P 0']),
           r.randrange(0, size // 512) * 512, r.randrange(1, 300) * 512)
          for _ in range(r.randrange(0, 6))]
def call(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def make(name, more, script):
    subprocess.run(['rm', '-f', name, 'base.img'])
    form = r.choice(['raw', 'qcow2', 'chain'])
    bits = r.choice([12, 16, 16, 18])
    if form == 'raw':
        call('qemu-img', 'create', '-f', 'raw', name, str(size + more))
    elif form == 'qcow2':
        call('qemu-img', 'create', '-f', 'qcow2', '-o', f'cluster_size={1 << bits}', name,
             str(size + more))
    else:
        call('qemu-img', 'create', '-f', 'qcow2', name + '.base', str(size))
        call('qemu-img', 'create', '-f', 'qcow2', '-b', name + '.base', '-F', 'qcow2', name,
             str(size + more))
    for i, (what, at, length) in enumerate(script):
        to = name + '.base' if form == 'chain' and i < 2 else name
        kind = 'raw' if form == 'raw' else 'qcow2'
        call('qemu-io', '-f', kind, '-c', f'{what} {at} {min(length, size - at)}', to)
make('a.img', 0, script)
if r.randrange(2):
    script.append((r.choice(['write -P 3', 'write -z']), r.randrange(0, size // 512) * 512, 512))
make('b.img', r.choice([0, 0, 65536, 1 << 20]), script)
print(f'size {size}: {script}')
END
    }
    for seed in $(seq 1 "${ZQ_PAIRS:-30}"); do
        pair "$seed" >what
        like "seed $seed: $(cat what)" a.img b.img || sed 's/^/# /' what
        cp out plain
        "$tool" compare b.img a.img >other 2>&1
        same "seed $seed: the other way round" plain other
    done
    qemu-img create -q -f raw a.img 1M
    qemu-img create -q -f qcow2 b.img 2M
    qemu-img create -q -f qcow2 c.img 1M
    like 'another size, strictly' -s a.img b.img
    like 'zeros behind the shorter one' a.img b.img
    qemu-io -c 'write -P 5 1536K 512' b.img >/dev/null
    like 'data behind the shorter one' a.img b.img
    like 'quietly' -q a.img b.img
    qemu-io -c 'write -z 64K 64K' c.img >/dev/null
    qemu-img create -q -f qcow2 d.img 1M
    # A range that ends with the disk differs, to qemu-img, from one that does not.
    for file in c.img d.img; do qemu-io -c 'write 960K 64K' "$file" >/dev/null; done
    like 'zeros that one of them does not map' c.img d.img
    like 'strictly' -s c.img d.img
    like 'formats that are given' -f raw -F qcow2 a.img c.img
    like 'a qcow2 file as raw' -f raw c.img c.img
else
    echo '# no qemu-img here: not compared'
    truncate -s 1M a.img
fi
run 2 'a file that is missing' compare a.img missing.img
has 'is named' err '^zqcow2: missing\.img: '
run 2 'a format that is none' compare -f vmdk a.img a.img
has 'is named' err "^zqcow2: -f: must be raw or qcow2, not 'vmdk'"
run 2 'one file only' compare a.img
has 'is said' err 'FILE2 is missing'

# Zones: all equal; then one difference at a time, each named.
run 0 'a zoned image' create -o zone.size=1M,zone.conventional_zones=1,zone.capacity=512K a.z 8M
random 8192 1 | "$tool" append --quiet a.z 2M
"$tool" finish -o 4M a.z
cp a.z b.z
run 0 'a copy' compare a.z b.z
is 'is identical' 'Images are identical.' "$(cat out)"
run 0 'strictly, too' compare -s a.z b.z
run 0 'another layout and cluster size' create \
    -o zone.size=1M,zone.conventional_zones=1,zone.capacity=512K,zone.layout=48b,cluster_size=4K l.z 8M
random 8192 1 | "$tool" append --quiet l.z 2M
"$tool" finish -o 4M l.z
run 0 'of the same disk' compare a.z l.z
"$tool" finish -o 3M b.z
run 1 'a zone finished' compare a.z b.z
is 'is named' 'Zone mismatch at offset 3145728: state EMPTY and FULL!' "$(cat out)"
cp a.z b.z
random 512 2 | "$tool" append --quiet b.z 2M
run 1 'a pointer' compare a.z b.z
is 'is named' 'Zone mismatch at offset 2097152: write pointer 2105344 and 2105856!' "$(cat out)"
cp a.z b.z
"$tool" reset -o 2M b.z
random 8192 3 | "$tool" append --quiet b.z 2M
run 1 'other bytes at the same pointers' compare a.z b.z
is 'are named' 'Content mismatch at offset 2097152!' "$(cat out)"
cp a.z b.z
random 512 4 | "$tool" write b.z 4096
run 1 'a conventional zone' compare a.z b.z
is 'is compared' 'Content mismatch at offset 4096!' "$(cat out)"
"$tool" state -o 2M a.z offline
cp a.z b.z
run 0 'both with a zone offline' compare a.z b.z
run 0 'another geometry' create -o zone.size=2M,zone.conventional_zones=1,zone.capacity=512K g.z 8M
run 1 'is a difference' compare a.z g.z
is 'that is named' 'Zone mismatch: zone size: 1048576 and 2097152!' "$(cat out)"
run 0 'no zones' create p.img 8M
run 0 'an empty zoned image' create -o zone.size=1M e.z 8M
run 0 'have the same content' compare p.img e.z
is 'and that is said' 'Warning: Zone model mismatch!
Images are identical.' "$(cat out)"
run 1 'but not strictly' compare --strict p.img e.z
is 'which is said' 'Strict mode: Zone model mismatch!' "$(cat out)"
if [ -c /dev/full ]; then
    "$tool" compare e.z e.z >/dev/full 2>err
    is 'output that is lost is no verdict' 2 $?
    has 'and the cause is named' err '^zqcow2: standard output: No space left on device$'
    is 'and nothing else' 1 "$(wc -l <err)"
    "$tool" compare p.img e.z >/dev/full 2>err
    is 'nor is a warning that is lost' 2 $?
    "$tool" compare --strict p.img e.z >/dev/full 2>err
    is 'nor a difference' 2 $?
    "$tool" compare --quiet --strict p.img e.z >/dev/full 2>err
    is 'where nothing is written nothing is lost' 1 $?
fi
"$tool" compare e.z e.z >&- 2>err
is 'a closed standard output' 2 $?
finish
