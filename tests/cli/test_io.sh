#!/bin/sh
# SPDX-License-Identifier: MIT
# io: qemu-io's verbs and output, several commands on one open image, failures, standard input.
. "$(dirname "$0")/lib.sh"

# io WANTED_STATUS NAME COMMAND...: each COMMAND after -c, on z.qcow2. Times become XX.
io() {
    io_status=$1
    io_name=$2
    shift 2
    for command; do
        set -- "$@" -c "$command"
        shift
    done
    run "$io_status" "$io_name" io "$@" z.qcow2
    sed -i 's/; .*sec)$/; XX/' out
}

run 0 'an image' create -o zone.size=4M,zone.capacity=3M,zone.conventional_zones=1 \
    -o zone.max_open_zones=3,zone.max_active_zones=4 z.qcow2 32M
random 1536 1 >pattern
: >nothing

io 0 'write and read' 'write -P 0xab 4M 4k' 'read -P 0xab 4M 4k'
is 'in the form of qemu-io' 'wrote 4096/4096 bytes at offset 4194304
4 KiB, 1 ops; XX
read 4096/4096 bytes at offset 4194304
4 KiB, 1 ops; XX' "$(cat out)"
io 0 'quietly' 'write -q -P 171 4198400 1536' 'read -q -P 0xab 4M 5632'
is 'no word' '' "$(cat out err)"
"$tool" io -c 'write -C 0 64k' z.qcow2 >out 2>err
has 'for machines' out '^65536,1,0:00:[0-9.]{5},[0-9.]+,[0-9.]+$'
io 1 'a pattern that is not there' 'read -P 0xac 4M 512' 'read -q -P 0xab 4M 512'
is 'is reported, and the next command runs' 'Pattern verification failed at offset 4194304, 512 bytes
read 512/512 bytes at offset 4194304
512 bytes, 1 ops; XX' "$(cat out)"
io 0 'a part of the range' 'write -q -P 7 0 4k' 'write -q -P 8 512 512' \
    'read -q -P 8 -s 512 -l 512 0 4k' 'read -q -P 7 -l 512 0 4k' 'read -q -P 7 -s 1k 0 4k'
io 1 'the wrong part' 'read -q -P 8 -s 513 -l 512 0 4k'
is 'is reported with its place' 'Pattern verification failed at offset 513, 512 bytes' "$(cat out)"
io 0 'a file over and over' 'write -q -s pattern 0 4608'
run 0 'read it' read z.qcow2 0 4608
cat pattern pattern pattern >wanted
same 'three times' wanted out
io 0 'without -P' 'write -q 0 512' 'read -q -P 0xcd 0 512'
io 0 'zeros' 'write -q -z 0 1k' 'read -q -P 0 0 1k' 'write -q -z -u 0 1k' 'write -q -f -P 1 0 512'
io 0 'a dump' 'write -q -P 0x41 0 512' 'read -q -v 0 20'
is 'in the form of qemu-io' '00000000:  41 41 41 41 41 41 41 41 41 41 41 41 41 41 41 41  AAAAAAAAAAAAAAAA
00000010:  41 41 41 41  AAAA' "$(cat out)"
io 0 'discard in a conventional zone' 'write -q -P 9 0 64k' 'discard 0 64k' 'read -q -P 0 0 64k'
is 'has the form of a write' 'discard 65536/65536 bytes at offset 0
64 KiB, 1 ops; XX' "$(cat out)"
io 1 'discard in a sequential zone' 'discard 4M 64k'
has 'fails' out '^discard failed: '
io 0 'flush' 'flush'
is 'is silent' '' "$(cat out)"

io 0 'reports' 'zrp 0 2' 'zone_report 28M 10'
is 'in the form of qemu-io' 'start: 0x0, len 0x2000, cap 0x2000, wptr 0x0, zcond:0, [type: 1]
start: 0x2000, len 0x2000, cap 0x1800, wptr 0x200b, zcond:4, [type: 2]
start: 0xe000, len 0x2000, cap 0x1800, wptr 0xe000, zcond:1, [type: 2]' "$(cat out)"
io 0 'states live as long as the image is open' 'zo 8M 4M' 'write -q 12M 4k' 'zrp 8M 3' \
    'zc 12M 4M' 'zrp 12M 1' 'zf 8M 4M' 'zrp 8M 1' 'zrs 8M 8M' 'zrp 8M 2'
