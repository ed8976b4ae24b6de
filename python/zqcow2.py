# SPDX-License-Identifier: MIT
"""Zoned qcow2 images and simulated disks: libzqcow2 for Python. zqcow2-python(7) is the guide.

    with zqcow2.Image.create("disk.qcow2", 1 << 30, zone_size=64 << 20) as image:
        offset = image.append(b"hello, zone".ljust(4096, b"\\0"), 0, fua=True)
        print(image.report(0, 1)[0].write_pointer)

Needs CPython 3.9 or newer and the shared library, which is loaded when this module is imported:
the file that the environment variable ZQCOW2_LIBRARY names, or libzqcow2.so.0 where the dynamic
linker finds it. Offsets and lengths are in bytes; those of requests are multiples of the block size
(512, or 4096 if the image is opened with that). Any thread may use any object. After os.fork() the
child must not use the objects of its parent. Messages of the library go to the logger "zqcow2".
"""
from __future__ import annotations

import ctypes
import enum
import errno
import logging
import os
import threading
import warnings
from ctypes import (POINTER, byref, c_char, c_char_p, c_int, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64,
                    c_void_p, sizeof)
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Type, TypeVar, Union

__all__ = [
    "Bitmap", "BitmapFlag", "BlockKind", "Change", "CheckFlag", "CheckResult", "Counters", "Cut", "Discard", "Error", "Extent",
    "Finding", "FindingKind", "Image", "Info", "InfoFlag", "IoKind", "IoLimits", "IoLimitsFlag", "Layout",
    "Preallocation", "Rules", "SimDisk",
    "Snapshot", "Status", "Zone", "ZoneError", "ZoneState", "ZoneType", "check", "version",
]

# ---- the enumerations of the headers ----


class Status(enum.IntEnum):
    """Errors of the library's own; see zqcow2_strerror(3)."""
    EZONE_BOUNDARY = -10001
    EZONE_FULL = -10002
    EZONE_RDONLY = -10003
    EZONE_OFFLINE = -10004
    EZONE_WP = -10005
    EZONE_OPEN = -10006
    EZONE_ACTIVE = -10007
    EZONE_STATE = -10008
    ENOTQCOW2 = -10020
    ENOTZONED = -10021
    EFEATURE = -10022
    ECORRUPT = -10023
    EDEAD = -10024
    EINACTIVE = -10025


class Layout(enum.IntEnum):
    """Revisions of the zoned extension; see zqcow2-format(5)."""
    NONE = 0
    V3 = 3
    V7 = 7
    L44 = 44
    L48B = 48
    L56 = 56


class Preallocation(enum.IntEnum):
    """What a new image has allocated before the first write; see zqcow2_open(3)."""
    OFF = 0
    METADATA = 1
    FALLOC = 2
    FULL = 3


class Rules(enum.IntEnum):
    """Which standard zone operations follow where standards differ."""
    LINUX = 0
    ZNS = 1


class ZoneType(enum.IntEnum):
    CONVENTIONAL = 1
    SEQWRITE_REQ = 2


class ZoneState(enum.IntEnum):
    NOT_WP = 0x0
    EMPTY = 0x1
    IMP_OPEN = 0x2
    EXP_OPEN = 0x3
    CLOSED = 0x4
    RDONLY = 0xD
    FULL = 0xE
    OFFLINE = 0xF


class IoLimitsFlag(enum.IntFlag):
    DISCARD = 1 << 0
    UNMAP = 1 << 1


class InfoFlag(enum.IntFlag):
    ZONED = 1 << 0
    READ_ONLY = 1 << 1
    DEAD = 1 << 2
    NO_ZONED_BIT = 1 << 3
    LAZY_REFCOUNTS = 1 << 4
    DIRTY = 1 << 5
    SNAPSHOTS = 1 << 6
    OVER_ACTIVE = 1 << 7
    SIZE_CUT = 1 << 8
    EMPTY_BACKING = 1 << 9
    BACKING = 1 << 10
    STATES = 1 << 11
    STATES_VOID = 1 << 12
    INACTIVE = 1 << 13


class BlockKind(enum.IntEnum):
    UNALLOCATED = 0
    ZERO = 1
    DATA = 2
    COMPRESSED = 3


class CheckFlag(enum.IntFlag):
    REPAIR_LEAKS = 1 << 0
    REPAIR = 1 << 1
    REPAIR_ALL = 1 << 2
    NOLOCK = 1 << 3


class FindingKind(enum.IntEnum):
    WARNING = 1
    LEAK = 2
    CORRUPTION = 3
    REPAIRED = 4


class IoKind(enum.IntEnum):
    """The kinds of calls that a disk receives."""
    READ = 0
    WRITE = 1
    FLUSH = 2
    ZERO = 3
    DISCARD = 4
    TRUNCATE = 5


class Discard(enum.IntEnum):
    """What a discarded range of a simulated disk reads as."""
    ZEROS = 0
    KEEPS = 1
    SCRAMBLES = 2


class BitmapFlag(enum.IntFlag):
    """ENABLED: changes of the device are marked. INCONSISTENT: the marks were lost; only remove it."""
    ENABLED = 1 << 0
    INCONSISTENT = 1 << 1


class _BitmapAddFlag(enum.IntFlag):
    DISABLED = 1 << 0


class _OpenFlag(enum.IntFlag):
    RDWR = 1 << 0
    NOLOCK = 1 << 1
    UPGRADE = 1 << 2
    BORROW = 1 << 3
    NO_BACKING = 1 << 4
    INACTIVE = 1 << 5
    ID_FIRST = 1 << 6


class _CreateFlag(enum.IntFlag):
    LAZY_REFCOUNTS = 1 << 0
    FORCE = 1 << 1
    EXTENDED_L2 = 1 << 2
    DATA_FILE_RAW = 1 << 3
    ZSTD = 1 << 4
    EMPTY = 1 << 5


class _IoFlag(enum.IntFlag):
    FUA = 1 << 0
    COMPRESS = 1 << 1
    NO_UNMAP = 1 << 2
    NO_FALLBACK = 1 << 3


class _FileFlag(enum.IntFlag):
    RDWR = 1 << 0
    CREATE = 1 << 1
    EXCLUSIVE = 1 << 2
    DIRECT = 1 << 3
    DONTCACHE = 1 << 4


class _ResizeFlag(enum.IntFlag):
    SHRINK = 1 << 0
    DISCARD = 1 << 1
    METADATA = 1 << 2
    FALLOC = 1 << 3
    FULL = 1 << 4


class _SimdiskFlag(enum.IntFlag):
    ASYNC = 1 << 0
    RECORD = 1 << 1
    NO_ZERO = 1 << 2
    NO_DISCARD = 1 << 3


class _FaultFlag(enum.IntFlag):
    FOREVER = 1 << 0
    SHORT = 1 << 1
    AT_SUBMIT = 1 << 2
    LANDS = 1 << 3


class _Op(enum.IntEnum):
    READ = 0
    WRITE = 1
    APPEND = 2
    WRITE_ZEROES = 3
    DISCARD = 4
    FLUSH = 5
    DRAIN = 6
    ZONE_OPEN = 7
    ZONE_CLOSE = 8
    ZONE_FINISH = 9
    ZONE_RESET = 10
    ZONE_SET_STATE = 11
    BLOCK_STATUS = 12
    ZONE_SET_DESCRIPTOR = 13
    ZONE_GET_DESCRIPTORS = 14


