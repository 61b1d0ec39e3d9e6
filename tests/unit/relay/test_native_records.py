"""Frames of answers: what intercept packs, tcpcopy unpacks; credit, pings, and full buffers."""

from __future__ import annotations

import struct

import pytest

from tcpcopy.relay.classic import RelayFault
from tcpcopy.relay.native import FrameType
from tcpcopy.relay.native_records import NativeDecoder, NativeWriter
from tests.unit.relay.packets import ACK, CLIENT, SYN, Collector, answer, answer_v6

TIMESTAMPS = bytes([1, 1, 8, 10, *range(8)])
FULL = bytes([1] * 40)
WINDOW = 1 << 20
NOW = 1_700_000_000_123_456_789


def pack(*packets: bytes, payload_bytes: int = 0, times: int = NOW) -> bytes:
    writer = NativeWriter(window=WINDOW, payload_bytes=payload_bytes)
    for packet in packets:
        assert writer.append(packet, 0, len(packet), -1, len(packet), times)
    return taken(writer)


def taken(writer: NativeWriter) -> bytes:
    with writer.pending() as view:
        data = bytes(view)
    writer.sent(len(data))
    return data


def unpack(data: bytes) -> tuple[NativeDecoder, Collector]:
    collector = Collector()
    decoder = NativeDecoder(collector)
    decoder.feed(data, 99)
    return decoder, collector


@pytest.mark.parametrize("make", [answer, answer_v6])
@pytest.mark.parametrize("options", [b"", TIMESTAMPS, FULL])
@pytest.mark.parametrize("payload", [b"", b"x" * 1400])
def test_headers_arrive_whole(make: object, options: bytes, payload: bytes) -> None:
    """Addresses, the TCP header with every option, and how long the packet was."""
    packet = make(options=options, payload=payload)  # type: ignore[operator]
    decoder, collector = unpack(pack(packet))
    ((found, wire_length, timestamp),) = collector.packets
    network = 20 if make is answer else 40
    headers = network + 20 + len(options)
    assert (decoder.fault, decoder.records, decoder.malformed) == (0, 1, 0)
    assert (wire_length, timestamp) == (len(packet), 99)
    assert found[network:] == packet[network:headers]
    if make is answer:
        assert found[:4] == packet[:2] + struct.pack("!H", len(packet))
        assert found[8:10] == packet[8:10] and found[12:20] == packet[12:20]
    else:
        assert found[:40] == packet[:40]
    assert decoder.captured_ns == NOW


def test_an_answer_takes_no_more_than_its_headers() -> None:
    """Against 64 bytes in the classic relay: one frame header for many."""
    assert len(pack(answer())) == 12 + 40
    assert len(pack(*[answer(options=TIMESTAMPS)] * 100)) == 12 + 100 * 52


def test_payload_as_much_as_asked_for() -> None:
    packet = answer(payload=bytes(range(200)))
    for asked, expected in ((0, 0), (5, 5), (128, 128)):
        _, collector = unpack(pack(packet, payload_bytes=asked))
        assert collector.headers[0][40:] == packet[40 : 40 + expected]
        assert collector.packets[0][1] == len(packet)
    writer = NativeWriter(window=WINDOW, payload_bytes=128)
    writer.append(packet, 0, 60)  # captured in part
    assert unpack(taken(writer))[1].headers[0][40:] == packet[40:60]


def test_ip_options_and_a_new_destination() -> None:
    packet = answer(network_options=bytes([1] * 12), payload=bytes(33))
    writer = NativeWriter(window=WINDOW)
    data = b"\xee" * 50 + packet + b"\xdd" * 9
    writer.append(data, 50, 50 + len(packet), int.from_bytes(bytes([1, 2, 3, 4]), "big"))
    ((found, wire_length, _),) = unpack(taken(writer))[1].packets
    assert (
        found[0] == 0x45 and found[12:16] == packet[12:16] and found[16:20] == bytes([1, 2, 3, 4])
    )
    assert wire_length == 20 + 20 + 33
    assert packet[16:20] == CLIENT


def test_longer_than_a_length_field() -> None:
    """IPv6 segments above 64 KiB (BIG TCP) have no length in their header."""
    packet = bytearray(answer_v6(payload=b"x"))
    packet[4:6] = bytes(2)
    writer = NativeWriter(window=WINDOW)
    writer.append(bytes(packet), 0, len(packet), -1, 150_000)
    ((found, wire_length, _),) = unpack(taken(writer))[1].packets
    assert wire_length == 150_000 and found[4:6] == bytes(2)


def test_times_far_apart_begin_a_frame() -> None:
    writer = NativeWriter(window=WINDOW)
    moments = [NOW, NOW + 3_000_000_000, NOW + 6_000_000_000, NOW + 1, NOW + 2]
    found = []
    for moment in moments:
        packet = answer()
        writer.append(packet, 0, len(packet), -1, len(packet), moment)
    decoder = NativeDecoder(Collector())
    data = taken(writer)
    for at in range(len(data)):
        before = decoder.records
        decoder.feed(data[at : at + 1], 0)
        if decoder.records > before:
            found.append(decoder.captured_ns)
    assert found == moments
    assert decoder.batches == 3
    assert decoder.consumed == len(data)


