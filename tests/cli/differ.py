#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""differ.py ZQCOW2 SEED STEPS: everything that both programs do, in one history of one image.

Each step is a call of QEMU's program or of zqcow2: writes, zeros, discards and compressed writes,
snapshots, sizes, bitmaps, features, overlays, commits, rebases and copies. After each, both programs
must read what the model holds, of the disk and sometimes of each snapshot, both checks must be clean,
and the bitmaps must have a mark for everything that has changed. A history ends with damage.py.
"""
import collections
import json
import os
import shutil
import sys

from damage import damage
from fields import Image
from layers import apply, commands
from snapshots import TOOL, Plain

SECTOR = 512
STEPS = 25  # in a history
COUNTS = collections.Counter()


def fit(data, size):
    return bytearray(data[:size].ljust(size, b'\0'))


class Marks:
    """What a bitmap must have marked, and has, if it is disabled: numbers of granules."""

    def __init__(self, granularity, on):
        self.granularity = granularity
        self.on = on
        self.must = set()
        self.kept = None

    def add(self, at, end):
        self.must.update(range(at // self.granularity, -(-end // self.granularity)))

    def cut(self, size):
        self.must = {g for g in self.must if g * self.granularity < size}
        self.kept = None


class Geometry:
    """Random properties of an image that either program makes."""

    def __init__(self, r, alone=True):
        self.ours = r.random() < 0.5
        self.bits = r.choice([9, 9, 10, 12, 14, 16, 16, 16, 18, 21])
        self.v2 = not self.ours and r.random() < 0.3
        self.count_bits = 16
        words = [f'cluster_size={1 << self.bits}']
        if self.v2:
            words += ['compat=0.10']
        else:
            self.count_bits = r.choice([16, 16, 16, 32, 64, 8, 1])
            words += [f'refcount_bits={self.count_bits}']
            words += ['extended_l2=on'] * (self.bits >= 14 and r.random() < 0.4)
            words += ['compression_type=zstd'] * (r.random() < 0.3)
            words += ['lazy_refcounts=on'] * (r.random() < 0.3)
        if alone and r.random() < 0.15:
            words += ['preallocation=' + r.choice(['metadata', 'falloc', 'full'])]
        self.words = ','.join(words)


class World(Plain):
    raw = data = None  # as commands() asks for

    def __init__(self, seed):
        super().__init__(seed)
        self.step = 0
        self.marks = {}
        self.below = []  # (name, format, content, with snapshots or bitmaps); the nearest one last

    def fail(self, why):
        print(f'step {self.step}; sh tests/cli/differ.sh ZQCOW2 {self.step} {self.seed}')
        super().fail(why)

    def pick_size(self):
        return self.rng.randrange(1, 4096) * SECTOR * self.rng.choice([1, 1, 2])

    def has(self, geometry):
        self.bits, self.v2 = geometry.bits, geometry.v2
        self.count_bits = geometry.count_bits

    def begin(self):
        self.size = self.pick_size()
        self.now = bytearray(self.size)
        g = Geometry(self.rng)
        self.make(g)

    def make(self, g):
        base = ['-b', self.below[-1][0], '-F', self.below[-1][1]] if self.below else []
        words = [TOOL, 'create'] if g.ours else ['qemu-img', 'create', '-q', '-f', 'qcow2']
        self.run(*words, '-o', g.words, *base, 'a.qcow2', str(self.size))
        self.has(g)
        self.snaps, self.marks = {}, {}

    def may(self, *words):
        """Whether it was done; if it was refused, nothing has changed, which the next look shows."""
        self.run(*words, good=(0, 1))
        if self.status:
            self.log[-1] += ' # refused'
            COUNTS['refused'] += 1
        return self.status == 0

    def mine(self):
        return self.rng.random() < 0.5

    def changed(self, before):
        """Whatever differs now must be marked."""
        for m in self.marks.values():
            for at in range(0, self.size, SECTOR) if m.on and before != self.now else []:
                if before[at:at + SECTOR] != self.now[at:at + SECTOR]:
                    m.add(at, at + SECTOR)

    def write(self):
        script = [c for c in commands(self.rng, self) if 'write -c' not in c]
        script = script or ['write -P 7 0 512']
        before = bytes(self.now)
        unmap = self.mine()
        theirs = ['qemu-io', '-f', 'qcow2', '-d', 'unmap' if unmap else 'ignore']
        tool = [TOOL, 'io'] if self.mine() else theirs
        self.run(*tool, *[w for c in script for w in ('-c', c.replace('-zu', '-z -u'))], 'a.qcow2')
        for c in script:
            # QEMU ignores a discard if its options say so, or if no entry could hide what is below.
            if c[0] == 'd' and tool[0] != TOOL and (not unmap or self.v2 and self.below):
                continue
            apply(self, self.now, c)
        self.changed(before)

    # If QEMU 7.2 packs more into a cluster after a reopen, it may count the cluster twice: undone.
    def write_compressed(self):
        script = [c for _ in range(4) for c in commands(self.rng, self) if 'write -c' in c][:4]
        if not script:
            return
        before = bytes(self.now)
        shutil.copyfile('a.qcow2', 'before.qcow2')
        words = [w for c in script for w in ('-c', c)]
        said = self.run('qemu-io', '-f', 'qcow2', *words, 'a.qcow2', good=(0, 1)).decode()
        self.run('qemu-img', 'check', '-q', '-f', 'qcow2', 'a.qcow2', good=(0, 2, 3))
        if self.status:
            self.log[-1] += ' # damaged by QEMU, undone'
            COUNTS['damaged by QEMU alone'] += 1
            os.replace('before.qcow2', 'a.qcow2')
            return
        done = [line for line in said.splitlines() if line.startswith(('wrote', 'write failed'))]
        for c, line in zip(script, done, strict=True):
            if line.startswith('wrote'):  # it refuses clusters that have other data
                apply(self, self.now, c.replace('-c ', ''))
                COUNTS['compressed writes'] += 1
        self.changed(before)

    # Counts too narrow for a snapshot leave leaks when qemu-img fails: not asked of it.
    def take(self):
        if self.count_bits >= 16 and len(self.snaps) < 4:
            super().take()

    def apply(self):
        name = self.pick()
        if not name or self.v2 and len(self.snaps[name]) != self.size:
            return
        before, ours = bytes(self.now), self.mine()
        if ours:
            self.tool('snapshot', '-a', name, 'a.qcow2')
        # With bitmaps qemu-img keeps the size.
        elif not self.may('qemu-img', 'snapshot', '-a', name, 'a.qcow2'):
            if not self.marks:
                self.fail('refused')
            return
        self.now = bytearray(self.snaps[name])
        self.resized(len(self.now))
        if ours:  # qemu-img marks nothing here
            self.changed(fit(before, self.size))

    def resized(self, size):
        self.now = fit(self.now, size)
        self.size = size
        for m in self.marks.values():
            m.cut(size)

    # When QEMU 7.2 makes a disk larger, what was cut off from its last cluster before comes back.
    def resize(self):
        size = self.pick_size()
        if self.v2 and self.snaps:
            return
        if self.mine() or size > self.size and self.size % (1 << self.bits):
            self.tool('resize', '--shrink', 'a.qcow2', str(size))
        elif not self.may('qemu-img', 'resize', '-q', '--shrink', '-f', 'qcow2', 'a.qcow2', str(size)):
            # Without entries that read as zeros, what is below would show up in the new part.
            if not self.snaps and not self.marks and not (self.v2 and self.below):
                self.fail('refused')
            return
        self.resized(size)

    def bitmap(self):
        if self.v2:
            return
        words = [TOOL, 'bitmap'] if self.mine() else ['qemu-img', 'bitmap', '-f', 'qcow2']
        what = self.rng.choice(['add', 'add', 'remove', 'clear', 'enable', 'disable', 'merge'])
        if what == 'add' or not self.marks:
            if len(self.marks) < 3:
                self.add_bitmap(words)
        elif what == 'merge':
            self.merge()
        else:
            self.change_bitmap(words, what)

    def add_bitmap(self, words):
        name, off = self.name(), self.mine()
        granularity = self.rng.choice([512, 4096, 65536, 65536, 1 << 20])
        self.run(*words, '--add', '-g', str(granularity), *['--disable'] * off, 'a.qcow2', name)
        self.marks[name] = Marks(granularity, not off)

    def change_bitmap(self, words, what):
        name = self.rng.choice(sorted(self.marks))
        self.run(*words, '--' + what, 'a.qcow2', name)
        m = self.marks[name]
        m.kept = None
        if what == 'remove':
            del self.marks[name]
        elif what == 'clear':
            m.must = set()
        else:
            m.on = what == 'enable'

    def merge(self):
        if len(self.marks) < 2:
            return
        source, name = self.rng.sample(sorted(self.marks), 2)
        self.run('qemu-img', 'bitmap', '-f', 'qcow2', '--merge', source, 'a.qcow2', name)
        a, b = self.marks[source], self.marks[name]
        b.kept = None
        for g in a.must:
            b.add(g * a.granularity, min((g + 1) * a.granularity, self.size))

    # qemu-img 7.2 hangs on refcount_bits, and with compat=0.10 it leaks the clusters of bitmaps.
    def amend(self):
        what = self.rng.choice(['compat=0.10', 'compat=1.1', 'lazy_refcounts=on', 'lazy_refcounts=off',
                                'refcount_bits=' + self.rng.choice(['8', '16', '32', '64'])])
        ours = 'refcount' in what[:8] or what == 'compat=0.10' and self.marks or self.mine()
        if what == 'refcount_bits=8' and self.snaps:
            return
        words = [TOOL, 'amend'] if ours else ['qemu-img', 'amend', '-q', '-f', 'qcow2']
        if not self.may(*words, '-o', what, 'a.qcow2'):
            return
        if what.startswith('compat'):
            self.v2 = what == 'compat=0.10'
            self.marks = {} if self.v2 else self.marks
        if what.startswith('refcount'):
            self.count_bits = int(what[14:])

    def copy(self):
        """Into a new file, which sometimes takes the image's place; what it had is compared before."""
        name = self.pick() if self.mine() else None
        if name and len(self.snaps[name]) != self.size:
            name = None
        g = Geometry(self.rng, alone=False)
        words = ['convert', *['-c'] * self.mine(), '-O', 'qcow2', '-o', g.words]
        words += ['-S', self.rng.choice(['0', '4k', '64k'])] * (self.rng.random() < 0.3)
        if g.ours:
            which = [f'--snapshot={name}'] if name else []
            self.tool(*words, '--force', *which, 'a.qcow2', 'new.qcow2')
        else:
            self.run('qemu-img', *words, *(['-l', name] if name else []), 'a.qcow2', 'new.qcow2')
        want = self.snaps[name] if name else bytes(self.now)
        if self.rng.random() < 0.4:
            self.replace()
            self.below, self.marks = [], {}
            self.now = bytearray(want)
            self.has(g)
            return
        self.see('new.qcow2', want)

    def see(self, name, want, form='qcow2'):
        """A file beside the image, as both programs read it."""
        self.run('qemu-img', 'convert', '-f', form, '-O', 'raw', name, 'got.raw')
        self.run(TOOL, 'convert', '-f', form, '--force', name, 'ours.raw')
        for got in 'got.raw', 'ours.raw':
            with open(got, 'rb') as f:
                if f.read() != want:
                    self.fail(f'{name}: {got} is different')
        if form == 'qcow2':
            self.run('qemu-img', 'check', '-q', '-f', form, name)
            self.tool('check', name)

    def overlay(self):
        if len(self.below) > 2:
            return
        name = f'layer-{self.name()}.qcow2'
        os.rename('a.qcow2', name)
        self.log.append(f'mv a.qcow2 {name}')
        self.below.append((name, 'qcow2', bytes(self.now), bool(self.snaps or self.marks)))
        self.size = self.rng.choice([self.size, self.pick_size()])
        self.now = fit(self.now, self.size)
        self.make(Geometry(self.rng, alone=False))

    # Snapshots read what they lack from below, as it is now: commits and rebases without them.
    def commit(self):
        if not self.below or self.snaps:
            return
        name, form, old, kept = self.below[-1]
        words = ['commit', *['-d'] * self.mine(), 'a.qcow2']
        brings_back = form == 'qcow2' and self.size > len(old) and len(old) % Image(name).cluster
        done = self.may(*[TOOL] * bool(brings_back or self.mine()) or ['qemu-img'], *words)
        if not done and not kept and not self.marks:
            self.fail('refused')
        if done:
            self.below[-1] = (name, form, bytes(self.now) + old[self.size:], kept)
        self.see(*self.below[-1][0:3:2], form)

    # qemu-img 7.2 loses content if there was no backing file.
    def rebase(self):
        if self.snaps:
            return
        what = self.rng.choice(['', 'raw', 'lower'])
        below = []
        if what == 'raw':
            below = [(f'layer-{self.name()}.raw', 'raw', self.rng.randbytes(self.pick_size()), False)]
            with open(below[0][0], 'wb') as f:
                f.write(below[0][2])
        elif what == 'lower':
            below = self.below[:-1]
        words = ['rebase', '-b', below[-1][0], '-F', below[-1][1]] if below else ['rebase', '-b', '']
        if self.may(*['qemu-img'] if self.below and self.mine() else [TOOL], *words, 'a.qcow2'):
            self.below = below

    def check(self):
        super().check()
        self.compare(self.held(), None)
        for name, want in self.snaps.items():
            if self.rng.random() < 0.3:
                self.compare(want, name)
        if self.snaps:
            self.check_list()
        if not self.v2:
            self.check_bitmaps()

    def check_list(self):
        """IDs, names and times: the form of the rest changed with QEMU's versions."""
        def rows(text):
            words = [line.split() for line in text.split(b'\n')[2:]]
            return [(w[0], w[1], w[4], w[5]) for w in words if w]
        ours = rows(self.tool('snapshot', '-l', 'a.qcow2'))
        theirs = rows(self.run('qemu-img', 'snapshot', '-l', 'a.qcow2'))
        if ours != theirs or len(ours) < len(self.snaps):
            self.fail(f'the lists of snapshots: {ours}, {theirs}')

    def check_bitmaps(self):
        found = Image('a.qcow2').marks()
        if found.keys() != self.marks.keys():
            self.fail(f'bitmaps {sorted(found)}, not {sorted(self.marks)}')
        if not found:
            return
        info = json.loads(self.run('qemu-img', 'info', '--output=json', 'a.qcow2'))
        theirs = info['format-specific']['data']['bitmaps']
        ours = json.loads(self.tool('bitmap', '--list', '--json', 'a.qcow2'))
        for row in ours:
            del row['dirty-bytes']
        if ours != theirs or [x['name'] for x in ours] != list(found):
            self.fail(f'the lists of bitmaps: {ours}, {theirs}')
        for name, (flags, granularity, marked) in found.items():
            self.check_marks(name, flags, granularity, marked)

    def check_marks(self, name, flags, granularity, marked):
        m = self.marks[name]
        if flags != 2 * m.on or granularity != m.granularity:
            self.fail(f'bitmap {name} has the flags {flags} and the granularity {granularity}')
        if m.must - marked or m.kept not in (None, marked):
            self.fail(f'bitmap {name} lacks {m.must - marked}; disabled, it had {m.kept}')
        m.kept = None if m.on else marked
        ranges = json.loads(self.tool('bitmap', '--list', '--json', 'a.qcow2', name))
        listed = {g for x in ranges for g in range(
            x['start'] // granularity, -(-(x['start'] + x['length']) // granularity))}
        if listed != marked:
            self.fail(f'bitmap {name}: zqcow2 lists {listed ^ marked} otherwise')

    def steps(self):
        return [self.write] * 7 + [self.write_compressed] * 2 + [self.take] * 3 + [self.bitmap] * 4 + \
            [self.amend] * 2 + [self.resize] * 2 + [self.copy] * 2 + [self.overlay] * 2 + \
            [self.commit] * 2 + [self.rebase] * 2 + [self.delete, self.apply, self.apply]


def history(seed, steps):
    for name in os.listdir('.'):
        os.unlink(name)
    h = World(seed)
    h.begin()
    for h.step in range(1, steps + 1):
        done = len(h.log)
        while len(h.log) == done:  # many a step needs something that is not there
            what = h.rng.choice(h.steps())
            what()
        COUNTS[what.__name__.replace('_', ' ')] += 1
        done = len(h.log)
        h.check()
        del h.log[done:]
    h.compare_all()
    for layer in h.below:
        h.see(layer[0], layer[2], layer[1])
    damage(h, COUNTS)


def main():
    first, steps = int(sys.argv[2]), int(sys.argv[3])
    histories = -(-steps // STEPS)
    for i in range(histories):
        history(first + i, min(STEPS, steps - i * STEPS))
    print(', '.join(f'{v} {k}' for k, v in sorted(COUNTS.items())))
    print(f'differ: {steps} steps, {histories} histories, 0 differ')


if __name__ == '__main__':
    main()
