"""The relay conversation of the C programs: what they said is read, and said the same by us.

`classic-relay.pcap` was taken on the assistant: the target's answers (10.20.0.3:8080) and the
relay connections (10.20.0.2 to 10.20.0.4:36524) that carried them back. `classic-online.pcap`
holds the client packets that started it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay.classic import (
    DEFAULT_PORT,
    Layout,
    MessageDecoder,
    MessageType,
    encode_message,
    encode_version,
)
from tcpcopy.relay.records import RecordDecoder, RecordWriter

HERE = Path(__file__).parent
TARGET = bytes([10, 20, 0, 3])
ETHERNET_BYTES = 14


class Segment(NamedTuple):
    """One captured segment."""

    ip: bytes  # the packet from its IPv4 header on
    flow: tuple[bytes, int, bytes, int]
    seq: int
    payload: bytes


class Collector(PacketHandler):
    """Keeps what a decoder hands on: header bytes and wire length."""

    def __init__(self) -> None:
        self.packets: list[tuple[bytes, int]] = []

    def packet(
        self, data: object, start: int, end: int, wire_length: int, timestamp_ns: int
    ) -> int:
        self.packets.append((bytes(memoryview(data)[start:end]), wire_length))  # type: ignore[arg-type]
        return 0


def segments(name: str) -> Iterator[Segment]:
    """The IPv4 TCP segments of an Ethernet pcap file in the order captured."""
    data = (HERE / name).read_bytes()
    magic, _, _, _, _, _, link_type = struct.unpack_from("<IHHiIII", data)
    assert magic in (0xA1B2C3D4, 0xA1B23C4D) and link_type == 1
    position = 24
    while position < len(data):
        captured = struct.unpack_from("<8xI4x", data, position)[0]
        frame = data[position + 16 : position + 16 + captured]
        position += 16 + captured
        ip = frame[ETHERNET_BYTES:]
        total = struct.unpack_from("!H", ip, 2)[0]
        network = (ip[0] & 15) * 4
        source, destination, seq = struct.unpack_from("!HHI", ip, network)
        transport = (ip[network + 12] >> 4) * 4
        yield Segment(
            ip,
            (ip[12:16], source, ip[16:20], destination),
            seq,
            ip[network + transport : total],
        )


def streams(to_intercept: bool) -> dict[int, list[bytes]]:
    """The payloads of each relay connection in one direction, by tcpcopy's port."""
    found: dict[int, list[bytes]] = {}
    for segment in segments("classic-relay.pcap"):
        _, source, _, destination = segment.flow
        near, far = (source, destination) if to_intercept else (destination, source)
        if far == DEFAULT_PORT and segment.payload:
            found.setdefault(near, []).append(segment.payload)
    return found


def answers() -> list[Segment]:
    """What the target sent to the mapped clients."""
    return [s for s in segments("classic-relay.pcap") if s.flow[:2] == (TARGET, 8080)]


def c_records() -> list[bytes]:
    """Every 64-byte record that the C intercept sent, cut by hand."""
    found = []
    for stream in streams(to_intercept=False).values():
        data = b"".join(stream)
        while data:
            count = struct.unpack_from("!H", data)[0]
            found += [data[2 + 64 * i : 66 + 64 * i] for i in range(count)]
            data = data[2 + 64 * count :]
    return found


def test_the_file_holds_what_the_tests_need() -> None:
    """Guards the other tests against an empty or cut file."""
    assert len(streams(to_intercept=True)) == 2
    assert len(answers()) == len(c_records()) == 18


def test_messages_of_the_c_tcpcopy_are_read_and_made_the_same() -> None:
    """Version first, then one ADD for each of the four sessions, in turn over two connections."""
    messages = []
    for stream in streams(to_intercept=True).values():
        decoder = MessageDecoder()
        data = b"".join(stream)
        ours = decoder.feed(data)
        assert decoder.version == 6 and not decoder.fault
        assert data == encode_version() + ours
        messages += [ours[:14], ours[14:]]
    client = answers()[0].flow[2]
    ports = {segment.flow[3] for segment in answers()}
    assert set(messages) == {
        encode_message(MessageType.ADD, client, port, TARGET, 8080) for port in ports
    }


@pytest.mark.parametrize("layout", [Layout.AUTO, Layout.BATCHED])
@pytest.mark.parametrize("cut", [None, 1, 7])
def test_records_of_the_c_intercept_are_read(layout: Layout, cut: int | None) -> None:
    """Every answer comes out once with its own headers and lengths, however the bytes come."""
    collector = Collector()
    for payloads in streams(to_intercept=False).values():
        decoder = RecordDecoder(collector, layout)
        if cut is not None:
            data = b"".join(payloads)
            payloads = [data[i : i + cut] for i in range(0, len(data), cut)]
        for payload in payloads:
            decoder.feed(payload, 0)
        assert decoder.layout is Layout.BATCHED
        assert (decoder.fault, decoder.malformed) == (0, 0)
    expected = []
    for segment in answers():
        headers = 20 + (segment.ip[32] >> 4) * 4
        expected.append((segment.ip[:headers], headers + len(segment.payload)))
    assert sorted(collector.packets) == sorted(expected)


def test_our_records_are_those_of_the_c_intercept() -> None:
    """The same answers, packed by us, are byte for byte the C program's records."""
    writer = RecordWriter(batch_records=1)
    for segment in answers():
        assert writer.append(segment.ip, 0, len(segment.ip))
    data = bytes(writer.pending())
    ours = [data[at : at + 66] for at in range(0, len(data), 66)]
    assert {record[:2] for record in ours} == {b"\x00\x01"}
    assert sorted(record[2:] for record in ours) == sorted(c_records())


def test_answers_go_to_the_sessions_that_were_captured_online() -> None:
    """The mapped ports are the clients' own: what online saw and what came back fit together."""
    clients = {s.flow[1] for s in segments("classic-online.pcap") if s.flow[3] == 8080}
    assert {segment.flow[3] for segment in answers()} == clients
