#!/bin/sh
# SPDX-License-Identifier: MIT
# ublk list and ublk del by the state files of servers that this test plays: a process that holds
# the lock on its file. The driver itself is for tests/guest.
case ${ZQ_PRIVATE_RUN:-} in
'')
    # /run is the machine's: a namespace of our own has an empty one.
    ZQ_PRIVATE_RUN=1 unshare -rm sh -c 'mount -t tmpfs none /run' 2>/dev/null ||
        { echo '1..0 # SKIP needs a mount namespace of its own'; exit 77; }
    ZQ_PRIVATE_RUN=1 exec unshare -rm sh "$0" "$@"
    ;;
esac
mount -t tmpfs none /run || exit 99
. "$(dirname "$0")/lib.sh"
[ ! -e /dev/ublk-control ] || skip 'a ublk driver is loaded'
"$tool" ublk list >out 2>err || { grep -q 'built without liburing' err && skip 'no liburing'; }
state=/run/zqcow2
tab=$(printf '\t')

# dead ID PID LINE...: what a server that is gone has left behind.
dead() {
    mkdir -p $state
    id=$1
    shift
    printf '%s\n' "$@" >"$state/ublk$id"
}

# alive ID LINE...: a server that is up until SIGTERM; then it adds the file's last lines from
# `end`, or removes the file if there is none. Sets pid.
alive() {
    dead "$1" 0
    python3 - "$state/ublk$1" "${end:-}" "$@" <<'EOF' &
import fcntl, os, signal, sys
path, end, lines = sys.argv[1], sys.argv[2], sys.argv[4:]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with open(path, "r+") as f:
    fcntl.flock(f, fcntl.LOCK_EX)
    f.truncate(0)
    f.write("\n".join(["%d" % os.getpid()] + lines) + "\n")
    f.flush()
    open("ready", "w").close()
    signal.sigwait([signal.SIGTERM])
    if end:
        f.write(end + "\n")
    else:
        os.unlink(path)
EOF
    pid=$!
    while [ ! -e ready ]; do sleep 0.05; done
    rm ready
}

run 0 'list without a server' ublk list
is 'is empty' '' "$(cat out)"
run 1 'list takes no operand' ublk list x
run 1 'del of what is not served' ublk del 3
is 'names it' 'zqcow2: 3: no such ublk device (see zqcow2 ublk list)' "$(cat err)"
run 1 'del without a device' ublk del
has 'shows the usage' err '^usage: zqcow2 ublk add '

# What is listed, in the order of the numbers.
: >a.qcow2
dead 12 999999 /images/gone.qcow2
dead 7 999999 /images/full.qcow2 'No space left on device'
alive 3 "$dir/a.qcow2"
run 0 'list' ublk list
is 'shows living and dead' "3$tab/dev/ublkb3${tab}pid $pid$tab$dir/a.qcow2
7$tab-${tab}server gone: No space left on device$tab/images/full.qcow2
12$tab-${tab}server gone$tab/images/gone.qcow2" "$(cat out)"

# del by number and by name, of the living and the dead.
run 0 'del of the living by a relative name' ublk del a.qcow2
wait "$pid"
is 'its server ended by itself' 0 $?
run 0 'del of the dead by number' ublk del 12
run 0 'del of the dead by a name that no file has' ublk del /images/full.qcow2
run 0 'list' ublk list
is 'nothing is left' '' "$(cat out)"

# A server that cannot end is named, and nobody waits for it; when it continues, it ends.
alive 3 "$dir/a.qcow2"
kill -STOP "$pid"
run 0 'list shows a suspended server' ublk list
is 'as any other' "3$tab/dev/ublkb3${tab}pid $pid$tab$dir/a.qcow2" "$(cat out)"
run 1 'del of a suspended server' ublk del 3
is 'says so' "zqcow2: server $pid is suspended, and can end only when it continues (kill -CONT $pid)" \
    "$(cat err)"
kill -CONT "$pid"
run 0 'del of it when it continues' ublk del 3
python3 - "$state/ublk4" <<'EOF' &
import fcntl, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "w") as f:
    fcntl.flock(f, fcntl.LOCK_EX)
    f.write("%d\n/images/slow.qcow2\n" % os.getpid())
    f.flush()
    open("ready", "w").close()
    time.sleep(3600)
EOF
pid=$!
while [ ! -e ready ]; do sleep 0.05; done
rm ready
run 1 'del of a server that does not end' ublk del --timeout=1 4
is 'says so' "zqcow2: server $pid has not ended within 1 s; it may end later" "$(cat err)"
kill -KILL "$pid"
wait "$pid" 2>/dev/null
run 0 'del of what it left behind' ublk del --force 4
for t in 0 -1 x; do
    run 1 "no time: $t" ublk del "--timeout=$t" 3
    has 'names the option' err '^zqcow2: --timeout: must be a number'
done

