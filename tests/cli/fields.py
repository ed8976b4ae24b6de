# SPDX-License-Identifier: MIT
"""The metadata of a qcow2 image, read by the format's document: fields by name, marks of bitmaps."""
import struct

OFFSET = 0x00fffffffffffe00
HEADER = [('l1_size', 36, 4), ('l1_table_offset', 40, 8), ('refcount_table_offset', 48, 8),
          ('refcount_table_clusters', 56, 4), ('nb_snapshots', 60, 4), ('snapshots_offset', 64, 8)]
HEADER_3 = [('incompatible_features', 72, 8), ('compatible_features', 80, 8),
            ('autoclear_features', 88, 8)]
RECORD = [('l1_table_offset', 0, 8), ('l1_size', 8, 4), ('id_size', 12, 2), ('name_size', 14, 2),
          ('extra_size', 36, 4)]
BITMAP = [('table_offset', 0, 8), ('table_size', 8, 4), ('flags', 12, 4), ('type', 16, 1),
          ('granularity_bits', 17, 1), ('name_size', 18, 2), ('extra_size', 20, 4)]
BITMAPS = 0x23852875


class Image:
    def __init__(self, name):
        with open(name, 'rb') as f:
            self.data = bytearray(f.read())
        self.version = self.get(4, 4)
        self.cluster = 1 << self.get(20, 4)
        self.size = self.get(24, 8)
        self.wide = self.version > 2 and self.get(72, 8) & 16
        self.header = self.get(100, 4) if self.version > 2 else 72

    def get(self, at, width):
        return int.from_bytes(self.data[at:at + width], 'big')

    def put(self, at, width, value):
        self.data[at:at + width] = value.to_bytes(width, 'big')

    def tables(self, name, l1, entries):
        """The fields of an L1 table and of its L2 tables."""
        for i in range(entries):
            yield f'{name} L1 {i}', l1 + 8 * i, 8
            l2 = self.get(l1 + 8 * i, 8) & OFFSET
            for at in range(l2, l2 + self.cluster, 8) if l2 else []:
                part = 'subclusters of ' if self.wide and (at - l2) % 16 else ''
                if self.get(at, 8):
                    yield f'{name} L2 {i}: {part}{(at - l2) // (16 if self.wide else 8)}', at, 8

    def refcounts(self):
        table = self.get(48, 8)
        for i in range(self.get(56, 4) * self.cluster // 8):
            block = self.get(table + 8 * i, 8) & OFFSET
            if block:
                yield f'refcount table {i}', table + 8 * i, 8
            for at in range(block, block + self.cluster, 2) if block else []:
                if self.get(at, 2):
                    yield f'refcount block {i}: byte {at - block}', at, 2

    def snapshots(self):
        at = self.get(64, 8)
        for i in range(self.get(60, 4)):
            for name, off, width in RECORD:
                yield f'snapshot {i} {name}', at + off, width
            yield from self.tables(f'snapshot {i}', self.get(at, 8), self.get(at + 8, 4))
            at += (40 + self.get(at + 36, 4) + self.get(at + 12, 2) + self.get(at + 14, 2) + 7) & ~7

    def directory(self):
        """Where the record of each bitmap lies."""
        at = self.header
        if self.version < 3 or not self.get(88, 8) & 1:
            return
        while self.get(at, 4) not in (0, BITMAPS):
            at += 8 + (self.get(at + 4, 4) + 7) // 8 * 8
        count, record = (self.get(at + 8, 4), self.get(at + 24, 8)) if self.get(at, 4) else (0, 0)
        for _ in range(count):
            yield record
            record += (24 + self.get(record + 20, 4) + self.get(record + 18, 2) + 7) & ~7

    def bitmaps(self):
        for i, record in enumerate(self.directory()):
            for name, off, width in BITMAP:
                yield f'bitmap {i} {name}', record + off, width
            for k in range(self.get(record + 8, 4)):
                yield f'bitmap {i} table {k}', self.get(record, 8) + 8 * k, 8

    def marks(self):
        """(flags, granularity, numbers of the granules that are marked) of each bitmap by name."""
        out = {}
        for record in self.directory():
            table, entries, flags = struct.unpack_from('>QII', self.data, record)
            name = record + 24 + self.get(record + 20, 4)
            granularity = 1 << self.data[record + 17]
            granules = -(-self.size // granularity)
            marked = set()
            for k in range(entries):
                entry = self.get(table + 8 * k, 8)
                block = self.data[entry & OFFSET:(entry & OFFSET) + self.cluster]
                if not entry & OFFSET:
                    block = (b'\xff' if entry & 1 else b'\0') * self.cluster
                first = k * self.cluster * 8
                marked.update(first + 8 * i + b for i, byte in enumerate(block) if byte
                              for b in range(8) if byte >> b & 1)
            out[self.data[name:name + self.get(record + 18, 2)].decode()] = (
                flags, granularity, {g for g in marked if g < granules})
        return out

    def groups(self):
        """Lists of (name, offset, bytes), one for each kind of table, without those that are empty."""
        header = HEADER + (HEADER_3 if self.version > 2 else [])
        active = list(self.tables('active', self.get(40, 8), self.get(36, 4)))
        lists = [header, active, list(self.refcounts()), list(self.snapshots()), list(self.bitmaps())]
        return [x for x in lists if x]
