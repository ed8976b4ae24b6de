#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run.py [-a ADAPTER] [-k WORD] [-v] PROGRAM [ARGUMENT...]: does an implementation of zoned qcow2
images do what the format and its rules say? docs/CONFORMANCE.md has the details.

ADAPTER: zqcow2 (default) or qemu-io: how PROGRAM is called. -k: only the cases whose name has WORD.
-v: also name the cases that pass. Needs Python 3.7, cases.json beside it, and nothing else. Prints a
line for each case that fails, and at last "conformance: N cases, M failed"; the exit status is 0 if
none failed."""
import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path


class QemuIo:
    """A program with the command language of qemu-io, and its commands for zones. A session is one
    process. Which command failed is seen from what stands between two answers to "length"."""

    states = {0: "not_wp", 1: "empty", 2: "imp_open", 3: "exp_open", 4: "closed", 13: "read_only", 14: "full",
              15: "offline"}
    arguments = ["-f", "qcow2"]
    read_only = ["-r"]
    errors = []  # (regular expression, kind): what its messages say; otherwise every kind is right

    def __init__(self, program):
        self.program = program

    def command(self, do):
        """A step, as a command of the program."""
        name, *n = do
        return {
            "open": lambda: "length",
            "open-rw": lambda: "length",
            "read": lambda: f"read -P {n[2]} {n[0]} {n[1]}",
            "write": lambda: f"write -P {n[2]} {n[0]} {n[1]}",
            "write-zeroes": lambda: f"write -z {n[0]} {n[1]}",
            "discard": lambda: f"discard {n[0]} {n[1]}",
            "append": lambda: f"zap {n[0]} {n[1]}",
            "flush": lambda: "flush",
            "report": lambda: f"zrp 0 {n[0]}",
            "zone-open": lambda: f"zo {n[0]} {n[1]}",
            "zone-close": lambda: f"zc {n[0]} {n[1]}",
            "zone-finish": lambda: f"zf {n[0]} {n[1]}",
            "zone-reset": lambda: f"zrs {n[0]} {n[1]}",
        }[name]()

    def session(self, image, steps, writable):
        """What each step came to: ["ok"], ["error", kind], ["data", pattern], ["zones", list]."""
        words = self.program + self.arguments + ([] if writable else self.read_only)
        for do in steps:
            words += ["-c", "length", "-c", self.command(do)]
        words += ["-c", "length", str(image)]
        ran = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                             stdin=subprocess.DEVNULL, universal_newlines=True, errors="replace")
        if ran.returncode < 0:
            return [["died", f"signal {-ran.returncode}"]] * len(steps)
        # Every answer to "length" is the same line.
        lines = ran.stdout.splitlines()
        size = next((line for line in lines if re.fullmatch(r"[0-9.]+ ([KMGT]iB|bytes)", line)), None)
        if size is None:
            return [["error", self.kind(ran.stdout)]] * len(steps)
        parts, part = [], None
        for line in lines:
            if line == size:
                part = []
                parts.append(part)
            elif part is not None:
                part.append(line)
        answers = []
        for do in steps:  # a step that is itself "length" has an answer more
            text = "\n".join(parts.pop(0)) if parts else "no answer"
            if do[0].startswith("open") and parts:
                parts.pop(0)
            answers.append(self.answer(do, text))
        return answers

    def kind(self, text):
        return next((kind for regex, kind in self.errors if re.search(regex, text)), "any")

    def answer(self, do, text):
        if do[0] == "report":
            zones = re.findall(r"start: 0x([0-9a-f]+), len 0x([0-9a-f]+), cap 0x([0-9a-f]+), wptr 0x([0-9a-f]+), "
                               r"zcond: *(\d+)", text)
            if zones:
                return ["zones", [[*(512 * int(v, 16) for v in z[:4]), self.states.get(int(z[4]))] for z in zones]]
        if "Pattern verification failed" in text:
            return ["data", "something else"]
        if re.search(r"failed|rror|annot|an't|no answer|nvalid", text):
            return ["error", self.kind(text)]
        return ["data", do[3]] if do[0] == "read" else ["ok"]


class Zqcow2(QemuIo):
    """zqcow2 io: the same language, with errors that name the rule."""

    arguments = ["io"]
    errors = [("not at the zone's write pointer", "wp"), ("crosses the end or the capacity", "boundary"),
              ("the zone is full", "full"), ("too many open", "open"), ("too many active", "active"),
              ("state", "state")]


ADAPTERS = {"qemu-io": QemuIo, "zqcow2": Zqcow2}


def write_image(path, image):
    with open(path, "wb") as f:
        for offset, text, times in image["chunks"]:
            f.seek(offset)
            f.write(bytes.fromhex(text) * times)
        f.truncate(image["length"])


def same(expected, got):
    """Is it what was expected? Of a full zone or a conventional one, the write pointer does not count."""
    if expected[0] == "error" and got[0] == "error":
        return "any" in (expected[1], got[1]) or expected[1] == got[1]
    if expected[0] != "zones" or got[0] != "zones":
        return expected == got
    return len(expected[1]) == len(got[1]) and all(
        e[:3] == g[:3] and e[4] == g[4] and e[3] in (None, g[3]) for e, g in zip(expected[1], got[1]))


def sessions(steps):
    """What is done between two opens; a look at the bytes of a file stands alone."""
    part = []
    for step in steps:
        if step["do"][0] in ("reopen", "bytes"):
            yield part
            part = []
        if step["do"][0] == "bytes":
            yield [step]
        elif step["do"][0] != "reopen":
            part.append(step)
    yield part


def look(folder, name, offset, length, pattern):
    with open(folder / name, "rb") as f:
        f.seek(offset)
        return ["data", pattern if f.read(length) == bytes([pattern]) * length else "something else"]


def beside(folder, case):
    """What lies beside the image and may not change."""
    files = case.get("beside", {})
    return [(folder / name).read_bytes() for name in sorted(files) if not files[name].get("changes")]


def run_case(adapter, case, folder):
    """What is wrong, as text; empty if nothing is."""
    path = folder / "image.qcow2"
    for old in folder.iterdir():
        old.unlink()
    write_image(path, case["image"])
    for name, image in case.get("beside", {}).items():
        write_image(folder / name, image)
    number = 0
    below = beside(folder, case)
    for part in sessions(case["steps"]):
        if not part:
            continue
        if part[0]["do"][0] == "bytes":
            number += 1
            if look(folder, *part[0]["do"][1:], part[0]["expect"][1]) != part[0]["expect"]:
                return f"step {number}, {part[0]['do']}: not {part[0]['expect']}"
            continue
        before = path.read_bytes()
        writable = any(step["do"][0] not in ("read", "report", "open") for step in part)
        try:
            answers = adapter.session(path, [step["do"] for step in part], writable)
        except subprocess.TimeoutExpired:
            return f"step {number + 1}: no answer within a minute"
        for step, got in zip(part, answers):
            number += 1
            if not same(step["expect"], got):
                return f"step {number}, {step['do']}: expected {step['expect']}, got {got}"
        refused = part and part[0]["expect"][0] == "error" and part[0]["do"][0].startswith("open")
        if (refused or not writable) and path.read_bytes() != before:
            return f"step {number}: the file has changed, although it was {'refused' if refused else 'only read'}"
    return "" if beside(folder, case) == below else "a backing file has changed"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("-a", "--adapter", choices=sorted(ADAPTERS), default="zqcow2")
    p.add_argument("-k", "--word", default="")
    p.add_argument("-v", "--verbose", action="store_true")
    p.add_argument("program", nargs=argparse.REMAINDER)
    args = p.parse_args()
    if not args.program:
        p.error("which program?")
    cases = json.loads((Path(__file__).resolve().parent / "cases.json").read_text(encoding="utf-8"))["cases"]
    cases = [c for c in cases if args.word in c["name"]]
    failed, kinds = 0, {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            wrong = run_case(ADAPTERS[args.adapter](args.program), case, Path(folder))
            kind = kinds.setdefault(case["name"].split("/")[0], [0, 0])
            kind[0] += 1
            if wrong:
                failed += 1
                kind[1] += 1
                print(f"{case['name']} ({case['about']}): {wrong}")
            elif args.verbose:
                print(f"{case['name']}: passed")
    for name, (n, bad) in kinds.items():
        print(f"  {name}: {n} cases, {bad} failed")
    print(f"conformance: {len(cases)} cases, {failed} failed")
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
