"""Compressed files and pipes: all bytes, as they come, and never more than asked for."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest
import zstandard

from tcpcopy.recorded.source import GzipSource, RawSource, ZstdSource
from tests.lab import capture_files as make
from tests.unit.recorded.reading import Read, read

PACKETS = make.conversation() * 40
CONTENT = make.pcap(make.timed(PACKETS))


def zstd(content: bytes) -> bytes:
    """One frame with a check sum."""
    packed: bytes = zstandard.ZstdCompressor(write_checksum=True).compress(content)
    return packed


PACK = pytest.mark.parametrize(
    ("compress", "name"), [(gzip.compress, "gzip"), (zstd, "zstd")], ids=["gzip", "zstd"]
)


def read_content(folder: Path, content: bytes) -> Read:
    """Written under a name that says nothing."""
    path = folder / "traffic"
    path.write_bytes(content)
    return read(path)


@PACK
def test_known_by_content_not_by_name(tmp_path: Path, compress, name: str) -> None:  # type: ignore[no-untyped-def]
    for content in (CONTENT, make.pcapng(make.timed(PACKETS))):
        found = read_content(tmp_path, compress(content))
        assert (found.frames, found.problems) == (PACKETS, [])


@PACK
def test_members_one_after_the_other(tmp_path: Path, compress, name: str) -> None:  # type: ignore[no-untyped-def]
    """As `cat a.gz b.gz` makes them; also cut at any place of the content."""
    for at in (1, 24, 100, 5000):
        found = read_content(tmp_path, compress(CONTENT[:at]) + compress(CONTENT[at:]))
        assert (found.frames, found.problems) == (PACKETS, [])


@PACK
def test_cut_off(tmp_path: Path, compress, name: str) -> None:  # type: ignore[no-untyped-def]
    """What could be decompressed is used."""
    noise = random.Random(1).randbytes
    packets = [
        make.tcp("198.51.100.7:40000", "10.0.0.1:80", make.ACK, noise(1000)) for _ in range(400)
    ]
    packed = compress(make.pcap(make.timed(packets)))
    found = read_content(tmp_path, packed[: len(packed) // 2])
    assert 50 < len(found.frames) < 201
    assert found.frames == packets[: len(found.frames)]
    assert len(found.problems) == 1
    assert found.problems[0].endswith(f"{len(found.frames)} packets used")


@PACK
def test_damaged(tmp_path: Path, compress, name: str) -> None:  # type: ignore[no-untyped-def]
    noise = random.Random(1).randbytes
    packets = [
        make.tcp("198.51.100.7:40000", "10.0.0.1:80", make.ACK, noise(1000)) for _ in range(400)
    ]
    packed = bytearray(compress(make.pcap(make.timed(packets))))
    for at in (len(packed) // 2, len(packed) - 3):
        broken = bytearray(packed)
        broken[at : at + 3] = bytes(byte ^ 0x55 for byte in broken[at : at + 3])
        found = read_content(tmp_path, bytes(broken))
        assert len(found.problems) <= 1
        assert len(found.frames) <= 400


def test_gzip_check_sum_and_what_follows(tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    broken = packed[:-8] + b"\0\0\0\0" + packed[-4:]
    assert "compressed data is damaged" in read_content(tmp_path, broken).problems[0]
    assert read_content(tmp_path, packed + bytes(512)).problems == []  # padding
    followed = read_content(tmp_path, packed + b"something else").problems
    assert "followed by something else" in followed[0]


@PACK
def test_progress_counts_compressed_bytes(tmp_path: Path, compress, name: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "traffic"
    path.write_bytes(compress(CONTENT))
    raw = RawSource(str(path))
    source = (GzipSource if name == "gzip" else ZstdSource)(raw, b"")
    content = b""
    buffer = memoryview(bytearray(1000))
    while count := source.readinto(buffer):
        content += bytes(buffer[:count])
    assert content == CONTENT
    assert raw.bytes_read == path.stat().st_size
    raw.close()


@PACK
def test_bombs_are_taken_in_small_pieces(tmp_path: Path, compress, name: str) -> None:  # type: ignore[no-untyped-def]
    """A gigabyte of zeros in a few kilobytes: only as much as asked for is made of it."""
    path = tmp_path / "bomb"
    path.write_bytes(compress(bytes(1 << 26)))
    raw = RawSource(str(path))
    source = (GzipSource if name == "gzip" else ZstdSource)(raw, b"")
    buffer = memoryview(bytearray(4096))
    for _ in range(50):
        assert 0 < source.readinto(buffer) <= 4096
    raw.close()


def test_compressed_packets_of_a_pipe_come_as_they_are_flushed(tmp_path: Path) -> None:
    from tcpcopy.recorded.stream import open_recorded

    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        packed = gzip.GzipFile(fileobj=pipe, mode="wb")
        packed.write(CONTENT[:24])
        packed.flush()
        stream = open_recorded([str(path)])
        os.close(reader)
        collector = make.Collector()
        record = 16 + 14 + len(PACKETS[0])
        packed.write(CONTENT[24 : 24 + record])
        packed.flush()
        assert stream.next_ns() == make.START_NS
        stream.hand_on(collector)
        packed.write(CONTENT[24 + record :])
        packed.close()
    while stream.next_ns() >= 0:
        stream.hand_on(collector)
    assert [packet for _, packet, _ in collector.packets] == PACKETS
    assert stream.problems == []
    stream.close()


def test_pipe_that_was_made_non_blocking() -> None:
    """As a shell or another program at the same terminal may do."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    raw = RawSource(f"/dev/fd/{reader}")
    os.set_blocking(raw.file.fileno(), False)
    os.write(writer, b"abc")
    buffer = memoryview(bytearray(10))
    assert raw.has_bytes()
    assert raw.readinto(buffer) == 3
    assert not raw.has_bytes()
    os.close(writer)
    assert raw.readinto(buffer) == 0
    assert not raw.is_regular
    raw.close()
    os.close(reader)
