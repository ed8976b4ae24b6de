#!/bin/sh
# SPDX-License-Identifier: MIT
# Incremental backups: a full one and three of what a bitmap says has changed are the disk, with its
# zones, at each of them; and so are they when the later ones are committed into the first.
#
# ZQ_SEED: one history; ZQ_SEEDS: how many of each kind
. "$(dirname "$0")/lib.sh"

# A number below $1, which becomes $drawn.
draw() {
    rng=$(((rng * 1103515245 + 12345) % 2147483648))
    drawn=$((rng / 65536 % $1))
}

# io COMMAND: what a zone refuses changes nothing.
io() {
    "$tool" io -c "$*" disk.qcow2 >/dev/null 2>&1
}

# One random request of a plain disk of 16 MiB.
plain_step() {
    draw 248
    at=$((drawn * 64))
    draw 300
    len=$((drawn + 1))
    draw 6
    case $drawn in
    0) io write -z ${at}k ${len}k ;;
    1) io discard ${at}k ${len}k ;;
    *) io write -P $((step % 250 + 1)) ${at}k ${len}k ;;
    esac
}

# One of a disk with 12 zones of 1 MiB, of which the first two are conventional.
zoned_step() {
    draw 12
    zone=$drawn
    draw 100
    len=$((drawn + 1))
    draw 9
    if [ "$zone" -lt 2 ]; then
        io write -P $((step % 250 + 1)) $((zone * 1024 + len * 4))k ${len}k
        return
    fi
    case $drawn in
    0 | 1) io zrs ${zone}M 1M ;;
    2) io zf ${zone}M 1M ;;
    *)
        random $((len * 4096)) "$step" >data
        "$tool" append -q disk.qcow2 ${zone}M <data >/dev/null 2>&1 && appended=$((appended + 1))
        ;;
    esac
}

# The same with descriptor extensions, which take the place of others after a reset, and stored states.
described_step() {
    draw 3
    [ "$drawn" = 0 ] || { zoned_step; return; }
    draw 10
    zone=$((drawn + 2))
    draw 5
    case $drawn in
    0) "$tool" state -o ${zone}M disk.qcow2 read-only ;;
    1) "$tool" state -o ${zone}M disk.qcow2 offline ;;
    2) "$tool" state -o ${zone}M disk.qcow2 normal ;;
    *)
        random 64 "$step" >extension
        [ $((step % 2)) = 0 ] || io zrs ${zone}M 1M
        "$tool" state -o ${zone}M -d extension disk.qcow2 && described=$((described + 1))
        ;;
    esac >/dev/null 2>&1
}

# change KIND: some of them
change() {
    draw 20
    todo=$((drawn + 1))
    while [ "$todo" -gt 0 ]; do
        todo=$((todo - 1))
        step=$((step + 1))
        "${1}_step"
    done
}

# zones FILE: of its report, which plain images do not have.
zones() {
    "$tool" report --json "$1" 2>/dev/null
}

# same NAME OTHER: as the disk, with all zones.
same() {
    run 0 "$1: content" compare disk.qcow2 "$2"
    is "$1: zones" "$(zones disk.qcow2)" "$(zones "$2")"
}

# A snapshot that is applied, and another size; $1: before which backup.
turn() {
    case $1 in
    1) run 0 "$how: snapshot" snapshot -c s disk.qcow2 ;;
    2) run 0 "$how: apply" snapshot -a s disk.qcow2 ;;
    3) run 0 "$how: resize" resize disk.qcow2 +3M ;;
    esac
}