_ZONE_PERSIST = 0x100
_DESCRIBED = 1 << 0
_ATOMIC = 0xFFFFFFFF
_NONE_64 = (1 << 64) - 1

# ---- the structs of the headers: _name is struct zqcow2_name ----


class _image(ctypes.Structure):
    pass


class _backend(ctypes.Structure):
    pass


class _resolver(ctypes.Structure):
    pass


class _simdisk(ctypes.Structure):
    pass


class _simdisk_cut(ctypes.Structure):
    pass


class _iovec(ctypes.Structure):
    _fields_ = [("iov_base", c_void_p), ("iov_len", c_size_t)]


class _error(ctypes.Structure):
    _fields_ = [("code", c_int), ("text", c_char * 252)]


class _hooks(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("ctx", c_void_p), ("alloc", c_void_p), ("free", c_void_p), ("log", c_void_p),
        ("log_level", c_int), ("reserved", c_int),
    ]


class _open_options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("flags", c_uint32), ("rules", c_uint32), ("cache_bytes", c_uint64),
        ("extent_bytes", c_uint64), ("hooks", POINTER(_hooks)), ("resolve", c_void_p), ("resolve_arg", c_void_p),
        ("backing_format", c_char_p), ("block_size", c_uint32), ("reserved", c_uint32), ("snapshot", c_char_p),
    ]


class _create_options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("virtual_size", c_uint64), ("zone_size", c_uint64), ("zone_capacity", c_uint64),
        ("conventional_zones", c_uint32), ("max_open_zones", c_uint32), ("max_active_zones", c_uint32),
        ("max_append_bytes", c_uint32), ("cluster_size", c_uint32), ("refcount_bits", c_uint32),
        ("layout", c_uint32), ("flags", c_uint32), ("hooks", POINTER(_hooks)), ("backing_name", c_char_p),
        ("backing_format", c_char_p), ("resolve", c_void_p), ("resolve_arg", c_void_p), ("data_file", c_char_p),
        ("descriptor_extension", c_uint32), ("preallocation", c_uint32), ("progress", c_void_p),
        ("progress_arg", c_void_p),
    ]


class _info(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("virtual_size", c_uint64), ("zone_size", c_uint64), ("zone_capacity", c_uint64),
        ("file_size", c_uint64), ("incompatible_features", c_uint64), ("compatible_features", c_uint64),
        ("autoclear_features", c_uint64), ("nr_zones", c_uint32), ("nr_conventional", c_uint32),
        ("max_open_zones", c_uint32), ("max_active_zones", c_uint32), ("open_zones", c_uint32),
        ("active_zones", c_uint32), ("max_append_bytes", c_uint32), ("block_size", c_uint32),
        ("cluster_size", c_uint32), ("refcount_bits", c_uint32), ("version", c_uint32), ("layout", c_uint32),
        ("flags", c_uint32), ("compression_type", c_uint32), ("descriptor_extension", c_uint32),
        ("reserved", c_uint32),
    ]


class _io_limits(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("flags", c_uint32), ("block_size", c_uint32), ("physical_block", c_uint32),
        ("optimal_io", c_uint32), ("discard_granularity", c_uint32), ("zeroes_granularity", c_uint32),
        ("max_discard", c_uint64), ("max_zeroes", c_uint64),
    ]


class _extent(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("kind", c_uint32), ("depth", c_uint32), ("length", c_uint64), ("host", c_uint64),
    ]


class _zone(ctypes.Structure):
    _fields_ = [
        ("start", c_uint64), ("length", c_uint64), ("capacity", c_uint64), ("write_pointer", c_uint64),
        ("type", c_uint8), ("state", c_uint8), ("attributes", c_uint8), ("reserved", c_uint8 * 29),
    ]


class _snapshot(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("id", c_char_p), ("name", c_char_p), ("disk_size", c_uint64),
        ("vm_state_size", c_uint64), ("vm_clock_nsec", c_uint64), ("icount", c_uint64),
        ("date_sec", c_uint32), ("date_nsec", c_uint32),
    ]


class _check_options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("flags", c_uint32), ("reserved", c_uint32), ("hooks", POINTER(_hooks)),
        ("found", c_void_p), ("arg", c_void_p), ("resolve", c_void_p), ("resolve_arg", c_void_p),
    ]


class _check_result(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("corruptions", c_uint64), ("leaked_clusters", c_uint64), ("warnings", c_uint64),
        ("corruptions_fixed", c_uint64), ("leaks_fixed", c_uint64), ("total_clusters", c_uint64),
        ("allocated_clusters", c_uint64), ("compressed_clusters", c_uint64), ("image_end_offset", c_uint64),
    ]


class _bitmap(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("name", c_char_p), ("granularity", c_uint64), ("dirty_bytes", c_uint64),
        ("flags", c_uint32), ("reserved", c_uint32),
    ]


class _dirty_range(ctypes.Structure):
    _fields_ = [("offset", c_uint64), ("length", c_uint64)]


class _result(ctypes.Structure):
    _fields_ = [("ret", c_int), ("reserved", c_uint32), ("offset", c_uint64)]


class _request(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32), ("op", c_uint16), ("flags", c_uint16), ("offset", c_uint64), ("length", c_uint64),
        ("iov", POINTER(_iovec)), ("iovcnt", c_uint32), ("reserved", c_uint32), ("done", c_void_p), ("arg", c_void_p),
    ]


class _resolver_options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("root", c_char_p), ("hooks", POINTER(_hooks)), ("data_file", c_char_p),
    ]


class _simdisk_options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("seed", c_uint64), ("length", c_uint64), ("max_length", c_uint64),
        ("flags", c_uint32), ("discard", c_uint32), ("atomic_write", c_uint32), ("io_align", c_uint32),
        ("buf_align", c_uint32), ("max_transfer", c_uint32), ("hooks", POINTER(_hooks)), ("max_iov", c_uint32),
        ("reserved", c_uint32),
    ]


class _simdisk_counters(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("calls", c_uint64 * 8), ("bytes", c_uint64 * 8), ("position", c_uint64),
        ("in_flight", c_uint64), ("max_in_flight", c_uint64), ("faults", c_uint64), ("misuse", c_uint64),
    ]


class _simdisk_fault(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("nth", c_uint64), ("kinds", c_uint32), ("flags", c_uint32), ("error", c_int),
        ("reserved", c_int),
    ]


class _simdisk_op(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("offset", c_uint64), ("length", c_uint64), ("begun", c_uint64), ("ended", c_uint64),
        ("kind", c_uint32), ("units", c_uint32), ("result", c_int), ("reserved", c_int),
    ]


_LOG = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)
_FOUND = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)
_SNAPSHOT = ctypes.CFUNCTYPE(None, c_void_p, POINTER(_snapshot))
_BITMAP = ctypes.CFUNCTYPE(None, c_void_p, POINTER(_bitmap))
_KEEP = ctypes.CFUNCTYPE(c_int, c_void_p, c_uint32, c_uint32)

