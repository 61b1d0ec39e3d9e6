"""Targets: what either end of the relay reads from the other, and what intercept captures."""

from __future__ import annotations

import ipaddress
import socket

from tcpcopy.relay import native, probing
from tcpcopy.relay.classic import (
    Layout,
    MessageDecoder,
    MessageType,
    RelayFault,
    encode_message,
    encode_version,
)
from tcpcopy.relay.connection import Connection
from tcpcopy.relay.handshake import ClientHandshake, Kind, ServerHandshake
from tcpcopy.relay.injection import Injector
from tcpcopy.relay.native import FrameDecoder, FrameType, RelayMode, RelayTerms
from tcpcopy.relay.native_records import NativeDecoder, NativeWriter
from tcpcopy.relay.probing import Flow, Report, Seen
from tcpcopy.relay.records import Peer, RecordDecoder, RecordWriter
from tcpcopy.relay.router import AnswerRouter
from tests.fuzz import packets
from tests.fuzz.target import Target, cut, exact, joined, pieces, streams
from tests.unit.relay.packets import CLIENT, TARGET, Collector, answer, answer_v6
from tests.unit.relay.tunnels import FakeDevice, body, request, request_v6

_SECRET = b"one secret of both ends"
_TERMS = (
    RelayTerms(),
    RelayTerms(RelayMode.CLASSIC),
    RelayTerms(RelayMode.NATIVE),
    RelayTerms(secret=_SECRET),
    RelayTerms(tunnel=True),
)
_LAYOUTS = tuple(Layout)
_OPTIONS = bytes([1, 1, 8, 10, *range(8), 2, 4, 5, 180, 1, 1, 5, 10, *range(8)])


def answers() -> list[bytes]:
    """What a target sends: both families, options, payload, IP options."""
    return [
        answer(),
        answer(options=_OPTIONS, payload=b"x" * 200),
        answer(flags=0x12, network_options=bytes([1] * 8)),
        answer_v6(options=_OPTIONS),
        answer_v6(payload=b"y" * 30, flags=0x11),
    ]


def _packed(writer: RecordWriter) -> bytes:
    for packet in answers():
        writer.append(packet, 0, len(packet), -1, len(packet), 1_700_000_000_000_000_000)
    if isinstance(writer, NativeWriter):
        writer.ping(7)
        writer.credit(1 << 20)
        writer.dropped(3, 5)
        writer.put_frame(native.frame(FrameType.REPORT, _report()))
    with writer.pending() as view:
        return bytes(view)


def _native_streams() -> list[bytes]:
    return streams(_packed(NativeWriter(window=1 << 20, payload_bytes=64)))


def _classic_streams() -> list[bytes]:
    """A layout (its place in the list), then a stream of it."""
    found = []
    for layout in _LAYOUTS[1:]:
        stream = _packed(RecordWriter(layout=layout))
        found += [bytes([at]) + s for at in (0, _LAYOUTS.index(layout)) for s in streams(stream)]
    return found


def _report() -> bytes:
    seen = (Seen("syn", "10.0.0.1:1", "10.0.0.2:2", "eth0", True, 3),)
    return probing.encode_report(
        Report("1.0", "tcp", ("eth0",), 5, 1, True, None, seen, seen, "none")
    )


def _records(data: bytes) -> None:
    """A classic intercept's stream, of the layout that the first byte names."""
    layout = _LAYOUTS[data[0] % len(_LAYOUTS)] if data else Layout.AUTO
    decoder = RecordDecoder(Collector(), layout, 1024)
    for piece in cut(data[1:]):
        decoder.feed(piece, 0)
    assert decoder.records >= decoder.malformed


def _native_records(data: bytes) -> None:
    """A native intercept's stream; numbers in it stay numbers."""
    collector = Collector()
    decoder = NativeDecoder(collector, 1024)
    for piece in cut(data):
        decoder.feed(piece, 0)
    assert decoder.records == len(collector.packets)
    assert 0 <= decoder.captured_ns < 1 << 63
    for number in (decoder.told_lost, decoder.packet_credit, decoder.told_dropped):
        assert 0 <= number <= 1 << 62
    assert 0 <= decoder.told_reason < 1 << 16
    for report in decoder.take_reports():
        probing.read_report(report)


