#!/bin/sh
# SPDX-License-Identifier: MIT
# Breaks one house rule at a time in a copy of the tree; the check that guards it must notice.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/tree"
for part in src include tools examples tests docs CMakeLists.txt *.md LICENSE; do
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
breach rules tools/x.c '#include "serve/state.h"'
breach rules tools/serve/x.c '#include "ublk/ctl.h"'
mkdir tools/other
breach rules tools/ublk/x.c '#include "other/x.h"'
rmdir tools/other
breach rules src/check/x.c 'int x(uint64_t e) { return !(e & ZQ_OFLAG_COPIED); }'
breach rules src/check/x.c 'uint64_t x(const uint8_t *t, size_t i) { return zq_be64(t + i * 8); }'
breach rules src/zone/x.c 'void *x(void) { return malloc(1); }'
breach rules src/zone/x.c 'void x(void *p) { free(p); }'
breach rules src/zone/x.c 'void x(void) { abort(); }'
breach rules src/zone/x.c 'void x(void) { printf("x"); }'
breach rules src/zone/x.c 'void x(int a) { assert(a); }'
breach rules src/zone/x.c 'void x(void *m) { pthread_mutex_lock(m); }'
breach rules src/zone/x.c '#ifdef X\n#endif'
breach rules src/backend/x.c '#include <sys/epoll.h>'
breach rules src/zone/x.c '\tint x;'
breach rules src/zone/x.c 'int x; '
breach rules src/zone/x.c "/* $(awk 'BEGIN { for (i = 0; i < 100; i++) printf "x" }') */"
breach rules src/zone/x.c "/* TO""DO */"
breach rules docs/x.md 'see /''home/somebody/notes'
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
