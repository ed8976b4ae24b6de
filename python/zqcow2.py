# SPDX-License-Identifier: MIT
"""Zoned qcow2 images, and disks that fail on request: libzqcow2 for Python. zqcow2-python(7) is the guide.

    with zqcow2.Image.create("disk.qcow2", 1 << 30, zone_size=64 << 20) as image:
        offset = image.append(b"hello, zone".ljust(4096, b"\\0"), 0, fua=True)
        print(image.report(0, 1)[0].write_pointer)

Needs CPython 3.9 or newer and the shared library, which is loaded when this module is imported:
the file that the environment variable ZQCOW2_LIBRARY names, or libzqcow2.so.0 where the dynamic
linker finds it. Offsets and lengths are in bytes; those of requests are multiples of the block size
(512, or 4096 if the image is opened with that). Any thread may use any object; a Cut and a Queue, one
thread at a time. After os.fork() the child must not use the objects of its parent. Messages of the
library go to the logger "zqcow2".
"""
from __future__ import annotations

import collections
import ctypes
import enum
import errno
import logging
import math
import os
import threading
import time
import warnings
from ctypes import (POINTER, byref, c_char, c_char_p, c_int, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64,
                    c_void_p, sizeof)
from typing import (Any, Callable, Deque, Dict, Generic, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Type,
                    TypeVar, Union, cast)

__all__ = [
    "Bitmap", "BitmapFlag", "BlockKind", "Change", "CheckFlag", "CheckResult", "Compacted", "Counters", "Cut",
    "Discard", "Error", "Event", "EventKind", "Extent", "Faults", "Finding", "FindingKind", "Image", "Info",
    "InfoFlag", "IoKind", "IoLimits", "IoLimitsFlag", "Layout", "Loss", "Op", "OpStats", "Preallocation", "Queue",
    "Request", "Rules", "SimDisk", "Snapshot", "Stats", "Status", "Zone", "ZoneError", "ZoneState", "ZoneType",
    "amend", "check", "commit", "rebase", "version",
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


class Loss(enum.IntEnum):
    """What a cut of Faults keeps of the changes that were not flushed; REORDER can be added with |."""
    LOSE_ALL = 0
    KEEP_ALL = 1
    WHOLE = 2
    TORN_512 = 3
    TORN_4096 = 4
    REORDER = 1 << 8


class EventKind(enum.IntEnum):
    """See zqcow2_set_event_handler(3)."""
    DEAD = 1
    CORRUPT = 2
    NO_SPACE = 3
    SPACE = 4
    WRITE_ERROR = 5
    ZONE = 6
    LIMIT = 7
    ZONES_CHANGED = 8


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


class _RebaseFlag(enum.IntFlag):
    NAME_ONLY = 1 << 0


class _CommitFlag(enum.IntFlag):
    KEEP = 1 << 0


class _AmendFlag(enum.IntFlag):
    LAZY_REFCOUNTS = 1 << 0
    NO_LAZY_REFCOUNTS = 1 << 1
    NO_RAW_DATA = 1 << 2


class Op(enum.IntEnum):
    """The operations of requests."""
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


class _faults(ctypes.Structure):
    pass


class _queue(ctypes.Structure):
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
        ("fragmented_clusters", c_uint64),
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


class _rebase_options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("flags", c_uint32), ("reserved", c_uint32), ("hooks", POINTER(_hooks)),
        ("backing_name", c_char_p), ("backing_format", c_char_p), ("resolve", c_void_p), ("resolve_arg", c_void_p),
        ("progress", c_void_p), ("progress_arg", c_void_p),
    ]


class _commit_options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("flags", c_uint32), ("reserved", c_uint32), ("hooks", POINTER(_hooks)),
        ("resolve", c_void_p), ("resolve_arg", c_void_p), ("backing_format", c_char_p), ("progress", c_void_p),
        ("progress_arg", c_void_p), ("backing_name", c_char_p),
    ]


class _amend_options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("flags", c_uint32), ("version", c_uint32), ("refcount_bits", c_uint32),
        ("layout", c_uint32), ("hooks", POINTER(_hooks)), ("resolve", c_void_p), ("resolve_arg", c_void_p),
    ]


class _compact_options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("offset", c_uint64), ("length", c_uint64), ("level", c_uint32), ("reserved", c_uint32),
        ("progress", c_void_p), ("progress_arg", c_void_p),
    ]


class _compact_result(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("clusters", c_uint64), ("compressed", c_uint64), ("old_bytes", c_uint64),
        ("new_bytes", c_uint64),
    ]


class _op_stats(ctypes.Structure):
    _fields_ = [
        ("requests", c_uint64), ("errors", c_uint64), ("bytes", c_uint64), ("nanoseconds", c_uint64),
        ("latency", c_uint64 * 40),
    ]


class _stats(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("rounds", c_uint64), ("flushes", c_uint64), ("cache_hits", c_uint64),
        ("cache_loads", c_uint64), ("implicit_closes", c_uint64), ("zones", c_uint32 * 16), ("op", _op_stats * 32),
    ]


class _event(ctypes.Structure):
    _fields_ = [
        ("kind", c_uint32), ("error", c_int), ("offset", c_uint64), ("length", c_uint64), ("state", c_uint32),
        ("lost", c_uint32),
    ]