_S = TypeVar("_S", bound=ctypes.Structure)


def _sized(kind: Type[_S], **members: Any) -> _S:
    """A struct that begins with its size; members that are not given are 0."""
    return kind(size=sizeof(kind), **members)


# ---- the functions of the headers: what they return, then what they take ----

_I, _B, _E = POINTER(_image), POINTER(_backend), POINTER(_error)
_D, _C = POINTER(_simdisk), POINTER(_simdisk_cut)
_FUNCTIONS: Dict[str, Tuple[Any, ...]] = {
    "zqcow2_version": (ctypes.c_uint,),
    "zqcow2_strerror": (c_char_p, c_int),
    "zqcow2_errno": (c_int, c_int),
    "zqcow2_file_open": (c_int, c_char_p, ctypes.c_uint, POINTER(_hooks), POINTER(_B)),
    "zqcow2_uring_open": (c_int, c_char_p, ctypes.c_uint, POINTER(_hooks), POINTER(_B)),
    "zqcow2_backend_close": (None, _B),
    "zqcow2_resolver_new": (c_int, c_char_p, POINTER(_resolver_options), POINTER(POINTER(_resolver))),
    "zqcow2_resolver_free": (None, POINTER(_resolver)),
    "zqcow2_resolve_file": (c_int, c_void_p, c_char_p, c_char_p, c_uint32, POINTER(_B), _E),
    "zqcow2_create": (c_int, _B, POINTER(_create_options), _E),
    "zqcow2_open": (c_int, _B, POINTER(_open_options), POINTER(_I), _E),
    "zqcow2_close": (c_int, _I),
    "zqcow2_get_info": (c_int, _I, POINTER(_info)),
    "zqcow2_run": (c_int, _I, POINTER(_request), POINTER(_result)),
    "zqcow2_block_status": (c_int, _I, c_uint64, c_uint64, POINTER(_extent)),
    "zqcow2_resize": (c_int, _I, c_uint64, c_uint32, _E),
    "zqcow2_zone_report": (c_int, _I, c_uint64, POINTER(_zone), POINTER(c_uint32)),
    "zqcow2_zone_find": (c_int, _I, POINTER(c_uint64), c_uint32, POINTER(_zone), POINTER(c_uint32)),
    "zqcow2_zone_changes": (c_int, _I, POINTER(c_uint64), POINTER(c_uint64), POINTER(c_uint32)),
    "zqcow2_get_io_limits": (c_int, _I, POINTER(_io_limits)),
    "zqcow2_snapshot_take": (c_int, _I, POINTER(_snapshot), _E),
    "zqcow2_snapshot_delete": (c_int, _I, c_char_p, _E),
    "zqcow2_snapshot_apply": (c_int, _I, c_char_p, _E),
    "zqcow2_snapshot_list": (c_int, _I, _SNAPSHOT, c_void_p, _E),
    "zqcow2_bitmap_list": (c_int, _I, _BITMAP, c_void_p, _E),
    "zqcow2_bitmap_add": (c_int, _I, c_char_p, c_uint64, c_uint32, _E),
    "zqcow2_bitmap_remove": (c_int, _I, c_char_p, _E),
    "zqcow2_bitmap_clear": (c_int, _I, c_char_p, _E),
    "zqcow2_bitmap_enable": (c_int, _I, c_char_p, _E),
    "zqcow2_bitmap_disable": (c_int, _I, c_char_p, _E),
    "zqcow2_bitmap_ranges": (c_int, _I, c_char_p, c_uint64, POINTER(_dirty_range), POINTER(c_uint32), _E),
    "zqcow2_check": (c_int, _B, POINTER(_check_options), POINTER(_check_result), _E),
    "zqcow2_simdisk_new": (c_int, POINTER(_simdisk_options), POINTER(_D)),
    "zqcow2_simdisk_free": (None, _D),
    "zqcow2_simdisk_backend": (c_int, _D, POINTER(_B)),
    "zqcow2_simdisk_clone": (c_int, _D, POINTER(_D)),
    "zqcow2_simdisk_set_seed": (None, _D, c_uint64),
    "zqcow2_simdisk_import": (c_int, _D, c_void_p, c_size_t, c_uint64),
    "zqcow2_simdisk_export": (c_int, _D, c_void_p, c_size_t, c_uint64),
    "zqcow2_simdisk_length": (c_uint64, _D),
    "zqcow2_simdisk_hash": (c_uint64, _D),
    "zqcow2_simdisk_get_counters": (c_int, _D, POINTER(_simdisk_counters)),
    "zqcow2_simdisk_set_fault": (c_int, _D, POINTER(_simdisk_fault)),
    "zqcow2_simdisk_power_off": (None, _D, c_uint64),
    "zqcow2_simdisk_position": (c_uint64, _D),
    "zqcow2_simdisk_record": (c_int, _D),
    "zqcow2_simdisk_event": (c_int, _D, c_uint64, POINTER(_simdisk_op)),
    "zqcow2_simdisk_cut_new": (c_int, _D, POINTER(_C)),
    "zqcow2_simdisk_cut_free": (None, _C),
    "zqcow2_simdisk_cut_seek": (c_int, _C, c_uint64),
    "zqcow2_simdisk_cut_position": (c_uint64, _C),
    "zqcow2_simdisk_cut_pending": (c_uint32, _C),
    "zqcow2_simdisk_cut_op": (c_int, _C, c_uint32, POINTER(_simdisk_op)),
    "zqcow2_simdisk_cut_states": (c_uint64, _C),
    "zqcow2_simdisk_cut_image": (c_int, _C, c_uint64, POINTER(_D)),
    "zqcow2_simdisk_cut_choose": (c_int, _C, _KEEP, c_void_p, c_uint64, POINTER(_D)),
    "zqcow2_simdisk_cut_kill": (c_int, _C, POINTER(_D)),
}


def _load() -> ctypes.CDLL:
    library = os.environ.get("ZQCOW2_LIBRARY") or "libzqcow2.so.0"
    try:
        lib = ctypes.CDLL(library)
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as e:
        raise ImportError(f"{e} (ZQCOW2_LIBRARY names the library to load)") from None
    return lib


_lib = _load()


def version() -> Tuple[int, int, int]:
    """The version of the loaded library."""
    v: int = _lib.zqcow2_version()
    return v // 1000000, v // 1000 % 1000, v % 1000


_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}
_logger = logging.getLogger("zqcow2")
_logger.addHandler(logging.NullHandler())


def _log(_ctx: int, level: int, text: bytes) -> None:
    _logger.log(_LEVELS.get(level, logging.DEBUG), "%s", text.decode(errors="replace"))


_LOG_CALL = _LOG(_log)  # called as long as the module lives
_HOOKS = _sized(_hooks, log=ctypes.cast(_LOG_CALL, c_void_p), log_level=4)

# ---- errors ----


class Error(OSError):
    """An error of the library or of the system. errno is the nearest one; strerror describes what
    failed. A bad argument that never reaches the library raises ValueError or TypeError instead."""

    code: int = 0  #: what the library returned: a Status, or a negated errno
    zone: Optional[int] = None  #: ZoneError: the start of the zone that refused the request

    @property
    def name(self) -> str:
        """The name of the code, such as "EZONE_WP" or "ENOSPC"."""
        return self.code.name if isinstance(self.code, Status) else errno.errorcode.get(-self.code, str(self.code))


