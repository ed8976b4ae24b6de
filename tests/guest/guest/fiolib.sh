# SPDX-License-Identifier: MIT
# fio's zoned mode on $DEV: 256 MiB in zones of 4 MiB, 4 of them conventional, at most 12 open.

run_fio() {
    fio --filename=$DEV --direct=1 --zonemode=zbd --ioengine=libaio --iodepth=8 --thread \
        --randrepeat=1 --output-format=terse --output=/tmp/fio.out "$@"
    status=$?
    [ $status = 0 ] || cat /tmp/fio.out
    return $status
}

# fio 3.39 refuses a job over more partly written zones than it may open, and how many the jobs before
# have left depends on the order of their requests. So all sequential zones (from 16 MiB on) are
# FULL when it begins.
mix() {
    blkzone finish -o $((16 * 2048)) $DEV &&
        run_fio --name=mix --rw=randrw --bs=16k --offset=$start --size=64M --io_size=16M \
            --max_open_zones=4 --fsync=16
}

fio_zoned() {
    verify="--verify=crc32c --do_verify=1 --verify_fatal=1"
    start=$((4 * 4))M
    ok "sequential write, verify" \
        run_fio --name=seq --rw=write --bs=64k --offset=$start --size=48M $verify
    ok "sequential write again over written zones, verify" \
        run_fio --name=seq2 --rw=write --bs=128k --offset=$start --size=48M --randseed=7 $verify
    ok "random write, 4 open zones, verify" \
        run_fio --name=rnd --rw=randwrite --bs=16k --offset=$start --size=64M --io_size=24M \
        --max_open_zones=4 --randseed=11 $verify
    ok "random write of many sizes, 8 open zones, verify" \
        run_fio --name=sizes --rw=randwrite --bsrange=4k-128k --bs_unaligned=0 --blockalign=4k \
        --offset=$start --size=64M --io_size=24M --max_open_zones=8 --randseed=12 $verify
    ok "3 jobs, each its own zones, sequential, verify" \
        run_fio --name=jobs --rw=write --bs=32k --numjobs=3 --offset=$start --size=32M \
        --offset_increment=64M $verify
    ok "3 jobs, 3 open zones each, random, verify" \
        run_fio --name=rjobs --rw=randwrite --bs=32k --numjobs=3 --offset=$start --size=32M \
        --offset_increment=64M --io_size=12M --max_open_zones=3 --randseed=21 $verify
    ok "random read and write, flushes" mix
    ok "conventional zones, random write, verify" \
        run_fio --name=conv --rw=randwrite --bs=4k --offset=0 --size=16M --io_size=8M $verify
}
