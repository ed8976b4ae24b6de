# SPDX-License-Identifier: MIT
"""The fixtures of zqcow2_pytest, in a pytest of their own; and the programs of the documents."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

FIXTURES = """
import os, stat, pytest, zqcow2

def test_default(zoned_image, tmp_path):
    assert (zoned_image.info().nr_zones, zoned_image.info().zone_size) == (16, 1 << 20)
    assert (tmp_path / "zoned.qcow2").stat().st_size > 0
    zoned_image.append(bytes(512), 0)

@pytest.mark.zqcow2_image(size=8 << 20, max_open_zones=2)
@pytest.mark.zqcow2_disk(length=4096, max_length=1 << 20)
def test_markers(zoned_image, simulated_disk):
    info = zoned_image.info()
    assert (info.virtual_size, info.zone_size, info.max_open_zones) == (8 << 20, 1 << 20, 2)
    assert simulated_disk.length == 4096

@pytest.mark.zqcow2_image(size=8 << 20, zone_size=2 << 20)
def test_faults(faulty_disk, tmp_path, caplog):
    with zqcow2.Image.open(faulty_disk, write=True) as image:
        assert (image.info().nr_zones, image.info().zone_size) == (4, 2 << 20)
        image.append(bytes(512), 0)
        assert faulty_disk.held > 0
    faulty_disk.add_rule(zqcow2.IoKind.WRITE)
    with pytest.raises(OSError), zqcow2.Image.open(faulty_disk, write=True) as image:
        image.append(bytes(512), 0)
    assert any("write" in message for message in caplog.messages)

def test_left_open(faulty_disk):
    zqcow2.left = zqcow2.Image.open(faulty_disk)

def test_of_the_one_before():
    zqcow2.left.close()

def test_closed_early(zoned_image):
    zoned_image.close()

@pytest.mark.zqcow2_image(size=8 << 20)
def test_device(ublk_device, tmp_path):
    assert ublk_device.name == "ublkb0"
    with zqcow2.Image.open(tmp_path / "ublk.qcow2") as image:
        assert image.info().nr_zones == 8
"""


def inner(pytester, command):
    """A folder with the fixtures' tests, the command `command`, and a driver of ublk in name."""
    pytester.makepyfile(FIXTURES)
    pytester.makeconftest("""
        from pathlib import Path
        import os
        pytest_plugins = ["zqcow2_pytest"]

        def pytest_configure(config):
            import zqcow2_pytest
            zqcow2_pytest._UBLK_CONTROL = Path("control")
            os.geteuid = lambda: int(os.environ.get("TEST_EUID", "0"))
    """)
    script = pytester.path / "command"
    script.write_text(command)
    script.chmod(0o755)
    return script


def test_fixtures(pytester, monkeypatch):
    script = inner(pytester, '#!/bin/sh\necho "$@" >>calls\n[ "$2" != add ] || echo /dev/ublkb0\n')
    (pytester.path / "control").touch()
    monkeypatch.setenv("ZQCOW2_COMMAND", str(script))
    pytester.runpytest_subprocess("--strict-markers", "-W", "error").assert_outcomes(passed=7)
    calls = [line.split() for line in (pytester.path / "calls").read_text().splitlines()]
    assert [c[:-1] for c in calls] == [["ublk", "add"], ["ublk", "del", "--force"]]
    assert calls[0][-1] == calls[1][-1]


def test_a_device_that_cannot_be_added(pytester, monkeypatch):
    script = inner(pytester, "#!/bin/sh\necho no such driver >&2\nexit 1\n")
    (pytester.path / "control").touch()
    monkeypatch.setenv("ZQCOW2_COMMAND", str(script))
    pytester.runpytest_subprocess().assert_outcomes(passed=6, errors=1)


@pytest.mark.parametrize("lacks, reason", [
    ("driver", "control is missing"), ("root", "must be root"), ("command", "no command zqcow2"),
])
def test_what_a_device_needs(pytester, monkeypatch, lacks, reason):
    script = inner(pytester, "#!/bin/sh\nexit 1\n")
    if lacks != "driver":
        (pytester.path / "control").touch()
    if lacks == "root":
        monkeypatch.setenv("TEST_EUID", "1000")
    if lacks == "command":
        monkeypatch.delenv("ZQCOW2_COMMAND", raising=False)
        monkeypatch.setenv("PATH", str(pytester.path / "nothing"))
    else:
        monkeypatch.setenv("ZQCOW2_COMMAND", str(script))
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=6, skipped=1)
    result.stdout.fnmatch_lines([f"*ublk_device: *{reason}*"])


def program(path, begin, end, number=0):
    """The lines between those that match; of a man page as well."""
    text = (TOP / path).read_text(encoding="utf-8").replace("\\e", "\\")
    return re.findall(f"{begin}[^\n]*\n(.*?){end}", text, re.S)[number]


def test_the_test_of_the_man_page(pytester):
    pytester.makepyfile(program("docs/man/zqcow2-python.7", r"\.Bd -literal", r"\.Ed", 2))
    pytester.makeconftest('pytest_plugins = ["zqcow2_pytest"]')
    pytester.runpytest_subprocess("--strict-markers", "-W", "error").assert_outcomes(passed=20)


@pytest.mark.parametrize("source, prints", [
    (("README.md", "```python", "```"), "0 outcomes of a power cut, data lost in 0\n"),
    (("docs/man/zqcow2-python.7", r"\.Bd -literal", r"\.Ed"), "0 4096\n"),
    (("docs/man/zqcow2-python.7", r"\.Bd -literal", r"\.Ed", 1), "16\n"),
])
def test_programs_of_the_documents(tmp_path, source, prints):
    (tmp_path / "program.py").write_text(program(*source))
    ran = subprocess.run([sys.executable, "-W", "error", "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert (ran.returncode, re.sub(r"^[1-9]\d* outcomes", "0 outcomes", ran.stdout)) == (0, prints)


def test_debian_looks_for_what_the_program_prints():
    expected = re.search("grep -qx '(.*)' out", (TOP / "debian/tests/python").read_text(encoding="utf-8"))
    assert expected and re.fullmatch(expected[1], "12 outcomes of a power cut, data lost in 0")


def test_a_library_that_is_not_there(tmp_path):
    for library in ("/nonexistent.so", os.fspath(tmp_path), "libc.so.6"):
        ran = subprocess.run([sys.executable, "-c", "import zqcow2"], stderr=subprocess.PIPE, text=True,
                             env={**os.environ, "ZQCOW2_LIBRARY": library})
        assert ran.returncode == 1 and "ImportError" in ran.stderr and "ZQCOW2_LIBRARY" in ran.stderr
