#!/bin/sh
# SPDX-License-Identifier: MIT
# vhost-user in the background, serve list and serve stop: sockets, state files, mistakes.
. "$(dirname "$0")/lib.sh"
tab=$(printf '\t')
run 0 'create' create p.qcow2 8M
run 0 'create' create -o zone.size=1M z.qcow2 8M

is_refused() { # MESSAGE ARGUMENT...
    message=$1
    shift
    run 1 "refused: $*" "$@"
    is 'says why' "zqcow2: $message" "$(cat err)"
}
is_refused 'vhost-user: one of --socket and --fd is needed' vhost-user p.qcow2
is_refused 'vhost-user: one of --socket and --fd is needed' vhost-user --fd=3 --socket=s p.qcow2
is_refused '--fd: 9 is not a socket' vhost-user --fd=9 p.qcow2
is_refused "--fd: must be a number from 3 to 2147483647, not '1'" vhost-user --fd=1 p.qcow2
is_refused "--queues: must be a number from 1 to 64, not '0'" vhost-user --queues=0 --socket=s p.qcow2
is_refused 'missing.qcow2: No such file or directory' vhost-user --socket=s missing.qcow2
is_refused 'no/s: No such file or directory' vhost-user --socket=no/s p.qcow2
: >file
is_refused 'file: Address already in use' vhost-user --socket=file p.qcow2
is_refused 'p.qcow2: has no data file: omit --data-file' vhost-user --socket=s --data-file=p.qcow2 p.qcow2
is_refused '--backing-root: no: No such file or directory' vhost-user --socket=s --backing-root=no p.qcow2
long=$(printf '%0120d' 0)
is_refused "$long: File name too long" vhost-user --socket="$long" p.qcow2
is 'nothing is left' no "$([ -e s ] && echo yes || echo no)"
for faults in seed=x how=torn 'max-held=0' log= fail=read:all:EFOO fail=read:all fail=x:all:EIO fail=:all:EIO \
    fail=read:1:EIO fail=read:1+0:EIO fail=read:all:EIO:x fail=read:all:EIO:1:0 fail=read:all:EIO:1:1:1:1 \
    delay=read delay=read:-1 delay=read:2-1 delay=read:60001 delay=read:nan delay=read:1:1 seed=1,x; do
    run 1 "refused: --faults=$faults" vhost-user --socket=s --faults="$faults" p.qcow2
    has 'names the option' err '^zqcow2: --faults: .'
done
is_refused "--faults: 'x' is no kind of request" vhost-user --socket=s --faults=fail=read+x:all:EIO p.qcow2
is_refused "--faults: 'no' is no fault" vhost-user --socket=s --faults=seed=1,no,how=whole p.qcow2
is_refused 'no/log: No such file or directory' vhost-user --socket=s --faults=log=no/log p.qcow2
is_refused 'p.qcow2: Input/output error' vhost-user --socket=s --faults=fail=read:all:EIO p.qcow2
is_refused "serve: there is 'list', 'stop' and 'ctl', but not 'start'; see zqcow2 serve --help" serve start
is_refused "serve list: takes no name, but got 'p.qcow2'" serve list p.qcow2
is_refused 'serve stop: name one server, as zqcow2 serve list shows it' serve stop
is_refused 'no/c: No such file or directory' vhost-user --socket=s --ctl=no/c p.qcow2
is_refused '--user: no-such-user-here: no such user' vhost-user --socket=s --user=no-such-user-here p.qcow2
is 'its socket is removed' no "$([ -e s ] && echo yes || echo no)"
is_refused 'serve: ID|FILE|PATH is missing; see zqcow2 serve --help' serve ctl
is_refused 'serve: the command is missing; see zqcow2 serve --help' serve ctl p.qcow2
is_refused "serve: unknown command 'apply'; see zqcow2 serve --help" serve ctl p.qcow2 apply
is_refused 'p.qcow2: no such server (see zqcow2 serve list)' serve ctl p.qcow2 flush
run 1 'no server of that image' serve stop p.qcow2
is 'says so' 'zqcow2: p.qcow2: no such vhost-user server (see zqcow2 serve list)' "$(cat err)"