# history KIND SEED OPTIONS SIZE: a disk, and four backups of it
history() {
    how="$1 $2"
    rng=$2
    step=0
    rm -f ./*.qcow2
    run 0 "$how: create" create -o "$3" disk.qcow2 "$4" || return
    run 0 "$how: bitmap" bitmap --add -g "$granularity" disk.qcow2 b
    change "$1"
    run 0 "$how: clear" bitmap --clear disk.qcow2 b
    run 0 "$how: full" convert -O qcow2 disk.qcow2 0.qcow2
    for n in 1 2 3; do
        change "$1"
        [ $(($2 % 2)) = 1 ] || turn $n
        change "$1"
        run 0 "$how: backup $n" export --since b -b $((n - 1)).qcow2 -F qcow2 disk.qcow2 $n.qcow2 ||
            echo "# replay: ZQ_SEED=$2 sh test_since.sh"
        run 0 "$how: clear" bitmap --clear disk.qcow2 b
        same "$how: backup $n" $n.qcow2 || echo "# replay: ZQ_SEED=$2 sh test_since.sh"
        run 0 "$how: check $n" check $n.qcow2
        histories=$((histories + 1))
    done
    for n in 3 2 1; do
        run 0 "$how: commit $n" commit $n.qcow2
    done
    same "$how: all in the first one" 0.qcow2
}

histories=0
appended=0
described=0
seeds=${ZQ_SEEDS:-2}
for seed in $(seq "${ZQ_SEED:-1}" "${ZQ_SEED:-$seeds}"); do
    granularity=$([ $((seed % 2)) = 1 ] && echo 4K || echo 64K)
    history plain "$seed" cluster_size=64K 16M
    zones=zone.size=1M,zone.conventional_zones=2
    [ $((seed % 2)) = 1 ] && more=,cluster_size=16K ||
        more=,zone.capacity=768K,zone.max_active_zones=3,cluster_size=64K
    history zoned "$seed" $zones$more 12M
    history described "$seed" $zones,zone.descriptor_extension=64,cluster_size=16K 12M
done
echo "# since: $histories incremental backups, $appended appends, $described descriptor extensions," \
    "$failures that differ"

# Another size, which the overlay takes over.
run 0 'create' create grow.qcow2 8M
run 0 'write' io -c 'write -P 1 7M 1M' grow.qcow2
run 0 'bitmap' bitmap --add grow.qcow2 b
run 0 'full' convert -O qcow2 grow.qcow2 full.qcow2
run 0 'smaller' resize --shrink grow.qcow2 7680k
run 0 'larger' resize grow.qcow2 20M
run 0 'write in it' io -c 'write -P 2 19M 64k' grow.qcow2
run 0 'export' export --since b -b full.qcow2 -F qcow2 grow.qcow2 inc.qcow2
run 0 'the same' compare grow.qcow2 inc.qcow2

# Zones that were reset and written beyond the pointer of the backup, finished, or only appended to.
run 0 'zones' create -o zone.size=1M zr.qcow2 8M
run 0 'bitmap' bitmap --add -g 16K zr.qcow2 b
random 262144 1 >data
for z in 0 1 2 3 4; do
    run 0 "fill $z" append -q zr.qcow2 ${z}M <data
done
run 0 'full' convert -O qcow2 zr.qcow2 zr0.qcow2
run 0 'clear' bitmap --clear zr.qcow2 b
random 524288 2 >data
run 0 'reset' reset --offset 0 --count 2 zr.qcow2
run 0 'written beyond' append -q zr.qcow2 0 <data
run 0 'append' append -q zr.qcow2 2M <data
run 0 'finish' finish --offset 3M --count 1 zr.qcow2
run 0 'finish an empty one' finish --offset 6M --count 1 zr.qcow2
run 0 'export' export --since b -b zr0.qcow2 -F qcow2 zr.qcow2 zr1.qcow2
run 0 'all of it' compare zr.qcow2 zr1.qcow2
is 'zones' "$(zones zr.qcow2)" "$(zones zr1.qcow2)"
run 0 'its map' map --no-backing --json zr1.qcow2
is 'only what was appended' "$((2 * 1048576 + 262144))+524288" "$(python3 -c '
import json
print(*("%d+%d" % (e["start"], e["length"]) for e in json.load(open("out"))
        if e["data"] and e["start"] // 1048576 == 2))')"

# Only what has changed is there, and what exists stays.
run 0 'clear' bitmap --clear grow.qcow2 b
run 0 'a write' io -c 'write -P 3 1M 64k' grow.qcow2
run 0 'a small one' export --since b -b inc.qcow2 -F qcow2 grow.qcow2 small.qcow2
run 0 'its map' map --no-backing --json small.qcow2
is 'has one cluster' "$((1 << 20))+65536" "$(python3 -c '
import json
print(*("%d+%d" % (e["start"], e["length"]) for e in json.load(open("out")) if e["data"]))')"
run 1 'not over a file' export --since b -b inc.qcow2 -F qcow2 grow.qcow2 small.qcow2
has 'says so' err 'exists; --force replaces it'
run 0 'unless asked to' export --force --since b -b inc.qcow2 -F qcow2 grow.qcow2 small.qcow2
run 0 'the same again' compare grow.qcow2 small.qcow2

# A bitmap that is marked everywhere costs what both disks have: holes that both have are not written.
run 0 'a disk of 16 TiB' create wide.qcow2 16T
run 0 'with data' io -c 'write -q -P 1 1T 64k' -c 'write -q -P 2 3T 64k' wide.qcow2
run 0 'a bitmap of it' bitmap --add wide.qcow2 b
run 0 'its last backup' convert -O qcow2 wide.qcow2 wide0.qcow2
run 0 'a discard' io -c 'discard 1T 64k' wide.qcow2
run 0 'a snapshot' snapshot -c s wide.qcow2
run 0 'applied' snapshot -a s wide.qcow2
(ulimit -t 10 && "$tool" export --since b -b wide0.qcow2 -F qcow2 wide.qcow2 wide1.qcow2 >out 2>err)
verdict $? 'all of it is marked' || show
run 0 'its map' map --no-backing --json wide1.qcow2
is 'hides what has gone' "zero $((1 << 40))+65536 data $((3 << 40))+65536" "$(python3 -c '
import json
print(*("%s %d+%d" % ("data" if e["data"] else "zero", e["start"], e["length"])
        for e in json.load(open("out")) if e["present"]))')"
rm -f wide.qcow2 wide0.qcow2 wide1.qcow2

# A signal leaves the whole file or none.
run 0 'a large disk' create large.qcow2 2G
run 0 'a bitmap' bitmap --add large.qcow2 b
run 0 'its base' create empty.qcow2 2G
run 0 'data' io -c 'write -P 5 0 400M' large.qcow2
"$tool" export --since b -b empty.qcow2 -F qcow2 large.qcow2 cut.qcow2 >out 2>err &
pid=$!
for i in 1 2 3 4 5 6 7 8 9; do
    ls -A | grep -q 'cut\.qcow2' && break
    sleep 0.1
done
kill -TERM $pid 2>/dev/null
wait $pid
if [ -e cut.qcow2 ]; then
    run 0 'the whole file' compare large.qcow2 cut.qcow2
else
    is 'nothing is left' '' "$(ls -A | grep 'cut\.qcow2')"
fi

# What is refused.
before=$(cksum <grow.qcow2)
run 1 'a disk that is its own backup' export --since b -b grow.qcow2 -F qcow2 --force grow.qcow2 grow.qcow2
is 'is refused in one line' 1 "$(wc -l <err | tr -d ' ')"
is 'and stays as it is' "$before" "$(cksum <grow.qcow2)"
run 1 'without a base' export --since b grow.qcow2 x.qcow2
has 'says what is missing' err '-b BASE, the last backup, is missing'
run 1 'a base without a bitmap' export -b inc.qcow2 grow.qcow2 x.qcow2
run 1 'another bitmap' export --since c -b inc.qcow2 -F qcow2 grow.qcow2 x.qcow2
has 'says so' err 'no bitmap is named "c"'
run 1 'a raw file' export --since c -b inc.qcow2 -F qcow2 -f raw data x.qcow2
run 0 'zones' create -o zone.size=1M z.qcow2 4M
run 0 'a bitmap' bitmap --add z.qcow2 b
run 0 'a full backup' convert -O qcow2 z.qcow2 z0.qcow2
run 0 'fewer zones' resize --shrink z.qcow2 3M
run 1 'than the last backup' export --since b -b z0.qcow2 z.qcow2 x.qcow2
is 'are refused' 'zqcow2: z0.qcow2: has more zones than z.qcow2: make a full backup' "$(cat err)"
run 1 'a base without zones' export --since b -b inc.qcow2 -F qcow2 z.qcow2 x.qcow2
is 'leaves nothing' '' "$(ls -A | grep 'x\.qcow2')"
finish
