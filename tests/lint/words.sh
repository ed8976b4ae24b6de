#!/bin/sh
# SPDX-License-Identifier: MIT
# words.sh: the library, each of its headers alone, the command and the examples compile without a
# warning where a word has 32 bits: no size is cut short. Nothing is linked, so this machine's own
# headers will do.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/gnu"
: >"$tmp/gnu/stubs-32.h"
flags='-m32 -std=gnu11 -fsyntax-only -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude -Isrc -Itools
    -Wall -Wextra -Wconversion -Wshadow -Wpedantic -Wno-psabi -Werror'
# What these include need not be here.
files=$(ls src/*/*.c tools/*.c tools/*/*.c examples/*.c | grep -v /joint_kqueue.c) # no kqueue on Linux
for need in liburing:liburing libnbd:libnbd nbdkit-plugin:nbdkit openssl/evp:libcrypto; do
    pkg-config --exists "${need#*:}" || files=$(grep -L "include <${need%%:*}\\.h>" $files)
done
case $(gcc -dumpmachine) in x86_64-*) ;; *) echo 'words: only on x86-64'; exit 77 ;; esac
bad=0
flags="$flags -I$tmp -isystem /usr/include/$(gcc -print-multiarch)"
for file in $files; do
    gcc $flags "$file" || bad=1
done
gcc $flags -Wno-pedantic -x c src/*/*.h || bad=1
echo "words: $(printf '%s\n' $files | wc -l) files, $(ls src/*/*.h | wc -l) headers alone, $([ $bad = 0 ] && echo all good || echo not good)"
exit $bad
