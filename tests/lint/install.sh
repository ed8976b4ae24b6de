#!/bin/sh
# SPDX-License-Identifier: MIT
# install.sh BUILD: installs into a temporary prefix, then builds from what was installed, with cc
# and pkg-config only, every example and a 30-line program, shared and static, and a CMake project;
# runs those that need no arguments.
set -eu
build=$(cd "$1" && pwd)
top=$(cd "$(dirname "$0")/../.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
prefix=$tmp/prefix
cmake --install "$build" --prefix "$prefix" >"$tmp/log" || { cat "$tmp/log"; exit 1; }

PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name zqcow2.pc)")
LD_LIBRARY_PATH=$(dirname "$PKG_CONFIG_PATH")
export PKG_CONFIG_PATH LD_LIBRARY_PATH
cd "$tmp" # a home of its own: nothing of the tree may be found by accident
cc=${CC:-cc}
warn='-std=gnu11 -O1 -Wall -Wextra -Werror'
shared=$(pkg-config --cflags --libs zqcow2)
# The archive by name, and below it what the .pc file says privately.
static="$(pkg-config --cflags zqcow2) $(find "$prefix" -name libzqcow2.a) \
$(pkg-config --static --libs zqcow2 | sed 's/-lzqcow2//')"
built=0
ran=0

# The libraries besides this one that an example includes, as pkg-config knows them.
needs() {
    sed -n 's/^#include <nbdkit-plugin\.h>.*/nbdkit/p
        s/^#include <openssl\/evp\.h>.*/libcrypto/p' "$1"
}

# program FILE LINKING: builds it, and runs it unless it is a plugin of another program.
program() {
    file=$1
    how=$2
    extra=$(needs "$file")
    kind=
    case $extra in *nbdkit*) kind='-shared -fPIC' ;; esac
    if [ -n "$extra" ]; then
        pkg-config --exists $extra || { echo "left out, no $extra: $(basename "$file")"; return 0; }
        extra=$(pkg-config --cflags --libs $extra)
    fi
    [ "$how" = shared ] && libs=$shared || libs=$static
    out=$tmp/$(basename "$file" .c)-$how
    $cc $warn $kind "$file" -o "$out" $libs $extra -pthread
    built=$((built + 1))
    [ -z "$kind" ] || return 0
    mkdir "$out.dir"
    if ! (cd "$out.dir" && timeout 60 "$out" </dev/null >"$out.log" 2>&1); then
        echo "$(basename "$file") ($how) failed:"
        cat "$out.log"
        exit 1
    fi
    ran=$((ran + 1))
}

# The 30-line program: not part of the tree, and the pages' promises in short.
cat >"$tmp/outside.c" <<'END'
#include <stdio.h>
#include <string.h>
#include <zqcow2/backend.h>

int main(void)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    struct zqcow2_zone zone;
    struct zqcow2_error err;
    char data[4096], back[4096];
    uint64_t off = 0;
    uint32_t one = 1;

    memset(data, 'z', sizeof(data));
    how.virtual_size = 64 << 20;
    how.zone_size = 16 << 20;
    opt.flags = ZQCOW2_OPEN_RDWR;
    if (zqcow2_file_open("out.qcow2", ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, NULL, &be) < 0)
        return 1;
    if (zqcow2_create(be, &how, &err) < 0 || zqcow2_open(be, &opt, &img, &err) < 0)
        return fprintf(stderr, "%s\n", err.text), 2;
    if (zqcow2_append(img, data, sizeof(data), &off, ZQCOW2_FUA) < 0 || off != 0)
        return 3;
    if (zqcow2_zone_report(img, 0, &zone, &one) < 0 || zone.write_pointer != sizeof(data))
        return 4;
    if (zqcow2_read(img, back, sizeof(back), 0) < 0 || memcmp(data, back, sizeof(back)))
        return 5;
    return zqcow2_close(img) < 0 ? 6 : 0;
}
END

# The README's program, as it stands there.
awk '/^```c/ { on = 1; next } /^```/ { on = 0 } on' "$top/README.md" >"$tmp/readme.c"
[ -s "$tmp/readme.c" ] || { echo 'README.md has no program'; exit 1; }

for how in shared static; do
    program "$tmp/outside.c" $how
    program "$tmp/readme.c" $how
    for example in "$top"/examples/*.c; do
        program "$example" $how
    done
done

mkdir "$tmp/project"
cp "$tmp/outside.c" "$tmp/project/"
cat >"$tmp/project/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(outside LANGUAGES C)
find_package(zqcow2 0.1 REQUIRED COMPONENTS static)
add_executable(with_shared outside.c)
target_link_libraries(with_shared PRIVATE zqcow2::zqcow2)
add_executable(with_static outside.c)
target_link_libraries(with_static PRIVATE zqcow2::static)
END
# Moved once more: the installed tree must not know where it was installed.
mv "$prefix" "$tmp/moved"
if ! { cmake -S "$tmp/project" -B "$tmp/project/build" -DCMAKE_PREFIX_PATH="$tmp/moved" &&
    cmake --build "$tmp/project/build"; } >"$tmp/log" 2>&1; then
    cat "$tmp/log"
    exit 1
fi
for how in with_shared with_static; do
    mkdir "$tmp/$how"
    (cd "$tmp/$how" && "$tmp/project/build/$how")
    built=$((built + 1))
    ran=$((ran + 1))
done
# The command finds its library beside it, wherever the prefix is.
env -u LD_LIBRARY_PATH "$tmp/moved/bin/zqcow2" --version >/dev/null
if readelf -d "$tmp/moved/bin/zqcow2" | grep -E 'R(UN)?PATH' | grep -v '\[\$ORIGIN/[^:]*\]'; then
    echo 'the command looks for its library where that does not move with it'
    exit 1
fi
if grep -rlF "$prefix" "$tmp/moved" | grep -v '\.so\|\.a$\|/bin/'; then
    echo 'the files above name the place of installation'
    exit 1
fi
for page in zqcow2.7 zqcow2_append.3 zqcow2_zone_finish.3; do
    [ -n "$(find "$tmp/moved" -name "$page")" ] || { echo "not installed: $page"; exit 1; }
done
echo "install: $built programs built from the installed files, $ran run"
