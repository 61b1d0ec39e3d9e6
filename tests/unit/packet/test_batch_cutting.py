"""Packets that a device is to cut: headers in the slot, payload lent, the checksum just begun."""

from __future__ import annotations

import sys

import pytest

from tcpcopy.packet.batch import PacketBatch, PacketSink
from tests.sim.model import wire
from tests.sim.model.cutting import cut
from tests.unit.packet.raw import DESTINATION, DESTINATION6, SOURCE, SOURCE6

DATA = bytes(index * 31 % 253 for index in range(60_000))


class Collector(PacketSink):
    """Keeps (packet, part size) of each."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, int]] = []

    def send_batch(self, batch: PacketBatch) -> None:
        self.sent += [(batch.packet(n), batch.part_size(n)) for n in range(batch.count)]


def build(batch: PacketBatch, data: bytes, at: int, length: int, size: int, v6: bool) -> None:
    source, destination = (SOURCE6, DESTINATION6) if v6 else (SOURCE, DESTINATION)
    batch.tcp(
        source, 1234, destination, 80, 0xFFFFFF00, 2, 0x18, 3, 1, 7, 8, b"", data, at, length, size
    )  # fmt: skip


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize(
    ("at", "length", "size"), [(0, 1449, 1448), (3, 59_997, 1448), (17, 5000, 1000), (1, 97, 48)]
)
def test_parts_are_what_would_have_been_sent(v6: bool, at: int, length: int, size: int) -> None:
    """Byte for byte, identifications and checksums too, but for PSH: only the last has it."""
    sink = Collector()
    batch = PacketBatch(sink)
    batch.identification = 0xFFFE
    build(batch, DATA, at, length, size, v6)
    batch.flush()
    next_identification = batch.identification
    parts = cut(*sink.sent[0])
    batch.identification = 0xFFFE
    for start in range(0, length, size):
        source, destination = (SOURCE6, DESTINATION6) if v6 else (SOURCE, DESTINATION)
        piece = min(size, length - start)
        flags = 0x18 if start + piece == length else 0x10
        seq = 0xFFFFFF00 + start
        batch.tcp(
            source, 1234, destination, 80, seq, 2, flags, 3, 1, 7, 8, b"", DATA, at + start, piece
        )  # fmt: skip
    batch.flush()
    assert [(part, 0) for part in parts] == sink.sent[1:]
    assert batch.identification == next_identification
    assert b"".join(wire.decode(part).payload for part in parts) == DATA[at : at + length]


def test_payload_is_lent_until_the_flush() -> None:
    """It is not copied, it lives as long as it is needed, and no longer."""
    data = bytes(70_000)
    before = sys.getrefcount(data)
    batch = PacketBatch(Collector(), capacity=2)
    build(batch, data, 0, 60_000, 1448, False)
    build(batch, data, 9_000, 60_000, 1448, False)
    assert sys.getrefcount(data) == before + 2
    batch.flush()
    assert sys.getrefcount(data) == before


def test_a_slot_that_held_one_holds_whole_packets_again() -> None:
    sink = Collector()
    batch = PacketBatch(sink, capacity=1)
    build(batch, DATA, 0, 3000, 1448, False)
    build(batch, DATA, 0, 100, 0, False)
    batch.flush()
    packet, size = sink.sent[1]
    assert size == 0
    assert wire.decode(packet).payload == DATA[:100]
