# SPDX-License-Identifier: MIT
# The control socket of a disk in use, and power that is cut there: again and again under load, then
# everything that was fsynced is there. ZQ_rounds, ZQ_fs: how often and where; ZQ_seed: of the cuts.
. /tests/fslib.sh
load ublk_drv
I=/data/live.qcow2
Z=/data/ctl.qcow2
SEED=${ZQ_seed:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}

ctl() {
    zqcow2 serve ctl "$@"
}

# ---- commands ----

statistics() {
    make_image $Z 64M zone.size=8M zone.conventional_zones=1 && serve $Z &&
        zqguest io write $DEV 8388608 65536 7 && ctl $ID stats --json >/tmp/stats &&
        cat /tmp/stats && grep -q '"operation": "write"' /tmp/stats &&
        grep -q '"IMP_OPEN": 1' /tmp/stats && ctl $Z flush && ctl ublk$ID stats &&
        zqcow2 serve list && zqcow2 serve list | grep -q "^ublk$ID	$DEV	pid [0-9]*	$Z\$"
}
ok "serve ctl: statistics and a flush, by number, name and image" statistics

# Linux forgets that a zone was read-only when it resets it.
zone_conditions() {
    ctl $ID zone 16M read-only && ctl $ID zone 24M offline &&
        blkzone report -o 32768 -c 1 $DEV | grep 'zcond:13(ro)' &&
        blkzone report -o 49152 -c 1 $DEV | grep 'zcond:15(of)' &&
        ! zqguest io write $DEV 16777216 4096 && ! zqguest io read $DEV 25165824 4096 &&
        ctl $ID zone 16M normal && blkzone reset -o 32768 -c 1 $DEV &&
        zqguest io write $DEV 16777216 4096
}
ok "serve ctl: zones become read-only and offline under the kernel" zone_conditions

snapshots_and_bitmaps() {
    ctl $ID snapshot -c one && ctl $ID bitmap --add marks && zqguest io write $DEV 0 65536 9 &&
        ctl $ID bitmap --list marks | tee /tmp/marks && grep -q . /tmp/marks &&
        ctl $ID snapshot -l | grep one && zqguest io read $DEV 8388608 65536 7 &&
        zqcow2 ublk del $Z && check_image $Z
}
ok "serve ctl: a snapshot and a bitmap of a disk in use" snapshots_and_bitmaps

size_and_space() {
    serve $Z && ! ctl $ID resize 128M 2>/tmp/err && cat /tmp/err &&
        grep -q 'Linux cannot change the zones of a ublk device' /tmp/err &&
        blkzone finish -o 16384 -c 1 $DEV && ctl $ID compact | tee /tmp/saved &&
        grep -q 'clusters compressed' /tmp/saved && ctl $ID events | tee /tmp/events &&
        grep -q 'the zone at 8388608 is FULL now' /tmp/events && zqguest io read $DEV 8388608 65536 7 &&
        zqcow2 ublk del $Z
}
ok "serve ctl: a zoned disk keeps its size; full zones are announced and compressed" size_and_space

faults() {
    serve $Z --faults=delay=write:1-2 && ! ctl $ID fail read all EFOO && ctl $ID fail read all EIO 0 && ! zqguest io read $DEV 8388608 65536 7 && ctl $ID clear &&
        zqguest io read $DEV 8388608 65536 7
}
ok "serve ctl: reads fail, and no longer" faults

after_a_cut() {
    ctl $ID cut && ! ctl $ID cut && ! zqguest io read $DEV 8388608 65536 7 &&
        ! zqguest io write $DEV 0 4096 && zqcow2 ublk del $ID && [ ! -e $DEV ] &&
        check_image $Z leaks && serve $Z && zqguest io read $DEV 8388608 65536 7 &&
        zqcow2 ublk del $ID && check_image $Z && rm -f $Z
}
ok "serve ctl: nothing is answered without power, and all is well afterwards" after_a_cut

# ---- recipes of zqcow2-testing(7), and the script of examples/ci ----

recipe() { # NAME
    rm -rf /data/recipe && mkdir /data/recipe && (cd /data/recipe && sh -eu /tests/recipe-$1) >/tmp/recipe 2>&1
    recipe_status=$?
    cat /tmp/recipe
    return $recipe_status
}

