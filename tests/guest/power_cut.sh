# SPDX-License-Identifier: MIT
# Power cuts: QEMU is killed in the middle of a write load, the next boot judges what is left.

# From 1 to 4 seconds; the moment is a race with the guest anyway, so it needs no seed.
random_delay() {
    awk 'BEGIN { srand(); printf "%.2f", 1 + 3 * rand() }'
}

# The last step that the guest said was durable. A line that the kill tore does not count.
last_acknowledged() { # NAME FALLBACK
    last=$(sed -n 's/^SYNCED \([0-9]*\)\r*$/\1/p' "$WORK/$1.tap" | tail -1)
    echo "${last:-$2}"
}

# One life: boots, verifies, loads, loses power. Sets LAST.
one_cut() { # FS NUMBER BACKEND
    name=cut-$1-$2
    boot_guest "$name" "$WORK/cut-$1.img" zq.test=cut "zq.fs=$1" "zq.last=$LAST" \
        "zq.backend=$3"
    if wait_line "$name" '^# LOADING' 120; then
        sleep "$(random_delay)"
        kill_guest
        grep -v '^SYNCED' "$WORK/$name.tap" >"$WORK/$name.rest"
        LAST=$(last_acknowledged "$name" "$([ "$LAST" = none ] && echo 0 || echo "$LAST")")
        mv "$WORK/$name.rest" "$WORK/$name.tap"
        cat "$WORK/$name.tap"
        say "$1: power cut $2 after step $LAST"
        return 0
    fi
    kill_guest
    cat "$WORK/$name.tap"
    failed "$name: the load did not start" "$name"
    return 1
}

run_cuts() { # FS CUTS BACKEND
    LAST=none
    began=$(seconds)
    make_disk "$WORK/cut-$1.img" 3G
    n=1
    while [ $n -le "$2" ] && one_cut "$1" $n "$3"; do
        n=$((n + 1))
    done
    if [ $n -gt "$2" ]; then
        boot_guest "cut-$1-final" "$WORK/cut-$1.img" zq.test=cut "zq.fs=$1" "zq.last=$LAST" \
            "zq.backend=$3" zq.final=1
        wait_guest 180 || failed "cut-$1: the last boot did not end" "cut-$1-final"
        cat "$WORK/cut-$1-final.tap"
    fi
    rm -f "$WORK/cut-$1.img"
    say "cut-$1 took $(($(seconds) - began)) s"
}