is 'as they should' 'start: 0x4000, len 0x2000, cap 0x1800, wptr 0x4000, zcond:3, [type: 2]
start: 0x6000, len 0x2000, cap 0x1800, wptr 0x6008, zcond:2, [type: 2]
start: 0x8000, len 0x2000, cap 0x1800, wptr 0x8000, zcond:1, [type: 2]
start: 0x6000, len 0x2000, cap 0x1800, wptr 0x6008, zcond:4, [type: 2]
start: 0x4000, len 0x2000, cap 0x1800, wptr 0x6000, zcond:14, [type: 2]
start: 0x4000, len 0x2000, cap 0x1800, wptr 0x4000, zcond:1, [type: 2]
start: 0x6000, len 0x2000, cap 0x1800, wptr 0x6000, zcond:1, [type: 2]' "$(cat out)"
io 0 'long names' 'zone_open 8M 4M' 'zone_append -p 8M 4k' 'zone_close 8M 4M' 'zone_finish 8M 4M' \
    'zone_reset 8M 4M'
is 'work too' 'After zap done, the append sector is 0x4000' "$(cat out)"
io 0 'appends' 'zap -p 8M 0x1000 0x2000' 'zap 8M 512' 'zap -p 8M 512' 'zrp 8M 1' \
    'read -q -P 0xcd 8M 13312' 'zrs 8M 4M'
is 'report their sector' 'After zap done, the append sector is 0x4000
After zap done, the append sector is 0x4019
start: 0x4000, len 0x2000, cap 0x1800, wptr 0x401a, zcond:2, [type: 2]' "$(cat out)"
io 1 'what a zone refuses' 'write 8390656 512' 'zap -p 0 4k' 'zo 100 4M' 'zc 0 4M' 'zf 0 4M' \
    'zrs 0 4M' 'zrp 33M 1' 'write 0 100' 'write 32M 512' 'read 32M 512' 'write -q 8M 512' 'zrp 8M 1'
sed 's/failed: .*/failed/' out >errors
is 'each command reports its own' 'write failed
zone append failed
zone open failed
zone close failed
zone finish failed
zone reset failed
zone report failed
write failed
write failed
read failed
start: 0x4000, len 0x2000, cap 0x1800, wptr 0x4001, zcond:2, [type: 2]' "$(cat errors)"
io 0 'read-only and offline' 'state 16M read-only' 'state 20M offline' 'zrp 16M 2' \
    'state 16M read-only' 'state 20M offline' 'zrp 16M 2'
is 'come and go' 'start: 0x8000, len 0x2000, cap 0x1800, wptr 0x7fffffffffffff, zcond:13, [type: 2]
start: 0xa000, len 0x2000, cap 0x1800, wptr 0x7fffffffffffff, zcond:15, [type: 2]
start: 0x8000, len 0x2000, cap 0x1800, wptr 0x8000, zcond:1, [type: 2]
start: 0xa000, len 0x2000, cap 0x1800, wptr 0xa000, zcond:1, [type: 2]' "$(cat out)"
io 1 'and refuse' 'state 16M read-only' 'write 16M 512' 'state 20M offline' 'read 20M 512' \
    'state 0 offline' 'state 16M asleep' 'state 16M'
is 'every one fails' 5 "$(grep -cE 'failed: |asleep|operands' out)"

io 1 'causes' 'write 8M 512' 'zap 0 512' 'aio_write 8M 512' 'zo 0 4M' 'zo 4M 8M' 'zf 0 8M'
is 'are named' "write failed: not at the zone's write pointer (the zone at 8388608 is written up to 8389120)
zone append failed: not allowed in the zone's state (the zone at 0 is conventional)
aio_write failed: not at the zone's write pointer (the zone at 8388608 is written up to 8389120)
zone open failed: not allowed in the zone's state (the zone at 0 is conventional)
zone finish failed: not allowed in the zone's state (the zone at 0 is conventional)" "$(cat out)"
io 0 'limits show' 'zo 8M 4M' 'zo 12M 4M' 'zo 16M 4M' 'zrp 8M 3' 'zrs 8M 12M'
io 1 'and hold' 'zrs 4M 16M' 'zo 8M 4M' 'zo 12M 4M' 'zo 16M 4M' 'zo 20M 4M' 'zrs 8M 12M'
has 'an open zone too many' out '^zone open failed: .*open'
io 0 'asynchronous' 'aio_write -P 5 12M 4k' 'aio_write -P 6 12587008 4k 8k' 'aio_flush' \
    'read -q -P 5 12M 4k' 'read -q -P 6 12587008 12k' 'aio_read -P 5 12M 4k' 'aio_flush'
is 'answers come' 'wrote 4096/4096 bytes at offset 12582912
4 KiB, 1 ops; XX
wrote 12288/12288 bytes at offset 12587008
12 KiB, 1 ops; XX
read 4096/4096 bytes at offset 12582912
4 KiB, 1 ops; XX' "$(cat out)"
io 0 'asynchronous zeros' 'aio_write -q -z 12599296 8k' 'aio_flush' 'read -q -P 0 12599296 8k' 'zrp 12M 1'
is 'move the write pointer' 'start: 0x6000, len 0x2000, cap 0x1800, wptr 0x6030, zcond:2, [type: 2]' \
    "$(cat out)"
