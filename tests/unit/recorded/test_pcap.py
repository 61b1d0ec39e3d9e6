"""The pcap format: byte orders, units of time, cut packets, damage."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.lab import capture_files as make
from tests.lab.encapsulations import fragments
from tests.unit.recorded.reading import read, read_bytes

NS = 1_700_000_000_123_456_789
PACKETS = make.conversation()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_orders_and_units(tmp_path: Path, order: make.Order, nano: bool) -> None:
    packets = make.timed(PACKETS, start_ns=NS)
    found = read_bytes(tmp_path, make.pcap(packets, order=order, nano=nano))
    assert found.frames == PACKETS
    unit = 1 if nano else 1000
    assert found.times == [time_ns // unit * unit for time_ns, _ in packets]
    assert (found.counts.packets, found.counts.handed_on, found.counts.cut) == (8, 8, 0)
    assert found.problems == []


def test_cut_packets_keep_their_length(tmp_path: Path) -> None:
    packet = make.tcp("198.51.100.7:40000", "10.0.0.1:80", make.ACK, bytes(500))
    found = read_bytes(tmp_path, make.pcap([(NS, make.ethernet(packet))], snaplen=96))
    assert found.packets == [(NS // 1000 * 1000, packet[: 96 - 14], len(packet))]
    assert (found.counts.cut, found.counts.snaplen) == (1, 96)


def test_length_on_the_wire_is_never_below_the_captured(tmp_path: Path) -> None:
    content = bytearray(make.pcap(make.timed(PACKETS[:1])))
    struct.pack_into("<I", content, 24 + 12, 0)
    found = read_bytes(tmp_path, bytes(content))
    assert found.packets[0][1:] == (PACKETS[0], len(PACKETS[0]))


def test_what_carries_no_ip_is_counted(tmp_path: Path) -> None:
    frames = [
        make.ethernet(bytes(28), kind=0x0806),
        make.ethernet(PACKETS[0])[:30],
        b"",
        make.ethernet(PACKETS[1]),
    ]
    found = read_bytes(tmp_path, make.pcap(enumerate(frames)))
    assert found.frames == [PACKETS[1]]
    assert found.counts.skipped == {"not IP": 1, "too short for an IP header": 2}
    assert found.counts.packets == 4


def test_unknown_link_type(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, make.pcap(make.timed(PACKETS), link=147))
    assert found.frames == []
    assert found.counts.skipped == {"link type that cannot be read (link type 147)": 8}


def test_frame_check_length_beside_the_link_type(tmp_path: Path) -> None:
    """The upper half of the field says whether frames end with a check sequence."""
    found = read_bytes(tmp_path, make.pcap(make.timed(PACKETS), link=0x2400_0001))
    assert found.frames == PACKETS


def test_fragments_of_tcp_are_put_together(tmp_path: Path) -> None:
    packet = make.tcp("192.0.2.1:5", "192.0.2.2:80", make.ACK, bytes(range(200)))
    parts = fragments(packet, 80, 1)
    read = read_bytes(tmp_path, make.pcap(make.timed([*parts, parts[0]])))
    assert read.frames == [packet]
    counts = read.counts
    assert (counts.packets, counts.handed_on) == (4, 4)
    assert (counts.fragments, counts.joined, counts.lost_fragments) == (4, 1, 1)


def test_fragments_of_udp_are_handed_on(tmp_path: Path) -> None:
    packet = make.ip("192.0.2.1", "192.0.2.2", 17, bytes(64), fragment=0x2000)
    assert read_bytes(tmp_path, make.pcap(make.timed([packet]))).frames == [packet]


def test_fragments_in_two_files(tmp_path: Path) -> None:
    """As when a rotated capture was cut between them."""
    packet = make.tcp("192.0.2.1:5", "192.0.2.2:80", make.ACK, bytes(range(200)))
    (tmp_path / "a").write_bytes(make.pcap(make.timed(fragments(packet, 80, 1)[:1])))
    rest = [(NS + 5 * 10**9, make.ethernet(part)) for part in fragments(packet, 80, 1)[1:]]
    (tmp_path / "b").write_bytes(make.pcap(rest))
    found = read(tmp_path / "a", tmp_path / "b")
    assert found.frames == [packet] and found.counts.lost_fragments == 0


def test_swapped_lengths_of_old_versions(tmp_path: Path) -> None:
    content = bytearray(make.pcap([(NS, make.ethernet(PACKETS[0]))], snaplen=40))
    struct.pack_into("<HH", content, 4, 2, 2)
    included, original = struct.unpack_from("<II", content, 24 + 8)
    struct.pack_into("<II", content, 24 + 8, original, included)
    found = read_bytes(tmp_path, bytes(content))
    assert found.packets[0][1:] == (PACKETS[0][: 40 - 14], len(PACKETS[0]))


def test_modified_pcap_of_old_linux(tmp_path: Path) -> None:
    """8 more bytes in front of each packet (libpcap: KUZNETZOV_TCPDUMP_MAGIC)."""
    content = struct.pack("<IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    for packet in PACKETS:
        frame = make.ethernet(packet)
        content += struct.pack("<IIII", 1, 2, len(frame), len(frame)) + bytes(8) + frame
    assert read_bytes(tmp_path, content).frames == PACKETS


def test_file_cut_off_anywhere(tmp_path: Path) -> None:
    """What is whole is used, and the problem says how much that was."""
    content = make.pcap(make.timed(PACKETS[:3]))
    ends = [24]
    for packet in PACKETS[:3]:
        ends.append(ends[-1] + 16 + 14 + len(packet))
    for size in range(24, len(content)):
        found = read_bytes(tmp_path, content[:size])
        whole = sum(end <= size for end in ends) - 1
        assert found.frames == PACKETS[:whole]
        used = f"{whole} packet{'' if whole == 1 else 's'} used"
        path = tmp_path / "a.pcap"
        expected = [] if size in ends else [f"{path}: cut off in packet {whole + 1}, {used}"]
        assert found.problems == expected


def test_length_that_cannot_be(tmp_path: Path) -> None:
    content = make.pcap(make.timed(PACKETS[:2])) + struct.pack("<IIII", 1, 2, 1 << 31, 60)
    found = read_bytes(tmp_path, content + bytes(1000))
    assert found.frames == PACKETS[:2]
    assert found.problems == [
        f"{tmp_path}/a.pcap: damaged in packet 3 (a length of 2147483648), 2 packets used"
    ]


def test_packets_larger_than_the_window(tmp_path: Path) -> None:
    """The window grows for them, up to the longest record believed."""
    large = make.ip("192.0.2.1", "192.0.2.2", 6, bytes(60_000)) + bytes(900_000)
    frames = [PACKETS[0], large, PACKETS[1]]
    found = read_bytes(tmp_path, make.pcap(make.timed(frames), snaplen=1 << 20))
    assert found.frames == frames


def test_many_packets_across_window_ends(tmp_path: Path) -> None:
    """Records that begin in one window and end in the next."""
    frames = [
        make.tcp("198.51.100.7:40000", "10.0.0.1:80", make.ACK, bytes(i % 1460), seq=i)
        for i in range(1500)
    ]
    found = read_bytes(tmp_path, make.pcap(make.timed(frames)))
    assert found.frames == frames


def test_file_without_packets(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, make.pcap([]))
    assert (found.packets, found.problems, found.counts.first_ns) == ([], [], -1)
