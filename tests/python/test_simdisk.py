# SPDX-License-Identifier: MIT
"""Simulated disks: power loss, faults, the log and its cuts."""
import errno
import itertools

import pytest

import zqcow2
from zqcow2 import Image, IoKind, SimDisk, Status

MIB = 1 << 20
ZONED = {"size": 4 * MIB, "zone_size": MIB}


def mapped(disk):
    """An image whose first zone has a place already: an append there is one write of the disk."""
    image = Image.create(disk, **ZONED)
    image.append(bytes(4096), 0)
    image.flush()
    return image


def test_what_was_flushed_survives_every_power_cut(simulated_disk):
    acknowledged = {}  # position: bytes of the zone that are durable from there on
    with Image.create(simulated_disk, **ZONED) as image:
        simulated_disk.record()
        begun = simulated_disk.position
        for i in range(1, 4):
            image.append(bytes([i]) * 4096, 0)
            image.flush()
            acknowledged[simulated_disk.position] = i * 4096
    states = 0
    for position in range(begun, simulated_disk.position + 1):
        durable = max([n for p, n in acknowledged.items() if p <= position], default=0)
        for disk in itertools.islice(simulated_disk.power_cut(position), 40):
            states += 1
            with Image.open(disk, write=True) as image:
                pointer = image.report(0, 1)[0].write_pointer
                assert durable <= pointer <= 3 * 4096
                expected = b"".join(bytes([i]) * 4096 for i in range(1, 4))
                assert image.read(12288, 0) == expected[:pointer].ljust(12288, b"\0")
    print(f"power cuts: {states} states, 0 lost what was flushed")
    assert states > 100


def test_the_log(simulated_disk):
    image = mapped(simulated_disk)
    simulated_disk.record()
    begin = simulated_disk.position
    image.append(b"x" * 4096, 0)
    with simulated_disk.cut() as cut:
        assert (cut.position, len(cut.pending)) == (simulated_disk.position, 1)
        change = cut.pending[0]
        assert (change.kind, change.length, change.units, change.result) == (IoKind.WRITE, 4096, 8, 0)
        assert begin <= change.begun < change.ended <= simulated_disk.position
        assert simulated_disk.event(change.begun) == change
        assert cut.states > 1
        asked = []
        with cut.choose(lambda i, u: asked.append((i, u)) or u < 3) as torn:
            assert torn.read(4096, change.offset) == b"x" * 1536 + bytes(2560)
        assert asked == [(0, u) for u in range(8)]
        with pytest.raises(ZeroDivisionError):
            cut.choose(lambda i, u: 1 // 0 == 0)
        with cut.image(0) as lost, cut.kill() as killed:
            assert lost.read(4096, change.offset) == bytes(4096)
            assert killed.read(4096, change.offset) == b"x" * 4096
        for wrong in (lambda: cut.image(cut.states), lambda: cut.image(1 << 40)):
            with pytest.raises(zqcow2.Error) as e:
                wrong()
            assert e.value.errno == errno.EINVAL
        with pytest.raises(zqcow2.Error) as e:
            simulated_disk.record()
        assert e.value.errno == errno.EBUSY
        cut.seek(begin)
        assert cut.pending == []
    with pytest.raises(zqcow2.Error) as e:
        simulated_disk.cut(begin - 1)
    assert e.value.errno == errno.ENOENT
    image.close()


def test_power_off_and_on(simulated_disk):
    image = mapped(simulated_disk)
    simulated_disk.power_off()
    with pytest.raises(zqcow2.Error) as e:
        image.append(bytes(4096), 0)
    assert e.value.name == "EIO"
    simulated_disk.power_on()
    image.append(bytes(4096), 0)
    simulated_disk.power_off(simulated_disk.position + 1)
    with pytest.raises(zqcow2.Error):
        image.append(bytes(4096), 0)
        image.flush()
    with pytest.raises(zqcow2.Error):
        image.close()
    assert image.closed


def test_faults(simulated_disk):
    image = mapped(simulated_disk)
    simulated_disk.set_fault([IoKind.WRITE, IoKind.ZERO], errno.ENOSPC, nth=2)
    image.append(bytes(4096), 0)
    with pytest.raises(zqcow2.Error) as e:
        image.append(bytes(4096), 0)
    assert (e.value.errno, e.value.code) == (errno.ENOSPC, -errno.ENOSPC)
    image.append(bytes(4096), 0)
    assert simulated_disk.counters().faults == 1
    simulated_disk.set_fault(IoKind.READ, forever=True)
    for _ in range(2):
        with pytest.raises(zqcow2.Error):
            image.read(512, 0)
    simulated_disk.clear_fault()
    image.read(512, 0)
    simulated_disk.set_fault(IoKind.FLUSH)
    with pytest.raises(zqcow2.Error):
        image.flush()
    with pytest.raises(zqcow2.Error) as e:
        image.close()
    assert e.value.code == Status.EDEAD


@pytest.mark.zqcow2_disk(length=8192, max_length=2 * MIB, atomic_write=None, zero=False, discards=False)
def test_options(simulated_disk):
    assert simulated_disk.length == 8192
    simulated_disk.write(b"w" * 512, 512)
    simulated_disk.write(bytearray(512), 0)
    assert simulated_disk.read(1024, 0) == bytes(512) + b"w" * 512
    assert simulated_disk.position == 0
    with simulated_disk.clone() as clone:
        assert clone.hash() == simulated_disk.hash()
        clone.write(b"c", 0)
        assert clone.hash() != simulated_disk.hash()
    with Image.create(simulated_disk, 64 * MIB, force=True) as image:
        with pytest.raises(zqcow2.Error) as e:
            image.write(bytes(4 * MIB), 0)
        assert e.value.errno == errno.ENOSPC
        image.write(b"a" * 4096, 0)
        with simulated_disk.cut() as cut:
            assert all(change.units == 1 for change in cut.pending)
    counters = simulated_disk.counters()
    assert counters.bytes[IoKind.WRITE] >= 4096 and counters.calls[IoKind.FLUSH] > 0 and counters.misuse == 0
    assert counters.position == simulated_disk.position


def test_the_same_seed_gives_the_same_disk():
    hashes = set()
    for _ in range(2):
        with SimDisk(seed=5) as disk, Image.create(disk, **ZONED) as image:
            image.append(bytes(65536), 0)
            image.append(b"1" * 65536, MIB)
            hashes.add(tuple(state.hash() for state in disk.power_cut()))
    assert len(hashes) == 1 and len(hashes.pop()) > 2


def test_asynchronous_disk():
    with SimDisk(asynchronous=True, seed=2) as disk, Image.create(disk, **ZONED) as image:
        assert image.append(b"1" * 65536, 0, fua=True) == 0
        assert image.read(65536, 0) == b"1" * 65536
