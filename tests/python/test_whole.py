# SPDX-License-Identifier: MIT
"""An image as a whole: other backing files, features, compression, statistics, events, hand-over."""
import errno
import shutil

import pytest

import zqcow2
from test_image import MIB, ZONED, pattern, refused
from zqcow2 import BlockKind, EventKind, Image, InfoFlag, IoKind, Layout, Op, SimDisk, Status, ZoneState


def overlay(tmp_path):
    """An image with 64 KiB of its own at 0 on one with 128 KiB."""
    with Image.create(tmp_path / "base", 4 * MIB) as image:
        image.write(b"b" * 131072, 0)
    with Image.create(tmp_path / "top", backing_file="base", backing_format="qcow2") as image:
        image.write(b"t" * 65536, 0)
    return tmp_path / "top"


def content(path):
    with Image.open(path) as image:
        return image.read(image.info().virtual_size, 0)


def test_rebase(tmp_path):
    top = overlay(tmp_path)
    before, seen = content(top), []
    zqcow2.rebase(top, None, progress=lambda *at: seen.append(at))
    assert seen and all(0 <= done <= total == 4 * MIB for done, total in seen)
    (tmp_path / "base").unlink()
    assert content(top) == before
    with Image.open(top) as image:
        assert not image.info().flags & InfoFlag.BACKING


def test_rebase_of_the_name_only(tmp_path):
    top = overlay(tmp_path)
    before = content(top)
    (tmp_path / "base").rename(tmp_path / "moved")
    zqcow2.rebase(top, tmp_path / "moved", "qcow2", name_only=True)
    assert content(top) == before
    refused(-errno.EINVAL, zqcow2.rebase, top, "moved")  # without a format
    assert refused(-errno.ENOENT, zqcow2.rebase, top, "nothing", "qcow2").filename == str(top)


def test_commit(tmp_path):
    top = overlay(tmp_path)
    before = content(top)
    zqcow2.commit(top, keep=True)
    assert content(tmp_path / "base") == before
    with Image.open(top) as image:
        assert image.block_status(0, 65536)[:2] == (BlockKind.DATA, 0)
    zqcow2.commit(top)
    assert content(top) == before
    with Image.open(top) as image:
        assert image.block_status(0, 65536)[:2] == (BlockKind.DATA, 1)


def test_commit_further_down(tmp_path):
    overlay(tmp_path)
    with Image.create(tmp_path / "upper", backing_file="top", backing_format="qcow2") as image:
        image.write(b"u" * 65536, 65536)
    before = content(tmp_path / "upper")
    down = {"backing_file": "base", "backing_format": "qcow2"}
    refused(-errno.EINVAL, zqcow2.commit, tmp_path / "upper", **down)  # without keep
    for name in ("top", "upper"):
        zqcow2.commit(tmp_path / name, keep=True, **down)
    assert content(tmp_path / "base") == before == content(tmp_path / "upper")


