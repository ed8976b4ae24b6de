#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""objects.py BUILD: holds the rules of layers.py, and more, for the objects of the library.

What an object asks for does not depend on how the source is written: a macro, a pointer, a table
or assembler that hides a name from a reader of text does not hide it here. Calls go down only and
not in a circle, each object uses only the system functions that are listed for it below, and none
has state of its own or code that runs when it is loaded. Source files that are not part of this
build, but of one for another system, are compiled first.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import layers

# System functions by the units that may use them; every unit may use those of the first line.
SYSTEM = [
    ("", "mem(cpy|move|set|cmp|chr) bcmp str(n?len|n?cmp|c?spn|r?chr|cpy) stpcpy v?snprintf strtoull"
         " errno_location assert_fail"),
    ("base/mem", "malloc posix_memalign free"),
    ("base/errtext.*", "strerror(desc_np)?"),
    ("base/(os|joint)_.*", "open close fcntl lseek fallocate fdatasync fsync ftruncate pread pwrite"
                           " p(read|write)v2? posix_f(advise|allocate) eventfd(_read|_write)? pipe"
                           " read write poll epoll_(create1|ctl) syscall"),
    ("format/codec", "ZSTD_.* (de|in)flate.*"),
    ("backend/.*", "pthread_(mutex|rwlock|cond)_.* nanosleep"),
    ("backend/threads", "pthread_(create|join|sigmask) sigfillset"),
    ("backend/(file|lock|uring).*", "open close fcntl f?stat ftruncate p(read|write)v? flock"),
    ("backend/direct_align", "syscall"),
    ("backend/resolver", "open close fcntl f?stat readlink realpath"),
    ("backend/uring.*", "io_uring_.* eventfd(_read|_write)? poll pthread_(self|equal)"),
    ("simdisk/.*", "pthread_mutex_.* poll"),
    # The mutex of an image, which inline functions of loop/ take and release.
    ("(loop|round|space|ops|image|api)/.*", "pthread_(mutex_trylock|mutex_unlock|self|equal)"),
    ("loop/turn", "pthread_mutex_.*"),
    ("loop/loop", "pthread_cond_.* nanosleep clock_gettime"),
    ("loop/tally", "clock_gettime"),
    ("image/close", "pthread_(mutex|cond|condattr)_(init|destroy|setclock|broadcast)"),
    ("api/queue", "close clock_gettime"),
]
# What a compiler or a linker adds by itself.
COMPILER = r"GLOBAL_OFFSET_TABLE_|stack_chk_fail|u?(div|mod|mul)\w*[dt]i\d"


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def plain(symbol):
    """The name in the source of a function that has other names for a checked or a large call."""
    name = re.sub(r"^_+(isoc\d+_)?|_chk$|_2$", "", symbol)
    return re.sub(r"64(v2)?$", r"\1", name).replace("vv2", "v2")


def may_use(unit, symbol):
    return any(re.fullmatch(place or ".*", unit) and re.fullmatch(name, plain(symbol))
               for place, list_of in SYSTEM for name in list_of.split())


def compile_others(build, built, folder):
    """Objects of the files that this build leaves out."""
    cache = pathlib.Path(build, "CMakeCache.txt").read_text()
    compiler = re.search(r"^CMAKE_C_COMPILER:\w*=(.*)$", cache, re.M).group(1)
    portable = re.search(r"^ZQCOW2_PORTABLE:BOOL=(ON|1|TRUE|YES)$", cache, re.M | re.I)
    for path in layers.source_files():
        if path.suffix != ".c" or layers.unit(path) in built or path.stem == "joint_kqueue":
            continue  # no kqueue on Linux
        out = pathlib.Path(folder, path.parts[1] + "+" + path.stem + ".o")
        flags = "-std=gnu11 -fPIC -Iinclude -Isrc -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64".split()
        system = [] if portable else ["-DZQ_OS_PORTABLE"]
        done = subprocess.run([compiler, *flags, *system, "-c", path, "-o", out], check=False,
                              capture_output=True, text=True)
        if done.returncode == 0:
            built[layers.unit(path)] = out
        elif "liburing.h" not in done.stderr:
            layers.complain(path, f"does not compile: {done.stderr}")


def check_state(objects):
    """An image's state is in the image: nothing writable outlives it, and nothing runs at load."""
    unit_of = {str(path): unit for unit, path in objects.items()}
    unit = None
    for line in run("readelf", "-SW", *objects.values()).splitlines():
        if line.startswith("File: "):
            unit = unit_of[line[len("File: "):]]
        found = re.match(r"\s*\[ *\d+\] (\S+) +\S+ +\w+ \w+ (\w+) \w+ +([A-Z]*)", line)
        if found and "W" in found.group(3) and int(found.group(2), 16):
            if not found.group(1).startswith(".data.rel.ro"):
                layers.complain(unit, f"{int(found.group(2), 16)} writable bytes in {found.group(1)}")


def read_symbols(objects):
    """The units of each symbol that others can use, and the symbols that each unit asks for."""
    unit_of = {str(path): unit for unit, path in objects.items()}
    defined, asked = {}, {unit: set() for unit in objects}
    for line in run("nm", "-A", "-P", *objects.values()).splitlines():
        path, rest = line.split(": ", 1)
        unit, (name, kind) = unit_of[path], rest.split()[:2]
        if kind == "C":
            layers.complain(unit, f"writable state: {name}")
        elif kind in "Uwv":
            asked[unit].add(name)
        elif kind.isupper():
            defined.setdefault(name, set()).add(unit)
    return defined, asked


def main(build):
    root = pathlib.Path(build, "CMakeFiles/zqcow2_objects.dir")
    objects = {layers.unit(p): root / f"{p}.o" for p in layers.source_files()
               if (root / f"{p}.o").exists()}
    if not objects:
        sys.exit(f"no objects of the library in {build}")
    gnu = re.match(r"x86_64-.*linux-gnu$", run("gcc", "-dumpmachine").strip())
    with tempfile.TemporaryDirectory() as folder:
        compile_others(build, objects, folder)
        defined, asked = read_symbols(objects)
        check_state(objects)
    calls, system = {}, set()
    for unit, symbols in asked.items():
        for symbol in sorted(symbols):
            for there in defined.get(symbol, ()):
                layers.check_edge(unit, unit, there, symbol)
                calls.setdefault(unit, set()).add(there)
            if symbol not in defined and not re.fullmatch(COMPILER, plain(symbol)):
                system.add(symbol)
                if gnu and not may_use(unit, symbol):
                    layers.complain(unit, f"not a system function that it may use: {symbol}")
    for part in layers.circles(calls):
        layers.complain("src", "a circle of calls: " + " ".join(part))
    edges = sum(len(there) for there in calls.values())
    layers.report(f"objects: {len(objects)}, {edges} pairs that call, {len(system)} system functions")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.split(":")[0])
    main(sys.argv[1])
