#!/bin/sh
# SPDX-License-Identifier: MIT
# Test suites of other projects, in a guest, on null_blk and on our ublk disk of the same geometry.
# See README.md.
#
#   sh tests/guest/suites.sh [--kernel 6.12|7] [--suites NAME[,NAME...]]
#      [--geometries NAME[,NAME...]] [--fio DIR] [--zonefs DIR] [--blktests DIR]
#      [--tool PATH] [--keep]
#
# Suites: fio (t/zbd), zonefs (zonefs-tools) and blktests (its group zbd). Debian has the sources of the
# first two; blktests needs a folder. Geometries: plain, limits, mixed (see guest/suites.sh).
#
# Prints a line per test, `suite, geometry, test, null_blk, ours, equal?`, and ends with
# `N tests, N differ`.
HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
CACHE=${ZQ_GUEST_CACHE:-$HOME/.cache/zqcow2-guest}
SERIES=6.12 SUITES= GEOMETRIES=plain,limits,mixed TOOL= KEEP= FIO= ZONEFS= BLKTESTS=

usage() {
    sed -n '3,14p' "$0" | sed 's/^# \{0,1\}//' >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --keep) KEEP=1; shift; continue ;;
    --*) [ $# -gt 1 ] || usage ;;
    esac
    case $1 in
    --kernel) SERIES=$2 ;;
    --suites) SUITES=$2 ;;
    --geometries) GEOMETRIES=$2 ;;
    --fio) FIO=$(realpath "$2") || exit 2 ;; # built there
    --zonefs) ZONEFS=$(realpath "$2") || exit 2 ;;
    --blktests) BLKTESTS=$(realpath "$2") || exit 2 ;;
    --tool) TOOL=$(realpath "$2") || exit 2 ;;
    *) usage ;;
    esac
    shift 2
done
for geometry in $(echo "$GEOMETRIES" | tr , ' '); do
    case $geometry in plain | limits | mixed) ;; *) usage ;; esac
done
[ -n "$SUITES" ] || SUITES=fio,zonefs${BLKTESTS:+,blktests}