class _faults_options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("max_held", c_uint64), ("log", c_void_p), ("log_arg", c_void_p),
        ("hooks", POINTER(_hooks)),
    ]


class _faults_rule(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("nth", c_uint64), ("every", c_uint64), ("count", c_uint64), ("offset", c_uint64),
        ("length", c_uint64), ("seed", c_uint64), ("kinds", c_uint32), ("error", c_int), ("delay_min", c_uint32),
        ("delay_max", c_uint32),
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
_LINE = ctypes.CFUNCTYPE(None, c_void_p, c_char_p)
_PROGRESS = ctypes.CFUNCTYPE(c_int, c_void_p, c_uint64, c_uint64)
_EVENT = ctypes.CFUNCTYPE(None, c_void_p, POINTER(_event))
_DONE = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)

_S = TypeVar("_S", bound=ctypes.Structure)


def _sized(kind: Type[_S], **members: Any) -> _S:
    """A struct that begins with its size; members that are not given are 0."""
    struct = kind(size=sizeof(kind), **members)
    for name, value in members.items():  # ctypes cuts off what does not fit
        if isinstance(value, int) and getattr(struct, name) != value:
            raise ValueError(f"{name} is out of range: {value}")
    return struct


def _checked(kind: Any) -> Any:
    """The type of an argument that is not cut off either."""

    class Checked:
        @staticmethod
        def from_param(value: int) -> Any:
            number = kind(value)
            if number.value != value:
                raise ValueError(f"out of range: {value}")
            return number

    return Checked


_CHECKED = {kind: _checked(kind) for kind in (c_uint32, c_uint64, c_size_t, ctypes.c_uint)}


# ---- the functions of the headers: what they return, then what they take ----

