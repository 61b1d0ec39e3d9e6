"""UDP through kernel sockets of this host: order, sizes, errors and answers, on loopback."""

from __future__ import annotations

import errno
import resource
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from tcpcopy.deliver.datagrams import DatagramSockets
from tcpcopy.engine.flow import DatagramCounts, Flow, Leg
from tcpcopy.report.flow_outcome import DatagramDrop, FlowOutcome
from tests.lab.scenario import wait_until

LOOPBACK = bytes((127, 0, 0, 1))


class World:
    def __init__(self, local_addresses: tuple[bytes, ...] = ()) -> None:
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.server.bind(("127.0.0.1", 0))
        self.server.settimeout(5)
        self.port = self.server.getsockname()[1]
        self.counts = DatagramCounts()
        self.answers: list[tuple[Leg, int]] = []
        self.sockets = DatagramSockets(
            self.counts, lambda leg, length: self.answers.append((leg, length)), local_addresses
        )

    def leg(self, port: int = 0, address: bytes = LOOPBACK) -> Leg:
        leg = Leg(Flow(b"key", 0), address, port or self.port)
        leg.outcome = self.sockets.open(leg, b"", 0, 0)
        return leg

    def send(self, leg: Leg, data: bytes) -> None:
        self.sockets.send(leg, b"<" + data + b">", 1, len(data))

    def received(self) -> tuple[bytes, tuple[str, int]]:
        data, peer = self.server.recvfrom(65536)
        return data, peer

    def until(self, condition: Callable[[], bool]) -> None:
        def look() -> bool:
            self.sockets.service()
            return condition()

        assert wait_until(look, 5)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.sockets.close_all()
    world.server.close()


def test_each_leg_has_a_port_and_keeps_its_order(world: World) -> None:
    legs = [world.leg() for _ in range(5)]
    for number in range(100):
        world.send(legs[number % 5], bytes([number]))
    assert world.counts.datagram_drop_counts()[0] == 0, "nothing before the flush"
    world.sockets.flush()
    by_peer: dict[int, list[int]] = {}
    for _ in range(100):
        data, peer = world.received()
        by_peer.setdefault(peer[1], []).append(data[0])
    assert sorted(by_peer.values()) == [list(range(start, 100, 5)) for start in range(5)]
    assert world.counts.datagram_drop_counts()[0] == world.counts.bytes_sent == 100
    assert [leg.queued for leg in legs] == [0] * 5


def test_sizes(world: World) -> None:
    leg = world.leg()
    sizes = (0, 1, 1472, 1473, 9000, 65507)
    for size in sizes:
        world.send(leg, b"x" * size)
    world.sockets.flush()
    assert [len(world.received()[0]) for _ in sizes] == list(sizes)


def test_more_than_the_arena_holds(world: World) -> None:
    """It is sent in between, in order."""
    leg = world.leg()
    got = []
    for number in range(40):
        world.send(leg, bytes([number]) * 60000)
        if number % 4 == 3:
            world.sockets.flush()
            got += [world.received()[0][0] for _ in range(4)]
    assert got == list(range(40))


def test_many_small_ones_at_once(world: World) -> None:
    leg = world.leg()
    for number in range(600):
        world.send(leg, number.to_bytes(2, "big"))
    world.sockets.flush()
    assert [int.from_bytes(world.received()[0], "big") for _ in range(600)] == list(range(600))


def test_too_long_for_the_other_ip_version(world: World) -> None:
    leg = world.leg()
    world.send(leg, bytes(65508))
    world.send(leg, b"next")
    world.sockets.flush()
    assert world.received()[0] == b"next"
    assert world.counts.datagram_drop_counts()[DatagramDrop.SEND_ERROR] == 1
    assert world.counts.errors == {errno.EMSGSIZE: 1}
    assert leg.final_outcome() == FlowOutcome.INCOMPLETE


def test_answers_are_counted_by_leg(world: World) -> None:
    legs = [world.leg(), world.leg()]
    for leg, data in zip(legs, (b"one", b"two"), strict=True):
        world.send(leg, data)
    world.sockets.flush()
    for _ in legs:
        data, peer = world.received()
        for size in (0, 5, 9000)[: 3 if data == b"one" else 1]:
            world.server.sendto(bytes(size), peer)
    world.until(lambda: len(world.answers) == 4)
    assert [length for leg, length in world.answers if leg is legs[0]] == [0, 5, 9000]
    assert [length for leg, length in world.answers if leg is legs[1]] == [0]


def test_closed_port(world: World) -> None:
    """The ICMP error of one datagram does not swallow the next."""
    world.server.close()
    leg = world.leg()
    for _ in range(5):
        world.send(leg, b"anybody?")
        world.sockets.flush()
    assert world.counts.datagram_drop_counts()[0] == leg.sent == 5
    world.until(lambda: leg.refused == 5)
    assert leg.final_outcome() == FlowOutcome.REFUSED
    assert world.counts.refusals == 5


def test_target_comes_back(world: World) -> None:
    world.server.close()
    leg = world.leg()
    world.send(leg, b"first")
    world.sockets.flush()
    world.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    world.server.bind(("127.0.0.1", world.port))
    world.server.settimeout(5)
    world.send(leg, b"second")
    world.sockets.flush()
    assert world.received()[0] == b"second"


def test_closing_counts_what_has_come_and_frees_the_port(world: World) -> None:
    leg = world.leg()
    world.send(leg, b"x")
    world.sockets.flush()
    _, peer = world.received()
    world.server.sendto(b"late", peer)
    handle = leg.handle
    assert wait_until(lambda: bool(select.select([handle], [], [], 0)[0]), 5)
    world.sockets.close(leg)
    assert world.answers == [(leg, 4)]
    assert leg.handle == -1 and leg.connection is None
    world.sockets.close(leg)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(peer)


def test_local_addresses_in_turn() -> None:
    world = World((bytes((127, 0, 0, 21)), bytes((127, 0, 0, 22))))
    for _ in range(4):
        world.send(world.leg(), b"x")
    world.sockets.flush()
    peers = [world.received()[1][0] for _ in range(4)]
    assert sorted(peers) == ["127.0.0.21"] * 2 + ["127.0.0.22"] * 2
    world.sockets.close_all()
    world.server.close()


def test_no_more_files_is_a_limit_to_wait_for(world: World) -> None:
    with socket.socket() as free:
        lowest = free.fileno()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        assert world.leg().outcome == -1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert world.leg().outcome == 0


def test_no_way_is_a_failure(world: World) -> None:
    leg = world.leg(53, bytes((255, 255, 255, 255)))
    assert leg.outcome == 0, "it may be there for the next datagram"
    for _ in range(2):
        world.send(leg, b"x")
        world.sockets.flush()
    assert leg.final_outcome() == FlowOutcome.SEND_FAILED
    assert world.counts.errors == {errno.EACCES: 2}
    assert world.counts.datagram_drop_counts()[DatagramDrop.SEND_ERROR] == 2


def test_way_that_comes_back(world: World) -> None:
    """The flow goes on; what came before is lost, and counted with the error."""
    leg = world.leg(address=bytes((255, 255, 255, 255)))
    world.send(leg, b"lost")
    world.sockets.flush()
    leg.target_address = LOOPBACK
    for data in (b"one", b"two"):
        world.send(leg, data)
    world.sockets.flush()
    assert [world.received()[0] for _ in range(2)] == [b"one", b"two"]
    assert (leg.sent, leg.dropped) == (2, 1)
    assert leg.final_outcome() == FlowOutcome.INCOMPLETE
