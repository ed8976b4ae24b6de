#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""corpus.py TOOL CORPUS: compares zqcow2 with the .json files beside the images of a corpus.

Each image is shown and read; then its history is run again on an image that zqcow2 creates, and the
result compared with the same .json. Ends with TAP.
"""
import glob
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

tool, corpus = sys.argv[1:3]
tests = failures = 0
KEYS = ('start', 'length', 'capacity', 'write_pointer', 'type', 'state')


def verdict(ok, name, detail=''):
    global tests, failures
    tests += 1
    failures += not ok
    print(('ok' if ok else 'not ok'), tests, '-', name)
    if not ok:
        print('\n'.join('# ' + line for line in str(detail).splitlines()[:20]))
    sys.stdout.flush()
    return ok


def zqcow2(*args):
    return subprocess.run([tool, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def must(name, *args):
    p = zqcow2(*args)
    verdict(p.returncode == 0, name, 'zqcow2 %s\n%s' % (' '.join(args), p.stdout))
    return p.stdout


def zones_of(image):
    out = zqcow2('report', '--json', image)
    try:
        return json.loads(out.stdout)
    except ValueError:
        return out.stdout


def wanted_zones(want, found):
    """The zones of a .json; where it lists only those that are not empty, the others are."""
    if 'zones' in want:
        return want['zones']
    zones = [dict(index=i, start=z['start'], length=z['length'], capacity=z['capacity'],
                  write_pointer=z['start'], type=2, state='EMPTY') for i, z in enumerate(found)]
    if len(zones) == want['nr_zones']:
        for z in want['zones_not_empty']:
            zones[z['index']] = z
    return zones


def compare_zones(name, want, image):
    found = zones_of(image)
    if isinstance(found, str):
        return verdict(False, name + ': zones', found)
    types = {1: 'conventional', 2: 'sequential'}
    wrong = []
    wanted = wanted_zones(want, found)
    for w, f in zip(wanted, found):
        w = dict(w, type=types[w['type']])
        wrong += ['zone %d: %s is %s, not %s' % (f['index'], k, f[k], w[k])
                  for k in KEYS if w[k] != f[k]]
    if len(wanted) != len(found) or len(found) != want.get('nr_zones', len(found)):
        wrong.append('%d zones, not %d' % (len(found), len(wanted)))
    return verdict(not wrong, name + ': %d zones' % len(wanted), '\n'.join(wrong))


def compare_writes(name, want, image):
    """For devices too large to read them whole twice: every pattern that was written is there."""
    reads = []
    for c in sum(want['commands'], []):
        words = c.split()
        if words[:3] == ['write', '-q', '-P']:
            reads += ['-c', ' '.join(['read'] + words[1:])]
    must(name + ': %d patterns' % (len(reads) // 2), 'io', '-r', *reads, image)


def compare_content(name, want, image):
    if 'sha256_of_content' not in want:
        return
    sha = hashlib.sha256()
    with subprocess.Popen([tool, 'read', image, '0', str(want['virtual_size'])],
                          stdout=subprocess.PIPE) as p:
        for piece in iter(lambda: p.stdout.read(1 << 20), b''):
            sha.update(piece)
    verdict(p.returncode == 0 and sha.hexdigest() == want['sha256_of_content'],
            name + ': content', 'sha256 %s, not %s' % (sha.hexdigest(), want['sha256_of_content']))


def options_of(want):
    """The options of the command line that made the image, as zqcow2 create takes them."""
    args = [w for w in re.findall(r'-o (\S+)', want['create'])]
    return ['-o', ','.join(args + ['zone.layout=' + want['layout']])]


def replay(name, want, pattern):
    image = 'replay.qcow2'
    must(name + ': create', 'create', '--force', *options_of(want), image)
    for commands in want['commands']:
        words = []
        for c in commands:
            words += ['-c', c.replace('PATTERN_FILE', pattern)]
        must(name + ': %d commands' % len(commands), 'io', *words, image)
    compare_zones(name, want, image)
    (compare_writes if want['virtual_size'] > 1 << 30 else compare_content)(name, want, image)
    must(name + ': check', 'check', image)


def read_pattern(base):
    """The 64 KiB of varied bytes that the histories wrote lie in the image `states` at 4096."""
    with gzip.open(os.path.join(base, '44', 'states.qcow2.gz')) as src, open('s.qcow2', 'wb') as to:
        shutil.copyfileobj(src, to)
    data = subprocess.run([tool, 'read', 's.qcow2', '4096', '65536'], stdout=subprocess.PIPE).stdout
    with open('pattern', 'wb') as to:
        to.write(data)
    verdict(len(data) == 65536 and len(set(data)) > 200, 'the pattern file')
    return 'pattern'


def main():
    pattern = read_pattern(corpus)
    for path in sorted(glob.glob(os.path.join(corpus, '*', '*.json'))):
        with open(path) as f:
            want = json.load(f)
        name = '%s/%s' % (want['layout'], want['name'])
        with gzip.open(path[:-5] + '.qcow2.gz') as src, open('image.qcow2', 'wb') as to:
            shutil.copyfileobj(src, to)
        info = json.loads(zqcow2('info', '--json', 'image.qcow2').stdout or '{}')
        verdict(info.get('layout') == want['layout'], name + ': layout', info)
        compare_zones(name, want, 'image.qcow2')
        compare_content(name, want, 'image.qcow2')
        must(name + ': check', 'check', 'image.qcow2')
        # QEMU's v7 lost the upper half of write pointers above 4 GiB; we do not, so that there the
        # same history must end as it did in layout 44.
        if want['layout'] == 'v7' and want['virtual_size'] > 1 << 32:
            with open(os.path.join(corpus, '44', want['name'] + '.json')) as f:
                other = json.load(f)
            want.update({k: other[k] for k in ('zones', 'zones_not_empty', 'sha256_of_content')
                         if k in other})
        replay(name + ' again', want, pattern)
    print('1..%d' % tests)
    return failures != 0


sys.exit(main())
