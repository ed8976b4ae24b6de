#!/bin/sh
# SPDX-License-Identifier: MIT
# append, write and read: bytes arrive, pieces are reported, odd ends and full zones are refused.
. "$(dirname "$0")/lib.sh"

# feed FILE WANTED_STATUS NAME ARGUMENT...: as run, with FILE on standard input.
feed() {
    input=$1
    shift
    run "$@" <"$input"
}

run 0 'an image' create -o zone.size=4M,zone.capacity=3M,zone.conventional_zones=1 z.qcow2 32M
random 2621440 1 >two_and_a_half
feed two_and_a_half 0 'append in pieces' append z.qcow2 4M
is 'each is reported' '4194304 1048576
5242880 1048576
6291456 524288' "$(cat out)"
is 'and nothing else' '' "$(cat err)"
run 0 'read it back' read z.qcow2 4M 2621440
same 'the same bytes' two_and_a_half out
random 512 2 >sector
feed sector 0 'the next append' append z.qcow2 0x400000
is 'goes behind it' '6815744 512' "$(cat out)"
feed two_and_a_half 1 'more than fits' append z.qcow2 4M
has 'is refused with what was written' err '^zqcow2: z\.qcow2: append at 4194304: .*; 0 bytes were written$'
is 'and the write pointer stays' 6816256 "$(zone z.qcow2 1 write_pointer)"

random 1049000 3 >odd
feed odd 1 'an odd end' append z.qcow2 8M
is 'whole sectors are in' '8388608 1048576' "$(cat out)"
has 'the rest is reported' err '; 1048576 bytes were written$'
is 'the write pointer agrees' $((8388608 + 1048576)) "$(zone z.qcow2 2 write_pointer)"
random 1049700 6 >odder
feed odder 1 'an odd end behind whole sectors' append z.qcow2 8M
is 'these are in' '9437184 1048576
10485760 1024' "$(cat out)"
has 'and reported' err '; 1049600 bytes were written$'
feed odd 0 'an odd end with --pad' append --pad z.qcow2 12M
is 'fills a sector' '12582912 1048576
13631488 512' "$(cat out)"
run 0 'read the padded' read z.qcow2 12M 1049088
(cat odd && head -c 88 /dev/zero) >padded
same 'zeros fill it' padded out
: >nothing
feed nothing 0 'nothing at all' append z.qcow2 16M
is 'is no piece' '' "$(cat out)"
is 'and leaves the zone empty' EMPTY "$(zone z.qcow2 4 state)"
printf 'short' >five
feed five 1 'five bytes' append z.qcow2 16M
has 'none of them written' err '; 0 bytes were written$'
feed five 0 'five bytes with --pad' append --pad z.qcow2 16M
is 'are a sector' '16777216 512' "$(cat out)"

feed sector 1 'append to a conventional zone' append z.qcow2 0
feed sector 1 'append beside a zone start' append z.qcow2 5M
has 'is refused by its offset' err '5242880 is not the start of a zone'
feed sector 1 'append beyond the device' append z.qcow2 32M
feed sector 1 'append at no size' append z.qcow2 here
run 0 'a plain image' create p.qcow2 8M
feed sector 1 'append to a plain image' append p.qcow2 0
has 'says why' err '^zqcow2: p\.qcow2: .*zone'

run 0 'small appends' create -o zone.size=4M,zone.layout=v7,zone.max_append_bytes=4K a.qcow2 32M
random 10240 4 >ten
feed ten 0 'pieces of max_append' append a.qcow2 4M
is 'are of 4K' '4194304 4096
4198400 4096
4202496 2048' "$(cat out)"

feed two_and_a_half 0 'write to a conventional zone' write z.qcow2 512
is 'says nothing' '' "$(cat out err)"
run 0 'read it' read z.qcow2 512 2621440
same 'it is there' two_and_a_half out
feed two_and_a_half 0 'write to a sequential zone' write z.qcow2 20M
feed sector 1 'write elsewhere' write z.qcow2 20M
has 'is refused with the offset' err '^zqcow2: z\.qcow2: write at 20971520: .*; 0 bytes were written$'
random 3145728 5 >zone_full
feed zone_full 0 'fill a zone' write z.qcow2 24M
is 'it is full' FULL "$(zone z.qcow2 6 state)"
feed sector 1 'write beside a sector' write z.qcow2 100
has 'is refused' err '100 is not a multiple of 512'
feed odd 0 'write with --pad' write --pad z.qcow2 28M
is 'moves the write pointer' $((29360128 + 1049088)) "$(zone z.qcow2 7 write_pointer)"
run 0 'whole zones' create -o zone.size=2M w.qcow2 16M
feed two_and_a_half 0 'write over the end of a zone' write w.qcow2 4M
is 'fills one' FULL "$(zone w.qcow2 2 state)"
is 'and goes on in the next' $((6 * 1048576 + 524288)) "$(zone w.qcow2 3 write_pointer)"
run 0 'read over the end' read w.qcow2 4M 2621440
same 'the same bytes again' two_and_a_half out

