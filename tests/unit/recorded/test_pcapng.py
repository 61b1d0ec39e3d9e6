"""The pcapng format: sections, interfaces and their clocks, all packet blocks, damage."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.lab import capture_files as make
from tests.unit.recorded.reading import read_bytes

NS = 1_700_000_000_123_456_789
PACKETS = make.conversation()
FRAMES = [make.ethernet(packet) for packet in PACKETS]
ORDERS = pytest.mark.parametrize("order", ["<", ">"])
RESOLUTION, OFFSET, NAME = 9, 14, 2


def one_packet(options: bytes, ticks: int, order: make.Order = "<") -> bytes:
    """A file of one packet whose interface has these options."""
    head = make.section(order) + make.interface(1, options, order)
    return head + make.enhanced(FRAMES[0], ticks, order=order)


@ORDERS
def test_both_byte_orders(tmp_path: Path, order: make.Order) -> None:
    found = read_bytes(tmp_path, make.pcapng(make.timed(PACKETS, start_ns=NS), order=order))
    assert found.frames == PACKETS
    assert found.times[0] == NS // 1000 * 1000
    assert found.problems == []


@pytest.mark.parametrize(
    ("resolution", "ticks", "expected"),
    [
        (b"", NS // 1000, NS // 1000 * 1000),
        (b"\x06", NS // 1000, NS // 1000 * 1000),
        (b"\x09", NS, NS),
        (b"\x00", 1_700_000_000, 1_700_000_000_000_000_000),
        (b"\x03", 1_700_000_000_123, 1_700_000_000_123_000_000),
        (b"\x8a", (1_700_000_000 << 10) + 512, 1_700_000_000_500_000_000),
        (b"\x9e", (1_700_000_000 << 30) + (1 << 29), 1_700_000_000_500_000_000),
        (b"\xa0", (1_700_000_000 << 32) + (1 << 31), 1_700_000_000_500_000_000),
        (b"\x0c", 1_700_000 * 10**12 + 7_001, 1_700_000 * 10**9 + 7),  # picoseconds
        (b"\x13", 10**19, 1_000_000_000),  # does not fit in 63 bits
        (b"\x7f", 1 << 63, 0),
        (b"\x00", (1 << 64) - 1, 9_000_000_000 * 10**9),  # the last time that is believed
    ],
)
@ORDERS
def test_units(
    tmp_path: Path, order: make.Order, resolution: bytes, ticks: int, expected: int
) -> None:
    options = make.option(RESOLUTION, resolution, order) if resolution else b""
    assert read_bytes(tmp_path, one_packet(options, ticks, order)).times == [expected]


@pytest.mark.parametrize(
    ("offset_s", "expected"),
    [(0, NS), (3600, NS + 3600 * 10**9), (-3600, NS - 3600 * 10**9), (-(1 << 63), 0)],
)
@ORDERS
def test_offset(tmp_path: Path, order: make.Order, offset_s: int, expected: int) -> None:
    options = make.option(RESOLUTION, b"\x09", order)
    options += make.option(OFFSET, struct.pack(order + "q", offset_s), order)
    assert read_bytes(tmp_path, one_packet(options, NS, order)).times == [expected]


def test_damaged_options_are_passed_over(tmp_path: Path) -> None:
    for options in (b"\x09\x00\xff\xff\x09", make.option(RESOLUTION, b"\x09\x09"), b"\x09\0"):
        assert read_bytes(tmp_path, one_packet(options, NS // 1000)).frames == PACKETS[:1]


def test_several_interfaces(tmp_path: Path) -> None:
    """Each with its own link type and clock; the names are kept."""
    content = (
        make.section()
        + make.interface(1, make.option(NAME, b"eth0") + make.option(RESOLUTION, b"\x09"))
        + make.interface(101)
        + make.interface(0)  # of which there is nothing
        + make.enhanced(FRAMES[0], NS)
        + make.enhanced(PACKETS[1], NS // 1000, number=1)
        + make.interface(147)
        + make.enhanced(b"whatever is in it, it is long", 1, number=3)
        + make.enhanced(FRAMES[2], NS)
    )
    found = read_bytes(tmp_path, content)
    assert found.frames == PACKETS[:3]
    assert found.times == [NS, NS // 1000 * 1000, NS]
    assert found.counts.links == {"Ethernet": 2, "raw IP": 1, "link type 147": 1}
    assert list(found.counts.skipped.values()) == [1]


def test_sections_of_both_orders(tmp_path: Path) -> None:
    """A section brings its own interfaces and byte order (files joined with cat)."""
    parts: list[make.Order] = ["<", ">", "<"]
    content = b""
    for number, order in enumerate(parts):
        content += make.section(order) + make.interface(1, order=order)
        content += make.enhanced(FRAMES[number], NS // 1000, order=order)
    assert read_bytes(tmp_path, content).frames == PACKETS[:3]
    lost = content + make.section() + make.enhanced(FRAMES[3], 1)
    found = read_bytes(tmp_path, lost)
    assert found.frames == PACKETS[:3]
    assert found.counts.skipped == {"damaged record": 1}


@ORDERS
def test_simple_and_old_packet_blocks(tmp_path: Path, order: make.Order) -> None:
    simple = struct.pack(order + "I", len(FRAMES[1])) + FRAMES[1]
    ticks = NS // 1000
    old = struct.pack(
        order + "HHIIII", 0, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(FRAMES[2]), len(FRAMES[2])
    )
    content = (
        make.section(order)
        + make.interface(1, order=order)
        + make.enhanced(FRAMES[0], ticks - 5, order=order)
        + make.block(3, simple, order)
        + make.block(2, old + FRAMES[2], order)
    )
    found = read_bytes(tmp_path, content)
    assert found.frames == PACKETS[:3]
    assert found.times == [(ticks - 5) * 1000, (ticks - 5) * 1000, ticks * 1000]


def test_simple_packets_are_cut_by_the_snap_length(tmp_path: Path) -> None:
    body = struct.pack("<I", len(FRAMES[0])) + FRAMES[0][:48]
    content = make.section() + make.interface(snaplen=48) + make.block(3, body)
    found = read_bytes(tmp_path, content)
    assert [packet[1:] for packet in found.packets] == [(PACKETS[0][: 48 - 14], len(PACKETS[0]))]
    assert (found.counts.cut, found.counts.snaplen) == (1, 48)


def test_cut_packets(tmp_path: Path) -> None:
    content = make.section() + make.interface() + make.enhanced(FRAMES[3][:50], 7, original=1514)
    found = read_bytes(tmp_path, content)
    assert found.packets[0][2] == 1500
    assert found.counts.cut == 1


def test_other_blocks_are_passed_over(tmp_path: Path) -> None:
    """Also such as are longer than any window, and options behind packets."""
    content = (
        make.section()
        + make.block(0x0BAD, bytes(3_000_000))
        + make.interface(1, make.option(1, bytes(65532)) + make.option(1, bytes(65532)))
        + make.block(5, bytes(20))
        + make.enhanced(FRAMES[0], 7, options=make.option(1, b"a comment") + bytes(4))
        + make.block(10, bytes(100_000))
        + make.enhanced(FRAMES[1], 8)
    )
    found = read_bytes(tmp_path, content)
    assert (found.frames, found.problems) == (PACKETS[:2], [])


def test_packet_longer_than_its_block(tmp_path: Path) -> None:
    """The block says where the next one begins: only this packet is lost."""
    broken = bytearray(make.enhanced(FRAMES[0], 7))
    struct.pack_into("<I", broken, 20, len(FRAMES[0]) + 8)
    content = make.section() + make.interface() + bytes(broken) + make.enhanced(FRAMES[1], 8)
    found = read_bytes(tmp_path, content)
    assert found.frames == PACKETS[1:2]
    assert found.counts.skipped == {"damaged record": 1}
    assert found.counts.packets == 2


@pytest.mark.parametrize("length", [0, 8, 11, 13, 30])
def test_block_of_an_impossible_length(tmp_path: Path, length: int) -> None:
    broken = bytearray(make.enhanced(FRAMES[1], 7))
    struct.pack_into("<I", broken, 4, length)
    content = make.pcapng(make.timed(PACKETS[:1])) + bytes(broken) + make.enhanced(FRAMES[2], 8)
    found = read_bytes(tmp_path, content)
    assert found.frames == PACKETS[:1]
    assert found.problems == [
        f"{tmp_path}/a.pcap: damaged behind packet 1 (a block of {length} bytes), 1 packet used"
    ]


def test_block_that_ends_as_another(tmp_path: Path) -> None:
    broken = make.enhanced(FRAMES[1], 7)[:-4] + b"\x01\0\0\0"
    content = make.pcapng(make.timed(PACKETS[:1])) + broken + make.enhanced(FRAMES[2], 8)
    found = read_bytes(tmp_path, content)
    assert found.frames == PACKETS[:2]
    assert len(found.problems) == 1
    assert "damaged behind packet 2" in found.problems[0]


def test_section_without_byte_order(tmp_path: Path) -> None:
    content = make.pcapng(make.timed(PACKETS[:1])) + b"\x0a\x0d\x0d\x0a" + bytes(30)
    found = read_bytes(tmp_path, content)
    assert found.frames == PACKETS[:1]
    assert "a section of no byte order" in found.problems[0]


def test_file_cut_off_anywhere(tmp_path: Path) -> None:
    content = make.pcapng(make.timed(PACKETS[:2]))
    ends = [len(make.section())]
    ends.append(ends[0] + len(make.interface()))
    for frame in FRAMES[:2]:
        ends.append(ends[-1] + len(make.enhanced(frame, 0)))
    data_ends = [ends[1] + 28 + len(FRAMES[0]), ends[2] + 28 + len(FRAMES[1])]
    for size in range(28, len(content) + 1):
        found = read_bytes(tmp_path, content[:size])
        # A packet is used when it is there, though the end of its block is not.
        whole = sum(end <= size for end in data_ends)
        assert found.frames == PACKETS[:whole], size
        assert len(found.problems) == (size not in ends), size
