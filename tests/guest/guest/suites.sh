# SPDX-License-Identifier: MIT
# Test suites of other projects, each on null_blk and on our ublk disk of the same geometry. A line
# `# status SUITE GEOMETRY DISK TEST STATUS` per test; what the suite wrote about a test whose status differs.
load ublk_drv
load null_blk
S=/data/suites
OUT=$S/tmp

# geometry NAME SUITE: sizes in MiB, a block in bytes. They are sections 2, 23 and 19 of fio's own script for
# null_blk. zonefs looks at a file for each zone again and again, so it gets fewer zones.
geometry() {
    case $1 in
    plain) size=1024 zone=1 capacity=1 conventional=0 open=0 active=0 block=512 ;;
    limits) size=1024 zone=4 capacity=3 conventional=25 open=8 active=10 block=4096 ;;
    mixed) size=2048 zone=4 capacity=3 conventional=337 open=8 active=8 block=4096 ;;
    esac
    [ $2 = zonefs ] || return 0
    zones=$((size / zone))
    conventional=$((conventional * 64 / zones)) capacity=$((capacity * 8 / zone)) size=512 zone=8
}

make_disks() {
    make_null nullz $size $zone $capacity $conventional $open $active $block || return 1
    disk_null=$NULL
    make_image /data/ours.qcow2 ${size}M zone.size=${zone}M zone.capacity=${capacity}M \
        zone.conventional_zones=$conventional zone.max_open_zones=$open zone.max_active_zones=$active &&
        serve /data/ours.qcow2 --queues 2 --block-size $block || return 1
    disk_ours=$DEV
}

remove_disks() {
    remove_null nullz && zqcow2 ublk del /data/ours.qcow2 && check_image /data/ours.qcow2
}

# Each run_SUITE DISK DEVICE prints `TEST STATUS`, and leaves what it wrote about a test in $OUT/SUITE.DISK/TEST.
in_root() { # FOLDER COMMAND
    chroot $S /bin/bash -c "export HOME=/tmp; cd $1 && $2" </dev/null 2>&1 | tee /tmp/said
}

# As the lines come: busybox's sed has no -u.
statuses() { # SED-COMMAND
    chroot $S /bin/sed -un "s/\[not run\]$/[skip]/;$1"
}

run_fio() {
    limit=
    [ $open = 0 ] || limit="-o $open"
    in_root /fio/t/zbd "./test-zbd-support -r $limit $2" |
        statuses 's/^Running test \([0-9]*\) \.\.\. \([A-Z]*\).*/\1 \2/p'
    for log in $S/fio/t/zbd/*.log.[0-9]*; do
        mv "$log" $OUT/fio.$1/$(printf %02d ${log##*.})
    done
}

run_zonefs() {
    rmmod zonefs 2>/dev/null
    in_root /zonefs "./zonefs-tests.sh -g /tmp/zonefs.$1 $2" |
        statuses 's/^ *Test \([0-9]*\): .*\.\.\. [^A-Zs]*\(PASS\|FAIL\|skip\).*/\1 \2/p'
    for log in $OUT/zonefs.$1/*.log; do
        mv "$log" "${log%.log}"
    done
}

run_blktests() {
    printf 'TEST_DEVS=(%s)\nTIMEOUT=20\n' $2 >$S/blktests/config
    in_root /blktests "./check --device-only --output=/tmp/results zbd" |
        statuses 's#^zbd/\([0-9]*\) => .*\[\(.*\)\]$#\1 \2#p'
    for log in $OUT/results/*/zbd/*; do
        name=${log##*/}
        cat "$log" >>$OUT/blktests.$1/${name%%.*}
    done
    rm -rf $OUT/results
}

run_suite() { # SUITE GEOMETRY
    suite=$1
    for disk in null ours; do
        eval "device=\$disk_$disk"
        mkdir -p $OUT/$suite.$disk
        run_$suite $disk $device | while read -r test status; do
            echo "$test $status" >>$OUT/$suite.$disk.status
            tap_say "# status $suite $2 $disk $test $status"
        done
        ok "$suite has results on $disk" test -s $OUT/$suite.$disk.status || tap_show /tmp/said
    done
    diff $OUT/$suite.null.status $OUT/$suite.ours.status | sed -n 's/^> \([0-9]*\) .*/\1/p' | while read -r test; do
        tap_say "# $suite $2 $test on our disk:"
        tail -40 $OUT/$suite.ours/$test >/tmp/tail
        tap_show /tmp/tail
    done
    rm -rf $OUT/$suite.*
}

ln -s /proc/self/fd /dev/fd
for folder in dev proc sys; do
    mount -o rbind /$folder $S/$folder
done
for section in $(echo $ZQ_geometries | tr , ' '); do
    for suite in $(echo $ZQ_suites | tr , ' '); do
        geometry $section $suite
        ok "disks of geometry $section for $suite" make_disks || continue
        began=$(date +%s)
        run_suite $suite $section
        tap_say "# $suite $section took $(($(date +%s) - began)) s"
        ok "remove them" remove_disks
    done
done
for folder in dev proc sys; do
    umount -l $S/$folder
done