WORK=$(mktemp -d "${TMPDIR:-/tmp}/zqcow2-suites.XXXXXX") || exit 1
. "$HERE/host.sh"
. "$HERE/newest.sh"
clean_up() {
    kill_guest
    [ -n "$KEEP" ] || rm -rf "$WORK"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

# ---- what the suites need: a root of their own, on the guest's disk, with this machine's programs ----

SUITE_NEEDS="make:make gawk:gawk"
HEADERS="libaio.h:libaio-dev blkid/blkid.h:libblkid-dev uuid/uuid.h:uuid-dev"
PROGRAMS_OF="bash dash coreutils grep sed gawk findutils diffutils util-linux util-linux-extra mount
    kmod gzip libc-bin hostname"
# What no disk needs.
MODULES_LEFT_OUT="sound kernel/drivers/gpu kernel/drivers/media kernel/drivers/net kernel/net"

# A private root: its bin is its sbin, and /usr is the root.
make_suite_root() {
    DISK_FOLDER=$WORK/disk
    initramfs=$ROOT
    ROOT=$DISK_FOLDER/suites
    mkdir -p "$ROOT/bin" "$ROOT/boot" "$ROOT/dev" "$ROOT/etc" "$ROOT/lib/modules" "$ROOT/proc" "$ROOT/sys" \
        "$ROOT/tmp"
    ln -s bin "$ROOT/sbin"
    ln -s . "$ROOT/usr"
    copy_programs $({ dpkg -L $PROGRAMS_OF | sed -n 's#.*/s\{0,1\}bin/##p'; printf '%s\n' sh awk $GUEST_TOOLS; } |
        sort -u | while read -r name; do
            file=$(command -v "$name") && [ -f "$file" ] && echo "$file"
        done)
    # Nothing needs to wait for udev or to become root here.
    printf '#!/bin/sh\n' >"$ROOT/bin/udevadm"
    printf '#!/bin/sh\nexec "$@"\n' >"$ROOT/bin/sudo"
    chmod +x "$ROOT/bin/udevadm" "$ROOT/bin/sudo"
    echo root:x:0:0::/tmp:/bin/sh >"$ROOT/etc/passwd"
    cp -r "$MODULES" "$ROOT/lib/modules/"
    for folder in $MODULES_LEFT_OUT; do
        rm -rf "$ROOT/lib/modules/${MODULES##*/}/${folder}"
    done
    cp "$KERNEL_ROOT/boot/config-${MODULES##*/}" "$ROOT/boot/" 2>/dev/null ||
        cp "$MODULES/config" "$ROOT/boot/config-${MODULES##*/}" || die "no configuration of the kernel"
    for suite in $(echo "$SUITES" | tr , ' '); do
        add_$suite >"$WORK/$suite.log" 2>&1 || { tail -20 "$WORK/$suite.log"; die "cannot build $suite"; }
    done
    ROOT=$initramfs
}

# Its fio and its tests belong together, so both are of one version.
add_fio() {
    [ -x "$FIO/fio" ] || { cd "$FIO" && ./configure --disable-native && make -j "$(nproc)"; } || return 1
    mkdir -p "$ROOT/fio/t"
    cp -r "$FIO/t/zbd" "$ROOT/fio/t/" && copy_programs "$FIO/fio" && ln -s /bin/fio "$ROOT/fio/fio"
}

# Without the tests that make a null_blk of their own: they use no given disk.
add_zonefs() {
    cp -r "$ZONEFS/tests" "$ROOT/zonefs" && cd "$ZONEFS" || return 1
    rm -f $(grep -l create_zoned_nullb "$ROOT"/zonefs/scripts/[0-9]*)
    for tool in zio zopen; do
        cc -O2 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -o "$ROOT/zonefs/tools/$tool" "tests/tools/$tool.c" || return 1
    done
    mkdir -p "$WORK/config"
    echo '#define PACKAGE_VERSION "0"' >"$WORK/config/config.h"
    cc -O2 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I "$WORK/config" -o "$WORK/mkzonefs" src/*.c -luuid -lblkid &&
        copy_programs "$WORK/mkzonefs"
}

add_blktests() {
    cp -r "$BLKTESTS" "$ROOT/blktests" && cd "$ROOT/blktests" || return 1
    cc -O2 -DHAVE_LINUX_BLKZONED_H -o src/zbdioctl src/zbdioctl.c
}

need_suites() {
    for suite in $(echo "$SUITES" | tr , ' '); do
        case $suite in
        fio) [ -n "$FIO" ] || { need_source fio; FIO=$SOURCE; } ;;
        zonefs) [ -n "$ZONEFS" ] || { need_source zonefs-tools; ZONEFS=$SOURCE; } ;;
        blktests) [ -n "$BLKTESTS" ] || die "please name a folder: --blktests DIR" ;;
        *) die "no suite named $suite" ;;
        esac
    done
}

# ---- the table ----

# Of the guest's lines `# status SUITE GEOMETRY DISK TEST STATUS`. A test that one disk lacks is `-` there.
print_table() {
    awk '$1 == "#" && $2 == "status" {
            key = $3 ", " $4 ", " $6
            if (!(key in seen)) { seen[key] = 1; order[++n] = key }
            status[key, $5] = $7
        }
        END {
            print "suite, geometry, test, null_blk, ours, equal?"
            for (i = 1; i <= n; i++) {
                null = status[order[i], "null"]
                ours = status[order[i], "ours"]
                if (null != ours) differ++
                printf "%s, %s, %s, %s\n", order[i], null == "" ? "-" : null, ours == "" ? "-" : ours,
                    null == ours ? "yes" : "no"
            }
            printf "%d tests, %d differ\n", n, differ
        }' "$WORK/suites.tap"
}

start=$(seconds)
HOST_NEEDS="$HOST_NEEDS $SUITE_NEEDS"
for pair in $HEADERS; do
    [ -e "/usr/include/${pair%%:*}" ] || HOST_NEEDS="$HOST_NEEDS $pair"
done
need_packages
lock_cache
need_kernel "$SERIES"
[ "$SERIES" = 6.12 ] || { need_newest; QEMU=$NEWEST_QEMU; }
need_suites
build_tool
make_root
make_suite_root
unlock_cache
say "ready after $(($(seconds) - start)) s"
run_guest suites $((6 * 3600)) "zq.suites=$SUITES" "zq.geometries=$GEOMETRIES" >"$WORK/out"
grep -v '^# status' "$WORK/out"
print_table >"$WORK/table"
cat "$WORK/table"
tail -1 "$WORK/table" | grep -q '^[1-9][0-9]* tests, 0 differ$' && ! grep -q '^not ok' "$WORK/out"
