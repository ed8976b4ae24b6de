# SPDX-License-Identifier: MIT
# import and export: a zoned null_blk to an image, and from there to another one. Reports and content
# are the same afterwards, and so are the file systems on them.
. /tests/fslib.sh
load null_blk
load loop
I=/data/m.qcow2

put() { # DEVICE ZONE OFFSET LENGTH
    zqguest io write $1 $(($2 * ZS * 512 + $3)) $4 $((64 + $2))
}

zone_do() { # ACTION DEVICE ZONE
    blkzone $1 -o $(($3 * ZS)) -l $ZS $2
}

# A state of each kind that the limits allow: empty, open, closed, full by writing and by finish.
fill() { # DEVICE
    s=$CONV
    [ $CONV = 0 ] || put $1 0 8192 20480 || return 1
    put $1 $s 0 $((CAP * 1048576)) && put $1 $((s + 1)) 0 8192 && zone_do finish $1 $((s + 1)) &&
        put $1 $((s + 3)) 0 69632 && zone_do close $1 $((s + 3)) && put $1 $((s + 4)) 0 4096 || return 1
    [ $ACTIVE -gt 0 ] && [ $ACTIVE -lt 3 ] || zone_do open $1 $((s + 5)) && put $1 $((s + 5)) 0 1048576
}

# Open zones become closed.
report() { # DEVICE
    blkzone report $1 | sed -E 's/zcond: [0-9]+\((oi|oe)\)/zcond: 4(cl)/'
}

same_devices() { # DEVICE DEVICE
    report $1 >/tmp/r1
    report $2 >/tmp/r2
    diff /tmp/r1 /tmp/r2 && cmp $1 $2
}

# refused PATTERN COMMAND...: fails, says so in one line.
refused() {
    pattern=$1
    shift
    if "$@" >/tmp/refused 2>&1; then echo "succeeded: $*"; return 1; fi
    grep -qE "$pattern" /tmp/refused && [ $(wc -l </tmp/refused) = 1 ] && return 0
    cat /tmp/refused
    return 1
}

image_is() { # DEVICE: the image has its zones and its content
    zqcow2 report $I | sed 's/ reset:.*zcond/ zcond/' | full_pointer >/tmp/r2
    report $1 | full_pointer | sed 's/ reset:.*zcond/ zcond/' | diff - /tmp/r2 &&
        zqcow2 compare $I $1 && zqcow2 check $I && zqcow2 read $I 0 $((SIZE * 1048576)) >/data/content && same_content $1
}

# What the drives call the pointer of a full zone differs.
full_pointer() {
    sed -E 's/wptr 0x[0-9a-f]+(.*\(fu\))/wptr FULL\1/'
}

# Of the image in /data/content; beyond the pointers null_blk shows other bytes than zeros.
same_content() { # DEVICE
    blkzone report $1 | sed -E 's/.*start: (\S+), .*cap (\S+), wptr (\S+) .*zcond: *([0-9]+).*/\1 \2 \3 \4/' |
        while read -r start cap wp cond; do
            case $cond in
            0) n=$ZS ;;
            14) n=$((cap)) ;;
            *) n=$((wp)) ;;
            esac
            [ "$(piece /data/content $((start)) $n)" = "$(piece $1 $((start)) $n)" ] ||
                { echo "zone at sector $start: other bytes"; exit 1; }
        done
}

piece() { # FILE SECTOR COUNT
    dd if=$1 bs=4096 skip=$(($2 / 8)) count=$(($3 / 8)) 2>/dev/null | sha256sum
}

interrupted() { # the image to $NULL, in two parts
    zone_do reset $NULL $CONV && zone_do reset $NULL $((CONV + 3)) && put $NULL $CONV 0 1048576 &&
        refused 'zone at [0-9]* is not empty; --force' zqcow2 export $I $NULL &&
        zqcow2 export --resume $I $NULL && same_devices /dev/nulla $NULL
}

beyond() {
    put $NULL $((CONV + 2)) 0 4096 &&
        refused 'written beyond that of the source' zqcow2 export --resume $I $NULL &&
        zqcow2 export --force $I $NULL && same_devices /dev/nulla $NULL
}

other() { # NAME SIZE ZONE CAP CONV OPEN ACTIVE, PATTERN: of a device that is not like the image
    pattern=$8
    make_null "$1" "$2" "$3" "$4" "$5" "$6" "$7" || return 1
    refused "$pattern" zqcow2 export $I /dev/$1
    result=$?
    remove_null $1
    return $result
}

