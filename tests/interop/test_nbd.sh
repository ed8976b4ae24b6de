#!/bin/sh
# SPDX-License-Identifier: MIT
# test_nbd.sh ZQCOW2 MODEL_NBD: images on exports of nbdkit and qemu-nbd, by the command, and the
# random model test through its backend. ZQ_OPS as in test_model; nbd_kills.sh has servers that die.
. "$(dirname "$0")/../cli/lib.sh"
model=${2:-}
case $model in /* | '') ;; *) model=$OLDPWD/$model ;; esac
if [ -z "$model" ]; then
    run 1 'without libnbd' info nbd://localhost/
    has 'it says so' err 'built without libnbd'
    finish
fi
command -v nbdkit >/dev/null || skip 'nbdkit is not installed'
server=
trap '[ -z "$server" ] || kill -9 $server; rm -rf "$dir"' EXIT

# serve COMMAND...: in the background, until its socket is there; then $uri names its export.
serve() {
    rm -f sock
    "$@" 2>server.log &
    server=$!
    uri="nbd+unix:///?socket=$dir/sock"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -S sock ] && return 0
        sleep 0.1
    done
    echo "# no server: $*"
    cat server.log
}

# stop SIGNAL
stop() {
    kill -"$1" $server
    wait $server 2>/dev/null
    server=
}

kit() {
    serve nbdkit -f -U "$dir/sock" "$@"
}

random 3000320 1 >data
random 65536 2 >more

# use WHAT: the verbs of the command on $uri.
use() {
    run 1 "$1: create" create -o zone.size=4M "$uri" 32M
    has "$1: an export is not replaced silently" err '--force overwrites it'
    run 0 "$1: create" create --force -o zone.size=4M "$uri" 32M
    "$tool" append "$uri" 4M <data >out 2>err
    is "$1: append" 0 $?
    run 0 "$1: commands" io -c 'aio_write -q -P 1 8M 64k' -c 'aio_write -q -P 2 12M 4k' \
        -c 'aio_flush' -c 'read -q -P 1 8M 64k' -c 'zf 16M 4M' -c 'zap 20M 4k' -c 'zrs 20M 4M' \
        -c 'flush' "$uri"
    run 0 "$1: read" read "$uri" 4M 3000320
    same "$1: the data" data out
    run 0 "$1: check" check "$uri"
    run 0 "$1: info" info "$uri"
    has "$1: no zone is lost" out '^zones: 8,'
    run 0 "$1: snapshot" snapshot -c one "$uri"
    run 0 "$1: convert from it" convert -O qcow2 "$uri" "$1.qcow2"
    run 0 "$1: compare" compare "$uri" "$1.qcow2"
    run 0 "$1: convert to it" convert --force -O qcow2 "$1.qcow2" "$uri"
    run 0 "$1: check" check "$uri"
    run 0 "$1: compare" compare "$1.qcow2" "$uri"
    run 0 "$1: raw from it" convert -O raw "$uri" "$1.raw"
    run 0 "$1: raw to it" convert --force -O raw "$1.raw" "$uri"
    [ "$1" = file ] || run 0 "$1: compare" compare "$1.raw" "$uri"
}

# Leftovers of another use must not show through: the backend clears what the file gains.
tr '\0' '\377' </dev/zero | head -c 64M >used.img
kit file used.img
use file
stop TERM
cmp -n 33554432 used.img file.raw
verdict $? 'the file of the server'
for bytes in 512 4096; do
    kit --filter=blocksize-policy memory 64M blocksize-minimum=$bytes blocksize-preferred=4096 \
        blocksize-maximum=64k blocksize-error-policy=error
    use "blocks-$bytes"
    stop TERM
done
kit --filter=nozero --filter=nocache memory 64M zeromode=none
use 'no-zero'
stop TERM
if nbdkit --dump-config | grep -q '^tls=yes'; then
    printf 'alice:%064d\n' 7 >keys.psk
    kit --tls=require --tls-psk=keys.psk memory 64M
    run 1 'no TLS' info "$uri"
    uri="nbds+unix://alice@/?socket=$dir/sock&tls-psk-file=$dir/keys.psk"
    use tls
    stop TERM
fi

# A server that cannot flush may write through instead.
truncate -s 64M through.img
kit eval get_size='echo 64M' can_write='exit 0' can_flush='exit 3' can_fua='echo native' \
    pread="dd if=$dir/through.img iflag=skip_bytes,count_bytes skip=\$4 count=\$3" \
    pwrite="dd of=$dir/through.img conv=notrunc oflag=seek_bytes seek=\$4; echo \"\$5\" >>$dir/flags"
run 0 'write-through' create --force -o zone.size=4M "$uri" 32M
run 0 'write-through: a write' io -c 'aio_write -q -P 1 8M 64k' -c 'flush' "$uri"
stop TERM
run 0 'write-through: the file' io -c 'read -q -P 1 8M 64k' through.img
is 'every write goes through' fua "$(sort -u flags)"
if command -v qemu-nbd >/dev/null; then
    truncate -s 64M qemu.img
    serve qemu-nbd -t -f raw -x '' -k "$dir/sock" qemu.img
    use 'qemu-nbd'
    stop TERM
fi

# Over TCP, by number and with the name of an export.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
nbdkit -f -p "$port" -i 127.0.0.1 memory 64M 2>server.log & server=$!
uri=nbd://127.0.0.1:$port/any
for _ in 1 2 3 4 5 6 7 8 9 10; do
    "$tool" create --force -o zone.size=4M "$uri" 32M >out 2>err && break
    sleep 0.3
done
run 0 'over TCP' check "$uri"
run 0 'by name of the backend' check --backend=nbd "$uri"
run 0 'with a bound' check --backend=nbd:reconnect=5 "$uri"
stop TERM
run 1 'a server that is not there' check "$uri"
has 'it says so' err "^zqcow2: $uri: .*refused"
run 1 'a file is no export' info --backend=nbd used.img
has 'it says so' err 'not the name of an export'
run 1 'a bound that is none' info --backend=nbd:reconnect=x "$uri"
has 'it says so' err "'x' is not a number"
run 1 'another word' info --backend=nbd:again=1 "$uri"
has 'it says so' err "'nbd:again=1' is not available"

# Exports that give less.
kit -r memory 64M
run 1 'a server that only reads' create --force -o zone.size=4M "$uri" 32M
has 'it says so' err 'not writable'
stop TERM
kit eval get_size='echo 64M' can_write='exit 0' can_flush='exit 3' can_fua='echo none' \
    pread='dd if=/dev/zero iflag=count_bytes count=$3' pwrite='cat >/dev/null'
run 1 'a server that cannot flush' create --force -o zone.size=4M "$uri" 32M
has 'it says so' err 'cannot flush'
stop TERM
kit --filter=error memory 64M error-pwrite=EIO error-pwrite-rate=100%
run 1 'a server that loses every write' create --force -o zone.size=4M "$uri" 32M
has 'fails with its error' err 'Input/output error'
stop TERM

# It cannot grow: what does not fit is refused, and the image goes on.
kit memory 6M
run 0 'an export smaller than the disk' create --force -o zone.size=4M "$uri" 32M
"$tool" append "$uri" 0 <data >out 2>err
is 'what fits' 0 $?
"$tool" append "$uri" 4M <data >out 2>err
is 'what does not' 1 $?
has 'says why' err 'No space left on device'
run 0 'is clean' check "$uri"
run 0 'reads on' read "$uri" 0 3000320
same 'the data' data out
run 0 'a reset gives room' reset -o 0 "$uri"
"$tool" append "$uri" 8M <more >out 2>err
is 'for other zones' 0 $?
stop TERM

# A server that dies and does not come back: requests fail after the bound, and the file is sound.
truncate -s 64M lone.img
kit file lone.img
run 0 'an image' create --force -o zone.size=4M "$uri" 32M
{ echo 'write -q -P 1 0 64k'; echo 'flush'; sleep 0.3; kill -9 $server; sleep 0.2
    echo 'write -q -P 2 64k 64k'; echo 'flush'; } |
    "$tool" io --backend=nbd:reconnect=1 "$uri" >out 2>err
is 'a server that is gone' 1 $?
has 'is looked for' err 'trying to reconnect for 1 s'
has 'and given up' err 'all further requests fail'
wait $server 2>/dev/null
server=
run 0 'the file opens' io -c 'read -q -P 1 0 64k' lone.img

# One that comes back without what was flushed is not believed.
kit memory 64M
run 0 'an image' create --force -o zone.size=4M "$uri" 32M
{ echo 'write -q -P 1 0 64k'; echo 'flush'; sleep 0.3; kill -9 $server
    nbdkit -f -U "$dir/sock2" memory 64M & echo $! >pid; sleep 0.3; mv sock2 sock
    echo 'write -q -P 2 64k 64k'; echo 'flush'; sleep 1; } |
    "$tool" io --backend=nbd:reconnect=20 "$uri" >out 2>err
is 'a server that forgets' 1 $?
has 'is found out' err 'has lost what was flushed'
kill -9 "$(cat pid)"
wait $server 2>/dev/null
server=

ZQ_WORLD=uring
ZQ_OPS=${ZQ_OPS:-40000}
export ZQ_WORLD ZQ_OPS
kit memory 64G
ZQ_NBD=$uri timeout 200 "$model" >out 2>err
ran="ZQ_NBD=$uri $model"
verdict $? 'random operations against the model' || show
sed -n 's/^model, uring, [^:]*: /nbd, operations against the model: /p' out
stop TERM
kit --filter=delay memory 64G rdelay=1ms wdelay=1ms
ZQ_OPS=4000 ZQ_NBD=$uri timeout 200 "$model" >out 2>err
verdict $? 'with answers out of order' || show
finish
