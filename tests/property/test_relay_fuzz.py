"""The relay's decoders under any input: however bytes are cut, whatever they are."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay.classic import (
    Layout,
    MessageDecoder,
    MessageType,
    encode_message,
    encode_version,
)
from tcpcopy.relay.records import RecordDecoder, RecordWriter
from tcpcopy.relay.router import AnswerRouter
from tcpcopy.report.outcome import Drop

LAYOUTS = [layout for layout in Layout if layout is not Layout.AUTO]
BUFFER_BYTES = 1024


class Checker(PacketHandler):
    """Asserts what handlers are promised, and keeps the packets."""

    def __init__(self) -> None:
        self.packets: list[tuple[bytes, int]] = []

    def packet(
        self, data: object, start: int, end: int, wire_length: int, timestamp_ns: int
    ) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        assert start >= 0 and start + 40 <= end <= min(start + 64, len(view))
        found = bytes(view[start:end])
        assert found[0] == 0x45 and found[9] == 6
        assert 20 + (found[32] >> 4) * 4 == len(found)
        assert struct.unpack_from("!H", found, 2)[0] == wire_length >= len(found)
        self.packets.append((found, wire_length))
        return 0


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` cut somewhere, empty pieces included."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A well-formed IPv4 TCP packet with any options and payload."""
    network = 20 + 4 * draw(st.integers(0, 3))
    options = draw(st.binary(max_size=40))
    options += bytes(-len(options) % 4)
    payload = draw(st.binary(max_size=150))
    ports = draw(st.binary(min_size=4, max_size=4))
    numbers = draw(st.binary(min_size=8, max_size=8))
    flags = draw(st.integers(0, 63))
    total = network + 20 + len(options) + len(payload)
    addresses = draw(st.binary(min_size=8, max_size=8))
    ip = struct.pack("!BBHIBBH", 0x40 | network >> 2, 0, total, 0, 64, 6, 0) + addresses
    tcp = ports + numbers + struct.pack("!BBHI", 80 + 4 * len(options), flags, 500, 0)
    return ip + bytes(network - 20) + tcp + options + payload


def feed_all(layout: Layout, parts: list[bytes]) -> tuple[RecordDecoder, Checker]:
    checker = Checker()
    decoder = RecordDecoder(checker, layout, BUFFER_BYTES)
    for part in parts:
        decoder.feed(part, 0)
        assert 0 < len(decoder.space()) <= BUFFER_BYTES
    return decoder, checker


def state(decoder: RecordDecoder) -> tuple[int, int, int, int, Layout]:
    return decoder.fault, decoder.records, decoder.malformed, decoder.batches, decoder.layout


noise = st.one_of(
    st.binary(max_size=3000),
    # Close enough to the real thing to get past the first checks.
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.sampled_from([b"\0\1", b"\0\2", b"\0\x10", b"E" + bytes(8) + b"\6" + bytes(54)]),
            st.builds(
                lambda tail: b"\0\1E\0\1\0" + bytes(5) + b"\6" + tail, st.binary(max_size=60)
            ),
        ),
        max_size=30,
    ).map(b"".join),
)


@given(st.data(), st.sampled_from(Layout), noise)
def test_any_bytes_are_read_alike_however_they_are_cut(
    data: st.DataObject, layout: Layout, stream: bytes
) -> None:
    """Never an exception, never more than the buffer; whole, byte-wise and random cuts agree."""
    whole, found = feed_all(layout, [stream])
    bytewise, found_bytewise = feed_all(layout, [stream[i : i + 1] for i in range(len(stream))])
    cut, found_cut = feed_all(layout, data.draw(pieces(stream)))
    assert state(whole) == state(bytewise) == state(cut)
    assert found.packets == found_bytewise.packets == found_cut.packets
    assert whole.records == len(found.packets) + whole.malformed


