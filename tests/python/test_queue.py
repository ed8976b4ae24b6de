# SPDX-License-Identifier: MIT
"""Queues: many requests in flight, what they keep, and how they end."""
import ctypes
import errno
import gc
import select
import signal
import subprocess
import sys
import time
import warnings

import pytest

import zqcow2
from test_image import MIB, ZONED, in_threads, pattern, refused
from zqcow2 import Image, IoKind, Op, SimDisk, Status, ZoneState


@pytest.fixture(params=["file", "threads", "uring", "simdisk"])
def image(request, tmp_path):
    if request.param == "simdisk":
        with SimDisk(asynchronous=True, seed=7, record=False) as disk, Image.create(disk, **ZONED) as image:
            yield image
        return
    options = {"threads": {"threads": 4}, "uring": {"backend": "uring"}}.get(request.param, {})
    try:
        image = Image.create(tmp_path / "z", **ZONED, **options)
    except zqcow2.Error as e:
        if request.param == "uring" and e.errno in (errno.ENOSYS, errno.EPERM):
            pytest.skip("io_uring is not allowed here")
        raise
    with image:
        yield image


def late(disk, kind=IoKind.READ, milliseconds=300):
    """Every request of this kind takes that long."""
    disk.add_rule(kind, 0, every=1, delay_min=1000 * milliseconds)


def test_every_request(image):
    with image.queue(8) as q:
        writes = [q.write(pattern(4096, i), 4096 * i) for i in range(20)]  # more than there is room for
        appends = [q.append(pattern(512, i), MIB) for i in range(4)]
        zone = [q.open_zone(2 * MIB), q.close_zone(2 * MIB), q.finish_zone(3 * MIB), q.set_zone_state(
            4 * MIB, ZoneState.OFFLINE)]
        assert q.pending == 28
        assert q.wait() == writes + appends + zone and q.pending == 0
        assert [r.result() for r in writes + zone] == [None] * 24
        assert [r.result() for r in appends] == [MIB + 512 * i for i in range(4)]
        target = bytearray(4096)
        reads = [q.read(4096, 0), q.readinto(target, 4096), q.flush()]
        assert q.wait() == reads
        assert [r.result() for r in reads] == [pattern(4096, 0), None, None] and target == pattern(4096, 1)
        q.reset_zone(0)
        q.write_zeroes(512, 0)
        q.drain()
    states = [z.state for z in image.report(0, 5)]
    assert states == [ZoneState.IMP_OPEN, ZoneState.IMP_OPEN, ZoneState.EMPTY, ZoneState.FULL, ZoneState.OFFLINE]
    assert image.report(0, 1)[0].write_pointer == 512
    assert (writes[0].op, writes[1].offset, writes[1].length) == (Op.WRITE, 4096, 4096)


def test_requests_that_fail(image):
    with image.queue() as q:
        wrong, right = q.write(bytes(512), MIB + 512), q.append(bytes(512), 2 * MIB)
        assert q.wait() == [wrong, right]
        assert isinstance(wrong.error, zqcow2.ZoneError) and right.error is None
        refused(Status.EZONE_WP, wrong.result, zone=MIB)
        assert right.result() == 2 * MIB
        assert "EZONE" in repr(wrong.error.code) and "write pointer" in repr(wrong) and "done" in repr(right)
    with pytest.raises(zqcow2.ZoneError), image.queue() as q:
        q.append(bytes(512), 2 * MIB)
        q.write(bytes(512), MIB + 512)  # nobody asks how it ended
    assert q.closed and image.report(2 * MIB, 1)[0].write_pointer == 2 * MIB + 1024


def test_arguments_that_are_wrong(image):
    with pytest.raises(ctypes.ArgumentError):
        image.queue(1 << 33)
    refused(-errno.EINVAL, image.queue, 0)
    refused(-errno.EINVAL, image.queue, 65537)
    with image.queue() as q:
        for call in (lambda: q.read(512, -512), lambda: q.read(512, 1 << 64), lambda: q.discard(-1, 0)):
            with pytest.raises(ValueError):
                call()
        for wrong in (None, "text", 3):
            with pytest.raises(TypeError):
                q.write(wrong, 0)
        with pytest.raises(BufferError):
            q.readinto(bytes(512), 0)
        held = bytearray(512)
        with pytest.raises(ValueError):
            q.write(held, -512)
        held.extend(b"1")  # nothing holds it any more
        assert q.pending == 0 and q.wait() == []