def _connection(data: bytes) -> None:
    """tcpcopy's end of a connection, from the first byte: handshake, then what follows."""
    terms = _TERMS[data[0] % len(_TERMS)] if data else _TERMS[0]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = Connection("fuzz", 0)
        connection.socket = ours
        connection.open_relay(terms)
        handshake = connection.handshake
        assert handshake is not None
        for piece in cut(data[1:]):
            if handshake.over:
                break
            connection.out += handshake.feed(piece)
        if not handshake.over:
            handshake.silent()
        if handshake.fault:
            assert handshake.problem
            return
        connection.come_up(Collector(), Layout.AUTO, 0)
        theirs.send(data[-512:])
        connection.read(0)
        for taken in (connection.take_losses(), connection.take_dropped()[0]):
            assert taken >= 0
        connection.take_credit()
        connection.grant()
        connection.close()


def _client_streams() -> list[bytes]:
    """An intercept's words, for each of the terms; its proof is right where there is no secret."""
    found = []
    for place, terms in enumerate(_TERMS):
        client, server = ClientHandshake(terms, bytes(32)), ServerHandshake(terms, bytes(32))
        said = server.feed(client.opening())
        said += server.feed(client.feed(said))
        found += [bytes([place]) + s for s in streams(said + _packed(NativeWriter(window=9999)))]
    found += [b"\0" + s for s in streams(_packed(RecordWriter()))]
    found += [b"\0" + s for s in streams(native.refused(RelayFault.SECRET_WRONG))]
    return found


def _server_streams() -> list[bytes]:
    """A tcpcopy's words, for each of the terms, with what it says behind the handshake."""
    found = []
    for place, terms in enumerate(_TERMS):
        client, server = ClientHandshake(terms, bytes(32)), ServerHandshake(terms, bytes(32))
        said = client.opening()
        said += client.feed(server.feed(said))
        found += [bytes([place]) + s for s in streams(said + _frames())]
    found += [b"\0" + s for s in streams(encode_version() + _messages())]
    return found


def _messages() -> bytes:
    return encode_message(MessageType.ADD, CLIENT, 40001, TARGET, 8080) + encode_message(
        MessageType.REMOVE, CLIENT, 40001, TARGET, 8080
    )


def _messages_v6() -> bytes:
    ends = (answer_v6()[8:24], answer_v6()[24:40], 8080, 40001)
    return native.MESSAGE_V6.pack(*ends, 1) + native.MESSAGE_V6.pack(*ends, 2)


def _frames() -> bytes:
    flow = Flow(TARGET, 8080, CLIENT, 40001)
    return b"".join((
        native.frame(FrameType.SESSIONS_V4, _messages()),
        native.frame(FrameType.SESSIONS_V6, _messages_v6()),
        native.credit(1 << 22),
        native.frame(FrameType.PING),
        native.frame(FrameType.PROBE, probing.encode_probe(flow, watch=True)),
        native.frame(FrameType.PACKETS, body(request(), request_v6(payload=b"data"))),
    ))  # fmt: skip


def _client_handshake(data: bytes) -> None:
    client = ClientHandshake(_TERMS[data[0] % len(_TERMS)] if data else _TERMS[0], bytes(32))
    client.opening()
    said = sum(len(client.feed(piece)) for piece in cut(data[1:]))
    assert said < 200
    assert not client.fault or client.problem
    if _TERMS[data[0] % len(_TERMS) if data else 0].secret:
        assert client.kind != Kind.CLASSIC


def _server_handshake(data: bytes) -> None:
    """Handshake, then frames or messages, as the server takes them; a router behind it."""
    terms = _TERMS[data[0] % len(_TERMS)] if data else _TERMS[0]
    server = ServerHandshake(terms, bytes(32))
    said = 0
    for piece in cut(data[1:]):
        said += len(server.feed(piece))
    assert said < 600
    if server.kind == Kind.NATIVE:
        _take_frames(server.rest, terms.tunnel)
    elif server.kind == Kind.CLASSIC:
        assert not terms.secret
        _take_messages([server.rest])


def _take_messages(parts: list[bytes]) -> None:
    decoder = MessageDecoder()
    router, writer = AnswerRouter(session_limit=20), RecordWriter(0)
    for part in parts:
        router.messages(writer, decoder.feed(part))
    assert router.sessions <= 20
    router.clear()


def _take_frames(stream: bytes, tunnel: bool) -> None:
    decoder = FrameDecoder(tunnel)
    router, writer = AnswerRouter(session_limit=20), NativeWriter(0)
    for kind, what in decoder.feed(stream):
        if kind == FrameType.SESSIONS_V4:
            router.messages(writer, what)
        elif kind == FrameType.SESSIONS_V6:
            router.messages_v6(writer, what)
        elif kind == FrameType.CREDIT:
            writer.grant(native.read_credit(what))
        elif kind == FrameType.PROBE:
            _probe(what)
        elif kind == FrameType.PACKETS:
            _inject(what)
    router.clear()


