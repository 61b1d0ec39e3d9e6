"""Capture files under Hypothesis: nothing in a file can hurt, what is written is read."""

from __future__ import annotations

import gzip
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from tcpcopy.errors import UsageError
from tcpcopy.packet import frame as found_in
from tcpcopy.packet import links
from tcpcopy.packet.frame import Frame
from tcpcopy.packet.unwrap import Unwrapper
from tcpcopy.recorded import guess
from tcpcopy.recorded import inspect as report
from tcpcopy.recorded.flows import FlowTable
from tcpcopy.recorded.stream import open_recorded
from tests.lab import capture_files as make
from tests.lab.encapsulations import LINKS as LINK_FRAMES
from tests.lab.encapsulations import TUNNELS
from tests.unit.recorded.reading import drain

LINKS = tuple(links.LINK_NAMES)
FRAMES = LINK_FRAMES | TUNNELS
PACKETS = [
    *make.conversation(),
    make.udp("10.0.0.1:53", "10.0.0.2:5000", b"answer"),
    make.tcp("[2001:db8::7]:40000", "[2001:db8::1]:80", make.ACK, b"data"),
    make.vxlan(make.ethernet(make.conversation()[3], 0x8100)),
    make.gre(make.conversation()[3], 0x0800, key=True, sequence=True),
    make.ip("192.0.2.1", "192.0.2.2", 4, make.conversation()[3]),
    make.ip("192.0.2.1", "192.0.2.2", 6, bytes(40), fragment=0x2000),
]
ODD = make.section(">") + make.interface(1, make.option(9, b"\xa0", ">"), ">")
ODD += make.enhanced(make.ethernet(PACKETS[3]), 7 << 32, order=">")
VALID = [
    make.pcap(make.timed(PACKETS)),
    make.pcap(make.timed(PACKETS), order=">", nano=True),
    make.pcapng(make.timed(PACKETS)),
    make.pcapng(make.timed(PACKETS[:3])) + make.block(11, bytes(100)) + ODD,
]
NUMBERS = st.one_of(
    st.integers(0, 0xFFFFFFFF), st.sampled_from((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 12, 28, 32))
)


