#!/bin/sh
# SPDX-License-Identifier: MIT
# upgrade: a zoned image without the feature bit, as revision 5 made them, gets it.
. "$(dirname "$0")/lib.sh"

# bit FILE VALUE: the lowest byte of the incompatible features.
bit() {
    printf "\\$2" | dd of="$1" bs=1 seek=79 conv=notrunc 2>/dev/null
}

run 0 'an image of layout v7' create -o zone.size=4M,zone.layout=v7 old.qcow2 32M
random 4096 1 >data
"$tool" append old.qcow2 4M <data >out 2>err
is 'with data' 0 $?
is 'the feature bit' 040 "$(dd if=old.qcow2 bs=1 skip=79 count=1 2>/dev/null | od -An -to1 | tr -d ' ')"
bit old.qcow2 000
cp old.qcow2 before.qcow2
run 0 'without it: info' info old.qcow2
has 'is reported' out '^feature: zones without the feature bit'
run 0 'without it: report' report -o 4M -c 1 old.qcow2
has 'reads' out 'wptr 0x000008 .*zcond: 4\(cl\)'
run 0 'without it: reading' read old.qcow2 4M 4096
same 'works' data out
run 1 'without it: writing' reset -o 4M old.qcow2
has 'is refused' err '^zqcow2: old\.qcow2: '
same 'and nothing changed' before.qcow2 old.qcow2

run 0 'upgrade' upgrade old.qcow2
is 'says so' 'old.qcow2: the feature bit is set' "$(cat out)"
is 'the bit is there' 040 "$(dd if=old.qcow2 bs=1 skip=79 count=1 2>/dev/null | od -An -to1 | tr -d ' ')"
run 0 'info' info --json old.qcow2
is 'it is still layout v7' v7 "$(python3 -c 'import json; print(json.load(open("out"))["layout"])')"
run 0 'reading' read old.qcow2 4M 4096
same 'the same data' data out
run 0 'now writing' reset -o 4M old.qcow2
is 'works' EMPTY "$(zone old.qcow2 1 state)"
run 0 'check' check old.qcow2
run 0 'upgrade again' upgrade old.qcow2
is 'has nothing to do' 'old.qcow2: the feature bit is already set' "$(cat out)"
# The files that it needs are found as for every other verb.
mkdir in out.d
run 0 'a template' create -o zone.size=4M,zone.layout=v7 in/t.qcow2 32M
run 0 'an overlay' create -o zone.layout=v7 -b t.qcow2 in/o.qcow2
bit in/o.qcow2 000
run 1 'upgrade, with the template outside' upgrade --backing-root=out.d in/o.qcow2
has 'is refused' err 'lies outside the folder'
run 0 'upgrade, with it inside' upgrade --backing-root=in in/o.qcow2
is 'says so' 'in/o.qcow2: the feature bit is set' "$(cat out)"
run 0 'a plain image' create p.qcow2 1M
run 1 'upgrade of it' upgrade p.qcow2
has 'is refused' err '^zqcow2: p\.qcow2: .*zone'
finish
