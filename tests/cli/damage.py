# SPDX-License-Identifier: MIT
"""The image of a history is damaged; QEMU's program repairs one copy, zqcow2 another.

Of the disk and of every snapshot, the data that can be read as before in their copy must be so in
ours. Zeros and what the layers below hold are not counted: a lost cluster may read as either. Neither
check finds anything afterwards. Exceptions are those of docs/SPEC.md: damage to snapshots and bitmaps
stays, as do refcounts that are too narrow; a table of the disk that lies on one of a snapshot has a
higher rank; an image with a wrong header may be refused, and how often is printed.

Faults of qemu-img 7.2 that are met here: it reads a table behind the end of the file as zeros, which
brings back what is below; it may leave errors, or hang; after a wrong number of snapshots it writes
refcounts over their table. It is asked once, and judged by what can be read then.
"""
import subprocess

from fields import HEADER, HEADER_3, OFFSET, Image
from snapshots import TOOL

SECTOR = 512
UNREAD = ('refcount_table_offset', 'refcount_table_clusters', 'nb_snapshots', 'snapshots_offset')
REFUSED = tuple(name for name, _, _ in HEADER + HEADER_3 if name not in UNREAD)
# As the first word of a field. If L1 lies on refcounts, the field is wrong and nothing is repaired.
STAYS = ('snapshot', 'bitmap', 'nb_snapshots', 'autoclear', 'l1_table_offset')
OURS, THEIRS, BENT = 'ours.qcow2', 'theirs.qcow2', 'bent.qcow2'


def quiet(*words):
    """(status, output); a program that hangs has failed."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False,
                              timeout=60)
    except subprocess.TimeoutExpired:
        return -1, b''
    return done.returncode, done.stdout


def value(rng, fields, image, width, old):
    """One bit is wrong, another field is here, or a number near the right one."""
    other = rng.choice(fields)
    new = [old ^ 1 << rng.randrange(8 * width), image.get(other[1], width), old + 1, old - 1,
           old + image.cluster, old - image.cluster, 0, rng.getrandbits(8 * width)]
    return rng.choice([x for x in (n % (1 << 8 * width) for n in new) if x != old])


def below_rank(image):
    """The clusters that hold tables of snapshots and bitmaps."""
    at = {image.get(64, 8)} if image.get(60, 4) else set()
    for name, field, _ in image.snapshots():
        at |= {field, image.get(field, 8) & OFFSET if ' L1 ' in name else field}
    for name, field, _ in image.bitmaps():
        at |= {field, image.get(field, 8) & OFFSET if name.endswith('table_offset') else field}
    return {x // image.cluster for x in at}


def bend(rng, image):
    """Damages fields of some kinds of tables: what was done, as lines; whether a rank decides."""
    lower = below_rank(image)
    chosen = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        header, *others = image.groups()
        fields = rng.choice([header, *others * 3])  # most wrong headers are refused by both
        field, at, width = rng.choice(fields)
        chosen.append((field, at, width, value(rng, fields, image, width, image.get(at, width))))
    done = []
    ranks = False
    for field, at, width, new in chosen:
        lies_on = (new & OFFSET) // image.cluster in lower
        ranks |= lies_on and not field.startswith(('snapshot', 'bitmap'))
        done.append(f'{field}, {width} bytes at {at:#x}: {image.get(at, width):#x} becomes {new:#x}')
        image.put(at, width, new)
    return done, ranks


def read_theirs(snapshot):
    """What cannot be read is zeros here; without any answer it is nothing."""
    which = ['-l', snapshot] if snapshot else []
    status, _ = quiet('qemu-img', 'convert', '--salvage', '-q', '-f', 'qcow2', '-O', 'raw', *which,
                      THEIRS, 'got.raw')
    if status:
        return b''
    with open('got.raw', 'rb') as f:
        return f.read()


def read_ours(snapshot, at, size, need):
    """In smaller and smaller pieces where it fails, if there is something that we need."""
    which = ['--snapshot=' + snapshot] if snapshot else []
    status, out = quiet(TOOL, 'read', *which, OURS, str(at), str(size))
    if status == 0 and len(out) == size:
        return out
    if size <= SECTOR or not any(at <= n < at + size for n in need):
        return bytes(size)
    half = size // SECTOR // 2 * SECTOR
    return read_ours(snapshot, at, half, need) + read_ours(snapshot, at + half, size - half, need)


def kept(got, want, below):
    """The sectors of the image's own data that are there."""
    out = set()
    for at in range(0, min(len(got), len(want)), SECTOR):
        sector = want[at:at + SECTOR]
        if got[at:at + SECTOR] == sector and any(sector) and sector != below[at:at + SECTOR]:
            out.add(at)
    return out


def judge(h, snapshot, want):
    """Whether we keep more; h fails if they do."""
    below = h.below[-1][2] if h.below else b''
    theirs = kept(read_theirs(snapshot), want, below)
    ours = kept(read_ours(snapshot, 0, len(want), theirs), want, below)
    if theirs - ours:
        h.fail(f'{snapshot or "the disk"}: qemu-img keeps {len(theirs - ours)} sectors that zqcow2 '
               f'loses, the first at {min(theirs - ours)}')
    return len(ours) > len(theirs)


def repair(h, counts):
    """Both do; whether ours can be opened then."""
    theirs, _ = quiet('qemu-img', 'check', '-q', '-f', 'qcow2', '-r', 'all', THEIRS)
    ours, _ = quiet(TOOL, 'check', '--repair=all', OURS)
    if ours not in (0, 1, 2, 3):
        h.fail(f'repair: exit status {ours}')
    if quiet(TOOL, 'info', OURS)[0] == 0:
        return True
    counts['damaged: refused'] += 1
    counts['damaged: refused, but repaired by qemu-img'] += theirs == 0
    return False


def may_refuse(lines):
    """For a field of the header, but those of tables that only a writer needs."""
    return any(x.startswith(REFUSED) for x in lines)


def may_stay(h, lines):
    """A snapshot may have the wrong table, too, and version 2 has no entry that hides what is below."""
    own = any(x.startswith('active') for x in lines)
    return h.count_bits == 1 or any(x.startswith(STAYS) for x in lines) or \
        own and (h.snaps or h.v2 and h.below)


def one(h, counts):
    image = Image('a.qcow2')
    lines, ranks = bend(h.rng, image)
    h.log += lines
    for name in BENT, OURS, THEIRS:
        with open(name, 'wb') as f:
            f.write(image.data)
    counts['damaged'] += 1
    if not repair(h, counts):
        if not may_refuse(lines):
            h.fail('zqcow2 refuses the image')
        return
    named = not any('id_size' in x or 'name_size' in x for x in lines)
    disks = list(h.snaps.items()) if named and not ranks else []
    more = [judge(h, name, want) for name, want in [*disks, (None, h.held())]]
    counts['damaged: zqcow2 keeps more'] += any(more)
    if not ranks and not may_stay(h, lines):
        h.tool('check', OURS)
        h.run('qemu-img', 'check', '-q', '-f', 'qcow2', OURS)
        counts['damaged: clean again'] += 1


def damage(h, counts):
    done = len(h.log)
    for _ in range(3):
        del h.log[done:]
        one(h, counts)
