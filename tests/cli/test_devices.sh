#!/bin/sh
# SPDX-License-Identifier: MIT
# import and export, on a file that a preloaded library makes a zoned block device: what a real one
# does not do on demand. tests/guest/ has the real ones.
fake=${2:-}
case $fake in '' | /*) ;; *) fake=$PWD/$fake ;; esac
. "$(dirname "$0")/lib.sh"
[ -n "$fake" ] || skip 'nothing can be preloaded here'

# faked STATUS NAME ARGUMENT...: as run, with d.dev as device.
ZQ_ZONES=4,3,1
export ZQ_ZONES
faked() {
    LD_PRELOAD=$fake ZQ_ZONED=d.dev
    export LD_PRELOAD ZQ_ZONED
    run "$@"
    faked_result=$?
    unset LD_PRELOAD ZQ_ZONED
    return $faked_result
}
fresh() {
    rm -f d.dev d.dev.zones log
    truncate -s 40M d.dev
}

run 0 'an image' create -o zone.size=4M,zone.capacity=3M,zone.conventional_zones=1 a.z 40M
random 20480 1 | "$tool" write a.z 8192
random 3145728 2 | "$tool" append --quiet a.z 4M
random 69632 3 | "$tool" append --quiet a.z 8M
"$tool" finish -o 12M a.z
random 8192 4 | "$tool" append --quiet a.z 16M
"$tool" finish -o 16M a.z
random 2097152 5 | "$tool" append --quiet a.z 24M
"$tool" io -c 'write -z 28M 128K' -c 'write -P 7 29491200 4K' a.z >/dev/null

fresh
ZQ_LOG=log faked 0 'export' export a.z d.dev
faked 0 'the same zones and content' compare a.z d.dev
is 'whatever is full was written before the rest' 'finish 12582912 finish 16777216 close 8388608' \
    "$(grep -E 'finish|close' log | cut -d ' ' -f 1,2 | head -n 3 | tr '\n' ' ' | sed 's/ $//')"
is 'nothing was reset' 0 "$(grep -c reset log)"
faked 0 'import' import d.dev b.z
run 0 'the same again' compare a.z b.z
run 0 'clean' check b.z
faked 0 'convert takes a device, too' convert -c -O qcow2 d.dev c.z
run 0 'the same' compare a.z c.z
faked 1 'an image over it' convert --force -O qcow2 a.z d.dev
is 'is refused' 'zqcow2: d.dev: a device with zones; see zqcow2 export' "$(cat err)"
faked 1 'once more' export a.z d.dev
is 'it is not empty' 'zqcow2: d.dev: the zone at 4194304 is not empty; --force resets it' "$(cat err)"
ZQ_LOG=log faked 0 'unless --force' export --force a.z d.dev
is 'which resets what is not empty' 6 "$(grep -c reset log)"
faked 0 'the same zones and content' compare a.z d.dev
ZQ_BUSY=1 faked 1 'a device in use' export --force a.z d.dev
is 'is refused' 'zqcow2: d.dev: in use: mounted, or part of another device' "$(cat err)"
ZQ_BUSY=1 faked 1 'not even read' import d.dev x.z
ZQ_BUSY=1 faked 0 'unless with -U' import -U d.dev x.z
fresh
dd if=/dev/urandom of=d.dev bs=512 seek=1000 count=1 conv=notrunc 2>/dev/null
faked 1 'bytes in a conventional zone' export a.z d.dev
is 'are not nothing' 'zqcow2: d.dev: the zone at 0 is not empty; --force overwrites it' "$(cat err)"
faked 0 'unless --force' export --force a.z d.dev
faked 0 'which leaves none of them' compare a.z d.dev

# Every call fails once: it is said, the device is incomplete, and the rest of the copy is made.
for call in report reset close finish write flush; do
    n=1
    while :; do
        fresh
        [ $call != reset ] || faked 0 "something to be reset" export a.z d.dev
        ran="ZQ_FAIL=$call:$n zqcow2 export --force a.z d.dev"
        LD_PRELOAD=$fake ZQ_ZONED=d.dev ZQ_FAIL=$call:$n "$tool" export --force a.z d.dev >out 2>err
        status=$?
        [ $status != 0 ] || break
        is "$call $n fails" 1 $status
        has 'the device is named, and why' err '^zqcow2: d\.dev: .*Input/output error'
        if grep -q 'is incomplete' err; then
            is 'in two lines' 2 "$(wc -l <err)"
            faked 0 'the rest' export --resume a.z d.dev
            faked 0 'is all of it' compare a.z d.dev
        fi
        n=$((n + 1))
        [ $n -le 40 ] || break
    done
    verdict $([ $n -gt 1 ] && [ $n -le 40 ]; echo $?) "$call: $((n - 1)) calls that fail"
    faked 0 'then none does' compare a.z d.dev
done

# Zones that have failed: those that are read-only can still be read, and both stay what they are.
# failed ZONE STATE: read-only is 13, offline 15.
failed() {
    python3 -c '
import struct, sys
with open("d.dev.zones", "r+b") as f:
    f.seek(int(sys.argv[1]) * 16 + 8)
    f.write(struct.pack("<Q", int(sys.argv[2])))' "$@"
}
# states FILE: state of each zone of its report.
states() {
    "$tool" report --json "$1" | python3 -c '
import json, sys
print(*(z["state"] for z in json.load(sys.stdin)))'
}
fresh
faked 0 'a device' export a.z d.dev
before=$(states a.z)
for zone in 1 2 9; do failed $zone 13; done
for zone in 4 6 7; do failed $zone 15; done
faked 0 'import of read-only and offline zones' import d.dev r.z
is 'which the report has' "$(echo "$before" | awk '{ $2 = $3 = $10 = "READ_ONLY"; $5 = $7 = $8 = "OFFLINE"; print }')" \
    "$(states r.z)"
faked 0 'the same zones and content' compare d.dev r.z
run 0 'clean' check r.z
"$tool" read a.z 4M 7M >a.bytes
"$tool" read r.z 4M 7M >r.bytes
same 'what read-only zones have' a.bytes r.bytes
run 1 'no write to them' io -c 'write 8458240 512' r.z
faked 1 'nothing of an offline one' read d.dev 16M 512
faked 0 'compressed' import -c d.dev rc.z
faked 0 'the same' compare d.dev rc.z
faked 0 'without zeros being left out' import -S 0 d.dev rs.z
faked 0 'the same' compare d.dev rs.z
run 0 'between images' convert -O qcow2 r.z rr.z
run 0 'the same' compare r.z rr.z
faked 1 'nothing is written to such a device' export --resume a.z d.dev
is 'which is said' 'zqcow2: d.dev: the zone at 4194304 is read-only' "$(cat err)"

# import --resume: what was copied stays, and the next run goes on there.
(
    ulimit -f 5000
    LD_PRELOAD=$fake ZQ_ZONED=d.dev "$tool" import --resume d.dev r2.z >out 2>err
)
is 'stopped in the middle' 1 $?
has 'what was copied stays' err '/\.zqcow2\.r2\.z\.part: holds the part that was copied; see import --resume$'
faked 0 'goes on' import --resume d.dev r2.z
faked 0 'to the end' compare d.dev r2.z
mv r2.z .zqcow2.r2.z.part
faked 0 'all but its name was done' import --resume d.dev r2.z
faked 0 'and is the same' compare d.dev r2.z
failed 0 13
faked 1 'a conventional zone that has failed' import d.dev y.z
is 'is refused at once' \
    'zqcow2: d.dev: the conventional zone at 0 is read-only, and no image can have such a zone' "$(cat err)"
faked 0 'except for a file without zones' convert d.dev r.raw
faked 0 'which has all that can be read' compare d.dev r.raw

# A part of another copy.
fresh
faked 0 'a copy' export a.z d.dev
random 512 6 | "$tool" append --quiet a.z 32M
faked 0 'its source has grown' export --resume a.z d.dev
faked 0 'and so does the copy' compare a.z d.dev
"$tool" reset -o 8M a.z
ZQ_LOG=log faked 1 'its source was reset' export --resume a.z d.dev
is 'which is not a part of it' \
    'zqcow2: d.dev: the zone at 8388608 has been written beyond that of the source: not a part of a copy' \
    "$(cat err)"

# What does not fit.
fresh
for other in '4,4,1 zone.capacity:.4194304,.but.3145728' '2,2,1 zone.size:.2097152,.but.4194304' \
    '4,3,2 number.of.conventional.zones:.2,.but.1'; do
    ZQ_ZONES=${other% *} faked 1 "zones of ${other% *}" export a.z d.dev
    has 'are refused by name' err "^zqcow2: d\\.dev: ${other#* } in a\\.z"
done
truncate -s 44M d.dev
faked 1 'a larger device' export a.z d.dev
is 'is refused' 'zqcow2: d.dev: size: 46137344, but 41943040 in a.z' "$(cat err)"
fresh
ZQ_ZONES=4,3,1,4096 faked 1 'blocks of 4096 bytes' export a.z d.dev
is 'and a pointer within one' \
    'zqcow2: a.z: the write pointer 33554944 is inside a block of d.dev, which has 4096 bytes' "$(cat err)"
"$tool" reset -o 32M a.z
ZQ_ZONES=4,3,1,4096 faked 0 'whole blocks' export a.z d.dev
ZQ_ZONES=4,3,1,4096 faked 0 'are written' compare a.z d.dev
fresh
ZQ_ODD=1 faked 1 'capacities that differ' import d.dev x2.z
is 'are refused' 'zqcow2: d.dev: its zones have several capacities' "$(cat err)"
ZQ_ODD=1 faked 1 'of a target, too' export a.z d.dev
run 0 'no zones' create p.img 40M
faked 1 'a disk without zones' export p.img d.dev
is 'is refused' 'zqcow2: d.dev: has zones, but p.img has none' "$(cat err)"
run 0 'read-only zones' state -o 8M a.z read-only
faked 0 'are exported' export a.z d.dev
is 'as normal ones' 1 "$(grep -c 'they are normal there$' err)"
"$tool" state -o 8M a.z normal
faked 0 'with their content' compare a.z d.dev
run 1 'a file' import a.z x3.z
is 'is no device' 'zqcow2: a.z: not a block device; see convert' "$(cat err)"
run 1 'nor a target' export a.z p.img
run 1 'one that is missing' import none.dev x3.z
is 'is named' 'zqcow2: none.dev: No such file or directory' "$(cat err)"
is 'no file was left' '' "$(ls -A | grep -E '^\.zqcow2|x2|x3')"
finish
