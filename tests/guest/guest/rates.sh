# SPDX-License-Identifier: MIT
# Rates of our disks beside those of null_blk, in memory, and of a loop device on a raw file. Only
# ratios mean something here: everything is emulated. In each round every disk has its turn, and is
# compared with the first one of that round, so that all of them meet the same noise; the medians of
# these ratios are printed, with their quartiles.
load ublk_drv
load null_blk
load loop
rounds=${ZQ_rounds:-7}
R=/tmp/rates
mkdir -p $R

# rate NAME DISK FIO-OPTIONS...: KiB/s, a line more in $R/NAME.DISK.
rate() {
    file=$R/$1.$2
    eval "target=\$disk_$2"
    shift 2
    fio --name=r --filename=$target --direct=1 --ioengine=libaio --thread --size=128M \
        --randrepeat=1 --output-format=terse --terse-version=3 --output=/tmp/fio.out "$@" ||
        { cat /tmp/fio.out; return 1; }
    awk -F';' 'NF > 48 { print $7 + $48 }' /tmp/fio.out >>$file
}

# ratio NAME DISK FIRST: of the lines of the two files.
ratio() {
    paste $R/$1.$2 $R/$1.$3 | awk '{ print $1 / $2 }' | sort -n |
        awk '{ v[NR] = $1 } END { printf "%.2f (%.2f-%.2f)", v[int((NR + 1) / 2)],
            v[int((NR + 3) / 4)], v[int((3 * NR + 1) / 4)] }'
}

# compare NAME "DISKS" FIO-OPTIONS...
compare() {
    what=$1
    disks=$2
    first=${disks%% *}
    shift 2
    for round in $(seq $rounds); do
        for disk in $disks; do
            rate $what $disk "$@" || return 1
        done
    done
    line="$what:"
    for disk in ${disks#* }; do
        line="$line $disk $(ratio $what $disk $first),"
    done
    tap_say "# ${line%,}"
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
    make_plain plain 128 || return 1
    disk_null=/dev/plain
    truncate -s 128M /data/raw && disk_loop=$(losetup -f) && losetup $disk_loop /data/raw &&
        make_image /data/user.qcow2 128M && serve /data/user.qcow2 --copy=user --queues 2 ||
        return 1
    disk_user=$DEV
    make_image /data/zero.qcow2 128M && serve /data/zero.qcow2 --copy=zero --queues 2 || return 1
    disk_zero=$DEV
    fill null loop user zero
}
ok "a disk of each kind" plain_disks

D="user zero loop null"
t="--time_based --runtime=${ZQ_seconds:-1}"
ok "random read, 4 KiB" compare randread4k "$D" --rw=randread --bs=4k --iodepth=32 $t
ok "random write, 4 KiB" compare randwrite4k "$D" --rw=randwrite --bs=4k --iodepth=32 $t
ok "read, 64 KiB" compare read64k "$D" --rw=read --bs=64k --iodepth=8 $t
ok "write, 64 KiB" compare write64k "$D" --rw=write --bs=64k --iodepth=8 $t
ok "read, 512 KiB" compare read512k "$D" --rw=read --bs=512k --iodepth=8 $t
ok "write, 512 KiB" compare write512k "$D" --rw=write --bs=512k --iodepth=8 $t