@given(
    st.data(),
    st.sampled_from(LAYOUTS),
    st.integers(1, 16),
    st.lists(answers(), min_size=1, max_size=40),
)
def test_what_is_packed_is_unpacked(
    data: st.DataObject, layout: Layout, batch_records: int, packets: list[bytes]
) -> None:
    """Each answer arrives once and in order: addresses, ports, numbers, flags, payload length."""
    writer = RecordWriter(batch_records=batch_records, layout=layout)
    for packet in packets:
        assert writer.append(packet, 0, len(packet))
    with writer.pending() as view:
        stream = bytes(view)
    decoder, found = feed_all(layout, data.draw(pieces(stream)))
    assert (decoder.fault, decoder.malformed) == (0, 0)
    assert len(found.packets) == len(packets)
    for packet, (headers, wire_length) in zip(packets, found.packets, strict=True):
        network = (packet[0] & 15) * 4
        transport = (packet[network + 12] >> 4) * 4
        assert headers[12:20] == packet[12:20]
        assert headers[20:32] == packet[network : network + 12]
        assert headers[33] == packet[network + 13]
        kept = min(transport, 44)
        if transport == kept:
            assert headers[20:] == packet[network : network + transport]
        assert wire_length - 20 - kept == len(packet) - network - transport


@given(st.data(), st.lists(answers(), min_size=2, max_size=8), st.sampled_from(LAYOUTS))
def test_layout_told_from_the_stream_is_the_one_it_has(
    data: st.DataObject, packets: list[bytes], layout: Layout
) -> None:
    """Payloads are random: none looks like a header by chance."""
    writer = RecordWriter(layout=layout)
    for packet in packets:
        writer.append(packet, 0, len(packet))
    with writer.pending() as view:
        stream = bytes(view)
    decoder, found = feed_all(Layout.AUTO, data.draw(pieces(stream)))
    assert decoder.fault == 0
    assert len(found.packets) == len(packets)
    assert decoder.layout is layout


messages = st.builds(
    encode_message,
    st.sampled_from(MessageType),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 65535),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 65535),
)


@given(st.data(), st.lists(messages, max_size=20), st.binary(max_size=40))
def test_messages_are_read_alike_however_they_are_cut(
    data: st.DataObject, sent: list[bytes], garbage: bytes
) -> None:
    stream = encode_version() + b"".join(sent)
    decoder = MessageDecoder()
    taken = b"".join(decoder.feed(part) for part in data.draw(pieces(stream)))
    assert taken == b"".join(sent)
    assert not decoder.fault
    stream += garbage
    results = []
    for parts in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        decoder = MessageDecoder()
        found = b"".join(decoder.feed(part) for part in parts)
        results.append((found, decoder.fault, decoder.version))
    assert results[0] == results[1]


@given(st.lists(st.binary(max_size=60)))
def test_any_bytes_from_a_tcpcopy_are_taken_without_exception(parts: list[bytes]) -> None:
    decoder = MessageDecoder()
    total = sum(len(decoder.feed(part)) for part in parts)
    assert total % 14 == 0 and total <= max(0, sum(map(len, parts)) - 14)


@given(st.binary(max_size=120), st.integers(-5, 130), st.integers(-5, 130))
def test_router_takes_any_packet(data: bytes, start: int, end: int) -> None:
    """Bounds and headers of any kind: routed, kept or dropped with a reason, never more."""
    router = AnswerRouter()
    reason = router.packet(data, start, end, end - start, 0)
    assert router.answers == 1 == router.kept + sum(router.drops)
    assert router.drops[reason] == (1 if reason else 0)
    assert reason == 0 or reason in list(Drop)


@given(st.lists(st.tuples(answers(), st.integers(0, 5)), max_size=60), st.integers(1, 8))
@settings(max_examples=50)
def test_router_sums_close(steps: list[tuple[bytes, int]], limit: int) -> None:
    """Announcements, removals, closing and sweeping in any order: each answer is counted once."""
    router = AnswerRouter(session_limit=limit, early_limit=limit)
    writers = [RecordWriter(0)]
    for now, (packet, action) in enumerate(steps):
        router.now_ns = now
        tcp = (packet[0] & 15) * 4
        source, destination = struct.unpack_from("!HH", packet, tcp)
        kind = MessageType.REMOVE if action == 1 else MessageType.ADD
        if action <= 2:
            message = encode_message(kind, packet[16:20], destination, packet[12:16], source)
            router.messages(writers[-1], message)
        elif action == 3:
            writers[-1].close()
            router.connection_closed()
            writers.append(RecordWriter(len(writers)))
        elif action == 4:
            router.sweep(now, budget=2)
        router.packet(packet, 0, len(packet), len(packet), 0)
        assert router.sessions <= limit and router.early_sessions <= limit
    router.clear()
    assert (router.sessions, router.early_sessions) == (0, 0)
    unused = sum(router.drops)
    assert router.answers == len(steps) == router.relayed + router.kept + router.lost + unused
    assert router.kept == router.early_sent + router.early_expired
