#!/bin/sh
# SPDX-License-Identifier: MIT
# Persistent bitmaps, with QEMU as the other program: whatever either of them has added, marked,
# cleared or removed, the other one finds, and no cluster is counted wrong.
. "$(dirname "$0")/lib.sh"

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
    echo '# no qemu-img here'
    exit 77
fi

# sound NAME FILE
sound() {
    ran="qemu-img check $2"
    qemu-img check -q -f qcow2 "$2" >out 2>err
    verdict $? "$1" || show
    run 0 "$1 for check" check "$2"
}
# qemu NAME ARGUMENT...: qemu-img bitmap
qemu() {
    qemu_name=$1
    shift
    ran="qemu-img bitmap $*"
    qemu-img bitmap "$@" >out 2>err
    verdict $? "$qemu_name" || show
}
# Names, granularities and flags, as qemu-img has them.
theirs() {
    qemu-img info --output=json "$1" | python3 -c '
import json, sys
for b in json.load(sys.stdin)["format-specific"]["data"].get("bitmaps", []):
    print(b["name"], b["granularity"], *b["flags"])'
}
ours() {
    "$tool" bitmap --json "$1" | python3 -c '
import json, sys
for b in json.load(sys.stdin):
    print(b["name"], b["granularity"], *b["flags"])'
}
# marks FILE NAME: START+LENGTH in bytes, of what is marked.
marks() {
    "$tool" bitmap --json "$1" "$2" | python3 -c '
import json, sys
print(*("%d+%d" % (r["start"], r["length"]) for r in json.load(sys.stdin)))'
}
# counted FILE NAME: how many bytes are, in a list of all.
counted() {
    "$tool" bitmap --json "$1" | python3 -c '
import json, sys
print(*(b["dirty-bytes"] for b in json.load(sys.stdin) if b["name"] == sys.argv[1]))' "$2"
}
# The same from QEMU, by a server of NBD which exports the bitmap.
their_marks() {
    rm -f sock
    qemu-nbd -r -f qcow2 -k "$PWD/sock" -B "$2" --pid-file=pid --fork "$1" >out 2>err || return 1
    qemu-img map --output=json --image-opts \
        "driver=nbd,server.type=unix,server.path=$PWD/sock,x-dirty-bitmap=qemu:dirty-bitmap:$2" |
        python3 -c '
import json, sys
out = []
for r in json.load(sys.stdin):
    if r["data"]:
        continue
    if out and out[-1][0] + out[-1][1] == r["start"]:
        out[-1][1] += r["length"]
    else:
        out.append([r["start"], r["length"]])
print(*("%d+%d" % (s, n) for s, n in out))'
    # Until it has ended it holds a lock on the image.
    server=$(cat pid)
    kill "$server"
    while kill -0 "$server" 2>/dev/null; do sleep 0.01; done
}

for how in compat=1.1 compat=1.1,extended_l2=on compat=1.1,lazy_refcounts=on \
    compat=1.1,cluster_size=512 compat=1.1,cluster_size=2M compat=1.1,refcount_bits=64; do
    rm -f a.qcow2
    qemu-img create -q -f qcow2 -o "$how" a.qcow2 40M
    qemu "$how: theirs" --add a.qcow2 theirs
    run 0 "$how: ours" bitmap --add -g 4K a.qcow2 ours
    sound "$how: both" a.qcow2
    is "$how: both are there" "$(theirs a.qcow2)" "$(ours a.qcow2)"
    run 0 "$how: write" io -c 'write -P 1 1M 64k' -c 'write -P 2 3M 512' a.qcow2
    sound "$how: written" a.qcow2
    qemu-io -f qcow2 -c 'write -P 3 5M 100k' a.qcow2 >out 2>err
    run 0 "$how: write zeros" io -c 'write -z 7M 4k' -c 'discard 30M 2M' a.qcow2
    want="$((1 << 20))+65536 $((3 << 20))+4096 $((5 << 20))+102400 $((7 << 20))+4096 $((30 << 20))+$((2 << 20))"
    is "$how: marks of ours" "$want" "$(marks a.qcow2 ours)"
    is "$how: counted" $((65536 + 4096 + 102400 + 4096 + (2 << 20))) "$(counted a.qcow2 ours)"
    for b in ours theirs; do
        is "$how: as QEMU finds $b" "$(marks a.qcow2 $b)" "$(their_marks a.qcow2 $b)"
    done
    qemu "$how: disabled by QEMU" --disable a.qcow2 ours
    run 0 "$how: clear" bitmap --clear a.qcow2 theirs
    run 0 "$how: write again" io -c 'write -P 4 9M 64k' a.qcow2
    is "$how: a disabled one stays" "$want" "$(marks a.qcow2 ours)"
    is "$how: a cleared one begins anew" "$((9 << 20))+65536" "$(marks a.qcow2 theirs | cut -d' ' -f1 | sed 's/+.*/+65536/')"
    run 0 "$how: enable" bitmap --enable a.qcow2 ours
    qemu "$how: merged by QEMU" --merge theirs a.qcow2 ours
    is "$how: as QEMU merged it" "$(marks a.qcow2 ours)" "$(their_marks a.qcow2 ours)"
    is "$how: flags" "$(theirs a.qcow2)" "$(ours a.qcow2)"
    sound "$how: changed by both" a.qcow2
    qemu "$how: QEMU removes ours" --remove a.qcow2 ours
    run 0 "$how: we remove theirs" bitmap --remove a.qcow2 theirs
    is "$how: none is left" '' "$(theirs a.qcow2)$(ours a.qcow2)"
    sound "$how: without any" a.qcow2
