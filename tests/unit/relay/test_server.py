"""Intercept's end with real sockets on loopback: peers that behave, garble, stall and go."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.relay.classic import Layout, MessageType, RelayFault, encode_message, encode_version
from tcpcopy.relay.records import RecordDecoder
from tcpcopy.relay.router import AnswerRouter
from tcpcopy.relay.server import RelayServer
from tests.unit.relay.packets import ACK, CLIENT, SYN, TARGET, Collector, answer, batch, record

SECOND = 1_000_000_000


def add(port: int) -> bytes:
    return encode_message(MessageType.ADD, CLIENT, port, TARGET, 8080)


class Intercept:
    """A server with its router on a free loopback port, and what tests do with them."""

    def __init__(self, **options: object) -> None:
        self.router = AnswerRouter()
        self.server = RelayServer(self.router, host="127.0.0.1", port=0, **options)  # type: ignore[arg-type]
        self.server.open()
        self.peers: list[socket.socket] = []

    def connect(self, hello: bytes = encode_version(), address: str = "127.0.0.1") -> socket.socket:
        peer = socket.create_connection(
            ("127.0.0.1", self.server.port), timeout=5, source_address=(address, 0)
        )
        self.peers.append(peer)
        peer.sendall(hello)
        return peer

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline, "it does not happen"
            self.server.service(0)
            time.sleep(0.001)

    def answer(self, port: int, flags: int = ACK) -> bytes:
        packet = answer(client_port=port, flags=flags)
        self.router.packet(packet, 0, len(packet), len(packet), 0)
        self.server.flush()
        return packet

    def close(self) -> None:
        self.server.close()
        for peer in self.peers:
            peer.close()


Start = Callable[..., Intercept]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes intercepts, and closes them when the test ends."""
    with contextlib.ExitStack() as stack:

        def begin(**options: object) -> Intercept:
            intercept = Intercept(**options)
            stack.callback(intercept.close)
            return intercept

        yield begin


@pytest.fixture
def intercept(start: Start) -> Intercept:
    return start()