class ZoneError(Error):
    """The request breaks a rule of zones: code is one of Status.EZONE_*."""


def _failure(rc: int, text: bytes = b"", zone: Optional[int] = None, filename: Optional[str] = None) -> Error:
    refused = Status.EZONE_STATE <= rc <= Status.EZONE_BOUNDARY
    why = (text or _lib.zqcow2_strerror(rc)).decode(errors="replace")
    error = (ZoneError if refused else Error)(_lib.zqcow2_errno(rc), why, filename)
    error.code = Status(rc) if rc in set(Status) else rc
    error.zone = zone if refused else None
    return error


def _check(rc: int, err: Optional[_error] = None, filename: Optional[str] = None) -> None:
    if rc < 0:
        raise _failure(rc, err.text if err is not None else b"", filename=filename)


# ---- buffers: the library reads and writes the memory of the caller's objects, without a copy ----


class _Py_buffer(ctypes.Structure):
    _fields_ = [
        ("buf", c_void_p), ("obj", c_void_p), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", c_int), ("ndim", c_int), ("format", c_void_p), ("shape", c_void_p), ("strides", c_void_p),
        ("suboffsets", c_void_p), ("internal", c_void_p),
    ]


_python = ctypes.PyDLL(None)  # of our own, so that no other module sees these types
_python.PyObject_GetBuffer.argtypes = [ctypes.py_object, POINTER(_Py_buffer), c_int]
_python.PyBuffer_Release.argtypes = [POINTER(_Py_buffer)]
_python.PyBuffer_Release.restype = None
_python.PyBytes_FromStringAndSize.argtypes = [c_void_p, ctypes.c_ssize_t]
_python.PyBytes_FromStringAndSize.restype = ctypes.py_object
_python.PyBytes_AsString.argtypes = [ctypes.py_object]
_python.PyBytes_AsString.restype = c_void_p


class _Memory:
    """The contiguous memory of an object that has a buffer, held until the end of the block."""

    def __init__(self, data: Any, writable: bool = False) -> None:
        self._view = _Py_buffer()
        _python.PyObject_GetBuffer(data, byref(self._view), 1 if writable else 0)

    def __enter__(self) -> Tuple[int, int]:
        return self._view.buf, self._view.len

    def __exit__(self, *_: Any) -> None:
        _python.PyBuffer_Release(byref(self._view))


def _new_bytes(length: int) -> Tuple[bytes, int]:
    """A bytes object to be filled before anybody sees it, and its address."""
    if length < 0:
        raise ValueError("a negative length")
    data: bytes = _python.PyBytes_FromStringAndSize(None, length)
    return data, _python.PyBytes_AsString(data)


# ---- the life of an object ----


class _InUse:
    """`with object._in_use as pointer:` keeps the object from being closed meanwhile."""

    def __init__(self, handle: _Handle) -> None:
        self._handle = handle

    def __enter__(self) -> Any:
        handle = self._handle
        with handle._lock:
            if handle._pointer is None:
                raise ValueError(f"the {type(handle).__name__} is closed")
            handle._users += 1
            return handle._pointer

    def __exit__(self, *_: Any) -> None:
        with self._handle._lock:
            self._handle._users -= 1


_H = TypeVar("_H", bound="_Handle")


class _Handle:
    """An object of the library. It is closed when a with block ends, and in use while a call runs
    or an object that depends on it is open: closing it then raises an Error with EBUSY."""

    _pointer: Any = None

    def __init__(self, pointer: Any, parent: Optional[_Handle] = None) -> None:
        self._lock = threading.RLock()
        self._users = 0
        self._in_use = _InUse(self)
        self._parent = parent
        self._pid = os.getpid()
        self._pointer = pointer

    def _free(self, pointer: Any) -> int:
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        return self._pointer is None

    def close(self) -> None:
        """Closes the object, even if an Error is raised, unless that is EBUSY. A second close
        does nothing."""
        with self._lock:
            if self._pointer is None:
                return
            if self._users:
                raise _failure(-errno.EBUSY)
            pointer, self._pointer = self._pointer, None
        try:
            _check(self._free(pointer))
        finally:
            if self._parent is not None:
                self._parent._in_use.__exit__()

    def __enter__(self: _H) -> _H:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if self._pointer is not None and self._pid == os.getpid():
            try:
                self.close()
            except Exception:  # pylint: disable=broad-except
                pass
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)


# ---- what calls return ----


class Zone(NamedTuple):
    start: int
    length: int
    capacity: int
    write_pointer: Optional[int]  #: None: the zone has none now, because of its type or its state
    type: ZoneType
    state: ZoneState
    described: bool  #: has a descriptor extension


class Info(NamedTuple):
    """As struct zqcow2_info; see zqcow2_open(3)."""
    virtual_size: int
    zone_size: int
    zone_capacity: int
    file_size: int
    incompatible_features: int
    compatible_features: int
    autoclear_features: int
    nr_zones: int
    nr_conventional: int
    max_open_zones: int
    max_active_zones: int
    open_zones: int
    active_zones: int
    max_append_bytes: int
    block_size: int
    cluster_size: int
    refcount_bits: int
    version: int
    layout: Layout
    flags: InfoFlag
    compression_type: int
    descriptor_extension: int


class IoLimits(NamedTuple):
    """As struct zqcow2_io_limits; see zqcow2_get_io_limits(3)."""
    flags: IoLimitsFlag
    block_size: int
    physical_block: int
    optimal_io: int
    discard_granularity: int
    zeroes_granularity: int
    max_discard: int
    max_zeroes: int


class Extent(NamedTuple):
    kind: BlockKind
    depth: int
    length: int
    host: Optional[int]  #: offset in the file at that depth; None: none, or compressed


class Snapshot(NamedTuple):
    id: str
    name: str
    disk_size: int
    vm_state_size: int
    vm_clock_nsec: int
    icount: Optional[int]
    date_sec: int
    date_nsec: int


class Bitmap(NamedTuple):
    name: str
    granularity: int  #: bytes of the device per bit
    dirty_bytes: int
    flags: BitmapFlag


class Finding(NamedTuple):
    kind: FindingKind
    text: str


class CheckResult(NamedTuple):
    """As struct zqcow2_check_result; see zqcow2_check(3)."""
    corruptions: int
    leaked_clusters: int
    warnings: int
    corruptions_fixed: int
    leaks_fixed: int
    total_clusters: int
    allocated_clusters: int
    compressed_clusters: int
    image_end_offset: int
    findings: List[Finding]

    @property
    def clean(self) -> bool:
        """Nothing is wrong now."""
        return self.corruptions == self.corruptions_fixed and self.leaked_clusters == self.leaks_fixed


class Counters(NamedTuple):
    calls: Dict[IoKind, int]
    bytes: Dict[IoKind, int]
    position: int
    in_flight: int
    max_in_flight: int
    faults: int
    misuse: int


class Change(NamedTuple):
    """A change in the log of a simulated disk."""
    kind: IoKind
    offset: int
    length: int
    begun: int
    ended: Optional[int]  #: None: still running
    units: int
    result: int