done

# An image of ours, with zones and a backing file.
run 0 'a plain base' create base.qcow2 64M
run 0 'an overlay' create -b base.qcow2 -F qcow2 top.qcow2
run 0 'with a bitmap' bitmap --add --disable top.qcow2 b
is 'added and disabled' 'b 65536' "$(theirs top.qcow2)"
is 'the backing file stays' base.qcow2 "$(qemu-img info --output=json top.qcow2 | python3 -c '
import json, sys
print(json.load(sys.stdin)["backing-filename"])')"
run 0 'write' io -c 'write 0 64k' top.qcow2
run 0 'commit' commit top.qcow2
run 0 'the list of the overlay' bitmap top.qcow2
has 'is still there' out '^b +64 KiB +0 bytes  disabled'
sound 'committed' top.qcow2
run 0 'rebase' rebase -b '' top.qcow2
is 'keeps bitmaps' 'b 65536' "$(theirs top.qcow2)"

run 0 'zones' create -o zone.size=1M,zone.conventional_zones=1 zoned.qcow2 8M
run 0 'a bitmap of zones' bitmap --add zoned.qcow2 z
random 100000 1 >data
run 0 'append' append --pad -q zoned.qcow2 2M <data
is 'its marks' "$((2 << 20))+131072" "$(marks zoned.qcow2 z)"
run 0 'finish' finish --offset 2M --count 1 zoned.qcow2
run 0 'reset' reset --offset 4M --count 1 zoned.qcow2
is 'with a finish, without the reset of an empty zone' "$((2 << 20))+$((1 << 20))" "$(marks zoned.qcow2 z)"
run 0 'clear' bitmap --clear zoned.qcow2 z
run 0 'reset' reset --offset 2M --count 1 zoned.qcow2
is 'the reset' "$((2 << 20))+$((1 << 20))" "$(marks zoned.qcow2 z)"
run 0 'check' check zoned.qcow2

# Other sizes: nodes of 2 MiB, so that the end moves within one, to the end of one and over several.
mib=$((1 << 20))
for how in compat=1.1,cluster_size=512 compat=1.1,extended_l2=on; do
    rm -f size.qcow2
    qemu-img create -q -f qcow2 -o "$how" size.qcow2 3M
    qemu "$how: theirs" --add -g 512 size.qcow2 theirs
    qemu "$how: theirs, disabled" --add --disable size.qcow2 old
    run 0 "$how: ours" bitmap --add -g 512 size.qcow2 ours
    run 0 "$how: write" io -c 'write 512 1k' -c 'write 2M 64k' size.qcow2
    head="512+1024 $((2 * mib))"
    run 0 "$how: to the end of a node" resize size.qcow2 4M
    is "$how: what is new is marked" "$head+65536 $((3 * mib))+$mib" "$(marks size.qcow2 ours)"
    is "$how: of a disabled one, too" "$((3 * mib))+$mib" "$(marks size.qcow2 old)"
    run 0 "$how: over several nodes" resize size.qcow2 21M
    run 0 "$how: write in the new part" io -c 'write 20M 64k' size.qcow2
    run 0 "$how: and back" resize --shrink size.qcow2 2560k
    is "$how: what is cut off is gone" "$head+65536" "$(marks size.qcow2 ours)"
    sound "$how: smaller" size.qcow2
    run 0 "$how: again" resize size.qcow2 8M
    sound "$how: larger" size.qcow2
    is "$how: new again" "$head+65536 $((5 * mib / 2))+$((11 * mib / 2))" "$(marks size.qcow2 theirs)"
    for b in ours theirs old; do
        is "$how: as QEMU finds $b" "$(marks size.qcow2 $b)" "$(their_marks size.qcow2 $b)"
    done
    is "$how: flags" "$(theirs size.qcow2)" "$(ours size.qcow2)"
    run 0 "$how: snapshot" snapshot -c s size.qcow2
    run 0 "$how: clear" bitmap --clear size.qcow2 ours
    run 0 "$how: apply" snapshot -a s size.qcow2
    is "$how: all is marked" "0+$((8 * mib))" "$(marks size.qcow2 ours)"
    is "$how: in an enabled one" "$((5 * mib / 2))+$((11 * mib / 2))" "$(marks size.qcow2 old)"
    is "$how: as QEMU finds it" "0+$((8 * mib))" "$(their_marks size.qcow2 ours)"
    sound "$how: applied" size.qcow2
done

