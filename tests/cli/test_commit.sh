#!/bin/sh
# SPDX-License-Identifier: MIT
# commit: the backing file has what the image had, as with qemu-img commit; formats, sizes, refusals.
. "$(dirname "$0")/lib.sh"

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
    echo '# no qemu-img here'
    exit 77
fi
# fill FILE FORMAT COMMAND...
fill() {
    fill_file=$1
    fill_format=$2
    shift 2
    for c in "$@"; do
        qemu-io -f "$fill_format" -c "$c" "$fill_file" >/dev/null || echo "# failed: $c"
    done
}
# feed FILE STATUS TITLE WORD...: with that as standard input.
feed() {
    input=$1
    shift
    run "$@" <"$input"
}
# alike TITLE FORMAT FILE FORMAT FILE: to qemu-img.
alike() {
    ran='qemu-img compare'
    qemu-img compare -q -f "$2" -F "$4" "$3" "$5" >out 2>err
    verdict $? "$1" || show
}
# sound FILE
sound() {
    ran='qemu-img check'
    qemu-img check -q "$1" >out 2>err
    verdict $? "$1: qemu-img check" || show
    run 0 "$1: check" check "$1"
}
# make OPTIONS BASE-FORMAT: lowest.raw, base, top.qcow2
make() {
    rm -f lowest.raw base top.qcow2 judge judge-top.qcow2 data.bin
    qemu-img create -q -f raw lowest.raw 3M
    fill lowest.raw raw 'write -P 1 0 2500k'
    if [ "$2" = raw ]; then
        qemu-img create -q -f raw base 1M
    else
        qemu-img create -q -f qcow2 -b lowest.raw -F raw base 3M
    fi
    fill base "$2" 'write -P 2 100k 200k' 'write -z 700k 70k'
    qemu-img create -q -f qcow2 ${1:+-o "$1"} -b base -F "$2" top.qcow2 2M
    fill top.qcow2 qcow2 'write -P 3 50k 70k' 'write -z 200k 90k' 'write -P 4 1100k 3k' \
        'write -P 5 2047k 1k' 'discard 1M 64k'
    # The judge commits a copy of both; a data file is named by both copies.
    qemu-img convert -f qcow2 -O raw top.qcow2 saved.raw
    [ ! -e data.bin ] || cp data.bin data.saved
    cp base judge
    cp top.qcow2 judge-top.qcow2
    qemu-img rebase -q -u -b judge -F "$2" judge-top.qcow2
    qemu-img commit -q -f qcow2 judge-top.qcow2 || echo '# qemu-img commit failed'
    [ ! -e data.bin ] || mv data.saved data.bin
}
for format in raw qcow2; do
    for opts in '' 'compat=0.10' 'extended_l2=on' 'cluster_size=512' 'compression_type=zstd' \
        'lazy_refcounts=on' 'data_file=data.bin'; do
        title="[$opts] into $format"
        make "$opts" "$format"
        run 0 "$title: commit" commit top.qcow2
        alike "$title: the base is what qemu-img makes of it" "$format" judge "$format" base
        alike "$title: the image reads as before" raw saved.raw qcow2 top.qcow2
        sound top.qcow2
        [ "$format" = raw ] || sound base
        run 0 "$title: map" map --no-backing top.qcow2
        lacks "$title: the image is empty" out '^0x'
        fill top.qcow2 qcow2 'write -P 6 300k 100k'
        qemu-img convert -f qcow2 -O raw top.qcow2 saved.raw
        run 0 "$title: keep" commit -d top.qcow2
        alike "$title: kept, the image reads as before" raw saved.raw qcow2 top.qcow2
        run 0 "$title: map" map --no-backing top.qcow2
        has "$title: the image is not empty" out '^0x'
        sound top.qcow2
    done
done
make '' qcow2
qemu-img convert -c -f qcow2 -O qcow2 -B base -F qcow2 top.qcow2 packed.qcow2
run 0 'compressed clusters' commit packed.qcow2
alike 'compressed clusters' qcow2 judge qcow2 base

# The space goes back to the host.
qemu-img create -q -f qcow2 -b base -F qcow2 big.qcow2 3M
fill big.qcow2 qcow2 'write -P 9 0 3M'
run 0 'a full image' commit big.qcow2
is 'is short afterwards' yes "$([ "$(stat -c %s big.qcow2)" -le 524288 ] && echo yes)"
sound big.qcow2