geometry() {
    case ,${ZQ_geometry:-$1}, in *,$1,*) ;; *) return ;; esac
    what="$2M: zones of $3M, capacity $4M, $5 conventional, $6 open, $7 active"
    SIZE=$2 ZS=$(($3 * 2048)) CAP=$4 CONV=$5 OPEN=$6 ACTIVE=$7
    rm -f $I
    ok "$what" make_null nulla $2 $3 $4 $5 $6 $7 || return
    ok "$what: filled" fill /dev/nulla
    ok "$what: import" zqcow2 import /dev/nulla $I
    ok "$what: the image is the same" image_is /dev/nulla
    ok "$what: another device" make_null nullb $2 $3 $4 $5 $6 $7
    ok "$what: export" zqcow2 export $I $NULL
    ok "$what: the same report and content" same_devices /dev/nulla $NULL
    ok "$what: export of a part, and of the rest" interrupted
    ok "$what: not the part of a copy" beyond
    remove_null nullb
    remove_null nulla
}

#        NAME SIZE ZONE CAP CONV OPEN ACTIVE, sizes in MiB
geometry a    64   4    4   0    0    0
geometry b    64   4    3   4    0    0
geometry c    64   4    2   1    3    5
geometry d    96   4    3   0    2    4
geometry e    256  32   24  2    3    5

# The image is that of the last geometry.
ok "another size" other nullc 128 32 24 2 3 5 '^zqcow2: /dev/nullc: size: 134217728, but 268435456'
ok "another zone size" other nullc 256 16 16 2 3 5 'zone size: 16777216, but 33554432'
ok "another capacity" other nullc 256 32 32 2 3 5 'zone capacity: 33554432, but 25165824'
ok "other conventional zones" other nullc 256 32 24 1 3 5 'conventional zones: 1, but 2'
ok "fewer active zones" other nullc 256 32 24 2 1 2 'can have 2 active zones'
no_zones() {
    truncate -s 64M /data/plain && LOOP=$(losetup -f) && losetup $LOOP /data/plain &&
        refused "$LOOP: has no zones, but $I has zones" zqcow2 export --force $I $LOOP
}
ok "a device without zones" no_zones
plain() {
    dd if=/dev/urandom of=/data/raw bs=1M count=48 2>/dev/null
    refused 'the file exists; --force' zqcow2 export -f raw /data/raw $LOOP &&
        zqcow2 export --force -f raw /data/raw $LOOP && cmp -n 50331648 /data/raw $LOOP &&
        rm -f /data/p.qcow2 && zqcow2 import $LOOP /data/p.qcow2 && zqcow2 compare /data/p.qcow2 $LOOP &&
        dd if=/dev/zero of=/data/raw bs=1M count=4 conv=notrunc 2>/dev/null &&
        zqcow2 convert --force -f raw /data/raw $LOOP && cmp -n 50331648 /data/raw $LOOP &&
        zqcow2 convert --force -f raw -O qcow2 /data/raw $LOOP && zqcow2 compare /data/raw $LOOP
}
ok "a disk without zones, to a loop device and back" plain
losetup -d $LOOP
wrong_targets() {
    make_null nulla 64 4 4 0 0 0 && refused 'not a block device; see convert' zqcow2 import $I /data/x &&
        refused 'not a block device; see convert' zqcow2 export $I /data/raw &&
        refused 'a device with zones; see zqcow2 export' zqcow2 convert --force $I /dev/nulla &&
        refused '/dev/nulla: has zones, but /data/p.qcow2 has none' zqcow2 export /data/p.qcow2 /dev/nulla
}
ok "wrong sources and targets" wrong_targets
remove_null nulla

# File systems: made on one device, mounted from another.
tree() {
    mkdir -p /mnt/tree/a && cp -a /tests /mnt/tree/a/ && cp /bin/fio /bin/btrfs /mnt/tree/ &&
        for i in $(seq 0 99); do echo "file $i" >/mnt/tree/a/$i || return 1; done && sync -f /mnt/tree
}
sums() {
    (cd /mnt/tree && find . -type f | sort | xargs sha256sum)
}
moved() { # FS SIZE ZONE CAP CONV OPEN ACTIVE
    rm -f $I
    load $1
    make_null nulla $2 $3 $4 $5 $6 $7 && DEV=$NULL && fs_make $1 && fs_mount $1 || return 1
    case $1 in
    btrfs) tree && sums >/tmp/sums.1 ;;
    zonefs) zqguest zload run /mnt/seq 3 1 60 >/tmp/steps ;;
    esac || { umount /mnt; return 1; }
    umount /mnt && zqcow2 import $NULL $I && remove_null nulla && make_null nullb $2 $3 $4 $5 $6 $7 &&
        zqcow2 export $I $NULL && DEV=$NULL && fs_mount $1 || return 1
    case $1 in
    btrfs) sums | diff /tmp/sums.1 - ;;
    zonefs) zqguest zload verify /mnt/seq 3 60 ;;
    esac
    result=$?
    umount /mnt && fs_check $1 && remove_null nullb && return $result
}
ok "btrfs: made on a device, imported, exported to another, mounted" moved btrfs 512 16 12 0 0 0
ok "zonefs: the same" moved zonefs 64 4 3 2 8 10
