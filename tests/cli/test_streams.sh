#!/bin/sh
# SPDX-License-Identifier: MIT
# Standard streams that are closed, and output that cannot be written.
. "$(dirname "$0")/lib.sh"

# with CLOSED ARGUMENT...: runs zqcow2 with the streams closed that the letters i, o, e name, else
# from the file input to the files out and err.
with() {
    closed=$1
    shift
    ran="zqcow2 $* (closed: $closed)"
    : >out
    : >err
    (
        case $closed in *i*) exec <&- ;; *) exec <input ;; esac
        case $closed in *o*) exec >&- ;; *) exec >out ;; esac
        case $closed in *e*) exec 2>&- ;; *) exec 2>err ;; esac
        exec timeout 60 "$tool" "$@" # what hangs fails
    )
}

random 1049088 1 >input
"$tool" create -o zone.size=4M,zone.conventional_zones=1 base.qcow2 32M || exit 99
"$tool" append base.qcow2 4M <input >/dev/null || exit 99
"$tool" append base.qcow2 8M <input >/dev/null || exit 99

# What a verb makes of the image must not depend on the streams, except for the input.
# verb NAME ARGUMENT...: FILE stands for the image.
verb() {
    verb_name=$1
    shift
    for closed in - i o e io ie oe ioe; do
        cp base.qcow2 want.qcow2
        cp base.qcow2 FILE
        case $closed in *i*) from=/dev/null ;; *) from=input ;; esac
        (cp want.qcow2 FILE && "$tool" "$@" <$from >/dev/null 2>&1 && mv FILE want.qcow2 &&
            cp base.qcow2 FILE)
        with $closed "$@"
        got=$?
        # What has to print says so when it cannot; without input there is nothing to say.
        case $verb_name/$closed in
        append/*i* | write/*i*) wanted=1 ;;
        append/*o* | read/*o* | info/*o* | report*/*o* | check*/*o* | io/*o* | upgrade/*o*) wanted=1 ;;
        *) wanted=0 ;;
        esac
        is "$verb_name, closed: $closed: exit status" $wanted $got
        same "$verb_name, closed: $closed: the image" want.qcow2 FILE
    done
    "$tool" check FILE >out 2>err
    is "$verb_name: the image is sound" 0 $?
}

verb append append FILE 12M
verb write write FILE 512
verb read read FILE 4M 4096
verb info info FILE
verb report report FILE
verb report-json report --json FILE
verb report-map report --map FILE
verb open open -o 12M FILE
verb close close --all FILE
verb finish finish -o 4M FILE
verb reset reset --all FILE
verb io io -c 'write 0 64K' FILE
verb check check FILE
verb check-json check --json FILE
verb check-repair check --repair=all FILE
verb upgrade upgrade FILE
for backend in uring threads; do
    "$tool" info --backend=$backend base.qcow2 >/dev/null 2>&1 || continue
    verb append append --backend=$backend FILE 12M
    verb io io --backend=$backend -c 'aio_write 0 64K' -c aio_flush FILE
done
for closed in - i o e io ie oe ioe; do
    rm -f n.qcow2 m.qcow2
    "$tool" create n.qcow2 8M
    with $closed create m.qcow2 8M
    is "create, closed: $closed" 0 $?
    same 'makes the same image' n.qcow2 m.qcow2
    with $closed create --force m.qcow2 8M
    same 'and again' n.qcow2 m.qcow2
done

# ---- output that cannot be written ----

[ -w /dev/full ] || finish

# full WANTED_STATUS NAME ARGUMENT...
full() {
    full_wanted=$1
    full_name=$2
    shift 2
    ran="zqcow2 $* >/dev/full"
    : >out
    "$tool" "$@" <input >/dev/full 2>err
    is "$full_name into a full device" "$full_wanted" $?
    has 'names the cause' err '^zqcow2: standard output: No space left on device$'
    is 'once' 1 "$(grep -c 'standard output' err)"
}

cp base.qcow2 z.qcow2
full 1 append append z.qcow2 12M
has 'says what was appended and where' err '^zqcow2: z\.qcow2: 1049088 bytes were appended at 12582912$'
is 'before the error' 1 "$(grep -n appended err | cut -d: -f1)"
is 'and that is so' $((12582912 + 1049088)) "$(zone z.qcow2 3 write_pointer)"
"$tool" append -q z.qcow2 16M <input >/dev/full 2>err
is 'append -q has nothing to write there' 0 $?
head -c 73400320 /dev/zero >input
run 0 'a large zone' create -o zone.size=128M l.qcow2 256M
full 1 'a long append' append l.qcow2 0
said=$(sed -n 's/.*: \([0-9]*\) bytes were appended at 0$/\1/p' err)
is 'ends early, and counts what is there' "$(zone l.qcow2 0 write_pointer)" "$said"
verdict $([ "${said:-0}" -lt 73400320 ]; echo $?) 'which is not all' || show
full 1 'info' info z.qcow2
full 1 'report' report z.qcow2
full 1 'report --json' report --json z.qcow2
full 1 'read' read z.qcow2 4M 1M
full 1 'check' check z.qcow2
full 1 'check --json' check --json z.qcow2
full 1 'help' --help
full 1 'io' io -c 'write 0 4K' -c 'write 1M 4K' z.qcow2
run 0 'the command after that' io -c 'read -P 0xcd 0 4K' -c 'read -P 0 1M 4K' z.qcow2
is 'was not run' 0 "$(grep -c 'failed' out)"

# A reader that has gone.
python3 - "$tool" <<'END' >out 2>&1
import os, subprocess, sys
r, w = os.pipe()
os.close(r)
p = subprocess.run([sys.argv[1], 'append', 'z.qcow2', '20M'], input=bytes(4096), stdout=w,
                   stderr=subprocess.PIPE)
print(p.returncode, p.stderr.decode())
END
has 'append without a reader' out '^1 '
has 'says what was appended' out '4096 bytes were appended at 20971520$'
has 'and the cause' out '^zqcow2: standard output: Broken pipe$'
finish
