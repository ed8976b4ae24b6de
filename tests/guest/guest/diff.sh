# SPDX-License-Identifier: MIT
# Differential test: one script of blkzone commands, and random operations, on our device and on
# null_blk of the same geometry. Differences that zone-semantics intends are named where they occur:
#   close     close of an EMPTY or FULL zone succeeds and changes nothing; null_blk: an I/O error
#   full      a zone that writing made FULL reports its end as write pointer; null_blk its capacity
#   closed    a CLOSED zone at the active limit makes room for itself among the open ones; null_blk
#             refuses
#   victim    the least recently written zone is the one that is closed implicitly; null_blk goes
#             round
#   stale     at and beyond a write pointer we read as zeros; null_blk shows what an earlier life of
#             the zone left there
#   pointer   (random operations; blkzone hides it) a conventional zone reports its start as write
#             pointer; null_blk its end
load ublk_drv
load null_blk

# in_zone N: its first sector.
in_zone() {
    echo $(($1 * ZS))
}

# Errors name the device and the program; neither is of interest.
step() {
    echo "+ $*" | sed "s#$D#DEV#g"
    "$@" >/tmp/step 2>&1
    echo "= $?"
    sed "s#$D#DEV#g" /tmp/step
}

zone_step() {
    step blkzone $1 -o $(in_zone $2) -l $((ZS * ${3:-1})) $D
}

write_at() { # ZONE BYTE_IN_ZONE LENGTH
    step zqguest io write $D $(($1 * ZS * 512 + $2)) $3 $1
}

report() {
    step blkzone report $D
}

# intended NAME COMMAND...: succeeds on our device, fails on null_blk; says the same line if so.
intended() {
    difference=$1
    shift
    "$@" >/dev/null 2>&1 && result=success || result=failure
    [ $ROLE = ours ] && want=success || want=failure
    [ $result = $want ] && echo "intended: $difference" || echo "$ROLE: $difference: $result"
}

# Zones that were written in an earlier life read as zeros, on our device.
stale() {
    intended stale zqguest io zeros $D $1 131072
}

fill() {
    write_at $1 0 $((CAP * 1048576))
}

states() {
    s=$CONV
    report
    write_at $s 0 65536
    write_at $s 65536 4096
    write_at $s 0 4096
    write_at $s 131072 4096
    report
    zone_step open $((s + 1))
    report
    zone_step close $((s + 1))
    zone_step open $((s + 1))
    write_at $((s + 1)) 0 4096
    zone_step close $((s + 1))
    report
    zone_step close $((s + 1))
    zone_step open $((s + 1))
    zone_step finish $((s + 1))
    report
    step zqguest io zeros $D $(((s + 1) * ZS * 512 + 4096)) 65536
    zone_step reset $((s + 1))
    zone_step finish $((s + 1))
    report
    zone_step reset $((s + 1))
    zone_step reset $((s + 1))
}

full_and_closed() {
    s=$CONV
    zone_step reset $s
    fill $s
    report
    write_at $s 0 4096
    [ $((CAP * 2048)) = $ZS ] || write_at $s $((CAP * 1048576)) 4096
    zone_step open $s
    zone_step finish $s
    intended close blkzone close -o $(in_zone $s) -l $ZS $D
    intended close blkzone close -o $(in_zone $((s + 1))) -l $ZS $D
    report
    step zqguest io read $D $((s * ZS * 512)) 131072 $s
    stale $(((s + 1) * ZS * 512))
    zone_step reset $s
    stale $((s * ZS * 512))
    write_at $s $((CAP * 1048576 - 4096)) 8192
    report
}

conventional() {
    [ $CONV -gt 0 ] || return 0
    write_at 0 4096 8192
    write_at 0 0 4096
    step zqguest io sum $D 0 65536
    for action in open close finish reset; do
        zone_step $action 0
    done
    [ $CONV -lt 2 ] || write_at 0 $((ZS * 512 - 4096)) 8192
    report
}

# Explicitly open zones up to the limit, one beyond, then a write beyond.
open_limit() {
    step blkzone reset $D
    i=0
    while [ $i -le $OPEN ]; do
        zone_step open $((CONV + i))
        i=$((i + 1))
    done
    write_at $((CONV + OPEN)) 0 4096
    report
    zone_step close $CONV
    write_at $((CONV + OPEN)) 0 4096
    report
    step blkzone reset $D
    i=0
    while [ $i -le $OPEN ]; do # the last write closes one of the others: see "victim"
        write_at $((CONV + i)) 0 4096
        i=$((i + 1))
    done
    blkzone report $D | sed 's/.*zcond:\([^)]*)\).*/\1/' | sort | uniq -c
    step blkzone reset $D
}