io 1 'asynchronous failures' 'aio_write 12M 4k' 'aio_read -P 1 12M 512' 'aio_flush'
has 'the write' out '^aio_write failed: '
has 'the pattern' out '^Pattern verification failed at offset 12582912, 512 bytes'
io 0 'at the end all are waited for' 'aio_write -P 5 12607488 4k'
has 'and reported' out '^wrote 4096/4096 bytes at offset 12607488$'

io 1 'mistakes' 'frobnicate' 'write 0' 'write x 512' 'write -P 256 0 512' 'write -Y 0 512' \
    'write -P' 'read 0 512 512' 'write -s missing 0 512' 'read -s 1 0 512' 'zap 8M' 'zo 8M x' \
    'write -z -P 1 0 512' 'read -P 1 -s 600 0 512' 'write 0 4G' 'zap 8M 2G 2G' 'aio_write 0 3G' \
    'write -l 5 0 512' 'flush 1' 'write -u 0 512' 'aio_write -z 0 512 512' 'write -s nothing 0 512' \
    'write -q 0 512'
is 'each gets a line' 21 "$(wc -l <out | tr -d ' ')"
has 'an unknown command' out '^command "frobnicate" not found$'
has 'a bad byte' out '^256 is not a valid pattern byte$'
has 'a missing file' out '^missing: No such file'
is 'and stderr none' '' "$(cat err)"

printf 'write -q -P 3 0 512\n\n  read -q -P 3 0 512  \nlength\nquit\nwrite -q -P 4 0 512\n' |
    "$tool" io z.qcow2 >out 2>err
is 'commands from standard input' 0 $?
is 'blank lines, blanks and quit' '32 MiB' "$(cat out err)"
run 0 'what came after quit' io -c 'read -q -P 3 0 512' z.qcow2
printf 'nonsense\nzrp 0 1\n' | "$tool" io z.qcow2 >out 2>err
is 'a failure on standard input' 1 $?
has 'does not end it' out '^start: 0x0,'

# A program that talks with it sees each answer before it sends the next command.
cat >talk.py <<'END'
import subprocess, sys
p = subprocess.Popen([sys.argv[1], 'io', sys.argv[2]], stdin=subprocess.PIPE,
                     stdout=subprocess.PIPE, text=True, bufsize=1)
for i in range(3):
    p.stdin.write('zap -p 24M 512\n')
    print(p.stdout.readline().strip())
p.stdin.close()
sys.exit(p.wait())
END
timeout 20 python3 talk.py "$tool" z.qcow2 >out 2>err
is 'a conversation ends well' 0 $?
is 'answer by answer' 'After zap done, the append sector is 0xc000
After zap done, the append sector is 0xc001
After zap done, the append sector is 0xc002' "$(cat out)"

run 0 'help' io -c help -c 'help zrp' z.qcow2
is 'of one command' 2 "$(grep -c '^zone_report offset number' out)"
run 0 'read-only: reading' io -r -c 'read -q 0 512' -c 'zrp 0 1' z.qcow2
run 1 'read-only: writing' io -r -c 'write 0 512' z.qcow2
has 'fails' out '^write failed: '
run 1 'a missing file' io -c 'zrp 0 1' missing.qcow2
run 0 'a plain image' create p.qcow2 1M
run 1 'zone commands there' io -c 'write -q 3k 1k' -c 'zrp 0 1' -c 'zo 0 1M' -c 'zap 0 512' p.qcow2
is 'all fail' 3 "$(grep -c 'failed: .*zone' out)"

# Any offset and length, if there are no zones; and what the image itself holds.
run 0 'a plain image' create -o cluster_size=4k b.qcow2 1M
run 0 'the one above it' create -b b.qcow2 -F qcow2 -o cluster_size=4k t.qcow2 1M
run 0 'the lower one written' io -c 'write -q -P 1 0 64k' b.qcow2
run 0 'odd ranges' io -c 'write -q -P 2 1000 30' -c 'write -q -z 1010 5' -c 'writev -q -P 3 2000 100 1400 600' \
    -c 'read -q -P 1 0 1000' -c 'read -q -P 2 1000 10' -c 'read -q -P 0 1010 5' -c 'read -q -P 2 1015 15' \
    -c 'read -q -P 1 1030 970' -c 'readv -q -P 3 2000 2000 100' -c 'read -q -P 1 4100 59k' t.qcow2
