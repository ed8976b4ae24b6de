# SPDX-License-Identifier: MIT
"""What python/zqcow2.py says of the binary interface, judged by a C compiler with the headers.

The program that c_program() returns compiles only if each function has the types that the module
gives it, and prints a line for each size, offset and constant that differs. What the headers have
and the module lacks (a member, an enumerator) is found as well.
"""
import ctypes
import enum
import re
import subprocess

import zqcow2 as z

HEADERS = ("zqcow2", "create", "backend", "simdisk", "queue", "bitmap", "device", "chain", "change",
           "stats", "events", "faults", "handover")
# The enumeration of the headers, and what its names begin with.
ENUMS = {
    z.Status: ("err", ""), z.Layout: ("layout", "LAYOUT_"),
    z.Preallocation: ("preallocation", "PREALLOCATE_"), z.Rules: ("rules", "RULES_"),
    z.ZoneType: ("zone_type", "ZONE_"), z.ZoneState: ("zone_state", "ZONE_"),
    z.InfoFlag: ("info_flag", "INFO_"), z.BlockKind: ("block_kind", "BLOCK_"),
    z.CheckFlag: ("check_flag", "CHECK_"), z.FindingKind: ("finding", "FOUND_"),
    z.BitmapFlag: ("bitmap_flag", "BITMAP_"), z._BitmapAddFlag: ("bitmap_add_flag", "BITMAP_ADD_"),
    z.IoKind: ("io_kind", "IO_"), z.Discard: ("simdisk_discard", "SIMDISK_DISCARD_"),
    z._OpenFlag: ("open_flag", "OPEN_"), z._CreateFlag: ("create_flag", "CREATE_"),
    z._IoFlag: ("io_flag", ""), z._FileFlag: ("file_flag", "FILE_"),
    z.IoLimitsFlag: ("io_limits_flag", "LIMITS_"), z._ResizeFlag: ("resize_flag", "RESIZE_"),
    z._SimdiskFlag: ("simdisk_flag", "SIMDISK_"), z._FaultFlag: ("simdisk_fault_flag", "SIMDISK_"),
    z.Op: ("op", "OP_"), z._RebaseFlag: ("rebase_flag", "REBASE_"), z._CommitFlag: ("commit_flag", "COMMIT_"),
    z._AmendFlag: ("amend_flag", "AMEND_"), z.EventKind: ("event_kind", "EVENT_"), z.Loss: ("faults_how", "FAULTS_"),
}
CONSTANTS = {"ZQCOW2_ZONE_PERSIST": z._ZONE_PERSIST, "ZQCOW2_ZONE_DESCRIBED": z._DESCRIBED,
             "ZQCOW2_SIMDISK_ATOMIC": z._ATOMIC, "UINT64_MAX": z._NONE_64,
             "ZQCOW2_LOG_ERROR": 1, "ZQCOW2_LOG_DEBUG": max(z._LEVELS)}
CALLBACKS = {z._SNAPSHOT: "zqcow2_snapshot_fn *", z._BITMAP: "zqcow2_bitmap_fn *",
             z._KEEP: "int (*)(void *, uint32_t, uint32_t)",
             z._EVENT: "void (*)(void *, struct zqcow2_event *)"}
PLAIN = {None: "void", ctypes.c_void_p: "void *", ctypes.c_char_p: "char *", ctypes.c_int: "int",
         ctypes.c_uint: "unsigned", ctypes.c_bool: "_Bool", ctypes.c_uint8: "uint8_t", ctypes.c_uint16: "uint16_t"}


def structs():
    return [s for s in vars(z).values() if isinstance(s, type) and issubclass(s, ctypes.Structure)
            and s.__module__ == "zqcow2" and s is not z._Py_buffer]


def c_type(kind):
    if kind in CALLBACKS:
        return CALLBACKS[kind]
    if kind in PLAIN:
        return PLAIN[kind]
    if kind in (ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t):
        return f"uint{8 * ctypes.sizeof(kind)}_t"
    if issubclass(kind, ctypes.Structure):
        return "struct iovec" if kind is z._iovec else f"struct zqcow2{kind.__name__}"
    return c_type(kind._type_) + " *"


def enum_name(member):
    return re.sub(r"^L(?=\d)", "", member.name)


