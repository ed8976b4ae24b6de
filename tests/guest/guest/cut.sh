# SPDX-License-Identifier: MIT
# One life between two power cuts: verify what the last life had made durable, then load until the
# power goes. ZQ_last is the last step that the host heard of; ZQ_final ends the series.
. /tests/fslib.sh
load ublk_drv
load $ZQ_fs
I=/data/cut.qcow2
SEED=1234

first_life() {
    fs_image $ZQ_fs $I && serve $I && fs_make $ZQ_fs && fs_mount $ZQ_fs
}

if [ "$ZQ_last" = none ]; then
    ok "$ZQ_fs: made and mounted" first_life
    ZQ_last=0
else
    ok "check: no corruption" check_image $I leaks
    ok "serve" serve $I
    ok "$ZQ_fs: mounts" fs_mount $ZQ_fs
    ok "$ZQ_fs: everything up to step $ZQ_last is there" fs_verify $ZQ_fs $SEED $ZQ_last
fi
if [ "$ZQ_final" = 1 ]; then
    ok "$ZQ_fs: unmount" umount /mnt
    ok "$ZQ_fs: its own check" fs_check $ZQ_fs
    ok "stop" zqcow2 ublk del $I
    ok "check: clean, no leaks" check_image $I
else
    tap_say "# LOADING"
    fs_load $ZQ_fs $SEED $((ZQ_last + 1)) 1000000 >$TAP 2>&1
    ok "the load goes on until the power goes" false
fi