run 0 'odd zeros' io -c 'write -q -z 20001 9000' -c 'read -q -P 1 19k 545' -c 'read -q -P 0 20001 9000' \
    -c 'read -q -P 1 29001 900' t.qcow2
run 0 'what is held' io -c 'alloc 0' -c 'alloc 1000 8k' -c 'alloc 1M 512' -c map t.qcow2
is 'is counted and listed' '512/512 bytes allocated at offset 0 bytes
7192/8192 bytes allocated at offset 1000 bytes
0/0 bytes allocated at offset 1 MiB
8 KiB (0x2000) bytes     allocated at offset 0 bytes (0x0)
8 KiB (0x2000) bytes not allocated at offset 8 KiB (0x2000)
16 KiB (0x4000) bytes     allocated at offset 16 KiB (0x4000)
992 KiB (0xf8000) bytes not allocated at offset 32 KiB (0x8000)' "$(cat out)"
run 0 'compressed' io -c 'write -q -c -P 9 128k 64k' -c 'read -q -P 9 128k 64k' t.qcow2
run 0 'as compressed clusters' map --json t.qcow2
has 'they are stored' out '"compressed": true'
run 0 'zeros keep their space without -u' io -c 'write -q 256k 64k' -c 'write -q -z 256k 64k' t.qcow2
run 0 'as zeros' map --json -o 256K -l 64K t.qcow2
has 'with an offset' out '"zero": true.*"offset": '
run 0 'and give it back with it' io -c 'write -q -z -u 256k 64k' t.qcow2
run 0 'as zeros' map --json -o 256K -l 64K t.qcow2
is 'without one' 0 "$(grep -c '"offset"' out)"
run 1 'odd ranges beyond the end' io -c 'write 1048575 2' -c 'write -z 1048575 2' -c 'discard 1048575 2' t.qcow2
is 'fail' 3 "$(grep -c 'failed: ' out)"
run 1 'zeros that would be written' io -c 'write -n -z 200001 5' -c 'write -n -z 200000 8192' \
    -c 'read -q -P 0 196608 16k' t.qcow2
is 'are not' 'write failed: Operation not supported
write failed: Operation not supported' "$(cat out)"
run 1 'mistakes' io -c 'write -c -z 0 4k' -c 'write -n 0 4k' -c 'alloc x' -c 'truncate x' -c 'truncate 1000' \
    -c 'sleep x' -c 'sigraise 65' -c 'sigraise 0' t.qcow2
is 'each gets a line' 8 "$(wc -l <out | tr -d ' ')"
run 0 'another size' io -c 'truncate 2M' -c 'write -q -P 4 2097000 100' -c length -c 'truncate 1M' -c length t.qcow2
is 'is in effect at once' '2 MiB
1 MiB' "$(cat out)"
"$tool" io -c 'aio_write -q -P 5 512k 4k' -c 'sleep 200' -c 'read -q -P 5 512k 4k' -c 'sigraise 9' -c length \
    t.qcow2 >out 2>err
is 'a crash' 137 $?
is 'ends it there' '' "$(cat out)"
run 0 'which costs nothing that was there before' io -c 'read -q -P 3 2000 2100' t.qcow2
run 1 'reopened for reading' io -c 'write -q -P 6 0 4k' -c 'reopen -r' -c 'write 0 4k' -c 'reopen -w' \
    -c 'aio_write -q -P 7 0 2k' -c reopen -c 'read -q -P 7 0 2k' -c 'read -q -P 6 2k 2k' -c 'reopen -x' t.qcow2
is 'writes only in between' 'write failed: Read-only file system
reopen: option -x is unknown, or lacks its value' "$(cat out)"
run 1 'none of this in zones' io -c 'write 1 1' -c 'write -z 1 1' -c 'discard 1 1' z.qcow2
is 'all fail' 3 "$(grep -c 'failed: ' out)"
run 0 'what zones hold' io -c 'zrs 4M 4M' -c 'write -q 4M 64k' -c 'alloc 4M 4M' z.qcow2
is 'ends at the write pointer' '65536/4194304 bytes allocated at offset 4 MiB' "$(cat out)"

# One image, two processes: the second writer is turned away, and says so.
mkfifo hold
"$tool" io z.qcow2 <hold >held 2>&1 &
holder=$!
exec 3>hold
echo length >&3
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -s held ] && break
    sleep 0.2
done
run 1 'a second writer' io -c 'write 0 512' z.qcow2
has 'is refused because of the lock' err '^zqcow2: z\.qcow2: .*(lock|use)'
run 0 'a reader that takes no lock' report -U -c 1 z.qcow2
exec 3>&-
wait $holder
is 'the first one ends well' 0 $?
run 0 'and then it is free' io -c 'write -q 0 512' z.qcow2
finish
