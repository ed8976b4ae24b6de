# SPDX-License-Identifier: MIT
# The server is killed under load, again and again: the mount goes, the device goes, and with the
# next server everything that was fsynced is there.
. /tests/fslib.sh
load ublk_drv
I=/data/kill.qcow2

last_step() {
    sed -n 's/^SYNCED \([0-9]*\)$/\1/p' /tmp/steps | tail -1
}

random() { # below $1
    echo $(($(od -An -N2 -tu2 /dev/urandom) % $1))
}

# Loads, kills the server at a random moment, waits until its device is gone.
kill_under_load() { # FS SEED
    fs_load $1 $2 $((LAST + 1)) 1000000 >/tmp/steps 2>&1 &
    loader=$!
    usleep $((500000 + $(random 2500) * 1000))
    kill -9 $(server_pid $ID) || return 1
    wait $loader
    tail -1 /tmp/steps
    now=$(last_step)
    LAST=${now:-$LAST}
    umount /mnt || umount -l /mnt
    for i in $(seq 50); do [ -e $DEV ] || break; usleep 100000; done
    [ ! -e $DEV ]
}

back_again() { # FS SEED
    check_image $I leaks && serve $I && fs_mount $1 && fs_verify $1 $2 $LAST
}

rounds=${ZQ_rounds:-4}
for fs in ${ZQ_fs:-$FILE_SYSTEMS}; do
    load $fs
    LAST=0
    made() { fs_image $fs $I && serve $I && fs_make $fs && fs_mount $fs; }
    ok "$fs: made and mounted" made || continue
    for n in $(seq $rounds); do
        ok "$fs: server killed, $n" kill_under_load $fs 77
        ok "$fs: all that was fsynced is there, $n (step $LAST)" back_again $fs 77 || break
    done
    ok "$fs: unmount" umount /mnt
    ok "$fs: its own check" fs_check $fs
    ok "$fs: stop" zqcow2 ublk del $I
    ok "$fs: check of the image" check_image $I
    rm -f $I
done