_I, _B, _E = POINTER(_image), POINTER(_backend), POINTER(_error)
_D, _C, _F, _Q = POINTER(_simdisk), POINTER(_simdisk_cut), POINTER(_faults), POINTER(_queue)
_FUNCTIONS: Dict[str, Tuple[Any, ...]] = {
    "zqcow2_version": (ctypes.c_uint,),
    "zqcow2_strerror": (c_char_p, c_int),
    "zqcow2_errno": (c_int, c_int),
    "zqcow2_file_open": (c_int, c_char_p, ctypes.c_uint, POINTER(_hooks), POINTER(_B)),
    "zqcow2_uring_open": (c_int, c_char_p, ctypes.c_uint, POINTER(_hooks), POINTER(_B)),
    "zqcow2_threads_wrap": (c_int, _B, ctypes.c_uint, POINTER(_hooks), POINTER(_B)),
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
    "zqcow2_rebase": (c_int, _B, POINTER(_rebase_options), _E),
    "zqcow2_commit": (c_int, _B, POINTER(_commit_options), _E),
    "zqcow2_amend": (c_int, _B, POINTER(_amend_options), _E),
    "zqcow2_compact": (c_int, _I, POINTER(_compact_options), POINTER(_compact_result), _E),
    "zqcow2_inactivate": (c_int, _I, _E),
    "zqcow2_activate": (c_int, _I, _E),
    "zqcow2_get_stats": (c_int, _I, POINTER(_stats)),
    "zqcow2_measure_time": (None, _I, ctypes.c_bool),
    "zqcow2_set_event_handler": (None, _I, _EVENT, c_void_p),
    "zqcow2_queue_open": (c_int, _I, c_uint32, POINTER(_Q)),
    "zqcow2_queue_close": (c_int, _Q),
    "zqcow2_queue_submit": (c_int, _Q, POINTER(_request), c_uint32),
    "zqcow2_queue_wait": (c_int, _Q, c_uint32, c_int),
    "zqcow2_queue_fd": (c_int, _Q),
    "zqcow2_queue_pending": (c_uint32, _Q),
    "zqcow2_queue_get_stats": (c_int, _Q, POINTER(_stats)),
    "zqcow2_faults_wrap": (c_int, _B, POINTER(_faults_options), POINTER(_F)),
    "zqcow2_faults_free": (None, _F),
    "zqcow2_faults_backend": (c_int, _F, POINTER(_B)),
    "zqcow2_faults_held": (c_uint64, _F),
    "zqcow2_faults_cut": (c_int, _F, c_uint64, c_uint32),
    "zqcow2_faults_restore": (None, _F),
    "zqcow2_faults_add_rule": (c_int, _F, POINTER(_faults_rule)),
    "zqcow2_faults_clear_rules": (None, _F),
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
            function.restype, function.argtypes = result, [_CHECKED.get(a, a) for a in arguments]
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
_faults_logger = logging.getLogger("zqcow2.faults")


def _line(_arg: int, text: bytes) -> None:
    _faults_logger.debug("%s", text.decode())


_LINE_CALL = _LINE(_line)

# ---- errors ----


class Error(OSError):
    """An error of the library or of the system. errno is the nearest one; strerror describes what
    failed. A bad argument that never reaches the library raises ValueError, TypeError or
    ctypes.ArgumentError instead."""

    code: int = 0  #: what the library returned: a Status, or a negated errno
    zone: Optional[int] = None  #: ZoneError: the start of the zone that refused the request

    @property
    def name(self) -> str:
        """The name of the code, such as "EZONE_WP" or "ENOSPC"."""
        return self.code.name if isinstance(self.code, Status) else errno.errorcode.get(-self.code, str(self.code))


class ZoneError(Error):
    """The request breaks a rule of zones: code is one of Status.EZONE_*."""


def _code(rc: int) -> int:
    return Status(rc) if rc in set(Status) else rc


def _failure(rc: int, text: bytes = b"", zone: Optional[int] = None, filename: Optional[str] = None) -> Error:
    refused = Status.EZONE_STATE <= rc <= Status.EZONE_BOUNDARY
    why = (text or _lib.zqcow2_strerror(rc)).decode(errors="replace")
    error = (ZoneError if refused else Error)(_lib.zqcow2_errno(rc), why, filename)
    error.code = _code(rc)
    error.zone = zone if refused else None
    return error


def _check(rc: int, err: Optional[_error] = None, filename: Optional[str] = None) -> None:
    if rc < 0:
        raise _failure(rc, err.text if err is not None else b"", filename=filename)


class _Raised:
    """Keeps what a function raises that the library calls, as an exception cannot cross the library."""

    def __init__(self) -> None:
        self._exception: Optional[BaseException] = None

    def catch(self, function: Callable[..., Any], otherwise: int) -> Callable[..., int]:
        """The function without its first argument; it returns `otherwise` after an exception."""

        def call(_arg: int, *arguments: int) -> int:
            try:
                return otherwise if self._exception else int(bool(function(*arguments)))
            except BaseException as e:  # pylint: disable=broad-except
                self._exception = e
                return otherwise

        return call

    def again(self) -> None:
        if self._exception is not None:
            raise self._exception


Progress = Callable[[int, int], Any]


def _with_progress(progress: Optional[Progress], run: Callable[[Dict[str, Any]], None]) -> None:
    """Calls run with the members of options that report progress. An exception of progress makes run fail
    with ECANCELED, and is raised instead."""
    raised = _Raised()
    call = _PROGRESS(raised.catch(progress or (lambda done, total: False), 1))
    try:
        run({"progress": ctypes.cast(call, c_void_p)})
    except Error:
        raised.again()
        raise


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
    """The contiguous memory of an object that has a buffer, held until the end of the block, or of this
    object."""

    def __init__(self, data: Any, writable: bool = False) -> None:
        self._view = _Py_buffer()
        _python.PyObject_GetBuffer(data, byref(self._view), 1 if writable else 0)

    def __enter__(self) -> Tuple[int, int]:
        return self._view.buf, self._view.len

    def __exit__(self, *_: Any) -> None:
        _python.PyBuffer_Release(byref(self._view))  # a second time, it does nothing

    __del__ = __exit__


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

    def _init_on(self, parent: _Handle, pointer: Any, make: Callable[..., int], *arguments: Any) -> None:
        """Makes an object that depends on another one."""
        owner = parent._in_use.__enter__()
        try:
            _check(make(owner, *arguments, byref(pointer)))
        except BaseException:
            parent._in_use.__exit__()
            raise
        _Handle.__init__(self, pointer, parent)

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
    fragmented_clusters: int
    findings: List[Finding]

    @property
    def clean(self) -> bool:
        """Nothing is wrong now."""
        return self.corruptions == self.corruptions_fixed and self.leaked_clusters == self.leaks_fixed


class Compacted(NamedTuple):
    """As struct zqcow2_compact_result; see zqcow2_compact(3)."""
    clusters: int
    compressed: int
    old_bytes: int
    new_bytes: int


class OpStats(NamedTuple):
    requests: int
    errors: int
    bytes: int
    nanoseconds: int
    latency: List[int]  #: [i]: how many requests took from 2**i to less than 2**(i + 1) ns


class Stats(NamedTuple):
    """As struct zqcow2_stats; see zqcow2_get_stats(3)."""
    rounds: int
    flushes: int
    cache_hits: int
    cache_loads: int
    implicit_closes: int
    zones: Dict[ZoneState, int]
    op: Dict[Op, OpStats]


class Event(NamedTuple):
    """As struct zqcow2_event; see zqcow2_set_event_handler(3)."""
    kind: EventKind
    error: int  #: as Error.code
    offset: int
    length: int
    state: ZoneState
    lost: int  #: the number of events dropped before this one


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


def _mask(kinds: Union[IoKind, Iterable[IoKind]]) -> int:
    return sum(1 << kind for kind in ({kinds} if isinstance(kinds, IoKind) else set(kinds)))


# ---- simulated disks ----


class _Disk(_Handle):
    """What an image can be on, other than a file."""

    _path: Optional[bytes] = None  # where the files are that an image on it names

    def _backend(self, pointer: Any, backend: Any) -> int:
        raise NotImplementedError


class SimDisk(_Disk):
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

    def _backend(self, pointer: Any, backend: Any) -> int:
        return int(_lib.zqcow2_simdisk_backend(pointer, backend))

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
        flags = ((_FaultFlag.FOREVER if forever else 0) | (_FaultFlag.SHORT if short else 0)
                 | (_FaultFlag.AT_SUBMIT if at_submit else 0) | (_FaultFlag.LANDS if lands else 0))
        fault = _sized(_simdisk_fault, nth=nth, kinds=_mask(kinds), flags=flags, error=-error)
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
        self._init_on(disk, _C(), _lib.zqcow2_simdisk_cut_new)
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
        raised, disk = _Raised(), _D()
        with self._in_use as cut:
            _check(_lib.zqcow2_simdisk_cut_choose(cut, _KEEP(raised.catch(keep, 0)), None, order, byref(disk)))
        chosen = SimDisk._of(disk)
        try:
            raised.again()
        except BaseException:
            chosen.close()
            raise
        return chosen

    def kill(self) -> SimDisk:
        """The disk that remains if the program is killed here while power stays on."""
        disk = _D()
        with self._in_use as cut:
            _check(_lib.zqcow2_simdisk_cut_kill(cut, byref(disk)))
        return SimDisk._of(disk)


# ---- places of images; faults on a disk in use ----

Target = Union[str, bytes, "os.PathLike[str]", SimDisk, "Faults"]


class _Place:
    """Where an image is: an open backend, and what finds the files that the image names."""

    def __init__(self, target: Target, flags: int, backend: str = "file", threads: int = 0) -> None:
        self._disk = target if isinstance(target, _Disk) else None
        self.path = target._path if isinstance(target, _Disk) else os.fsencode(target)
        self.name = None if self.path is None else os.fsdecode(self.path)
        self.backend, self._resolver = _B(), POINTER(_resolver)()
        if backend not in ("file", "uring"):
            raise ValueError('backend must be "file" or "uring"')
        if self.path is not None and b"\0" in self.path:
            raise ValueError("embedded null byte")
        disk = self._disk._in_use.__enter__() if self._disk is not None else None
        try:
            if self._disk is not None:
                _check(self._disk._backend(disk, byref(self.backend)), filename=self.name)
            else:
                opener = _lib.zqcow2_uring_open if backend == "uring" else _lib.zqcow2_file_open
                _check(opener(self.path, flags, byref(_HOOKS), byref(self.backend)), filename=self.name)
            if threads:
                wrapped = _B()
                _check(_lib.zqcow2_threads_wrap(self.backend, threads, byref(_HOOKS), byref(wrapped)),
                       filename=self.name)
                self.backend = wrapped
            if self.path is not None:
                options = _sized(_resolver_options, hooks=ctypes.pointer(_HOOKS))
                _check(_lib.zqcow2_resolver_new(self.path, byref(options), byref(self._resolver)),
                       filename=self.name)
        except BaseException:
            self.leave()
            raise

    def resolving(self) -> Dict[str, Any]:
        """The members of options that find other files."""
        if not self._resolver:
            return {}
        return {"resolve": ctypes.cast(_lib.zqcow2_resolve_file, c_void_p),
                "resolve_arg": ctypes.cast(self._resolver, c_void_p)}

    def give_backend(self) -> None:
        """Something else owns the backend now."""
        self.backend = _B()

    def leave(self) -> None:
        _lib.zqcow2_backend_close(self.backend)
        _lib.zqcow2_resolver_free(self._resolver)
        if self._disk is not None:
            self._disk._in_use.__exit__()

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, *_: Any) -> None:
        self.leave()


