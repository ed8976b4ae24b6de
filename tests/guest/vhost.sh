# SPDX-License-Identifier: MIT
# Guests whose second disk is that of zqcow2 vhost-user, on the host.

# start_server NAME IMAGE ARGUMENTS...: on $WORK/NAME.sock. Sets SERVER_PID.
start_server() {
    disk=$1
    served=$2
    shift 2
    "$TOOL" vhost-user --foreground --queues=2 --socket="$WORK/$disk.sock" "$@" "$served" \
        >"$WORK/$disk.server" 2>&1 </dev/null &
    SERVER_PID=$!
    left=600
    until grep -q "$disk.sock" "$WORK/$disk.server"; do
        [ $left -gt 0 ] && kill -0 $SERVER_PID 2>/dev/null || return 1
        left=$((left - 1))
        sleep 0.1
    done
}

stop_server() {
    kill $SERVER_PID
    wait $SERVER_PID
}

kill_server() {
    kill -9 $SERVER_PID
    wait $SERVER_PID 2>/dev/null
}

verdict() { # GOOD NAME
    if [ "$1" = 0 ]; then
        echo "ok - $2"
    else
        echo "not ok - $2"
        sed 's/^/# /' "$WORK/vhost.result" | tail -20
    fi
}

judge() { # NAME COMMAND...
    what=$1
    shift
    "$@" >"$WORK/vhost.result" 2>&1
    verdict $? "$what"
}

SHARED_MEMORY="-object memory-backend-memfd,id=mem,size=2G,share=on -machine memory-backend=mem"

# ---- without zones, under vhost-user-blk-pci: QEMU connects again when a server was killed ----

start_flat() {
    start_server vhost "$WORK/vhost.qcow2" --backend=threads
}

# kill_servers TIMES: while the guest loads its disk. Sets KILLED.
kill_servers() {
    KILLED=0
    wait_line vhost '^# LOADING' 900 || return 1
    while [ $KILLED -lt "$1" ] && ! grep -q '^# LOADED' "$WORK/vhost.tap"; do
        sleep 1.5
        kill_server
        start_flat || return 1
        KILLED=$((KILLED + 1))
    done
}

ended_as_planned() { # NAME
    tests=$(grep -cE '^(not )?ok ' "$WORK/$1.tap")
    grep "^1\.\.$tests\$" "$WORK/$1.tap"
}

run_vhost() { # KILLS
    began=$(seconds)
    make_disk "$WORK/vhost.img" 64M
    "$TOOL" create -o cluster_size=64k "$WORK/vhost.qcow2" 256M
    judge 'vhost: the server starts' start_flat
    again=reconnect=1
    [ "$QEMU" = qemu-system-x86_64 ] || again=reconnect-ms=1000
    GUEST_EXTRA="$SHARED_MEMORY -chardev socket,id=c0,path=$WORK/vhost.sock,$again
        -device vhost-user-blk-pci,chardev=c0,num-queues=2,addr=0x1e"
    boot_guest vhost "$WORK/vhost.img" zq.test=vhost
    kill_servers "$1"
    wait_guest 1800 && ended=1 || ended=
    GUEST_EXTRA=
    cat "$WORK/vhost.tap"
    [ -n "$ended" ] || failed 'vhost: the guest did not end' vhost
    judge 'vhost: the guest ran to its end' ended_as_planned vhost
    judge 'vhost: the server ends well' stop_server
    judge 'vhost: its image is sound' "$TOOL" check "$WORK/vhost.qcow2"
    judge 'vhost: servers were killed meanwhile' [ "$KILLED" -gt 2 ]
    say "vhost: $KILLED servers killed; took $(($(seconds) - began)) s"
    rm -f "$WORK/vhost.img" "$WORK/vhost.qcow2"
}

# ---- with zones, under the test device of QEMU 10.2 and newer, which does not connect again ----

zoned_guest() { # NAME ARGUMENTS...
    GUEST_EXTRA="$SHARED_MEMORY -chardev socket,id=c0,path=$WORK/zoned.sock
        -device vhost-user-test-device-pci,chardev=c0,virtio-id=2,num_vqs=2,vq_size=128,config_size=96,addr=0x1e"
    zoned=$1
    shift
    old=$QEMU
    QEMU=$NEWEST_QEMU
    boot_guest "$zoned" "$WORK/zoned.img" zq.test=vhost-zoned "$@"
    QEMU=$old
    GUEST_EXTRA=
}

# An image of the guests' own file system tests.
zoned_image() { # FS FILE
    (
        zqcow2() { "$TOOL" "$@"; }
        . "$HERE/guest/lib.sh"
        . "$HERE/guest/fslib.sh"
        fs_image "$1" "$2"
    )
}