def _change(op: _simdisk_op) -> Change:
    return Change(IoKind(op.kind), op.offset, op.length, op.begun, None if op.ended == _NONE_64 else op.ended,
                  op.units, op.result)


# ---- simulated disks ----


class SimDisk(_Handle):
    """A disk in memory that can lose power, fail and reorder on request: zqcow2_simdisk(3)."""

    def __init__(self, length: int = 0, *, seed: int = 0, record: bool = True, max_length: int = 0,
                 discard: Discard = Discard.ZEROS, atomic_write: Optional[int] = 512, io_align: int = 0,
                 buf_align: int = 0, max_transfer: int = 0, max_iov: int = 0, asynchronous: bool = False,
                 zero: bool = True, discards: bool = True) -> None:
        """atomic_write None: a request survives a power loss whole or not at all. record: keep a
        log, so that power can be cut at every position. zero, discards False: the disk has no such
        command."""
        flags = ((_SimdiskFlag.ASYNC if asynchronous else 0) | (_SimdiskFlag.RECORD if record else 0)
                 | (0 if zero else _SimdiskFlag.NO_ZERO) | (0 if discards else _SimdiskFlag.NO_DISCARD))
        options = _sized(
            _simdisk_options, seed=seed, length=length, max_length=max_length, flags=flags, discard=discard,
            atomic_write=_ATOMIC if atomic_write is None else atomic_write, io_align=io_align,
            buf_align=buf_align, max_transfer=max_transfer, max_iov=max_iov, hooks=ctypes.pointer(_HOOKS))
        disk = _D()
        _check(_lib.zqcow2_simdisk_new(byref(options), byref(disk)))
        super().__init__(disk)

    @classmethod
    def _of(cls, pointer: Any) -> SimDisk:
        disk = cls.__new__(cls)
        _Handle.__init__(disk, pointer)
        return disk

    def _free(self, pointer: Any) -> int:
        _lib.zqcow2_simdisk_free(pointer)
        return 0

    def clone(self) -> SimDisk:
        """An independent disk with the content that reads return now, all of it durable, no log."""
        clone = _D()
        with self._in_use as disk:
            _check(_lib.zqcow2_simdisk_clone(disk, byref(clone)))
        return self._of(clone)

    def set_seed(self, seed: int) -> None:
        with self._in_use as disk:
            _lib.zqcow2_simdisk_set_seed(disk, seed)

    def read(self, length: int, offset: int) -> bytes:
        """The bytes of the disk itself, not of an image on it. It is no event."""
        data, address = _new_bytes(length)
        with self._in_use as disk:
            _check(_lib.zqcow2_simdisk_export(disk, address, length, offset))
        return data

    def write(self, data: Any, offset: int) -> None:
        """Changes the disk behind every image's back. It is durable at once and no event."""
        with _Memory(data) as (address, length), self._in_use as disk:
            _check(_lib.zqcow2_simdisk_import(disk, address, length, offset))

    @property
    def length(self) -> int:
        with self._in_use as disk:
            return int(_lib.zqcow2_simdisk_length(disk))

    def hash(self) -> int:
        """A hash of the durable content; it depends on nothing else."""
        with self._in_use as disk:
            return int(_lib.zqcow2_simdisk_hash(disk))

    def counters(self) -> Counters:
        out = _sized(_simdisk_counters)
        with self._in_use as disk:
            _check(_lib.zqcow2_simdisk_get_counters(disk, byref(out)))
        return Counters({k: out.calls[k] for k in IoKind}, {k: out.bytes[k] for k in IoKind}, out.position,
                        out.in_flight, out.max_in_flight, out.faults, out.misuse)

    def set_fault(self, kinds: Union[IoKind, Iterable[IoKind]], error: int = errno.EIO, *, nth: int = 1,
                  forever: bool = False, short: bool = False, at_submit: bool = False, lands: bool = False) -> None:
        """Makes the nth call of these kinds from now on fail with the errno `error`. It replaces an
        earlier fault. short, lands: half or all of a failing write is written."""
        mask = 0
        for kind in [kinds] if isinstance(kinds, IoKind) else kinds:
            mask |= 1 << kind
        flags = ((_FaultFlag.FOREVER if forever else 0) | (_FaultFlag.SHORT if short else 0)
                 | (_FaultFlag.AT_SUBMIT if at_submit else 0) | (_FaultFlag.LANDS if lands else 0))
        fault = _sized(_simdisk_fault, nth=nth, kinds=mask, flags=flags, error=-error)
        with self._in_use as disk:
            _check(_lib.zqcow2_simdisk_set_fault(disk, byref(fault)))

    def clear_fault(self) -> None:
        with self._in_use as disk:
            _check(_lib.zqcow2_simdisk_set_fault(disk, None))

    def power_off(self, position: int = 0) -> None:
        """From that position on, or at once, every call of an image on the disk fails with EIO."""
        with self._in_use as disk:
            _lib.zqcow2_simdisk_power_off(disk, position)

    def power_on(self) -> None:
        """Undoes power_off(). The disk has lost nothing; power_cut() has what a loss leaves."""
        self.power_off(_NONE_64)

    @property
    def position(self) -> int:
        """The number of events so far: each change and flush is one when it begins and one when it
        ends."""
        with self._in_use as disk:
            return int(_lib.zqcow2_simdisk_position(disk))

    def record(self) -> None:
        """Begins a new log at the current position. EBUSY: a Cut of the old one is open."""
        with self._in_use as disk:
            _check(_lib.zqcow2_simdisk_record(disk))

    def event(self, position: int) -> Change:
        """The change to which the event after `position` belongs. ENOENT: it is not in the log."""
        op = _sized(_simdisk_op)
        with self._in_use as disk:
            _check(_lib.zqcow2_simdisk_event(disk, position, byref(op)))
        return _change(op)

    def cut(self, position: Optional[int] = None) -> Cut:
        """The moment at `position`, or now, with what a power loss may leave of it."""
        return Cut(self, self.position if position is None else position)

    def power_cut(self, position: Optional[int] = None) -> Iterator[SimDisk]:
        """Yields a disk for each state that a power loss at `position`, or now, may leave. Each is
        closed when the next one is asked for."""
        with self.cut(position) as cut:
            for k in range(cut.states):
                with cut.image(k) as disk:
                    yield disk


