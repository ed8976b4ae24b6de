#!/bin/sh
# SPDX-License-Identifier: MIT
# test_nbd_serve.sh ZQCOW2: a confined vhost-user server whose image is on an NBD server. It can
# connect to nothing but that, and finds it again when it has died.
. "$(dirname "$0")/../cli/lib.sh"
"$tool" info nbd+unix:///?socket=/none >out 2>err
grep -q 'built without libnbd' err && skip 'built without libnbd (libnbd-dev)'
command -v nbdkit >/dev/null || skip 'nbdkit is not installed'
nbd=
served=
trap '[ -z "$nbd" ] || kill -9 $nbd; [ -z "$served" ] || kill -9 $served; rm -rf "$dir"' EXIT

# until WHAT COMMAND...: waits for it, half a minute at most.
until_ok() {
    waited=$1
    shift
    for _ in $(seq 300); do
        "$@" && return 0
        sleep 0.1
    done
    echo "# in vain: $waited"
    return 1
}

start_nbd() {
    rm -f "$sock"
    nbdkit -f $how file disk.img 2>nbd.log & nbd=$!
}

sock=$dir/sock
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

"$tool" create --force -o zone.size=4M disk.img 32M >out 2>err
truncate -s 64M disk.img # room in the export
for world in unix tcp; do
    case $world in
    unix) how="-U $sock" uri="nbd+unix:///?socket=$sock" ;;
    tcp) how="-i 127.0.0.1 -p $port" uri=nbd://127.0.0.1:$port/ ;;
    esac
    start_nbd
    until_ok 'the NBD server' "$tool" info "$uri" >out 2>err
    "$tool" vhost-user --socket "$dir/vhost" --ctl "$dir/ctl" --foreground "$uri" >log 2>&1 &
    served=$!
    ran="zqcow2 vhost-user --socket vhost --ctl ctl $uri"
    until_ok 'the server' test -S ctl
    until_ok 'its readiness' "$tool" serve ctl "$dir/ctl" stats >out 2>err
    kill -9 $nbd
    wait $nbd 2>/dev/null
    start_nbd
    until_ok 'a new connection' grep -q 'the server is back' log
    verdict $? "$world: a confined server finds its server again" || sed 's/^/# /' log
    run 0 "$world: and goes on" serve ctl "$dir/ctl" snapshot -c "$world"
    kill $served
    wait $served
    is "$world: to its end" 0 $?
    served=
    kill $nbd
    wait $nbd 2>/dev/null
    nbd=
    run 0 "$world: what it wrote" snapshot -l disk.img
    has "$world: is there" out "$world"
done
finish
