#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mutate.py NUMBER LIST TREE: applies one mutant of LIST to TREE (a copy); prints the changed files.
mutate.py - LIST -: prints NUMBER NAME SUITE of each. mutate.py - LIST TREE: do all of them apply?
Fails when the old words are not there once; how they are spaced and broken into lines is the
formatter's, and does not count."""
import re
import sys


def parse(path):
    mutants, edit = {}, None
    for line in open(path, encoding="utf-8"):
        line = line.rstrip("\n")
        mark, rest = line[:1], line[1:]
        if mark == "=":
            number, name, suite = rest.split()[:3]
            if number in mutants:
                sys.exit(f"{path}: two mutants have the number {number}")
            edits = []
            mutants[number] = (name, suite, edits)
        elif mark == "@":
            edit = (rest.strip(), [], [])
            edits.append(edit)
        elif mark == "-":
            edit[1].append(rest)
        elif mark == "+":
            edit[2].append(rest)
    return mutants


def replaced(text, old, new):
    """The text with `new` instead of `old`, and how often `old` is there."""
    words = re.compile(r"(?<!\S)" + r"\s+".join(map(re.escape, " ".join(old).split())) + r"(?!\S)")
    found = list(words.finditer(text))
    if len(found) != 1:
        return text, len(found)
    start, end = found[0].span()
    return text[:start] + "\n".join(new).lstrip() + text[end:], 1


def mutate(number, edits, tree):
    """What the mutant makes of each file that it changes; None, with a text, where it has no place."""
    files = {}
    for name, old, new in edits:
        if name not in files:
            files[name] = open(tree + "/" + name, encoding="utf-8").read()
        files[name], times = replaced(files[name], old, new)
        if times != 1:
            print(f"{name}: the lines of mutant {number} are there {times} times", file=sys.stderr)
            return None
    return files


def main():
    number, path, tree = sys.argv[1:]
    mutants = parse(path)
    if number == "-" and tree == "-":
        for key, (name, suite, _) in mutants.items():
            print(key, name, suite)
        return 0
    if number == "-":
        made = [mutate(key, edits, tree) for key, (_, _, edits) in mutants.items()]
        print(f"mutants that apply: {len(made) - made.count(None)} of {len(made)}")
        return 1 if None in made else 0
    files = mutate(number, mutants[number][2], tree)
    for name, text in (files or {}).items():
        open(tree + "/" + name, "w", encoding="utf-8").write(text)
        print(name)
    return 1 if files is None else 0


sys.exit(main())