class Faults(_Disk):
    """A disk on top of a file or of a simulated disk, for an image in use. It holds back changes until
    they are flushed, loses them when power is cut, and fails or delays requests. Its actions go to the
    logger "zqcow2.faults", at level DEBUG. See zqcow2_faults_wrap(3)."""

    def __init__(self, target: Target, *, max_held: int = 0, backend: str = "file", direct: bool = False) -> None:
        """A missing file is created. max_held: bytes of memory for changes; 0: 64 MiB."""
        options = _sized(_faults_options, max_held=max_held, log=ctypes.cast(_LINE_CALL, c_void_p),
                         hooks=ctypes.pointer(_HOOKS))
        flags = _FileFlag.RDWR | _FileFlag.CREATE | (_FileFlag.DIRECT if direct else 0)
        self._place, faults = _Place(target, flags, backend), _F()
        self._path = self._place.path
        try:
            _check(_lib.zqcow2_faults_wrap(self._place.backend, byref(options), byref(faults)),
                   filename=self._place.name)
        except BaseException:
            self._place.leave()
            raise
        self._place.give_backend()
        super().__init__(faults)

    def _free(self, pointer: Any) -> int:
        _lib.zqcow2_faults_free(pointer)
        self._place.leave()
        return 0

    def _backend(self, pointer: Any, backend: Any) -> int:
        return int(_lib.zqcow2_faults_backend(pointer, backend))

    @property
    def held(self) -> int:
        """The number of changes that a cut may lose now."""
        with self._in_use as faults:
            return int(_lib.zqcow2_faults_held(faults))

    def cut(self, seed: int = 0, how: int = Loss.WHOLE) -> None:
        """Turns power off: of the held changes, some survive, as `how` says and seed chooses. Every call
        of an image on the disk fails with EIO from then on."""
        with self._in_use as faults:
            _check(_lib.zqcow2_faults_cut(faults, seed, how))

    def restore(self) -> None:
        """Turns power on again. First close the image on the disk, then open it again."""
        with self._in_use as faults:
            _lib.zqcow2_faults_restore(faults)

    def add_rule(self, kinds: Union[IoKind, Iterable[IoKind]], error: int = errno.EIO, *, nth: int = 1,
                 every: int = 0, count: int = 0, offset: int = 0, length: int = 0, delay_min: int = 0,
                 delay_max: int = 0, seed: int = 0) -> None:
        """Makes request nth of these kinds in the range, and then each every-th one, fail with the errno
        `error`, or with 0 only take longer: by a time of delay_min to delay_max microseconds. At most
        count requests are hit; 0: no limit."""
        rule = _sized(_faults_rule, nth=nth, every=every, count=count, offset=offset, length=length, seed=seed,
                      kinds=_mask(kinds), error=-error, delay_min=delay_min, delay_max=max(delay_min, delay_max))
        with self._in_use as faults:
            _check(_lib.zqcow2_faults_add_rule(faults, byref(rule)))

    def clear_rules(self) -> None:
        with self._in_use as faults:
            _lib.zqcow2_faults_clear_rules(faults)