# A commit changes the backing file, and so marks it there.
run 0 'a base with a bitmap' bitmap --add base.qcow2 b
run 0 'an overlay' create -b base.qcow2 -F qcow2 up.qcow2
run 0 'write' io -c 'write 1M 64k' -c 'write -z 5M 64k' up.qcow2
run 0 'commit' commit up.qcow2
is 'what was committed' "$((1 << 20))+65536 $((5 << 20))+65536" "$(marks base.qcow2 b)"
run 0 'zones with data' append --pad -q zoned.qcow2 3M <data
run 0 'clear' bitmap --clear zoned.qcow2 z
run 0 'an overlay of zones' create -b zoned.qcow2 -F qcow2 zup.qcow2
run 0 'reset' reset --offset 3M --count 1 zup.qcow2
run 0 'append' append --pad -q zup.qcow2 5M <data
run 0 'commit' commit zup.qcow2
is 'the reset and the data' "$((3 << 20))+$((1 << 20)) $((5 << 20))+131072" "$(marks zoned.qcow2 z)"
sound 'the base' base.qcow2

# Other changes of an image leave bitmaps and their marks as they are.
was=$(marks base.qcow2 b)
run 0 'amend' amend -o refcount_bits=64 base.qcow2
run 0 'compact' compact zoned.qcow2
is 'after an amend' "$was" "$(marks base.qcow2 b)"
is 'after a compact' "$((3 << 20))+$((1 << 20)) $((5 << 20))+131072" "$(marks zoned.qcow2 z)"
is 'as QEMU finds it' "$was" "$(their_marks base.qcow2 b)"
run 0 'check' check zoned.qcow2
sound 'amended' base.qcow2
run 0 'zones as they were' reset --offset 5M --count 1 zoned.qcow2
run 0 'clear' bitmap --clear zoned.qcow2 z
run 0 'reset' reset --offset 2M --count 1 zoned.qcow2
run 0 'finish' finish --offset 2M --count 1 zoned.qcow2

# The same list in info; of a bitmap that is in use, too.
run 0 'info' info --json zoned.qcow2
is 'has the bitmaps' "$("$tool" bitmap --json zoned.qcow2 | python3 -c '
import json, sys
print(json.load(sys.stdin))')" "$(python3 -c '
import json
print(json.load(open("out"))["bitmaps"])')"
run 0 'info as text' info zoned.qcow2
has 'lists them' out '^bitmap: z, granularity 64 KiB, enabled, 1 MiB dirty$'
run 0 'without bitmaps' info --json up.qcow2
has 'an empty array' out '"bitmaps": \[\]'

# Where all is marked the table says so: a list costs what the file has, and not what the disk has.
run 0 'a disk of 1 PiB' create -o cluster_size=2M huge.qcow2 1P
run 0 'with a bitmap' bitmap --add -g 512 huge.qcow2 b
run 0 'a snapshot' snapshot -c s huge.qcow2
run 0 'applied' snapshot -a s huge.qcow2
for words in info 'bitmap --list' 'bitmap --list --json'; do
    # shellcheck disable=SC2086 # one word for each argument
    (ulimit -t 10 && "$tool" $words huge.qcow2 >out 2>err)
    verdict $? "$words of all of it in 10 s of processor time"
    has 'all of it' out '1 PiB dirty|b +512 bytes +1 PiB|"dirty-bytes": 1125899906842624'
done
(ulimit -t 10 && "$tool" bitmap --list huge.qcow2 b >out 2>err)
verdict $? 'its marks, too'
is 'in one range' '0 0x4000000000000' "$(awk 'NR == 2 { print $1, $2 }' out)"
is 'and no more' 2 "$(wc -l <out | tr -d ' ')"
run 0 'a write' io -c 'write -q 1M 64k' huge.qcow2
is 'changes nothing' 1125899906842624 "$(counted huge.qcow2 b)"
run 0 'an odd end' create odd.qcow2 1049600
run 0 'with large marks' bitmap --add -g 4K odd.qcow2 b
run 0 'of which some' io -c 'write -q 0 20k' -c 'write -q 1049088 512' -c 'write -q 700k 512' odd.qcow2
is 'are counted to the end' $((20480 + 1024 + 4096)) "$(counted odd.qcow2 b)"
rm -f huge.qcow2 odd.qcow2

# What is refused.
run 1 'no name' bitmap --add a.qcow2
run 1 'a name that is taken' bitmap --add zoned.qcow2 z
has 'says so' err 'bitmap "z": a bitmap has this name already'
run 1 'a granularity of 1000' bitmap --add -g 1000 a.qcow2 x
has 'says what is possible' err 'power of two from 512'
run 1 'none of that name' bitmap --clear zoned.qcow2 other
has 'says so, too' err 'no bitmap has this name'
run 1 'a list and a change' bitmap --list --add a.qcow2 x
run 1 'a granularity without --add' bitmap -g 4K --clear a.qcow2 x
run 1 'JSON of a change' bitmap --json --clear a.qcow2 x
qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 1M
run 1 'version 2' bitmap --add old.qcow2 x
has 'says so as well' err 'version 2'
finish