# A zone that was open is closed when its image is, or empty if nothing was written to it.
same_report() {
    sed -n 's/^# REPORT//p' "$WORK/vhost-zoned.tap" | tr -d '\r' |
        sed '/zcond: [23]/s/.*wptr 0x000000 .*/&EMPTY/; s/zcond: [23](o[ie])/zcond: 4(cl)/
             /EMPTY$/s/zcond: 4(cl)/zcond: 1(em)/; s/EMPTY$//' >"$WORK/report.guest"
    "$TOOL" report "$WORK/zoned.qcow2" >"$WORK/report.host" &&
        [ "$(wc -l <"$WORK/report.host")" = 64 ] && diff "$WORK/report.host" "$WORK/report.guest"
}

zoned_small_tests() {
    "$TOOL" create -o zone.size=4M,zone.capacity=3M,zone.conventional_zones=4 \
        -o zone.max_open_zones=12,zone.max_active_zones=14 "$WORK/zoned.qcow2" 256M
    judge 'vhost-zoned: the server starts' \
        start_server zoned "$WORK/zoned.qcow2" --backend=uring
    zoned_guest vhost-zoned
    wait_guest 900 && ended=1 || ended=
    grep -v '^# REPORT' "$WORK/vhost-zoned.tap"
    [ -n "$ended" ] || failed 'vhost-zoned: the guest did not end' vhost-zoned
    judge 'vhost-zoned: the guest ran to its end' ended_as_planned vhost-zoned
    judge 'vhost-zoned: the server ends well' stop_server
    judge 'vhost-zoned: its image is sound' "$TOOL" check "$WORK/zoned.qcow2"
    judge 'vhost-zoned: the guest and the host report the same zones' same_report
}

# No corruption; leaks are allowed where the image was not closed.
sound_or_leaks() {
    "$TOOL" check "$WORK/zoned.qcow2"
    status=$?
    [ $status = 0 ] || [ $status = 3 ]
}

zoned_server() { # FS
    faults=how=torn-512+reorder,delay=flush:1-10
    [ $((ZONED_LIFE % 3)) = 0 ] && faults=how=lose-all,delay=flush:1-10
    case $((ZONED_LIFE % 2)) in
    0) start_server zoned "$WORK/zoned.qcow2" --ctl="$WORK/zoned.ctl" --faults=$faults ;;
    1) start_server zoned "$WORK/zoned.qcow2" --backend=threads ;;
    esac
}

# Odd lives end when the server is killed, even ones when the power of the disk is cut. Either way the
# virtual machine goes, too. Sets LAST.
zoned_life() { # FS
    name=vhost-zoned-$1-$ZONED_LIFE
    judge "$name: the server starts" zoned_server
    zoned_guest "$name" zq.part=fs "zq.fs=$1" "zq.last=$LAST"
    if ! wait_line "$name" '^# LOADING' 300; then
        cat "$WORK/$name.tap"
        failed "$name: the load did not start" "$name"
        kill_guest
        kill_server
        return 1
    fi
    sleep "$(random_delay)"
    if [ $((ZONED_LIFE % 2)) = 0 ]; then
        judge "$name: power cut" "$TOOL" serve ctl "$WORK/zoned.ctl" cut
        sed 's/^/# /' "$WORK/vhost.result"
        CUTS=$((CUTS + 1))
        sleep 0.5
        kill_guest
        stop_server
    else
        kill_server
        KILLS=$((KILLS + 1))
        kill_guest
    fi
    LAST=$(last_acknowledged "$name" "$([ "$LAST" = none ] && echo 0 || echo "$LAST")")
    grep -E '^(not )?ok ' "$WORK/$name.tap"
    say "$name: ended after step $LAST"
    judge "$name: no corruption" sound_or_leaks
}

zoned_end() { # FS
    name=vhost-zoned-$1-final
    judge "$name: the server starts" start_server zoned "$WORK/zoned.qcow2"
    zoned_guest "$name" zq.part=fs "zq.fs=$1" "zq.last=$LAST" zq.final=1
    wait_guest 300 || failed "$name: the guest did not end" "$name"
    grep -E '^(not )?ok ' "$WORK/$name.tap"
    judge "$name: the guest ran to its end" ended_as_planned "$name"
    judge "$name: the server ends well" stop_server
    judge "$name: its image is sound" "$TOOL" check "$WORK/zoned.qcow2"
}

run_vhost_zoned() { # LIVES of each file system
    began=$(seconds)
    CUTS=0 KILLS=0
    make_disk "$WORK/zoned.img" 64M
    zoned_small_tests
    for fs in $ZONED_FS; do
        rm -f "$WORK/zoned.qcow2"
        zoned_image "$fs" "$WORK/zoned.qcow2" || failed "vhost-zoned: no image for $fs" vhost-zoned
        LAST=none ZONED_LIFE=1
        while [ $ZONED_LIFE -le "$1" ] && zoned_life "$fs"; do
            ZONED_LIFE=$((ZONED_LIFE + 1))
        done
        [ $ZONED_LIFE -gt "$1" ] && zoned_end "$fs"
        say "vhost-zoned, $fs: $((ZONED_LIFE - 1)) lives, $LAST steps fsynced"
    done
    say "vhost-zoned: $KILLS servers killed, $CUTS power cuts; took $(($(seconds) - began)) s"
    rm -f "$WORK/zoned.img" "$WORK/zoned.qcow2"
}