def _text(value: Optional[Union[str, bytes, "os.PathLike[str]"]]) -> Optional[bytes]:
    return None if value is None else os.fsencode(value)


def _zones_of(zones: Iterable[Any]) -> List[Zone]:
    none = (ZoneState.NOT_WP, ZoneState.RDONLY, ZoneState.OFFLINE)
    return [Zone(z.start, z.length, z.capacity, None if z.state in none else z.write_pointer, ZoneType(z.type),
                 ZoneState(z.state), bool(z.attributes & _DESCRIBED)) for z in zones]


# ---- requests: an Image performs them, a Queue submits them ----

# A request that is done has its result, copied by C code: Python code could be interrupted by a signal
# there, and the completion would be lost.
_copy = ctypes.PYFUNCTYPE(None, c_void_p, c_void_p, c_size_t)(
    ("memmove", _python), ((1,), (1,), (1, "count", sizeof(_result))))
_DONE_CALL = _DONE(_copy)
_IN_FLIGHT = 1  # no result has this
_FILLS = (Op.READ, Op.ZONE_GET_DESCRIPTORS)


class Request:
    """A request of a Queue. It keeps its buffer until wait() has returned it."""

    def __init__(self, op: Op, offset: int, length: int = 0, flags: int = 0,
                 memory: Optional[_Memory] = None) -> None:
        self.op = op
        self.offset = offset
        self._memory = memory
        self._data: Optional[bytes] = None
        self._result = _result(ret=_IN_FLIGHT)
        address: Optional[int] = None
        if memory is not None:
            address, length = memory.__enter__()
        elif op in _FILLS:
            self._data, address = _new_bytes(length)
        self.length = length
        self._iov = _iovec(address, length)
        self._struct = _sized(
            _request, op=op, flags=flags, offset=offset, length=length, iov=ctypes.pointer(self._iov),
            iovcnt=int(address is not None), done=ctypes.cast(_DONE_CALL, c_void_p),
            arg=ctypes.addressof(self._result))

    def __repr__(self) -> str:
        state = self.error or "done" if self.done else "in flight"
        return f"<Request {self.op.name} offset={self.offset} length={self.length}: {state}>"

    def _release(self) -> None:
        if self._memory is not None:
            self._memory.__exit__()

    @property
    def done(self) -> bool:
        return bool(self._result.ret != _IN_FLIGHT)

    @property
    def error(self) -> Optional[Error]:
        """Why the request failed; None: it has not."""
        return _failure(self._result.ret, zone=self._result.offset) if self._result.ret < 0 else None

    def result(self) -> Any:
        """What the method of Image of the same name returns, or raises."""
        if not self.done:
            raise ValueError("the request is in flight")
        if self._result.ret < 0:
            raise _failure(self._result.ret, zone=self._result.offset)
        return int(self._result.offset) if self.op == Op.APPEND else self._data


_Nothing = TypeVar("_Nothing")
_Offset = TypeVar("_Offset")
_Data = TypeVar("_Data")