if [ "$(id -u)" != 0 ]; then # a server in the background is found by its state file only
    finish
fi
run 0 'a plain disk' vhost-user --socket=s p.qcow2
is 'prints the socket and the geometry' "$dir/s
  8 MiB, not zoned" "$(cat out)"
run 1 'the image is in use' info p.qcow2
run 1 'so is the socket' vhost-user --socket=s z.qcow2
is 'says so' 'zqcow2: s: Address already in use' "$(cat err)"
run 0 'a zoned disk' vhost-user --socket=t --queues=1 --read-only z.qcow2
has 'has zones' out 'host-managed, read-only: 8 zones of 1 MiB'
run 0 'control by the image' serve ctl p.qcow2 stats
has 'no zones, nothing done yet' out '^metadata rounds: 0, backend flushes: 0, '
run 0 'a flush' serve ctl p.qcow2 flush
is 'says nothing' '' "$(cat out err)"
is_refused "serve: unexpected operand 'all'; see zqcow2 serve --help" serve ctl p.qcow2 flush all
is_refused 'serve: OFFSET is missing; see zqcow2 serve --help' serve ctl z.qcow2 zone
is_refused 'serve: the state is missing; see zqcow2 serve --help' serve ctl z.qcow2 zone 1M
is_refused "zone: must be normal, read-only or offline, not 'full'" serve ctl z.qcow2 zone 1M full
is_refused "--time: must be on or off, not '1'" serve ctl p.qcow2 stats --time=1
is_refused 'serve: --time cannot be given with --json or --watch' \
    serve ctl p.qcow2 stats --time=on --json
is_refused 'serve: only one of -l, -c and -d can be given' serve ctl p.qcow2 snapshot -c a -d b
is_refused 'serve: --json is for -l only' serve ctl p.qcow2 snapshot --json -c a
is_refused 'serve: a snapshot cannot be applied while the image is served' \
    serve ctl p.qcow2 snapshot -a a
is_refused 'serve: only one of a list and changes can be given' \
    serve ctl p.qcow2 bitmap --add --clear a
is_refused 'serve: --json is for --list only' serve ctl p.qcow2 bitmap --json --add a
is_refused 'serve: a granularity is for --add only' serve ctl p.qcow2 bitmap --clear -g 4K a
is_refused 'serve: NAME is missing; see zqcow2 serve --help' serve ctl p.qcow2 bitmap --add
is_refused 'serve: RANGE is missing; see zqcow2 serve --help' serve ctl p.qcow2 fail read
is_refused "fail: 'EFOO' is not an error that a request can return" serve ctl p.qcow2 fail read all EFOO
is_refused "delay: 'x' begins no delay: give one or two numbers of milliseconds" serve ctl p.qcow2 delay read x
is_refused "cut: 'all' is not how power can be lost" serve ctl p.qcow2 cut --how=all
is_refused 'p.qcow2: the server was started without --faults' serve ctl p.qcow2 cut
is_refused 'serve: SIZE is missing; see zqcow2 serve --help' serve ctl p.qcow2 resize
is_refused 'p.qcow2: the device would lose 1048576 bytes: give --shrink if they are not needed' \
    serve ctl p.qcow2 resize -1M
run 0 'another size' serve ctl p.qcow2 resize --shrink -1M
run 0 'and back' serve ctl p.qcow2 resize 8M
is_refused 'level: 0 is out of range (1 to 22)' serve ctl p.qcow2 compact --level=0
is_refused "p.qcow2: compact: only images with zones are compacted: convert a plain image" serve ctl p.qcow2 compact
run 0 'a snapshot' serve ctl p.qcow2 snapshot -c a
run 0 'its list' serve ctl p.qcow2 snapshot
cp out served
"$tool" snapshot -U p.qcow2 >listed
same 'is that of the verb' served listed
is_refused 'p.qcow2: state of the zone at 0: the image has no zones' serve ctl p.qcow2 zone 0 offline
run 0 'an image of root' create u.qcow2 8M
run 0 'served by another user' vhost-user --socket=u --user=nobody u.qcow2
pid=$("$tool" serve list | sed -n "s#.*${tab}pid \([0-9]*\)$tab$dir/u.qcow2\$#\1#p")
is 'who has no rights' "$(id -u nobody) 0000000000000000" \
    "$(sed -n 's/^Uid:[^0-9]*\([0-9]*\).*/\1/p; s/^CapEff:[^0-9]*//p' "/proc/$pid/status" | xargs)"