feed sector 0 'a sector first' write w.qcow2 8M
feed two_and_a_half 0 'write in pieces that do not fit the zone' write w.qcow2 8389120
is 'goes on in the next, too' $((10 * 1048576 + 524800)) "$(zone w.qcow2 5 write_pointer)"
run 0 'read them' read w.qcow2 8389120 2621440
same 'once more the same' two_and_a_half out

feed two_and_a_half 0 'write to a plain image' write p.qcow2 1M
run 0 'read bytes at odd places' read p.qcow2 1048577 1000003
tail -c +2 two_and_a_half | head -c 1000003 >part
same 'the right ones' part out
run 0 'read nothing' read p.qcow2 5 0
is 'gives nothing' '' "$(cat out)"
run 0 'the last byte' read p.qcow2 8388607 1
is 'is one' 1 "$(wc -c <out | tr -d ' ')"
run 1 'read beyond the end' read p.qcow2 8M 1
run 1 'read across the end' read p.qcow2 0 8388609
has 'says so' err 'beyond the device'
run 1 'read without a length' read p.qcow2 0
has 'names it' err 'LENGTH is missing'
feed two_and_a_half 1 'write across the end' write p.qcow2 7M
has 'reports what was written' err ' at 8388608: the device ends here; 1048576 bytes were written$'
feed two_and_a_half 1 'write across the end, not at a piece' write p.qcow2 6.75M
has 'fills the device' err ' at 8388608: the device ends here; 1310720 bytes were written$'
head -c 1310720 two_and_a_half >part
run 0 'read to the end' read p.qcow2 7077888 1310720
same 'what fits' part out
feed part 0 'write to the end' write p.qcow2 7077888
run 0 'after finish' finish -o 4M z.qcow2
run 0 'read behind the data' read z.qcow2 6816256 512
head -c 512 /dev/zero >zeros
same 'zeros' zeros out

# Errors name their cause.
run 0 'an image' create -o zone.size=4M,zone.capacity=3M,zone.conventional_zones=1 \
    -o zone.max_active_zones=1 cause.qcow2 24M
feed sector 0 'a sector' append cause.qcow2 4M
feed sector 1 'a write elsewhere' write cause.qcow2 5M
has 'the zone and its pointer' err 'at 5242880: not at the zone.s write pointer \(the zone at 4194304 is written up to 4194816\); 0'
feed sector 1 'an append to a conventional zone' append cause.qcow2 0
has 'its type' err 'the zone at 0 is conventional\); 0'
feed sector 1 'a zone too many' write cause.qcow2 8M
has 'the limit' err 'too many active zones \(the limit is 1\); 0'
run 0 'finish' finish -o 4M cause.qcow2
feed sector 1 'a write to a full zone' write cause.qcow2 4M
has 'the zone' err 'the zone is full \(the zone at 4194304 is full\)'
feed two_and_a_half 0 'nearly a zone' append cause.qcow2 8M
feed two_and_a_half 1 'more than fits' append cause.qcow2 8M
has 'the end of what can be written' err 'the zone at 8388608 can be written up to 11534336'

feed sector 0 'append -q' append -q cause.qcow2 8M
is 'prints nothing' '' "$(cat out err)"
feed sector 0 'append --quiet' append --quiet cause.qcow2 8M
is 'prints nothing, too' '' "$(cat out err)"
feed two_and_a_half 1 'append -q of too much' append -q cause.qcow2 8M
is 'prints no piece' '' "$(cat out)"
has 'and the error' err 'can be written up to'

# No binary to a terminal, unless it is forced.
if command -v script >/dev/null; then
    script -qec '"$tool" read z.qcow2 4M 512' /dev/null >out 2>err </dev/null
    is 'read to a terminal' 1 $?
    has 'is refused' out 'zqcow2: read: standard output is a terminal: redirect it, or add --force'
    is 'in one line' 1 "$(wc -l <out | tr -d ' ')"
    script -qec '"$tool" read --force z.qcow2 4M 512' /dev/null >out 2>err </dev/null
    is 'with --force' 0 $?
    is 'the bytes come' yes "$([ "$(wc -c <out)" -ge 512 ] && echo yes)"
fi

# Progress shows on a terminal only, and only if it takes its time.
if command -v script >/dev/null; then
    script -qec '(head -c 1048576 /dev/zero; sleep 0.7; head -c 1048576 /dev/zero) | "$tool" write p.qcow2 0' \
        /dev/null >out 2>err </dev/null
    has 'progress on a terminal' out 'write: [0-9.]+ MiB'
fi
verdict $(! { sleep 0.7; cat sector; } | "$tool" write p.qcow2 0 2>&1 | grep -q .; echo $?) \
    'no progress without one'
"$tool" read p.qcow2 0 8M 2>err | head -c 100 >out
lacks 'a reader that goes away ends it' err 'Aborted|signal'
run 0 'and the image is none the worse' check p.qcow2
finish
