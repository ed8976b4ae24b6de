# SPDX-License-Identifier: MIT
# Rates of our disks beside those of null_blk, in memory, and of a loop device on a raw file. Only
# ratios mean something here: everything is emulated. The medians of $rounds rounds, in which each
# disk has its turn, so that all of them meet the same noise.
load ublk_drv
load null_blk
load loop
rounds=${ZQ_rounds:-3}
R=/tmp/rates
mkdir -p $R

# rate NAME DISK FIO-OPTIONS...: MiB/s, a line more in $R/NAME.DISK.
rate() {
    file=$R/$1.$2
    eval "target=\$disk_$2"
    shift 2
    fio --name=r --filename=$target --direct=1 --ioengine=libaio --thread --size=128M \
        --randrepeat=1 --output-format=terse --terse-version=3 --output=/tmp/fio.out "$@" ||
        { cat /tmp/fio.out; return 1; }
    awk -F';' 'NF > 48 { printf "%.3f\n", ($7 + $48) / 1024 }' /tmp/fio.out >>$file
}

median() {
    sort -n $R/$1.$2 | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# compare NAME "DISKS" FIO-OPTIONS...: the first disk is what the others are related to.
compare() {
    what=$1
    disks=$2
    shift 2
    for round in $(seq $rounds); do
        for disk in $disks; do
            rate $what $disk "$@" || return 1
        done
    done
    base=$(median $what ${disks%% *})
    line="$what:"
    for disk in $disks; do
        line="$line $disk $(echo "$(median $what $disk) $base" | awk '{ printf "%.2f", $1 / $2 }')"
    done
    tap_say "# $line ($base MiB/s)"
}

fill() {
    dd if=/dev/urandom of=/tmp/noise bs=1M count=16 2>/dev/null
    for disk in "$@"; do
        eval "target=\$disk_$disk"
        for n in 0 1 2 3 4 5 6 7; do
            dd if=/tmp/noise of=$target bs=1M seek=$((n * 16)) conv=notrunc 2>/dev/null || return 1
        done
    done
    sync
}

plain_disks() {
    dir=/sys/kernel/config/nullb/plain
    mkdir $dir && echo 128 >$dir/size && echo 1 >$dir/memory_backed && echo 1 >$dir/power || return 1
    disk_null=/dev/plain
    truncate -s 128M /data/raw && disk_loop=$(losetup -f) && losetup $disk_loop /data/raw &&
        make_image /data/user.qcow2 128M && serve /data/user.qcow2 --copy=user --queues 2 || return 1
    disk_user=$DEV
    make_image /data/zero.qcow2 128M && serve /data/zero.qcow2 --copy=zero --queues 2 || return 1
    disk_zero=$DEV
    fill null loop user zero
}
ok "a disk of each kind" plain_disks

D="user zero loop null"
t="--time_based --runtime=${ZQ_seconds:-2}"
ok "random read, 4 KiB" compare randread4k "$D" --rw=randread --bs=4k --iodepth=32 $t
ok "random write, 4 KiB" compare randwrite4k "$D" --rw=randwrite --bs=4k --iodepth=32 $t
ok "read, 64 KiB" compare read64k "$D" --rw=read --bs=64k --iodepth=8 $t
ok "write, 64 KiB" compare write64k "$D" --rw=write --bs=64k --iodepth=8 $t
ok "read, 512 KiB" compare read512k "$D" --rw=read --bs=512k --iodepth=8 $t
ok "write, 512 KiB" compare write512k "$D" --rw=write --bs=512k --iodepth=8 $t
ok "read, 4 KiB, one at a time" compare read4kqd1 "$D" --rw=randread --bs=4k --iodepth=1 $t
sync; cat /proc/meminfo | head -3 >/tmp/mem; tap_show /tmp/mem
