# SPDX-License-Identifier: MIT
"""Fixtures of pytest: a zoned image, a simulated disk, a disk with faults, a zoned block device of Linux.

In conftest.py: pytest_plugins = ["zqcow2_pytest"]. Two markers change what a test gets: zqcow2_image
takes the arguments of zqcow2.Image.create(), and zqcow2_disk those of zqcow2.SimDisk().

    @pytest.mark.zqcow2_image(size=64 << 20, zone_size=1 << 20, max_open_zones=2)
    def test_limits(zoned_image): ...

By default an image has 16 zones of 1 MiB, and the seed of a simulated disk follows from the name of
the test, so that a test that fails can be run again with the same power cuts.
"""
from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

import zqcow2

_UBLK_CONTROL = Path("/dev/ublk-control")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "zqcow2_image(**options): the image of zoned_image, faulty_disk and ublk_device")
    config.addinivalue_line("markers", "zqcow2_disk(**options): the disk of simulated_disk")


def _options(request: pytest.FixtureRequest, name: str) -> Dict[str, Any]:
    marker = request.node.get_closest_marker(name)
    return dict(marker.kwargs) if marker else {}


def _create(path: Path, request: pytest.FixtureRequest) -> zqcow2.Image:
    options: Dict[str, Any] = {"size": 16 << 20, "zone_size": 1 << 20, **_options(request, "zqcow2_image")}
    return zqcow2.Image.create(path, **options)


@pytest.fixture
def zoned_image(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[zqcow2.Image]:
    """A new zoned image in the file zoned.qcow2 of the test's tmp_path, open for writing."""
    with _create(tmp_path / "zoned.qcow2", request) as image:
        yield image


@pytest.fixture
def simulated_disk(request: pytest.FixtureRequest) -> Iterator[zqcow2.SimDisk]:
    """An empty simulated disk that keeps a log."""
    seed = zlib.crc32(request.node.nodeid.encode())
    options: Dict[str, Any] = {"seed": seed, **_options(request, "zqcow2_disk")}
    disk = zqcow2.SimDisk(**options)
    yield disk
    # A test that failed may have left an image open: its own failure is what counts.
    with contextlib.suppress(zqcow2.Error):
        disk.close()


@pytest.fixture
def faulty_disk(tmp_path: Path, request: pytest.FixtureRequest,
                caplog: pytest.LogCaptureFixture) -> Iterator[zqcow2.Faults]:
    """A zqcow2.Faults on the file faulty.qcow2 of the test's tmp_path, which has a new zoned image: open
    it with Image.open(faulty_disk, write=True). If the test fails, pytest shows what the disk did."""
    path = tmp_path / "faulty.qcow2"
    _create(path, request).close()
    caplog.set_level(logging.DEBUG, "zqcow2.faults")
    disk = zqcow2.Faults(path)
    yield disk
    with contextlib.suppress(zqcow2.Error):
        disk.close()


@pytest.fixture
def ublk_device(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The path of a zoned block device of Linux, which serves ublk.qcow2 of the test's tmp_path.
    Skips the test without the driver, root or the command (ZQCOW2_COMMAND, or zqcow2 in PATH)."""
    command = os.environ.get("ZQCOW2_COMMAND") or shutil.which("zqcow2")
    if command is None:
        pytest.skip("ublk_device: there is no command zqcow2")
    if os.geteuid() != 0:
        pytest.skip("ublk_device: must be root")
    if not _UBLK_CONTROL.exists():
        pytest.skip(f"ublk_device: {_UBLK_CONTROL} is missing (modprobe ublk_drv)")
    path = tmp_path / "ublk.qcow2"
    _create(path, request).close()
    added = subprocess.run([command, "ublk", "add", path], stdout=subprocess.PIPE, text=True, check=True)
    device = Path(added.stdout.splitlines()[0])
    try:
        yield device
    finally:
        subprocess.run([command, "ublk", "del", "--force", path], check=True)
