#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""signals.py TOOL [COUNTER]: stops zqcow2 while it writes, and looks at what is left. Prints TAP.

COUNTER is a library to preload that counts fdatasync(); without it flushes are not counted.
"""
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading

tool, counter = sys.argv[1:3]
tests = failures = 0
MIB = 1 << 20
ZONE = 256 * MIB
DATA = random.Random(1).randbytes(8 * MIB)
SIGNALS = ('SIGINT', 'SIGTERM', 'SIGHUP')


def verdict(ok, name, detail=''):
    global tests, failures
    tests += 1
    failures += not ok
    print('ok' if ok else 'not ok', tests, '-', name)
    if not ok:
        print('\n'.join('# ' + line for line in str(detail).splitlines()[:20]))
    sys.stdout.flush()


def run(*args, **more):
    return subprocess.run([tool, *args], capture_output=True, **more)


def create(options='zone.size=256M,zone.conventional_zones=1'):
    run('create', '--force', '-o', options, 'z.qcow2', '1G', check=True)


def default_signals():
    for name in SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def start(*args, before=default_signals):
    return subprocess.Popen([tool, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, preexec_fn=before)


def end(p):
    """The process has its input still: exit status and standard error."""
    err = p.stderr.read().decode()
    status = p.wait()
    for f in (p.stdin, p.stdout, p.stderr):
        try:
            f.close()
        except BrokenPipeError:
            pass
    return status, err


def pieces(lines):
    return [tuple(map(int, line.split())) for line in lines]


def written(zone=1):
    zones = json.loads(run('report', '--json', 'z.qcow2').stdout)
    return zones[zone]['write_pointer'] - zones[zone]['start']


def content(off, length):
    return run('read', 'z.qcow2', str(off), str(length)).stdout


def sound(name):
    r = run('check', 'z.qcow2')
    verdict(r.returncode == 0 and b'closed cleanly' not in r.stdout, name + ': sound, and closed',
            r.stdout.decode())


def stopped(verb, name, backend):
    """Between pieces, with half a piece and an open input."""
    what = f'{verb}, {backend}, {name}'
    number = getattr(signal, name)
    create()
    p = start(verb, '--backend=' + backend, 'z.qcow2', str(ZONE))
    p.stdin.write(DATA[:5 * MIB // 2])
    p.stdin.flush()
    # Two pieces have been read. A second without input makes durable, and prints, what there is.
    lines = [p.stdout.readline() for _ in range(2)] if verb == 'append' else []
    p.send_signal(number)
    status, err = end(p)
    verdict(status == -number, what + ': ends by it', (status, err))
    verdict(f'stopped by {name}; {2 * MIB} bytes were written' in err, what + ': says how far', err)
    if lines:
        verdict(pieces(lines) == [(ZONE, MIB), (ZONE + MIB, MIB)], what + ': printed', lines)
    verdict(written() == 2 * MIB and content(ZONE, 2 * MIB) == DATA[:2 * MIB],
            what + ': what it said is there', written())
    sound(what)


def feed(p):
    try:
        while True:
            p.stdin.write(DATA)
    except (BrokenPipeError, ValueError):
        pass


def busy(name, number, backend):
    """Under full load: at least what was printed is there, and what was said exactly."""
    what = f'busy append, {backend}, {name}'
    create('zone.size=1G')
    p = start('append', '--backend=' + backend, 'z.qcow2', '0')
    feeder = threading.Thread(target=feed, args=(p,), daemon=True)
    feeder.start()
    lines = [p.stdout.readline()]
    p.send_signal(number)
    lines += p.stdout.readlines()
    status, err = end(p)
    feeder.join()
    printed = sum(n for _, n in pieces(lines))
    if number != signal.SIGKILL:
        verdict(status == -number and f'; {printed} bytes were written' in err, what + ': says',
                (status, printed, err))
        verdict(written(0) == printed, what + ': as many are there', (written(0), printed))
        sound(what)
        return
    verdict(status == -number and written(0) >= printed > 0, what + ': printed is there',
            (written(0), printed))
    got = content(0, printed)
    verdict(all(got[i:i + len(DATA)] == DATA[:printed - i] for i in range(0, printed, len(DATA))),
            what + ': as it was')
    given_back(what, printed)


def given_back(what, data):
    """After a kill: by repair, and in a copy by the next writable open."""
    subprocess.run(['cp', '--sparse=always', 'z.qcow2', 'y.qcow2'], check=True)
    run('check', '--repair=leaks', 'z.qcow2')
    run('io', '-c', 'quit', 'y.qcow2')
    for file, how in ('z.qcow2', 'repair'), ('y.qcow2', 'open'):
        res = json.loads(run('check', '--json', file).stdout)
        st = os.stat(file)
        verdict(res['corruptions'] == res['leaked_clusters'] == 0 and
                st.st_size <= res['image_end_offset'] and st.st_blocks * 512 <= written(0) + MIB,
                f'{what}, {how}: no space is lost', (res, st.st_size, st.st_blocks * 512, data))


def ignored():
    create()
    p = start('append', 'z.qcow2', str(ZONE),
              before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    p.stdin.write(DATA[:MIB])
    p.stdin.flush()
    p.send_signal(signal.SIGHUP)
    p.stdin.write(DATA[MIB:2 * MIB])
    p.stdin.close()
    out = p.stdout.read()
    verdict(p.wait() == 0 and len(out.splitlines()) == 2, 'a signal that is ignored stays so', out)


def commands(name):
    number = getattr(signal, name)
    create()
    p = start('io', 'z.qcow2')
    p.stdin.write(b'write 256M 64K\nlength\nwri')
    p.stdin.flush()
    lines = [p.stdout.readline() for _ in range(3)]
    p.send_signal(number)
    status, err = end(p)
    verdict(status == -number and f'io: stopped by {name}' in err, f'io, {name}: between commands',
            (status, err))
    verdict(lines[2] == b'1 GiB\n' and written() == 65536, f'io, {name}: what was done is kept')
    sound(f'io, {name}')


def file_limit():
    create()
    size = os.stat('z.qcow2').st_size + 4 * MIB
    size -= size % MIB

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    p = start('append', 'z.qcow2', str(ZONE), before=limit)
    out, err = p.communicate(DATA)
    verdict(p.returncode == 1 and b': File too large; ' in err, 'a file that may not grow', err)
    verdict(written() == sum(n for _, n in pieces(out.splitlines())), 'has what was printed', out)
    sound('a file that may not grow')


def flushes():
    """Not one for each piece."""
    if not counter:
        return
    create('zone.size=256M,zone.layout=v7,zone.max_append_bytes=4K')
    os.symlink(counter, 'counter.so') # a space would end the path
    env = dict(os.environ, LD_PRELOAD='./counter.so', ZQ_SYNCS='syncs')
    r = run('append', 'z.qcow2', '0', input=DATA[:4 * MIB], env=env)
    n, count = len(r.stdout.splitlines()), int(open('syncs').read().split()[0])
    print(f'# {n} pieces, {count} flushes of the host')
    verdict(n == 1024 and 0 < count < 64, 'pieces share their flushes', (n, count, r.stderr))


flushes()
for backend in 'file', 'uring', 'threads':
    create()
    if run('info', '--backend=' + backend, 'z.qcow2').stderr.find(b'is not available here') >= 0:
        continue
    for name in SIGNALS if backend == 'file' else SIGNALS[1:2]:
        stopped('append', name, backend)
        stopped('write', name, backend)
    busy('SIGTERM', signal.SIGTERM, backend)
    busy('SIGKILL', signal.SIGKILL, backend)
for name in SIGNALS:
    commands(name)
ignored()
file_limit()
print(f'1..{tests}')
sys.exit(failures > 0)
