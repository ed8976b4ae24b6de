#!/bin/sh
# SPDX-License-Identifier: MIT
# test_nbd.sh ZQCOW2 NBD_BACKEND MODEL_NBD: the libnbd backend of the examples against nbdkit, over
# a Unix socket and over loopback, and the random model test through it. ZQ_OPS as in test_model.
. "$(dirname "$0")/../cli/lib.sh"
example=${2:-}
model=${3:-}
export example model
[ -n "$example" ] || skip 'built without libnbd (libnbd-dev)'
command -v nbdkit >/dev/null || skip 'nbdkit is not installed'

# served NAME WANTED COMMAND NBDKIT-ARGUMENT...: runs a shell command with $uri.
served() {
    served_name=$1
    served_wanted=$2
    ran="nbdkit -U - --run '$3'"
    served_command=$3
    shift 3
    timeout 200 nbdkit -U - "$@" --run "$served_command" >out 2>err
    served_got=$?
    verdict $([ $served_got = "$served_wanted" ]; echo $?) "$served_name" && return 0
    echo "# exit status $served_got, not $served_wanted"
    show
}

served 'an image on a server' 0 '"$example" "$uri"' memory 256M
truncate -s 256M disk.img
served 'in a file of the server' 0 '"$example" "$uri"' file disk.img
run 0 'the file is an image' check disk.img
is 'what was appended is in zone 1' $((16 * 1048576 + 65536)) "$(zone disk.img 1 write_pointer)"
"$tool" read disk.img 16M 64k >got 2>err
head -c 65536 /dev/zero | tr '\0' n >want
same 'and reads as it was' want got

# Leftovers of another use must not show through: the backend zeroes what it gains.
tr '\0' '\377' </dev/zero | head -c 64M >used.img
served 'in a file full of other bytes' 0 '"$example" "$uri"' file used.img
run 0 'which is an image as well' check used.img

served 'a server without room' 1 '"$example" "$uri"' memory 64k
has 'is out of space' err 'No space'
served 'a server that loses every write' 1 '"$example" "$uri"' \
    --filter=error memory 256M error-pwrite=EIO error-pwrite-rate=100%
has 'fails with its error' err 'Input/output'
served 'a server that only reads' 1 '"$example" "$uri"' -r memory 256M
served 'slow answers, out of order' 0 '"$example" "$uri"' --filter=delay memory 256M wdelay=2ms

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
nbdkit -f -p "$port" -i 127.0.0.1 memory 256M & server=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
    "$example" "nbd://127.0.0.1:$port/" >out 2>err && break
    sleep 0.3
done
ran="$example nbd://127.0.0.1:$port/"
has 'over loopback' out 'an image is on'
kill $server
wait $server 2>/dev/null
"$example" "nbd://127.0.0.1:$port/" >out 2>err
is 'a server that is gone' 1 $?

ZQ_WORLD=uring
ZQ_OPS=${ZQ_OPS:-400000}
export ZQ_WORLD ZQ_OPS
served "random operations against the model" 0 'ZQ_NBD="$uri" "$model"' memory 64G
sed -n 's/^model, uring: /nbd, operations against the model: /p' out
served 'with answers out of order' 0 'ZQ_OPS=20000 ZQ_NBD="$uri" "$model"' \
    --filter=delay memory 64G rdelay=1ms wdelay=1ms
finish
