#!/bin/sh
# SPDX-License-Identifier: MIT
# The recipes of zqcow2-testing(7) that need no block device, as the page has them, and examples/ci without
# one; tests/guest runs the others. test_testing.sh ZQCOW2 PROGRAM_OF_THE_PAGE [LIBRARY_FOR_PYTHON]
program=${2:?usage: $0 ZQCOW2 PROGRAM [LIBRARY]}
library=${3:-}
. "$(dirname "$0")/lib.sh"
top=$(cd "$here/../.." && pwd)
PATH=$(dirname "$tool"):$PATH

# recipe NAME...: these recipes, one after the other in one shell, in a new folder.
recipe() {
    mkdir "$dir/$1" && cd "$dir/$1" || exit 99
    sh "$top/tests/recipes.sh" "$@" >script || exit 99
    ran="sh tests/recipes.sh $*"
    sh -eu script >out 2>err
    verdict $? "recipe: $*" || { show; return 1; }
}

recipe copies
is 'the copy is gone' 'data template.qcow2' "$(ls data template.qcow2 copy.qcow2 2>/dev/null | xargs)"
run 0 'the template' report -o 128M -c 1 template.qcow2
has 'is as it was' out 'start: 0x000040000, .*wptr 0x000800 '

recipe snapshots
has 'the bitmap has what was written' out '^ *0x4000000 +0x100000$'
has 'the snapshot has the first write pointer' out 'start: 0x000000000, .*wptr 0x000800 '
has 'and not the second' out 'start: 0x000020000, .*wptr 0x000000 '

recipe zones
is 'four are refused' 4 "$(grep -c 'failed' answers)"
has 'the write' answers "^write failed: not at the zone's write pointer"
has 'the open' answers '^zone open failed: too many open zones'
has 'the read-only zone' answers '^zone append failed: the zone is read-only'
has 'the offline zone' answers '^read failed: the zone is offline'

# QEMU runs no guest here: its firmware reads the disk, and that will do. Without QEMU nothing reads it.
mkdir "$dir/vm" && cd "$dir/vm" || exit 99
sh "$top/tests/recipes.sh" vhost-qemu >qemu || exit 99
command -v qemu-system-x86_64 >/dev/null || { echo '# without QEMU'; printf 'sleep 1000 &\nvm=$!\n' >qemu; }
{
    echo "export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0" # a confined server has not the calls for it
    sh "$top/tests/recipes.sh" vhost-start && echo 'trap "kill $server" EXIT' && cat qemu &&
        echo 'trap "kill $server $vm" EXIT' &&
        if grep -q qemu-system qemu; then
            echo 'until zqcow2 serve ctl disk.ctl stats | grep "^read"; do kill -0 $vm; sleep 0.1; done'
        fi && sh "$top/tests/recipes.sh" vhost-faults vhost-end && echo 'trap - EXIT'
} >script || exit 99
ran='the recipes vhost-*'
sh -eu script >out 2>err
verdict $? 'recipes: a virtual machine' || show
! grep -q qemu-system qemu || has 'it has read' out '^read +[1-9]'
has 'power was cut' out '^seed 42, torn-4096: '
has 'the log has it' faults '^image: cut: seed 42'
is 'statistics' True "$(python3 -c '
import json
print("zones" in json.load(open("stats.json")))')"
run 0 'the snapshot' snapshot disk.qcow2
has 'is there' out 'before'
run 0 'the image is as before' check disk.qcow2
is 'the sockets are gone' '' "$(ls disk.sock disk.ctl 2>/dev/null)"

mkdir "$dir/c" && cd "$dir/c" || exit 99
run 0 'an image for the program' create -o zone.size=1M disk.qcow2 4M
ran=$program
"$program" >out 2>err
verdict $? 'the program in C' || show
is 'nothing that was flushed is lost' yes "$(sed 's/^32768 bytes were flushed, \([0-9]*\) are there$/\1/' out |
    { read -r there && [ "$there" -ge 32768 ] && [ "$there" -le 40960 ] && echo yes; })"
run 0 'the image is sound' check disk.qcow2

mkdir "$dir/ci" && cd "$dir/ci" || exit 99
ran='sh examples/ci/zoned.sh --no-device 7'
sh "$top/examples/ci/zoned.sh" --no-device 7 >out 2>err
verdict $? 'the script of examples/ci' || show
is 'three disks' 3 "$(grep -c ': 11 fsynced blocks, all there after a kill$' out)"
sed 's/^    check "\$1"$/&; zqcow2 reset -o 32M -c 1 "$1.qcow2"/' "$top/examples/ci/zoned.sh" >broken
rm ./*.qcow2
sh broken --no-device >out 2>err
is 'it sees a loss' 1 $?
has 'and says which' out '^FAILED, seed [0-9]+: plain: block 3 was flushed and is lost$'

for python in python3 /usr/bin/python3; do # the first may have no pytest
    "$python" -c 'import pytest' 2>/dev/null && break
    python=
done
if [ -n "$library" ] && [ -n "$python" ]; then
    ZQCOW2_LIBRARY=$library PYTHONPATH=$top/python PYTHONDONTWRITEBYTECODE=1
    export ZQCOW2_LIBRARY PYTHONPATH PYTHONDONTWRITEBYTECODE
    sh "$top/tests/recipes.sh" python >test_recipe.py || exit 99
    cp "$top/examples/ci/test_power.py" . || exit 99
    ran='pytest test_recipe.py test_power.py'
    "$python" -W error -m pytest -q -p no:cacheprovider --rootdir . test_recipe.py test_power.py >out 2>err
    verdict $? 'the tests in Python' || show
    has 'are two' out '^2 passed'
else
    echo '# without pytest, or without a library for it'
fi
finish