class Cut(_Handle):
    """A view of a simulated disk at one position. One thread at a time may use it."""

    def __init__(self, disk: SimDisk, position: int) -> None:
        cut = _C()
        pointer = disk._in_use.__enter__()
        try:
            _check(_lib.zqcow2_simdisk_cut_new(pointer, byref(cut)))
        except BaseException:
            disk._in_use.__exit__()
            raise
        super().__init__(cut, disk)
        try:
            self.seek(position)
        except BaseException:
            self.close()
            raise

    def _free(self, pointer: Any) -> int:
        _lib.zqcow2_simdisk_cut_free(pointer)
        return 0

    def seek(self, position: int) -> None:
        with self._in_use as cut:
            if position != _lib.zqcow2_simdisk_cut_position(cut):
                _check(_lib.zqcow2_simdisk_cut_seek(cut, position))

    @property
    def position(self) -> int:
        with self._in_use as cut:
            return int(_lib.zqcow2_simdisk_cut_position(cut))

    @property
    def pending(self) -> List[Change]:
        """The changes that a power loss here may keep, lose or tear."""
        changes = []
        op = _sized(_simdisk_op)
        with self._in_use as cut:
            for i in range(_lib.zqcow2_simdisk_cut_pending(cut)):
                _check(_lib.zqcow2_simdisk_cut_op(cut, i, byref(op)))
                changes.append(_change(op))
        return changes

    @property
    def states(self) -> int:
        with self._in_use as cut:
            return int(_lib.zqcow2_simdisk_cut_states(cut))

    def image(self, k: int) -> SimDisk:
        """The disk in state k, with power on and no log. In state 0 all pending changes are lost."""
        disk = _D()
        with self._in_use as cut:
            _check(_lib.zqcow2_simdisk_cut_image(cut, k, byref(disk)))
        return SimDisk._of(disk)

    def choose(self, keep: Callable[[int, int], bool], order: int = 0) -> SimDisk:
        """The disk on which unit u of pending change i survives if keep(i, u). order: a seed by
        which the survivors are shuffled."""
        raised: List[BaseException] = []

        def ask(_arg: int, change: int, unit: int) -> int:
            try:
                return 0 if raised else int(bool(keep(change, unit)))
            except BaseException as e:  # pylint: disable=broad-except
                raised.append(e)  # an exception cannot cross the library: it is raised below
                return 0

        disk = _D()
        with self._in_use as cut:
            _check(_lib.zqcow2_simdisk_cut_choose(cut, _KEEP(ask), None, order, byref(disk)))
        chosen = SimDisk._of(disk)
        if raised:
            chosen.close()
            raise raised[0]
        return chosen

    def kill(self) -> SimDisk:
        """The disk that remains if the program is killed here while power stays on."""
        disk = _D()
        with self._in_use as cut:
            _check(_lib.zqcow2_simdisk_cut_kill(cut, byref(disk)))
        return SimDisk._of(disk)


# ---- images ----

Target = Union[str, bytes, "os.PathLike[str]", SimDisk]


class _Place:
    """Where an image is: an open backend, and what finds the files that the image names."""

    def __init__(self, target: Target, flags: int, backend: str = "file") -> None:
        self.disk = target if isinstance(target, SimDisk) else None
        self.name = None if isinstance(target, SimDisk) else os.fsdecode(target)
        self.backend, self.resolver = _B(), POINTER(_resolver)()
        self.resolve: Optional[c_void_p] = None
        if isinstance(target, SimDisk):
            disk = target._in_use.__enter__()
            try:
                _check(_lib.zqcow2_simdisk_backend(disk, byref(self.backend)))
            except BaseException:
                target._in_use.__exit__()
                raise
            return
        if backend not in ("file", "uring"):
            raise ValueError('backend must be "file" or "uring"')
        opener = _lib.zqcow2_uring_open if backend == "uring" else _lib.zqcow2_file_open
        path = os.fsencode(target)
        if b"\0" in path:
            raise ValueError("embedded null byte")
        _check(opener(path, flags, byref(_HOOKS), byref(self.backend)), filename=self.name)
        options = _sized(_resolver_options, hooks=ctypes.pointer(_HOOKS))
        try:
            _check(_lib.zqcow2_resolver_new(path, byref(options), byref(self.resolver)), filename=self.name)
        except BaseException:
            _lib.zqcow2_backend_close(self.backend)
            raise
        self.resolve = ctypes.cast(_lib.zqcow2_resolve_file, c_void_p)

    def resolving(self) -> Dict[str, Any]:
        """The members of options that find other files."""
        if self.resolve is None:
            return {}
        return {"resolve": self.resolve, "resolve_arg": ctypes.cast(self.resolver, c_void_p)}

    def leave(self, keep_backend: bool = False) -> None:
        _lib.zqcow2_resolver_free(self.resolver)
        if not keep_backend:
            _lib.zqcow2_backend_close(self.backend)
            if self.disk is not None:
                self.disk._in_use.__exit__()


def _text(value: Optional[Union[str, bytes, "os.PathLike[str]"]]) -> Optional[bytes]:
    return None if value is None else os.fsencode(value)


def _zones_of(zones: Iterable[Any]) -> List[Zone]:
    none = (ZoneState.NOT_WP, ZoneState.RDONLY, ZoneState.OFFLINE)
    return [Zone(z.start, z.length, z.capacity, None if z.state in none else z.write_pointer, ZoneType(z.type),
                 ZoneState(z.state), bool(z.attributes & _DESCRIBED)) for z in zones]


