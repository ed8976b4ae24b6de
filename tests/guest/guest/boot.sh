# SPDX-License-Identifier: MIT
# Is the guest what the other tests take for granted?
for set in ublk_drv null_blk zonefs btrfs f2fs; do
    load $set
done
ok "the ublk driver is there" test -c /dev/ublk-control
ok "null_blk is there" test -d /sys/kernel/config/nullb
for fs in zonefs btrfs f2fs; do
    ok "the kernel has $fs" grep -qw $fs /proc/filesystems
done
null_twins() {
    make_null nulla 64 4 3 2 3 5 && make_null nullb 64 4 3 2 3 5 &&
        zqguest diff /dev/nulla /dev/nullb 1 200 && zqguest diff /dev/nulla /dev/nullb 2 200
}
ok "two null_blk devices do not differ" null_twins