def _inject(data: bytes) -> None:
    """The body of PACKETS: what is not sound or not allowed does not reach the device."""
    device = FakeDevice()
    injector = Injector(
        device,
        sources=[
            ipaddress.ip_network("198.18.0.0/15"),
            ipaddress.ip_network("fd00:7463:7063::/48"),
        ],
        destinations=[(request()[16:20], 0), (request_v6()[24:40], 40001)],
    )
    injector.set_local({request()[16:20], request_v6()[24:40]})
    dropped = injector.inject(exact(data))
    assert injector.injected == len(device.sent)
    assert sum(injector.drops) == dropped
    for packet in device.sent:
        assert ipaddress.ip_address(_source(packet)) in ipaddress.ip_network(
            "198.18.0.0/15" if packet[0] >> 4 == 4 else "fd00:7463:7063::/48"
        )


def _source(packet: bytes) -> bytes:
    return packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]


def _probe(data: bytes) -> None:
    found = probing.read_probe(data)
    if found is not None:
        flow, watch = found
        assert probing.read_probe(probing.encode_probe(flow, watch=watch)) == found


def _probe_report(data: bytes) -> None:
    """What was read can be said again, and is then the same."""
    report = probing.read_report(data)
    again = probing.read_report(probing.encode_report(report))
    assert again == report or probing.encode_report(report) == b"{}"


def _router(data: bytes) -> None:
    """Announcements of two connections, answers, time and closing, in any order; sums close."""
    router = AnswerRouter(session_limit=8, early_limit=4)
    peers = [Peer("10.0.0.1", 6), Peer("10.0.0.2", 6)]
    writers: list[RecordWriter] = [
        NativeWriter(0, limit_bytes=4096, peer=peers[0], window=2048),
        RecordWriter(1, limit_bytes=4096, peer=peers[1]),
    ]
    for kind, what in pieces(data):
        writer = writers[kind >> 7]
        if kind & 7 == 0:
            view = exact(what)
            router.packet(view, 0, len(what), len(what) + (kind >> 3 & 1) * 70_000, router.now_ns)
        elif kind & 7 == 1:
            router.messages(writer, what[: len(what) // 14 * 14])
        elif kind & 7 == 2:
            router.messages_v6(writer, what[: len(what) // 38 * 38])
        elif kind & 7 == 3:
            router.now_ns += len(what) * 1_000_000_000
            router.sweep(router.now_ns, budget=3)
        elif kind & 7 == 4:
            for ready in router.take_ready():
                with ready.pending() as view:
                    count = len(view)
                ready.sent(count)
        elif kind & 7 == 5 and isinstance(writer, NativeWriter):
            writer.grant(int.from_bytes(what[:8], "big") >> 2)
        assert router.sessions <= 8 and router.early_sessions <= 4
    router.clear()
    assert all(peer.sessions == 0 for peer in peers)


def _router_inputs() -> list[bytes]:
    found = answers()
    v4 = [(0, found[0]), (1, _messages()[:14]), (128, found[1]), (4, b""), (1, _messages()[14:])]
    v6 = [
        (2, _messages_v6()[:38]),
        (0, found[3]),
        (129, _messages()),
        (3, bytes(200)),
        (0, found[4]),
    ]
    return [joined(*v4), joined(*v6), joined(*v4, (5, b"\xff" * 8), *v6, *v4)]


TARGETS = (
    Target("records", _records, _classic_streams, words=(b"\0\1", b"\0\x10", b"E\0")),
    Target("native_records", _native_records, _native_streams),
    Target("connection", _connection, _client_streams),
    Target("client_handshake", _client_handshake, _client_streams),
    Target("server_handshake", _server_handshake, _server_streams),
    Target("messages", lambda data: _take_messages(cut(data)),
           lambda: streams(encode_version() + _messages())),
    Target("frames", lambda data: _take_frames(data[1:], bool(data[:1] > b"\x7f")),
           lambda: [b"\0" + _frames()[:-150], b"\xff" + _frames()]),
    Target("injection", _inject, lambda: [
        body(request(), request_v6()), body(*packets.segments()), body(*packets.fragments()),
    ]),
    Target("probe", _probe, lambda: [
        probing.encode_probe(Flow(TARGET, 8080, CLIENT, 40001), watch=True)
    ]),
    Target("probe_report", _probe_report, lambda: [_report(), b"{}"], words=(
        b'"seen":', b"[[", b"null", b"1e999", b'"\\u001b[2J"', b"99999999999999999999",
    )),
    Target("router", _router, _router_inputs),
)  # fmt: skip
