#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""layers.py ZQCOW2 FIRST COUNT: random chains of QEMU's programs and zqcow2, written by both in turn.

Every layer is created by either. Content and map must be those that qemu-img shows, qemu-img
compare must find nothing, what zqcow2 has written must be there, and both checks clean for every
layer. A failure prints its seed and what was done.
"""

import collections
import json
import os
import random
import shutil
import subprocess
import sys

TOOL = sys.argv[1]
BACKENDS = ["file", "threads", "uring"]
COUNTS = collections.Counter()


class Wrong(Exception):
    pass


def run(*words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise Wrong(f"{' '.join(words)}: {done.returncode} {done.stderr.decode()}")
    return done.stdout


def has_uring():
    """Neither every build nor every machine has it."""
    run(TOOL, "create", "--force", "probe.qcow2", "1M")
    try:
        run(TOOL, "info", "--backend=uring", "probe.qcow2")
    except Wrong as why:
        if "not available" not in str(why):
            raise
        return False
    return True


def qemu_io(form, words, name):
    """It fails if one command does, as a compressed write over data may: the others are done."""
    if not words:
        return
    subprocess.run(
        ["qemu-io", "-f", form, *words, name],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


class Layer:
    """One file of a chain: its name, format and geometry."""

    def __init__(self, r, depth, top):
        self.raw = depth == top and r.randrange(2) == 0
        self.name = f"l{depth}.{'raw' if self.raw else 'qcow2'}"
        self.size = r.randrange(1, 4000) * 512
        self.bits = r.choice([9, 12, 14, 16, 16, 18])
        self.version = r.choice(["0.10", "1.1", "1.1"])
        self.wide = self.bits >= 14 and self.version == "1.1" and r.randrange(2) == 0
        beside = not self.raw and self.version == "1.1" and r.randrange(3) == 0
        self.data = f"l{depth}.data" if beside else None
        self.data_raw = beside and depth == top and r.randrange(2) == 0

    def create(self, r, below):
        ours = not self.raw and self.version == "1.1" and r.randrange(2) == 0
        words = [TOOL, "create", "--force"]
        if not ours:
            words = ["qemu-img", "create", "-q", "-f", "raw" if self.raw else "qcow2"]
        if not self.raw:
            words += ["-o", f"cluster_size={1 << self.bits}"]
            words[-1] += f",extended_l2={'on' if self.wide else 'off'}"
            words[-1] += "" if ours else f",compat={self.version}"
        if self.data:
            words[-1] += f",data_file={self.data}"
            words[-1] += f",data_file_raw={'on' if self.data_raw else 'off'}"
        if below:
            words += ["-b", below.name, "-F", "raw" if below.raw else "qcow2"]
        run(*words, self.name, str(self.size))
        return words

    def files(self):
        return [self.name, self.data] if self.data else [self.name]


def commands(r, layer):
    """Some writes, of data, zeros, compressed data, and discards, as qemu-io has them."""
    out = []
    for _ in range(r.randrange(0, 9)):
        at = r.randrange(0, layer.size // 512) * 512
        length = min(r.randrange(1, 200) * 512, layer.size - at)
        kind = r.choice(["write -P", "write -P", "write -c", "write -z", "write -zu", "discard"])
        if kind == "write -c":
            if layer.raw or layer.data:
                continue
            at = at >> layer.bits << layer.bits
            length = 1 << layer.bits
            if at + length > layer.size:
                continue
            kind = "write -c -P"
        pattern = f" {r.randrange(1, 256)}" if kind.endswith("P") else ""
        out.append(f"{kind}{pattern} {at} {length}")
    return out


def rows(text):
    """A map without what only one of the two says; data side by side is one row."""
    out = []
    for row in json.loads(text):
        row.pop("compressed", None)
        row["zero"] = row["zero"] and not row["data"]
        last = out[-1] if out else {}
        if (
            row["data"]
            and last.get("data")
            and "offset" in row
            and "offset" in last
            and row["depth"] == last["depth"]
            and row["offset"] == last["offset"] + last["length"]
        ):
            last["length"] += row["length"]
        else:
            out.append(row)
    return out


def content(layer):
    """The bytes of the device, as QEMU reads them."""
    run("qemu-img", "convert", "-O", "raw", layer.name, "want.raw")
    with open("want.raw", "rb") as f:
        got = f.read()
    os.unlink("want.raw")
    return got


def differ(what, got, want):
    if len(got) != len(want):
        raise Wrong(f"{what}: {len(got)} bytes, not {len(want)}")
    if got != want:
        at = next(i for i in range(len(want)) if got[i] != want[i])
        raise Wrong(f"{what}: byte {at} is {got[at]:#x}, not {want[at]:#x}")


def apply(layer, data, command):
    """What a command of zqcow2 io does: a discard makes whole clusters zeros, and no others."""
    words = command.split()
    at, length = int(words[-2]), int(words[-1])
    end, size = at + length, 1 << layer.bits
    fill = int(words[2]) if words[1] == "-P" else 0
    if words[0] == "discard":
        end = end if end == layer.size else end // size * size
        at = (at + size - 1) // size * size
    if at < end:
        data[at:end] = bytes([fill]) * (end - at)


def write_ours(r, top, done):
    script = [c for c in commands(r, top) if "write -c" not in c]
    want = bytearray(content(top))
    backend = r.choice(BACKENDS)
    done += [f"zqcow2 --backend={backend}: {c}" for c in script]
    words = [w for c in script for w in ("-c", c.replace("write -zu", "write -z -u"))]
    if not words:
        return
    run(TOOL, "io", f"--backend={backend}", *words, top.name)
    for command in script:
        apply(top, want, command)
    differ("written by zqcow2", content(top), bytes(want))
    run("qemu-img", "check", "-q", top.name)
    run(TOOL, "check", top.name)


def plain_rows(text):
    out = json.loads(text)
    for row in out:
        row.pop("compressed", None)
    return out


def check_map(top, backend):
    ours = run(TOOL, "map", "--json", f"--backend={backend}", top.name)
    theirs = run("qemu-img", "map", "--output=json", top.name)
    COUNTS["maps"] += 1
    COUNTS["maps as they are"] += plain_rows(ours) == plain_rows(theirs)
    COUNTS["rows"] += len(rows(theirs))
    if rows(ours) != rows(theirs):
        pairs = [p for p in zip(rows(ours), rows(theirs)) if p[0] != p[1]]
        raise Wrong(f"map: {pairs[0] if pairs else (len(rows(ours)), len(rows(theirs)))}")


def check(r, top):
    want = content(top)
    backend = r.choice(BACKENDS)
    got = run(TOOL, "read", f"--backend={backend}", top.name, "0", str(top.size))
    differ(f"--backend={backend}", got, want)
    with open("got.raw", "wb") as f:
        f.write(got)
    run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", top.name, "got.raw")
    check_map(top, backend)


def write_theirs(r, layer, done):
    """QEMU 7.2 counts a cluster twice if it packs more into it after it was reopened: undone."""
    script = commands(r, layer)
    for name in layer.files():
        shutil.copyfile(name, f"{name}.before")
    qemu_io("raw" if layer.raw else "qcow2", [w for c in script for w in ("-c", c)], layer.name)
    try:
        if not layer.raw:
            run("qemu-img", "check", "-q", layer.name)
    except Wrong:
        for name in layer.files():
            shutil.copyfile(f"{name}.before", name)
        COUNTS["damaged by QEMU alone, and undone"] += 1
        return
    done += script


def write_in_turn(r, layer, done):
    for _ in range(r.randrange(1, 5)):
        if layer.raw or r.randrange(2):
            write_theirs(r, layer, done)
        else:
            write_ours(r, layer, done)


def check_all(layers):
    """Of those below, what was written since may have been of either program, too."""
    for layer in layers:
        if layer.data_raw:
            with open(layer.data, "rb") as f:
                differ(layer.data, f.read(layer.size), content(layer))
        if not layer.raw:
            run("qemu-img", "check", "-q", layer.name)
            run(TOOL, "check", layer.name)


def one(seed):
    r = random.Random(seed)
    top = r.randrange(1, 4)
    done = []
    layers = []
    try:
        for depth in range(top, -1, -1):
            layer = Layer(r, depth, top)
            done.append(" ".join(layer.create(r, layers[-1] if layers else None)))
            layers.append(layer)
            write_in_turn(r, layer, done)
        check(r, layer)
        for _ in range(3):
            write_ours(r, layer, done)
            write_theirs(r, layer, done)
        check(r, layer)
        check_all(layers)
    except Wrong as why:
        print(f"# seed {seed}: {why}")
        for line in done:
            print(f"#   {line}")
        return False
    for layer in layers[:-1]:
        COUNTS["on a raw file"] += layer.raw
    COUNTS["layers"] += len(layers)
    COUNTS["with a data file"] += any(x.data for x in layers)
    COUNTS["with a raw data file"] += any(x.data_raw for x in layers)
    COUNTS["with extended L2"] += any(x.wide for x in layers)
    COUNTS["of version 2"] += any(not x.raw and x.version == "0.10" for x in layers)
    COUNTS["with compressed data"] += any("write -c" in c for c in done)
    return True


def main():
    first, count = int(sys.argv[2]), int(sys.argv[3])
    if not has_uring():
        BACKENDS.remove("uring")
    bad = [s for s in range(first, first + count) if not one(s)]
    print(f"# layers: {count} chains, {len(bad)} of them otherwise than qemu-img's")
    print("# " + ", ".join(f"{v} {k}" for k, v in sorted(COUNTS.items())))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
