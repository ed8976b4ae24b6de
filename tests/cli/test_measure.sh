#!/bin/sh
# SPDX-License-Identifier: MIT
# measure: the numbers of qemu-img measure, and what convert makes needs no more.
. "$(dirname "$0")/lib.sh"

# numbers FILE: required and fully allocated, from text.
numbers() {
    sed -n 's/^required size: //p; s/^fully allocated size: //p' "$1" | tr '\n' ' '
}

if command -v qemu-img >/dev/null && command -v qemu-io >/dev/null; then
    # like ARGUMENT...: the numbers of qemu-img, and the same as JSON.
    like() {
        run 0 "measure $*" measure "$@"
        qemu-img measure "$@" >theirs 2>err
        is 'as qemu-img' "$(numbers theirs)" "$(numbers out)"
        cp out text
        run 0 'as JSON' measure --json "$@"
        is 'the same' "$(numbers text)" "$(python3 -c '
import json
o = json.load(open("out"))
print(o["required"], o["fully-allocated"], "")')"
    }
    for size in 512 64K 1M 1000K 1G 1000000000K 3T; do
        for o in cluster_size=64K cluster_size=64K,refcount_bits=1 cluster_size=2M,extended_l2=on \
            cluster_size=64K,refcount_bits=64 cluster_size=16K,extended_l2=on; do
            like -O qcow2 -o "$o" "--size=$size"
        done
        like -O qcow2 "--size=$size"
    done
    like -O raw --size=1G
    like -O qcow2 -o cluster_size=512 --size=100M
    # What is preallocated takes its space, and what was in a source is a hole of its file.
    for how in off metadata falloc full; do
        rm -f s.img
        qemu-img create -q -f qcow2 -o preallocation=$how s.img 1000K
        qemu-io -f qcow2 -c 'write -P 1 100k 200k' -c 'write -P 1 900k 1k' s.img >/dev/null
        for o in cluster_size=4K cluster_size=64K cluster_size=1M preallocation=metadata preallocation=falloc \
            preallocation=full; do
            like -O qcow2 -o "$o" s.img
            like -O qcow2 -o "$o" --size=3000K
        done
        rm -f d.img
        run 0 'the copy' convert -O qcow2 -o preallocation=full s.img d.img
        run 0 'its measure' measure -O qcow2 -o preallocation=full s.img
        is 'is its size' "$(stat -c %s d.img)" "$(numbers out | cut -d ' ' -f 1)"
    done
    rm -f s.img d.img
    for seed in $(seq 1 "${ZQ_DISKS:-12}"); do
        # Data and zeros, in pieces that end within clusters.
        python3 - "$seed" <<'END'
import random, subprocess, sys
r = random.Random(int(sys.argv[1]))
size = r.randrange(1, 4000) * 4096
kind = r.choice(['raw', 'qcow2'])
def call(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
subprocess.run(['rm', '-f', 's.img'])
call('qemu-img', 'create', '-f', kind, 's.img', str(size))
for _ in range(r.randrange(0, 9)):
    at = r.randrange(0, size // 4096) * 4096
    call('qemu-io', '-f', kind, '-c',
         f'{r.choice(["write -P 1", "write -z"])} {at} {min(r.randrange(1, 90) * 4096, size - at)}',
         's.img')
END
        for o in cluster_size=4K cluster_size=64K cluster_size=1M; do
            like -O qcow2 -o "$o" s.img
        done
        like -O raw s.img
        rm -f d.img
        run 0 'the copy' convert -O qcow2 -o cluster_size=64K s.img d.img
        run 0 'its measure' measure -O qcow2 -o cluster_size=64K s.img
        required=$(numbers out | cut -d ' ' -f 1)
        verdict $([ "$(($(du -k d.img | cut -f 1) * 1024))" -le "$required" ]; echo $?) \
            "seed $seed: $(du -k d.img | cut -f 1) KiB of $required bytes"
        # As on a device of that size.
        (
            ulimit -f "$((required / 512))"
            "$tool" convert --force -O qcow2 -o cluster_size=64K s.img d.img >out 2>err
        )
        verdict $? "seed $seed: the copy has room in $required bytes" || sed 's/^/# /' err
    done
    # Written in full the copy of qemu-img has just the size that was measured.
    truncate -s 20M s.img
    qemu-io -f raw -c 'write -P 1 0 20M' s.img >/dev/null
    qemu-img convert -O qcow2 s.img d.img
    run 0 'a disk full of data' measure -O qcow2 s.img
    is 'takes what is required' "$(stat -c %s d.img) $(stat -c %s d.img) " "$(numbers out)"
else
    echo '# no qemu-img here: not compared'
fi

run 0 'a zoned image' create -o zone.size=1M,cluster_size=4K z.qcow2 1G
random 100000 1 | "$tool" append --pad --quiet z.qcow2 2M
run 0 'as zoned' measure -O qcow2 -o cluster_size=4K z.qcow2
zoned=$(numbers out | cut -d ' ' -f 1)
run 0 'as zoned, asked for' measure -O qcow2 -o cluster_size=4K,zone.mode=host-managed z.qcow2
is 'has the zones of the source' "$zoned" "$(numbers out | cut -d ' ' -f 1)"
run 0 'without zones' measure -O qcow2 -o cluster_size=4K,zone.mode=none z.qcow2
is 'less by the table of the pointers' 8192 "$((zoned - $(numbers out | cut -d ' ' -f 1)))"
run 0 'with descriptor extensions' measure -O qcow2 -o cluster_size=4K,zone.descriptor_extension=64 z.qcow2
is 'more by two tables' $((4096 + 64 * 1024)) "$(($(numbers out | cut -d ' ' -f 1) - zoned))"
rm -f d.qcow2
run 0 'an image that has them' convert -O qcow2 -o cluster_size=4K,zone.descriptor_extension=64 z.qcow2 d.qcow2
run 0 'takes as much' measure -O qcow2 -o cluster_size=4K d.qcow2
is 'as was asked for' $((4096 + 64 * 1024)) "$(($(numbers out | cut -d ' ' -f 1) - zoned))"
run 1 'no file' measure
has 'is missing' err 'FILE is missing'
run 1 'a size and a file' measure --size=1M z.qcow2
run 1 'options of a raw file' measure -o cluster_size=4K z.qcow2
run 1 'a size among the options' measure -O qcow2 -o size=1M z.qcow2
run 1 'refcounts of 3 bits' measure -O qcow2 -o refcount_bits=3 --size=1M
run 1 'clusters of 3000 bytes' measure -O qcow2 -o cluster_size=3000 --size=1M
run 1 'too large' measure -O qcow2 --size=8E
# What create refuses, in its words.
for words in '-o cluster_size=512 1T' '-o refcount_bits=3 1M' '-o zone.size=3M 6M' '-o extended_l2=on,cluster_size=4K 1M' \
    '-o zone.size=1M,zone.capacity=2M 4M' '-o zone.size=1M,zone.conventional_zones=9 4M'; do
    options=${words% *}
    size=${words##* }
    # shellcheck disable=SC2086 # two words
    run 1 "create $words" create $options no.qcow2 "$size"
    sed 's/no\.qcow2/measure/' err >theirs
    # shellcheck disable=SC2086
    run 1 "measure $words" measure -O qcow2 $options "--size=$size"
    is 'in the same words' "$(cat theirs)" "$(cat err)"
done
run 0 'a source of 1 TiB' create large.qcow2 1T
run 1 'is too large, too' measure -O qcow2 -o cluster_size=512 large.qcow2
has 'says so' err 'L1 table above 32 MiB'
finish
