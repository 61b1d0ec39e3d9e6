"""The native relay under any input: however bytes are cut, whatever they are; sums close."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tcpcopy.relay import native
from tcpcopy.relay.classic import MessageType, encode_message
from tcpcopy.relay.handshake import ClientHandshake, ServerHandshake
from tcpcopy.relay.native import FrameDecoder, FrameType, RelayMode, RelayTerms
from tcpcopy.relay.native_records import NativeDecoder, NativeWriter
from tcpcopy.relay.records import Peer, RecordWriter
from tcpcopy.relay.router import AnswerRouter
from tests.property.test_relay_fuzz import answers, pieces
from tests.unit.relay.packets import Collector

BUFFER_BYTES = 1024
TERMS = [
    RelayTerms(),
    RelayTerms(RelayMode.CLASSIC),
    RelayTerms(RelayMode.NATIVE),
    RelayTerms(secret=b"one secret of both"),
    RelayTerms(secret=b"another of the two"),
]


@st.composite
def answers_v6(draw: st.DrawFn) -> bytes:
    """A well-formed IPv6 TCP packet: one of IPv4's segments behind another header."""
    packet = draw(answers())
    segment = packet[(packet[0] & 15) * 4 :]
    addresses = draw(st.binary(min_size=32, max_size=32))
    return struct.pack("!IHBB", 0x60000000, len(segment), 6, 64) + addresses + segment


either = st.one_of(answers(), answers_v6())


def feed_all(parts: list[bytes]) -> tuple[NativeDecoder, Collector]:
    collector = Collector()
    decoder = NativeDecoder(collector, BUFFER_BYTES)
    for part in parts:
        decoder.feed(part, 0)
        with decoder.space() as free:
            assert 0 < len(free) <= BUFFER_BYTES
    return decoder, collector


frames = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda body: struct.pack("!BxHQ", FrameType.ANSWERS, len(body) + 8, 5) + body,
        st.lists(
            st.builds(
                lambda kind, transport, payload, tail: (
                    bytes([kind, transport]) + struct.pack("!HII", payload, 2000, 7) + tail
                ),
                st.sampled_from([4, 6, 5]),
                st.sampled_from([20, 24, 60, 61]),
                st.integers(0, 3),
                st.binary(min_size=20, max_size=100),
            ),
            max_size=4,
        ).map(b"".join),
    ),
    st.just(struct.pack("!BxHQ", FrameType.PING, 8, 77)),
)


@given(st.data(), st.lists(frames, max_size=8).map(b"".join))
def test_any_bytes_of_an_intercept_are_read_alike_however_they_are_cut(
    data: st.DataObject, stream: bytes
) -> None:
    """Never an exception, never more than the buffer; whole, byte-wise and random cuts agree."""
    results = []
    for parts in (
        [stream],
        [stream[i : i + 1] for i in range(len(stream))],
        data.draw(pieces(stream)),
    ):
        decoder, collector = feed_all(parts)
        assert decoder.records == len(collector.packets)
        assert decoder.consumed <= len(stream)
        results.append(
            (decoder.fault, decoder.records, decoder.told_lost, decoder.consumed, collector.packets)
        )
    assert results[0] == results[1] == results[2]


@given(st.data(), st.lists(either, min_size=1, max_size=40), st.integers(0, 128))
def test_what_is_packed_is_unpacked(
    data: st.DataObject, packets: list[bytes], payload_bytes: int
) -> None:
    """Each answer arrives once, in order and whole up to its payload; its time, too."""
    writer = NativeWriter(window=1 << 40, payload_bytes=payload_bytes)
    times = data.draw(
        st.lists(st.integers(0, 1 << 62), min_size=len(packets), max_size=len(packets))
    )
    for packet, time in zip(packets, times, strict=True):
        assert writer.append(packet, 0, len(packet), -1, len(packet), time)
    with writer.pending() as view:
        stream = bytes(view)
    decoder, found = feed_all(data.draw(pieces(stream)))
    assert (decoder.fault, decoder.consumed) == (0, len(stream))
    assert decoder.captured_ns == times[-1]
    assert len(found.packets) == len(packets)
    for packet, (seen, wire_length, _) in zip(packets, found.packets, strict=True):
        network = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
        own = 20 if packet[0] >> 4 == 4 else 40
        headers = network + (packet[network + 12] >> 4) * 4
        assert seen[own:] == packet[network : headers + payload_bytes]
        assert seen[12:20] == packet[12:20] if own == 20 else seen[:40] == packet[:40]
        assert wire_length == len(packet) - network + own


