# SPDX-License-Identifier: MIT
# The server is killed, and another one goes on: the device stays, with all that was durable.
. /tests/fslib.sh
load ublk_drv
Z=/data/z.qcow2
P=/data/p.qcow2
rounds=${ZQ_rounds:-4}

random() { # below $1
    echo $(($(od -An -N2 -tu2 /dev/urandom) % $1))
}

recover() {
    zqcow2 ublk add --recover $ID "$@" >/tmp/add.log 2>&1 || { cat /tmp/add.log; return 1; }
    cat /tmp/add.log
    [ "$(head -1 /tmp/add.log)" = $DEV ]
}

kill_server() {
    kill -9 $(server_pid $ID)
}

# One line on standard error that matches.
refused() {
    pattern=$1
    shift
    "$@" >/tmp/out 2>/tmp/err && { echo "no error"; return 1; }
    cat /tmp/out /tmp/err
    [ "$(wc -l </tmp/err)" = 1 ] && grep -q "$pattern" /tmp/err
}

# The next one relieves it while it lives.
relieve_server() {
    old=$(server_pid $ID)
    recover && [ "$(server_pid $ID)" != $old ] && [ ! -d /proc/$old ]
}

# Kernels since 6.16 hold requests back while one server leaves and the next one comes.
can_quiesce() {
    [ $(uname -r | cut -d. -f1) -ge 7 ]
}

# Replaces it $1 times while the jobs run; then they must end well.
relieve_under() { # TIMES PID...
    times=$1
    shift
    for n in $(seq $times); do
        usleep $((400000 + $(random 900) * 1000))
        relieve_server || return 1
    done
    bad=0
    for pid in "$@"; do wait $pid || bad=1; done
    return $bad
}

# Kills it $1 times while the jobs run; then they must end well.
kill_under() { # TIMES PID...
    times=$1
    shift
    for n in $(seq $times); do
        usleep $((400000 + $(random 900) * 1000))
        kill_server || return 1
        usleep $(($(random 300) * 1000))
        recover || return 1
    done
    bad=0
    for pid in "$@"; do wait $pid || bad=1; done
    return $bad
}

# ---- what goes wrong ----

setup() {
    make_image $P 128M && serve $P --recoverable=wait --queues 2
}
ok "a disk that waits for the next server" setup

refusals() {
    refused "its server is unknown" zqcow2 ublk add --recover 99 &&
        refused "device 99: there is no such ublk device" zqcow2 ublk add --recover 99 $P &&
        refused "omit --id" zqcow2 ublk add --recover $ID --queues 2 &&
        refused "must be wait or fail, not" zqcow2 ublk add --recoverable=maybe $P
}
ok "what cannot be taken over is refused" refusals

only_its_own_image() {
    make_image /data/other.qcow2 64M && kill_server && usleep 300000 && [ -b $DEV ] || return 1
    zqcow2 ublk list
    zqcow2 ublk list | grep -q "^$ID	$DEV	server gone	$P\$" &&
        refused "serves the image $P" zqcow2 ublk add --recover $ID /data/other.qcow2 &&
        refused "device $ID waits for a server" zqcow2 ublk add $P &&
        refused "device $ID waits for a server" zqcow2 ublk add --id $ID /data/other.qcow2 &&
        mv $P $P.away && mv /data/other.qcow2 $P &&
        refused "does not fit device $ID: it has another size" zqcow2 ublk add --recover $ID &&
        mv $P.away $P && recover
}
ok "only the image of the last server fits" only_its_own_image

not_of_others() {
    was=$ID
    make_image /data/o.qcow2 64M && serve /data/o.qcow2 && kill_server && usleep 500000 &&
        refused "there is no such ublk device\|without --recoverable" zqcow2 ublk add --recover $ID
    status=$?
    zqcow2 ublk del $ID
    ID=$was
    DEV=/dev/ublkb$ID
    return $status
}
ok "a disk that was not prepared for it is refused" not_of_others