active_limit() {
    step blkzone reset $D
    i=0
    while [ $i -lt $ACTIVE ]; do
        write_at $((CONV + i)) 0 4096
        zone_step close $((CONV + i))
        i=$((i + 1))
    done
    write_at $((CONV + ACTIVE)) 0 4096
    zone_step open $((CONV + ACTIVE))
    zone_step finish $((CONV + ACTIVE))
    report
    write_at $CONV 4096 4096
    zone_step open $CONV
    zone_step finish $CONV
    write_at $((CONV + ACTIVE)) 0 4096
    report
}

both_limits() {
    step blkzone reset $D
    i=0
    while [ $i -lt $ACTIVE ]; do
        write_at $((CONV + i)) 0 4096
        i=$((i + 1))
    done
    # Which zones were closed to make room differs ("victim"), so each device names its own.
    closed=$(blkzone report $D | sed -n 's/^  start: \(0x[0-9a-f]*\),.* 4(cl).*/\1/p' | head -1)
    blkzone report $D | sed 's/.*zcond:\([^)]*)\).*/\1/' | sort | uniq -c
    intended closed zqguest io write $D $((closed * 512 + 4096)) 4096 1
    step blkzone reset $D
}

ranges() {
    zone_step open $CONV 3
    zone_step finish $CONV 2
    zone_step reset $CONV 3
    report
}

script() { # DEVICE ours|null_blk
    D=$1
    ROLE=$2
    states
    full_and_closed
    conventional
    [ $OPEN = 0 ] || open_limit
    [ $ACTIVE = 0 ] || active_limit
    [ $OPEN = 0 ] || [ $ACTIVE = 0 ] || both_limits
    # The kernel sends a range's zones all at once: with limits, which of them fits is a race.
    [ $OPEN != 0 ] || [ $ACTIVE != 0 ] || ranges
    step blkzone reset $D
    report
}

# null_blk's FULL zones are given our write pointer; each is the difference "full".
full_pointer() {
    sed -E 's/(len (0x[0-9a-f]+), .*wptr )0x[0-9a-f]+( .*14\(fu\))/\1\2\3/'
}

same_script() {
    script $DEV ours >/tmp/ours
    script $NULL null_blk | full_pointer >/tmp/null
    echo "$(grep -c '^[+=]' /tmp/ours) lines of commands and results," \
        "$(grep -c '^intended' /tmp/ours) intended differences"
    diff /tmp/null /tmp/ours
}

geometry() {
    case ,${ZQ_geometry:-$1}, in *,$1,*) ;; *) return ;; esac
    what="$2M: zones of $3M, capacity $4M, $5 conventional, $6 open, $7 active"
    ZS=$(($3 * 2048)) CAP=$4 CONV=$5 OPEN=$6 ACTIVE=$7
    make_pair() {
        make_image /data/d.qcow2 $2M zone.size=$3M zone.capacity=$4M zone.conventional_zones=$5 \
            zone.max_open_zones=$6 zone.max_active_zones=$7 && serve /data/d.qcow2 &&
            make_null nulld $2 $3 $4 $5 $6 $7
    }
    if ok "$what: made twice" make_pair "$@"; then
        ok "$what: same script" same_script && tap_show $LOG
        blkzone reset $DEV
        blkzone reset $NULL
        for s in $(echo ${ZQ_seeds:-1,2} | tr , ' '); do
            ok "$what: random operations, seed $s" \
                zqguest diff $DEV $NULL $s ${ZQ_ops:-300} && tap_show $LOG
        done
    fi
    zqcow2 ublk del /data/d.qcow2 >/dev/null 2>&1
    ok "$what: check" check_image /data/d.qcow2
    remove_null nulld
}

#        NAME SIZE ZONE CAP CONV OPEN ACTIVE, sizes in MiB
geometry a    64   4    4   0    0    0
geometry b    64   4    3   0    0    0
geometry c    64   4    3   4    0    0
geometry d    128  8    8   2    3    0
geometry e    64   4    2   1    0    5
geometry f    96   4    3   1    2    4
geometry g    32   1    1   0    1    2
geometry h    256  32   24  2    3    5
