#!/bin/sh
# SPDX-License-Identifier: MIT
# convert.sh [-n PAIRS] [-s MIB] [-d DIRECTORY] PATH_OF_ZQCOW2: zqcow2 convert beside qemu-img convert,
# in turn on the same files. It prints medians and asserts nothing.
# Both make the target durable (qemu-img -t writeback, which flushes it once), or neither does (zqcow2
# --no-sync). Where others use the machine the best run of each side says more than the medians; root can
# give it priority: setsid sh -c 'echo -15 >/proc/self/autogroup; exec nice -n -10 sh convert.sh ...'
# DIRECTORY, on the file system to measure, takes four times MIB (512).
set -eu
pairs=7
mib=512
where=${TMPDIR:-/tmp}
while getopts n:s:d: option; do
    case $option in
    n) pairs=$OPTARG ;;
    s) mib=$OPTARG ;;
    d) where=$OPTARG ;;
    *) exit 1 ;;
    esac
done
shift $((OPTIND - 1))
tool=${1:?usage: $0 [-n PAIRS] [-s MIB] [-d DIRECTORY] PATH_OF_ZQCOW2}
case $tool in /*) ;; *) tool=$PWD/$tool ;; esac
command -v qemu-img >/dev/null || { echo 'qemu-img is not installed'; exit 77; }
data=$(mktemp -d "$where/zqconvert.XXXXXX")
trap 'rm -rf "$data"' EXIT
trap 'exit 1' HUP INT TERM
cd "$data"
echo "kernel: $(uname -sr); file system: $(stat -f -c %T .); $(nproc) processors; load: $(cut -d' ' -f1-3 /proc/loadavg)"
qemu-img --version | head -n 1
python3 - "$tool" "$pairs" "$mib" <<'END'
import os, random, resource, statistics, subprocess, sys, time

tool, pairs, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) << 20
r = random.Random(1)
noise = [os.urandom(65536) for _ in range(64)]
words = [bytes(r.choices(b'abcdefghijkl', k=r.randrange(3, 9))) + b' ' for _ in range(500)]
text = [b''.join(r.choices(words, k=20000))[:65536] for _ in range(64)]

def source(name, blocks, holes, bytes_):
    with open(name, 'wb') as f:
        f.truncate(bytes_)
        at = 0
        while at < bytes_:
            n = min(r.randrange(1, 16) * 65536, bytes_ - at)
            f.seek(at)
            f.write(b''.join(r.choice(blocks) for _ in range(n // 65536)))
            at += n + (r.randrange(1, 16) * 65536 if holes else 0)

source('full.raw', noise, False, size)
source('half.raw', noise, True, size)
source('text.raw', text, False, size // 4)
for name in 'full', 'half', 'text':
    subprocess.run(['qemu-img', 'convert', '-O', 'qcow2', name + '.raw', name + '.qcow2'], check=True)

def timed(command):
    if os.path.exists('out'):
        os.unlink('out')
    os.sync()
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

median = statistics.median
print('source, target          both        zqcow2: s (cpu s)  qemu-img: s (cpu s)  ratio (quartiles), of the best, cpu')
for case in (('full.raw', 'qcow2'), ('half.raw', 'qcow2'), ('full.qcow2', 'raw'), ('half.qcow2', 'raw'),
             ('half.qcow2', 'qcow2'), ('text.raw', 'qcow2', '-c'), ('text.qcow2', 'qcow2', '-c')):
    for flush in ['-t', 'writeback'], []:
        rest = [*case[2:], '-O', case[1], case[0], 'out']
        ours, theirs = [], []
        for i in range(pairs):
            sides = [(ours, [tool, 'convert'] + ([] if flush else ['--no-sync'])),
                     (theirs, ['qemu-img', 'convert', '-m', '8', *flush] + ['-W'] * ('-c' in case))]
            for to, command in sides[::1 - 2 * (i % 2)]:
                to.append(timed(command + rest))
        wall = sorted(b[0] / a[0] for a, b in zip(ours, theirs))
        best = min(b[0] for b in theirs) / min(a[0] for a in ours)
        cpu = median(b[1] / a[1] for a, b in zip(ours, theirs))
        middle = lambda side, k: median(x[k] for x in side)
        print(f'{case[0] + " to " + " ".join(case[1:]):23} {"flush" if flush else "no flush":10} '
              f'{middle(ours, 0):8.2f} ({middle(ours, 1):.2f}) {middle(theirs, 0):13.2f} '
              f'({middle(theirs, 1):.2f}) {median(wall):14.2f} ({wall[len(wall) // 4]:.2f}-'
              f'{wall[-1 - len(wall) // 4]:.2f}), {best:.2f}, {cpu:.2f}', flush=True)
END