# Names lie relative to the file that has them.
mkdir -p inner
mv base lowest.raw inner
qemu-img rebase -q -u -b inner/base -F qcow2 top.qcow2
fill top.qcow2 qcow2 'write -P 8 0 1k'
qemu-img convert -f qcow2 -O raw top.qcow2 saved.raw
run 0 'a base in another folder' commit --backing-root=inner top.qcow2
alike 'a base in another folder' raw saved.raw qcow2 top.qcow2
run 1 'a base outside' commit --backing-root=/usr top.qcow2
has 'is refused' err 'top\.qcow2: backing file "inner/base": lies outside'

# Zones: the base gets pointers, bytes and states.
run 0 'a zoned base' create -o zone.size=1M,zone.max_active_zones=2 zbase.qcow2 6M
head -c 307200 /dev/urandom >bytes
feed bytes 0 'in it' append zbase.qcow2 0
feed bytes 0 'in it' append zbase.qcow2 1M
run 0 'an overlay' create -b zbase.qcow2 -o zone.max_active_zones=6 ztop.qcow2
feed bytes 0 'one goes on' append ztop.qcow2 0
show_zones() { "$tool" report --json "$1" | sed 's/.*filename.*//'; }
run 0 'one is emptied' reset --offset=1M ztop.qcow2
run 0 'one is full' finish --offset=2M ztop.qcow2
run 0 'the whole' convert ztop.qcow2 before.raw
run 0 'zones are committed' commit ztop.qcow2
is 'the same zones' "$(show_zones ztop.qcow2)" "$(show_zones zbase.qcow2)"
run 0 'the base alone' convert zbase.qcow2 base.raw
cmp before.raw base.raw >out 2>err
verdict $? 'the same bytes' || show
run 0 'the image' convert ztop.qcow2 after.raw
cmp before.raw after.raw >out 2>err
verdict $? 'reads as before' || show
run 0 'check' check zbase.qcow2
run 0 'check' check ztop.qcow2
for z in 3M 4M 5M; do feed bytes 0 'another one' append ztop.qcow2 $z; done
run 1 'more active zones than the base allows' commit ztop.qcow2
has 'are refused' err 'zbase\.qcow2": 4 zones would be active, max_active_zones is 2'

# A smaller qcow2 base grows, and shows nothing of what lies below its end.
for opts in '' extended_l2=on data_file=small.bin; do
    rm -f lowest.raw small.* larger.qcow2 judge judge-top.qcow2
    qemu-img create -q -f raw lowest.raw 3M
    fill lowest.raw raw 'write -P 1 0 3M'
    qemu-img create -q -f qcow2 ${opts:+-o "$opts"} -b lowest.raw -F raw small.qcow2 1M
    qemu-img create -q -f qcow2 -b small.qcow2 -F qcow2 larger.qcow2 2560k
    fill larger.qcow2 qcow2 'write -P 4 900k 200k' 'write -P 5 2M 64k' 'write -z 1200k 64k'
    qemu-img convert -f qcow2 -O raw larger.qcow2 saved.raw
    # The judge commits a copy of both, which names the same data file.
    [ ! -e small.bin ] || cp small.bin data.saved
    cp small.qcow2 judge
    cp larger.qcow2 judge-top.qcow2
    qemu-img rebase -q -u -b judge -F qcow2 judge-top.qcow2
    qemu-img commit -q -f qcow2 judge-top.qcow2 || echo '# qemu-img commit failed'
    qemu-img convert -f qcow2 -O raw judge judge.raw
    [ ! -e small.bin ] || mv data.saved small.bin
    run 0 "[$opts] a smaller qcow2 base" commit larger.qcow2
    alike "[$opts] is what qemu-img makes of it" raw judge.raw qcow2 small.qcow2
    alike "[$opts] has all of it" raw saved.raw qcow2 small.qcow2
    alike "[$opts] the image reads as before" raw saved.raw qcow2 larger.qcow2
    sound small.qcow2
    sound larger.qcow2
done
# With zones: a base of four, the last of which is short and full, under an image of six.
run 0 'a shorter zoned base' create -o zone.size=1M zbase2.qcow2 3584k
run 0 'filled' finish --offset=3M zbase2.qcow2
feed bytes 0 'in it' append zbase2.qcow2 0
run 0 'an overlay' create -b zbase2.qcow2 ztop2.qcow2
run 0 'that grows' resize ztop2.qcow2 6M
for z in 0 3M 5M; do feed bytes 0 'an append' append ztop2.qcow2 $z; done
run 0 'one is full' finish --offset=4M ztop2.qcow2
run 0 'the whole' convert --force ztop2.qcow2 before.raw
run 0 'commit' commit ztop2.qcow2
is 'the same zones' "$(show_zones ztop2.qcow2)" "$(show_zones zbase2.qcow2)"
is 'all six' 6 "$("$tool" report --json zbase2.qcow2 | grep -c '"state"')"
run 0 'the base alone' convert --force zbase2.qcow2 base.raw
same 'the same bytes' before.raw base.raw
run 0 'check' check zbase2.qcow2
run 0 'check' check ztop2.qcow2

