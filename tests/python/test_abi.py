# SPDX-License-Identifier: MIT
"""The module and the headers agree; and the comparison finds what differs."""
import os
import re
import shutil
from pathlib import Path

import pytest

import abi
import zqcow2

TOP = Path(__file__).resolve().parents[2]
CC = os.environ.get("CC", "cc")


def test_module_and_headers_agree(tmp_path):
    assert abi.compare(CC, TOP / "include", tmp_path) == []
    assert abi.all_enums_are_judged()
    print(abi.figures())


def test_names_and_version():
    text = (TOP / "include/zqcow2/zqcow2.h").read_text(encoding="utf-8")
    header = tuple(int(re.search(rf"ZQCOW2_VERSION_{part} (\d+)", text)[1]) for part in ("MAJOR", "MINOR", "PATCH"))
    assert zqcow2.version() == header
    # The library that is loaded by default is the one that this version installs.
    assert f'"libzqcow2.so.{header[0]}"' in Path(zqcow2.__file__).read_text(encoding="utf-8")
    assert all(hasattr(zqcow2, name) for name in zqcow2.__all__)


@pytest.mark.parametrize("header, old, new, finds", [
    ("zqcow2", "uint64_t file_size;", "uint64_t file_size, more;", "struct zqcow2_info: more"),
    ("zqcow2", "uint32_t nr_zones, nr_conventional;", "uint32_t nr_conventional, nr_zones;", "zqcow2_info.nr_zones"),
    ("zqcow2", "char text[252];", "char text[508];", "sizeof struct zqcow2_error.text"),
    ("zqcow2", "ZQCOW2_EZONE_WP = -10005", "ZQCOW2_EZONE_WP = -10015", "ZQCOW2_EZONE_WP: -10005 in zqcow2.py, -10015"),
    ("zqcow2", "ZQCOW2_ZONE_PERSIST 0x100u", "ZQCOW2_ZONE_PERSIST 0x200u", "ZQCOW2_ZONE_PERSIST: 256"),
    ("zqcow2", "    ZQCOW2_ZONE_FULL = 0xe,", "    ZQCOW2_ZONE_FULL = 0xe, ZQCOW2_ZONE_NEW = 0x9,", "ZQCOW2_ZONE_NEW"),
    ("zqcow2", "zqcow2_resize(struct zqcow2_image *img, uint64_t size, uint32_t flags",
     "zqcow2_resize(struct zqcow2_image *img, uint64_t size, uint64_t flags", "conflicting types for .zqcow2_resize"),
    ("stats", "ZQCOW2_STATS_BUCKETS = 40", "ZQCOW2_STATS_BUCKETS = 41", "sizeof struct zqcow2_op_stats.latency"),
    ("events", "    ZQCOW2_EVENT_LIMIT,", "    ZQCOW2_EVENT_LIMIT, ZQCOW2_EVENT_NEW,", "ZQCOW2_EVENT_NEW"),
    ("faults", "uint32_t delay_min, delay_max;", "uint64_t delay_min, delay_max;", "zqcow2_faults_rule.delay_max"),
    ("queue", "uint16_t op; ", "uint32_t op; ", "sizeof struct zqcow2_request.op"),
    ("simdisk", "zqcow2_simdisk_hash(struct zqcow2_simdisk *disk)", "zqcow2_simdisk_hash2(struct zqcow2_simdisk *disk)",
     "zqcow2_simdisk_hash"),
])
def test_drift_is_found(tmp_path, header, old, new, finds):
    shutil.copytree(TOP / "include", tmp_path / "include")
    path = tmp_path / "include/zqcow2" / f"{header}.h"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert re.search(finds, "\n".join(abi.compare(CC, tmp_path / "include", tmp_path)))
