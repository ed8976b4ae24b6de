#!/bin/sh
# SPDX-License-Identifier: MIT
# Breaks one house rule at a time in a copy of the tree; the check that guards it must notice.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/tree"
for part in src include tools examples tests docs python debian cmake CMakeLists.txt *.md LICENSE; do
    [ ! -e $part ] || cp -r $part "$tmp/tree/"
done
cd "$tmp/tree"
missed=0
tried=0

# breach CHECK FILE LINE: FILE of the copy gains LINE, CHECK must fail; then FILE is as it was.
breach() {
    tried=$((tried + 1))
    kept=
    if [ -f "$2" ]; then
        kept=$tmp/kept
        cp "$2" "$kept"
    else
        mkdir -p "$(dirname "$2")"
        printf '/* SPDX-License-Identifier: MIT */\n' >"$2"
    fi
    printf '%b\n' "$3" >>"$2"
    if sh "tests/lint/$1.sh" >"$tmp/log" 2>&1; then
        echo "$1.sh did not notice in $2: $3"
        missed=$((missed + 1))
    fi
    if [ -n "$kept" ]; then cp "$kept" "$2"; else rm "$2"; fi
}

# gather CHECK FOLDER SUFFIX LINE: a new file has LINE. judge CHECK: it runs once, and must name each
# of the files that were gathered for it.
gather() {
    tried=$((tried + 1))
    mkdir -p "$2"
    file=$2/breach$tried.$3
    guard=$(printf 'zq_%s' "${file#src/}" | tr 'a-z/.' 'A-Z__')
    {
        echo '/* SPDX-License-Identifier: MIT */'
        [ "$3" != h ] || printf '#ifndef %s\n#define %s\n' "$guard" "$guard"
        printf '%b\n' "$4"
        [ "$3" != h ] || echo '#endif'
    } >"$file"
    printf '%s\n' "$file" >>"$tmp/$1"
}

judge() {
    sh "tests/lint/$1.sh" >"$tmp/log" 2>&1 || true
    while read -r file; do
        grep -qF "$file" "$tmp/log" || {
            echo "$1.sh did not notice $file:"
            cat "$file"
            missed=$((missed + 1))
        }
        rm "$file"
    done <"$tmp/$1"
}

# A tree that fails already would prove nothing.
for check in layers size rules asserts headers english docs; do
    sh tests/lint/$check.sh >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
done

