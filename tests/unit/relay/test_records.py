"""Records unpacked and packed: the four layouts, headers that do not fit, bounded buffers."""

from __future__ import annotations

import struct

import pytest

from tcpcopy.relay.classic import Layout, RelayFault
from tcpcopy.relay.records import RecordDecoder, RecordWriter
from tests.unit.relay.packets import ACK, CLIENT, PSH, SYN, Collector, answer, batch, record

TIMESTAMPS = bytes([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
SYN_OPTIONS = bytes([2, 4, 5, 180, 4, 2]) + TIMESTAMPS[2:] + bytes([1, 3, 3, 7])
HANDSHAKE = answer(flags=SYN | ACK, options=SYN_OPTIONS)
DATA = answer(flags=PSH | ACK, options=TIMESTAMPS, payload=b"HTTP/1.1 200 OK\r\n" * 7)
BIG = answer(flags=ACK, options=TIMESTAMPS, payload=bytes(1448))
LAYOUTS = [layout for layout in Layout if layout is not Layout.AUTO]


def sack(blocks: int) -> bytes:
    """TIMESTAMPS and a SACK option, as Linux orders them: 12 + 4 + 8 * blocks bytes."""
    edges = struct.pack(f"!{2 * blocks}I", *range(1, 2 * blocks + 1))
    return TIMESTAMPS + bytes([1, 1, 5, 2 + 8 * blocks]) + edges


def stream(layout: Layout, packets: list[bytes], size: int) -> bytes:
    """Packets as an intercept of that layout sends them, `size` to a batch."""
    records = [record(packet, layout.record_bytes) for packet in packets]
    if not layout.is_batched:
        return b"".join(records)
    return b"".join(batch(*records[i : i + size]) for i in range(0, len(records), size))


def headers(packet: bytes) -> bytes:
    return packet[: 20 + (packet[32] >> 4) * 4]


# --- decoding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("auto", [True, False])
@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_read_and_told(layout: Layout, size: int, auto: bool) -> None:
    """The same packets come out with their headers and wire lengths, and the layout is told."""
    packets = [HANDSHAKE, DATA, BIG, answer(), DATA, HANDSHAKE, BIG]
    collector = Collector()
    decoder = RecordDecoder(collector, Layout.AUTO if auto else layout)
    handed = decoder.feed(stream(layout, packets, size), 77)
    assert decoder.fault == RelayFault.NONE
    assert handed == decoder.records == len(packets)
    assert collector.packets == [(headers(p), len(p), 77) for p in packets]
    assert decoder.layout is layout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_record_is_not_held_up_by_telling_the_layout(layout: Layout) -> None:
    """A SYN-ACK is needed before anything else is sent: 64 bytes of it are enough.

    Bare records are told at their first byte, batched ones by what follows the first.
    """
    collector = Collector()
    decoder = RecordDecoder(collector)
    decoder.feed(stream(layout, [HANDSHAKE], 1)[: 2 * layout.is_batched + 64], 0)
    assert collector.headers == [HANDSHAKE]
    assert decoder.layout is (Layout.AUTO if layout.is_batched else Layout.BARE)


def test_payload_that_looks_like_text_does_not_pass_for_a_record() -> None:
    """Bytes 64 onwards of a payload record start with "E", as an IPv4 header does."""
    packet = answer(payload=b"x" * 24 + b"E" * 80)
    collector = Collector()
    decoder = RecordDecoder(collector)
    decoder.feed(stream(Layout.BATCHED_PAYLOAD, [packet, HANDSHAKE], 1), 0)
    assert decoder.layout is Layout.BATCHED_PAYLOAD
    assert collector.headers == [headers(packet), HANDSHAKE]


@pytest.mark.parametrize(
    ("data", "fault", "records"),
    [
        (b"\x00\x00", RelayFault.BATCH_COUNT, 0),
        (b"\x00\x11", RelayFault.BATCH_COUNT, 0),
        (b"HTTP/1.1 400 Bad Request", RelayFault.NONE, 0),  # "H" is version 4: told at 64 bytes
        (b"220 mail.example.org ESMTP", RelayFault.NOT_A_RECORD, 0),
        (b"\xff", RelayFault.NOT_A_RECORD, 0),
        (batch(record(DATA)) + b"\x00\x00" + bytes(200), RelayFault.BATCH_COUNT, 1),
        (batch(record(DATA), record(DATA)) + b"\x01\x00", RelayFault.BATCH_COUNT, 2),
        (batch(record(DATA), record(DATA), bytes(64)), RelayFault.NOT_A_RECORD, 2),
        (batch(*[record(DATA, 192)] * 7), RelayFault.BATCH_COUNT, 1),
        (record(DATA) + record(DATA) + b"\x60" + bytes(63), RelayFault.NOT_A_RECORD, 2),
    ],
)
def test_a_lost_stream_is_a_fault(data: bytes, fault: RelayFault, records: int) -> None:
    collector = Collector()
    decoder = RecordDecoder(collector)
    decoder.feed(data, 0)
    assert RelayFault(decoder.fault) is fault
    assert decoder.records == len(collector.packets) == records
    if fault:
        assert decoder.feed(batch(record(DATA)), 0) == 0
        assert decoder.received(64, 0) == 0


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (9, 17),  # UDP
        (3, 51),  # total length 51 with headers of 52
        (32, 0x40),  # TCP header of 16 bytes
        (0, 0x44),  # IP header of 16 bytes
    ],
)
def test_a_bad_record_costs_only_itself(offset: int, value: int) -> None:
    """What the network brought to the intercept must not end the relay."""
    bad = bytearray(record(answer(options=TIMESTAMPS)))
    bad[2:4] = b"\x00\x34"
    bad[offset] = value
    collector = Collector()
    decoder = RecordDecoder(collector, Layout.BATCHED)
    handed = decoder.feed(batch(record(DATA), bytes(bad), record(BIG)), 0)
    assert handed == 2
    assert (decoder.records, decoder.malformed, decoder.fault) == (3, 1, 0)
    assert collector.headers == [headers(DATA), headers(BIG)]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (sack(1), sack(1)),
        (sack(2), sack(1)),
        (sack(3), sack(1)),
        (bytes([1, 1, 5, 34]) + sack(4)[16:], bytes([1, 1, 5, 18]) + sack(2)[16:] + bytes(4)),
        (bytes([253, 30]) + bytes([9] * 28), bytes(24)),
        (TIMESTAMPS + bytes([5, 10]) + bytes(8) + bytes([253, 14]) + bytes(12),
         TIMESTAMPS + bytes([5, 10]) + bytes(8) + bytes(2)),
        (TIMESTAMPS + bytes([1] * 11 + [5, 10]) + bytes(8), TIMESTAMPS + bytes([1] * 11 + [0])),
    ],
)  # fmt: skip
def test_options_beyond_24_bytes_are_cut_at_an_option(options: bytes, kept: bytes) -> None:
    """The C program cuts anywhere and keeps the data offset: header and lengths are mended."""
    packet = answer(options=options, payload=bytes(1000))
    collector = Collector()
    RecordDecoder(collector, Layout.BATCHED).feed(batch(record(packet)), 0)
    ((found, wire_length, _),) = collector.packets
    transport = (found[32] >> 4) * 4
    assert found[40:] == kept
    assert len(found) == 20 + transport == 40 + min(len(options), 24)
    assert wire_length == struct.unpack_from("!H", found, 2)[0]
    assert wire_length - 20 - transport == 1000


