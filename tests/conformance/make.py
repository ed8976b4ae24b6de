#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""make.py: writes cases.json, the data of the conformance kit, from docs/SPEC.md alone: images are
put together byte by byte here, and what to expect of them is written down beside them. Run it
again after changing a case; make.py --check compares."""
import json
import re
import struct
import sys
import zlib
from pathlib import Path

CLUSTER = 4096
ZONE = 65536
PATTERN = 0x5A
APPENDED = 0xCD  # what an append writes
FIELDS = {  # of the zoned extension: offset in bytes, bytes
    "44": {"length": 44, "nr_zones": (4, 4), "zone_size": (8, 8), "zone_capacity": (16, 8), "table_offset": (24, 8),
           "conventional_zones": (32, 4), "max_active_zones": (36, 4), "max_open_zones": (40, 4)},
    "48b": {"length": 48, "nr_zones": (4, 4), "zone_size": (8, 8), "zone_capacity": (16, 8),
            "conventional_zones": (24, 4), "max_active_zones": (28, 4), "max_open_zones": (32, 4),
            "max_append_bytes": (36, 4), "table_offset": (40, 8)},
    "56": {"length": 56, "zone_size": (4, 8), "zone_capacity": (12, 8), "conventional_zones": (20, 4),
           "nr_zones": (24, 4), "max_active_zones": (28, 4), "max_open_zones": (32, 4), "max_append_bytes": (36, 4),
           "table_size": (40, 8), "table_offset": (48, 8)},
    "v7": {"length": 48, "zone_size": (4, 4), "zone_capacity": (8, 4), "conventional_zones": (12, 4),
           "nr_zones": (16, 4), "max_active_zones": (20, 4), "max_open_zones": (24, 4), "max_append_bytes": (28, 4),
           "table_size": (32, 8), "table_offset": (40, 8)},
    "v3": {"length": 48, "zone_size": (4, 4), "zone_capacity": (8, 4), "conventional_zones": (12, 4),
           "nr_zones": (16, 4), "max_active_zones": (20, 4), "max_open_zones": (24, 4), "max_append_bytes": (28, 4),
           "table_offset": (32, 8), "table_size": (40, 8)},
}
NEW = ("44", "48b")  # big-endian tables, the flag in bit 63
EXTENSION = 112  # where the extension's header is


def chunks_of(parts):
    chunks = []
    for offset, part in sorted(parts.items()):
        for run in re.finditer(rb"(.)\1{63,}|(?:(?!(.)\2{63}|\0{16}).)+", part, re.S):
            repeated = run[1] is not None
            if run[0].strip(b"\0"):
                chunks.append([offset + run.start(), (run[1] if repeated else run[0]).hex(),
                               len(run[0]) if repeated else 1])
    return chunks


class Plain:
    """A file of the same bytes throughout."""

    beside = {}

    def __init__(self, length, pattern):
        self.length, self.pattern = length, pattern

    def built(self):
        return {"length": self.length, "chunks": [[0, f"{self.pattern:02x}", self.length]]}


class Image:
    """Bytes by offset, and what an implementation must find in them."""

    def __init__(self, layout, size=4 * ZONE, capacity=ZONE, conventional=1, active=0, open_=0, little=True,
                 states=False, bit=True, unit=CLUSTER, **wrong):
        self.layout, self.size, self.capacity, self.conventional = layout, size, capacity, conventional
        self.unit = unit  # bytes of a cluster
        self.little = little and layout not in NEW
        self.states = states
        self.bytes = {}
        self.clusters = 6  # header, refcounts (2), L1, table, L2
        self.extra = {}  # refcounts that nothing explains
        self.shared = {}  # refcounts above 1
        self.header = {"incompatible": 0, "autoclear": 0, "snapshots": (0, 0), "backing": b""}
        self.more = []  # header extensions: (type, data)
        self.beside = {}  # other files, by name
        self.nr = -(-size // ZONE)
        self.entries = [self.entry(i, i * ZONE) for i in range(self.nr)]
        self.l2 = [0] * (size // unit)
        self.parts = {}  # of clusters with subclusters: which are allocated, and which are zeros
        self.outside = None  # the data file's bytes
        self.values = {"zoned": 1, "nr_zones": self.nr, "zone_size": ZONE, "zone_capacity": capacity,
                       "conventional_zones": conventional, "max_active_zones": active, "max_open_zones": open_,
                       "max_append_bytes": 0, "table_size": 8 * self.nr, "table_offset": 4 * self.unit,
                       "length": FIELDS[layout]["length"], "bit": bit, **wrong}

    def entry(self, zone, offset, state=None):
        flag = (1 << 63 if self.layout in NEW else 1 << 59) if zone < self.conventional else 0
        if self.states and not flag:
            begin, end = zone * ZONE, min(zone * ZONE + self.capacity, self.size)
            state = state or (1 if offset == begin else 14 if offset >= end else 4)
            offset |= state << 60
        return offset | flag

    def wp(self, zone, offset):
        """Stores a write pointer, relative to the zone."""
        self.entries[zone] = self.entry(zone, zone * ZONE + offset)
        return self

    def data(self, offset, length, pattern=PATTERN):
        """Maps and fills whole clusters; the rest of the last one has other bytes, which no read shows."""
        for at in range(offset, offset + length, self.unit):
            content = (bytes([pattern]) * min(self.unit, offset + length - at)).ljust(self.unit, b"\xEE")
            if self.outside is None:
                self.l2[at // self.unit] = self.cluster(content) | 1 << 63
            else:
                self.outside[at] = content
                self.l2[at // self.unit] = at | 1 << 63
        return self

    def data_file(self, name):
        """From now on, data lies in another file, where the device has it."""
        self.outside = {}
        self.header["incompatible"] |= 1 << 2
        self.more.append((0x44415441, name.encode()))
        return self

    def some(self, offset, allocated, zeros, pattern=PATTERN):
        """Maps a cluster of which some of the 32 subclusters, as bits, are data or zeros."""
        self.header["incompatible"] |= 1 << 4
        self.data(offset, self.unit, pattern)
        self.parts[offset // self.unit] = allocated | zeros << 32
        return self

    def cluster(self, content, count=1):
        """One more cluster of the file; where it is."""
        host = self.clusters * self.unit
        self.bytes[host] = content.ljust(self.unit, b"\0")
        self.clusters += 1
        if count != 1:
            self.shared[host // self.unit] = count
        return host

    def packed(self, offset, pattern=PATTERN):
        """Maps a compressed cluster."""
        deflate = zlib.compressobj(wbits=-12)
        host = self.cluster(deflate.compress(bytes([pattern]) * self.unit) + deflate.flush())
        self.l2[offset // self.unit] = 1 << 62 | host  # of one sector
        return self

    def zeros(self, offset):
        """A cluster that reads as zeros, without a place."""
        self.l2[offset // self.unit] = 1
        return self

    def backed(self, name, below, form=b"qcow2"):
        """Stands on another file: an Image, or bytes of a pattern."""
        self.header["backing"] = name.encode()
        self.more.append((0xE2792ACA, form))
        self.beside[name] = below
        return self

    def snapshot(self):
        """Shares all that is mapped with a snapshot of the same size."""
        self.l2 = [e & ~(1 << 63) for e in self.l2]
        for e in self.l2:
            if e >> 62 == 0 and e > 1:
                self.shared[e // self.unit] = 2
        self.shared[5] = 2
        l1 = self.cluster(struct.pack(">Q", 5 * self.unit))
        record = struct.pack(">QIHHIIQII", l1, 1, 1, 4, 0, 0, 0, 0, 24) + struct.pack(">QQQ", 0, self.size, 1 << 64 - 1)
        self.header["snapshots"] = (1, self.cluster(record + b"1taken"))
        return self

    def stores(self, states, valid=True):
        """States of zones that do not follow from a write pointer: {zone: 13 or 15}."""
        table = self.cluster(bytes(states.get(zone, 0) for zone in range(self.nr)))
        self.header["autoclear"] = valid << 63
        self.more.append((0x7A713273, struct.pack(">QIIQQQ", table, self.nr, 0, 0, 0, 0)))
        return self

    def mapping(self):
        if not self.header["incompatible"] & 1 << 4:
            return b"".join(struct.pack(">Q", e) for e in self.l2)
        return b"".join(struct.pack(">QQ", e, self.parts.get(i, (1 << 32) - 1 if e else 0))
                        for i, e in enumerate(self.l2))

    def built(self):
        """The file: its length, and [offset, hex, times] of what is not zero."""
        v, fields, h = self.values, FIELDS[self.layout], self.header
        head = struct.pack(">IIQIIQIIQQIIQQQQII", 0x514649FB, 3, 0, 0, self.unit.bit_length() - 1, self.size, 0, 1, 3 * self.unit, self.unit, 1,
                           *h["snapshots"], (1 << 5) * v["bit"] | h["incompatible"], 0, h["autoclear"], 4,
                           112).ljust(112, b"\0")
        extension = bytearray(max(v["length"], fields["length"]))
        extension[0] = v["zoned"]
        for name, place in fields.items():
            if name != "length":
                at, n = place
                extension[at:at + n] = (v[name] & (1 << 8 * n) - 1).to_bytes(n, "big")
        for at, value in v.get("raw", {}).items():
            extension[at] = value
        extension = bytes(extension[:v["length"]]).ljust((v["length"] + 7) // 8 * 8, b"\0")
        head += struct.pack(">II", 0x007A6264, v["length"]) + extension
        for kind, data in self.more:
            head += struct.pack(">II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")
        head += bytes(8)
        if h["backing"]:
            head = head[:8] + struct.pack(">QI", len(head), len(h["backing"])) + head[20:] + h["backing"]
        counts = [self.shared.get(i, 1) for i in range(self.clusters)]
        self.clusters += len(self.extra)
        counts += [1] * len(self.extra)
        parts = {0: head, self.unit: struct.pack(">Q", 2 * self.unit),
                 2 * self.unit: b"".join(struct.pack(">H", n) for n in counts),
                 3 * self.unit: struct.pack(">Q", 5 * self.unit | (5 not in self.shared) << 63),
                 4 * self.unit: b"".join(struct.pack("<Q" if self.little else ">Q", e) for e in self.entries),
                 5 * self.unit: self.mapping(), **self.bytes}
        return {"length": self.clusters * self.unit, "chunks": chunks_of(parts)}

    def zones(self, **changed):
        """What a report shows: [start, length, capacity, write pointer, state]."""
        out = []
        for i in range(self.nr):
            start = i * ZONE
            length = min(ZONE, self.size - start)
            if i < self.conventional:
                out.append([start, length, length, None, "not_wp"])
                continue
            capacity = min(self.capacity, length)
            wp = self.entries[i] & (1 << 59) - 1
            state = "empty" if wp == start else "full" if wp >= start + capacity else "closed"
            out.append([start, length, capacity, None if state == "full" else wp, state])
        for i, zone in changed.items():
            out[int(i[1:])] = zone
        return out


def good(layout, outside=None, **options):
    """A conventional zone, one that is empty, one that is partly written, and one that is full."""
    image = Image(layout, **options)
    if outside:
        image.data_file(outside)
    image.data(512 * 8, 4096).data(2 * ZONE, 8192 + 512).data(3 * ZONE, 4096)
    image.wp(2, 8192 + 512)
    end = image.capacity if layout in NEW else ZONE
    return image.wp(3, end)


def read(offset, length, pattern):
    return {"do": ["read", offset, length, pattern], "expect": ["data", pattern]}


def whole(do):
    """A command for zones without a length has that of a zone."""
    return [*do, ZONE] if do[0].startswith("zone-") and len(do) == 2 else list(do)


def ok(*do):
    return {"do": whole(do), "expect": ["ok"]}


def fails(error, *do):
    return {"do": whole(do), "expect": ["error", error]}


def report(zones):
    return {"do": ["report", len(zones)], "expect": ["zones", zones]}


READS = [read(4096, 4096, PATTERN), read(0, 4096, 0), read(ZONE, ZONE, 0), read(2 * ZONE, 8704, PATTERN),
         read(2 * ZONE + 8704, ZONE - 8704, 0), read(3 * ZONE, 4096, PATTERN), read(3 * ZONE + 4096, 4096, 0)]


def opened():
    """Layouts: reports and reads."""
    for layout in FIELDS:
        image = good(layout)
        yield f"open-{layout}", "sections 4 and 5", image, [report(image.zones())] + READS
        image = good(layout, capacity=ZONE // 2)
        yield f"capacity-{layout}", "zone_capacity", image, [report(image.zones()), fails(
            "any", "write", 3 * ZONE + ZONE // 2, 512, 1)] + READS[:4]
        image = good(layout, size=4 * ZONE + 8192, active=3, open_=2)
        yield f"short-last-zone-{layout}", "nr_zones, short last zone", image, [report(image.zones())] + READS
        image = good(layout, conventional=0)
        image.wp(0, 8192)
        yield f"no-conventional-zone-{layout}", "conventional_zones", image, [report(image.zones())] + READS
    for layout in ("56", "v7", "v3"):
        image = good(layout, little=False)
        yield f"big-endian-{layout}", "detection of byte order", image, [report(image.zones())] + READS
    for little in (True, False):
        image = good("v3", states=True, little=little)
        yield f"states-{'little' if little else 'big'}-v3", "state bits", image, [report(image.zones())] + READS
    for layout in ("v7", "v3"):
        image = good(layout, bit=False)
        yield f"no-feature-bit-{layout}", "feature bit 5", image, [report(image.zones())] + READS
    for layout in ("44", "48b"):
        image = good(layout, capacity=ZONE // 2)
        image.wp(3, ZONE - 512)  # between the capacity and the next zone
        yield f"beyond-the-capacity-{layout}", "sequential zone: FULL", image, [report(image.zones())]


def damaged():
    """What must be refused."""
    for layout in FIELDS:
        wrong = {
            "nr-zones": {"nr_zones": 5}, "nr-zones-0": {"nr_zones": 0}, "zone-size": {"zone_size": ZONE - CLUSTER},
            "zone-size-small": {"zone_size": CLUSTER // 2}, "zone-size-0": {"zone_size": 0},
            "capacity-large": {"zone_capacity": ZONE + 512}, "capacity-odd": {"zone_capacity": 1000},
            "capacity-0": {"zone_capacity": 0}, "all-conventional": {"conventional_zones": 4},
            "open-above-active": {"max_active_zones": 1, "max_open_zones": 2}, "model": {"zoned": 2},
            "table-0": {"table_offset": 0}, "table-odd": {"table_offset": 4 * CLUSTER + 512},
            "table-beyond": {"table_offset": 1 << 40}, "table-on-l1": {"table_offset": 3 * CLUSTER},
            "length": {"length": 40}, "length-long": {"length": 64},
        }
        if "table_size" in FIELDS[layout]:
            wrong["table-size"] = {"table_size": 24}
        for name, values in wrong.items():
            yield f"{name}-{layout}", "section 4", good(layout, **values), [fails("any", "open")]
        flag = 1 << 63 if layout in NEW else 1 << 59
        for name, zone, value in (
                ("pointer-below", 2, ZONE), ("pointer-above", 2, 3 * ZONE + 512), ("pointer-odd", 2, 2 * ZONE + 100),
                ("flag-missing", 0, 0), ("flag-too-many", 1, ZONE | flag), ("conventional-elsewhere", 0, 2 * ZONE | flag)):
            image = good(layout)
            image.entries[zone] = value
            yield f"{name}-{layout}", "section 5", image, [fails("any", "open")]
    for layout in ("44", "48b", "56"):
        yield f"no-feature-bit-{layout}", "feature bit 5", good(layout, bit=False), [fails("any", "open-rw")]
    image = good("v3", states=True)
    image.entries[1] = ZONE | 7 << 60
    yield "state-7-v3", "state bits", image, [fails("any", "open")]


def commands():
    """Sequences of commands: what each does, what it refuses."""
    for layout in ("44", "48b", "56", "v7"):
        image = Image(layout)
        yield f"write-{layout}", "a sequential zone is written at its write pointer", image, [
            ok("write", ZONE, 4096, 1), fails("wp", "write", ZONE, 512, 2), fails("wp", "write", ZONE + 8192, 512, 2),
            ok("write", ZONE + 4096, 512, 2), report(image.zones(z1=[ZONE, ZONE, ZONE, ZONE + 4608, "imp_open"])),
            read(ZONE, 4096, 1), read(ZONE + 4096, 512, 2), read(ZONE + 4608, 4096, 0),
            fails("boundary", "write", ZONE + 4608, ZONE, 3), ok("write", ZONE + 4608, ZONE - 4608, 3),
            report(image.zones(z1=[ZONE, ZONE, ZONE, None, "full"])), fails("full", "append", ZONE, 512),
            ok("write", 8192, 4096, 5), ok("write", 0, 512, 6), read(8192, 4096, 5), ok("reopen"),
            report(image.zones(z1=[ZONE, ZONE, ZONE, None, "full"])), read(ZONE + 4608, ZONE - 4608, 3),
            read(8192, 4096, 5), read(0, 512, 6)]
        image = Image(layout)
        yield f"append-{layout}", "an append goes to the write pointer", image, [
            ok("append", 2 * ZONE, 4096), ok("append", 2 * ZONE, 512),
            report(image.zones(z2=[2 * ZONE, ZONE, ZONE, 2 * ZONE + 4608, "imp_open"])), read(2 * ZONE, 4096, APPENDED),
            read(2 * ZONE + 4096, 512, APPENDED), fails("any", "append", 0, 512),
            fails("any", "append", 2 * ZONE + 512, 512), ok("flush"), ok("reopen"),
            report(image.zones(z2=[2 * ZONE, ZONE, ZONE, 2 * ZONE + 4608, "closed"])),
            ok("append", 2 * ZONE, 512), read(2 * ZONE + 4608, 512, APPENDED)]
        image = Image(layout)
        yield f"states-{layout}", "open, close, finish, reset", image, [
            ok("zone-open", ZONE), report(image.zones(z1=[ZONE, ZONE, ZONE, ZONE, "exp_open"])), ok("zone-close", ZONE),
            report(image.zones()), ok("zone-open", ZONE), ok("append", ZONE, 4096), ok("zone-close", ZONE),
            report(image.zones(z1=[ZONE, ZONE, ZONE, ZONE + 4096, "closed"])), ok("zone-finish", ZONE),
            report(image.zones(z1=[ZONE, ZONE, ZONE, None, "full"])), read(ZONE, 4096, APPENDED),
            read(ZONE + 4096, ZONE - 4096, 0), ok("reopen"), report(image.zones(z1=[ZONE, ZONE, ZONE, None, "full"])),
            ok("zone-reset", ZONE), report(image.zones()), read(ZONE, 4096, 0), ok("append", ZONE, 512),
            read(ZONE, 512, APPENDED), read(ZONE + 512, 4096, 0), ok("zone-reset", ZONE), ok("reopen"),
            report(image.zones()), read(ZONE, 4096, 0), fails("state", "zone-reset", 0)]
        image = Image(layout, size=8 * ZONE, active=3, open_=2)
        yield f"limits-{layout}", "max_open_zones, max_active_zones, implicit close", image, [
            ok("zone-open", ZONE), ok("zone-open", 2 * ZONE), fails("open", "zone-open", 3 * ZONE),
            fails("open", "append", 3 * ZONE, 512), ok("append", ZONE, 512), ok("append", 2 * ZONE, 512),
            ok("zone-close", ZONE), ok("append", 3 * ZONE, 512),
            fails("active", "append", 4 * ZONE, 512),
            report(image.zones(z1=[ZONE, ZONE, ZONE, ZONE + 512, "closed"],
                               z2=[2 * ZONE, ZONE, ZONE, 2 * ZONE + 512, "exp_open"],
                               z3=[3 * ZONE, ZONE, ZONE, 3 * ZONE + 512, "imp_open"])),
            ok("append", ZONE, 512),  # closes zone 3
            report(image.zones(z1=[ZONE, ZONE, ZONE, ZONE + 1024, "imp_open"],
                               z2=[2 * ZONE, ZONE, ZONE, 2 * ZONE + 512, "exp_open"],
                               z3=[3 * ZONE, ZONE, ZONE, 3 * ZONE + 512, "closed"])),
            ok("zone-finish", 3 * ZONE), ok("append", 4 * ZONE, 512)]
        image = Image(layout)
        full = [ZONE, ZONE, ZONE, None, "full"]
        yield f"zeroes-{layout}", "zeros advance a write pointer; a sequential zone has no discard", image, [
            ok("write-zeroes", ZONE, 4096), fails("wp", "write-zeroes", ZONE, 4096), ok("append", ZONE, 512),
            fails("any", "discard", ZONE, 4096), read(ZONE, 4096, 0), read(ZONE + 4096, 512, APPENDED),
            ok("write-zeroes", ZONE + 4608, ZONE - 4608), report(image.zones(z1=full)),
            ok("write", 4096, 8192, 3), ok("write-zeroes", 4096, 4096), ok("discard", 8192, 4096),
            read(4096, 4096, 0), ok("reopen"), report(image.zones(z1=full)), read(ZONE, 4096, 0),
            read(ZONE + 4096, 512, APPENDED), read(4096, 4096, 0)]
        image = Image(layout)
        yield f"ranges-{layout}", "ranges of whole zones; the form for all zones", image, [
            fails("any", "zone-reset", ZONE + 512, ZONE), fails("any", "zone-finish", ZONE, 512),
            fails("any", "zone-open", 3 * ZONE, 2 * ZONE), fails("any", "write", 4 * ZONE, 512, 1),
            fails("any", "append", 4 * ZONE, 512), report(image.zones()), ok("zone-finish", ZONE, 2 * ZONE),
            report(image.zones(z1=full, z2=[2 * ZONE, ZONE, ZONE, None, "full"])), ok("append", 3 * ZONE, 512),
            ok("zone-reset", 0, 4 * ZONE), report(image.zones()), read(3 * ZONE, 512, 0), ok("reopen"),
            report(image.zones()), read(0, 4 * ZONE, 0)]
        image = good(layout)
        yield f"update-{layout}", "an image that another program wrote", image, [
            fails("wp", "write", 2 * ZONE, 512, 9), ok("append", 2 * ZONE, 4096), read(2 * ZONE, 8704, PATTERN),
            read(2 * ZONE + 8704, 4096, APPENDED), read(2 * ZONE + 12800, 4096, 0), ok("zone-reset", 3 * ZONE),
            read(3 * ZONE, 4096, 0), ok("reopen"), read(2 * ZONE + 8704, 4096, APPENDED),
            report(image.zones(z2=[2 * ZONE, ZONE, ZONE, 2 * ZONE + 12800, "closed"],
                               z3=[3 * ZONE, ZONE, ZONE, 3 * ZONE, "empty"]))]


def power_cuts():
    """What a power cut may leave: images that are to be opened, and whose old bytes nobody may see."""
    for layout in ("44", "48b", "56", "v7"):
        image = Image(layout).data(2 * ZONE, 16384, 0x66).wp(2, 4096)
        yield f"pointer-lags-{layout}", "order of writes; beyond a write pointer", image, [
            report(image.zones()), read(2 * ZONE, 4096, 0x66), read(2 * ZONE + 4096, 12288, 0),
            ok("append", 2 * ZONE, 512), read(2 * ZONE + 4096, 512, APPENDED), read(2 * ZONE + 4608, 8192, 0),
            ok("zone-finish", 2 * ZONE), read(2 * ZONE + 4608, ZONE - 4608, 0), ok("reopen"),
            read(2 * ZONE, 4096, 0x66), read(2 * ZONE + 4608, ZONE - 4608, 0)]
        image = Image(layout).data(ZONE, 8192, 0x66)
        yield f"reset-without-unmap-{layout}", "an entry that returns to EMPTY may be written first", image, [
            report(image.zones()), read(ZONE, ZONE, 0), ok("append", ZONE, 512), read(ZONE, 512, APPENDED),
            read(ZONE + 512, 8192, 0), ok("reopen"), read(ZONE + 512, 8192, 0)]
        image = good(layout)
        image.extra = {1: 1, 2: 1}
        yield f"leak-{layout}", "a cluster that nothing refers to", image, [
            report(image.zones()), ok("append", 2 * ZONE, 4096), read(2 * ZONE, 8704, PATTERN), ok("reopen"),
            read(2 * ZONE + 8704, 4096, APPENDED)]
        image = Image(layout).wp(1, 8192)
        yield f"pointer-without-data-{layout}", "written with zeros: nothing is mapped", image, [
            report(image.zones()), read(ZONE, ZONE, 0), ok("append", ZONE, 512), read(ZONE + 8192, 512, APPENDED)]


def still(name, host, length, pattern):
    """Bytes of a file, which the kit itself reads."""
    return {"do": ["bytes", name, host, length], "expect": ["data", pattern]}


def state(image, zone, what):
    start = zone * ZONE
    return image.zones(**{f"z{zone}": [start, ZONE, image.capacity, None, what]})


def layers():
    """Images on backing files: what of them is content."""
    for layout in ("44", "56", "v7"):
        below = good(layout).data(2 * ZONE + 12288, 4096, 0x66)  # beyond its write pointer
        image = Image(layout).wp(2, 8704).wp(3, ZONE).backed("below.qcow2", below)
        yield f"read-{layout}", "a cluster without an entry reads as below", image, [report(image.zones())] + READS
        image = Image(layout).wp(2, 4096).backed("below.qcow2", below)
        yield f"pointer-behind-{layout}", "beyond the image's own pointer nothing is content", image, [
            read(2 * ZONE, 4096, PATTERN), read(2 * ZONE + 4096, ZONE - 4096, 0), read(3 * ZONE, ZONE, 0),
            ok("append", 2 * ZONE, 512), read(2 * ZONE, 4096, PATTERN), read(2 * ZONE + 4096, 512, APPENDED),
            read(2 * ZONE + 4608, 8192, 0), ok("zone-finish", 2 * ZONE), read(2 * ZONE + 4608, ZONE - 4608, 0),
            ok("reopen"), read(2 * ZONE + 4608, ZONE - 4608, 0), read(2 * ZONE, 4096, PATTERN)]
        image = Image(layout).data(2 * ZONE + 8192, 24576, 0x33).wp(2, 32768).backed("below.qcow2", below)
        yield f"pointer-ahead-{layout}", "the image has written on", image, [
            read(2 * ZONE, 8192, PATTERN), read(2 * ZONE + 8192, 24576, 0x33), ok("append", 2 * ZONE, 512),
            read(2 * ZONE + 8192, 24576, 0x33), read(2 * ZONE + 32768, 512, APPENDED),
            read(2 * ZONE + 33280, ZONE - 33280, 0)]
        image = Image(layout).wp(2, 32768).backed("below.qcow2", below)
        yield f"changed-below-{layout}", "what is below the pointer and nowhere mapped is not invented", image, [
            read(2 * ZONE, 8704, PATTERN), fails("any", "read", 2 * ZONE + 8704, 512, 0), read(4096, 4096, PATTERN)]
        image = Image(layout).wp(2, 8704).wp(3, ZONE).backed("below.qcow2", below)
        yield f"reset-{layout}", "after a reset nothing of the backing file comes back", image, [
            ok("zone-reset", 2 * ZONE), read(2 * ZONE, ZONE, 0), ok("append", 2 * ZONE, 512),
            read(2 * ZONE, 512, APPENDED), read(2 * ZONE + 512, ZONE - 512, 0), ok("reopen"),
            read(2 * ZONE, 512, APPENDED), read(2 * ZONE + 512, ZONE - 512, 0), read(3 * ZONE, 4096, PATTERN)]
        image = Image(layout).backed("below.qcow2", below)
        yield f"overwrite-{layout}", "a cluster keeps what was not written", image, [
            ok("write", 4096 + 1024, 512, 7), read(4096, 1024, PATTERN), read(4096 + 1024, 512, 7),
            read(4096 + 1536, 2560, PATTERN), ok("write-zeroes", 4096, 512), read(4096, 512, 0), ok("reopen"),
            read(4096, 512, 0), read(4096 + 512, 512, PATTERN), read(4096 + 1024, 512, 7), ok("write-zeroes", 4096, 4096),
            ok("reopen"), read(4096, 4096, 0)]
        middle = Image(layout).wp(2, 4096).backed("below.qcow2", below)
        image = Image(layout).wp(2, 4096).backed("middle.qcow2", middle)
        yield f"two-{layout}", "each layer has its own pointers", image, [
            read(2 * ZONE, 4096, PATTERN), read(2 * ZONE + 4096, ZONE - 4096, 0), read(4096, 4096, PATTERN)]
        other = Image(layout, conventional=2).backed("below.qcow2", good(layout))
        yield f"other-zones-{layout}", "zones other than those of the backing file", other, [fails("any", "open")]
    image = Image("44").backed("below.qcow2", good("56"))
    yield "other-layout", "the layers may have different layouts", image, [read(4096, 4096, PATTERN)]


def shapes():
    """What else of qcow2 a zone may stand on."""
    for layout in ("44", "48b", "56", "v7"):
        image = Image(layout).packed(4096).packed(2 * ZONE).packed(2 * ZONE + 4096).wp(2, 8192 - 512)
        yield f"compressed-{layout}", "compressed clusters", image, [
            report(image.zones()), read(4096, 4096, PATTERN), read(2 * ZONE, 7680, PATTERN),
            read(2 * ZONE + 7680, 8192, 0), ok("append", 2 * ZONE, 1024), read(2 * ZONE, 7680, PATTERN),
            read(2 * ZONE + 7680, 1024, APPENDED), read(2 * ZONE + 8704, 4096, 0), ok("write", 4096 + 512, 512, 9),
            ok("reopen"), read(4096, 512, PATTERN), read(4096 + 512, 512, 9), read(4096 + 1024, 3072, PATTERN),
            read(2 * ZONE, 7680, PATTERN), ok("zone-reset", 2 * ZONE), ok("reopen"), read(2 * ZONE, ZONE, 0)]
        image = Image(layout).zeros(4096).zeros(2 * ZONE).data(2 * ZONE + 4096, 4096).wp(2, 8192)
        yield f"zeros-{layout}", "clusters of zeros", image, [
            read(4096, 4096, 0), read(2 * ZONE, 4096, 0), read(2 * ZONE + 4096, 4096, PATTERN),
            ok("write", 4096 + 512, 512, 9), ok("reopen"), read(4096, 512, 0), read(4096 + 512, 512, 9),
            read(4096 + 1024, 3072, 0)]
        image = good(layout).snapshot()
        shared = [e // CLUSTER * CLUSTER for e in image.l2 if e]
        kept = [still("image.qcow2", host, 512, PATTERN) for host in shared]
        yield f"snapshot-{layout}", "what a snapshot shares is not changed", image, [report(image.zones())] + READS + [
            ok("append", 2 * ZONE, 512), ok("write", 4096, 512, 9), ok("zone-reset", 3 * ZONE),
            read(2 * ZONE, 8704, PATTERN), read(2 * ZONE + 8704, 512, APPENDED), read(3 * ZONE, ZONE, 0), ok("reopen"),
            read(4096, 512, 9), read(4096 + 512, 3584, PATTERN), read(3 * ZONE, ZONE, 0), *kept,
            ok("append", 3 * ZONE, 4096), ok("zone-reset", 0, 4 * ZONE), ok("reopen"), read(2 * ZONE, 2 * ZONE, 0), *kept]


def elsewhere():
    """Data in a file of its own."""
    for layout in ("44", "48b", "56", "v7"):
        image = good(layout, outside="image.data")
        yield f"read-write-{layout}", "external data file", image, [report(image.zones())] + READS + [
            ok("append", 2 * ZONE, 512), ok("write", 4096 + 512, 512, 9), ok("zone-reset", 3 * ZONE), ok("reopen"),
            read(2 * ZONE, 8704, PATTERN), read(2 * ZONE + 8704, 512, APPENDED), read(2 * ZONE + 9216, 4096, 0),
            read(4096, 512, PATTERN), read(4096 + 512, 512, 9), read(3 * ZONE, ZONE, 0), ok("append", 3 * ZONE, 512),
            ok("reopen"), read(3 * ZONE, 512, APPENDED), read(3 * ZONE + 512, ZONE - 512, 0)]
        image = Image(layout)
        image.header["incompatible"] = 1 << 2
        yield f"nameless-{layout}", "no name of a data file", image, [fails("any", "open")]
        image = Image(layout).data_file("image.data")
        image.outside = None
        yield f"missing-{layout}", "the data file is not there", image, [fails("any", "open")]


def subclusters():
    """Extended L2 entries."""
    unit, part = 16384, 512
    for layout in ("44", "56", "v7"):
        image = Image(layout, unit=unit).some(16384, 0xF, 0xF0).some(2 * ZONE, 0xFFFF, 0xFFFF0000).wp(2, unit)
        yield f"read-{layout}", "allocated, zero and absent subclusters", image, [
            report(image.zones()), read(16384, 4 * part, PATTERN), read(16384 + 4 * part, 28 * part, 0),
            read(2 * ZONE, 16 * part, PATTERN), read(2 * ZONE + 16 * part, 16 * part, 0), read(2 * ZONE + unit, unit, 0)]
        image = Image(layout, unit=unit).some(16384, 0xF, 0xF0).some(2 * ZONE, 0xF, 0).wp(2, 4 * part)
        yield f"write-{layout}", "a part of a cluster is written", image, [
            ok("write", 16384 + 5 * part, part, 9), ok("write", 16384 + 31 * part, part, 8), ok("append", 2 * ZONE, part),
            ok("reopen"), read(16384, 4 * part, PATTERN), read(16384 + 4 * part, part, 0), read(16384 + 5 * part, part, 9),
            read(16384 + 6 * part, 25 * part, 0), read(16384 + 31 * part, part, 8), read(2 * ZONE, 4 * part, PATTERN),
            read(2 * ZONE + 4 * part, part, APPENDED), read(2 * ZONE + 5 * part, 8192, 0)]
        below = Image(layout).data(16384, 16384)
        image = Image(layout, unit=unit).some(16384, 0xF, 0xF0, 0x33).backed("below.qcow2", below)
        yield f"backing-{layout}", "absent subclusters read as below", image, [
            read(16384, 4 * part, 0x33), read(16384 + 4 * part, 4 * part, 0), read(16384 + 8 * part, 24 * part, PATTERN),
            ok("write", 16384 + 8 * part, part, 9), ok("write-zeroes", 16384 + 10 * part, part), ok("reopen"),
            read(16384 + 8 * part, part, 9), read(16384 + 9 * part, part, PATTERN), read(16384 + 10 * part, part, 0),
            read(16384 + 11 * part, 21 * part, PATTERN)]
        image = Image(layout, unit=unit).some(16384, 0xF, 0xF)
        yield f"both-{layout}", "a subcluster that is allocated and zero", image, [
            read(0, 512, 0), fails("any", "read", 16384, 512, 0)]


def stored():
    """Read-only and offline zones, by the library's own header extension."""
    for layout in ("44", "48b", "56", "v7"):
        image = good(layout).stores({2: 13})
        yield f"read-only-{layout}", "stored states", image, [
            report(state(image, 2, "read_only")), read(2 * ZONE, 8704, PATTERN), fails("state", "append", 2 * ZONE, 512),
            fails("state", "zone-reset", 2 * ZONE), fails("state", "zone-finish", 2 * ZONE), ok("append", ZONE, 512),
            ok("zone-reset", 0, 4 * ZONE), ok("reopen"), read(2 * ZONE, 8704, PATTERN), read(3 * ZONE, ZONE, 0)]
        image = good(layout).stores({3: 15})
        yield f"offline-{layout}", "stored states", image, [
            report(state(image, 3, "offline")), fails("any", "read", 3 * ZONE, 512, 0), read(2 * ZONE, 8704, PATTERN),
            fails("state", "append", 3 * ZONE, 512), ok("reopen"), report(state(image, 3, "offline"))]
        image = good(layout).stores({2: 13}, valid=False)
        yield f"stale-{layout}", "a stale extension is ignored", image, [
            report(image.zones()), ok("append", 2 * ZONE, 512), ok("zone-reset", 2 * ZONE)]
        image = good(layout).stores({2: 3})
        yield f"no-state-{layout}", "a byte that is no state", image, [fails("any", "open-rw")]


KINDS = (("open", opened), ("damaged", damaged), ("commands", commands), ("power-cut", power_cuts), ("backing", layers),
         ("shapes", shapes), ("data-file", elsewhere), ("subclusters", subclusters), ("stored", stored))


def files_of(image):
    """What lies beside it, and beside that."""
    out = {}
    if getattr(image, "outside", None):
        out[image.more[0][1].decode()] = {"length": image.size, "chunks": chunks_of(image.outside), "changes": True}
    for name, below in image.beside.items():
        out.update({name: below.built(), **files_of(below)})
    return out


def cases():
    out = []
    for kind, make in KINDS:
        for name, why, image, steps in make():
            beside = files_of(image)
            out.append({"name": f"{kind}/{name}", "about": why, "image": image.built(),
                        **({"beside": beside} if beside else {}), "steps": steps})
    return out


def main():
    path = Path(__file__).resolve().parent / "cases.json"
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases())
    text = '{"format":1,"cases":[\n' + lines + "\n]}\n"
    if sys.argv[1:] == ["--check"]:
        return 0 if path.read_text(encoding="utf-8") == text else f"{path}: not what make.py writes"
    path.write_text(text, encoding="utf-8")
    return 0


sys.exit(main())