run 0 'root controls it' serve ctl u.qcow2 flush
kill -STOP "$pid"
run 1 'a suspended server cannot be stopped' serve stop u.qcow2
is 'says so' "zqcow2: server $pid is suspended, and can end only when it continues (kill -CONT $pid)" \
    "$(cat err)"
kill -CONT "$pid"
while "$tool" serve list | grep -q u.qcow2; do sleep 0.05; done
run 1 'it has ended since' serve stop u.qcow2
run 1 'a list has no end to wait for' serve list --timeout 5
is 'says so' "zqcow2: serve: --timeout goes with 'stop'" "$(cat err)"
is 'it leaves nothing behind' '' "$(ls u 2>/dev/null; "$tool" serve list | grep u.qcow2)"
run 0 'with faults, in the background' vhost-user --socket=u --ctl=u.ctl --faults= u.qcow2
run 0 'one write will fail' serve ctl u.ctl fail write all ENOSPC 1
run 1 'a call that fails, of which the server logs' serve ctl u.ctl snapshot -c a
run 0 'which does not end it' serve ctl u.ctl events
run 0 'stop it' serve stop u.qcow2
run 0 'without confinement' vhost-user --socket=u --unconfined u.qcow2
pid=$("$tool" serve list | sed -n "s#.*${tab}pid \([0-9]*\)$tab$dir/u.qcow2\$#\1#p")
is 'it is not' 0 "$(sed -n 's/^NoNewPrivs:[^0-9]*//p' "/proc/$pid/status")"
run 0 'stop' serve stop u.qcow2
is 'nothing is left' '' "$(ls u 2>/dev/null; "$tool" serve list | grep u.qcow2)"
run 0 'list' serve list
has 'has the first' out "^vhost-user[0-9]+$tab$dir/s${tab}pid [0-9]+$tab$dir/p.qcow2\$"
has 'has the second' out "^vhost-user[0-9]+$tab$dir/t${tab}pid [0-9]+$tab$dir/z.qcow2\$"
id=$(sed -n "s|^\(vhost-user[0-9]*\).*$tab$dir/z.qcow2\$|\1|p" out)
pid=$(sed -n "s|.*pid \([0-9]*\).*$tab$dir/p.qcow2\$|\1|p" out)
run 0 'control by the name' serve ctl "$id" zone 1M offline
run 0 'its zones' serve ctl "$id" stats --json
is 'one is offline now' 1 "$(python3 -c 'import json; print(json.load(open("out"))["zones"]["OFFLINE"])')"
control=/run/zqcow2/$id.ctl
is 'the control socket is the owner'"'"'s' 600 "$(stat -c %a "$control")"
run 0 'stop by the name' serve stop "$id"
is 'its control socket is gone' no "$([ -e "$control" ] && echo yes || echo no)"
is 'its socket is gone' no "$([ -e t ] && echo yes || echo no)"
kill -KILL "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
run 0 'list' serve list
has 'shows the dead' out "^vhost-user[0-9]+$tab-${tab}server gone$tab$dir/p.qcow2\$"
run 0 'stop forgets the dead' serve stop p.qcow2
run 0 'a socket that was left is replaced' vhost-user --socket=s --ctl=c --faults=log=f,s p.qcow2
run 0 'control by the path' serve ctl c flush
run 0 'by the image all the same' serve ctl p.qcow2 flush
run 0 'stop by the image' serve stop p.qcow2
has 'the log has what was flushed' f,s '^image: flush: 0 changes, result 0$'
is 'both sockets are gone' no "$([ -e s ] || [ -e c ] && echo yes || echo no)"
run 1 'and then knows none' serve stop p.qcow2
run 0 'the image was closed' check p.qcow2
finish
