"""Both ends of a tunnel on loopback: packets in order, credit, refusals, what is told of drops."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import struct
from typing import cast

import pytest

from tcpcopy.deliver.tunnel import TunnelSender
from tcpcopy.errors import UsageError
from tcpcopy.packet.batch import PacketBatch
from tcpcopy.relay import native
from tcpcopy.relay.classic import RelayFault
from tcpcopy.relay.client import RelayClient
from tcpcopy.relay.injection import Injector
from tcpcopy.relay.native import PacketDrop, RelayTerms
from tcpcopy.relay.tunnel_client import TunnelClient
from tests.unit.relay.packets import SYN, answer
from tests.unit.relay.test_native_ends import SECOND, Start, start
from tests.unit.relay.tunnels import CLIENT, TARGET, FakeDevice, request

__all__ = ["start"]  # a fixture

SECRET = RelayTerms(secret=b"a secret that is shared")
TUNNEL = RelayTerms(secret=b"a secret that is shared", tunnel=True)


class Tunnel:
    """A pair with an injector whose device keeps what it gets."""

    def __init__(self, start: Start, **options: object) -> None:
        self.device = FakeDevice()
        self.injector = Injector(self.device, sources=[ipaddress.ip_network("198.18.0.0/15")])
        self.injector.set_local({TARGET})
        self.pair = start(TUNNEL, injector=self.injector, **options)

    def client(self, connections: int = 2) -> TunnelClient:
        pair = self.pair
        client = TunnelClient(
            [("127.0.0.1", pair.server.port)],
            pair.collector,
            live_sessions=lambda: pair.live,
            terms=TUNNEL,
            connections_per_server=connections,
        )
        pair.clients.append(client)
        for server, connection in client._all():
            client._connect(server, connection, pair.now(), SECOND)
        pair.until(lambda: client.counts()[pair.name].connected == connections)
        return client


def granted(client: RelayClient) -> bool:
    return all(c.packets is not None and c.packets.allowed for _, c in client._all())


def test_announcements_go_ahead_and_packets_keep_their_order(start: Start) -> None:
    """Many sessions over several connections: each one's packets in their order, all of them."""
    tunnel = Tunnel(start)
    client = tunnel.client(5)
    pair = tunnel.pair
    answered: dict[int, int] = {}  # port: what became of an answer to the first packet

    def before(packet: bytes) -> None:
        port = int.from_bytes(packet[20:22], "big")
        if port not in answered:
            answered[port] = pair.answer(answer(target=TARGET, client=CLIENT, client_port=port))

    tunnel.device.at_each = before
    for turn in range(20):
        for port in range(1000, 1050):
            if not turn:
                assert client.announce(CLIENT, port, TARGET, 8080) == 1
            packet = request(target_port=port, seq=turn, payload=b"x" * turn)
            assert client.send_packet(packet) == 0
        pair.step()
    pair.until(lambda: len(tunnel.device.sent) == 1000)
    by_port: dict[int, list[int]] = {}
    for packet in tunnel.device.sent:
        by_port.setdefault(int.from_bytes(packet[20:22], "big"), []).append(
            int.from_bytes(packet[24:28], "big")
        )
    assert set(answered.values()) == {0}, "no session was known when its first packet came"
    assert len(by_port) == 50 and all(order == list(range(20)) for order in by_port.values())


def test_batches_go_through_the_sender(start: Start) -> None:
    tunnel = Tunnel(start)
    client = tunnel.client()
    flushed: list[int] = []
    sender = TunnelSender(client, lambda: flushed.append(1))
    batch = PacketBatch(sender)
    for port in (5, 6, 7):
        batch.tcp(CLIENT, port, TARGET, 80, 1, 2, SYN, 100, False, 0, 0, b"", b"", 0, 0)
    expected = [batch.packet(index) for index in range(3)]
    batch.flush()
    tunnel.pair.until(lambda: len(tunnel.device.sent) == 3)
    assert sorted(tunnel.device.sent) == sorted(expected) and flushed == [1]
    assert sender.errors == {}


def test_more_than_the_queue_holds_is_counted_and_costs_no_memory(start: Start) -> None:
    """An intercept that does not read: 4 MiB are queued for a connection, the rest is lost."""
    tunnel = Tunnel(start)
    client = tunnel.client(1)
    tunnel.pair.until(lambda: granted(client))
    packet = request(payload=b"x" * 1400)
    sender = TunnelSender(client, lambda: client.flush(tunnel.pair.now()))
    codes = [client.send_packet(packet) for _ in range(20_000)]
    assert set(codes) == {0, errno.ENOBUFS}
    (connection,) = (c for _, c in client._all())
    assert connection.packets is not None
    assert connection.packets.waiting_bytes <= 4 << 20
    taken = codes.count(0)
    tunnel.pair.until(lambda: len(tunnel.device.sent) == taken, 20)
    assert sender.errors is client.errors


def test_packets_of_a_connection_that_breaks_are_counted(start: Start) -> None:
    tunnel = Tunnel(start)
    client = tunnel.client(1)
    (connection,) = (c for _, c in client._all())
    assert connection.packets is not None
    connection.packets.allowed = 0  # nothing may go
    for _ in range(7):
        assert client.send_packet(request()) == 0
    assert connection.socket is not None
    tunnel.pair.server.close()
    while connection.up:
        client.service(tunnel.pair.now(), 99)
    assert client.errors == {errno.ECONNRESET: 7}
    assert client.send_packet(request()) == errno.ENOTCONN