class _Requests(Generic[_Nothing, _Offset, _Data]):
    """The requests, and what they return: of an Image their result, of a Queue a Request."""

    def _do(self, op: Op, offset: int, length: int = 0, flags: int = 0, memory: Optional[_Memory] = None) -> _Nothing:
        raise NotImplementedError

    def _zone_length(self, offset: int) -> int:
        raise NotImplementedError

    def read(self, length: int, offset: int) -> _Data:
        """What is at or beyond a write pointer reads as zeros."""
        return cast(_Data, self._do(Op.READ, offset, length))

    def readinto(self, buffer: Any, offset: int) -> _Nothing:
        """Fills a writable buffer, such as a bytearray, a memoryview or an mmap."""
        return self._do(Op.READ, offset, memory=_Memory(buffer, writable=True))

    def write(self, data: Any, offset: int, *, fua: bool = False, compress: bool = False) -> _Nothing:
        """Writes a buffer of any kind. In a sequential zone, offset must be the write pointer."""
        flags = (_IoFlag.FUA if fua else 0) | (_IoFlag.COMPRESS if compress else 0)
        return self._do(Op.WRITE, offset, 0, flags, _Memory(data))

    def append(self, data: Any, zone: int, *, fua: bool = False) -> _Offset:
        """Appends to the zone that starts at `zone`; returns the offset of the data."""
        return cast(_Offset, self._do(Op.APPEND, zone, 0, _IoFlag.FUA if fua else 0, _Memory(data)))

    def write_zeroes(self, length: int, offset: int, *, fua: bool = False, unmap: bool = True,
                     fallback: bool = True) -> _Nothing:
        flags = ((_IoFlag.FUA if fua else 0) | (0 if unmap else _IoFlag.NO_UNMAP)
                 | (0 if fallback else _IoFlag.NO_FALLBACK))
        return self._do(Op.WRITE_ZEROES, offset, length, flags)

    def discard(self, length: int, offset: int, *, fua: bool = False) -> _Nothing:
        """Frees the whole clusters in the range; not in sequential zones."""
        return self._do(Op.DISCARD, offset, length, _IoFlag.FUA if fua else 0)

    def flush(self) -> _Nothing:
        """Makes durable every request that was done before."""
        return self._do(Op.FLUSH, 0)

    def drain(self) -> _Nothing:
        """Waits for the requests that have begun, then flushes."""
        return self._do(Op.DRAIN, 0)

    def _manage(self, op: Op, offset: int, length: Optional[int], fua: bool) -> _Nothing:
        length = self._zone_length(offset) if length is None else length
        return self._do(op, offset, length, _IoFlag.FUA if fua else 0)

    def open_zone(self, offset: int, length: Optional[int] = None, *, fua: bool = False) -> _Nothing:
        """Opens the zones in a range of whole zones, or without length the zone at offset. This
        and the next three calls take the "all" form for the whole device: zqcow2_zone_reset(3)."""
        return self._manage(Op.ZONE_OPEN, offset, length, fua)

    def close_zone(self, offset: int, length: Optional[int] = None, *, fua: bool = False) -> _Nothing:
        return self._manage(Op.ZONE_CLOSE, offset, length, fua)

    def finish_zone(self, offset: int, length: Optional[int] = None, *, fua: bool = False) -> _Nothing:
        return self._manage(Op.ZONE_FINISH, offset, length, fua)

    def reset_zone(self, offset: int, length: Optional[int] = None, *, fua: bool = False) -> _Nothing:
        return self._manage(Op.ZONE_RESET, offset, length, fua)

    def set_zone_state(self, offset: int, state: ZoneState, *, persist: bool = False) -> _Nothing:
        """Forces a zone into RDONLY or OFFLINE; NOT_WP restores it. See zqcow2_zone_reset(3)."""
        return self._do(Op.ZONE_SET_STATE, offset, state | (_ZONE_PERSIST if persist else 0))

    def set_zone_descriptor(self, offset: int, data: Any) -> _Nothing:
        """Gives an EMPTY zone its descriptor extension and makes it CLOSED; Rules.ZNS only."""
        return self._do(Op.ZONE_SET_DESCRIPTOR, offset, memory=_Memory(data))


# ---- images ----