def test_buffers_live_until_the_end(image):
    with image.queue(64) as q:
        for i in range(64):
            q.append(bytearray(pattern(4096, i)), 0)  # nobody else has it
        gc.collect()
        held = bytearray(512)
        request = q.append(held, MIB)
        with pytest.raises(BufferError):
            held.extend(b"1")
        q.wait()
        assert request.done
        held.extend(b"1")
    for i in range(64):
        assert image.read(4096, 4096 * i) == pattern(4096, i)


def test_life(image):
    q = image.queue()
    refused(-errno.EBUSY, image.close)
    request = q.append(bytes(512), 0)
    q.close()
    q.close()
    assert request.result() == 0
    for call in (q.wait, q.flush, q.fileno, q.stats):
        with pytest.raises(ValueError, match="the Queue is closed"):
            call()
    q = image.queue()
    request = q.append(bytes(512), 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del q
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning] and request.result() == 512


def test_stats(image):
    with image.queue() as q, image.queue() as other:
        for _ in range(3):
            q.append(bytes(512), 0)
        q.wait()
        assert q.stats().op[Op.APPEND][:3] == (3, 0, 1536) and other.stats().op[Op.APPEND][:3] == (0, 0, 0)
        assert image.stats().op[Op.APPEND].requests == 3


def test_event_loop(image):
    with image.queue() as q:
        requests = [q.append(bytes(512), 0) for _ in range(8)]
        done = []
        assert q.fileno() > 2
        while len(done) < len(requests):
            assert select.select([q], [], [], 60)[0] == [q]
            done += q.wait(0)
        assert sorted(r.result() for r in done) == [512 * i for i in range(8)]


def test_several_at_once_and_time(faulty_disk):
    with Image.open(faulty_disk, threads=4, write=True) as image, image.queue() as q:
        image.append(bytes(65536), 0)
        assert q.wait() == [] == q.wait(3)
        late(faulty_disk)
        begun = time.monotonic()
        requests = [q.read(512, 4096 * i) for i in range(4)]
        assert q.wait(timeout=0) == [] and q.wait(1, timeout=0.05) == [] and time.monotonic() - begun >= 0.05
        with pytest.raises(ValueError, match="in flight"):
            requests[0].result()
        assert "in flight" in repr(requests[0])
        found = q.wait(1)
        assert 1 <= len(found) and found + q.wait() == [r for r in requests if r in found] + [
            r for r in requests if r not in found]
        assert time.monotonic() - begun >= 0.3
        faulty_disk.clear_rules()


def test_an_interrupt_loses_no_completion(faulty_disk):
    """A handler of a signal that raises, as that of Ctrl-C does, ends wait() soon."""
    def alarm(_number, frame):
        while frame.f_code.co_filename != __file__:
            # No with statement survives an exception there, and a message that is being logged swallows it.
            if frame.f_code.co_name in ("__enter__", "__exit__", "_log", "_line"):
                signal.setitimer(signal.ITIMER_REAL, 0.001)
                return
            frame = frame.f_back
        raise InterruptedError

    interrupts = 0
    with Image.open(faulty_disk, threads=4, write=True) as image, image.queue(64) as q:
        image.append(pattern(65536), 0)
        late(faulty_disk, milliseconds=20)
        requests = [q.read(512, 512 * i) for i in range(64)]
        old = signal.signal(signal.SIGALRM, alarm)
        try:
            while q.pending:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.013)
                    q.wait()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except InterruptedError:
                    interrupts += 1
        finally:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
            faulty_disk.clear_rules()
        lost = sum(not r.done for r in requests)
        print(f"interrupts: {interrupts}, {lost} completions lost")
        assert (lost, interrupts > 0) == (0, True)
        assert [r.result() for r in requests] == [pattern(65536)[512 * i:512 * i + 512] for i in range(64)]


def test_many_threads_and_queues(image):
    def work(n):
        with image.queue(4) as q:
            for i in range(64):
                q.append(pattern(512, i), n * MIB)
            assert sorted(r.result() for r in q.wait()) == [n * MIB + 512 * i for i in range(64)]

    assert in_threads(4, work) == []
    assert [z.write_pointer - z.start for z in image.report(0, 4)] == [32768] * 4


@pytest.mark.parametrize("end", ["pass", "os._exit(0)", "raise SystemExit", "q.wait()", "del q, image"])
def test_the_end_of_the_program(tmp_path, end):
    """Nothing crashes if the interpreter ends with requests in flight."""
    program = f"""
import os, zqcow2
image = zqcow2.Image.create("z", 16 << 20, zone_size=1 << 20, threads=2)
q = image.queue()
requests = [q.append(bytes(65536), 0) for _ in range(8)]
{end}
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
