# SPDX-License-Identifier: MIT
# The host's side: packages, root file system, starting and ending the guest.

# NEWEST is set where programs of Debian's newest release are to be had, and --kernel 7 sets QEMU to its QEMU.
QEMU=qemu-system-x86_64 NEWEST=

say() {
    echo "# $*"
}

die() {
    echo "guest tests: $*" >&2
    exit 1
}

# ---- packages ----

# command:package, of what runs here and of what is copied into the guest.
HOST_NEEDS="qemu-system-x86_64:qemu-system-x86 fio:fio
    blkzone:util-linux-extra nvme:nvme-cli mkfs.btrfs:btrfs-progs mkfs.f2fs:f2fs-tools mkfs.ext4:e2fsprogs
    dmsetup:dmsetup
    cpio:cpio xz:xz-utils modprobe:kmod cc:gcc cmake:cmake"

need_packages() {
    missing=
    for pair in $HOST_NEEDS; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    # The busybox of the package "busybox" needs libraries that this one does not.
    busybox_is_static || missing="$missing busybox-static"
    [ -z "$missing" ] && return 0
    [ "$(id -u)" = 0 ] || die "please install:$missing"
    say "installing$missing"
    { apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    } >"$WORK/apt.log" 2>&1 </dev/null || die "apt-get failed, see $WORK/apt.log"
}

busybox_is_static() {
    command -v busybox >/dev/null 2>&1 && ! ldd "$(command -v busybox)" >/dev/null 2>&1
}

# ---- the tool ----

build_tool() {
    [ -n "$TOOL" ] && return 0
    say "building the tool"
    { cmake -S "$TOP" -B "$WORK/build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_TESTING=OFF &&
        cmake --build "$WORK/build" -j "$(nproc)"
    } >"$WORK/build.log" 2>&1 || { tail -20 "$WORK/build.log"; die "the build failed"; }
    TOOL=$(find "$WORK/build" -name zqcow2 -type f -perm -u+x | head -1)
    [ -n "$TOOL" ] || die "the build made no tool zqcow2"
}

# ---- root: an initramfs of busybox, the tools with their libraries, modules and our scripts ----

GUEST_TOOLS="fio blkzone nvme mkfs.ext4 mkfs.btrfs btrfs mkfs.f2fs fsck.f2fs blkdiscard setpriv dmsetup"
LIBS=/lib/x86_64-linux-gnu
MODULE_SETS="virtio_blk ext4 ublk_drv null_blk zonefs btrfs f2fs xfs configfs loop nvmet-tcp nvme-tcp dm-log-writes"

# copy_programs FILE...: with the libraries that they are linked to, all to where the loader looks unasked.
copy_programs() {
    cp -L "$@" "$ROOT/bin/"
    ldd "$@" 2>/dev/null |
        awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\/.*[^:]$/) { if (!seen[$i]++) print $i; break } }' |
        while read -r lib; do
            case $lib in
            /lib64/* | /lib/* | /usr/lib/*) to=$lib ;;
            *) to=$LIBS/${lib##*/} ;;
            esac
            [ -e "$ROOT$to" ] && continue
            mkdir -p "$ROOT${to%/*}"
            cp -L "$lib" "$ROOT$to"
        done
}

# Each set becomes a list of files in the order in which they are to be loaded.
copy_modules() {
    mkdir -p "$ROOT/modules"
    for set in $MODULE_SETS; do
        { case $set in ext4 | btrfs | f2fs) echo crc32c_generic; echo crc32_generic ;; esac
          echo $set
        } | while read -r name; do
            modprobe -d "$KERNEL_ROOT" -S "${MODULES##*/}" --show-depends $name 2>/dev/null |
                awk '$1 == "insmod" { print $2 }'
        done | while read -r file; do
            out=$(basename "$file" .xz)
            [ -e "$ROOT/modules/$out" ] || xz -dc "$file" >"$ROOT/modules/$out"
            echo "$out"
        done >"$ROOT/modules/$set.list"
        [ -s "$ROOT/modules/$set.list" ] || die "the kernel has no module $set"
    done
}

