"""UDP in packets: written, read back, cut into fragments and put together again."""

from __future__ import annotations

import random
import struct

import pytest

from tcpcopy.packet import flags
from tcpcopy.packet.batch import PacketBatch, PacketSink, datagram_packets
from tcpcopy.packet.reassembly import MAX_BYTES, MAX_DATAGRAMS, MAX_PIECES, TIMEOUT_NS, Reassembler
from tcpcopy.packet.segment import Segment, flow_key, parse, parse_udp, payload
from tests.lab.capture_files import ip
from tests.unit.packet.raw import DESTINATION, DESTINATION6, SOURCE, SOURCE6

SIZES = (0, 1, 7, 8, 1471, 1472, 1473, 1452, 1453, 1480, 2952, 9000, 65507)


def packets(data: bytes, *, v6: bool = False, mtu: int = 1500, number: int = 0) -> list[bytes]:
    """The packets of one datagram; `number` were written before it."""
    batch = PacketBatch(PacketSink(), 128, mtu)
    batch.datagrams = number
    source, destination = (SOURCE6, DESTINATION6) if v6 else (SOURCE, DESTINATION)
    buffer = b"before" + data + b"behind"
    count = batch.udp(source, 40000, destination, 53, buffer, 6, len(data), mtu)
    assert count == batch.count == datagram_packets(len(source), len(data), mtu)
    return [batch.packet(index) for index in range(count)]


