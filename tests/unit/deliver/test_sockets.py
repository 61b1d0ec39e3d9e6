"""Kernel sockets of socket mode: local addresses and ports, what waits, against the real kernel."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator

import pytest

from tcpcopy.deliver.ports import PortSettings
from tcpcopy.deliver.sockets import SocketTransport
from tcpcopy.engine import replayed
from tcpcopy.engine.chunk import FIN, Chunk, ChunkQueue
from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.kernel import KernelClient
from tcpcopy.packet.batch import PacketBatch
from tests.unit.engine.rig import CollectingSink

LOOPBACK = socket.inet_aton("127.0.0.1")
OTHERS = tuple(socket.inet_aton(f"127.0.0.{number}") for number in (2, 3))


class World:
    """A transport towards a server of this test."""

    def __init__(self, addresses: tuple[bytes, ...] = (), family: int = 4) -> None:
        self.told: list[KernelClient] = []
        self.accepted: list[socket.socket] = []
        self.transport = SocketTransport(self.told.append, 10**12, 10**10, addresses)
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        self.server = socket.socket(kind)
        self.server.bind(("127.0.0.1" if family == 4 else "::1", 0))
        self.server.listen(64)
        self.server.settimeout(5)
        self.target = LOOPBACK if family == 4 else bytes(15) + b"\1"
        self.port = self.server.getsockname()[1]
        self.context = Context(EngineConfig(), PacketBatch(CollectingSink()))

    def client(self, address: bytes = b"") -> KernelClient:
        client = KernelClient(
            self.context, ChunkQueue(), self.transport, address, self.target, self.port
        )
        self.transport.now_ns = time.monotonic_ns()
        client.open(self.transport.now_ns)
        return client

    def turn_until(self, condition: object) -> None:
        until = time.monotonic() + 5
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < until
            self.transport.service(time.monotonic_ns())
            time.sleep(0.001)

    def accept(self, client: KernelClient) -> tuple[socket.socket, tuple[str, int]]:
        connection, peer = self.server.accept()
        self.accepted.append(connection)
        self.turn_until(lambda: client.established)
        return connection, peer[:2]

    def close(self) -> None:
        self.transport.close_all()
        for connection in (*self.accepted, self.server):
            connection.close()

    def session(self, client: KernelClient, *, target_first: bool = False) -> tuple[str, int]:
        """Be accepted and close from both sides; what the server saw."""
        connection, peer = self.accept(client)
        client.queue.append(Chunk(FIN, b"", 0, 0, 0))
        client.queue.release()
        if target_first:
            connection.close()
            self.turn_until(lambda: client.target_closed)
        client.transmit(time.monotonic_ns())
        connection.close()

        def is_over() -> bool:
            now_ns = time.monotonic_ns()
            deadline = client.deadline_ns()
            if deadline and deadline <= now_ns:
                client.run_timers(now_ns)
            return client.ended != replayed.RUNNING

        self.turn_until(is_over)
        assert client.ended == replayed.CLOSED
        return peer


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.mark.parametrize("target_first", [False, True])
def test_port_rests_where_this_side_closed_first(world: World, target_first: bool) -> None:
    use = world.transport.ports.use(b"", LOOPBACK, world.port)
    world.transport.ports.set(PortSettings(reuses=0))
    client = world.client()
    assert use.live == 1
    world.session(client, target_first=target_first)
    assert use.live == 0
    assert use.in_use(time.monotonic_ns()) == (0 if target_first else 1)


@pytest.mark.parametrize("family", [4, 6])
def test_resting_port_is_used_again(family: int) -> None:
    world = World(family=family)
    ports = world.transport.ports
    use = ports.use(b"", world.target, world.port)
    ports.set(PortSettings(reuses=0))
    _, port = world.session(world.client())
    use.full_until_ns = time.monotonic_ns() + 10**10
    waiting = world.client()
    assert world.transport.lines.waiting == 1, "it has not rested for a second"
    world.turn_until(lambda: waiting.handle >= 0)
    assert world.told[-1] is waiting
    assert world.session(waiting)[1] == port and ports.reused == 1
    assert use.in_use(time.monotonic_ns()) == 1
    world.close()


def test_address_without_a_port_is_passed_over() -> None:
    world = World(OTHERS)
    transport = world.transport
    first = transport.ports.use(OTHERS[0], LOOPBACK, world.port)
    first.full_until_ns = time.monotonic_ns() + 10**12
    for _ in range(2):
        client = world.client(OTHERS[0])
        assert world.accept(client)[1][0] == "127.0.0.3"
        client.abort(time.monotonic_ns())
    second = transport.ports.use(OTHERS[1], LOOPBACK, world.port)
    second.full_until_ns = time.monotonic_ns() + 10**12
    world.client(OTHERS[0])
    assert transport.lines.waiting == 1, "all are used up"
    world.close()


def test_address_that_is_not_here_is_passed_over() -> None:
    away = socket.inet_aton("203.0.113.9")
    world = World((away, OTHERS[0]))
    client = world.client(away)
    assert world.accept(client)[1][0] == "127.0.0.2"
    assert world.transport.errors == {errno.EADDRNOTAVAIL: 1}
    client.abort(time.monotonic_ns())
    alone = World((away,))
    alone.client(away)
    assert alone.transport.lines.waiting == 1
    for made in (world, alone):
        made.close()


def test_session_that_ends_leaves_the_line(world: World) -> None:
    use = world.transport.ports.use(b"", LOOPBACK, world.port)
    use.full_until_ns = time.monotonic_ns() + 10**12
    clients = [world.client() for _ in range(3)]
    assert world.transport.lines.waiting == 3 and use.live == 0
    for client in clients:
        client.abort(time.monotonic_ns())
    assert world.transport.lines.waiting == 0
    assert world.transport.next_deadline_ns() == -1


def test_refusal_is_final(world: World) -> None:
    world.server.close()
    client = world.client()
    if client.ended == replayed.RUNNING:
        world.turn_until(lambda: client.ended != replayed.RUNNING)
    assert client.ended == replayed.REFUSED
    assert world.transport.lines.waiting == 0
    assert world.transport.ports.use(b"", LOOPBACK, world.port).live == 0