make_root() {
    ROOT=$WORK/root
    rm -rf "$ROOT"
    mkdir -p "$ROOT/bin" "$ROOT/dev" "$ROOT/proc" "$ROOT/sys" "$ROOT/run" "$ROOT/tmp" "$ROOT/mnt" \
        "$ROOT/data" "$ROOT/tests"
    ln -s bin "$ROOT/sbin"
    cp -L "$(command -v busybox)" "$ROOT/bin/busybox"
    copy_programs $(for name in $GUEST_TOOLS; do command -v $name; done) ${TOOL:+"$TOOL"}
    cc -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -O2 -static -o "$ROOT/bin/zqguest" "$HERE"/helper/*.c ||
        die "cannot build the helper program"
    [ -z "$NEWEST" ] || copy_newest mkfs.xfs xfs_repair
    copy_modules
    cp "$HERE"/guest/* "$TOP/examples/ci/zoned.sh" "$ROOT/tests/"
    for recipe in ublk-cut ublk-zones; do
        sh "$TOP/tests/recipes.sh" $recipe >"$ROOT/tests/recipe-$recipe" || die "no recipe $recipe"
    done
    cp "$TOP/examples/nvmet.sh" "$ROOT/tests/target.sh"
    cp "$HERE/guest/init" "$ROOT/init"
    chmod +x "$ROOT/init"
    (cd "$ROOT" && find . | cpio -o -H newc --quiet) >"$WORK/root.cpio"
}

# make_disk FILE SIZE [FOLDER]: a disk for the guest's images: ext4, sparse, with what the folder has.
make_disk() {
    rm -f "$1"
    truncate -s "$2" "$1"
    mkfs.ext4 -q -F ${3:+-d "$3"} -E lazy_itable_init=1,lazy_journal_init=1 "$1" >"$WORK/mkfs.log" 2>&1 ||
        die "mkfs.ext4, see $WORK/mkfs.log"
}

# ---- the guest ----

# start_guest NAME DISK ARGUMENTS...: in the background; GUEST_PID, its TAP in $WORK/NAME.tap.
# GUEST_EXTRA: options of QEMU's.
# The host's page cache outlives the guest, so unsafe caching loses nothing that reached QEMU.
start_guest() {
    name=$1
    disk=$2
    shift 2
    rm -f "$WORK/$name.tap"
    $QEMU -machine q35 -accel "${ZQ_GUEST_ACCEL:-tcg}" -cpu max -smp 2 -m 2G \
        -nodefaults -no-reboot -display none -monitor none -nic none \
        -kernel "$KERNEL" -initrd "$WORK/root.cpio" \
        -append "console=ttyS0 quiet panic=-1 raid6_pq.benchmark=0 no_timer_check $*" \
        -drive "file=$disk,if=virtio,format=raw,cache=unsafe,discard=unmap" ${GUEST_EXTRA:-} \
        -serial "file:$WORK/$name.console" -serial "file:$WORK/$name.tap" \
        >"$WORK/$name.qemu" 2>&1 </dev/null &
    GUEST_PID=$!
}

# start_guest, until our init runs. Now and then the kernel dies before that: QEMU's translation of
# code that the kernel patches on two processors is at fault, and the images are not touched yet.
boot_guest() { # as start_guest
    for try in 1 2 3 4; do
        start_guest "$@"
        wait_line "$1" '^# up' 600 && return 0
        kill_guest
        say "$1: boot $try ended before init: $(grep -m1 -E 'BUG|Oops|panic|RIP' \
            "$WORK/$1.console" 2>/dev/null)"
        cp "$WORK/$1.console" "$WORK/$1.console.$try" 2>/dev/null
    done
    return 1
}

# wait_guest SECONDS: until it powers off, else it is killed and 1 is returned.
wait_guest() {
    [ -n "${GUEST_PID:-}" ] || return 1
    left=$(($1 * 5))
    while kill -0 "$GUEST_PID" 2>/dev/null; do
        [ $left -gt 0 ] || { kill_guest; return 1; }
        left=$((left - 1))
        sleep 0.2
    done
    wait "$GUEST_PID"
    GUEST_PID=
}

kill_guest() {
    [ -n "${GUEST_PID:-}" ] || return 0
    kill -9 "$GUEST_PID" 2>/dev/null
    wait "$GUEST_PID" 2>/dev/null
    GUEST_PID=
}

# wait_line NAME PATTERN SECONDS: until the guest has printed it.
wait_line() {
    left=$(($3 * 10))
    until grep -q "$2" "$WORK/$1.tap" 2>/dev/null; do
        kill -0 "$GUEST_PID" 2>/dev/null || return 1
        [ $left -gt 0 ] || return 1
        left=$((left - 1))
        sleep 0.1
    done
}

failed() { # MESSAGE NAME
    echo "not ok - $1"
    tail -20 "$WORK/$2.console" | sed 's/^/# console: /'
}

seconds() {
    date +%s
}

# run_guest NAME TIMEOUT ARGUMENTS...: DISK_FOLDER: what its disk has at the start.
run_guest() {
    guest=$1
    limit=$2
    shift 2
    began=$(seconds)
    make_disk "$WORK/$guest.img" 6G ${DISK_FOLDER:+"$DISK_FOLDER"}
    boot_guest "$guest" "$WORK/$guest.img" "zq.test=$guest" "$@"
    wait_guest "$limit" && ended=1 || ended=
    cat "$WORK/$guest.tap"
    tests=$(grep -cE '^(not )?ok ' "$WORK/$guest.tap")
    [ -n "$ended" ] || failed "$guest: not done after $limit s" "$guest"
    [ -z "$ended" ] || grep -q "^1\.\.$tests\$" "$WORK/$guest.tap" ||
        failed "$guest: the guest ended early" "$guest"
    rm -f "$WORK/$guest.img"
    say "$guest took $(($(seconds) - began)) s"
}
