#!/bin/sh
# SPDX-License-Identifier: MIT
# The command line itself: --version, --help, sizes, wrong use.
. "$(dirname "$0")/lib.sh"

run 0 'the version' --version
has 'names command and library' out '^zqcow2 [0-9]+\.[0-9]+\.[0-9]+ \(library [0-9]+\.[0-9]+\.[0-9]+\)$'
run 0 'the help' --help
verbs='create info report append write read open close finish reset state io check snapshot upgrade'
for verb in $verbs; do
    has "the help lists $verb" out "^  $verb "
done
for verb in $verbs; do
    run 0 "$verb --help" "$verb" --help
    has "$verb --help begins with the usage" out "^usage: zqcow2 $verb .*FILE"
    is "$verb --help is quiet on stderr" '' "$(cat err)"
    run 1 "$verb without operands" "$verb"
    has "$verb reports what is missing" err '^zqcow2: .*(FILE is missing|--all)'
    run 1 "$verb with an unknown option" "$verb" --no-such-option z.qcow2
    has "$verb names the option" err 'no-such-option'
    run 1 "$verb with an unknown backend" "$verb" --backend=floppy z.qcow2
    has "$verb names the backend" err "^zqcow2: --backend: 'floppy'"
done
run 1 'no verb'
has 'no verb gets the usage' err '^usage:'
run 1 'an unknown verb' explode z.qcow2
has 'the unknown verb is named' err "^zqcow2: unknown verb 'explode'"
for verb in info report read check snapshot upgrade; do
    case $verb in read) operands='0 512' ;; *) operands= ;; esac
    # shellcheck disable=SC2086
    run 1 "$verb of a missing file" "$verb" missing.qcow2 $operands
    has "$verb names the missing file" err '^zqcow2: missing.qcow2: .*No such file'
done

# sizes: TEXT BYTES
while read -r text bytes; do
    rm -f s.qcow2
    run 0 "a device of $text" create s.qcow2 "$text"
    is "$text is $bytes bytes" "$bytes" "$("$tool" info --json s.qcow2 | python3 -c '
import json, sys; print(json.load(sys.stdin)["virtual_size"])')"
done <<'SIZES'
1048576 1048576
0x100000 1048576
512k 524288
1M 1048576
1m 1048576
1.5M 1572864
1.25G 1342177280
1.001953125G 1075838976
1024.0 1024
2G 2147483648
1T 1099511627776
SIZES
for text in '' x 1X 1MB +1 ' 1' 0x 1.5 1..5M 1.M 99999999999999999999 20E 1.0000000001M; do
    run 1 "'$text' is no size" create bad.qcow2 "$text"
    has "'$text' is named" err '^zqcow2: size: .* is not a size \(whole bytes below 16E, '
    is "'$text' leaves no file" no "$([ -e bad.qcow2 ] && echo yes || echo no)"
done

# Standard output that takes nothing is an error, not a success.
run 0 'an image' create --force s.qcow2 1M
if [ -c /dev/full ]; then
    "$tool" info s.qcow2 >/dev/full 2>err
    is 'a full disk under stdout is reported' 1 $?
fi
finish