lost_files() {
    load btrfs && recipe ublk-cut && ! grep '^lost' /tmp/recipe && grep 'seed 42, torn-512+reorder' /tmp/recipe &&
        cat /data/recipe/last && [ "$(cat /data/recipe/last)" -ge 1 ] && grep '^image: cut: seed 42' /data/recipe/faults
}
ok "recipe: power loss under a file system" lost_files

broken_zones() {
    recipe ublk-zones && grep 'zcond:13(ro)' /tmp/recipe && grep 'zcond:15(of)' /tmp/recipe &&
        grep 'zone at 50331648 is OFFLINE' /tmp/recipe
}
ok "recipe: requests that fail and zones that break" broken_zones

ci_script() {
    rm -rf /data/ci && mkdir /data/ci && (cd /data/ci && sh /tests/zoned.sh 7) >/tmp/ci 2>&1
    ci_status=$?
    cat /tmp/ci
    tap_show /tmp/ci
    [ $ci_status = 0 ] && [ "$(grep -c 'all there after a power loss, seed 7$' /tmp/ci)" = 3 ]
}
ok "examples/ci: three disks, a load and a cut" ci_script

# ---- file systems ----

last_step() {
    sed -n 's/^SYNCED \([0-9]*\)$/\1/p' /tmp/steps | tail -1
}

# Writes that nobody flushes, so that there is always something to lose.
noise() { # FS
    case $1 in zonefs) file=/mnt/cnv/0 ;; *) file=/mnt/noise ;; esac
    while dd if=/dev/zero of=$file bs=64k count=32 conv=notrunc oflag=direct 2>/dev/null; do :; done
}

# What the cut loses and when it comes follow from the seed; how far the load is by then does not.
cut_under_load() { # FS NUMBER
    seed=$((SEED + $2))
    fs_load $1 77 $((LAST + 1)) 1000000 >/tmp/steps 2>&1 &
    loader=$!
    noise $1 &
    writer=$!
    for i in $(seq 300); do grep -q '^SYNCED' /tmp/steps && break; usleep 100000; done
    usleep $((300000 + seed * 7919 % 1500 * 1000))
    ctl $ID cut --seed $seed --how $(how $2) >/tmp/cut || return 1
    cat /tmp/cut
    wait $loader $writer
    tail -1 /tmp/steps
    now=$(last_step)
    STEPS=$((STEPS + ${now:-$LAST} - LAST))
    LAST=${now:-$LAST}
    RISK=$((RISK + $(sed -n 's/.*: \([0-9]*\) changes.*/\1/p' /tmp/cut)))
    case $(grep ' /mnt ' /proc/mounts) in *' ro,'* | *' ro '*) RO=$((RO + 1)) ;; esac
    umount /mnt || umount -l /mnt
    zqcow2 ublk del --force $I
}

# Flushes that take their time leave more to lose.
FAULTS=delay=flush:1-10

how() { # NUMBER
    set -- $(($1 % 5))
    case $1 in
    0) echo torn-512 ;;
    1) echo torn-4096+reorder ;;
    2) echo whole+reorder ;;
    3) echo lose-all ;;
    4) echo torn-512+reorder ;;
    esac
}

back_again() { # FS
    check_image $I leaks && serve $I --faults=$FAULTS && fs_mount $1 && fs_verify $1 77 $LAST
}

rounds=${ZQ_rounds:-2}
for fs in ${ZQ_fs:-$FILE_SYSTEMS}; do
    load $fs
    LAST=0 STEPS=0 RISK=0 RO=0
    made() { fs_image $fs $I && serve $I --faults=$FAULTS && fs_make $fs && fs_mount $fs; }
    ok "$fs: made and mounted" made || continue
    for n in $(seq $rounds); do
        ok "$fs: power cut, seed $((SEED + n)), $(how $n)" cut_under_load $fs $n || break
        ok "$fs: all that was fsynced is there, $n (step $LAST)" back_again $fs || break
    done
    tap_say "# live cuts, $fs: $n cuts, $STEPS steps fsynced, $RISK changes at risk," \
        "read-only after $RO; repeat with zq.seed=$SEED"
    ok "$fs: unmount" umount /mnt
    ok "$fs: its own check" fs_check $fs
    ok "$fs: stop" zqcow2 ublk del $I
    ok "$fs: check of the image" check_image $I
    rm -f $I
done