def test_what_is_dropped_is_told(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """tcpcopy counts it and logs the reason once."""
    tunnel = Tunnel(start)
    client = tunnel.client(1)
    caplog.set_level(logging.WARNING, "tcpcopy.relay")
    pair = tunnel.pair

    def told(packets: int) -> None:
        pair.until(lambda: tunnel.injector.drops[PacketDrop.SOURCE] == packets)
        pair.server.run_timers(pair.now())
        pair.until(lambda: client.counts()[pair.name].dropped == packets)

    for turn in (1, 2):
        for _ in range(5):
            client.send_packet(request(source=bytes([10, 9, 9, 9])))
        told(5 * turn)
    said = [r for r in caplog.records if "drops packets of ours" in r.getMessage()]
    assert len(said) == 1 and PacketDrop.SOURCE.description in said[0].getMessage()


def test_credit_is_given_again(start: Start) -> None:
    """Far more than the window goes through, a queue at a time."""
    tunnel = Tunnel(start)
    client = tunnel.client(1)
    packet = request(payload=b"y" * 16000)
    count = 3 * native.PACKET_WINDOW_BYTES // len(packet)
    put = 0
    tunnel.device.sent = Counter()  # type: ignore[assignment]
    while put < count:
        while put < count and client.send_packet(packet) == 0:
            put += 1
        tunnel.pair.step()
    tunnel.pair.until(lambda: cast(Counter, tunnel.device.sent).count == count, 20)


class Counter:
    """Stands for the list of what a device got."""

    def __init__(self) -> None:
        self.count = 0

    def append(self, packet: bytes) -> None:
        self.count += 1


def test_packets_beyond_the_credit_end_the_connection(start: Start) -> None:
    tunnel = Tunnel(start)
    client = tunnel.client(1)
    (connection,) = (c for _, c in client._all())
    assert connection.packets is not None
    connection.packets.allowed = 1 << 40  # as one does that heeds no credit
    writer = next(iter(tunnel.pair.server._connections.values())).writer
    assert writer is not None
    tunnel.pair.server._grant = lambda *_: None  # type: ignore[method-assign]
    packet = request(payload=b"z" * 16000)

    def refused() -> bool:
        for _ in range(100):
            client.send_packet(packet)
        return tunnel.pair.server.faults[RelayFault.CREDIT] == 1

    tunnel.pair.until(refused)


@pytest.mark.parametrize("theirs", [TUNNEL, SECRET], ids=["tunnel there", "none there"])
def test_ends_that_do_not_fit(start: Start, theirs: RelayTerms) -> None:
    """Known from the HELLO; nothing is announced, and the client says what to do."""
    pair = start(theirs)
    ours = SECRET if theirs.tunnel else TUNNEL
    client = (TunnelClient if ours.tunnel else RelayClient)(
        [("127.0.0.1", pair.server.port)], pair.collector, terms=ours
    )
    pair.clients.append(client)
    fault = RelayFault.TUNNEL_ONLY if theirs.tunnel else RelayFault.NO_TUNNEL
    for server, connection in client._all():
        client._connect(server, connection, pair.now(), SECOND)
    pair.until(lambda: client.faults[fault] >= 1)
    problems = {c.problem for _, c in client._all()}
    expected = "it runs with --tun: give --via tunnel" if theirs.tunnel else "it has no tunnel"
    assert any(expected in problem for problem in problems)


def test_packets_without_a_tunnel_are_a_fault() -> None:
    decoder = native.FrameDecoder()
    assert list(decoder.feed(native.frame(native.FrameType.PACKETS, b"ab"))) == []
    assert decoder.fault is RelayFault.FRAME
    decoder = native.FrameDecoder(tunnel=True)
    body = b"x" * native.MAX_PACKETS_BYTES
    assert list(decoder.feed(native.frame(native.FrameType.PACKETS, body))) == [
        (native.FrameType.PACKETS, body)
    ]


def test_several_intercepts_each_get_the_packets_of_their_target() -> None:
    servers = [("10.0.0.2", 36524), ("fd00::2", 36524)]
    client = TunnelClient(servers, None, terms=TUNNEL)
    first, second = client._servers
    assert client._server_of(bytes([10, 0, 0, 2])) is first
    assert client._server_of(ipaddress.ip_address("fd00::2").packed) is second
    assert client.send_packet(request(target=bytes([10, 0, 0, 9]))) == errno.EHOSTUNREACH
    assert client.send_packet(request(target=bytes([10, 0, 0, 2]))) == errno.ENOTCONN
    client.check_targets([(bytes([10, 0, 0, 2]), 80)])
    with pytest.raises(UsageError, match=r"-x 10\.0\.0\.9:80: none of the intercepts"):
        client.check_targets([(bytes([10, 0, 0, 2]), 80), (bytes([10, 0, 0, 9]), 80)])
    client.close()


def test_connection_that_breaks_while_something_is_told(start: Start) -> None:
    """The timers find out that a tcpcopy is gone, with more to tell it."""
    tunnel = Tunnel(start)
    client = tunnel.client(2)
    for _ in range(5):
        client.send_packet(request(source=bytes([10, 9, 9, 9])))
    tunnel.pair.until(lambda: tunnel.injector.drops[PacketDrop.SOURCE] == 5)
    tunnel.pair.server.run_timers(tunnel.pair.now())
    tunnel.pair.until(lambda: client.counts()[tunnel.pair.name].dropped == 5)
    tunnel.pair.server.run_timers(tunnel.pair.now())
    for peer in tunnel.pair.server._connections.values():
        peer.dropped += 1  # a packet of which it has not been told
        tunnel.pair.server._watch_writing(peer, True)  # as when it reads slowly
    for _, connection in client._all():
        assert connection.socket is not None
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client._close_socket(connection)
    tunnel.pair.server.run_timers(tunnel.pair.now() + 3 * SECOND)
    assert tunnel.pair.server.connections == 0
