#!/bin/sh
# SPDX-License-Identifier: MIT
# open, close, finish and reset: on one zone, on several, on all; which zone failed.
. "$(dirname "$0")/lib.sh"

# states FILE: the state of every zone in one line.
states() {
    "$tool" report --json "$1" | python3 -c '
import json, sys
print(" ".join(z["state"] for z in json.load(sys.stdin)))'
}

run 0 'an image' create -o zone.size=4M,zone.capacity=3M,zone.conventional_zones=1 z.qcow2 22M
random 4096 1 >data
for zone in 4M 12M; do
    "$tool" append z.qcow2 $zone <data >out 2>err
    is "append at $zone" 0 $?
done
is 'before' 'NOT_WP CLOSED EMPTY CLOSED EMPTY EMPTY' "$(states z.qcow2)"
run 0 'open an empty zone' open -o 8M z.qcow2
is 'open says nothing' '' "$(cat out err)"
is 'open states end with the process' 'NOT_WP CLOSED EMPTY CLOSED EMPTY EMPTY' "$(states z.qcow2)"
run 0 'close a closed zone' close -o 4M z.qcow2
run 0 'close an empty zone' close -o 8M z.qcow2
run 0 'finish an empty zone' finish -o 8M z.qcow2
is 'it is full' 'NOT_WP CLOSED FULL CLOSED EMPTY EMPTY' "$(states z.qcow2)"
is 'its write pointer is its end' 12582912 "$(zone z.qcow2 2 write_pointer)"
run 1 'open a full zone' open -o 8M z.qcow2
has 'names the zone' err '^zqcow2: z\.qcow2: open of the zone at 8388608: '
has 'and what it is' err '\(the zone at 8388608 is full\)'
run 0 'finish it again' finish -o 8M z.qcow2
run 0 'finish the short last zone' finish -o 20M -c 1 z.qcow2
is 'its write pointer is the end' 23068672 "$(zone z.qcow2 5 write_pointer)"
run 0 'reset it' reset -o 20M z.qcow2
is 'it is empty' EMPTY "$(zone z.qcow2 5 state)"
run 0 'reset two zones' reset -o 4M -c 2 z.qcow2
is 'they are empty' 'NOT_WP EMPTY EMPTY CLOSED EMPTY EMPTY' "$(states z.qcow2)"
run 0 'read a reset zone' read z.qcow2 4M 4096
head -c 4096 /dev/zero >zeros
same 'it reads as zeros' zeros out
run 0 'finish three zones, the short one among them' finish -o 12M -c 3 z.qcow2
is 'they are full' 'NOT_WP EMPTY EMPTY FULL FULL FULL' "$(states z.qcow2)"
run 1 'open over a full zone' open -o 4M -c 3 z.qcow2
has 'names the one that failed' err 'the zone at 12582912: '
run 1 'reset of a conventional zone' reset -o 0 z.qcow2
has 'names it' err 'the zone at 0: '
has 'and its type' err '\(the zone at 0 is conventional\)'
run 0 'reset all' reset --all z.qcow2
is 'leaves out the conventional one' 'NOT_WP EMPTY EMPTY EMPTY EMPTY EMPTY' "$(states z.qcow2)"
"$tool" append z.qcow2 4M <data >out 2>err
run 0 'finish all' finish --all z.qcow2
is 'takes open and closed zones' 'NOT_WP FULL EMPTY EMPTY EMPTY EMPTY' "$(states z.qcow2)"
run 0 'open all' open --all z.qcow2
run 0 'close all' close --all z.qcow2

for verb in open close finish reset; do
    run 1 "$verb without -o and --all" $verb z.qcow2
    has "$verb: either or" err 'either -o OFFSET'
    run 1 "$verb with both" $verb -o 4M --all z.qcow2
    run 1 "$verb beside a zone" $verb -o 5M z.qcow2
    has "$verb: names the offset" err '5242880 is not the start of a zone'
    run 1 "$verb beyond the device" $verb -o 24M z.qcow2
    run 1 "$verb of no zones" $verb -o 4M -c 0 z.qcow2
    run 1 "$verb of too many" $verb -o 4M -c 6 z.qcow2
    has "$verb: counts them" err 'there are 5 zones from 4194304 on'
    run 1 "$verb of a missing file" $verb --all missing.qcow2
done
run 0 'a plain image' create p.qcow2 4M
for verb in open close finish reset; do
    run 1 "$verb on a plain image" $verb --all p.qcow2
    has "$verb: says why" err '^zqcow2: p\.qcow2: .*zone'
done

