# SPDX-License-Identifier: MIT
# What the guest's tests share: TAP on the second serial line, modules, devices, servers.

TAP=/dev/ttyS1
TAP_N=0
LOG=/tmp/log

tap_say() {
    echo "$*" >$TAP
}

# A file's lines as TAP comments.
tap_show() {
    sed 's/^/# /' "$1" >$TAP
}

# ok NAME COMMAND...: one test; what the command printed is shown when it failed.
ok() {
    name=$1
    shift
    TAP_N=$((TAP_N + 1))
    if "$@" >$LOG 2>&1; then
        tap_say "ok $TAP_N - $name"
        return 0
    fi
    tap_say "not ok $TAP_N - $name"
    tail -40 $LOG >$LOG.tail
    tap_show $LOG.tail
    return 1
}

tap_end() {
    tap_say "1..$TAP_N"
}

load() {
    while read -r file; do
        grep -q "^$(echo "${file%.ko}" | tr - _) " /proc/modules ||
            insmod "/modules/$file" 2>/dev/null
    done <"/modules/$1.list"
    return 0
}

# ---- our devices ----

# make_image FILE SIZE OPTIONS...: anew.
make_image() {
    file=$1
    size=$2
    shift 2
    rm -f "$file"
    opts=
    for o in "$@"; do
        opts="$opts -o $o"
    done
    zqcow2 create $opts "$file" "$size" >/tmp/create.log 2>&1 || { cat /tmp/create.log; return 1; }
}

# serve FILE [OPTIONS...]: with the backend that the boot names; sets DEV (/dev/ublkbN) and ID.
serve() {
    served=$1
    shift
    zqcow2 ublk add ${ZQ_backend:+--backend=$ZQ_backend} "$@" "$served" \
        >/tmp/add.log 2>&1 || { cat /tmp/add.log; return 1; }
    DEV=$(head -1 /tmp/add.log)
    ID=${DEV#/dev/ublkb}
    [ -b "$DEV" ]
}

server_pid() {
    zqcow2 ublk list | sed -n "s/^$1	.*	pid \([0-9]*\)	.*/\1/p"
}

# No corruption; leaks are allowed (exit status 3) where the image was not closed cleanly.
check_image() {
    zqcow2 check "$1"
    status=$?
    [ $status = 0 ] || { [ "$2" = leaks ] && [ $status = 3 ]; }
}

# ---- null_blk ----

# make_null NAME SIZE ZONE CAPACITY CONVENTIONAL OPEN ACTIVE [BLOCK]: sizes in MiB, a block in bytes;
# sets NULL.
make_null() {
    dir=/sys/kernel/config/nullb/$1
    mkdir "$dir" && echo "$2" >"$dir/size" && echo 1 >"$dir/zoned" && echo "$3" >"$dir/zone_size" &&
        echo "$4" >"$dir/zone_capacity" && echo "$5" >"$dir/zone_nr_conv" &&
        echo "$6" >"$dir/zone_max_open" && echo "$7" >"$dir/zone_max_active" &&
        echo "${8:-512}" >"$dir/blocksize" && echo 1 >"$dir/memory_backed" &&
        echo 1 >"$dir/power" || return 1
    NULL=/dev/$1
    [ -b "$NULL" ]
}

# make_plain NAME MIB: a disk without zones, /dev/NAME.
make_plain() {
    dir=/sys/kernel/config/nullb/$1
    mkdir "$dir" && echo "$2" >"$dir/size" && echo 1 >"$dir/memory_backed" &&
        echo 1 >"$dir/power" && [ -b "/dev/$1" ]
}

remove_null() {
    echo 0 >"/sys/kernel/config/nullb/$1/power"
    rmdir "/sys/kernel/config/nullb/$1"
}
