#!/bin/sh
# SPDX-License-Identifier: MIT
# embed.sh: this project as a part of others. It builds without cmocka, with its tests left out, and
# without liburing, and says what it needs; by add_subdirectory and by FetchContent it gives the
# libraries and nothing else. All in a folder with an odd name.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
base=$(mktemp -d)
tmp="$base/it's a (test) é"
mkdir "$tmp"
trap 'rm -rf "$base"' EXIT
trap 'exit 1' HUP INT TERM
unset CMAKE_BUILD_TYPE CFLAGS
jobs=$(nproc)

quiet() {
    "$@" >"$tmp/log" 2>&1 && return 0
    tail -n 40 "$tmp/log"
    echo "failed: $*"
    exit 1
}

fail() {
    echo "$*"
    exit 1
}

no_tests() { # BUILD
    ctest --test-dir "$1" -N 2>/dev/null | grep -q 'Total Tests: 0' || fail "$1: tests are registered"
}

# says TEXT: the last command did.
says() {
    grep -qF "$1" "$tmp/log" && return 0
    cat "$tmp/log"
    fail "nobody said: $1"
}

# A machine that has what the library needs, and no more; it comes to it one by one.
mkdir "$tmp/pc"
has() {
    for path in $(pkg-config --variable pc_path pkg-config | tr : ' '); do
        [ ! -f "$path/$1.pc" ] || cp "$path/$1.pc" "$tmp/pc/"
    done
}
configure() {
    env PKG_CONFIG_LIBDIR="$tmp/pc" PKG_CONFIG_PATH= cmake -S "$top" -B "$tmp/bare" \
        -DCMAKE_BUILD_TYPE=Debug
}
has zlib
configure >"$tmp/log" 2>&1 && fail 'configured without libzstd'
says 'apt-get install zlib1g-dev libzstd-dev'
has libzstd
quiet configure
says 'No io_uring, and no ublk: liburing is not there'
says 'No tests will be built: cmocka is not there'
if pkg-config --exists 'liburing >= 2.3'; then
    has liburing
    quiet configure
    grep -q 'No io_uring' "$tmp/log" && fail 'liburing came, and was not seen'
fi
quiet cmake --build "$tmp/bare" -j "$jobs"
no_tests "$tmp/bare"
quiet cmake --install "$tmp/bare" --prefix "$tmp/prefix"
"$tmp/prefix/bin/zqcow2" --version >/dev/null

cat >"$tmp/main.c" <<'END'
#include <stdio.h>
#include <zqcow2/zqcow2.h>

int main(void)
{
    return puts(zqcow2_strerror(0)) < 0;
}
END

# parent NAME HOW: a project of somebody else, with a ZLIB of its own, that takes this one in by HOW.
parent() {
    mkdir "$tmp/$1"
    cp "$tmp/main.c" "$tmp/$1/"
    cat >"$tmp/$1/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(parent LANGUAGES C)
find_package(PkgConfig REQUIRED)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
$2
foreach(_kind zqcow2 static)
  add_executable(with_\${_kind} main.c)
  target_link_libraries(with_\${_kind} PRIVATE zqcow2::\${_kind})
endforeach()
install(TARGETS with_static)
get_directory_property(_options COMPILE_OPTIONS)
get_directory_property(_definitions COMPILE_DEFINITIONS)
foreach(_name _options _definitions CMAKE_BUILD_TYPE BUILD_TESTING CMAKE_C_STANDARD)
  if(NOT "\${\${_name}}" STREQUAL "")
    message(FATAL_ERROR "\${_name} became \${\${_name}}")
  endif()
endforeach()
END
    quiet cmake -S "$tmp/$1" -B "$tmp/$1/build"
    no_tests "$tmp/$1/build"
    quiet cmake --build "$tmp/$1/build" -j "$jobs"
    for program in with_zqcow2 with_static; do
        quiet "$tmp/$1/build/$program"
    done
    quiet cmake --install "$tmp/$1/build" --prefix "$tmp/$1/prefix"
    installed=$(cd "$tmp/$1/prefix" && find . -type f)
    [ "$installed" = ./bin/with_static ] || fail "$1: installed besides its own program: $installed"
    find "$tmp/$1/build" -type f -perm -u+x -name zqcow2 | grep . && fail "$1: the command was built"
    return 0
}

parent subdirectory "add_subdirectory([[$top]] zqcow2)"
parent left_out "add_subdirectory([[$top]] zqcow2 EXCLUDE_FROM_ALL)"
parent fetched "include(FetchContent)
FetchContent_Declare(zqcow2 SOURCE_DIR [[$top]])
FetchContent_MakeAvailable(zqcow2)"
echo 'embed: 1 build without cmocka, 3 inside other projects'