def test_ip_options_left_out_by_the_c_program_are_left_out_of_the_lengths() -> None:
    """It copies 20 bytes of the IP header and keeps the header length of the original."""
    packet = answer(network_options=bytes([1] * 8), options=TIMESTAMPS, payload=bytes(100))
    c_record = (packet[:20] + packet[28 : 28 + 32]).ljust(64, b"\x00")
    collector = Collector()
    RecordDecoder(collector, Layout.BATCHED).feed(batch(c_record), 0)
    ((found, wire_length, _),) = collector.packets
    assert found[0] == 0x45
    assert wire_length == struct.unpack_from("!H", found, 2)[0] == 20 + 32 + 100
    assert found[20:] == packet[28:60]


def test_buffer_stays_bounded_and_every_record_comes_through() -> None:
    collector = Collector()
    decoder = RecordDecoder(collector, buffer_bytes=1024)
    data = batch(*[record(DATA)] * 16)
    for _ in range(50):
        decoder.feed(data, 0)
        assert 0 < len(decoder.space()) <= 1024
    assert decoder.records == len(collector.packets) == 800
    assert decoder.batches == 50


# --- packing -----------------------------------------------------------------------------------


def packed(writer: RecordWriter) -> bytes:
    with writer.pending() as view:
        data = bytes(view)
    writer.sent(len(data))
    return data


