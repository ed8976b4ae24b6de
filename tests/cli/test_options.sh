#!/bin/sh
# SPDX-License-Identifier: MIT
# Options: mistakes are reported in the command's own form; help, its names, and what bash completes.
. "$(dirname "$0")/lib.sh"
completion=${2:?usage: $0 PATH_OF_ZQCOW2 PATH_OF_COMPLETION}
verbs=$("$tool" --help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p')

# is_refused TEXT ARGUMENT...: one line on standard error, and it is this.
is_refused() {
    text=$1
    shift
    run 1 "refused: $*" "$@"
    is "$*: in the form of the command" "zqcow2: $text" "$(cat err)"
}

run 0 'an image' create -o zone.size=4M z.qcow2 32M
is_refused "info: option '--no-such' is unknown; see zqcow2 info --help" info --no-such=1 z.qcow2
is_refused "info: option '-x' is unknown; see zqcow2 info --help" info -x z.qcow2
is_refused "report: option '-x' is unknown; see zqcow2 report --help" report --json -xU z.qcow2
is_refused "report: option '-o' needs a value; see zqcow2 report --help" report z.qcow2 -o
is_refused "report: option '--count' needs a value; see zqcow2 report --help" report --count
is_refused "read: option '--force' takes no value; see zqcow2 read --help" read --force=1 z.qcow2 0 1
is_refused "info: option '--force-share' takes no value; see zqcow2 info --help" info --force-share=1
is_refused "read: option '--f' is ambiguous; see zqcow2 read --help" read --f z.qcow2 0 1
if "$tool" ublk add 2>&1 | grep -q 'built without liburing'; then
    echo '# built without ublk: its options are not looked at'
else
    is_refused "ublk add: option '--idle' is unknown; see zqcow2 ublk add --help" \
        ublk add --idle z.qcow2
fi
run 0 'an abbreviation' info --js z.qcow2

# Twice: each option that is not a list, also with one value, short and long.
is_refused "info: option '--json' is given twice; see zqcow2 info --help" info --json --json z.qcow2
is_refused "info: option '--force-share' is given twice; see zqcow2 info --help" \
    info -U --force-share z.qcow2
is_refused "report: option '-c' is given twice; see zqcow2 report --help" \
    report -c 1 -c 1 z.qcow2
is_refused "info: option '--backend' is given twice; see zqcow2 info --help" \
    info --backend=file --backend=file z.qcow2
is_refused "check: option '--repair' is given twice; see zqcow2 check --help" \
    check --repair=leaks --repair=all z.qcow2
is_refused "reset: option '-o' is given twice; see zqcow2 reset --help" reset -o 0 -o 4M z.qcow2
is_refused "create: option '--force' is given twice; see zqcow2 create --help" \
    create --force --force z.qcow2 1M
is_refused '-o: zone.size is given twice' create -o zone.size=4M,zone.size=4M t.qcow2 64M
is_refused '-o: size is given twice' create -o size=1M -o size=1M t.qcow2
is_refused '-o: NAME=VALUE is missing; see zqcow2 create -o help' create -o '' t.qcow2 64M
is_refused '-o: NAME=VALUE is missing; see zqcow2 create -o help' create -o , t.qcow2 64M
is 'no image is made' no "$([ -e t.qcow2 ] && echo yes || echo no)"
run 0 'lists repeat: create -o' create -o zone.size=4M -o zone.capacity=3M t.qcow2 64M
run 0 'the operand may repeat what -o said' create --force -o size=1M t.qcow2 1M
run 0 'lists repeat: io -c' io -c 'write -q 0 512' -c 'write -q 512 512' z.qcow2

# help, version, create -o help, and where the manual is.
run 0 'zqcow2 --help' --help
cp out usage
has 'names the man pages' out 'zqcow2\(1\).*zqcow2-ublk\(1\).*zqcow2-vhost-user\(1\).*zqcow2-format\(5\)'
run 0 'zqcow2 help' help
same 'says the same' usage out
run 0 'zqcow2 version' version
cp out version
run 0 'zqcow2 --version' --version
same 'says the same' version out
for verb in $verbs; do
    run 0 "help $verb" help "$verb"
    cp out help
    run 0 "$verb --help" "$verb" --help
    same 'says the same' help out
    has "$verb: names its man page" out '^The manual: zqcow2(-ublk|-vhost-user)?\(1\)\.$'
done
run 1 'help of an unknown verb' help explode
has 'is refused by its name' err "^zqcow2: unknown verb 'explode'"
run 1 'help of two verbs' help info check
run 0 'create -o help' create -o help
for name in size cluster_size refcount_bits lazy_refcounts extended_l2 compression_type zone.mode zone.size \
    zone.capacity zone.conventional_zones zone.max_open_zones zone.max_active_zones zone.max_append_bytes \
    zone.layout; do
    has "lists $name" out "^    $name  "
done
has 'lists zone.descriptor_extension' out '^    zone\.descriptor_extension  '
run 0 'create -o help beside others' create -o zone.size=4M,help help.qcow2 1G
is 'makes nothing' no "$([ -e help.qcow2 ] && echo yes || echo no)"

# The completion offers what --help lists, verb by verb, and the command knows all of it.
bash=$(command -v bash || true)
[ -n "$bash" ] || { echo '# no bash: the completion was not run'; finish; }
cat >complete.sh <<'END'
. "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_zqcow2
printf '%s\n' "${COMPREPLY[@]}"
END
# offers WORD...: what completes the last word.
offers() {
    "$bash" complete.sh "$completion" "$tool" "$@" 2>offers.err
    cat offers.err
}
is 'verbs' "$(printf '%s\nhelp\nversion\n' "$verbs")" "$(offers '' | grep -v '^-')"
is 'of one letter' 'read
rebase
report
reset
resize' "$(offers re | sort)"
for verb in $verbs; do
    run 0 "$verb: help" help "$verb"
    grep -oE -- '--[a-z][a-z-]+' out | grep -v '^--help' | sort -u >wanted
    offers "$verb" -- | sed 's/=$//' | grep -v '^--help' | sort -u >got
    same "$verb: its options" wanted got || diff wanted got | sed 's/^/# /'
done
is 'backends' 'file
threads
uring' "$(offers info --backend = '' | sort)"
is 'one backend' 'threads' "$(offers info --backend = t)"
is 'repairs' 'all
leaks
refcounts' "$(offers check --repair = '' | sort)"
is 'names behind -o' 'zone.capacity=
zone.conventional_zones=' "$(offers create -o zone.c | sort)"
is 'and behind a comma' '4M,zone.mode=' "$(offers create -o zone.size = 4M,zone.mod)"
is 'files' 'z.qcow2' "$(offers info z.q)"
is 'verbs behind help' 'check' "$(offers help ch)"
finish
