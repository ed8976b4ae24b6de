#!/bin/sh
# SPDX-License-Identifier: MIT
# nbd_kills.sh MODEL_NBD [SERVER [OPERATIONS [KILLS [SECONDS]]]]: random operations against the
# model on an NBD server that is killed with SIGKILL again and again, every SECONDS. SERVER:
#   file   nbdkit, whose writes the page cache keeps
#   loser  nbdkit with a cache of its own: what was not flushed is lost with it
#   qemu   qemu-nbd
# It fails if an operation or a check does. ZQ_SEED as in test_model. The long run: file, loser and qemu with 1000000 operations, 50 kills.
set -u
model=${1:?usage: $0 MODEL_NBD [SERVER [OPERATIONS [KILLS [SECONDS]]]]}
kind=${2:-loser}
ops=${3:-1000000}
kills=${4:-50}
pause=${5:-3}
for program in nbdkit qemu-nbd; do
    command -v $program >/dev/null || { echo "skipped: $program is not installed"; exit 77; }
done
share=20 # test_model does this part of ZQ_OPS in the world that is on NBD
dir=$(mktemp -d) || exit 99
server=
worker=
end() {
    [ -z "$server" ] || kill -9 "$server" 2>/dev/null
    [ -z "$worker" ] || kill -9 "$worker" "$(cat "$dir/pid")" 2>/dev/null
    rm -rf "$dir"
}
trap end EXIT
trap 'exit 99' HUP INT TERM
truncate -s 16G "$dir/disk"

serve() {
    rm -f "$dir/sock"
    case $kind in
    file) nbdkit -f -U "$dir/sock" file "$dir/disk" 2>"$dir/server" & ;;
    loser) TMPDIR=$dir nbdkit -f -U "$dir/sock" --filter=cache file "$dir/disk" \
        cache=writeback 2>"$dir/server" & ;;
    qemu) qemu-nbd -t -f raw -x '' -k "$dir/sock" "$dir/disk" 2>"$dir/server" & ;;
    *) echo "unknown server: $kind" && exit 99 ;;
    esac
    server=$!
}

serve
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -S "$dir/sock" ] && break
    sleep 0.1
done
# As many times as it takes, each with another seed.
operate() {
    seed=${ZQ_SEED:-20240607}
    until [ -e "$dir/killed" ]; do
        echo "seed $seed" >>"$dir/out"
        ZQ_WORLD=uring ZQ_OPS=$((ops * share)) ZQ_SEED=$seed ZQ_PATIENCE=600 \
            ZQ_NBD="nbd+unix:///?socket=$dir/sock" "$model" >>"$dir/out" 2>>"$dir/err" &
        echo $! >"$dir/pid"
        wait $! || return 1
        # A connection that was lost at the very end is not found again.
        cat "$dir/err" >>"$dir/ended"
        : >"$dir/err"
        seed=$((seed + 1))
    done
}

# Until the server is found that was lost, and all that it had lost is written again.
recovered() {
    until [ "$(grep -c 'is lost' "$dir/err")" = "$(grep -c 'is back' "$dir/err")" ] ||
        ! kill -0 $worker 2>/dev/null; do
        sleep 0.1
    done
}

reconnections() {
    cat "$dir/ended" "$dir/err" | grep -c 'the server is back'
}

: >"$dir/err"
: >"$dir/ended"
operate &
worker=$!
done=0
while { [ "$done" -lt "$kills" ] || { [ "$done" -lt 100 ] && [ "$(reconnections)" = 0 ]; }; } && kill -0 $worker 2>/dev/null; do
    sleep "$pause"
    recovered
    kill -9 "$server" && wait "$server" 2>/dev/null
    serve
    done=$((done + 1))
done
touch "$dir/killed"
wait $worker
status=$?
worker=
back=$(reconnections)
sed -n "s/^model, uring, [^:]*: /nbd, $kind: /p" "$dir/out"
echo "nbd, $kind: $done kills, $back reconnections"
if [ $status != 0 ] || [ "$back" = 0 ]; then
    echo "replay: $0 $model $kind $ops $kills $pause"
    grep -v 'is back$\|is lost; trying' "$dir/err" | tail -20
    grep -v '^\[' "$dir/out" | tail -20
    exit 1
fi
