#!/bin/sh
# SPDX-License-Identifier: MIT
# report: blkzone's form, JSON, the map; where it begins and ends.
. "$(dirname "$0")/lib.sh"

run 0 'an image' create -o zone.size=64M,zone.capacity=48M,zone.conventional_zones=1 \
    -o zone.max_open_zones=6,zone.max_active_zones=8 z.qcow2 800M
random 4096 1 | "$tool" append z.qcow2 64M >out 2>err
run 0 'finish' finish -o 128M z.qcow2
random 8192 2 | "$tool" append z.qcow2 768M >out 2>err

run 0 'report' report z.qcow2
cat >wanted <<'END'
  start: 0x000000000, len 0x020000, cap 0x020000, wptr 0x000000 reset:0 non-seq:0, zcond: 0(nw) [type: 1(CONVENTIONAL)]
  start: 0x000020000, len 0x020000, cap 0x018000, wptr 0x000008 reset:0 non-seq:0, zcond: 4(cl) [type: 2(SEQ_WRITE_REQUIRED)]
  start: 0x000040000, len 0x020000, cap 0x018000, wptr 0x020000 reset:0 non-seq:0, zcond:14(fu) [type: 2(SEQ_WRITE_REQUIRED)]
END
for start in 0x000060000 0x000080000 0x0000a0000 0x0000c0000 0x0000e0000 0x000100000 0x000120000 \
    0x000140000 0x000160000; do
    echo "  start: $start, len 0x020000, cap 0x018000, wptr 0x000000 reset:0 non-seq:0," \
        "zcond: 1(em) [type: 2(SEQ_WRITE_REQUIRED)]" >>wanted
done
echo "  start: 0x000180000, len 0x010000, cap 0x010000, wptr 0x000010 reset:0 non-seq:0," \
    "zcond: 4(cl) [type: 2(SEQ_WRITE_REQUIRED)]" >>wanted
same 'is in the form of blkzone' wanted out || diff wanted out | sed 's/^/# /'

# blkzone itself holds the form: what it would print for the zones of --json.
blkzone=$(PATH=$PATH:/usr/sbin:/sbin command -v blkzone || true)
if [ -n "$blkzone" ]; then
    "$tool" report --json z.qcow2 >json
    python3 - "$blkzone" json >wanted 2>err <<'END'
import json, re, sys
binary = open(sys.argv[1], 'rb').read()
form = re.search(rb'  start: 0x%[^\0]*cap 0x%[^\0]*', binary).group().decode()
form = re.sub(r'%(0?\d*)l*([xu])', lambda m: '%' + m[1] + m[2].replace('u', 'd'), form)
names = dict(NOT_WP=(0, 'nw'), EMPTY=(1, 'em'), IMP_OPEN=(2, 'oi'), EXP_OPEN=(3, 'oe'),
             CLOSED=(4, 'cl'), READ_ONLY=(13, 'ro'), FULL=(14, 'fu'), OFFLINE=(15, 'of'))
for z in json.load(open(sys.argv[2])):
    conv = z['type'] == 'conventional'
    wp = 0 if conv else (z['write_pointer'] - z['start']) // 512
    sys.stdout.write(form % (z['start'] // 512, z['length'] // 512, z['capacity'] // 512, wp, 0, 0,
                             *names[z['state']], 1 if conv else 2,
                             'CONVENTIONAL' if conv else 'SEQ_WRITE_REQUIRED'))
END
    is 'blkzone gives up its form' 0 "$(grep -c Traceback err)"
    same 'the form inside blkzone says the same' wanted out || diff wanted out | sed 's/^/# /'
else
    echo '# blkzone is not here: its own form was not compared'
fi

run 0 'as JSON' report --json z.qcow2
verdict $(python3 -m json.tool <out >/dev/null; echo $?) 'it is JSON'
python3 - >wanted <<'END'
M = 1 << 20
for i in range(13):
    start, length = i * 64 * M, 32 * M if i == 12 else 64 * M
    wp = start + {1: 4096, 2: length, 12: 8192}.get(i, 0)
    print(i, start, length, length if i == 0 else min(48 * M, length), wp,
          'sequential' if i else 'conventional',
          {0: 'NOT_WP', 1: 'CLOSED', 2: 'FULL', 12: 'CLOSED'}.get(i, 'EMPTY'))
END
python3 -c '
import json, sys
for z in json.load(sys.stdin):
    print(*(z[k] for k in "index start length capacity write_pointer type state".split()))