without_rights() {
    kill_server && usleep 200000 &&
        refused 'permission' /bin/setpriv --bounding-set -sys_admin zqcow2 ublk add --recover $ID &&
        recover
}
ok "without rights it is refused, and nothing changed" without_rights

# ---- what was flushed, and what was not ----

fsync_fails_once() {
    zqguest io write $DEV 0 65536 5 && kill_server && recover || return 1
    dd if=/dev/zero of=$DEV bs=4k seek=1000 count=1 conv=notrunc,fsync && return 1
    dd if=/dev/zero of=$DEV bs=4k seek=1000 count=1 conv=notrunc,fsync
}
ok "the first flush after a loss fails, the next does not" fsync_fails_once

flushed_is_there() {
    zqguest io write $DEV 65536 65536 6 && sync -d $DEV && kill_server && recover &&
        zqguest io read $DEV 65536 65536 6 && sync -d $DEV && kill_server && recover &&
        zqguest io read $DEV 65536 65536 6 && sync -d $DEV
}
ok "what was flushed is there, and no flush fails" flushed_is_there

loss_is_kept() {
    zqguest io write $DEV 0 65536 5 && kill_server && recover && kill_server && recover &&
        ! sync -d $DEV && sync -d $DEV && kill_server && recover && sync -d $DEV
}
ok "a loss that no flush has reported is kept for the next server" loss_is_kept

# ---- under load ----

plain_under_fio() { # kill_under|relieve_under SYNC
    fio --filename=$DEV --direct=1 --sync=$2 --ioengine=libaio --iodepth=8 --thread --name=k \
        --rw=randwrite --bsrange=4k-64k --blockalign=4k --size=96M --io_size=$((rounds * 6))M \
        --rate=3m --verify=crc32c --do_verify=1 --verify_fatal=1 --output=/tmp/fio.out &
    $1 $rounds $! || { cat /tmp/fio.out; return 1; }
}
ok "$rounds kills under fio, which sees no error and verifies" plain_under_fio kill_under 1
ok "$rounds times another server under fio, which flushes nothing" plain_under_fio relieve_under 0
nothing_was_lost() {
    zqguest io write $DEV 0 65536 9 && relieve_server && sync -d $DEV &&
        zqguest io read $DEV 0 65536 9
}
ok "what the relieved one wrote is there, and a flush succeeds" nothing_was_lost
plain_ends() {
    zqcow2 ublk del $ID && [ ! -e $DEV ] && check_image $P leaks && [ -z "$(ls /run/zqcow2)" ]
}
ok "it is stopped and its image is sound" plain_ends

zoned() {
    make_image $Z 256M zone.size=4M zone.capacity=3M zone.conventional_zones=2 &&
        serve $Z --recoverable=wait --queues 2 --block-size 4096
}
zoned_under_writes() { # MODE JOBS ZONE kill_under|relieve_under
    pids=
    for j in $(seq $2); do
        zqguest follow $DEV $(($3 + j * 10)) 6 $((rounds * 2 + 3)) $((RANDOM_SEED + j)) $1 \
            >/tmp/follow$j &
        pids="$pids $!"
    done
    $4 $rounds $pids
    status=$?
    cat /tmp/follow*
    for j in $(seq $2); do tap_say "# $1: $(tail -1 /tmp/follow$j)"; done
    return $status
}
RANDOM_SEED=$(random 60000)
ok "a zoned disk" zoned
ok "$rounds kills, each write durable by itself, 3 jobs" zoned_under_writes sync 3 0 kill_under
ok "$rounds kills, flushed now and then" zoned_under_writes lazy 1 30 kill_under
zoned_relief() {
    sync -d $DEV # a kill above may have come after the last flush, which then fails here
    if can_quiesce; then
        zoned_under_writes lazy 1 40 relieve_under &&
            grep " 0 errors, 0 zones went back, 0 flushes failed, 0 wrong" /tmp/follow1
    else
        refused "this kernel cannot replace" zqcow2 ublk add --recover $ID
    fi
}
ok "another server under writes to zones: no error, or refused by an old kernel" zoned_relief
zoned_ends() {
    kill_server && recover --backend=file && zqcow2 ublk del $Z && check_image $Z leaks
}
ok "it is stopped and its image is sound" zoned_ends