# An end that was not clean is reported by the one that asked for it.
end='Input/output error' alive 4 "$dir/a.qcow2"
run 1 'del of a server that cannot close its image' ublk del --force 4
is 'reports why' "zqcow2: $dir/a.qcow2: closing the image failed: Input/output error" "$(cat err)"
is 'leaves nothing' '' "$(ls $state)"

# A name may hold a newline and what the state file writes for it; the list has a line a server.
odd=$(printf 'odd\n\\012\\')
: >"$odd"
dead 5 999999 "$dir/odd\\012\\134012\\134" 'a\012b'
alive 6 "$dir/odd\\012\\134012\\134"
run 0 'list of odd names' ublk list
is 'has a line for each server' "5$tab-${tab}server gone: a\\nb$tab$dir/odd\\n\\012\\
6$tab/dev/ublkb6${tab}pid $pid$tab$dir/odd\\n\\012\\" "$(cat out)"
run 0 'del of the first by its odd name' ublk del "$odd"
run 0 'del of the second by its odd name' ublk del "$odd"
run 1 'del of a third' ublk del "$odd"
is 'has one line to say so' \
    'zqcow2: odd\n\012\: no such ublk device (see zqcow2 ublk list)' "$(cat err)"
is 'nothing is left' '' "$(ls $state)"
dead 8 999999 '/not\escaped' # as 0.1 wrote it
run 0 'del by the name that 0.1 wrote' ublk del '/not\escaped'

# Without a driver: what is wrong with the image comes first, and both ways to start report alike.
"$tool" create -o zone.size=8M z.qcow2 64M >/dev/null && "$tool" create -o zone.size=8M s.qcow2 60M \
    >/dev/null || exit 99
for how in '' --foreground; do
    for case in 'missing|missing: No such file or directory' \
        'a.qcow2|a.qcow2: file length 0: too short for a qcow2 file' \
        's.qcow2|s.qcow2: the last zone is short; Linux needs a size that is a multiple of the zone size' \
        'z.qcow2|/dev/ublk-control is missing: load the driver (modprobe ublk_drv)'; do
        run 1 "add $how of ${case%%|*}" ublk add $how "${case%%|*}"
        is 'says why' "zqcow2: ${case#*|}" "$(cat err)"
    done
done
# Options that go together.
run 1 'a device to take over has its form' ublk add --recover 3 --depth 8 z.qcow2
has 'says so' err '^zqcow2: --recover: the device keeps its parameters: omit '
run 1 'no image is known' ublk add --recover 3
is 'says so' 'zqcow2: device 3: its server is unknown: give the name of the image' "$(cat err)"
run 1 'no driver to take over from' ublk add --recover 3 z.qcow2
is 'says so' 'zqcow2: /dev/ublk-control is missing: load the driver (modprobe ublk_drv)' "$(cat err)"
run 1 'no way to be recoverable' ublk add --recoverable=no z.qcow2
is 'says so' "zqcow2: --recoverable: must be wait or fail, not 'no'" "$(cat err)"
dead 3 999999 "$dir/p.qcow2"
run 1 'the image of another server' ublk add --recover 3 z.qcow2
is 'says so' "zqcow2: device 3 serves the image $dir/p.qcow2" "$(cat err)"
alive 3 "$dir/p.qcow2"
run 1 'a server that lives' ublk add --recover 3
is 'says so' 'zqcow2: /dev/ublk-control is missing: load the driver (modprobe ublk_drv)' "$(cat err)"
run 0 'which has not noticed and is then stopped' ublk del 3

# Blocks: the image must have whole ones. With them, only the driver is missing.
"$tool" create -o zone.size=8M,zone.capacity=6144512 c.qcow2 64M >/dev/null &&
    "$tool" create p.qcow2 1049088 >/dev/null || exit 99
for case in 'c.qcow2|c.qcow2: block_size 4096: the zone capacity 6144512 is not a multiple of it' \
    'p.qcow2|p.qcow2: block_size 4096: the size 1049088 is not a multiple of it' \
    'z.qcow2|/dev/ublk-control is missing: load the driver (modprobe ublk_drv)'; do
    run 1 "add --block-size 4096 of ${case%%|*}" ublk add --block-size 4096 "${case%%|*}"
    is 'says why' "zqcow2: ${case#*|}" "$(cat err)"
done
run 1 'blocks of 512 do for it' ublk add --block-size=512 c.qcow2
is 'says why' 'zqcow2: /dev/ublk-control is missing: load the driver (modprobe ublk_drv)' "$(cat err)"
for size in 0 1024 4K ' 512' 04096; do
    run 1 "no block size: '$size'" ublk add "--block-size=$size" z.qcow2
    is 'says why' "zqcow2: --block-size: must be 512 or 4096, not '$size'" "$(cat err)"
done
is 'no state is left' '' "$(ls $state)"
run 0 'the image is free' check z.qcow2

finish