def test_progress_that_stops_the_work(tmp_path):
    top = overlay(tmp_path)
    before = content(top)
    for call in (lambda stop: zqcow2.rebase(top, None, progress=stop), lambda stop: zqcow2.commit(top, progress=stop)):
        refused(-errno.ECANCELED, call, lambda done, total: True)
        with pytest.raises(ZeroDivisionError):  # and not the library's ECANCELED
            call(lambda done, total: done // 0)
        with pytest.raises(ZeroDivisionError):  # at the end as well
            call(lambda done, total: 1 // 0 if done == total else False)
        assert content(top) == before and zqcow2.check(top).clean


def test_amend(tmp_path):
    plain = tmp_path / "plain"
    Image.create(plain, MIB).close()
    zqcow2.amend(plain, lazy_refcounts=True, refcount_bits=32)
    with Image.open(plain) as image:
        assert (image.info().refcount_bits, image.info().version) == (32, 3)
        assert image.info().flags & InfoFlag.LAZY_REFCOUNTS
    zqcow2.amend(plain, lazy_refcounts=False, refcount_bits=16, version=2)
    with Image.open(plain) as image:
        assert (image.info().refcount_bits, image.info().version) == (16, 2)
    refused(-errno.EINVAL, zqcow2.amend, plain, refcount_bits=3)
    with pytest.raises(ValueError):
        zqcow2.amend(plain, version=-1)
    with Image.create(tmp_path / "zoned", **ZONED, layout=Layout.V7) as image:
        refused(-errno.EAGAIN, zqcow2.amend, tmp_path / "zoned", layout=Layout.L44)
    zqcow2.amend(tmp_path / "zoned", layout=Layout.L44)
    with Image.open(tmp_path / "zoned") as image:
        assert image.info().layout == Layout.L44
    with Image.create(tmp_path / "split", MIB, data_file="data", data_file_raw=True) as image:
        raw = image.info().autoclear_features
    zqcow2.amend(tmp_path / "split", raw_data=False)
    with Image.open(tmp_path / "split") as image:
        assert image.info().autoclear_features & raw != raw


def test_changes_on_a_simulated_disk():
    with SimDisk() as disk:
        Image.create(disk, MIB).close()
        disk.set_fault(IoKind.WRITE, errno.ENOSPC)
        refused(-errno.ENOSPC, zqcow2.amend, disk, lazy_refcounts=True)
        disk.clear_fault()
        zqcow2.amend(disk, lazy_refcounts=True)
        with Image.open(disk) as image:
            assert image.info().flags & InfoFlag.LAZY_REFCOUNTS


def test_compact(zoned_image):
    for zone in (0, MIB):
        zoned_image.write(bytes(range(256)) * 4096, zone)
        assert zoned_image.report(zone, 1)[0].state == ZoneState.FULL
    seen = []
    result = zoned_image.compact(0, MIB, level=9, progress=lambda *at: seen.append(at))
    assert (result.clusters, result.compressed, result.old_bytes) == (16, 16, MIB) and result.new_bytes < MIB // 4
    assert [done for done, _ in seen] == [i * 65536 for i in range(16)]
    kinds = [zoned_image.block_status(zone, 65536).kind for zone in (0, MIB)]
    assert kinds == [BlockKind.COMPRESSED, BlockKind.DATA]
    assert zoned_image.read(MIB, 0) == bytes(range(256)) * 4096
    refused(-errno.ECANCELED, zoned_image.compact, progress=lambda done, total: done == MIB)
    refused(-errno.EINVAL, zoned_image.compact, 512)
    with pytest.raises(KeyError):
        zoned_image.compact(progress=lambda done, total: {}[done])
    assert zoned_image.compact(MIB).compressed == 16


def test_stats(zoned_image):
    before = zoned_image.stats()
    assert before.op[Op.APPEND] == (0, 0, 0, 0, [0] * 40)
    zoned_image.measure_time()
    for _ in range(3):
        zoned_image.append(bytes(4096), 0)
    zoned_image.measure_time(False)
    refused(Status.EZONE_WP, zoned_image.write, bytes(512), 0, zone=0)
    zoned_image.flush()
    after = zoned_image.stats()
    assert after.op[Op.APPEND][:3] == (3, 0, 12288)
    assert sum(after.op[Op.APPEND].latency) == 3 and after.op[Op.APPEND].nanoseconds > 0
    assert after.op[Op.WRITE] == (1, 1, 0, 0, [0] * 40)
    assert after.rounds > before.rounds and after.flushes > before.flushes
    assert {s: n for s, n in after.zones.items() if n} == {ZoneState.EMPTY: 15, ZoneState.IMP_OPEN: 1}


@pytest.mark.zqcow2_image(max_open_zones=1)
def test_events(zoned_image):
    events = zoned_image.watch()
    zoned_image.open_zone(0)
    refused(Status.EZONE_OPEN, zoned_image.open_zone, MIB, zone=MIB)
    zoned_image.finish_zone(0)
    zoned_image.flush()
    assert [e[:3] for e in events] == [(EventKind.LIMIT, Status.EZONE_OPEN, MIB), (EventKind.ZONE, 0, 0)]
    assert events[1].state == ZoneState.FULL
    later = zoned_image.watch(limit=2)
    zoned_image.finish_zone(MIB, 3 * MIB)
    zoned_image.flush()
    assert [e.offset for e in later] == [2 * MIB, 3 * MIB] and len(events) == 2


def test_events_of_a_disk_that_fails():
    with SimDisk() as disk:
        image = Image.create(disk, **ZONED)
        events = image.watch()
        image.append(bytes(4096), 0)
        disk.set_fault(IoKind.FLUSH)
        refused(-errno.EIO, image.flush)
        assert (EventKind.DEAD, -errno.EIO) in [e[:2] for e in events]
        disk.clear_fault()
        refused(Status.EDEAD, image.close)


def test_hand_over(tmp_path):
    path = tmp_path / "z"
    with Image.create(tmp_path / "base", **ZONED) as image:
        image.append(pattern(4096), MIB)
    old = Image.create(path, backing_file="base", backing_format="qcow2")
    old.append(pattern(512), 0)
    with Image.open(path, write=True, inactive=True) as new:
        assert new.info().flags & InfoFlag.INACTIVE
        refused(Status.EINACTIVE, new.read, 512, 0)
        refused(-errno.EAGAIN, new.activate)
        old.inactivate()
        new.activate()
        assert new.read(512, 0) == pattern(512) and new.read(4096, MIB) == pattern(4096)
        assert new.append(bytes(512), 0) == 512
        refused(Status.EINACTIVE, old.append, bytes(512), 0)
        new.inactivate()
        old.activate()  # opens the backing file anew, by the name of this image
        assert old.append(bytes(512), 0) == 1024 and old.read(4096, MIB) == pattern(4096)
    old.close()
    assert zqcow2.check(path).clean


def test_hand_over_of_a_removed_file(tmp_path):
    with Image.create(tmp_path / "z", **ZONED) as image:
        image.inactivate()
        shutil.rmtree(tmp_path)
        image.activate()
        image.append(bytes(512), 0)