class Image(_Handle, _Requests[None, int, bytes]):
    """An open image. Close it, or use it in a with block: closing flushes and marks it clean."""

    _place: _Place
    _watches: List[Any]

    @classmethod
    def open(cls, target: Target, *, write: bool = False, lock: bool = True, upgrade: bool = False,
             backing: bool = True, backing_format: Optional[str] = None, rules: Rules = Rules.LINUX,
             block_size: int = 512, cache_bytes: int = 0, extent_bytes: int = 0, snapshot: Optional[str] = None,
             backend: str = "file", direct: bool = False, threads: int = 0, inactive: bool = False) -> Image:
        """Opens the image in a file, on a simulated disk or on Faults. backing False: neither the
        backing file nor the data file is opened. backend: "file" or "uring". threads: that many perform
        the requests of queues at the same time. inactive: for activate(). See zqcow2_open(3)."""
        place = _Place(target, (_FileFlag.RDWR if write else 0) | (_FileFlag.DIRECT if direct else 0), backend, threads)
        return cls._opened(
            place, write=write, lock=lock, upgrade=upgrade, backing=backing, inactive=inactive, rules=rules,
            block_size=block_size, cache_bytes=cache_bytes, extent_bytes=extent_bytes, snapshot=_text(snapshot),
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
               backend: str = "file", direct: bool = False, threads: int = 0) -> Image:
        """Creates an image and opens it for writing. EEXIST: there is something already, and not
        force. See zqcow2_open(3)."""
        flags = ((_CreateFlag.LAZY_REFCOUNTS if lazy_refcounts else 0) | (_CreateFlag.FORCE if force else 0)
                 | (_CreateFlag.EXTENDED_L2 if extended_l2 else 0) | (_CreateFlag.ZSTD if zstd else 0)
                 | (_CreateFlag.DATA_FILE_RAW if data_file_raw else 0) | (_CreateFlag.EMPTY if empty else 0))
        place = _Place(target, _FileFlag.RDWR | _FileFlag.CREATE | (_FileFlag.DIRECT if direct else 0), backend,
                       threads)
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
                inactive: bool = False, **members: Any) -> Image:
        flags = ((_OpenFlag.RDWR if write else 0) | (0 if lock else _OpenFlag.NOLOCK)
                 | (_OpenFlag.UPGRADE if upgrade else 0) | (0 if backing else _OpenFlag.NO_BACKING)
                 | (_OpenFlag.INACTIVE if inactive else 0))
        pointer, err = _I(), _error()
        try:
            options = _sized(_open_options, flags=flags, hooks=ctypes.pointer(_HOOKS), **place.resolving(), **members)
            _check(_lib.zqcow2_open(place.backend, byref(options), byref(pointer), byref(err)), err, place.name)
        except BaseException:
            place.leave()
            raise
        place.give_backend()
        image = cls.__new__(cls)
        image._place = place  # an activation opens the other files again
        image._watches = []
        _Handle.__init__(image, pointer)
        return image

    def _free(self, pointer: Any) -> int:
        try:
            return int(_lib.zqcow2_close(pointer))
        finally:
            self._place.leave()

    def _do(self, op: Op, offset: int, length: int = 0, flags: int = 0, memory: Optional[_Memory] = None) -> Any:
        request = Request(op, offset, length, flags, memory)
        try:
            with self._in_use as image:
                request._result.ret = _lib.zqcow2_run(image, byref(request._struct), byref(request._result))
        finally:
            request._release()
        return request.result()

    def _zone_length(self, offset: int) -> int:
        return self.report(offset, 1)[0].length

    def queue(self, depth: int = 32) -> Queue:
        """For at most depth requests in flight, 1 .. 65536: see Queue."""
        return Queue(self, depth)

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

    def zone_descriptors(self, offset: int = 0, count: int = 1) -> List[bytes]:
        size = self.info().descriptor_extension
        data: bytes = self._do(Op.ZONE_GET_DESCRIPTORS, offset, count * size)
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

    def compact(self, offset: int = 0, length: int = 0, *, level: int = 0,
                progress: Optional[Progress] = None) -> Compacted:
        """Compresses FULL zones; length 0: to the end. See rebase() for progress."""
        result = _sized(_compact_result)

        def run(reporting: Dict[str, Any]) -> None:
            options = _sized(_compact_options, offset=offset, length=length, level=level, **reporting)
            self._call(_lib.zqcow2_compact, byref(options), byref(result))

        _with_progress(progress, run)
        return Compacted(*(getattr(result, name) for name in Compacted._fields))

    def stats(self) -> Stats:
        """Sums over the calls and all queues, since the open."""
        with self._in_use as image:
            return _stats_by(_lib.zqcow2_get_stats, image)

    def measure_time(self, on: bool = True) -> None:
        """For OpStats.nanoseconds and OpStats.latency."""
        with self._in_use as image:
            _lib.zqcow2_measure_time(image, on)

    def watch(self, limit: int = 1024) -> Deque[Event]:
        """From now on, events are appended to the deque that is returned, instead of to an earlier
        one. When it has `limit` events, each new one replaces the oldest."""
        events: Deque[Event] = collections.deque(maxlen=limit)

        def happened(_arg: int, pointer: Any) -> None:
            e = pointer.contents
            events.append(Event(EventKind(e.kind), _code(e.error), e.offset, e.length, ZoneState(e.state), e.lost))

        self._watches.append(_EVENT(happened))  # an earlier one may still be running
        with self._in_use as image:
            _lib.zqcow2_set_event_handler(image, self._watches[-1], None)
        return events

    def inactivate(self) -> None:
        """Gives the file to another program, which may open or activate the image: zqcow2_activate(3)."""
        self._call(_lib.zqcow2_inactivate)

    def activate(self) -> None:
        """Takes the file back. EAGAIN: the other program still has it."""
        self._call(_lib.zqcow2_activate)

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


def _stats_by(get: Callable[..., int], pointer: Any) -> Stats:
    out = _sized(_stats)
    _check(get(pointer, byref(out)))
    members: Dict[str, Any] = {name: getattr(out, name) for name in Stats._fields}
    members.update(
        zones={state: out.zones[state] for state in ZoneState},
        op={op: OpStats(o.requests, o.errors, o.bytes, o.nanoseconds, list(o.latency)) for op, o in zip(Op, out.op)})
    return Stats(**members)


