#!/bin/sh
# SPDX-License-Identifier: MIT
# The program in README.md: it appends, and appends again when it is run a second time.
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
finish
