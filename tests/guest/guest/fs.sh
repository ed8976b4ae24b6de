# SPDX-License-Identifier: MIT
# Real file systems: mkfs, mount, write a tree, fsync, unmount, remount, compare, check.
. /tests/fslib.sh
load ublk_drv
I=/data/fs.qcow2

# Each file of a zonefs is a zone: its size is the write pointer.
zonefs_tree() {
    ls -l /mnt/seq /mnt/cnv | tail -3
    zqguest zload run /mnt/seq 3 1 120 >/tmp/steps || { tail -1 /tmp/steps; return 1; }
    zqguest zload verify /mnt/seq 3 120 && zqguest io write /mnt/cnv/0 8192 65536 9 &&
        umount /mnt && fs_mount zonefs && zqguest zload verify /mnt/seq 3 120 &&
        zqguest io read /mnt/cnv/0 8192 65536 9 && file_sizes
}

file_sizes() {
    blkzone report $DEV | grep SEQ | sed 's/.*wptr \(0x[0-9a-f]*\).*zcond: *\([0-9]*\).*/\1 \2/' |
        while read -r wp cond; do
            n=${n:-0}
            size=$(stat -c %s /mnt/seq/$n)
            [ $cond = 14 ] || [ $((wp * 512)) = $size ] ||
                { echo "zone file $n: $size, $wp"; exit 1; }
            n=$((n + 1))
        done
}

again() {
    umount /mnt && zqcow2 ublk del $I && check_image $I && serve $I && fs_mount $1
}

fill_and_free() {
    i=0
    while [ $i -lt 6 ]; do
        dd if=/dev/urandom of=/mnt/big bs=1M count=60 conv=fsync 2>/dev/null || return 1
        sha256sum /mnt/big >/tmp/big.sum
        i=$((i + 1))
    done
    sync -f /mnt
    echo 3 >/proc/sys/vm/drop_caches
    sha256sum -c /tmp/big.sum
}

for fs in ${ZQ_fs:-$FILE_SYSTEMS}; do
    load $fs
    ok "$fs: image" fs_image $fs $I
    ok "$fs: serve" serve $I || continue
    ok "$fs: mkfs" fs_make $fs
    ok "$fs: mount" fs_mount $fs || { zqcow2 ublk del --force $I; continue; }
    if [ $fs = zonefs ]; then
        ok "$fs: files written, synced, remounted, compared" zonefs_tree
    else
        ok "$fs: a tree written, synced, remounted, compared" tree $fs
        ok "$fs: a file rewritten again and again" fill_and_free
    fi
    ok "$fs: another server, mounted again" again $fs
    if [ $fs = zonefs ]; then
        ok "$fs: compared once more" zqguest zload verify /mnt/seq 3 120
    else
        sums >/tmp/sums.3
        ok "$fs: compared once more" cmp /tmp/sums.2 /tmp/sums.3
    fi
    ok "$fs: unmount" umount /mnt
    ok "$fs: its own check" fs_check $fs
    ok "$fs: stop" zqcow2 ublk del $I
    ok "$fs: check of the image" check_image $I
    rm -f $I
done
