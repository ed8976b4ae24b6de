#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""data_file.py ZQCOW2 FIRST COUNT: images with data files, written by QEMU's programs and zqcow2.

Either program makes the image, and both write to it in turn, also over backing files that have data
files themselves. Content must be what was written, for both programs; a raw data file must have it,
too; and both checks are clean. A failure prints its seed and what was done.
"""

import os
import random
import subprocess
import sys

TOOL = sys.argv[1]
IMAGE = "image.qcow2"
DATA = "image.data"


class Wrong(Exception):
    pass


def run(*words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode or (words[0] == "qemu-io" and b"ailed" in done.stdout):
        raise Wrong(f"{' '.join(words)}: {done.returncode} {done.stderr.decode()}")
    return done.stdout


def slurp(name):
    with open(name, "rb") as f:
        return f.read()


class World:
    """An image, what it should hold, and what has been done to it."""

    def __init__(self, r):
        self.r = r
        self.raw = r.random() < 0.5
        self.extended = r.random() < 0.4
        self.cluster = r.choice([16384, 65536] if self.extended else [512, 4096, 65536])
        self.size = r.choice([300, 1000, 2049]) * 512 * r.choice([1, 3])
        self.over = not self.raw and r.random() < 0.5
        self.want = bytearray(self.size)
        self.done = []

    def make_base(self):
        """A file below, raw or an image with a data file of its own."""
        n = max(512, self.size // 2 // 512 * 512)
        content = self.r.randbytes(n)
        with open("base.raw", "wb") as f:
            f.write(content)
        self.want[:n] = content
        if self.r.random() < 0.5:
            return "raw", "base.raw"
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o",
            "data_file=base.data", "base.raw", "base.qcow2")
        return "qcow2", "base.qcow2"

    def make(self):
        options = f"data_file={DATA},cluster_size={self.cluster}"
        options += f",data_file_raw={'on' if self.raw else 'off'}"
        options += f",extended_l2={'on' if self.extended else 'off'}"
        base = []
        if self.over:
            form, name = self.make_base()
            base = ["-b", name, "-F", form]
        maker = [TOOL, "create"]
        if self.r.random() < 0.5:
            maker = ["qemu-img", "create", "-q", "-f", "qcow2"]
        self.done.append(maker + [options] + base + [str(self.size)])
        run(*maker, "-o", options, *base, IMAGE, str(self.size))

    def request(self, mine):
        r = self.r
        off = r.randrange(self.size // 512) * 512
        n = r.randint(1, min(400, (self.size - off) // 512)) * 512
        kind = r.random()
        if kind < 0.5:
            byte = r.randint(1, 255)
            self.want[off:off + n] = bytes([byte]) * n
            return [f"write -P {byte} {off} {n}"]
        if kind < 0.75 or not mine: # what QEMU discards over a backing file need not be zeros
            self.want[off:off + n] = bytes(n)
            return [f"write -z {r.choice(['', '-u '])}{off} {n}"]
        first = -(-off // self.cluster) * self.cluster
        end = off + n if off + n == self.size else (off + n) // self.cluster * self.cluster
        if first >= end:
            return []
        self.want[first:end] = bytes(end - first)
        return [f"discard {first} {end - first}"]

    def write(self):
        mine = self.r.random() < 0.6
        before = os.path.getsize(DATA)
        commands = []
        for _ in range(self.r.randint(1, 8)):
            commands += self.request(mine)
        if not commands:
            return
        self.done.append((["qemu", "mine"][mine], commands))
        words = [w for c in commands for w in ("-c", c)]
        if mine:
            run(TOOL, "io", *words, IMAGE)
        else:
            run("qemu-io", "-d", "unmap", "-f", "qcow2", *words, IMAGE)
        if mine and os.path.getsize(DATA) != before:
            raise Wrong("the data file has another length")

    def compare(self):
        run("qemu-img", "check", "-q", IMAGE)
        run(TOOL, "check", IMAGE)
        run("qemu-img", "convert", "-O", "raw", IMAGE, "out.raw")
        shown = {
            "qemu-img": slurp("out.raw"),
            "zqcow2": run(TOOL, "read", IMAGE, "0", str(self.size)),
        }
        if self.raw:
            shown["the data file"] = slurp(DATA)[:self.size]
        for what, content in shown.items():
            if content != self.want:
                at = next(i for i in range(self.size) if content[i] != self.want[i])
                raise Wrong(f"{what} differs at {at}")


def main():
    first, count = int(sys.argv[2]), int(sys.argv[3])
    for seed in range(first, first + count):
        for name in os.listdir("."):
            os.unlink(name)
        w = World(random.Random(seed))
        try:
            w.make()
            w.compare()
            for _ in range(w.r.randint(2, 5)):
                w.write()
                w.compare()
        except Wrong as why:
            print(f"# seed {seed}: {why}")
            for act in w.done:
                print(f"#   {act}")
            return 1
    print(f"# {count} images with data files, 0 differ")
    return 0


sys.exit(main())
