"""What makes a path unusable as a whole: one line each, before anything starts."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
from pathlib import Path

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.recorded.stream import open_recorded
from tests.lab import capture_files as make

GOOD = make.pcap(make.timed(make.conversation()))


def refusal(*paths: Path | str) -> str:
    """The line that is shown."""
    with pytest.raises(UsageError) as caught:
        open_recorded([str(path) for path in paths])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is not a capture file (pcap or pcapng)"),
        (b"hello, this is no capture file at all", "is not a capture file (pcap or pcapng)"),
        (bytes(100), "is not a capture file (pcap or pcapng)"),
        (GOOD[:10], "is cut off in its first 10 bytes"),
        (GOOD[:4], "is cut off in its first 4 bytes"),
        (make.pcapng([])[:20], "is cut off in its first 20 bytes"),
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "is not a pcapng file"),
        (gzip.compress(b"hello" * 10), "is not a capture file (pcap or pcapng)"),
        (gzip.compress(GOOD)[:20], "compressed data is cut off"),
        (gzip.compress(b""), "is not a capture file (pcap or pcapng)"),
        (b"\x1f\x8bwhatever this may be, it is not gzip", "compressed data is damaged"),
        (b"\x28\xb5\x2f\xfdwhatever this may be, no zstd", "compressed data is damaged"),
        (lzma.compress(GOOD), "is compressed with xz"),
        (bz2.compress(GOOD), "is compressed with bzip2"),
        (b"snoop\0\0\0\0\0\0\2\0\0\0\4" + bytes(50), "is a snoop file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_content(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(content)
    assert refusal(path).startswith(f"-i {path}: {problem}; ")


def test_paths(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"-i {tmp_path}: is a directory; name the files: {tmp_path}/*"
    missing = tmp_path / "missing"
    assert refusal(missing) == f"-i {missing}: no such file; check the path"
    assert refusal(tmp_path / ("x" * 300)).startswith(f"-i {tmp_path}/xxx")
    assert refusal("a\0b") == "-i a\0b: is no path; give a capture file"
    assert refusal("/dev/null").startswith("-i /dev/null: is empty; ")
    assert refusal() == "-i: no file given; name at least one capture file"


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O")])
def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Tests may run as root, whom no mode keeps out."""
    path = tmp_path / "a.pcap"
    path.write_bytes(GOOD)

    def refuse(_path: str) -> None:
        raise error

    monkeypatch.setattr("tcpcopy.recorded.files.RawSource", refuse)
    assert refusal(path).startswith(f"-i {path}: cannot be read ({error.strerror}); ")


def test_same_file_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(GOOD)
    link = tmp_path / "b.pcap"
    link.symlink_to(path)
    assert refusal(path, link) == f"-i {link}: is the same as {path}; give each file once"


def test_one_bad_file_among_good_ones_leaves_nothing_open(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(GOOD)
    (tmp_path / "bad").write_bytes(b"no capture file")
    before = os.listdir("/proc/self/fd")
    refusal(tmp_path / "a", tmp_path / "b", tmp_path / "bad", tmp_path / "c")
    assert os.listdir("/proc/self/fd") == before


def test_zstd_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pcap.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(50))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert refusal(path) == (
        f"-i {path}: is compressed with zstd, which needs a package more; install it: "
        "pip install 'tcpcopy[zst]'"
    )


def test_the_terminal_is_no_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _fd: True)
    assert refusal("-").startswith("-i -: is the terminal; pipe into it: tcpdump -w - |")


def test_option_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_recorded([str(tmp_path)], option="inspect")
    assert str(caught.value).startswith(f"inspect {tmp_path}: is a directory")
