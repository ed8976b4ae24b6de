#!/bin/sh
# SPDX-License-Identifier: MIT
# objects.sh BUILD: objects.py on this tree, then on a copy with files that break its rules in ways
# that no reader of text sees; each must be noticed.
set -eu
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 tests/lint/objects.py "$build"

check=$PWD/tests/lint/objects.py
cp -r src include "$tmp/"
cd "$tmp"
tried=0
# breach FOLDER CODE: the code in a file of its own.
breach() {
    tried=$((tried + 1))
    printf '%b\n' "$2" >"src/$1/breach$tried.c"
    echo "$1/breach$tried" >>units
}
breach base 'void y(void *, int) __asm__("zq_core_die");\nvoid x1(void *c) { y(c, 0); }'
breach base 'static void y(void *) __attribute__((weakref("zq_core_die")));\nvoid x2(void *c) { y(c); }'
breach base '#define CAT(a) zq_core_ ## a\nvoid CAT(die)();\nvoid x3(void) { CAT(die)(); }'
breach zone 'void zq_map_thaw();\nvoid (*x4(void))() { return zq_map_thaw; }'
breach base 'extern const char zq_there[];\nconst char *x5(void) { return zq_there; }'
breach loop 'const char zq_there[] = "up";\nvoid zq_back();\nvoid x6(void) { zq_back(); }'
breach loop 'extern const char zq_there[];\nvoid zq_back(const char **s) { *s = zq_there; }'
breach zone 'int x7(void) { static int n; return n++; }'
breach zone 'int x8 __attribute__((section("mine"))) = 1;'
breach zone 'int x9 __attribute__((common));'
breach zone 'int x10(void) { static _Thread_local int n; return n++; }'
breach zone '__attribute__((constructor)) static void x11(void) { }'
breach zone 'void *x12(void) { return __builtin_malloc(1); }'
breach zone '#include <stdio.h>\nlong x13(char **s, size_t *n, FILE *f) { return getline(s, n, f); }'
breach zone '#include <stdio.h>\nint (*x14(void))(const char *, ...) { return printf; }'
breach zone '#include <unistd.h>\nlong x15(void) { return write(2, "x", 1); }'
breach zone '#include <signal.h>\nint x16(void) { return raise(SIGABRT); }'
breach ops '#include <pthread.h>\nint (*x17(void))(pthread_mutex_t *) { return pthread_mutex_lock; }'
breach ops '#include <pthread.h>\nint x18(pthread_t *t, void *(*f)(void *)) { return pthread_create(t, 0, f, 0); }'
breach ops '#include <unistd.h>\nlong x19(char *b) { return pread(3, b, 1, 0); }'
breach qcow2 '#include <dlfcn.h>\nvoid *x20(void) { return dlsym(0, "zqcow2_open"); }'
python3 "$check" "$build" >log && { echo 'nothing was noticed'; exit 1; }
missed=0
while read -r unit; do
    grep -q "\\b$unit\\b" log && continue
    case $(gcc -dumpmachine) in
    x86_64-*gnu) ;;
    *) [ "${unit#*breach}" -lt 13 ] || continue ;; # system functions are judged there only
    esac
    printf 'not noticed: '
    cat "src/$unit.c"
    missed=$((missed + 1))
done <units
echo "objects: $tried rules broken on purpose, $missed not noticed"
exit $((missed > 0))