class Image(_Handle):
    """An open image. Close it, or use it in a with block: closing flushes and marks it clean."""

    @classmethod
    def open(cls, target: Target, *, write: bool = False, lock: bool = True, upgrade: bool = False,
             backing: bool = True, backing_format: Optional[str] = None, rules: Rules = Rules.LINUX,
             block_size: int = 512, cache_bytes: int = 0, extent_bytes: int = 0, snapshot: Optional[str] = None,
             backend: str = "file", direct: bool = False) -> Image:
        """Opens the image in a file or on a simulated disk. backing False: neither the backing file
        nor the data file is opened. backend: "file" or "uring". See zqcow2_open(3)."""
        place = _Place(target, (_FileFlag.RDWR if write else 0) | (_FileFlag.DIRECT if direct else 0), backend)
        return cls._opened(
            place, write=write, lock=lock, upgrade=upgrade, backing=backing, rules=rules, block_size=block_size,
            cache_bytes=cache_bytes, extent_bytes=extent_bytes, snapshot=_text(snapshot),
            backing_format=_text(backing_format))

    @classmethod
    def create(cls, target: Target, size: int = 0, *, zone_size: int = 0, zone_capacity: int = 0,
               conventional_zones: int = 0, max_open_zones: int = 0, max_active_zones: int = 0,
               max_append_bytes: int = 0, cluster_size: int = 0, refcount_bits: int = 0,
               layout: Layout = Layout.NONE, descriptor_extension: int = 0, lazy_refcounts: bool = False,
               extended_l2: bool = False, zstd: bool = False, force: bool = False, empty: bool = False,
               backing_file: Optional[Union[str, "os.PathLike[str]"]] = None, backing_format: Optional[str] = None,
               data_file: Optional[Union[str, "os.PathLike[str]"]] = None, data_file_raw: bool = False,
               preallocation: Preallocation = Preallocation.OFF, rules: Rules = Rules.LINUX, block_size: int = 512,
               backend: str = "file", direct: bool = False) -> Image:
        """Creates an image and opens it for writing. EEXIST: there is something already, and not
        force. See zqcow2_open(3)."""
        flags = ((_CreateFlag.LAZY_REFCOUNTS if lazy_refcounts else 0) | (_CreateFlag.FORCE if force else 0)
                 | (_CreateFlag.EXTENDED_L2 if extended_l2 else 0) | (_CreateFlag.ZSTD if zstd else 0)
                 | (_CreateFlag.DATA_FILE_RAW if data_file_raw else 0) | (_CreateFlag.EMPTY if empty else 0))
        place = _Place(target, _FileFlag.RDWR | _FileFlag.CREATE | (_FileFlag.DIRECT if direct else 0), backend)
        err = _error()
        try:
            options = _sized(
                _create_options, virtual_size=size, zone_size=zone_size, zone_capacity=zone_capacity,
                conventional_zones=conventional_zones, max_open_zones=max_open_zones,
                max_active_zones=max_active_zones, max_append_bytes=max_append_bytes, cluster_size=cluster_size,
                refcount_bits=refcount_bits, layout=layout, flags=flags, hooks=ctypes.pointer(_HOOKS),
                backing_name=_text(backing_file), backing_format=_text(backing_format),
                data_file=_text(data_file), descriptor_extension=descriptor_extension,
                preallocation=preallocation, **place.resolving())
            _check(_lib.zqcow2_create(place.backend, byref(options), byref(err)), err, place.name)
        except BaseException:
            place.leave()
            raise
        return cls._opened(place, write=True, rules=rules, block_size=block_size,
                           backing_format=_text(backing_format))

    @classmethod
    def _opened(cls, place: _Place, *, write: bool, lock: bool = True, upgrade: bool = False, backing: bool = True,
                **members: Any) -> Image:
        flags = ((_OpenFlag.RDWR if write else 0) | (0 if lock else _OpenFlag.NOLOCK)
                 | (_OpenFlag.UPGRADE if upgrade else 0) | (0 if backing else _OpenFlag.NO_BACKING))
        pointer, err = _I(), _error()
        try:
            options = _sized(_open_options, flags=flags, hooks=ctypes.pointer(_HOOKS), **place.resolving(), **members)
            _check(_lib.zqcow2_open(place.backend, byref(options), byref(pointer), byref(err)), err, place.name)
        except BaseException:
            place.leave()
            raise
        place.leave(keep_backend=True)
        image = cls.__new__(cls)
        _Handle.__init__(image, pointer, place.disk)
        return image

    def _free(self, pointer: Any) -> int:
        return int(_lib.zqcow2_close(pointer))

    def _run(self, op: _Op, offset: int, length: int, address: Optional[int] = None, flags: int = 0) -> int:
        if offset < 0 or length < 0:
            raise ValueError("a negative offset or length")
        request = _request(sizeof(_request), op, flags, offset, length)
        if address is not None:
            request.iov, request.iovcnt = ctypes.pointer(_iovec(address, length)), 1
        result = _result()
        with self._in_use as image:
            rc = _lib.zqcow2_run(image, byref(request), byref(result))
        if rc < 0:
            raise _failure(rc, zone=result.offset)
        return int(result.offset)

    # -- data --

    def read(self, length: int, offset: int) -> bytes:
        """What is at or beyond a write pointer reads as zeros."""
        data, address = _new_bytes(length)
        self._run(_Op.READ, offset, length, address)
        return data

    def readinto(self, buffer: Any, offset: int) -> None:
        """Fills a writable buffer, such as a bytearray, a memoryview or an mmap."""
        with _Memory(buffer, writable=True) as (address, length):
            self._run(_Op.READ, offset, length, address)

    def write(self, data: Any, offset: int, *, fua: bool = False, compress: bool = False) -> None:
        """Writes a buffer of any kind. In a sequential zone, offset must be the write pointer."""
        flags = (_IoFlag.FUA if fua else 0) | (_IoFlag.COMPRESS if compress else 0)
        with _Memory(data) as (address, length):
            self._run(_Op.WRITE, offset, length, address, flags)

    def append(self, data: Any, zone: int, *, fua: bool = False) -> int:
        """Appends to the zone that starts at `zone`; returns the offset of the data."""
        with _Memory(data) as (address, length):
            return self._run(_Op.APPEND, zone, length, address, _IoFlag.FUA if fua else 0)

    def write_zeroes(
        self,
        length: int,
        offset: int,
        *,
        fua: bool = False,
        unmap: bool = True,
        fallback: bool = True,
    ) -> None:
        flags = _IoFlag.FUA if fua else 0
        flags |= 0 if unmap else _IoFlag.NO_UNMAP
        flags |= 0 if fallback else _IoFlag.NO_FALLBACK
        self._run(_Op.WRITE_ZEROES, offset, length, flags=flags)

    def discard(self, length: int, offset: int, *, fua: bool = False) -> None:
        """Frees the whole clusters in the range; not in sequential zones."""
        self._run(_Op.DISCARD, offset, length, flags=_IoFlag.FUA if fua else 0)

    def flush(self) -> None:
        """Makes durable every request that has returned."""
        self._run(_Op.FLUSH, 0, 0)

    def drain(self) -> None:
        """Waits for the requests of other threads, then flushes."""
        self._run(_Op.DRAIN, 0, 0)

    # -- zones --

    def report(self, offset: int = 0, count: Optional[int] = None) -> List[Zone]:
        """At most count zones, or all, from the one that contains offset on."""
        nr = c_uint32(max(1, self.info().nr_zones if count is None else count))
        zones = (_zone * nr.value)()
        with self._in_use as image:
            _check(_lib.zqcow2_zone_report(image, offset, zones, byref(nr)))
        return _zones_of(zones[:nr.value])

    def find_zones(self, *states: ZoneState, offset: int = 0) -> List[Zone]:
        """The zones that are in one of these states, from the one that contains offset on."""
        at, size = c_uint64(offset), self.info().virtual_size
        mask, zones = sum(1 << state for state in set(states)), (_zone * 4096)()
        found: List[Zone] = []
        while at.value < size:
            nr = c_uint32(len(zones))
            with self._in_use as image:
                _check(_lib.zqcow2_zone_find(image, byref(at), mask, zones, byref(nr)))
            found += _zones_of(zones[:nr.value])
        return found

    def zone_changes(self, since: int = 0) -> Tuple[int, Optional[List[int]]]:
        """Now, for the next call, and the starts of the zones that set_zone_state() has changed
        after since; None: too many, or a snapshot was applied."""
        now, nr, starts = c_uint64(since), c_uint32(511), (c_uint64 * 511)()
        with self._in_use as image:
            rc = _lib.zqcow2_zone_changes(image, byref(now), starts, byref(nr))
        if rc == -errno.EOVERFLOW:
            return now.value, None
        _check(rc)
        return now.value, list(starts[:nr.value])

    def _manage(self, op: _Op, offset: int, length: Optional[int], fua: bool) -> None:
        if length is None:
            length = self.report(offset, 1)[0].length
        self._run(op, offset, length, flags=_IoFlag.FUA if fua else 0)

    def open_zone(self, offset: int, length: Optional[int] = None, *, fua: bool = False) -> None:
        """Opens the zones in a range of whole zones, or without length the zone at offset. This
        and the next three calls take the "all" form for the whole device: zqcow2_zone_reset(3)."""
        self._manage(_Op.ZONE_OPEN, offset, length, fua)

    def close_zone(self, offset: int, length: Optional[int] = None, *, fua: bool = False) -> None:
        self._manage(_Op.ZONE_CLOSE, offset, length, fua)

    def finish_zone(self, offset: int, length: Optional[int] = None, *, fua: bool = False) -> None:
        self._manage(_Op.ZONE_FINISH, offset, length, fua)

    def reset_zone(self, offset: int, length: Optional[int] = None, *, fua: bool = False) -> None:
        self._manage(_Op.ZONE_RESET, offset, length, fua)

    def set_zone_state(self, offset: int, state: ZoneState, *, persist: bool = False) -> None:
        """Forces a zone into RDONLY or OFFLINE; NOT_WP restores it. See zqcow2_zone_reset(3)."""
        self._run(_Op.ZONE_SET_STATE, offset, state | (_ZONE_PERSIST if persist else 0))

    def set_zone_descriptor(self, offset: int, data: Any) -> None:
        """Gives an EMPTY zone its descriptor extension and makes it CLOSED; Rules.ZNS only."""
        with _Memory(data) as (address, length):
            self._run(_Op.ZONE_SET_DESCRIPTOR, offset, length, address)

    def zone_descriptors(self, offset: int = 0, count: int = 1) -> List[bytes]:
        size = self.info().descriptor_extension
        data, address = _new_bytes(count * size)
        self._run(_Op.ZONE_GET_DESCRIPTORS, offset, len(data), address)
        return [data[i * size:(i + 1) * size] for i in range(count)]

    # -- the image as a whole --

    def info(self) -> Info:
        info = _sized(_info)
        with self._in_use as image:
            _check(_lib.zqcow2_get_info(image, byref(info)))
        members: Dict[str, Any] = {name: getattr(info, name) for name in Info._fields}
        members.update(layout=Layout(info.layout), flags=InfoFlag(info.flags))
        return Info(**members)

    def io_limits(self) -> IoLimits:
        out = _sized(_io_limits)
        with self._in_use as image:
            _check(_lib.zqcow2_get_io_limits(image, byref(out)))
        members: Dict[str, Any] = {name: getattr(out, name) for name in IoLimits._fields}
        members.update(flags=IoLimitsFlag(out.flags))
        return IoLimits(**members)

    def block_status(self, offset: int, length: int) -> Extent:
        """The kind of the bytes at offset, and how many of the next `length` bytes are alike."""
        out = _sized(_extent)
        with self._in_use as image:
            _check(_lib.zqcow2_block_status(image, offset, length, byref(out)))
        return Extent(BlockKind(out.kind), out.depth, out.length, None if out.host == _NONE_64 else out.host)

    def resize(self, size: int, *, shrink: bool = False, discard: bool = False,
               preallocation: Preallocation = Preallocation.OFF) -> None:
        """shrink: allow a smaller size. discard: first reset the zones to be cut off. preallocation:
        of what is added."""
        flags = (_ResizeFlag.SHRINK if shrink or discard else 0) | (_ResizeFlag.DISCARD if discard else 0)
        flags |= (0, _ResizeFlag.METADATA, _ResizeFlag.FALLOC, _ResizeFlag.FULL)[preallocation]
        self._call(_lib.zqcow2_resize, size, flags)

    def snapshots(self) -> List[Snapshot]:
        found: List[Snapshot] = []

        def each(_arg: int, pointer: Any) -> None:
            s = pointer.contents
            found.append(Snapshot(os.fsdecode(s.id), os.fsdecode(s.name), s.disk_size, s.vm_state_size,
                                  s.vm_clock_nsec, None if s.icount == _NONE_64 else s.icount, s.date_sec,
                                  s.date_nsec))

        self._call(_lib.zqcow2_snapshot_list, _SNAPSHOT(each), None)
        return found

    def take_snapshot(self, name: str, *, date_sec: int = 0, date_nsec: int = 0, vm_clock_nsec: int = 0) -> None:
        snapshot = _sized(_snapshot, name=_text(name), date_sec=date_sec, date_nsec=date_nsec,
                          vm_clock_nsec=vm_clock_nsec)
        self._call(_lib.zqcow2_snapshot_take, byref(snapshot))

    def apply_snapshot(self, name: str) -> None:
        """Restores the content, the size and the write pointers of the snapshot."""
        self._call(_lib.zqcow2_snapshot_apply, _text(name))

    def delete_snapshot(self, name: str) -> None:
        self._call(_lib.zqcow2_snapshot_delete, _text(name))

    # -- persistent dirty bitmaps: zqcow2_bitmap_list(3) --

    def bitmaps(self) -> List[Bitmap]:
        found: List[Bitmap] = []

        def each(_arg: int, pointer: Any) -> None:
            b = pointer.contents
            found.append(Bitmap(os.fsdecode(b.name), b.granularity, b.dirty_bytes, BitmapFlag(b.flags)))

        self._call(_lib.zqcow2_bitmap_list, _BITMAP(each), None)
        return found

    def add_bitmap(self, name: str, granularity: int = 0, *, enabled: bool = True) -> None:
        """granularity: bytes of the device per bit; 0: 64 KiB."""
        self._call(_lib.zqcow2_bitmap_add, _text(name), granularity, 0 if enabled else _BitmapAddFlag.DISABLED)

    def remove_bitmap(self, name: str) -> None:
        self._call(_lib.zqcow2_bitmap_remove, _text(name))

    def clear_bitmap(self, name: str) -> None:
        self._call(_lib.zqcow2_bitmap_clear, _text(name))

    def enable_bitmap(self, name: str) -> None:
        self._call(_lib.zqcow2_bitmap_enable, _text(name))

    def disable_bitmap(self, name: str) -> None:
        self._call(_lib.zqcow2_bitmap_disable, _text(name))

    def dirty_ranges(self, name: str, offset: int = 0) -> Iterator[Tuple[int, int]]:
        """The marked ranges from offset on, in ascending order: (offset, length)."""
        ranges = (_dirty_range * 256)()
        while True:
            nr = c_uint32(len(ranges))
            self._call(_lib.zqcow2_bitmap_ranges, _text(name), offset, ranges, byref(nr))
            found = [(r.offset, r.length) for r in ranges[:nr.value]]
            yield from found
            if len(found) < len(ranges):
                return
            offset = sum(found[-1])

    def _call(self, function: Any, *arguments: Any) -> None:
        err = _error()
        with self._in_use as image:
            _check(function(image, *arguments, byref(err)), err)


def check(target: Target, flags: CheckFlag = CheckFlag(0)) -> CheckResult:
    """Checks an image that is not open, and with flags repairs it: see zqcow2_check(3)."""
    findings: List[Finding] = []

    def found(_arg: int, kind: int, text: bytes) -> None:
        findings.append(Finding(FindingKind(kind), text.decode(errors="replace")))

    place = _Place(target, _FileFlag.RDWR if flags & ~CheckFlag.NOLOCK else 0)
    try:
        callback, err, result = _FOUND(found), _error(), _sized(_check_result)
        options = _sized(_check_options, flags=flags, hooks=ctypes.pointer(_HOOKS),
                         found=ctypes.cast(callback, c_void_p), **place.resolving())
        _check(_lib.zqcow2_check(place.backend, byref(options), byref(result), byref(err)), err, place.name)
    finally:
        place.leave()
    counts: Dict[str, Any] = {name: getattr(result, name) for name in CheckResult._fields[:-1]}
    return CheckResult(**counts, findings=findings)
