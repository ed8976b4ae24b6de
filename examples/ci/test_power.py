# SPDX-License-Identifier: MIT
"""A log in a zone, and power that is lost at every instant while it is written: nothing that was
flushed may be missing. Needs neither root nor a device. Put your own code in the place of Log."""
from itertools import islice

import zqcow2

pytest_plugins = ["zqcow2_pytest"]

RECORD = 4096


class Log:
    """The code under test: records of one block, durable after commit()."""

    def __init__(self, image):
        self.image = image

    def add(self, number):
        self.image.append(number.to_bytes(8, "little") * (RECORD // 8), 0)

    def commit(self):
        self.image.flush()

    def records(self):
        end = self.image.report(0, 1)[0].write_pointer
        blocks = [self.image.read(RECORD, offset) for offset in range(0, end, RECORD)]
        numbers = [int.from_bytes(block[:8], "little") for block in blocks]
        assert all(block == n.to_bytes(8, "little") * (RECORD // 8) for block, n in zip(blocks, numbers))
        return numbers


def test_committed_records_survive(simulated_disk):
    disk = simulated_disk
    promised = {}  # position of the disk: how many records are committed there
    with zqcow2.Image.create(disk, 4 << 20, zone_size=1 << 20) as image:
        disk.record()
        begin = disk.position
        log = Log(image)
        for number in range(12):
            log.add(number)
            if number % 4 == 3:
                log.commit()
                promised[disk.position] = number + 1
    safe = outcomes = 0
    for position in range(begin, disk.position + 1):
        safe = promised.get(position, safe)
        for after in islice(disk.power_cut(position), 50):
            with zqcow2.Image.open(after, write=True) as image:
                found = Log(image).records()
            assert found == list(range(len(found))) and len(found) >= safe, f"power lost at {position}"
            outcomes += 1
    print(f"{outcomes} outcomes of a power loss, no committed record is missing")
    assert outcomes > 100 and safe == 12
