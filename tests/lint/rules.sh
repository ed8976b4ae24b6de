#!/bin/sh
# SPDX-License-Identifier: MIT
# House rules that grep can see.
set -eu
cd "$(dirname "$0")/../.."
bad=0

# rule WHAT REGEX FILES...: fails when a line outside comments matches.
rule() {
    what=$1
    regex=$2
    shift 2
    [ $# -gt 0 ] || return 0
    hits=$(awk -v regex="$regex" '
        FNR == 1 { inside = 0 }
        {
            line = $0
            gsub(/"([^"\\]|\\.)*"/, "\"\"", line)
            gsub(/\/\*([^*]|\*[^\/])*\*\//, "", line)
            if (inside && !sub(/^.*\*\//, "", line)) next
            inside = 0
            sub(/\/\/.*/, "", line)
            if (sub(/\/\*.*/, "", line)) inside = 1
            if (line ~ regex) printf "  %s:%d: %s\n", FILENAME, FNR, $0
        }' "$@")
    [ -n "$hits" ] || return 0
    printf '%s\n%s\n' "$what" "$hits"
    bad=1
}

# plain WHAT REGEX FILES...: the same for text of any kind, comments and all.
plain() {
    what=$1
    regex=$2
    shift 2
    [ $# -gt 0 ] || return 0
    hits=$(grep -nIE -- "$regex" "$@" /dev/null || true)
    [ -n "$hits" ] || return 0
    printf '%s\n%s\n' "$what" "$hits"
    bad=1
}

src=$(find src -name '*.[ch]' | sort)
without() { # what is left of src without the files that match
    printf '%s\n' "$src" | grep -vE "$1" || true
}
all=$(find . -type f \( -name '*.[ch]' -o -name '*.sh' -o -name '*.py' -o -name '*.awk' -o -name '*.md' \
    -o -name '*.[1-8]' -o -name '*.in' -o -name CMakeLists.txt -o -path './.ci/*' \) \
    -not -path './.git/*' -not -path './build*/*' | sort)

word='(^|[^A-Za-z0-9_.>])'
# What a program calls, objects.py reads from the objects; these rules are for what no object shows,
# and for the quick answer.
rule 'allocation outside base/mem.c' \
    "$word(malloc|calloc|realloc|free|strdup|strndup|asprintf|posix_memalign|aligned_alloc|alloca) *[(]" \
    $(without '^src/base/mem\.c$')
rule 'src/ ends or prints' \
    "$word(abort|exit|_exit|quick_exit|printf|vprintf|fprintf|vfprintf|puts|fputs|putchar|perror|syslog) *[(]" $src
rule 'a standard stream by its number or name' \
    "${word}(std(in|out|err)|STD(IN|OUT)_FILENO)([^A-Za-z0-9_]|\$)|${word}p?writev? *[(] *([012]|STD)" $src
rule 'assert besides zq_assert' "${word}(assert([^A-Za-z0-9_.]|\$)|__assert)" $(without '^src/base/report\.h$')
rule 'a builtin, an attribute or assembler with an effect that the rules forbid' \
    "__builtin_(trap|unreachable|abort|exit|free|longjmp|[a-z]*(alloc|print|put)[a-z]*)|__attribute__.*(tor|section|common|alias|ifunc|weak|weakref|cleanup) *[()]|${word}(asm|__asm|__asm__)([^A-Za-z0-9_]|\$)" $src
callback='(length|readv|writev|flush|limits|truncate|discard|zero|allocate|lock|submit|fd)'
rule 'a backend asked past zq_call_*(), which judge its answer' \
    "(->|[.])$callback[)]* *[(]|ops[.]$callback *[;,]" $(without '^src/device/backend\.h$')
rule "an entry of a table read or written past format/, which knows its width and its bits" \
    'ZQ_(OFLAG|OFFSET_MASK)|(entries|zones) *[*] *8|be64[(].*([*] *8|8 *[*]|<< *3|sizeof)|(<<|>>) *6[0-3]' \
    $(without '^src/((format|base|simdisk)/|qcow2/alloc\.c)')
rule 'a lock taken outside loop/, queue.c, the backends and the simulated disk' \
    "${word}((pthread|mtx|cnd)_([a-z_]*_)?(try|timed|rd|wr|un)*(lock|wait)) *[(]" \
    $(without '^src/(loop/(loop\.c|turn\.c|core\.h)|(api/queue|backend/[a-z_]+|simdisk/[a-z_]+)\.c)$')
rule 'conditional code: choose whole files in CMake' '^[ \t]*#[ \t]*(if|ifdef|elif)([^a-z]|$)' \
    $(without '^src/(base/(bytes|cost|os|report)|loop/core)\.h$')
rule 'conditional code: choose whole files in CMake' '^[ \t]*#[ \t]*ifndef' $(printf '%s\n' "$src" | grep '\.c$')
rule 'what only Linux has: base/os.h, or a file for each system' \
    '^[ \t]*#[ \t]*include <(linux/|sys/(epoll|eventfd|syscall|ioctl|prctl|signalfd|timerfd)[.]h)' \
    $(without '^src/(base/os_linux|backend/(direct_align|uring))\.c$')
# In tools/ a server sees its own folder, serve/ and tools/ itself; these two see no server.
for folder in tools tools/*/; do
    case $folder in
    tools) sees=tools ;;
    *) sees="serve|$(basename "$folder")" ;;
    esac
    others=$(cd tools && ls -d */ | tr -d / | grep -vxE "$sees" | tr '\n' '|')
    [ -z "$others" ] || plain "${folder%/} looks up or sideways" "#[ \t]*include [\"<](${others%|})/" \
        "${folder%/}"/*.[ch]
done
plain 'a digraph, a directive over two lines, or one that some compilers have' \
    '%:|<%|%>|<:|:>|^[ ]*#[ ]*((if|el|inc|line|pragma).*)?\\$|# *(import|include_next)' $(printf '%s\n' "$all" | grep '\.[ch]$')
plain 'the formatter is switched off' 'clang-format o[f]f' $(printf '%s\n' "$all" | grep '\.[ch]$' | grep -v '^\./tests/')
plain 'an include that climbs' '#[ ]*include ["<][^">]*\.\./' \
    $(printf '%s\n' "$all" | grep -E '^\./(src|tools|examples|include)/.*\.[ch]$')
plain 'a tab in C' '	' $(printf '%s\n' "$all" | grep '\.[ch]$')
plain 'white space at the end of a line' '[ 	]+$' $all
plain 'more than 100 columns' '^.{101,}' \
    $(printf '%s\n' "$all" | grep -E '\.[ch]$')
plain 'unfinished' 'TO[D]O|FIX[M]E|(^|[^A-Za-z])XX[X]([^A-Za-z]|$)|HA[C]K|not implement[e]d|for no[w]\b' $all
plain 'a path of one machine' '(^|[^A-Za-z0-9_.~*}-])/(work|home|root|srv)/' $all
awk '/^#/ && !seen[FILENAME]++ {
    guard = toupper("zq_" substr(FILENAME, 5))
    gsub(/[.\/]/, "_", guard)
    if ($0 != "#ifndef " guard) print FILENAME ": does not begin with its guard, " guard
}' $(printf '%s\n' "$src" | grep '\.h$') | grep . && bad=1
for f in $(printf '%s\n' "$all" | grep -vE '\.md$|/zqcow2\.pc\.in$'); do
    head -n 3 "$f" | grep -q 'SPDX-License-Identifier: MIT' && continue
    echo "no licence line: $f"
    bad=1
done
echo "rules: $(printf '%s\n' "$all" | wc -l) files, $([ $bad = 0 ] && echo none broken || echo broken)"
exit $bad