class Queue(_Handle, _Requests[Request, Request, Request]):
    """Many requests in flight. Its methods have the names and arguments of those of Image, but return a
    Request at once; a full queue waits for room. One thread at a time may use it. With the backend
    "uring", with threads and on an asynchronous SimDisk, requests run at the same time."""

    def __init__(self, image: Image, depth: int) -> None:
        self._image = image
        self._requests: List[Request] = []  # those that wait() has not returned
        self._turn = threading.Lock()
        self._init_on(image, _Q(), _lib.zqcow2_queue_open, depth)

    def _do(self, op: Op, offset: int, length: int = 0, flags: int = 0,
            memory: Optional[_Memory] = None) -> Request:
        request = Request(op, offset, length, flags, memory)
        with self._turn, self._in_use as queue:
            self._requests.append(request)  # before the library has it, in case of an interrupt
            while _lib.zqcow2_queue_submit(queue, byref(request._struct), 1) == 0:
                _lib.zqcow2_queue_wait(queue, 1, _SLICE)
        return request

    def _zone_length(self, offset: int) -> int:
        return self._image._zone_length(offset)

    def wait(self, count: Optional[int] = None, timeout: Optional[float] = None) -> List[Request]:
        """The requests that are done and were not returned before, in the order in which they were made.
        Waits until there are `count` of them, or all, or until `timeout` seconds have passed."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        with self._turn:
            while True:
                left = math.ceil(min(_SLICE, 1000 * max(0.0, end - time.monotonic())))
                done = sum(r.done for r in self._requests)
                need = _ATOMIC if count is None else max(0, count - done)
                with self._in_use as queue:
                    _lib.zqcow2_queue_wait(queue, need, left)
                    idle = _lib.zqcow2_queue_pending(queue) == 0
                found = [r for r in self._requests if r.done]
                if idle or left == 0 or (count is not None and len(found) >= count):
                    break
            self._requests = [] if idle else [r for r in self._requests if not r.done]
        for request in found:
            request._release()
        return found

    @property
    def pending(self) -> int:
        """The number of requests that wait() has not returned."""
        return len(self._requests)

    def fileno(self) -> int:
        """For select, selectors and asyncio: readable when wait(0) has work to do."""
        with self._in_use as queue:
            fd = int(_lib.zqcow2_queue_fd(queue))
        _check(fd)
        return fd

    def stats(self) -> Stats:
        """The requests of this queue; the other counters are 0."""
        with self._turn, self._in_use as queue:
            return _stats_by(_lib.zqcow2_queue_get_stats, queue)

    def close(self) -> None:
        """Waits for all requests. If one that wait() has not returned has failed, raises its error."""
        left = [] if self.closed else self.wait()
        super().close()
        for request in left:
            request.result()

    def _free(self, pointer: Any) -> int:
        return int(_lib.zqcow2_queue_close(pointer))


_SLICE = 100  # milliseconds: a signal does not end a wait of the library


# ---- images that are not open ----


def check(target: Target, flags: CheckFlag = CheckFlag(0)) -> CheckResult:
    """Checks an image that is not open, and with flags repairs it: see zqcow2_check(3)."""
    findings: List[Finding] = []

    def found(_arg: int, kind: int, text: bytes) -> None:
        findings.append(Finding(FindingKind(kind), text.decode(errors="replace")))

    callback, err, result = _FOUND(found), _error(), _sized(_check_result)
    with _Place(target, _FileFlag.RDWR if flags & ~CheckFlag.NOLOCK else 0) as place:
        options = _sized(_check_options, flags=flags, hooks=ctypes.pointer(_HOOKS),
                         found=ctypes.cast(callback, c_void_p), **place.resolving())
        _check(_lib.zqcow2_check(place.backend, byref(options), byref(result), byref(err)), err, place.name)
    counts: Dict[str, Any] = {name: getattr(result, name) for name in CheckResult._fields[:-1]}
    return CheckResult(**counts, findings=findings)


def _change_image(function: Any, target: Target, kind: Type[ctypes.Structure], **members: Any) -> None:
    err = _error()
    with _Place(target, _FileFlag.RDWR) as place:
        options = _sized(kind, hooks=ctypes.pointer(_HOOKS), **place.resolving(), **members)
        _check(function(place.backend, byref(options), byref(err)), err, place.name)


def rebase(target: Target, backing_file: Optional[Union[str, "os.PathLike[str]"]],
           backing_format: Optional[str] = None, *, name_only: bool = False,
           progress: Optional[Progress] = None) -> None:
    """Gives an image that is not open another backing file, or none: see zqcow2_rebase(3). progress is
    called with the bytes done and the total; if it returns true, the call raises ECANCELED."""
    _with_progress(progress, lambda reporting: _change_image(
        _lib.zqcow2_rebase, target, _rebase_options, flags=_RebaseFlag.NAME_ONLY if name_only else 0,
        backing_name=_text(backing_file), backing_format=_text(backing_format), **reporting))


def commit(target: Target, *, keep: bool = False, backing_file: Optional[Union[str, "os.PathLike[str]"]] = None,
           backing_format: Optional[str] = None, progress: Optional[Progress] = None) -> None:
    """Moves the data of an image that is not open into its backing file: see zqcow2_commit(3). keep: the
    image keeps it as well. backing_file: a file further down the chain. backing_format: that of this file,
    or of the backing file if the image names none. See rebase() for progress."""
    _with_progress(progress, lambda reporting: _change_image(
        _lib.zqcow2_commit, target, _commit_options, flags=_CommitFlag.KEEP if keep else 0,
        backing_name=_text(backing_file), backing_format=_text(backing_format), **reporting))


def amend(target: Target, *, version: int = 0, refcount_bits: int = 0, layout: Layout = Layout.NONE,
          lazy_refcounts: Optional[bool] = None, raw_data: bool = True) -> None:
    """Changes features of an image that is not open: see zqcow2_amend(3). Without an argument, each stays
    as it is. raw_data False: the data file no longer has to be usable without the image."""
    flags = 0 if raw_data else _AmendFlag.NO_RAW_DATA
    if lazy_refcounts is not None:
        flags |= _AmendFlag.LAZY_REFCOUNTS if lazy_refcounts else _AmendFlag.NO_LAZY_REFCOUNTS
    _change_image(_lib.zqcow2_amend, target, _amend_options, flags=flags, version=version,
                  refcount_bits=refcount_bits, layout=layout)