def differs(what, c, value):
    """C that prints what differs; `c` is the expression of the headers."""
    kind = "unsigned long long" if value > 0xFFFFFFFF else "long long"
    suffix = "ull" if value > 0xFFFFFFFF else "ll"
    return (f"    if (({kind})({c}) != ({kind}){value}{suffix})\n"
            f'        printf("{what}: {value} in zqcow2.py, %lld in the headers\\n", (long long)({c}));\n')


def c_program():
    # Const is left out: ctypes has none. The headers of the system keep theirs.
    lines = ["#define _GNU_SOURCE\n#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <sys/types.h>\n",
             "#include <sys/uio.h>\n#define const\n"]
    lines += [f"#include <zqcow2/{h}.h>\n" for h in HEADERS]
    for name, (result, *arguments) in z._FUNCTIONS.items():
        lines.append(f"extern __typeof__({name}) {name};\nextern {c_type(result)} {name}"
                     f"({', '.join(c_type(a) for a in arguments) or 'void'});\n")
    lines.append("int main(void)\n{\n")
    for s in structs():
        if not getattr(s, "_fields_", None):
            continue
        lines.append(differs(f"sizeof {c_type(s)}", f"sizeof({c_type(s)})", ctypes.sizeof(s)))
        for name, kind in s._fields_:
            place = getattr(s, name)
            lines.append(differs(f"{c_type(s)}.{name}", f"offsetof({c_type(s)}, {name})", place.offset))
            lines.append(differs(f"sizeof {c_type(s)}.{name}", f"sizeof((({c_type(s)} *)0)->{name})", place.size))
    for e, (_, prefix) in ENUMS.items():
        for m in e:
            lines.append(differs(f"ZQCOW2_{prefix}{enum_name(m)}", f"ZQCOW2_{prefix}{enum_name(m)}", int(m)))
    for name, value in CONSTANTS.items():
        lines.append(differs(name, name, value))
    lines.append("    return 0;\n}\n")
    return "".join(lines)


def missing(include):
    """Enumerators and members that the headers have and the module has not."""
    text = "".join((include / "zqcow2" / f"{h}.h").read_text(encoding="utf-8") for h in HEADERS)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    for e, (name, prefix) in ENUMS.items():
        body = re.search(r"enum zqcow2_%s \{(.*?)\}" % name, text, re.S)
        theirs = set(re.findall(r"\bZQCOW2_(\w+)(?=\s*(?:=|,|$))", body[1] if body else ""))
        ours = {prefix + enum_name(m) for m in e}
        for lost in sorted(theirs ^ ours):
            yield f"enum zqcow2_{name}: ZQCOW2_{lost} is in one of the two only"
    for s in structs():
        body = re.search(r"struct zqcow2%s \{(.*?)\n\};" % s.__name__, text, re.S)
        if body:
            # The last identifier of each declarator, or the name of a pointer to a function.
            body = re.sub(r"\(\*(\w+)\)\([^;]*?\)(?=;)", r"\1", body[1])
            theirs = set(re.findall(r"(\w+)\s*(?:\[\w+\])*\s*(?=[,;])", body))
            for lost in sorted(theirs ^ {f[0] for f in s._fields_}):
                yield f"struct zqcow2{s.__name__}: {lost} is in one of the two only"


def compare(cc, include, folder):
    """All differences between the module and the headers below `include`, as lines."""
    (folder / "abi.c").write_text(c_program(), encoding="utf-8")
    built = subprocess.run([cc, "-std=gnu11", "-Wall", "-Werror", f"-I{include}", "abi.c", "-o", "abi"], cwd=folder,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if built.returncode != 0:
        return built.stdout.splitlines()
    ran = subprocess.run([str(folder / "abi")], stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout.splitlines() + list(missing(include))


def figures():
    members = sum(len(getattr(s, "_fields_", ())) for s in structs())
    return (f"ABI: {len(z._FUNCTIONS)} functions, {members} members of {len(structs())} structs, "
            f"{sum(len(e) for e in ENUMS)} enumerators")


def all_enums_are_judged():
    return {e for e in vars(z).values() if isinstance(e, type) and issubclass(e, enum.Enum)
            and e.__module__ == "zqcow2"} == set(ENUMS)