# -b: into a file further down, as qemu-img does; the images between and the one on top stay.
# stack FORMAT: low, of FORMAT, under mid and up, which are qcow2, under over
stack() {
    rm -f low mid up over
    qemu-img create -q -f "$1" low 4M
    fill low "$1" 'write -P 1 0 3M'
    qemu-img create -q -f qcow2 -b low -F "$1" mid
    fill mid qcow2 'write -P 2 1M 1M' 'write -z 3000k 300k'
    qemu-img create -q -f qcow2 -b mid -F qcow2 up
    fill up qcow2 'write -P 3 1200k 100k' 'write -P 4 3100k 10k'
    qemu-img create -q -f qcow2 -b up -F qcow2 over
    fill over qcow2 'write -P 5 1250k 10k' 'write -z 2M 128k'
}
mkdir -p judges
for format in raw qcow2; do
    for into in low mid up; do
        title="-b $into, on a $format file"
        stack $format
        cp low mid up over judges
        (cd judges && qemu-img commit -q -f qcow2 -b $into over) || echo '# qemu-img commit failed'
        qemu-img convert -f qcow2 -O raw over saved.raw
        into_format=qcow2
        [ $into = low ] && into_format=$format
        others=$(echo low mid up over | sed "s/$into//")
        kept=$(md5sum $others)
        run 0 "$title" commit -b $into over
        alike "$title: as qemu-img makes it" $into_format judges/$into $into_format $into
        alike "$title: it has what the image shows" raw saved.raw $into_format $into
        alike "$title: the image reads as before" raw saved.raw qcow2 over
        is "$title: no other file changes" "$kept" "$(md5sum $others)"
        [ $into_format = raw ] || sound $into
        run 0 "$title, once more" commit --base=$PWD/$into over
    done
done
mkdir -p deeper
stack raw
mv low mid up over deeper
run 0 'names lie relative to the folder of the image' commit -b low deeper/over
run 1 'not to that of the caller' commit -b deeper/low deeper/over
has 'is refused' err 'commit: -b: deeper/deeper/low: No such file'
run 1 'the image itself' commit -b over deeper/over
has 'is refused' err 'over is not in the backing chain of deeper/over$'
run 1 'a base outside' commit -b low --backing-root=/usr deeper/over
qemu-img resize -q -f qcow2 deeper/over 5M
run 1 'a shorter image between' commit -b low deeper/over
has 'is refused' err 'deeper/up is smaller than an image on top of it: rebase deeper/over to low first'
run 0 'which works' rebase -b low -F raw deeper/over
run 0 'as it says' commit -b low deeper/over
run 0 'zones' create -b zbase.qcow2 zmid.qcow2
run 0 'zones' create -b zmid.qcow2 zover.qcow2
run 1 'zones further down' commit -b zbase.qcow2 zover.qcow2
has 'are refused' err 'zmid\.qcow2: an image with zones can be committed into its own backing file only'
run 0 'zones in the next file' commit -b zmid.qcow2 zover.qcow2

qemu-img create -q -f qcow2 small.qcow2 1M
qemu-img create -q -f qcow2 -b small.qcow2 -F qcow2 larger.qcow2 2M
run 1 'no base'  commit small.qcow2
has 'is refused' err 'no backing file'
qemu-img snapshot -c s larger.qcow2
run 1 'snapshots' commit larger.qcow2
has 'are refused' err 'snapshots'
qemu-img create -q -f qcow2 loop.qcow2 1M
qemu-img rebase -q -u -f qcow2 -b loop.qcow2 -F qcow2 loop.qcow2
run 1 'the image itself' commit loop.qcow2
has 'is refused' err 'returns to the same file'
qemu-img create -q -f qcow2 -b inner/base -F qcow2 bare.qcow2 2M
python3 -c 'import sys; b = open(sys.argv[1], "rb").read(); i = b.index(b"\xe2\x79\x2a\xca")
open(sys.argv[1], "r+b").write(b[:i] + b"\0\0\0\1" + b[i + 4:])' bare.qcow2
run 1 'no format' commit bare.qcow2
has 'is refused' err 'backing-format'
run 0 'a format that is given' commit --backing-format=qcow2 bare.qcow2
run 1 'no file' commit
finish
