#!/bin/sh
# SPDX-License-Identifier: MIT
# selftest.sh ZQCOW2: the kit finds what is wrong. Each program below is ours with one fault; and through
# a script in the form of qemu-io, ours passes with that adapter, too.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tool=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
count=0

# faulty NAME WORD: the program on standard input must fail cases whose name has WORD.
faulty() {
    { printf '#!/bin/sh\ntool=%s\n' "'$tool'"; cat; } >"$tmp/program"
    chmod +x "$tmp/program"
    if python3 "$here/run.py" -k "$2" "$tmp/program" >"$tmp/out" 2>&1; then
        echo "$1: passes all the same"
        exit 1
    fi
    tail -n 1 "$tmp/out" | grep -q '^conformance: [0-9]* cases, [1-9][0-9]* failed$' || { cat "$tmp/out"; exit 1; }
    count=$((count + 1))
}

faulty 'refuses every image' open/open <<'END'
echo "cannot open"; exit 1
END
faulty 'opens every image' damaged/capacity <<'END'
for word; do [ "$word" != length ] || echo '256 KiB'; done
END
faulty 'shows another state' open/open-44 <<'END'
"$tool" "$@" | sed 's/zcond:4/zcond:2/'
END
faulty 'shows another write pointer' open/capacity-v7 <<'END'
"$tool" "$@" | sed 's/wptr 0x111/wptr 0x110/'
END
faulty 'every read is as expected' commands/write-44 <<'END'
"$tool" "$@" 2>&1 | sed '/write failed/d'
END
faulty 'reads anything' power-cut/pointer-lags-44 <<'END'
"$tool" "$@" | sed 's/^read .*/Pattern verification failed/'
END
faulty 'writes nothing' commands/append-v7 <<'END'
shift; "$tool" io -r "$@"
END
faulty 'changes what it only reads' open/open-56 <<'END'
for image; do :; done
"$tool" "$@"; printf x | dd of="$image" bs=1 seek=45000 conv=notrunc 2>/dev/null
END
faulty 'changes what it refuses' damaged/model-44 <<'END'
for image; do :; done
"$tool" "$@"; s=$?; printf x | dd of="$image" bs=1 seek=45000 conv=notrunc 2>/dev/null; exit $s
END
faulty 'reads nothing of a backing file' backing/read-44 <<'END'
for image; do :; done
dd if=/dev/zero of="${image%/*}/below.qcow2" bs=4096 seek=6 count=4 conv=notrunc 2>/dev/null; "$tool" "$@"
END
faulty 'changes a backing file' backing/read-v7 <<'END'
for image; do :; done
"$tool" "$@"; printf x >>"${image%/*}/below.qcow2"
END
faulty 'changes what a snapshot shares' shapes/snapshot-44 <<'END'
for image; do :; done
"$tool" "$@"; s=$?; printf x | dd of="$image" bs=1 seek=24577 conv=notrunc 2>/dev/null; exit $s
END
faulty 'knows no stored states' stored/read-only-44 <<'END'
"$tool" "$@" 2>&1 | sed 's/zcond:13/zcond: 4/'
END
faulty 'crashes' damaged/length-48b <<'END'
kill -SEGV $$
END
faulty 'names another rule' commands/limits-44 <<'END'
"$tool" "$@" 2>&1 | sed 's/too many active zones/too many open zones/'
END

cat >"$tmp/qemu-io" <<'END'
#!/bin/sh
[ "$1 $2" = '-f qcow2' ] || exit 2
shift 2
END
echo "exec '$tool' io \"\$@\"" >>"$tmp/qemu-io"
chmod +x "$tmp/qemu-io"
python3 "$here/run.py" --word=-44 -a qemu-io "$tmp/qemu-io"
echo "conformance selftest: $count faulty programs, 0 pass"