@pytest.mark.parametrize("options", [b"", TIMESTAMPS, SYN_OPTIONS, sack(1), sack(3)])
def test_a_record_is_the_c_programs(options: bytes) -> None:
    """TCP options beyond 24 bytes are cut with the data offset and the lengths kept, as it does."""
    packet = answer(options=options, payload=b"abc")
    writer = RecordWriter()
    assert writer.append(packet, 0, len(packet))
    assert packed(writer) == batch(record(packet))


def test_ip_options_do_not_travel() -> None:
    """Unlike in the C program the record is well-formed then: 20 bytes of header, true payload."""
    packet = answer(network_options=bytes([1] * 12), options=TIMESTAMPS, payload=bytes(33))
    writer = RecordWriter()
    writer.append(packet, 0, len(packet))
    collector = Collector()
    decoder = RecordDecoder(collector, Layout.BATCHED)
    decoder.feed(packed(writer), 0)
    ((found, wire_length, _),) = collector.packets
    assert found[0] == 0x45 and found[20:] == packet[32:64]
    assert wire_length == 20 + 32 + 33


def test_offset_and_new_destination() -> None:
    """The packet may stand anywhere in a ring; -D gives another destination address."""
    packet = answer(options=TIMESTAMPS)
    writer = RecordWriter()
    data = b"\xee" * 100 + packet + b"\xdd" * 50
    writer.append(data, 100, 100 + len(packet), int.from_bytes(bytes([1, 2, 3, 4]), "big"))
    expected = record(packet[:16] + bytes([1, 2, 3, 4]) + packet[20:])
    assert packed(writer) == batch(expected)
    assert packet[16:20] == CLIENT


@pytest.mark.parametrize(("limit", "sizes"), [(16, [16, 16, 3]), (1, [1] * 35), (4, [4] * 8 + [3])])
def test_batches_hold_at_most_what_was_asked_for(limit: int, sizes: list[int]) -> None:
    writer = RecordWriter(batch_records=limit)
    for _ in range(35):
        writer.append(DATA, 0, len(DATA))
    expected = b"".join(batch(*[record(DATA)] * size) for size in sizes)
    assert packed(writer) == expected
    assert writer.records == 35


def test_what_was_looked_at_to_be_sent_is_not_added_to() -> None:
    """A batch may be half in the kernel's hands: its count is final."""
    writer = RecordWriter()
    writer.append(DATA, 0, len(DATA))
    with writer.pending() as view:
        first = bytes(view)
    writer.sent(10)
    writer.append(BIG, 0, len(BIG))
    assert first[:10] + packed(writer) == batch(record(DATA)) + batch(record(BIG))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_packed_as_it_is_read(layout: Layout) -> None:
    packets = [HANDSHAKE, DATA, BIG, answer(), DATA, HANDSHAKE, BIG]
    writer = RecordWriter(layout=layout)
    for packet in packets:
        writer.append(packet, 0, len(packet))
    assert packed(writer) == stream(layout, packets, layout.max_batch)