def read_all(content: bytes, *, times: int = 1) -> None:
    """Read and inspect it; whatever it is, the counts add up and the report can be made."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "a"))
        Path(path).write_bytes(content)
        try:
            stream = open_recorded([path])
        except UsageError as error:
            assert "\n" not in str(error)
            return
        for _ in range(times):
            for time_ns, packet, wire_length in drain(stream):
                assert time_ns >= 0
                assert 20 <= len(packet) <= wire_length
            stream.rewind()
        findings = report.inspect(stream, [path])
        counts = stream.counts
        assert counts.packets == counts.handed_on + sum(counts.skipped.values())
        assert len(stream.problems) <= 1
        stream.close()
        assert report.render(findings).endswith("\n")
        json.dumps(report.to_json(findings))


@given(st.binary(max_size=400))
@example(b"")
def test_random_files(content: bytes) -> None:
    read_all(content)
    for head in (VALID[0][:24], VALID[1][:24], make.section() + make.interface()):
        read_all(head + content)
        read_all(gzip.compress(head + content))
    read_all(b"\x1f\x8b" + content)
    read_all(b"\x28\xb5\x2f\xfd" + content)


@given(st.sampled_from(VALID), st.data())
def test_mutated_files(content: bytes, data: st.DataObject) -> None:
    """Bytes and whole fields changed, pieces cut out, doubled and cut off."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(changed) - 4)))
        kind = data.draw(st.integers(0, 4))
        if kind == 0 and len(changed) >= at + 4:
            struct.pack_into(
                data.draw(st.sampled_from("<>")) + "I", changed, at, data.draw(NUMBERS)
            )
        elif kind == 1:
            changed[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
        elif kind == 2:
            del changed[at : at + data.draw(st.integers(0, 40))]
        elif kind == 3:
            changed[at:at] = changed[at : at + data.draw(st.integers(0, 200))]
        else:
            del changed[len(changed) - data.draw(st.integers(0, 100)) :]
    read_all(bytes(changed), times=2)


@given(st.sampled_from(VALID), st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_damaged_compressed_files(content: bytes, at: int, damage: bytes) -> None:
    compress: list[Callable[[bytes], bytes]] = [
        gzip.compress,
        zstandard.ZstdCompressor(write_checksum=True).compress,
    ]
    for pack in compress:
        packed = bytearray(pack(content))
        place = at % len(packed)
        read_all(bytes(packed[:place]))
        packed[place : place + len(damage)] = damage
        read_all(bytes(packed))


@given(st.binary(max_size=120), st.sampled_from(LINKS), st.integers(0, 8))
def test_random_frames(frame: bytes, link_type: int, before: int) -> None:
    """The header found lies within the frame, with 20 bytes of it."""
    data = b"\x45" * before + frame + b"\x45" * 40
    end = before + len(frame)
    account = Frame()
    start = links.network_offset(data, before, end, link_type, account)
    if start < 0:
        assert start in (found_in.NOT_IP, found_in.SHORT, found_in.UNKNOWN_LINK)
    else:
        assert before <= start <= end - 20
        assert data[start] >> 4 in (4, 6)
        check_unwrapped(data, start, end)


def check_unwrapped(data: bytes, start: int, end: int, extra: int = 0) -> None:
    """Whatever is found in an IP packet lies within its captured bytes, and is one."""
    found = Unwrapper(True)
    found.begin(0)
    if found.take(data, start, end, end - start + extra, 0):
        assert found.whole is None
        assert start <= found.start <= found.end <= end
        assert found.end - found.start <= found.wire_length
        assert found.start == start or found.end - found.start >= 20
        assert found.start == start or data[found.start] >> 4 in (4, 6)
    else:
        assert found.fragments == 1
    assert sum(found.unread) <= 1


@given(st.sampled_from(sorted(FRAMES)), st.booleans(), st.data())
def test_mutated_encapsulations(name: str, is_v6: bool, data: st.DataObject) -> None:
    """Any bytes changed, any part missing: the same holds, and it is the same each time."""
    link_type, make_frame = FRAMES[name]
    packet = PACKETS[9] if is_v6 else PACKETS[3]
    frame = bytearray(make_frame(packet))
    for _ in range(data.draw(st.integers(0, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(frame)))
    found = [
        links.network_offset(bytes(frame[:end]) + bytes([filler]) * 80, 0, end, link_type, Frame())
        for filler in (0, 0x45, 0xFF)  # what stands behind the captured bytes is never looked at
    ]
    assert len(set(found)) == 1
    if found[0] >= 0:
        results = set()
        for filler in (0, 0x45, 0xFF):
            filled = bytes(frame[:end]) + bytes([filler]) * 80
            check_unwrapped(filled, found[0], end, len(frame) - end)
            reader = Unwrapper(True)
            reader.take(filled, found[0], end, len(frame) - found[0], 0)
            results.add((reader.start, reader.end, reader.wire_length, tuple(reader.unread)))
        assert len(results) == 1


@given(st.sampled_from(PACKETS), st.data())
def test_mutated_tunnels(packet: bytes, data: st.DataObject) -> None:
    changed = bytearray(packet)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(changed)))
    check_unwrapped(bytes(changed), 0, end)


@given(st.lists(st.tuples(st.sampled_from(PACKETS), st.data()), max_size=12))
def test_flows_of_anything(drawn: list[tuple[bytes, st.DataObject]]) -> None:
    """Each packet is counted once, each flow given once."""
    given_up = []
    table = FlowTable(lambda key, flow: given_up.append(flow), 1000)
    for number, (packet, data) in enumerate(drawn):
        changed = bytearray(packet)
        if data.draw(st.booleans()):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        end = data.draw(st.integers(0, len(changed)))
        table.packet(bytes(changed), 0, end, len(changed), number)
    table.finish()
    followed = sum(flow.low.packets + flow.high.packets for flow in given_up)
    assert followed == table.tcp_packets + table.udp_packets
    assert followed + table.other + table.bad + table.fragments == len(drawn)
    for flow in given_up:
        for side in (flow.low, flow.high):
            side.misses_bytes()
            assert side.bytes >= 0


@given(st.binary(max_size=guess.FIRST_BYTES), st.integers(0, 70_000), st.integers(0, 65535))
def test_guesses_of_anything(first: bytes, size: int, port: int) -> None:
    assert guess.NAMES[guess.by_stream(first, size)]
    assert guess.NAMES[guess.by_datagram(first, size, port)]


TIMES = st.lists(st.integers(0, 4_000_000_000 * 10**9), max_size=12)


@given(TIMES, st.sampled_from("<>"), st.booleans(), st.integers(40, 2000))
def test_what_is_written_is_read(
    times: list[int], order: make.Order, nano: bool, snaplen: int
) -> None:
    frames = [(t, make.ethernet(PACKETS[i % len(PACKETS[:8])])) for i, t in enumerate(times)]
    content = make.pcap(frames, order=order, nano=nano, snaplen=snaplen)
    unit = 1 if nano else 1000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        path.write_bytes(content)
        stream = open_recorded([str(path)])
        found = drain(stream)
        stream.close()
    assert found == [(t // unit * unit, frame[14:snaplen], len(frame) - 14) for t, frame in frames]


@given(st.lists(st.lists(st.integers(1, 60), max_size=8), min_size=1, max_size=6))
def test_merged_files(times_of_files: list[list[int]]) -> None:
    """Sorted files come out sorted, everything once."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, times in enumerate(times_of_files):
            frames = [(t * 10**9, make.ethernet(PACKETS[0])) for t in sorted(times)]
            paths.append(str(Path(folder, f"{number}")))
            Path(paths[-1]).write_bytes(make.pcap(frames))
        stream = open_recorded(paths)
        found = [t // 10**9 for t, _, _ in drain(stream)]
        stream.close()
    assert found == sorted(t for times in times_of_files for t in times)