' <out >got
same 'every zone is as it should be' wanted got || diff wanted got | sed 's/^/# /'

# ranges: OPTIONS FIRST_SECTOR ZONES
while read -r first zones options; do
    # shellcheck disable=SC2086
    run 0 "report $options" report $options z.qcow2
    is "$options: the first zone" "$first" "$(sed -n '1s/^  start: \(0x[0-9a-f]*\).*/\1/p' out)"
    is "$options: how many" "$zones" "$(wc -l <out | tr -d ' ')"
done <<'RANGES'
0x000020000 12 -o 64M
0x000020000 12 -o 127M
0x000020000 2 -o 64M -c 2
0x000000000 1 -c 1
0x000000000 13 -c 100
0x000180000 1 -o 838860799 -c 5
0x000000000 1 --state=not-wp
0x000020000 2 --state=CLOSED
0x000020000 3 --state=closed,full
0x000040000 1 --state=FULL -c 5
0x000180000 1 --state=closed -o 130M -c 1
RANGES
run 0 'no zone in this state' report --state=offline,read_only z.qcow2
is 'none is shown' '' "$(cat out)"
run 1 'a state that is none' report --state=closed,shut z.qcow2
has 'is refused by name' err 'closed,shut'
run 1 'an empty list of states' report --state= z.qcow2
run 1 'a picture of some states' report --state=full --map z.qcow2
run 0 'no zones asked for' report -c 0 z.qcow2
is 'none shown' '' "$(cat out)"
run 0 'none as JSON' report --json -c 0 z.qcow2
is 'is an empty array' '[]' "$(cat out)"
run 1 'an offset at the end' report -o 838860800 z.qcow2
has 'is refused' err '^zqcow2: z\.qcow2: .*838860800'
run 1 'an offset that is none' report -o nowhere z.qcow2
run 1 'a count that is none' report -c 1K z.qcow2
run 1 'two forms' report --json --map z.qcow2
run 0 'a plain image' create p.qcow2 1M
run 1 'has no report' report p.qcow2
has 'and says why' err '^zqcow2: p\.qcow2: .*zone'

run 0 'the map' report --map z.qcow2
has 'its head' out '^z\.qcow2: 800 MiB, 13 zones of 64 MiB \(capacity 48 MiB\), open 0/6, active 2/8$'
has 'its states' out '^ +-cf\.{9}c$'
has 'its legend' out 'c closed 2 +f full 1 +- conventional 1 +\. empty 9$'
lacks 'no colour in a file' out "$(printf '\033')"
LC_ALL=C "$tool" report --map z.qcow2 >out
is 'without UTF-8: fill levels in ASCII' '  0 bytes ~1#.........1' "$(sed -n 4p out)"
LC_ALL=C.UTF-8 "$tool" report --map z.qcow2 >out
is 'with UTF-8: blocks' '  0 bytes ~▁█·········▁' "$(sed -n 4p out)"
COLUMNS=20 "$tool" report --map z.qcow2 >out
is 'narrow: cells in rows of 8' 2 "$(grep -cE '(bytes|MiB) [^ ]+$' out)"
run 0 'a device of many zones' create -o zone.size=1M many.qcow2 64G
run 0 'its map' report --map many.qcow2
has 'groups zones' out '^a cell is 64 zones:'
is 'in a screenful' yes "$([ "$(wc -l <out)" -le 40 ] && echo yes)"
run 0 'its report' report many.qcow2
is 'lists them all' 65536 "$(wc -l <out | tr -d ' ')"
if command -v script >/dev/null; then
    # in_terminal VARIABLE...: the map in a terminal, with nothing but these in the environment.
    in_terminal() {
        env -i PATH="$PATH" tool="$tool" "$@" \
            script -qec '"$tool" report --map z.qcow2' /dev/null >out 2>err </dev/null
    }
    colour=$(printf '\033\\[[0-9;]*m')
    in_terminal TERM=xterm
    has 'colour on a terminal' out "$colour"
    in_terminal TERM=xterm NO_COLOR=
    has 'NO_COLOR without a value means nothing' out "$colour"
    for with in 'TERM=xterm NO_COLOR=1' TERM=dumb TERM= NO_TERM=; do
        in_terminal $with
        lacks "no colour with $with" out "$colour"
        has "but the map, with $with" out '^c closed'
    done
fi
finish