def test_no_more_than_credit_is_sent() -> None:
    """What waits for credit fills the buffer; then answers are lost, and counted."""
    writer = NativeWriter(limit_bytes=10_000, window=100)
    packet = answer()
    packed = sum(writer.append(packet, 0, len(packet)) for _ in range(400))
    assert packed == writer.records and writer.lost == 400 - packed > 0
    assert writer.sendable_bytes == 100
    stream = taken(writer)
    assert len(stream) == 100 and taken(writer) == b"" and writer.pending_bytes > 0
    assert writer.pending_records == packed * writer.pending_bytes // (40 * packed + 12)
    writer.grant(50)  # not taken back
    assert writer.sendable_bytes == 0
    offset = 100
    while writer.pending_bytes:
        offset += 777
        writer.grant(offset)
        stream += taken(writer)
    decoder, collector = unpack(stream)
    assert decoder.fault == 0 and len(collector.packets) == packed
    assert writer.offset == len(stream) == decoder.consumed


def test_pings_stand_between_frames() -> None:
    writer = NativeWriter(window=WINDOW)
    packet = answer(flags=SYN | ACK)
    writer.append(packet, 0, len(packet))
    writer.ping(5 << 33)
    writer.append(packet, 0, len(packet))
    writer.ping(6 << 33)
    decoder, collector = unpack(taken(writer))
    assert (decoder.fault, len(collector.packets)) == (0, 2)
    assert decoder.told_lost == 6 << 33
    full = NativeWriter(limit_bytes=300, window=WINDOW)
    while full.append(packet, 0, len(packet)):
        pass
    before = full.pending_bytes
    for _ in range(100):
        full.ping(1)
    assert full.pending_bytes <= 300 + 12 and full.pending_bytes - before < 40


def number_frame(kind: int, number: int) -> bytes:
    return struct.pack("!BxHQ", kind, 8, number)


@pytest.mark.parametrize(
    ("number", "lost", "credit"),
    [
        (0, 0, 0),
        ((1 << 48) - 1, (1 << 48) - 1, (1 << 48) - 1),
        (1 << 48, (1 << 48) - 1, 1 << 48),
        ((1 << 62) + 1, (1 << 48) - 1, 1 << 62),
        ((1 << 63) - 1, (1 << 48) - 1, 1 << 62),
        (1 << 63, (1 << 48) - 1, 1 << 62),
        ((1 << 64) - 1, (1 << 48) - 1, 1 << 62),
    ],
)
def test_numbers_beyond_a_counter_are_taken_as_the_most_that_it_holds(
    number: int, lost: int, credit: int
) -> None:
    """The same in both builds, where 64 bits of the wire meet 63 of a counter."""
    frames = number_frame(FrameType.PING, number) + number_frame(FrameType.CREDIT, number)
    decoder, _ = unpack(frames)
    assert (decoder.fault, decoder.told_lost, decoder.packet_credit) == (0, lost, credit)


@pytest.mark.parametrize("reason", [0, 9, 0x7FFF, 0x8000, 0xFFFF])
@pytest.mark.parametrize("packets", [0, 1, (1 << 31) + 5, (1 << 48) - 1])
def test_what_was_dropped_and_why(reason: int, packets: int) -> None:
    """An upper half with its highest bit set is a reason like any other, not a sign."""
    decoder, _ = unpack(number_frame(FrameType.DROPPED, reason << 48 | packets))
    assert (decoder.fault, decoder.told_reason, decoder.told_dropped) == (0, reason, packets)


@pytest.mark.parametrize("packets", [0, 7, (1 << 48) - 1, 1 << 48, 1 << 60])
def test_dropped_packets_are_told_as_far_as_there_is_room(packets: int) -> None:
    writer = NativeWriter(window=WINDOW)
    assert writer.dropped(9, packets)
    decoder, _ = unpack(taken(writer))
    told = min(packets, (1 << 48) - 1)
    assert (decoder.fault, decoder.told_reason, decoder.told_dropped) == (0, 9, told)


@pytest.mark.parametrize("base", [0, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("later", [0, (1 << 32) - 1])
def test_times_beyond_a_counter(base: int, later: int) -> None:
    """The frame's time and the record's on top of it stay within 63 bits."""
    stream = pack(answer())
    stream = (
        stream[:4]
        + struct.pack("!Q", base)
        + stream[12:20]
        + struct.pack("!I", later)
        + stream[24:]
    )
    decoder, collector = unpack(stream)
    assert (decoder.fault, len(collector.packets)) == (0, 1)
    assert decoder.captured_ns == min(base, 1 << 62) + later


def test_closed_writer_takes_nothing() -> None:
    writer = NativeWriter(window=WINDOW)
    packet = answer()
    writer.append(packet, 0, len(packet))
    writer.close()
    assert not writer.append(packet, 0, len(packet))
    writer.ping(1)
    assert (writer.pending_bytes, writer.sendable_bytes, writer.lost) == (0, 0, 1)


def change(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes([value]) + data[place + 1 :]


GOOD = pack(answer(options=TIMESTAMPS), answer())


@pytest.mark.parametrize(
    "data",
    [
        change(GOOD, 0, 0x86),  # a type that only tcpcopy sends
        change(GOOD, 0, 0x00),
        change(GOOD, 3, 8),  # no record in it
        change(GOOD, 3, GOOD[3] + 1),  # a part of a record at its end
        change(GOOD, 12, 5),  # IP version
        change(GOOD, 13, 16),  # TCP header too short
        change(GOOD, 13, 64),  # too long
        change(GOOD, 13, 34),  # not whole words
        change(GOOD, 13, 36),  # not what the header itself says
        change(GOOD, 15, 200),  # payload that is not there
        change(GOOD, 19, 30),  # the packet shorter than its headers
        b"\x89\0\0\0",  # a ping without its count
    ],
)
def test_nonsense_ends_the_stream(data: bytes) -> None:
    decoder, _ = unpack(data + GOOD)
    assert decoder.fault == RelayFault.FRAME
    handed = decoder.records
    decoder.feed(GOOD, 0)
    assert decoder.records == handed <= 2
