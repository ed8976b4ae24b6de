#!/bin/sh
# SPDX-License-Identifier: MIT
# build.sh DIR [ARCH...]: cross-compiles the library, the command and the tests for each ARCH, all by
# default, warnings as errors, and runs the tests, through qemu-user where this processor cannot.
# The libraries below come from DIR/*.orig.tar.* (Debian's source packages), built once for each ARCH
# and kept in DIR. Then every ARCH has made the images of images.sh, byte for byte the same.
# run.sh calls this in a chroot that has all it needs.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- amd64 i386 armhf arm64 ppc64el s390x riscv64 musl
jobs=${ZQ_JOBS:-$(nproc)}
# Emulated code is slow: fewer random operations, every 11th fault.
export ZQ_OPS="${ZQ_OPS:-20000}" ZQ_STEP="${ZQ_STEP:-11}"
export CTEST_OUTPUT_ON_FAILURE=1
failed=0

# choose ARCH: sets cc and emulator.
choose() {
    unset LOCPATH
    flags=
    emulator=
    case $1 in
    amd64) triplet=x86_64-linux-gnu ;;
    i386) triplet=i686-linux-gnu ;;
    armhf) triplet=arm-linux-gnueabihf emulator=qemu-arm ;;
    arm64) triplet=aarch64-linux-gnu emulator=qemu-aarch64 ;;
    ppc64el) triplet=powerpc64le-linux-gnu emulator=qemu-ppc64le ;;
    s390x) triplet=s390x-linux-gnu emulator=qemu-s390x ;;
    riscv64) triplet=riscv64-linux-gnu emulator=qemu-riscv64 ;;
    musl) triplet=musl flags="-idirafter $dir/kernel" ;;
    *) echo "build.sh: what is $1?" >&2 && exit 2 ;;
    esac
    cc=$triplet-gcc
    [ -z "$emulator" ] || emulator="$emulator -L /usr/$triplet"
    # An emulated libc reads this machine's locales, in its own byte order.
    [ "$1" != s390x ] || export LOCPATH="$dir/locale"
    prefix=$dir/$1/prefix
    build=$dir/$1/build
    log=$dir/$1/log
}

quiet() {
    "$@" >"$log" 2>&1 && return 0
    tail -n 60 "$log"
    echo "!! failed: $*"
    return 1
}

unpack() { # NAME: the sources of a package, unpacked anew
    rm -rf "$dir/source"
    mkdir "$dir/source"
    tar -xf "$dir/$1"_*.orig.tar.[gx]z -C "$dir/source" --strip-components 1
    cd "$dir/source"
}

# Debian has these libraries for its own processors only, not for musl, nor always for all: one way
# for all, static ones, so that only libc is the target's.
dependencies() {
    [ ! -f "$prefix/done" ] || return 0
    mkdir -p "$prefix/lib/pkgconfig"
    unpack zlib
    quiet env CC="$cc" CFLAGS='-O2 -fPIC' ./configure --static --prefix="$prefix"
    quiet make -j "$jobs" install
    unpack libzstd
    quiet make -C lib -j "$jobs" CC="$cc" CFLAGS='-O2 -fPIC' PREFIX="$prefix" libzstd.a
    quiet make -C lib CC="$cc" PREFIX="$prefix" install-static install-includes install-pc
    unpack liburing
    quiet ./configure --cc="$cc" --prefix="$prefix"
    quiet make -C src -j "$jobs" CC="$cc" CFLAGS="-O2 -fPIC $flags" ENABLE_SHARED=0 install
    quiet make CC="$cc" liburing.pc
    cp liburing.pc "$prefix/lib/pkgconfig/"
    unpack cmocka
    sed -i 's/^cmake_minimum_required(.*/cmake_minimum_required(VERSION 3.10)/' CMakeLists.txt
    quiet cmake -B build -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_C_COMPILER="$cc" -DBUILD_SHARED_LIBS=OFF \
        -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR=lib -DWITH_EXAMPLES=OFF
    quiet make -C build -j "$jobs" install
    touch "$prefix/done"
}

# Each program becomes a script that emulates it, so that tests in shell need not know.
emulate() {
    find "$build" -type f -perm -u+x ! -name '*.so*' ! -name '*.elf' ! -path '*/CMakeFiles/*' |
        while read -r program; do
            head -c 4 "$program" | grep -q ELF || continue
            mv "$program" "$program.elf"
            printf '#!/bin/sh\nexec %s -0 "$0" "$0.elf" "$@"\n' "$emulator" >"$program"
            chmod +x "$program"
        done
}

compile() {
    rm -rf "$build"
    export PKG_CONFIG_LIBDIR="$prefix/lib/pkgconfig" PKG_CONFIG_PATH=
    quiet cmake -S "$top" -B "$build" -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_C_COMPILER="$cc" \
        -DCMAKE_C_FLAGS="$flags" -DZQCOW2_WERROR=ON &&
        quiet cmake --build "$build" -j "$jobs" -- -k 0
}

# What needs no installed files, other programs' plugins, instruction counts or the hours of the
# crash suite, of which a short run follows.
run_tests() {
    quiet ctest --test-dir "$build" -j "$jobs" --timeout 3000 -LE '^(lint|package|guest)$' \
        -E '^(crash$|crash_qemu|counts_instructions|counts_model|interop_|cli_uninstall)' || failed=1
    awk '/tests passed,/ { $1 = $1; print } /\*\*\*Skipped/ { n++; names = names " " $4 }
        END { if (n) print "skipped:" names }' "$log"
    # A taste of the crash suite: its logic is the same everywhere, its bytes must be.
    quiet "$build/tests/crash/crash" --quick --workers "$jobs" --states "${ZQ_STATES:-5000}" --histories 1 \
        --seconds 600 || failed=1
    grep '^crash states' "$log" || failed=1
}

if [ ! -d "$dir/kernel" ]; then # the kernel's headers alone, for musl
    mkdir "$dir/kernel"
    ln -s /usr/include/linux /usr/include/asm-generic /usr/include/mtd "$dir/kernel/"
    ln -s /usr/include/x86_64-linux-gnu/asm "$dir/kernel/"
fi
if [ ! -d "$dir/locale" ]; then
    mkdir "$dir/locale"
    localedef --big-endian -i C -f UTF-8 "$dir/locale/C.utf8"
fi
for arch in "$@"; do
    choose "$arch"
    mkdir -p "$dir/$arch"
    dependencies
    echo "== $arch"
    compile || { failed=1; continue; }
    [ -z "$emulator" ] || emulate
    run_tests
    sh "$top/tests/arch/images.sh" "$build/tools/zqcow2" >"$dir/$arch/images" || failed=1
    echo "images: $(wc -l <"$dir/$arch/images")"
    reference=${reference:-$dir/$arch/images}
    diff "$reference" "$dir/$arch/images" || failed=1
done
[ $failed = 0 ] && echo 'arch: all built and passed, images equal byte for byte'
exit $failed
