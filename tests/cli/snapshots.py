#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""snapshots.py ZQCOW2 FIRST COUNT: random histories of images with internal snapshots.

Plain images are written, made larger and smaller, compressed into a new file, and their snapshots
taken, applied and deleted by QEMU's programs and zqcow2 in turn; zoned ones by zqcow2. After every
step both programs check the image; both read every snapshot at the end, and before it is lost in a
new file. Each history has a seed: COUNT of them from FIRST on.
"""
import os
import random
import re
import subprocess
import sys

TOOL = sys.argv[1]
KIB = 1024
STEP = 16 * KIB  # what is written at a time
HOWS = ['compat=1.1', 'compat=0.10', 'compat=1.1,extended_l2=on', 'compat=1.1,lazy_refcounts=on',
        'compat=1.1,cluster_size=4096', 'compat=1.1,cluster_size=512', 'compat=1.1,refcount_bits=64',
        'compat=1.1,refcount_bits=8,cluster_size=2048']
LAYOUTS = ['44', '48b', '56', 'v7']


class History:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.seed = seed
        self.log = []
        self.snaps = {}
        self.names = 0

    def fail(self, why):
        print(f'seed {self.seed}: {why}')
        for line in self.log:
            print('  ' + line)
        sys.exit(1)

    def compare_all(self):
        self.compare(self.held(), None)
        for name, want in self.snaps.items():
            self.compare(want, name)

    def replace(self):
        """By the new file, which has what the disk has or, sometimes, a snapshot; no snapshots."""
        os.replace('new.qcow2', 'a.qcow2')
        self.snaps = {}

    def run(self, *args, data=None, good=(0,)):
        self.log.append(' '.join(args))
        done = subprocess.run(args, input=data, capture_output=True, check=False)
        self.status = done.returncode
        if done.returncode not in good:
            self.fail(f'exit status {done.returncode}: {done.stderr.decode(errors="replace")}')
        return done.stdout

    def tool(self, *args, data=None):
        return self.run(TOOL, *args, data=data)

    def pick(self):
        return self.rng.choice(sorted(self.snaps)) if self.snaps else None

    def name(self):
        self.names += 1
        return f's{self.names}'


class Plain(History):
    def begin(self):
        self.size = 64 * STEP
        self.how = self.rng.choice(HOWS)
        self.now = bytearray(self.size)
        if self.rng.random() < 0.25:
            self.now = bytearray(os.urandom(KIB) * (self.size // KIB))
            with open('seed.raw', 'wb') as f:
                f.write(self.now)
            self.run('qemu-img', 'convert', '-q', '-c', '-f', 'raw', '-O', 'qcow2', '-o', self.how,
                     'seed.raw', 'a.qcow2')
        else:
            self.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', self.how, 'a.qcow2',
                     str(self.size))

    def write(self):
        at = self.rng.randrange(self.size // STEP) * STEP + self.rng.choice([0, 0, 512, 4096])
        n = min(self.rng.choice([512, 4096, STEP, 3 * STEP]), self.size - at)
        value = self.rng.randrange(1, 255)
        if n <= 0:
            return
        if self.rng.random() < 0.5:
            self.run('qemu-io', '-f', 'qcow2', '-c', f'write -P {value} {at} {n}', 'a.qcow2')
        else:
            self.tool('write', 'a.qcow2', str(at), data=bytes([value]) * n)
        self.now[at:at + n] = bytes([value]) * n

    def snapshot(self, what, name):
        if self.rng.random() < 0.5:
            self.run('qemu-img', 'snapshot', what, name, 'a.qcow2')
        else:
            self.tool('snapshot', what, name, 'a.qcow2')

    def take(self):
        name = self.name()
        self.snapshot('-c', name)
        self.snaps[name] = bytes(self.now)

    def delete(self):
        name = self.pick()
        if name:
            self.snapshot('-d', name)
            del self.snaps[name]

    def apply(self):
        name = self.pick()
        if name:
            self.snapshot('-a', name)
            self.now = bytearray(self.snaps[name])
            self.size = len(self.now)

    def held(self):
        return bytes(self.now)

    def grow(self):
        if '0.10' in self.how or self.size > 200 * STEP:
            return
        if self.rng.random() < 0.5:
            self.run('qemu-img', 'resize', '-q', '-f', 'qcow2', 'a.qcow2', str(self.size + 5 * STEP))
        else:
            self.tool('resize', 'a.qcow2', str(self.size + 5 * STEP))
        self.now += bytes(5 * STEP)
        self.size += 5 * STEP

    # qemu-img makes no image smaller that has snapshots.
    def shrink(self):
        size = self.size - self.rng.randrange(1, 20) * STEP
        if '0.10' in self.how or size < 20 * STEP:
            return
        if not self.snaps and self.rng.random() < 0.5:
            self.run('qemu-img', 'resize', '-q', '--shrink', '-f', 'qcow2', 'a.qcow2', str(size))
        else:
            self.tool('resize', '--shrink', 'a.qcow2', str(size))
        self.now = self.now[:size]
        self.size = size

    # qemu-img -l keeps the size of the disk: only one of the same size.
    def compress(self):
        self.compare_all()
        name = self.pick() if self.rng.random() < 0.5 else None
        if name and len(self.snaps[name]) != self.size:
            name = None
        if self.rng.random() < 0.5:
            self.run('qemu-img', 'convert', '-q', '-c', '-f', 'qcow2', '-O', 'qcow2', '-o', self.how,
                     *(['-l', name] if name else []), 'a.qcow2', 'new.qcow2')
        else:
            self.how = re.sub('compat=[^,]*,?', '', self.how) or 'cluster_size=65536'
            self.tool('convert', '-c', '-O', 'qcow2', '-o', self.how,
                      *(['--snapshot=' + name] if name else []), 'a.qcow2', 'new.qcow2')
        if name:
            self.now = bytearray(self.snaps[name])
        self.replace()

    def check(self):
        self.run('qemu-img', 'check', '-q', '-f', 'qcow2', 'a.qcow2')
        self.tool('check', 'a.qcow2')

    def compare(self, want, name):
        ours, theirs = (['--snapshot=' + name], ['-l', name]) if name else ([], [])
        self.run('qemu-img', 'convert', '-q', '-f', 'qcow2', '-O', 'raw', *theirs, 'a.qcow2', 'got.raw')
        with open('got.raw', 'rb') as f:
            got = f.read()
        common = min(len(want), self.size)  # qemu-img -l keeps the size of the disk
        if len(got) != self.size or got[:common] != want[:common]:
            self.fail(f'qemu-img reads {name or "the disk"} differently')
        if self.tool('read', *ours, 'a.qcow2', '0', str(len(want))) != want:
            self.fail(f'zqcow2 reads {name or "the disk"} differently')

    def steps(self):
        return [self.write] * 4 + [self.take] * 3 + [self.delete, self.apply, self.apply, self.grow,
                                                        self.shrink, self.compress]


class Zoned(History):
    ZONE = 128 * KIB
    ZONES = 6

    def begin(self):
        self.cluster = self.rng.choice([512, 4096, 65536])
        self.zones = [b''] * self.ZONES
        self.tool('create', '-o', f'zone.size={self.ZONE},cluster_size={self.cluster},'
                  f'zone.layout={self.rng.choice(LAYOUTS)}', 'a.qcow2', str(self.ZONE * self.ZONES))

    def write(self):
        i = self.rng.randrange(len(self.zones))
        n = min(self.rng.choice([512, 4096, STEP, 3 * STEP]), self.ZONE - len(self.zones[i]))
        value = bytes([self.rng.randrange(1, 255)]) * n
        if n:
            self.tool('write', 'a.qcow2', str(i * self.ZONE + len(self.zones[i])), data=value)
            self.zones[i] += value

    def held(self):
        return self.zones

    def resize(self):
        n = self.rng.randrange(2, 9)
        self.tool('resize', *(['--shrink', '--discard-data'] if n < len(self.zones) else []), 'a.qcow2',
                  str(n * self.ZONE))
        self.zones = (self.zones + [b''] * n)[:n]

    def compress(self):
        self.compare_all()
        name = self.pick() if self.rng.random() < 0.5 else None
        self.tool('convert', '-c', '-O', 'qcow2', *(['--snapshot=' + name] if name else []), 'a.qcow2',
                  'new.qcow2')
        if name:
            self.zones = list(self.snaps[name])
        self.replace()

    def manage(self):
        i = self.rng.randrange(len(self.zones))
        what = self.rng.choice(['reset', 'reset', 'finish'])
        self.tool(what, '-o', str(i * self.ZONE), 'a.qcow2')
        self.zones[i] = b'' if what == 'reset' else self.zones[i].ljust(self.ZONE, b'\0')

    def take(self):
        name = self.name()
        self.tool('snapshot', '-c', name, 'a.qcow2')
        self.snaps[name] = list(self.zones)

    def delete(self):
        name = self.pick()
        if name:
            self.tool('snapshot', '-d', name, 'a.qcow2')
            del self.snaps[name]

    def apply(self):
        name = self.pick()
        if name:
            self.tool('snapshot', '-a', name, 'a.qcow2')
            self.zones = list(self.snaps[name])

    # Without bit 5 it is an ordinary image for qemu-img, to which tables of write pointers are leaks.
    def check(self):
        self.tool('check', 'a.qcow2')
        with open('a.qcow2', 'rb') as f:
            raw = bytearray(f.read())
        raw[79] &= 0xdf
        with open('plain.qcow2', 'wb') as f:
            f.write(raw)
        out = self.run('qemu-img', 'check', '-f', 'qcow2', 'plain.qcow2', good=(3,)).decode()
        leaks = re.search(r'(\d+) leaked clusters', out)
        if not leaks or int(leaks.group(1)) != 1 + len(self.snaps) or 'ERROR' in out:
            self.fail(f'qemu-img check, {len(self.snaps)} snapshots: {out}')
        listed = self.run('qemu-img', 'snapshot', '-l', 'plain.qcow2').decode()
        if sorted(re.findall(r'^\d+ +(s\d+) ', listed, re.M)) != sorted(self.snaps):
            self.fail(f'qemu-img lists\n{listed}')

    def compare(self, want, name):
        ours = ['--snapshot=' + name] if name else []
        bytes_ = b''.join(z.ljust(self.ZONE, b'\0') for z in want)
        if self.tool('read', *ours, 'a.qcow2', '0', str(len(bytes_))) != bytes_:
            self.fail(f'zqcow2 reads {name or "the disk"} differently')
        if name: # its pointers: as those of a copy, which has the same zones
            self.tool('convert', '--force', '-O', 'qcow2', *ours, 'a.qcow2', 'copy.qcow2')
        report = self.tool('report', 'copy.qcow2' if name else 'a.qcow2').decode()
        at = [int(x, 16) * 512 for x in re.findall(r'wptr 0x([0-9a-f]+)', report)]
        full = re.findall(r'zcond:14', report)
        got = [a for a, z in zip(at, want) if 0 < len(z) < self.ZONE]
        if got != [len(z) for z in want if 0 < len(z) < self.ZONE] or \
                len(full) != sum(len(z) == self.ZONE for z in want):
            self.fail(f'{name or "the disk"} has the zones\n{report}')

    def steps(self):
        return [self.write] * 5 + [self.manage] * 2 + [self.take] * 3 + \
            [self.delete, self.apply, self.apply, self.resize, self.compress]


def main():
    first, count = int(sys.argv[2]), int(sys.argv[3])
    steps = 0
    for seed in range(first, first + count):
        for name in os.listdir('.'):
            if name.endswith(('.qcow2', '.raw')):
                os.unlink(name)
        h = (Zoned if seed % 3 == 0 else Plain)(seed)
        h.begin()
        for _ in range(10):
            h.rng.choice(h.steps())()
            h.check()
            steps += 1
        h.compare_all()
    print(f'snapshot histories: {count} from seed {first}, {steps} steps, 0 differences')


if __name__ == '__main__':
    main()
