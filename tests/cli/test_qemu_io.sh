#!/bin/sh
# SPDX-License-Identifier: MIT
# The same commands through qemu-io and zqcow2 io, on plain images: the same words come out.
. "$(dirname "$0")/lib.sh"
command -v qemu-io >/dev/null && command -v qemu-img >/dev/null || skip 'qemu-io is not here'

random 1536 1 >pattern
cat >commands <<'END'
write -P 0x41 4k 1536
write 0 512
write -q -P 3 64k 128k
map
alloc 32k 64k
read -P 0x41 4k 1536
read -P 0x42 4096 64
read -P 3 -s 512 -l 512 0 4k
read -v 4090 40
read -v -P 65 4096 16
read -q 0 1
read 4097 3
write -s pattern 1M 5k
read -v 1M 2k
write -z 1M 64k
read -P 0 1M 64k
write -z -u 2M 64k
discard 64k 64k
read -P 0 64k 64k
flush
write -P 300 0 512
write 0xA00000 0x1000
read 0xa00000 4K
write 1.5k 1.5K
length
aio_write -P 9 4M 4k 8k
aio_flush
read -P 9 4M 12k
aio_write -z 4M 4k
aio_flush
aio_read -P 9 4198400 8k
aio_flush
read -P 0 4M 4k
write -P 6 5000001 3
write -P 7 5242000 131100
write -P 8 5373999 1
read -P 7 5242000 131100
read -v 5000000 5
write -z 5242100 70000
write -z -u 5000001 2
write -z 5000700 11
read -P 0 5242100 70000
discard 5242100 70001
discard 100 200
write -c -P 5 6M 64k
write -n -z 6M 64k
readv -P 0xb 0 512 1024
writev -P 0xb 8M 512 1024
readv -P 0xb 8M 512 1024
alloc 0
alloc 1M 128k
alloc 1048577 1000
alloc 67108864
alloc 60M 1G
alloc 70M 1
truncate 66M
length
read -P 0 64M 2M
truncate 65M
sleep 1
nonsense
END
qemu-img create -q -f qcow2 theirs.qcow2 64M
run 0 'an image' create ours.qcow2 64M
# Times and rates differ from run to run; a length above 60 s means a wrong clock in qemu-io.
even() {
    sed -E 's/; [0-9:.]+( sec)? \(.*\)$/; XX/; s/^qemu-io> //; /^(qemu-io> )?$/d'
}
while read -r command; do
    qemu-io -c "$command" theirs.qcow2 2>&1 | even >theirs
    "$tool" io -c "$command" ours.qcow2 2>&1 | even >ours
    ran=$command
    same "$command" theirs ours || diff theirs ours | sed 's/^/# /'
done <commands
qemu-io -c 'write -q 0 512' -c 'read 0 64M' -c 'write -P 256 0 1' theirs.qcow2 >theirs 2>&1
status=$?
"$tool" io -c 'write -q 0 512' -c 'read 0 64M' -c 'write -P 256 0 1' ours.qcow2 >ours 2>&1
is 'the exit status of a failure' $status $?
run 0 'our image' check ours.qcow2
qemu-img check ours.qcow2 >out 2>&1
is 'is clean for qemu-img' 0 $?
qemu-img compare ours.qcow2 theirs.qcow2 >out 2>&1
is 'and holds the same' 0 $?
finish
