#!/bin/sh
# SPDX-License-Identifier: MIT
# The program in README.md: it appends, and appends again when it is run a second time; what goes
# wrong it says.
. "$(dirname "$0")/lib.sh"
program=${2:?usage: $0 PATH_OF_ZQCOW2 PATH_OF_PROGRAM}

for where in 0 4096 8192; do
    ran=$program
    "$program" >out 2>err
    is "a run that appends at $where" 0 $?
    is "$where: says where" "appended at $where" "$(cat out)"
done
is 'all of it is there' 12288 "$(zone disk.qcow2 0 write_pointer)"
run 0 'the image is sound' check disk.qcow2

# fails NAME TEXT
fails() {
    "$program" >out 2>err
    is "$1: fails" 1 $?
    is "$1: says why" "disk.qcow2: $2" "$(cat err)"
    is "$1: and nothing else" '' "$(cat out)"
}
run 0 'the zone is filled' finish -o 0 -c 1 disk.qcow2
fails 'a full zone' 'the zone is full'
rm disk.qcow2
mkdir disk.qcow2
fails 'a folder' 'Is a directory'
rmdir disk.qcow2
head -c 4096 /dev/zero | tr '\0' x >disk.qcow2
fails 'a file of something else' 'not a qcow2 file'
finish