def receive(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        assert more, "closed"
        data += more
    return data


def assert_closed(peer: socket.socket) -> None:
    try:
        assert peer.recv(1) == b""
    except ConnectionResetError:
        pass


def test_answers_reach_the_tcpcopy_that_announced_the_session(intercept: Intercept) -> None:
    """Two tcpcopies with two connections each, as the C program opens them."""
    peers = [intercept.connect() for _ in range(4)]
    for number, peer in enumerate(peers):
        peer.sendall(add(1000 + number))
    intercept.until(lambda: intercept.router.announced == 4)
    assert intercept.server.connections == 4
    for number, peer in enumerate(peers):
        packet = intercept.answer(1000 + number)
        assert receive(peer, 66) == batch(record(packet))


def test_early_answer_is_sent_when_announced(intercept: Intercept) -> None:
    packet = intercept.answer(1000, SYN | ACK)
    peer = intercept.connect(encode_version() + add(1000))
    intercept.until(lambda: intercept.router.early_sent == 1)
    assert receive(peer, 66) == batch(record(packet))


def test_answers_of_one_drain_go_as_batches(start: Start) -> None:
    intercept = start(batch_records=3)
    peer = intercept.connect(encode_version() + add(7))
    intercept.until(lambda: intercept.router.announced == 1)
    packet = answer(client_port=7)
    for _ in range(7):
        intercept.router.packet(packet, 0, len(packet), len(packet), 0)
    intercept.server.flush()
    expected = batch(*[record(packet)] * 3) * 2 + batch(record(packet))
    assert receive(peer, len(expected)) == expected


@pytest.mark.parametrize("layout", [Layout.BARE, Layout.BATCHED_PAYLOAD])
def test_other_layouts(start: Start, layout: Layout) -> None:
    intercept = start(layout=layout)
    peer = intercept.connect(encode_version() + add(7))
    intercept.until(lambda: intercept.router.announced == 1)
    packet = intercept.answer(7)
    expected = record(packet, layout.record_bytes)
    if layout.is_batched:
        expected = batch(expected)
    assert receive(peer, len(expected)) == expected


@pytest.mark.parametrize(
    ("hello", "fault"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", RelayFault.NOT_A_TCPCOPY),
        (bytes(14), RelayFault.OLD_VERSION),
        (encode_version() + b"\xff" * 14, RelayFault.MESSAGE_TYPE),
    ],
)
def test_garbage_is_dropped_counted_and_harms_nobody(
    intercept: Intercept, hello: bytes, fault: RelayFault
) -> None:
    good = intercept.connect(encode_version() + add(1000))
    bad = intercept.connect(hello)
    intercept.until(lambda: intercept.server.faults[fault] == 1)
    assert_closed(bad)
    assert sum(intercept.server.faults) == 1
    packet = intercept.answer(1000)
    assert receive(good, 66) == batch(record(packet))


def test_peer_that_says_nothing_is_dropped_after_a_while(intercept: Intercept) -> None:
    silent, partial, good = (
        intercept.connect(b""),
        intercept.connect(encode_version()[:13]),
        intercept.connect(),
    )
    intercept.until(lambda: intercept.server.connections == 1)
    intercept.until(lambda: not select_readable(intercept))
    intercept.server.run_timers(10 * SECOND)
    assert intercept.server.faults[RelayFault.SILENT] == 0
    intercept.server.run_timers(11 * SECOND)
    assert intercept.server.faults[RelayFault.SILENT] == 2
    assert intercept.server.connections == 1
    assert_closed(silent)
    assert_closed(partial)
    good.sendall(add(1))
    intercept.until(lambda: intercept.router.announced == 1)


def select_readable(intercept: Intercept) -> bool:
    return bool(select.select([intercept.server], [], [], 0.05)[0])


def test_connections_are_limited(start: Start) -> None:
    intercept = start(connection_limit=2)
    peers = []
    for number in range(3):
        peers.append(intercept.connect())
        intercept.until(lambda: intercept.server.accepted + intercept.server.refused > number)  # noqa: B023
    assert intercept.server.refused == 1
    assert_closed(peers[2])
    peers[0].close()
    intercept.until(lambda: intercept.server.connections == 1)
    intercept.connect()
    intercept.until(lambda: intercept.server.accepted == 3)


def test_without_descriptors_it_waits_instead_of_spinning(intercept: Intercept) -> None:
    """The connection stays in the backlog, and is accepted when there is room again."""
    intercept.connect()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        intercept.server.service(0)
        assert intercept.server.accepted == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not select_readable(intercept)
    intercept.server.run_timers(1)
    intercept.until(lambda: intercept.server.accepted == 1)


def test_protected_connections_keep_other_hosts_out(start: Start) -> None:
    """-c: as long as one tcpcopy is there; with more connections of its own it goes on."""
    intercept = start(protected=True)
    first = intercept.connect()
    intercept.until(lambda: intercept.server.connections == 1)
    other = intercept.connect(address="127.0.0.2")
    own = intercept.connect()
    intercept.until(lambda: intercept.server.connections == 2 and intercept.server.refused == 1)
    assert_closed(other)
    first.close()
    own.close()
    intercept.until(lambda: intercept.server.connections == 0)
    intercept.connect(address="127.0.0.2")
    intercept.until(lambda: intercept.server.connections == 1)


def test_slow_reader_loses_records_not_memory_and_gets_whole_batches(start: Start) -> None:
    """It reads nothing for a while; what it reads later is an unbroken stream."""
    intercept = start(buffer_bytes=32768)
    slow = intercept.connect(encode_version() + add(1))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    quick = intercept.connect(encode_version() + add(2))
    intercept.until(lambda: intercept.router.announced == 2)
    packet = answer(client_port=1)
    total = 0
    while intercept.router.lost < 1000:
        intercept.router.packet(packet, 0, len(packet), len(packet), 0)
        total += 1
        if total % 50 == 0:
            intercept.server.service(0)
        assert total < 1_000_000
    receive_one = intercept.answer(2)
    assert receive(quick, 66) == batch(record(receive_one))
    collector = Collector()
    decoder = RecordDecoder(collector, Layout.BATCHED)
    slow.settimeout(5)
    while len(collector.packets) < intercept.router.relayed - 1:
        intercept.server.service(0)
        decoder.feed(slow.recv(65536), 0)
    assert decoder.fault == 0
    assert intercept.server.lost_records() == intercept.router.lost
    assert intercept.router.relayed - 1 + intercept.router.lost == total


def test_connection_that_goes_takes_its_sessions_and_counts_what_was_not_sent(start: Start) -> None:
    intercept = start()
    peer = intercept.connect(encode_version() + add(1))
    intercept.until(lambda: intercept.router.announced == 1)
    packet = answer(client_port=1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    peer.close()  # with a reset
    for _ in range(5):
        intercept.router.packet(packet, 0, len(packet), len(packet), 0)
    intercept.until(lambda: intercept.server.connections == 0)
    intercept.router.sweep(1)
    assert intercept.router.sessions == 0
    assert intercept.server.lost_records() == 5
    again = intercept.connect(encode_version() + add(1))
    intercept.until(lambda: intercept.router.announced == 2)
    intercept.answer(1)
    assert receive(again, 66) == batch(record(packet))


def test_port_in_use_and_foreign_address_are_usage_errors(intercept: Intercept) -> None:
    second = RelayServer(intercept.router, host="127.0.0.1", port=intercept.server.port)
    with pytest.raises(UsageError, match=r"^-p \d+: the port is in use; "):
        second.open()
    second.close()
    foreign = RelayServer(intercept.router, host="192.0.2.1", port=0)
    with pytest.raises(UsageError, match=r"^-b 192\.0\.2\.1: not an address of this host; "):
        foreign.open()
    foreign.close()


def test_nothing_stays_open_after_close() -> None:
    before = set(os.listdir("/proc/self/fd"))
    intercept = Intercept()
    for _ in range(20):
        intercept.connect()
    intercept.until(lambda: intercept.server.connections == 20)
    intercept.close()
    assert set(os.listdir("/proc/self/fd")) == before