# States that the image stores.
run 0 'a zone becomes read-only' state -o 5M z.qcow2 read-only
run 0 'two become offline' state -o 16M -c 2 z.qcow2 offline
is 'stored states' READ_ONLY "$(zone z.qcow2 1 state)"
is 'of the last zone' OFFLINE "$(zone z.qcow2 5 state)"
run 1 'a read-only zone is not reset' reset -o 4M z.qcow2
run 0 'info' info z.qcow2
has 'names the feature' out '^feature: stored zone states$'
run 0 'normal again' state -o 4M -c 5 z.qcow2 normal
is 'it is' EMPTY "$(zone z.qcow2 5 state)"
run 0 'a zone becomes read-only' state -o 8M z.qcow2 read-only
printf '\0' | dd of=z.qcow2 bs=1 seek=88 conv=notrunc 2>dd.err # as other programs do
run 0 'info' info z.qcow2
has 'says that another program has written' out 'stored zone states are void'
lacks 'the feature is gone' out '^feature: stored zone states$'
is 'states are normal' EMPTY "$(zone z.qcow2 2 state)"
if command -v qemu-img >qemu; then
    # QEMU knows no zones: it sees the image without the bit that says so, and writes a new header.
    run 0 'states of an image that QEMU writes' state -o 8M z.qcow2 read-only
    is 'are stored' READ_ONLY "$(zone z.qcow2 2 state)"
    printf '\0' | dd of=z.qcow2 bs=1 seek=79 conv=notrunc 2>dd.err
    qemu-img snapshot -c s z.qcow2 && qemu-img snapshot -d s z.qcow2
    is 'QEMU has written it' 0 $?
    printf '\40' | dd of=z.qcow2 bs=1 seek=79 conv=notrunc 2>dd.err
    run 0 'info' info z.qcow2
    has 'says so' out 'stored zone states are void'
    is 'the state is normal' EMPTY "$(zone z.qcow2 2 state)"
    run 0 'leaks are freed' check --repair=leaks z.qcow2
    run 0 'another state is stored' state -o 4M z.qcow2 offline
    is 'as asked' OFFLINE "$(zone z.qcow2 1 state)"
    run 0 'info' info z.qcow2
    has 'names the feature again' out '^feature: stored zone states$'
    run 0 'check' check z.qcow2
    run 0 'normal again' state -o 4M z.qcow2 normal
fi
# Descriptor extensions.
run 0 'an image with extensions' create -o zone.size=4M,zone.descriptor_extension=64 d.qcow2 16M
is 'no zone has one' None "$(zone d.qcow2 1 descriptor_extension)"
printf 'hello' >hello
run 0 'one zone gets one' state -o 5M -d hello d.qcow2
is 'it has' "68656c6c6f$(printf '%0118d' 0)" "$(zone d.qcow2 1 descriptor_extension)"
is 'the others have none' None "$(zone d.qcow2 2 descriptor_extension)"
run 0 'report' report -o 4M -c 1 d.qcow2
has 'shows it' out '\[descriptor extension\]$'
run 0 'two at once' state -o 8M -c 2 --descriptor=hello d.qcow2
run 1 'a zone takes one only when it is empty' state -o 4M -d hello d.qcow2
has 'says so' err '^zqcow2: d\.qcow2: state of the zone at 4194304: '
run 0 'check' check d.qcow2
# To QEMU, which knows no zones, the tables are leaks; it must find nothing worse.
run 0 'states are stored beside them' state -o 12M d.qcow2 read-only
if command -v qemu-img >/dev/null; then
    cp d.qcow2 theirs.qcow2
    printf '\000' | dd of=theirs.qcow2 bs=1 seek=79 conv=notrunc 2>/dev/null
    ran='qemu-img check theirs.qcow2'
    qemu-img check -f qcow2 --output=json theirs.qcow2 >out 2>err
    is 'qemu-img finds leaks only' 3 $?
    lacks 'and no corruption' out corruptions
    has 'it looked at all' out '"check-errors": 0'
    qemu-img check -q -f qcow2 -r leaks theirs.qcow2 >out 2>err
    printf '\040' | dd of=theirs.qcow2 bs=1 seek=79 conv=notrunc 2>/dev/null
    run 0 'when it has freed them, check' check --repair=all theirs.qcow2
    is 'the states are normal' EMPTY "$(zone theirs.qcow2 3 state)"
    is 'there are no extensions' None "$(zone theirs.qcow2 2 descriptor_extension)"
fi
run 0 'a reset ends it' reset -o 4M d.qcow2
is 'it is gone' None "$(zone d.qcow2 1 descriptor_extension)"
head -c 65 /dev/zero >long
run 1 'a file that is too long' state -o 4M -d long d.qcow2
has 'is named' err '^zqcow2: long: '
run 1 'a file that is missing' state -o 4M -d missing d.qcow2
run 1 'zones without extensions' state -o 4M -d hello z.qcow2
has 'says why' err 'no descriptor extensions$'
run 1 'a conventional zone' state -o 0 z.qcow2 offline
run 1 'too many zones' state -o 16M -c 3 z.qcow2 offline
run 1 'no zone' state z.qcow2 offline
run 1 'no such state' state -o 4M z.qcow2 open
has 'is reported' err "must be normal, read-only or offline, not 'open'"

# Limits: zones closed by the end of a process stay active.
run 0 'an image with limits' create \
    -o zone.size=4M,zone.max_open_zones=1,zone.max_active_zones=2 l.qcow2 16M
for zone in 0 4M; do
    "$tool" append l.qcow2 $zone <data >out 2>err
    is "append at $zone" 0 $?
done
"$tool" append l.qcow2 8M <data >out 2>err
is 'a third active zone is refused' 1 $?
has 'and reported' err 'append at 8388608: .*active.*; 0 bytes were written'
run 0 'finish one' finish -o 0 l.qcow2
"$tool" append l.qcow2 8M <data >out 2>err
is 'now there is room' 0 $?
chmod 444 l.qcow2
if [ "$(id -u)" != 0 ]; then
    run 1 'a file that cannot be written' reset --all l.qcow2
    has 'is reported' err '^zqcow2: l\.qcow2: '
fi
finish
