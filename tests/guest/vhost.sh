# SPDX-License-Identifier: MIT
# A guest whose second disk is that of zqcow2 vhost-user, on the host. The zoned feature needs a newer
# QEMU than that of Debian 12; tests/vhost has zones.

start_server() {
    "$TOOL" vhost-user --foreground --queues=2 --backend=threads --socket="$WORK/vhost.sock" \
        "$WORK/vhost.qcow2" >"$WORK/vhost.server" 2>&1 </dev/null &
    SERVER_PID=$!
    left=600
    until grep -q vhost.sock "$WORK/vhost.server"; do
        [ $left -gt 0 ] && kill -0 $SERVER_PID 2>/dev/null || return 1
        left=$((left - 1))
        sleep 0.1
    done
}

# kill_servers TIMES: while the guest loads its disk. Sets KILLED.
kill_servers() {
    KILLED=0
    wait_line vhost '^# LOADING' 900 || return 1
    while [ $KILLED -lt "$1" ] && ! grep -q '^# LOADED' "$WORK/vhost.tap"; do
        sleep 1.5
        kill -9 $SERVER_PID
        wait $SERVER_PID 2>/dev/null
        start_server || return 1
        KILLED=$((KILLED + 1))
    done
}

verdict() { # GOOD NAME
    vhost_n=$((vhost_n + 1))
    if [ "$1" = 0 ]; then
        echo "ok $vhost_n - vhost: $2"
    else
        echo "not ok $vhost_n - vhost: $2"
        sed 's/^/# /' "$WORK/vhost.server" | tail -5
    fi
}

run_vhost() { # KILLS
    began=$(seconds)
    vhost_n=0
    make_disk "$WORK/vhost.img" 64M
    "$TOOL" create -o cluster_size=64k "$WORK/vhost.qcow2" 256M && start_server
    verdict $? 'the server starts'
    GUEST_EXTRA="-object memory-backend-memfd,id=mem,size=2G,share=on -machine memory-backend=mem
        -chardev socket,id=c0,path=$WORK/vhost.sock,reconnect=1
        -device vhost-user-blk-pci,chardev=c0,num-queues=2,addr=0x1e"
    boot_guest vhost "$WORK/vhost.img" zq.test=vhost
    kill_servers "$1"
    wait_guest 1800 && ended=1 || ended=
    GUEST_EXTRA=
    cat "$WORK/vhost.tap"
    [ -n "$ended" ] || failed 'vhost: the guest did not end' vhost
    tests=$(grep -cE '^(not )?ok ' "$WORK/vhost.tap")
    grep -q "^1\.\.$tests\$" "$WORK/vhost.tap"
    verdict $? 'the guest ran to its end'
    kill $SERVER_PID
    wait $SERVER_PID
    verdict $? 'the server ends well'
    "$TOOL" check "$WORK/vhost.qcow2" >"$WORK/vhost.server" 2>&1
    verdict $? 'its image is sound'
    verdict $([ "$KILLED" -gt 2 ]; echo $?) 'servers were killed meanwhile'
    say "vhost: $KILLED servers killed; took $(($(seconds) - began)) s"
    rm -f "$WORK/vhost.img" "$WORK/vhost.qcow2"
}
