#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mutate.py NUMBER LIST TREE: applies one mutant of LIST to TREE (a copy); prints the changed files.
mutate.py - LIST -: prints NUMBER NAME SUITE of each. Fails when the old lines are not there once."""
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


def main():
    number, path, tree = sys.argv[1:]
    mutants = parse(path)
    if number == "-":
        for key, (name, suite, _) in mutants.items():
            print(key, name, suite)
        return 0
    for name, old, new in mutants[number][2]:
        file = tree + "/" + name
        text = open(file, encoding="utf-8").read()
        old, new = "\n".join(old) + "\n", "\n".join(new) + "\n"
        if text.count(old) != 1:
            print(f"{name}: the lines of mutant {number} are there {text.count(old)} times",
                  file=sys.stderr)
            return 1
        open(file, "w", encoding="utf-8").write(text.replace(old, new))
        print(name)
    return 0


sys.exit(main())
