# SPDX-License-Identifier: MIT
"""Images: what each call does, what it refuses, and how."""
import array
import errno
import gc
import logging
import mmap
import os
import pickle
import threading
import tracemalloc
import warnings

import pytest

import zqcow2
from zqcow2 import (BitmapFlag, BlockKind, CheckFlag, FindingKind, Image, InfoFlag, Layout, Rules, SimDisk, Status,
                    ZoneState, ZoneType)

MIB = 1 << 20
ZONED = {"size": 16 * MIB, "zone_size": MIB}


def pattern(length, seed=1):
    return bytes((i * 7 + i // 256 + seed) % 256 for i in range(length))


def refused(code, call, *arguments, zone=None, **options):
    with pytest.raises(zqcow2.Error) as e:
        call(*arguments, **options)
    assert (e.value.code, e.value.zone) == (code, zone)
    assert isinstance(e.value, zqcow2.ZoneError) == (Status.EZONE_STATE <= code <= Status.EZONE_BOUNDARY)
    return e.value


# ---- data ----


def test_what_is_written_is_read(zoned_image):
    data = pattern(8192)
    zoned_image.write(data[:4096], 0)
    assert zoned_image.append(data[4096:], 0, fua=True) == 4096
    assert zoned_image.read(8192, 0) == data
    assert zoned_image.read(1024, 8192) == bytes(1024)
    zoned_image.write_zeroes(512, 8192)
    zoned_image.drain()
    assert zoned_image.report(0, 1)[0].write_pointer == 8704


def test_every_kind_of_buffer(zoned_image, tmp_path):
    data = pattern(4096)
    with open(tmp_path / "mapped", "w+b") as f:
        f.truncate(4096)
        with mmap.mmap(f.fileno(), 4096) as mapped:
            mapped[:] = data
            sources = [data, bytearray(data), memoryview(data), memoryview(bytearray(data)), array.array("B", data),
                       array.array("I", data), mapped]
            for source in sources:
                zoned_image.append(source, 0)
            mapped[:] = bytes(4096)
            for i, _ in enumerate(sources):
                zoned_image.readinto(mapped, i * 4096)
                assert mapped[:] == data
    target = bytearray(b"." * 2048)
    zoned_image.readinto(memoryview(target)[512:1024], 0)
    assert target == b"." * 512 + data[:512] + b"." * 1024


def test_buffers_that_do_not_fit(zoned_image):
    for wrong in ("text", 3, None):
        with pytest.raises(TypeError):
            zoned_image.write(wrong, 0)
    with pytest.raises(BufferError):
        zoned_image.write(memoryview(bytes(2048))[::2], 0)
    for constant in (bytes(512), memoryview(bytes(512))):
        with pytest.raises(BufferError):
            zoned_image.readinto(constant, 0)
    for length, offset in ((-512, 0), (512, -512)):
        with pytest.raises(ValueError):
            zoned_image.read(length, offset)
    refused(-errno.EINVAL, zoned_image.write, bytes(100), 0)
    refused(-errno.EINVAL, zoned_image.read, 512, 16 * MIB)
    grown = bytearray(512)
    zoned_image.write(grown, 0)
    grown.extend(b"1")  # no call holds it any more


def test_nothing_is_copied():
    big = 8 * MIB
    with SimDisk(record=False) as disk, Image.create(disk, 64 * MIB) as image:
        data = bytearray(pattern(4096) * (big // 4096))
        tracemalloc.start()
        image.write(data, 0)
        image.readinto(data, 0)
        assert tracemalloc.get_traced_memory()[1] < MIB
        tracemalloc.reset_peak()
        back = image.read(big, 0)
        assert tracemalloc.get_traced_memory()[1] < big + MIB
        tracemalloc.stop()
        assert back == data


def test_empty(tmp_path):
    with Image.create(tmp_path / "empty", empty=True) as image:
        assert image.info().virtual_size == 0
        image.resize(MIB)
        image.write(b"e" * 512, MIB - 512)
        assert image.read(1024, MIB - 1024) == bytes(512) + b"e" * 512


def test_compressed_and_discarded(tmp_path):
    with Image.create(tmp_path / "plain", 4 * MIB, zstd=True) as image:
        image.write(b"c" * 65536, 0, compress=True)
        image.write(b"d" * 65536, 65536)
        assert image.block_status(0, MIB)[:3] == (BlockKind.COMPRESSED, 0, 65536)
        assert image.block_status(0, MIB).host is None
        assert image.block_status(65536, MIB).kind == BlockKind.DATA
        image.discard(65536, 65536)
        assert image.read(512, 65536) == bytes(512)
        assert image.block_status(65536, 65536).kind in (BlockKind.ZERO, BlockKind.UNALLOCATED)
        assert image.info().compression_type == 1


# ---- zones ----


def test_zone_operations(zoned_image):
    state = lambda at: zoned_image.report(at, 1)[0].state
    zoned_image.open_zone(0)
    assert state(0) == ZoneState.EXP_OPEN
    zoned_image.append(bytes(512), 0)
    zoned_image.close_zone(0)
    assert state(0) == ZoneState.CLOSED
    zoned_image.finish_zone(MIB, 2 * MIB, fua=True)
    assert [z.state for z in zoned_image.report(MIB, 3)] == [ZoneState.FULL, ZoneState.FULL, ZoneState.EMPTY]
    zoned_image.reset_zone(0, 16 * MIB)
    assert {z.state for z in zoned_image.report()} == {ZoneState.EMPTY}
    assert len(zoned_image.report()) == 16
    assert [z.start for z in zoned_image.report(14 * MIB + 512)] == [14 * MIB, 15 * MIB]
    refused(-errno.EINVAL, zoned_image.report, 16 * MIB)


def test_zones_by_state_and_changes(zoned_image):
    zoned_image.write(b"a" * 512, MIB)
    zoned_image.set_zone_state(3 * MIB, ZoneState.OFFLINE)
    assert [z.start for z in zoned_image.find_zones(ZoneState.IMP_OPEN, ZoneState.OFFLINE)] == [MIB, 3 * MIB]
    assert [z.start for z in zoned_image.find_zones(ZoneState.EMPTY, offset=14 * MIB)] == [14 * MIB, 15 * MIB]
    assert zoned_image.find_zones() == zoned_image.report()
    now, starts = zoned_image.zone_changes()
    assert starts == [3 * MIB]
    assert zoned_image.zone_changes(now) == (now, [])
    limits = zoned_image.io_limits()
    assert limits.block_size == 512 and limits.optimal_io == zoned_image.info().cluster_size


    refused(-errno.EINVAL, zoned_image.reset_zone, 512)


@pytest.mark.zqcow2_image(zone_capacity=512 * 1024, conventional_zones=1, max_open_zones=2, max_active_zones=3)
def test_errors_of_zones(zoned_image):
    first = zoned_image.report(0, 1)[0]
    assert (first.type, first.state, first.write_pointer) == (ZoneType.CONVENTIONAL, ZoneState.NOT_WP, None)
    assert zoned_image.report(MIB, 1)[0].capacity == 512 * 1024
    e = refused(Status.EZONE_WP, zoned_image.write, bytes(512), 3 * MIB + 512, zone=3 * MIB)
    assert (e.name, e.errno, e.filename) == ("EZONE_WP", errno.EIO, None) and "write pointer" in e.strerror
    refused(Status.EZONE_BOUNDARY, zoned_image.append, bytes(MIB), MIB, zone=MIB)
    refused(Status.EZONE_STATE, zoned_image.append, bytes(512), 0, zone=0)
    zoned_image.open_zone(MIB)
    zoned_image.open_zone(2 * MIB)
    refused(Status.EZONE_OPEN, zoned_image.open_zone, 3 * MIB, zone=3 * MIB)
    for at in (MIB, 2 * MIB):
        zoned_image.append(bytes(512), at)
        zoned_image.close_zone(at)
    zoned_image.append(bytes(512), 3 * MIB)
    refused(Status.EZONE_ACTIVE, zoned_image.append, bytes(512), 4 * MIB, zone=4 * MIB)
    zoned_image.finish_zone(MIB)
    refused(Status.EZONE_FULL, zoned_image.append, bytes(512), MIB, zone=MIB)
    zoned_image.set_zone_state(5 * MIB, ZoneState.OFFLINE)
    zoned_image.set_zone_state(6 * MIB, ZoneState.RDONLY, persist=True)
    assert zoned_image.report(5 * MIB, 1)[0].write_pointer is None
    refused(Status.EZONE_OFFLINE, zoned_image.read, 512, 5 * MIB, zone=5 * MIB)
    refused(Status.EZONE_RDONLY, zoned_image.append, bytes(512), 6 * MIB, zone=6 * MIB)
    zoned_image.set_zone_state(5 * MIB, ZoneState.NOT_WP)
    assert zoned_image.report(5 * MIB, 1)[0].state == ZoneState.EMPTY
    assert zoned_image.info().flags & InfoFlag.STATES


def test_zns_and_descriptors(tmp_path):
    with Image.create(tmp_path / "zns", **ZONED, rules=Rules.ZNS, layout=Layout.L56,
                      descriptor_extension=64) as image:
        image.set_zone_descriptor(MIB, b"owner".ljust(64, b"\0"))
        zone = image.report(MIB, 1)[0]
        assert (zone.described, zone.state) == (True, ZoneState.CLOSED)
        assert [d[:5] for d in image.zone_descriptors(0, 3)] == [bytes(5), b"owner", bytes(5)]
        refused(-errno.EINVAL, image.set_zone_descriptor, 0, bytes(63))
        assert image.info().layout == Layout.L56


def test_no_zones(tmp_path):
    with Image.create(tmp_path / "plain", MIB) as image:
        refused(Status.ENOTZONED, image.report)
        refused(Status.ENOTZONED, image.append, bytes(512), 0)
        image.write(bytes(512), 1024)


# ---- the image as a whole ----


def test_info_and_reopening(tmp_path):
    path = tmp_path / "z"
    with Image.create(path, **ZONED, cluster_size=4096, max_open_zones=4) as image:
        image.append(pattern(4096), 0)
        info = image.info()
    assert (info.virtual_size, info.nr_zones, info.cluster_size, info.max_open_zones) == (16 * MIB, 16, 4096, 4)
    assert info.flags == InfoFlag.ZONED
    with Image.open(os.fsencode(path)) as image:
        assert image.read(4096, 0) == pattern(4096)
        assert image.info().flags & InfoFlag.READ_ONLY
        refused(-errno.EROFS, image.append, bytes(512), 0)
    with Image.open(str(path), write=True, block_size=4096) as image:
        refused(-errno.EINVAL, image.append, bytes(512), 0)
        image.append(bytes(4096), 0)
        assert image.info().block_size == 4096


def test_opening_that_fails(tmp_path):
    path = tmp_path / "z"
    e = refused(-errno.ENOENT, Image.open, path)
    assert (e.errno, e.filename, e.name) == (errno.ENOENT, str(path), "ENOENT")
    path.write_bytes(b"x" * 4096)
    refused(Status.ENOTQCOW2, Image.open, path)
    e = refused(-errno.EEXIST, Image.create, path, **ZONED)
    again = pickle.loads(pickle.dumps(e))
    assert (again.errno, again.code, again.filename) == (errno.EEXIST, -errno.EEXIST, str(path))
    refused(-errno.EINVAL, Image.create, tmp_path / "new", 16 * MIB, zone_size=3)
    Image.create(path, **ZONED, force=True).close()
    with Image.open(path, write=True) as image:
        refused(-errno.EAGAIN, Image.open, path, write=True)
        with Image.open(path, lock=False) as other:
            assert other.info().nr_zones == image.info().nr_zones
    with pytest.raises(ValueError):
        Image.open(path, backend="carrier pigeon")
    with pytest.raises(ValueError):
        Image.open(f"{path}\0")
    # What failed left no descriptor open.
    before = len(os.listdir("/proc/self/fd"))
    refused(Status.ENOTQCOW2, Image.open, __file__)
    assert len(os.listdir("/proc/self/fd")) == before


def test_snapshots(zoned_image, tmp_path):
    zoned_image.append(b"a" * 512, 0)
    zoned_image.take_snapshot("one", date_sec=1700000000)
    zoned_image.append(b"b" * 512, 0)
    zoned_image.take_snapshot("two")
    assert [(s.name, s.disk_size, s.date_sec) for s in zoned_image.snapshots()] == [
        ("one", 16 * MIB, 1700000000), ("two", 16 * MIB, 0)]
    refused(-errno.EEXIST, zoned_image.take_snapshot, "two")
    refused(-errno.ENOENT, zoned_image.delete_snapshot, "three")
    zoned_image.apply_snapshot("one")
    assert zoned_image.report(0, 1)[0].write_pointer == 512
    zoned_image.delete_snapshot("one")
    zoned_image.close()
    with Image.open(tmp_path / "zoned.qcow2", snapshot="two") as image:
        assert image.read(1024, 0) == b"a" * 512 + b"b" * 512


def test_bitmaps(zoned_image, tmp_path):
    zoned_image.add_bitmap("backup", 4096)
    zoned_image.add_bitmap("other", enabled=False)
    refused(-errno.EEXIST, zoned_image.add_bitmap, "backup")
    zoned_image.append(bytes(8192), MIB)
    zoned_image.append(bytes(512), 3 * MIB)
    assert list(zoned_image.dirty_ranges("backup")) == [(MIB, 8192), (3 * MIB, 4096)]
    assert list(zoned_image.dirty_ranges("backup", MIB + 4096)) == [(MIB + 4096, 4096), (3 * MIB, 4096)]
    assert list(zoned_image.dirty_ranges("other")) == []
    assert [(b.name, b.granularity, b.dirty_bytes, b.flags) for b in zoned_image.bitmaps()] == [
        ("backup", 4096, 12288, BitmapFlag.ENABLED), ("other", 65536, 0, BitmapFlag(0))]
    zoned_image.clear_bitmap("backup")
    zoned_image.disable_bitmap("backup")
    zoned_image.enable_bitmap("other")
    zoned_image.append(bytes(512), 0)
    assert [b.dirty_bytes for b in zoned_image.bitmaps()] == [0, 65536]
    zoned_image.remove_bitmap("backup")
    refused(-errno.ENOENT, zoned_image.clear_bitmap, "backup")
    zoned_image.close()
    with Image.open(tmp_path / "zoned.qcow2") as image:
        assert [b.name for b in image.bitmaps()] == ["other"]


def test_many_dirty_ranges(tmp_path):
    with Image.create(tmp_path / "plain", 16 * MIB) as image:
        image.add_bitmap("b", 4096)
        for i in range(600):  # more than one call has room for
            image.write(bytes(512), i * 8192)
        assert list(image.dirty_ranges("b")) == [(i * 8192, 4096) for i in range(600)]


def test_resize(zoned_image):
    zoned_image.resize(32 * MIB)
    assert zoned_image.info().nr_zones == 32
    zoned_image.append(bytes(512), 31 * MIB)
    refused(-errno.EINVAL, zoned_image.resize, 16 * MIB)
    refused(Status.EZONE_STATE, zoned_image.resize, 16 * MIB, shrink=True)
    zoned_image.resize(16 * MIB, discard=True)
    assert zoned_image.info().virtual_size == 16 * MIB


def test_other_files(tmp_path):
    with Image.create(tmp_path / "base", **ZONED) as image:
        image.append(pattern(4096), 0)
    with Image.create(tmp_path / "top", backing_file="base", backing_format="qcow2") as image:
        assert image.block_status(0, 4096)[:2] == (BlockKind.DATA, 1)
        assert image.append(b"t" * 512, MIB) == MIB
        assert image.read(4096, 0) == pattern(4096)
        assert image.info().flags & InfoFlag.BACKING
    with Image.open(tmp_path / "top", backing=False) as image:
        refused(Status.EFEATURE, image.read, 512, 0)
    with Image.create(tmp_path / "split", **ZONED, data_file="split.data") as image:
        image.append(pattern(4096), MIB)
    assert (tmp_path / "split.data").read_bytes()[MIB:MIB + 4096] == pattern(4096)


def test_check_and_repair(tmp_path):
    path = tmp_path / "z"
    Image.create(path, **ZONED).close()
    assert zqcow2.check(path).clean and zqcow2.check(path).findings == []
    with open(path, "r+b") as f:  # a cluster that nothing uses counts as used
        table = int.from_bytes(f.read(56)[48:], "big")
        f.seek(table)
        block = int.from_bytes(f.read(8), "big")
        f.seek(block + 2 * 1000)
        f.write(b"\0\1")
    result = zqcow2.check(path)
    assert (result.leaked_clusters, result.leaks_fixed, result.clean) == (1, 0, False)
    assert [f.kind for f in result.findings] == [FindingKind.LEAK]
    assert zqcow2.check(path, CheckFlag.REPAIR_LEAKS).leaks_fixed == 1
    assert zqcow2.check(path).clean
    refused(Status.ENOTQCOW2, zqcow2.check, __file__)


def test_messages_are_logged(tmp_path, caplog):
    with SimDisk() as disk:
        image = Image.create(disk, **ZONED)
        image.append(bytes(512), 0)
        disk.set_fault(zqcow2.IoKind.FLUSH)
        refused(-errno.EIO, image.flush)
        refused(Status.EDEAD, image.append, bytes(512), 0)
        assert image.info().flags & InfoFlag.DEAD
        disk.clear_fault()
        with caplog.at_level(logging.DEBUG, "zqcow2"):
            refused(Status.EDEAD, image.close)
        assert image.closed
    assert {r.name for r in caplog.records} == {"zqcow2"}
    assert any(r.levelno >= logging.ERROR for r in caplog.records)


# ---- the life of objects ----


def test_closed_objects(tmp_path):
    image = Image.create(tmp_path / "z", **ZONED)
    image.close()
    image.close()
    assert image.closed
    for call in (image.info, image.flush, image.report, lambda: image.read(512, 0)):
        with pytest.raises(ValueError, match="the Image is closed"):
            call()


def test_what_is_in_use_stays_open():
    disk = SimDisk()
    image = Image.create(disk, **ZONED)
    refused(-errno.EBUSY, disk.close)
    image.append(bytes(4096), 0)
    with disk.cut() as cut:
        image.close()
        refused(-errno.EBUSY, disk.close)
        with pytest.raises(zqcow2.Error) as e:
            cut.choose(lambda i, u: cut.close() is None)
        assert e.value.errno == errno.EBUSY
    disk.close()
    assert disk.closed


def test_an_image_that_is_forgotten(tmp_path):
    image = Image.create(tmp_path / "z", **ZONED)
    image.append(b"f" * 512, 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del image
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning]
    with Image.open(tmp_path / "z", write=True) as image:  # its lock is gone, its data is there
        assert image.read(512, 0) == b"f" * 512


def test_a_child_leaves_its_parents_image_alone(tmp_path):
    image = Image.create(tmp_path / "z", **ZONED)
    image.append(b"p" * 512, 0)
    pid = os.fork()
    if pid == 0:
        image = None  # its end is not the end of the parent's image
        gc.collect()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    image.append(b"q" * 512, 0)
    image.close()
    assert zqcow2.check(tmp_path / "z").clean
    with Image.open(tmp_path / "z") as image:
        assert image.read(1024, 0) == b"p" * 512 + b"q" * 512


def in_threads(count, work):
    """Calls work(n) for each n, in threads side by side. Returns what they raised."""
    failures = []

    def run(n):
        try:
            work(n)
        except BaseException as e:  # pylint: disable=broad-except
            failures.append(e)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_threads(tmp_path):
    with Image.create(tmp_path / "z", **ZONED) as image:
        def work(n):
            for i in range(100):
                assert image.append(bytes([n]) * 512, n * MIB) == n * MIB + i * 512

        assert in_threads(8, work) == []
        for n in range(8):
            assert image.read(51200, n * MIB) == bytes([n]) * 51200


def test_closing_under_other_threads(tmp_path):
    """Calls that race with close() get a ValueError; close() may get EBUSY. Nothing else happens."""
    for i in range(20):
        image = Image.create(tmp_path / str(i), **ZONED)
        seen = []

        def work(image=image, seen=seen):
            try:
                while True:
                    image.append(bytes(512), 0)
            except BaseException as e:  # pylint: disable=broad-except
                seen.append(e)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not image.closed:
            try:
                image.close()
            except zqcow2.Error as e:
                assert e.errno == errno.EBUSY
        for thread in threads:
            thread.join()
        allowed = (ValueError, zqcow2.ZoneError)  # or the zone was full first
        assert len(seen) == 3 and all(isinstance(e, allowed) for e in seen), seen
        assert zqcow2.check(tmp_path / str(i)).clean
