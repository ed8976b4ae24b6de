# SPDX-License-Identifier: MIT
"""Faults on a disk in use: changes that are held, cuts, requests that fail or are late."""
import errno
import time

import pytest

import zqcow2
from test_image import MIB, ZONED, pattern, refused
from zqcow2 import Faults, Image, InfoFlag, IoKind, Loss, SimDisk, Status


@pytest.mark.zqcow2_image(conventional_zones=1)
@pytest.mark.parametrize("how", [*Loss][:5] + [Loss.TORN_512 | Loss.REORDER])
def test_what_a_cut_keeps(faulty_disk, how):
    left = []
    for seed in range(8):
        image = Image.open(faulty_disk, write=True)
        image.write(b"o" * 16384, 0)
        image.reset_zone(MIB)
        image.append(pattern(4096), MIB, fua=True)
        image.flush()
        image.write(b"n" * 16384, 0)
        held = faulty_disk.held
        faulty_disk.cut(seed, how)
        refused(-errno.EIO, image.read, 512, 0)
        with pytest.raises(zqcow2.Error):
            image.close()
        faulty_disk.restore()
        assert held > 0 and faulty_disk.held == 0
        with Image.open(faulty_disk, write=True) as image:
            assert image.read(8192, MIB) == pattern(4096) + bytes(4096)
            assert image.report(MIB, 1)[0].write_pointer == MIB + 4096
            left.append(image.read(16384, 0))
    units = 512 if how & ~Loss.REORDER == Loss.TORN_512 else 4096 if how == Loss.TORN_4096 else 16384
    assert all(len(set(data[i:i + units])) == 1 for data in left for i in range(0, 16384, units))
    old, new = b"o" * 16384, b"n" * 16384
    expected = {Loss.LOSE_ALL: {old}, Loss.KEEP_ALL: {new}, Loss.WHOLE: {old, new}}
    assert set(left) == expected[how] if how in expected else len(set(left)) > 2


def test_the_same_seed_gives_the_same_cut(tmp_path):
    for name in ("a", "b"):
        Image.create(tmp_path / name, 4 * MIB).close()
        with Faults(tmp_path / name) as disk:
            image = Image.open(disk, write=True)
            for i in range(20):
                image.write(pattern(4096, i), i * 4096)
            disk.cut(1234, Loss.TORN_512)
            with pytest.raises(zqcow2.Error):
                image.close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_power_that_is_off(faulty_disk):
    faulty_disk.cut()
    refused(-errno.EIO, faulty_disk.cut)
    refused(-errno.EIO, Image.open, faulty_disk)
    faulty_disk.restore()
    refused(-errno.EINVAL, faulty_disk.cut, how=7)
    Image.open(faulty_disk).close()


def test_what_is_held_reaches_the_file(tmp_path):
    path = tmp_path / "new"
    with Faults(path) as disk:  # creates the file
        with Image.create(disk, **ZONED) as image:
            image.append(pattern(4096), 0)
            assert disk.held > 0
            refused(-errno.EBUSY, disk.close)
            refused(-errno.EBUSY, Image.open, disk)
        assert zqcow2.check(disk).clean
    with Image.open(path) as image:
        assert image.read(4096, 0) == pattern(4096)


def test_little_memory(tmp_path):
    with Faults(tmp_path / "z", max_held=65536) as disk, Image.create(disk, **ZONED) as image:
        image.append(bytes(MIB // 2), 0)
        assert (tmp_path / "z").stat().st_size > MIB // 2  # although nothing was flushed
    with pytest.raises(ValueError):
        Faults(tmp_path / "z", max_held=-1)
    refused(-errno.ENOENT, Faults, tmp_path / "no" / "z")


def test_rules(faulty_disk):
    with Image.open(faulty_disk, write=True) as image:
        image.append(bytes(8192), 0)
        image.flush()
        faulty_disk.add_rule(IoKind.READ, nth=2, every=2, count=2)
        codes = []
        for _ in range(8):
            try:
                image.read(512, 0)
                codes.append(0)
            except zqcow2.Error as e:
                codes.append(e.errno)
        assert codes == [0, errno.EIO, 0, errno.EIO, 0, 0, 0, 0]
        host = image.block_status(4096, 512).host
        faulty_disk.add_rule({IoKind.READ, IoKind.WRITE}, errno.ETIMEDOUT, offset=host, length=512)
        image.read(512, 0)
        refused(-errno.ETIMEDOUT, image.read, 512, 4096)
        faulty_disk.add_rule(IoKind.READ, every=1)
        faulty_disk.clear_rules()
        image.read(8192, 0)
    for wrong in ({"error": -5}, {"error": 5000}, {"kinds": ()}, {"nth": 0}):
        refused(-errno.EINVAL, faulty_disk.add_rule, **{"kinds": IoKind.READ, **wrong})
    with pytest.raises(ValueError):
        faulty_disk.add_rule(IoKind.READ, nth=-1)


def test_requests_that_are_late(faulty_disk):
    with Image.open(faulty_disk, write=True) as image:
        image.append(bytes(4096), 0)
        faulty_disk.add_rule(IoKind.READ, 0, delay_min=50000)
        for least in (0.05, 0):  # only the first is hit
            begun = time.monotonic()
            image.read(512, 0)
            assert time.monotonic() - begun >= least


def test_a_flush_that_fails(faulty_disk):
    with pytest.raises(zqcow2.Error) as closed, Image.open(faulty_disk, write=True) as image:
        faulty_disk.add_rule(IoKind.FLUSH)
        image.append(bytes(4096), 0)
        refused(-errno.EIO, image.flush)
        assert image.info().flags & InfoFlag.DEAD
    assert closed.value.code == Status.EDEAD
    with Image.open(faulty_disk, write=True) as image:
        assert image.report(0, 1)[0].write_pointer in (0, 4096)


def test_on_a_simulated_disk_and_below_an_overlay(tmp_path):
    with SimDisk() as inner, Faults(inner) as disk, Image.create(disk, **ZONED) as image:
        refused(-errno.EBUSY, inner.close)
        image.append(bytes(4096), 0)
        image.flush()
    assert inner.closed
    with Image.create(tmp_path / "base", **ZONED) as image:
        image.append(pattern(4096), 0)
    Image.create(tmp_path / "top", backing_file="base", backing_format="qcow2").close()
    with Faults(tmp_path / "top") as disk, Image.open(disk) as image:
        assert image.read(4096, 0) == pattern(4096)


def test_what_the_disk_did_is_logged(faulty_disk, caplog):
    with Image.open(faulty_disk, write=True) as image:
        image.append(bytes(4096), 0)
    faulty_disk.add_rule(IoKind.FLUSH, 0, delay_min=1, delay_max=1)
    faulty_disk.cut(42, Loss.TORN_512)
    lines = [r.message for r in caplog.records if r.name == "zqcow2.faults"]
    assert any(line.startswith("flush") for line in lines) and any("42" in line for line in lines), lines
