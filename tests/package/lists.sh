#!/bin/sh
# SPDX-License-Identifier: MIT
# lists.sh BUILD: what cmake installs is what debian/*.install names, each file in one package; the
# symbols file has what the library exports; the version and the build dependencies are the project's.
# lists.sh BUILD selftest: each of these comparisons sees a fault.
set -eu
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# installed FOLDER: paths as in a package, with Debian's folder of libraries.
installed() {
    DESTDIR=$tmp/root cmake --install "$build" --prefix /usr >"$tmp/log" || { cat "$tmp/log"; exit 1; }
    libdir=$(dirname "$(cd "$tmp/root/usr" && find lib* -name 'libzqcow2.a')")
    python=$(cd "$tmp/root/usr" && find lib* -name zqcow2.py -exec dirname {} \;)
    [ -n "$python" ] || { echo 'python3 is missing: the Python module is not installed'; exit 77; }
    (cd "$tmp/root" && find . ! -type d) | sed "s,^\./,,
        s,^usr/$python/,PYTHON/,
        s,^usr/$libdir/,usr/lib/TRIPLET/,
        s,^PYTHON/,usr/lib/python3/dist-packages/," | LC_ALL=C sort >"$1"
}

# compare DEBIAN INSTALLED: what differs, a line each.
compare() {
    python3 - "$1" "$2" "$top" <<'END_OF_PYTHON'
import fnmatch
import glob
import os
import re
import sys

debian, installed, top = sys.argv[1:]
files = [line.strip() for line in open(installed)]
lists = {}
for path in glob.glob(debian + "/*.install") + [debian + "/not-installed"]:
    lists[os.path.basename(path)] = [w for w in open(path).read().splitlines() if w and w[0] != "#"]
taken = {}
for name, patterns in lists.items():
    for pattern in patterns:
        hits = [f for f in files if fnmatch.fnmatchcase(f, pattern) or fnmatch.fnmatchcase(f, pattern + "/*")]
        if not hits:
            print(f"{name}: nothing is installed as {pattern}")
        for f in hits:
            taken.setdefault(f, []).append(name)
for f in files:
    if len(taken.get(f, [])) != 1:
        print(f"{f}: in {len(taken.get(f, []))} lists of debian/, not in one")

control = open(debian + "/control").read()
packages = re.findall(r"^Package: (\S+)", control, re.M)
for name in {n[:-len(".install")] for n in lists if n.endswith(".install")} ^ set(packages):
    print(f"{name}: a package in debian/control, or a list, but not both")

exported = set(re.findall(r"^ +(zqcow2_[a-z0-9_]+);", open(top + "/src/api/libzqcow2.map").read(), re.M))
symbols = open(debian + "/libzqcow2-0.symbols").read()
for name in exported ^ set(re.findall(r"^ (zqcow2_[a-z0-9_]+)@", symbols, re.M)):
    print(f"{name}: in the map of the library or in the symbols file, but not in both")

header = open(top + "/include/zqcow2/zqcow2.h").read()
version = ".".join(re.search(rf"ZQCOW2_VERSION_{p} (\d+)", header)[1] for p in ("MAJOR", "MINOR", "PATCH"))
packaged = re.match(r"zqcow2 \(([^)]*)\)", open(debian + "/changelog").read())[1]
if packaged != version:
    print(f"debian/changelog has version {packaged}, not {version}")
spec = re.search(r"^Version: *(\S+)", open(top + "/rpm/zqcow2.spec").read(), re.M)[1]
if spec != version:
    print(f"rpm/zqcow2.spec has version {spec}, not {version}")
soname = "libzqcow2.so." + version.split(".")[0]
if not symbols.startswith(soname + " "):
    print(f"the symbols file is not that of {soname}")
print(f"lists: {len(files)} files in {len(packages)} packages, {len(exported)} symbols", file=sys.stderr)
END_OF_PYTHON
}

installed "$tmp/installed"
if [ "${2:-lists}" = lists ]; then
    compare "$top/debian" "$tmp/installed" >"$tmp/differences"
    cat "$tmp/differences"
    [ ! -s "$tmp/differences" ]
    exit
fi

# Each fault is a sed script for a file, and what the comparison then says.
count=0
while IFS='|' read -r file edit says; do
    rm -rf "$tmp/debian" "$tmp/files"
    cp -r "$top/debian" "$tmp/debian"
    cp "$tmp/installed" "$tmp/files"
    case $file in files) path=$tmp/files ;; *) path=$tmp/debian/$file ;; esac
    sed -i "$edit" "$path"
    compare "$tmp/debian" "$tmp/files" >"$tmp/differences" 2>/dev/null
    grep -qF "$says" "$tmp/differences" || {
        echo "$file, $edit: should give: $says"
        cat "$tmp/differences"
        exit 1
    }
    count=$((count + 1))
done <<'END'
zqcow2.install|/SPEC/d|SPEC.md: in 0 lists
zqcow2.install|$ausr/include/zqcow2|in 2 lists
zqcow2.install|$ausr/bin/other|nothing is installed as usr/bin/other
files|/zqcow2_append.3/s/append/abend/;/libzqcow2.so.0$/d;$ausr/share/new|usr/share/new: in 0 lists
files|/dist-packages/d|nothing is installed as usr/lib/python3
libzqcow2-0.symbols|/zqcow2_append@/d|zqcow2_append: in the map
libzqcow2-0.symbols|$a\ zqcow2_new@ZQCOW2_0.2 0.2.0|zqcow2_new: in the map
libzqcow2-0.symbols|1s/so.0/so.1/|not that of libzqcow2.so.0
changelog|1s/0.2.0/0.2.1/|has version 0.2.1
control|s/^Package: zqcow2$/Package: zqcow2-tools/|zqcow2-tools: a package
END
echo "lists: $count faults, 0 not found"
