"""Packets under Hypothesis: nothing that arrives can hurt, and what is built is what was meant."""

from __future__ import annotations

import struct

from hypothesis import example, given
from hypothesis import strategies as st

from tcpcopy.packet import flags
from tcpcopy.packet.batch import PacketBatch
from tcpcopy.packet.segment import Segment, flow_key, parse, parse_options, payload
from tests.sim.model import wire
from tests.unit.packet import raw
from tests.unit.packet.test_batch import Collector

NUMBERS = st.integers(0, 0xFFFFFFFF)
REASONS = range(flags.PARSED, flags.NOT_TCP + 1)


def look(data: bytes, start: int, end: int, wire_length: int) -> Segment | None:
    """Parse, and check what must hold of every result; None when it is no segment."""
    segment = Segment()
    reason = parse(segment, data, start, end, wire_length)
    assert reason in REASONS
    if reason != flags.PARSED:
        return None
    size = 2 * segment.address_size
    assert segment.address_size in (4, 16)
    assert start <= segment.address_offset <= segment.address_offset + size <= end
    assert segment.address_offset + size <= segment.header_offset <= end - 20
    assert segment.header_offset + 20 <= segment.options_end <= end
    assert segment.payload_offset >= segment.header_offset + 20
    assert 0 <= segment.available <= segment.payload_length
    assert segment.available == 0 or segment.payload_offset + segment.available <= end
    assert len(flow_key(segment, data)) == size + 4
    assert len(payload(segment, data, 0)) == segment.available
    parse_options(segment, data)
    assert -1 <= segment.window_scale <= 14
    assert 0 <= segment.mss <= 0xFFFF
    assert 0 <= segment.sack_count <= 4
    assert segment.sack_permitted in (0, 1) and segment.timestamp_present in (0, 1)
    return segment


# --- anything that arrives ---------------------------------------------------------------------


@given(st.binary(max_size=200), st.integers(-100, 300))
@example(b"\x45" + bytes(19), 0)
def test_any_bytes(data: bytes, wire_length: int) -> None:
    look(data, 0, len(data), wire_length)


@st.composite
def odd_packets(draw: st.DrawFn) -> bytes:
    """Nearly good packets: claimed lengths, versions, options and extensions are drawn."""
    segment = raw.tcp(
        draw(st.binary(max_size=40)),
        options=draw(st.binary(max_size=44)),
        flags=draw(st.integers(0, 255)),
        header=draw(st.one_of(st.none(), st.integers(0, 60))),
    )
    if draw(st.booleans()):
        return raw.ipv4(
            segment,
            options=draw(st.binary(max_size=40)),
            protocol=draw(st.sampled_from((6, 6, 6, 17, 1))),
            fragment=draw(st.sampled_from((0, 0x4000, 0x2000, 1))),
            total=draw(st.one_of(st.none(), st.integers(0, 65535))),
            header=draw(st.one_of(st.none(), st.integers(0, 60))),
            version=draw(st.sampled_from((4, 4, 4, 6, 5))),
        )
    extensions = st.tuples(
        st.sampled_from((0, 43, 44, 60, 50, 51, 59)),
        st.one_of(
            st.binary(min_size=7, max_size=7).map(lambda body: b"\0" + body[1:]),
            st.binary(max_size=30),
        ),
    )
    return raw.ipv6(
        segment,
        extensions=tuple(draw(st.lists(extensions, max_size=9))),
        length=draw(st.one_of(st.none(), st.integers(0, 65535))),
    )


@given(
    odd_packets(),
    st.binary(max_size=30),
    st.binary(max_size=30),
    st.integers(0, 150),
    st.integers(-10, 70_000),
)
def test_nearly_good_packets_anywhere_in_a_buffer(
    packet: bytes, before: bytes, after: bytes, cut: int, wire_length: int
) -> None:
    """Bytes outside of [start, end) are never looked at: with others there the result is equal."""
    start, end = len(before), max(len(before), len(before) + len(packet) - cut)
    first = look(before + packet + after, start, end, wire_length)
    inverted = bytes(255 - byte for byte in packet[end - start :] + after)
    other = bytes(255 - byte for byte in before) + packet[: end - start] + inverted
    second = look(other, start, end, wire_length)
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        for name in Segment.__slots__:
            assert getattr(first, name) == getattr(second, name), name