[ -z "$(command -v clang-format-14)" ] || breach format src/device/io.c 'int x( void );'
breach rules src/device/io.c 'int x(void) { return be->ops.flush(be->self); }'
breach layers src/base/mem.c '#include "format/header.h"'
breach layers src/qcow2/x.c '#include "zone/zones.h"'
breach layers src/zone/x.c '#include "qcow2/map.h"'
breach layers src/backend/x.c '#include "device/backend.h"'
breach layers src/backend/x.c '#include <zqcow2/queue.h>'
breach layers src/api/x.c '#include "header.h"'
breach layers src/extra/x.c 'int x;'
breach layers src/base/list.h '#include "base/circle.h"\n#include "base/list.h"'
breach layers src/base/mem.c 'void x(void *c) { zq_core_die(c, 0); }'
breach layers src/zone/fsm.c 'void x(void *m) { zq_map_thaw(m); }'
breach layers src/qcow2/host.c 'void x(void *a) { zq_growth_drop(a); }'
breach layers tools/x.c '#include "base/mem.h"'
breach size src/base/x.c "int x(void)\n{\n$(awk 'BEGIN { for (i = 0; i < 60; i++) printf "    ;\\n" }')}"
breach size src/base/x.c "$(awk 'BEGIN { for (i = 0; i < 600; i++) printf "\\n" }')"
breach asserts src/base/x.c "$(awk 'BEGIN { for (i = 0; i < 300; i++) printf "int x;\\n" }')"
breach asserts src/zone/x.c "$(awk 'BEGIN { for (i = 0; i < 900; i++) printf "/* x */\\n" }')"
mkdir tools/other
breach rules tools/ublk/x.c '#include "other/x.h"'
rmdir tools/other
gather rules tools c '#include "serve/state.h"'
gather rules tools/serve c '#include "ublk/ctl.h"'
gather rules src/check c 'int x(uint64_t e) { return !(e & ZQ_OFLAG_COPIED); }'
gather rules src/check c 'uint64_t x(const uint8_t *t, size_t i) { return zq_be64(t + i * 8); }'
gather rules src/zone c 'void *x(void) { return malloc(1); }'
gather rules src/zone c 'void x(void *p) { free(p); }'
gather rules src/zone c 'void x(void) { abort(); }'
gather rules src/zone c 'void x(void) { printf("x"); }'
gather rules src/zone c 'void x(int a) { assert(a); }'
gather rules src/zone c 'void x(void *m) { pthread_mutex_lock(m); }'
gather rules src/zone c '#ifdef X\n#endif'
gather rules src/backend c '#include <sys/epoll.h>'
gather rules src/zone c '\tint x;'
gather rules src/zone c 'int x; '
gather rules src/zone c "/* $(awk 'BEGIN { for (i = 0; i < 100; i++) printf "x" }') */"
gather rules src/zone c "/* TO""DO */"
gather rules docs md 'see /''home/somebody/notes'
gather rules src/zone c 'void *x(void) { return __builtin_malloc(1); }'
gather rules src/zone c 'void x(void) { __builtin_trap(); }'
gather rules src/zone c 'void x(void) { __builtin_unreachable(); }'
gather rules src/zone c 'void x(void) { __asm__("ud2"); }'
gather rules src/zone c '__attribute__((constructor)) void x(void) { }'
gather rules src/zone c 'int x __attribute__((section("mine")));'
gather rules src/zone c 'void x(void) { fputc(1, stderr); }'
gather rules src/backend c 'long x(void) { return pwrite(STDERR_FILENO, "x", 1, 0); }'
gather rules src/backend c 'long x(void) { return write(2, "x", 1); }'
gather rules src/zone c '#define CHECK assert'
gather rules src/zone c 'void x(void) { __assert_fail("a", "b", 1, "c"); }'
gather rules src/zone c '%%:ifdef X\n#endif'
gather rules src/zone c '#\\\nifdef X\n#endif'
gather rules src/zone c '#/* x */if X\n#endif'
gather rules src/zone h '#ifdef X\n#endif'
gather rules src/zone c '#import "zone/zones.h"'
gather rules src/zone c '/* clang-format o''ff */'
gather rules src/device c 'int x(void *b) { const struct ops *o = b; return o->flush(b); }'
gather rules src/device c 'int x(void *b) { int (*f)(void *) = b->ops.flush; return f(b); }'
gather rules src/device c 'int x(void *b) { return (be->ops.flush)(b); }'
gather rules src/check c 'uint64_t x(const uint8_t *t, size_t i) { return zq_be64(t + (i << 3)); }'
gather rules src/check c 'int x(uint64_t e) { return e >> 63; }'
gather rules tools/serve c '#include "../ublk/ctl.h"'
gather rules tools/serve c '#include <ublk/ctl.h>'
judge rules
mv src/zone/fsm.h "$tmp/fsm.h"
sed '/^#ifndef\|^#define ZQ_ZONE_FSM\|^#endif/d' "$tmp/fsm.h" >src/zone/fsm.h
breach rules src/zone/fsm.h '/* has no guard */'
mv "$tmp/fsm.h" src/zone/fsm.h
gather layers src/base c '#include <loop/core.h>'
gather layers src/base c '#define UP "loop/core.h"\n#include UP'
gather layers src/base c '#include_next "loop/core.h"'
gather layers src/base c '#include \\\n    "loop/core.h"'
gather layers src/base c '#include /* up */ "loop/core.h"'
gather layers src/base h '#define ZQ_STOP(c) zq_core_die(c, 0)'
gather layers src/base h 'void zq_core_die(void *c, int rc);'
gather layers src/base h 'static inline void x(void *c) { zq_core_die(c, 0); }'
gather layers src/base def 'X(1)'
gather layers tools c '#include <base/mem.h>'
gather layers tools c '#include "../src/base/mem.h"'
gather layers tools c 'void *x(void) { return zq_alloc(0, 1); }'
judge layers
gather size src/base c "#define X $(awk 'BEGIN { for (i = 0; i < 40; i++) printf "\\\\\\n    ;" }')"
gather size src/base c "FN(x)\n{\n$(awk 'BEGIN { for (i = 0; i < 60; i++) printf "    ;\\n" }')}"
judge size
[ "$(gcc -dumpmachine | sed 's/-.*//')" != x86_64 ] || {
    gather words src/base h 'size_t zq_x(size_t n);'
    judge words
}
gather english src/zone c '/* It fails for want\n * of memory. */'
gather english python py '# It te''lls the caller.'
judge english
breach headers include/zqcow2/x.h 'struct x { char a; int b; };'
breach headers include/zqcow2/x.h 'size_t x;'
breach english docs/DESIGN.md 'Who waits is parked.'
breach english src/zone/x.c '/* It tells the caller. */'
breach docs docs/DESIGN.md '`zq_nowhere()`'
breach docs docs/DESIGN.md '`device/nowhere.c`'
breach docs docs/DESIGN.md '[x](#nowhere)'
breach docs docs/SPEC.md '`zqcow2_nowhere(3)`'
breach docs src/zone/x.c '/* R99 */'
if [ -f docs/man/zqcow2_open.3 ]; then
    breach man docs/man/zqcow2_open.3 '.Xr zqcow2_nowhere 3'
    breach man docs/man/zqcow2_open.3 '.Sh SYNOPSIS\n.Ft int\n.Fn zqcow2_close "void"'
    breach man docs/man/zqcow2_open.3 '.Bogus'
fi
echo "house rules: $tried broken on purpose, $missed not noticed"
exit $((missed > 0))
