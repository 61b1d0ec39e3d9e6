"""Building: packets byte for byte, checksums by another's sums, and when a batch flushes."""

from __future__ import annotations

import struct

import pytest

from tcpcopy.packet.batch import PacketBatch, PacketSink, checksum_add, checksum_fold
from tests.sim.model import wire
from tests.unit.packet.raw import DESTINATION, DESTINATION6, SOURCE, SOURCE6


class Collector(PacketSink):
    """Keeps each flush as a list of packets."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []

    def send_batch(self, batch: PacketBatch) -> None:
        self.batches.append([batch.packet(index) for index in range(batch.count)])


def build(
    batch: PacketBatch,
    *,
    v6: bool = False,
    seq: int = 1,
    ack: int = 2,
    flags: int = 0x18,
    window: int = 3,
    timestamp: tuple[int, int] | None = None,
    options: bytes = b"",
    payload: bytes = b"",
    at: int = 0,
    length: int | None = None,
) -> None:
    """One packet into the batch; all but the named fields are usual ones."""
    source, destination = (SOURCE6, DESTINATION6) if v6 else (SOURCE, DESTINATION)
    value, echo = timestamp or (0, 0)
    size = len(payload) - at if length is None else length
    batch.tcp(
        source,
        1234,
        destination,
        80,
        seq,
        ack,
        flags,
        window,
        timestamp is not None,
        value,
        echo,
        options,
        payload,
        at,
        size,
    )


def built(**fields: object) -> bytes:
    """A packet on its own."""
    batch = PacketBatch(Collector())
    build(batch, **fields)  # type: ignore[arg-type]
    return batch.packet(0)


def sum_of(data: bytes) -> int:
    """RFC 1071, word by word as the RFC writes it."""
    total = 0
    for (word,) in struct.iter_unpack("!H", data + bytes(len(data) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


# --- bytes ---------------------------------------------------------------------------------


def test_ipv4_packet_byte_for_byte() -> None:
    packet = built(seq=0x01020304, ack=0xF1F2F3F4, flags=0x18, window=0xABCD, payload=b"hi!")
    head = bytes.fromhex("4500002b 00014000 4006")
    addresses = SOURCE + DESTINATION
    checksum = 0xFFFF - sum_of(head + addresses)
    network = head + checksum.to_bytes(2, "big") + addresses
    ports = bytes.fromhex("04d20050 01020304 f1f2f3f4 5018abcd")
    pseudo = addresses + bytes.fromhex("00060017")
    tcp = 0xFFFF - sum_of(pseudo + ports + bytes(4) + b"hi!")
    assert packet == network + ports + tcp.to_bytes(2, "big") + b"\0\0hi!"


def test_ipv6_packet_byte_for_byte() -> None:
    packet = built(v6=True, seq=0x01020304, ack=0xF1F2F3F4, flags=2, window=1, payload=b"hi!")
    head = bytes.fromhex("60000000 0017 06 40") + SOURCE6 + DESTINATION6
    ports = bytes.fromhex("04d20050 01020304 f1f2f3f4 50020001")
    pseudo = SOURCE6 + DESTINATION6 + bytes.fromhex("00000017 00000006")
    tcp = 0xFFFF - sum_of(pseudo + ports + bytes(4) + b"hi!")
    assert packet == head + ports + tcp.to_bytes(2, "big") + b"\0\0hi!"


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("options", [b"", b"\x02\x04\x05\xb4", b"\x01" * 24, b"\x01" * 28])
@pytest.mark.parametrize("timestamp", [None, (0, 0), (0xFFFFFFFF, 0x80000001)])
def test_fields_come_back(timestamp: tuple[int, int] | None, options: bytes, v6: bool) -> None:
    packet = built(
        v6=v6,
        seq=0xFFFFFFFF,
        ack=0x80000000,
        flags=0x11,
        window=65535,
        timestamp=timestamp,
        options=options,
        payload=b"payload",
    )
    segment = wire.decode(packet)
    assert segment.key == (
        (SOURCE6, 1234, DESTINATION6, 80) if v6 else (SOURCE, 1234, DESTINATION, 80)
    )
    assert (segment.seq, segment.ack) == (0xFFFFFFFF, 0x80000000)
    assert (segment.flags, segment.window) == (0x11, 65535)
    assert segment.timestamp == timestamp
    assert segment.payload == b"payload"
    assert segment.options_length == len(options) + 12 * (timestamp is not None)
    start = (40 if v6 else 20) + 20
    if timestamp is not None:
        assert packet[start : start + 4] == b"\x01\x01\x08\x0a"
        start += 12
    assert packet[start : start + len(options)] == options


def test_sequence_numbers_are_cut_to_32_bits() -> None:
    segment = wire.decode(built(seq=0x1_0000_0005, ack=-1))
    assert (segment.seq, segment.ack) == (5, 0xFFFFFFFF)


@pytest.mark.parametrize("v6", [False, True])
def test_checksums_of_all_lengths(v6: bool) -> None:
    """`wire.decode` verifies both sums; bytes of ones and zeros reach every carry."""
    batch = PacketBatch(Collector(), capacity=1)
    data = bytes(255 - index % 3 * 127 for index in range(1460))
    for length in [*range(70), 127, 128, 129, 1023, 1439, 1440, *((1459, 1460) if not v6 else ())]:
        batch.count = 0
        build(batch, v6=v6, payload=data, length=length)
        assert wire.decode(batch.packet(0)).payload == data[:length]


@pytest.mark.parametrize("at", range(9))
def test_payload_from_any_place(at: int) -> None:
    data = bytes(range(1, 30))
    for length in range(len(data) - at):
        packet = built(payload=data, at=at, length=length)
        assert wire.decode(packet).payload == data[at : at + length]


@pytest.mark.parametrize("fill", [b"\x00", b"\xff"])
def test_sums_that_are_all_ones_or_zeros(fill: bytes) -> None:
    for length in (0, 1, 2, 3, 1000, 1001):
        wire.decode(built(payload=fill * length))
        wire.decode(built(v6=True, payload=fill * length))


def test_identification_counts_and_wraps() -> None:
    batch = PacketBatch(Collector())
    batch.identification = 0xFFFF
    for _ in range(3):
        build(batch)
    numbers = [int.from_bytes(batch.packet(index)[4:6], "big") for index in range(3)]
    assert numbers == [0xFFFF, 0, 1]
    for index in range(3):
        wire.decode(batch.packet(index))


def test_ipv6_has_no_identification() -> None:
    batch = PacketBatch(Collector())
    build(batch, v6=True)
    assert batch.identification == 1


def test_packets_are_not_fragmented() -> None:
    assert built()[6:8] == b"\x40\x00"


# --- batches -------------------------------------------------------------------------------


def test_packets_stand_side_by_side() -> None:
    batch = PacketBatch(Collector(), capacity=4)
    texts = [b"first", b"", b"the third is longer"]
    for text in texts:
        build(batch, payload=text)
    assert batch.count == 3
    assert [wire.decode(batch.packet(index)).payload for index in range(3)] == texts
    for index in range(3):
        at = index * batch.slot_size
        packet = batch.packet(index)
        assert bytes(batch.buffer[at : at + len(packet)]) == packet


def test_full_batch_flushes_before_the_next_packet() -> None:
    sink = Collector()
    batch = PacketBatch(sink, capacity=3)
    for number in range(3):
        build(batch, seq=number)
    assert sink.batches == []
    build(batch, seq=3)
    assert [len(packets) for packets in sink.batches] == [3]
    assert batch.count == 1
    build(batch, seq=4)
    batch.flush()
    sent = [wire.decode(packet).seq for packets in sink.batches for packet in packets]
    assert sent == [0, 1, 2, 3, 4]


def test_empty_batch_does_not_flush() -> None:
    sink = Collector()
    batch = PacketBatch(sink)
    batch.flush()
    build(batch)
    batch.flush()
    batch.flush()
    assert len(sink.batches) == 1
    assert batch.count == 0


def test_slots_are_used_again() -> None:
    """A shorter packet in the place of a longer one shows nothing of it."""
    batch = PacketBatch(Collector(), capacity=1)
    build(batch, payload=b"x" * 1000)
    build(batch, payload=b"y")
    assert wire.decode(batch.packet(0)).payload == b"y"
    assert len(batch.packet(0)) == 41


@pytest.mark.parametrize("mtu", [576, 1500, 9000])
def test_slot_holds_a_packet_of_the_mtu(mtu: int) -> None:
    for v6 in (False, True):
        batch = PacketBatch(Collector(), capacity=2, mtu=mtu)
        headers = (40 if v6 else 20) + 20 + 12 + 28
        payload = b"p" * (mtu - headers)
        build(batch, v6=v6, timestamp=(1, 2), options=b"\x01" * 28, payload=payload)
        build(batch, v6=v6, payload=b"next")
        assert len(batch.packet(0)) == mtu
        assert wire.decode(batch.packet(0)).payload == payload
        assert wire.decode(batch.packet(1)).payload == b"next"


def test_sink_without_a_send_says_so() -> None:
    batch = PacketBatch(PacketSink())
    build(batch)
    with pytest.raises(NotImplementedError):
        batch.flush()


# --- sums ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("length", [*range(20), 63, 64, 65, 1500])
def test_sum_of_any_piece(at: int, length: int) -> None:
    data = bytes(index * 37 % 256 for index in range(1600))
    for start in (0, 1, 0xFFFF, 0x1234567):
        folded = checksum_fold(checksum_add(data, at, length, start))
        words = start.to_bytes(4, "big") + data[at : at + length]
        assert folded == (0xFFFF - sum_of(words)) & 0xFFFF


def test_fold() -> None:
    assert checksum_fold(0) == 0xFFFF
    assert checksum_fold(0xFFFF) == 0
    assert checksum_fold(0x10000) == 0xFFFE
    assert checksum_fold(0x1FFFE) == 0
    assert checksum_fold(0xFFFFFFFF) == 0
    assert checksum_fold(0xFFFFFFFFFF) == 0xFF00