@given(st.lists(st.binary(max_size=60)), st.sampled_from(TERMS))
def test_any_bytes_of_a_tcpcopy_are_taken_without_exception(
    parts: list[bytes], terms: RelayTerms
) -> None:
    server = ServerHandshake(terms, bytes(32))
    said = b"".join(server.feed(part) for part in parts)
    assert len(said) < 600
    client = ClientHandshake(terms, bytes(32))
    client.opening()
    said = b"".join(client.feed(part) for part in parts if part)
    assert len(said) < 200
    decoder = FrameDecoder()
    total = sum(len(body) for part in parts for _, body in decoder.feed(part))
    assert total <= sum(map(len, parts))


@given(st.data(), st.sampled_from(TERMS), st.sampled_from(TERMS))
def test_both_ends_agree_however_their_words_are_cut(
    data: st.DataObject, ours: RelayTerms, theirs: RelayTerms
) -> None:
    """Native at both ends, classic at both, or a fault that keeps both from going on."""
    client, server = ClientHandshake(ours, bytes(32)), ServerHandshake(theirs, bytes([1] * 32))
    to_server, to_client = client.opening(), b""
    while to_server or to_client:
        to_client += b"".join(server.feed(p) for p in data.draw(pieces(to_server)) if p)
        to_server = b"".join(client.feed(p) for p in data.draw(pieces(to_client)) if p)
        to_client = b""
    if not client.over and not server.fault:
        client.silent()
    if client.kind and not server.fault:
        assert client.kind == server.kind
    if ours.secret != theirs.secret:
        assert not (client.kind and server.kind)


sessions = st.builds(
    encode_message,
    st.sampled_from(MessageType),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 65535),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 65535),
)


@given(st.data(), st.lists(st.one_of(sessions, st.just(b"")), max_size=30))
def test_frames_of_sessions_are_read_however_they_are_cut(
    data: st.DataObject, messages: list[bytes]
) -> None:
    stream = b""
    for message in messages:
        stream += native.frame(FrameType.SESSIONS_V4, message) if message else native.credit(9)
    decoder = FrameDecoder()
    found = [f for part in data.draw(pieces(stream)) for f in decoder.feed(part)]
    assert not decoder.fault
    assert [body for kind, body in found if kind == FrameType.SESSIONS_V4] == [
        m for m in messages if m
    ]


@given(
    st.lists(st.tuples(either, st.integers(0, 6)), max_size=60),
    st.integers(1, 8),
    st.integers(1, 8),
)
@settings(max_examples=60)
def test_router_sums_close(steps: list[tuple[bytes, int]], limit: int, peer_limit: int) -> None:
    """Both families, both kinds of peers, in any order: each answer is counted once."""
    router = AnswerRouter(session_limit=limit, early_limit=limit)
    peer = Peer("", peer_limit)
    writers: list[RecordWriter] = [NativeWriter(0, 2000, peer, window=500)]
    for now, (packet, action) in enumerate(steps):
        router.now_ns = now
        kind = MessageType.REMOVE if action == 1 else MessageType.ADD
        is_v6 = packet[0] >> 4 == 6
        tcp = 40 if is_v6 else (packet[0] & 15) * 4
        source, destination = struct.unpack_from("!HH", packet, tcp)
        if action <= 2 and is_v6:
            message = native.MESSAGE_V6.pack(packet[8:24], packet[24:40], source, destination, kind)
            router.messages_v6(writers[-1], message)
        elif action <= 2:
            message = encode_message(kind, packet[16:20], destination, packet[12:16], source)
            router.messages(writers[-1], message)
        elif action == 3:
            writers[-1].close()
            router.connection_closed()
            writers.append(NativeWriter(len(writers), 2000, peer, window=500))
        elif action == 4:
            router.sweep(now, budget=2)
        router.packet(packet, 0, len(packet), len(packet), 0)
        assert router.sessions <= limit and router.early_sessions <= limit
        assert 0 <= peer.sessions <= min(limit, peer_limit)
        assert peer.sessions == router.sessions
    router.clear()
    assert (router.sessions, router.early_sessions, peer.sessions) == (0, 0, 0)
    unused = sum(router.drops)
    assert router.answers == len(steps) == router.relayed + router.kept + router.lost + unused
    assert router.kept == router.early_sent + router.early_expired
    assert sum(w.records for w in writers) == router.relayed + router.early_sent


@given(st.binary(max_size=120), st.integers(-5, 130), st.integers(-5, 130))
def test_router_takes_any_packet_of_ipv6(data: bytes, start: int, end: int) -> None:
    router = AnswerRouter()
    data = bytes([0x60]) + data
    reason = router.packet(data, start, end, end - start, 0)
    assert router.answers == 1 == router.kept + sum(router.drops)
    assert router.drops[reason] == (1 if reason else 0)