@given(st.binary(max_size=40))
def test_any_options(options: bytes) -> None:
    """A plain reading of the list finds the same."""
    options += bytes(-len(options) % 4)
    packet = raw.ipv4(raw.tcp(b"x", options=options))
    segment = look(packet, 0, len(packet), len(packet))
    assert segment is not None
    found: dict[int, bytes] = {}
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            break
        if (options[at], size) in ((2, 4), (3, 3), (4, 2), (8, 10)) or options[at] == 5:
            found[options[at]] = options[at + 2 : at + size]
        at += size
    assert segment.mss == int.from_bytes(found.get(2, b""), "big")
    assert segment.window_scale == (min(found[3][0], 14) if 3 in found else -1)
    assert segment.sack_permitted == (4 in found)
    assert segment.timestamp_present == (8 in found)
    if 8 in found:
        values = struct.unpack("!II", found[8])
        assert (segment.timestamp_value, segment.timestamp_echo) == values
    assert segment.sack_count == min(len(found.get(5, b"")) // 8, 4)


# --- what is built -----------------------------------------------------------------------------


@st.composite
def segments(draw: st.DrawFn) -> wire.Segment:
    """Any segment that the engine could send."""
    v6 = draw(st.booleans())
    address = st.binary(min_size=16, max_size=16) if v6 else st.binary(min_size=4, max_size=4)
    port = st.integers(0, 65535)
    return wire.Segment(
        draw(address),
        draw(port),
        draw(address),
        draw(port),
        draw(NUMBERS),
        draw(NUMBERS),
        draw(st.integers(0, 63)) & ~wire.URG,
        draw(st.integers(0, 65535)),
        draw(st.binary(max_size=200)),
        timestamp=draw(st.one_of(st.none(), st.tuples(NUMBERS, NUMBERS))),
        sack_blocks=tuple(draw(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3))),
    )


def sack_option(blocks: tuple[tuple[int, int], ...]) -> bytes:
    """The option as the client writes it."""
    if not blocks:
        return b""
    body = b"".join(struct.pack("!II", *block) for block in blocks)
    return b"\x01\x01\x05" + bytes((len(body) + 2,)) + body


@given(segments(), st.integers(0, 50), st.integers(0, 50), st.booleans())
def test_what_is_built_is_what_was_meant(
    meant: wire.Segment, before: int, after: int, again: bool
) -> None:
    """Built by the batch, read by the strict decoder and by the engine's own parser."""
    batch = PacketBatch(Collector(), capacity=2)
    source = bytes(before) + meant.payload + b"\xff" * after
    value, echo = meant.timestamp or (0, 0)
    for _ in range(1 + again):
        batch.tcp(
            meant.source,
            meant.source_port,
            meant.destination,
            meant.destination_port,
            meant.seq,
            meant.ack,
            meant.flags,
            meant.window,
            meant.timestamp is not None,
            value,
            echo,
            sack_option(meant.sack_blocks),
            source,
            before,
            len(meant.payload),
        )
    packet = batch.packet(batch.count - 1)
    got = wire.decode(packet)
    got.options_length = 0
    assert got == meant
    segment = look(packet, 0, len(packet), len(packet))
    assert segment is not None
    assert (segment.seq, segment.ack, segment.flags) == (meant.seq, meant.ack, meant.flags)
    assert segment.window == meant.window
    assert payload(segment, packet, 0) == meant.payload
    assert segment.sack_count == len(meant.sack_blocks)
    assert segment.timestamp_present == (meant.timestamp is not None)


@given(st.lists(st.binary(max_size=60), max_size=30), st.integers(1, 7))
def test_every_packet_leaves_once_and_in_order(texts: list[bytes], capacity: int) -> None:
    sink = Collector()
    batch = PacketBatch(sink, capacity=capacity)
    for text in texts:
        batch.tcp(
            raw.SOURCE, 1, raw.DESTINATION, 2, 3, 4, 24, 5, False, 0, 0, b"", text, 0, len(text)
        )
    batch.flush()
    assert all(1 <= len(packets) <= capacity for packets in sink.batches)
    sent = [wire.decode(packet).payload for packets in sink.batches for packet in packets]
    assert sent == texts
