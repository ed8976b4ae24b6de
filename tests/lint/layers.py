#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds the order of the layers: includes and calls of src/ go down only, and nothing goes round.

A folder is a layer. A file may include and call files of its own folder and of folders of a lower
rank; folders of one rank do not see each other. A source file and its header are one unit; units
may not call one another in a circle. The command and the examples use public headers only. The
order and its reasons are in docs/DESIGN.md, "Layers".
"""

import pathlib
import re
import subprocess
import sys

RANKS = [
    "base",
    "format device",
    "bitmap cache zone check snapshot simdisk backend",
    "qcow2",
    "loop",
    "round",
    "space",
    "ops",
    "image",
    "api",
]
RANK = {folder: i for i, folders in enumerate(RANKS) for folder in folders.split()}

# A map knows clusters and a zone addresses of the device; only an operation joins them.
SEES_ONLY = {"qcow2": {"qcow2", "cache", "format", "device", "base"}}

# What serves every backend, and what a backend, written by a stranger, could not see.
PRIVATE_TO_THE_LIBRARY = {"device"}
# What must look into a backend: wrappers of any, and public calls on one kind.
WRAPPERS = {"backend/threads", "backend/uring"}

bad = []


def complain(where, why):
    bad.append(f"{where}: {why}")


def unit(path):
    """Names a source file and its header alike: folder/stem."""
    return str(path.relative_to("src").with_suffix(""))


def without_comments(text):
    """Blanks comments, and the insides of strings in lines that are no includes."""
    pattern = r'/\*.*?\*/|//[^\n]*|^\s*#\s*include[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''

    def blank(match):
        found = match.group(0)
        if found.startswith(("/", '"', "'")):
            return re.sub(r"[^\n]", " ", found)
        return found

    return re.sub(pattern, blank, text, flags=re.S | re.M)


def check_edge(where, source, target, what):
    """One include or call from the unit `source` to the unit `target`."""
    here, there = source.split("/")[0], target.split("/")[0]
    if here not in RANK or there not in RANK:
        return
    if RANK[there] > RANK[here]:
        complain(where, f"{here} looks up to {there}: {what}")
    elif RANK[there] == RANK[here] and there != here:
        complain(where, f"{here} looks sideways at {there}: {what}")
    elif there not in SEES_ONLY.get(here, RANK):
        complain(where, f"{here} does not see {there}: {what}")
    elif here in ("backend", "simdisk") and there in PRIVATE_TO_THE_LIBRARY:
        if source not in WRAPPERS and what not in PUBLIC:
            complain(where, f"a backend has only <zqcow2/backend.h>, base/ and its own files: {what}")


def includes(path, text):
    """Yields where, '"' or '<', and the name of each include; refuses other ways to write one."""
    for number, line in enumerate(text.split("\n"), 1):
        if not re.match(r"\s*(#|%:)(?!\s*define)", line):
            continue
        where = f"{path}:{number}"
        found = re.fullmatch(r'\s*#\s*include\s*(["<])([\w./+-]+)[">]\s*', line)
        if found:
            yield where, *found.groups()
        elif re.search(r"include|import|embed|\\$|%:", line):
            complain(where, f"not written as an include: {line.strip()}")


def read_includes(path, text, edges):
    for where, kind, name in includes(path, text):
        if kind == "<":
            if name == "zqcow2/queue.h" and path.parts[1] in ("backend", "simdisk"):
                complain(where, "a backend does not see the queue")
            if name.split("/")[0] in RANK or ".." in name:
                complain(where, f'not written as "layer/file.h": {name}')
            continue
        if not re.fullmatch(r"\w+/\w+\.h", name) or name.split("/")[0] not in RANK:
            complain(where, f'not written as "layer/file.h": {name}')
            continue
        target = name[: -len(".h")]
        check_edge(where, unit(path), target, name)
        if path.suffix == ".h":
            edges.setdefault(name, set())
            edges.setdefault(str(path.relative_to("src")), set()).add(name)


def definitions(files):
    """Name of each function that other files can call -> its unit."""
    listing = subprocess.run(
        ["ctags", "--languages=C", "--langmap=C:.c.h", "--kinds-C=f", "--fields=+f", "-x",
         "--_xformat=%N %F %{file}", *map(str, files)],
        check=True, capture_output=True, text=True).stdout
    defined = {}
    for line in listing.splitlines():
        name, file, scope = (line.split() + [""])[:3]
        if scope != "file" or file.endswith(".h"):
            defined[name] = unit(pathlib.Path(file))
    return defined


def circles(edges):
    """Strongly connected parts of more than one node (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for to in sorted(edges.get(node, ())):
            if to not in index:
                visit(to)
                low[node] = min(low[node], low[to])
            elif to in stack:
                low[node] = min(low[node], index[to])
        if low[node] == index[node]:
            part = [stack.pop()]
            while part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1 or node in edges.get(node, ()):
                found.append(sorted(part))

    sys.setrecursionlimit(10000)
    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def source_files():
    files = sorted(p for p in pathlib.Path("src").rglob("*.[ch]"))
    if not files:
        sys.exit("no files in src/")
    for path in pathlib.Path("src").rglob("*"):
        if path.is_file() and path not in files and path != pathlib.Path("src/api/libzqcow2.map"):
            complain(path, "neither .c nor .h: no check reads it")
    return files


def names(path, text):
    """Yields the number and text of each line with what it names, and whether it may be a call."""
    for number, line in enumerate(text.split("\n"), 1):
        if re.match(r"\s*#(?!\s*define)", line):
            continue
        # In a header what begins a line is a declaration, or the head of a function.
        call = path.suffix == ".c" or line.startswith((" ", "#")) or "{" in line
        for name in re.findall(r"(?<![\w.>])(?<!struct )[A-Za-z_]\w+", line):
            yield number, name, call


def read_src():
    files = source_files()
    for path in files:
        if len(path.parts) != 3 or path.parts[1] not in RANK:
            complain(path, "a folder that is in no layer")
    files = [p for p in files if len(p.parts) == 3 and p.parts[1] in RANK]
    defined = definitions(files)
    if not defined:
        sys.exit("ctags found no function in src/")
    includes, calls, count = {}, {}, 0
    for path in files:
        text = without_comments(path.read_text())
        read_includes(path, text, includes)
        here = unit(path)
        calls.setdefault(here, set())
        for number, name, call in names(path, text):
            there = defined.get(name)
            if not there or there == here:
                continue
            check_edge(f"{path}:{number}", here, there, name)
            if call:
                count += 1
                calls[here].add(there)
    for part in circles(includes):
        complain("src", "a circle of includes: " + " ".join(part))
    for part in circles(calls):
        complain("src", "a circle of calls: " + " ".join(part))
    nr_circles = sum("circle" in text for text in bad)
    folders = len({p.parts[1] for p in files})
    return f"layers: {len(files)} files, {folders} folders, {count} calls read, circles: {nr_circles}"


def read_outside():
    for top in ("tools", "examples"):
        for path in sorted(pathlib.Path(top).rglob("*.[ch]")):
            text = without_comments(path.read_text())
            for where, _, name in includes(path, text):
                if name.split("/")[0] in RANK or ".." in name:
                    complain(where, f"uses the library's inside: {name}")
            for number, name, _ in names(path, text):
                if name.startswith("zq_"):
                    complain(f"{path}:{number}", f"uses the library's inside: {name}")


def public_names():
    """What <zqcow2/backend.h> and the headers beside it declare: any backend may call it."""
    text = "".join(p.read_text() for p in pathlib.Path("include/zqcow2").glob("*.h"))
    return set(re.findall(r"\bzqcow2_\w+", text))


PUBLIC = public_names()


def report(summary):
    for text in bad:
        print(text)
    print(f"{summary}, wrong: {len(bad)}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    found = read_src()
    read_outside()
    report(found)