# Zero copy is a property of the device; a server with faults copies all the same.
other_ways() {
    make_image $P.z 64M && serve $P.z --recoverable=wait && zqguest io write $DEV 65536 131072 3 &&
        sync -d $DEV && kill_server && recover --faults=seed=1 &&
        zqguest io read $DEV 65536 131072 3 && zqguest io write $DEV 4194304 131072 4 &&
        sync -d $DEV && kill_server && recover && zqguest io read $DEV 4194304 131072 4 &&
        refused 'omit --id' zqcow2 ublk add --recover $ID --copy=user &&
        zqcow2 ublk del $ID && check_image $P.z leaks
}
ok "a server that must copy takes over, and another that need not" other_ways

# ---- ends ----

del_while_it_waits() {
    serve $Z --recoverable=wait && kill_server && usleep 300000 && [ -b $DEV ] &&
        zqcow2 ublk del $ID && [ ! -e $DEV ] && [ -z "$(zqcow2 ublk list)" ] &&
        [ -z "$(ls /run/zqcow2)" ]
}
ok "a disk that waits is deleted" del_while_it_waits

fail_meanwhile() {
    if serve $P --recoverable=fail; then
        kill_server && usleep 500000 && ! zqguest io read $DEV 0 4096 6 && recover &&
            zqguest io read $DEV 65536 65536 6 && zqcow2 ublk del $ID
    else
        grep -q "cannot make requests fail while there is no server" /tmp/add.log
    fi
}
ok "requests fail meanwhile, where the kernel can do that" fail_meanwhile

# ---- mounted file systems ----

last_step() {
    sed -n 's/^SYNCED \([0-9]*\)$/\1/p' /tmp/steps | tail -1
}

# The mount may live on or have become read-only; what was fsynced is there in any case.
mounted_kill() { # FS SEED
    fs_load $1 $2 $((LAST + 1)) 1000000 >/tmp/steps 2>&1 &
    loader=$!
    usleep $((500000 + $(random 1000) * 1000))
    kill_server && recover || return 1
    usleep 500000
    killall -9 zqguest
    wait $loader
    now=$(last_step)
    LAST=${now:-$LAST}
    sed -n "s|^$DEV /mnt [^ ]* \(r[ow]\),.*|# after the kill the mount is \1|p" /proc/mounts >/tmp/state
    cat /tmp/state >$TAP
    # A mount that had become read-only has not flushed: then the next one gets the error.
    umount /mnt && { fs_mount $1 || fs_mount $1; } && fs_verify $1 $2 $LAST
}
ext4_made() { make_image /data/ext4.qcow2 256M && serve /data/ext4.qcow2 --recoverable=wait &&
    mkfs.ext4 -q $DEV && mount -t ext4 $DEV /mnt; }
for fs in ${ZQ_fs:-ext4 zonefs btrfs f2fs}; do
    load $fs
    LAST=0
    made() { fs_image $fs /data/$fs.qcow2 && serve /data/$fs.qcow2 --recoverable=wait &&
        fs_make $fs && fs_mount $fs; }
    [ $fs = ext4 ] && first=ext4_made || first=made
    ok "$fs: made and mounted" $first || continue
    for n in $(seq $(((rounds + 1) / 2))); do
        ok "$fs: kill under a mount: what was fsynced is there, $n" mounted_kill $fs 91 || break
    done
    ok "$fs: unmount" umount /mnt
    ok "$fs: stop" zqcow2 ublk del /data/$fs.qcow2
    ok "$fs: check of the image" check_image /data/$fs.qcow2 leaks
    rm -f /data/$fs.qcow2
done
