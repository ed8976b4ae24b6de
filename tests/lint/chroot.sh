#!/bin/sh
# SPDX-License-Identifier: MIT
# chroot.sh [--cache DIR] [SUITE...]: for each SUITE (bookworm and trixie by default: Debian 12 and
# 13) makes a bare Debian with debootstrap, clones this repository into it as it is committed, and
# runs the two commands of the README there. Needs root and about 3 GB; an hour for each with
# everything. ZQ_STAGES: the stages of tests/run.sh to run, all by default. --cache: see debian.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
sh "$top/tests/packages.sh" debootstrap git
. "$here/debian.sh"
if [ "${1:-}" = --cache ]; then
    cache=$2
    shift 2
fi
[ $# -gt 0 ] || set -- bookworm trixie
commands=$(sed -n 's/^ \{4\}\(sh [a-z/.]*\.sh\) .*/\1/p' "$top/README.md")
[ "$(printf '%s\n' "$commands" | wc -l)" = 2 ] || { echo 'README.md has not two commands'; exit 1; }
root=
trap '[ -z "$root" ] || { debian_umount "$root"; debian_remove "$root"; }' EXIT
trap 'exit 1' HUP INT TERM

for suite in "$@"; do
    root=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
    debian_make "$root" "$suite"
    debian_mount "$root"
    git clone -q "$top" "$root/src"
    printf '%s\n' "$commands" | while read -r command; do
        case $command in *run.sh) command="$command ${ZQ_STAGES:-}" ;; esac
        echo "$suite: $command"
        debian_run "$root" sh -c "cd /src && $command"
    done
    debian_umount "$root"
    debian_remove "$root"
    root=
    echo "$suite: both commands succeeded"
done