def sum_of(data: bytes) -> int:
    """RFC 1071; 0xFFFF where everything with its checksum is right."""
    total: int = sum(word for (word,) in struct.iter_unpack("!H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def check_sum(packet: bytes) -> None:
    """The checksum of a whole datagram is there and right."""
    if packet[0] >> 4 == 4:
        udp, addresses = packet[20:], packet[12:20]
        assert sum_of(packet[:20]) == 0xFFFF
    else:
        udp, addresses = packet[40:], packet[8:40]
    assert udp[6:8] != b"\0\0"
    pseudo = addresses + struct.pack("!II", len(udp), 17)
    assert sum_of(pseudo + udp) == 0xFFFF


def joined(parts: list[bytes]) -> bytes:
    """What a reassembler makes of them, or the only one."""
    if len(parts) == 1:
        return parts[0]
    held = Reassembler((17,))
    for part in parts[:-1]:
        assert held.add(part, 0, len(part), 0) is None
    whole = held.add(parts[-1], 0, len(parts[-1]), 0)
    assert whole is not None and len(held) == 0 and held.held_bytes == 0
    assert held.joined == len(parts)
    return whole


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("mtu", [576, 1500, 9000])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_read(size: int, mtu: int, v6: bool) -> None:
    data = random.Random(size).randbytes(size)
    parts = packets(data, v6=v6, mtu=mtu)
    assert all(len(part) <= mtu for part in parts)
    whole = joined(parts)
    segment = Segment()
    assert parse_udp(segment, whole, 0, len(whole), len(whole)) == flags.PARSED
    assert (segment.source_port, segment.destination_port) == (40000, 53)
    assert segment.payload_length == segment.available == size
    assert payload(segment, whole, 0) == data
    ends = (SOURCE6 + DESTINATION6) if v6 else (SOURCE + DESTINATION)
    assert flow_key(segment, whole) == ends + struct.pack("!HH", 40000, 53)
    if len(parts) == 1 or v6:
        check_sum(whole)


def test_checksum_of_zero_goes_as_ones() -> None:
    """RFC 768: 0 would mean that there is none."""
    found = False
    for number in range(0x10000):
        packet = packets(struct.pack("!H", number))[0]
        if packet[26:28] == b"\xff\xff":
            found = True
            break
        assert packet[26:28] != b"\0\0"
    assert found


def test_identification_is_never_zero() -> None:
    """The kernel would fill in another one for each fragment."""
    numbers = {part[4:6] for part in packets(bytes(5000), number=0xFFFF)}
    assert numbers == {b"\0\1"}


def test_only_the_last_fragment_has_no_more_behind_it() -> None:
    parts = packets(bytes(5000))
    fields = [int.from_bytes(part[6:8], "big") for part in parts]
    assert [bool(field & 0x2000) for field in fields] == [True] * (len(parts) - 1) + [False]
    assert [field & 0x1FFF for field in fields] == [185 * index for index in range(len(parts))]


@pytest.mark.parametrize("v6", [False, True])
def test_another_protocol_is_told(v6: bool) -> None:
    packet = packets(bytes(40), v6=v6)[0]
    segment = Segment()
    assert parse(segment, packet, 0, len(packet), len(packet)) == flags.NOT_TCP
    tcp = bytearray(packet)
    tcp[6 if v6 else 9] = 6
    assert parse_udp(segment, bytes(tcp), 0, len(tcp), len(tcp)) == flags.NOT_TCP


def test_damaged_headers() -> None:
    segment = Segment()
    packet = packets(b"12345678")[0]

    def read(data: bytes, end: int = 0) -> int:
        return parse_udp(segment, data, 0, end or len(data), len(data))

    assert read(packet, 27) == flags.SHORT
    for length in (7, 17, 0xFFFF):
        wrong = packet[:24] + length.to_bytes(2, "big") + packet[26:]
        assert read(wrong) == flags.BAD_HEADER, length
    assert read(packet[:24] + b"\0\x0c" + packet[26:]) == flags.PARSED
    assert (segment.payload_length, segment.available) == (4, 4), "padding is no payload"
    assert read(packet, 30) == flags.PARSED
    assert (segment.payload_length, segment.available) == (8, 2), "cut by the capture"


# --- fragments ----------------------------------------------------------------------------


def feed(held: Reassembler, parts: list[bytes], now_ns: int = 0) -> bytes | None:
    found = None
    for part in parts:
        found = held.add(part, 0, len(part), now_ns) or found
    return found


@pytest.mark.parametrize("v6", [False, True])
def test_any_order_and_doubled(v6: bool) -> None:
    data = random.Random(1).randbytes(20000)
    for seed in range(20):
        parts = packets(data, v6=v6) * 2
        random.Random(seed).shuffle(parts)
        held = Reassembler((17,))
        whole = feed(held, parts)
        assert whole is not None and whole.endswith(data)


def test_two_datagrams_between_each_other() -> None:
    first, second = packets(b"a" * 3000, number=1), packets(b"b" * 3000, number=2)
    held = Reassembler((17,))
    mixed = [part for pair in zip(first, second, strict=True) for part in pair]
    found = [held.add(part, 0, len(part), 0) for part in mixed]
    assert [whole[-1:] for whole in found if whole] == [b"a", b"b"]


def test_overlap_gives_it_up() -> None:
    """RFC 5722: what one part says and another says otherwise is nobody's datagram."""
    parts = packets(bytes(3000))
    evil = bytearray(parts[1])
    evil[6:8] = (0x2000 | 184).to_bytes(2, "big")
    held = Reassembler((17,))
    assert feed(held, [parts[0], bytes(evil)]) is None
    assert (held.incomplete, held.alone, len(held), held.held_bytes) == (2, 0, 0, 0)


def test_what_waits_too_long_is_given_up() -> None:
    first, *_, last = packets(bytes(5000))
    held = Reassembler((17,))
    feed(held, [first])
    held.expire(TIMEOUT_NS - 1)
    assert len(held) == 1
    held.expire(TIMEOUT_NS)
    assert (held.incomplete, held.alone, len(held)) == (1, 0, 0)
    feed(held, [last])
    held.give_up_all()
    assert (held.incomplete, held.alone, held.held_bytes) == (1, 1, 0)


def test_memory_is_bounded() -> None:
    held = Reassembler((17,))
    for number in range(3 * MAX_DATAGRAMS):
        first = packets(bytes(5000), number=number)[0]
        held.add(first, 0, len(first), number)
        assert len(held) <= MAX_DATAGRAMS
        assert held.held_bytes <= MAX_BYTES + 65535
    assert held.incomplete + len(held) == 3 * MAX_DATAGRAMS


def test_pieces_of_a_datagram_are_bounded() -> None:
    """Tiny ones take time and memory in proportion to their number."""
    held = Reassembler((17,))
    for number in range(64):
        for at in range(MAX_PIECES + 1):
            part = ip("10.0.0.1", "10.0.0.2", 17, bytes(8), fragment=0x2000 | at)
            part = part[:4] + number.to_bytes(2, "big") + part[6:]
            held.add(part, 0, len(part), 0)
            assert held.held_bytes <= MAX_BYTES + 65535
        assert len(held) == 0 and held.held_bytes == 0
    assert held.incomplete == 64 * (MAX_PIECES + 1)


def test_no_fragment_of_udp() -> None:
    """TCP in fragments, or what the capture cut, is no part of a datagram."""
    part = bytearray(packets(bytes(5000))[1])
    part[9] = 6
    held = Reassembler((17,))
    assert held.add(bytes(part), 0, len(part), 0) is None
    part[9] = 17
    assert held.add(bytes(part), 0, 100, 0) is None
    assert (held.alone, len(held)) == (2, 0)