def test_payload_that_was_not_captured_is_left_out() -> None:
    writer = RecordWriter(layout=Layout.BATCHED_PAYLOAD)
    writer.append(DATA, 0, len(DATA) - 1)
    assert packed(writer) == batch(record(DATA).ljust(192, b"\x00"))


def test_full_buffer_loses_whole_records_and_counts_them() -> None:
    writer = RecordWriter(limit_bytes=10 * 66, batch_records=1)
    taken = sum(writer.append(DATA, 0, len(DATA)) for _ in range(25))
    assert (taken, writer.lost, writer.pending_bytes) == (10, 15, 660)
    assert packed(writer) == batch(record(DATA)) * 10
    assert writer.append(BIG, 0, len(BIG))
    assert packed(writer) == batch(record(BIG))


def test_slow_reader_gets_an_unbroken_stream() -> None:
    """Sent in odd pieces while records come in, some lost: what arrives is still whole batches."""
    writer = RecordWriter(limit_bytes=3000)
    collector = Collector()
    decoder = RecordDecoder(collector, Layout.BATCHED)
    for step in range(4000):
        for _ in range(step % 5):
            writer.append(DATA, 0, len(DATA))
        with writer.pending() as view:
            piece = bytes(view[: step % 97])
        writer.sent(len(piece))
        decoder.feed(piece, 0)
    decoder.feed(packed(writer), 0)
    assert decoder.fault == 0
    assert writer.lost > 0
    assert len(collector.packets) == writer.records
    assert writer.records + writer.lost == sum(step % 5 for step in range(4000))


def test_closed_writer_takes_nothing() -> None:
    writer = RecordWriter()
    writer.append(DATA, 0, len(DATA))
    writer.close()
    assert writer.closed and writer.pending_bytes == 0
    assert not writer.append(DATA, 0, len(DATA))
    assert writer.lost == 1


@pytest.mark.parametrize("before", [0, 1, 2, 31, 32])
def test_a_writer_goes_on_with_bare_records_where_one_would_start(before: int) -> None:
    """A C tcpcopy built --disable-combined reads 64 bytes at a time, whatever they are."""
    writer = RecordWriter(1, 1)
    said = b""
    for _ in range(before):
        writer.append(DATA, 0, len(DATA))
        said += bytes(writer.pending())
        writer.sent(writer.pending_bytes)
    writer.go_bare()
    writer.append(DATA, 0, len(DATA))
    writer.append(HANDSHAKE, 0, len(HANDSHAKE))
    said += bytes(writer.pending())
    assert len(said) % 64 == 0
    assert said[-128:] == record(DATA) + record(HANDSHAKE)
    filling = said[:-128].removeprefix(batch(record(DATA)) * before)
    assert not filling.strip(b"\0") and len(filling) < 64
    assert writer.went_bare


def test_what_was_sent_in_doubt_comes_again() -> None:
    writer = RecordWriter(1, 1)
    writer.unsure = True
    writer.append(HANDSHAKE, 0, len(HANDSHAKE))
    writer.repeats = 1
    writer.append(DATA, 0, len(DATA))
    writer.go_bare()
    expected = batch(record(HANDSHAKE)) + batch(record(DATA)) + bytes(60)
    with writer.pending() as data:
        assert bytes(data) == expected + record(DATA)
    assert (writer.unsure, writer.records) == (False, 2)


def test_what_was_understood_does_not() -> None:
    writer = RecordWriter(1, 1)
    writer.unsure = True
    writer.repeats = 1
    writer.append(HANDSHAKE, 0, len(HANDSHAKE))
    writer.understood()
    writer.go_bare()
    with writer.pending() as data:
        assert bytes(data) == batch(record(HANDSHAKE)) + bytes(62)
