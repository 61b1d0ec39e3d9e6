"""Sessions in socket mode: the same engine, with kernel connections as the replayed half."""

from __future__ import annotations

import errno

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.kernel import KernelClient, Transport
from tcpcopy.engine.outcome import Drop, Outcome
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import CLIENT_PORT, START, TARGET, Caller, Target, World

OTHER = Target(bytes((10, 9, 0, 4)), 9090)


class Sockets(Transport):
    """Kernel sockets of which the test is the kernel."""

    def __init__(self) -> None:
        self.clients: list[KernelClient] = []
        self.said: list[bytes] = []
        self.unacked: list[int] = []
        self.closed: list[str] = []
        self.world: World | None = None

    def connect(self, client: KernelClient) -> int:
        client.handle = len(self.clients)
        self.clients.append(client)
        self.said.append(b"")
        self.unacked.append(0)
        self.closed.append("")
        return 0

    def send(self, client: KernelClient, data: bytes, at: int) -> int:
        self.said[client.handle] += data[at:]
        return len(data) - at

    def shutdown(self, client: KernelClient) -> int:
        self.closed[client.handle] = "shut"
        return 0

    def unacknowledged(self, client: KernelClient) -> int:
        return self.unacked[client.handle]

    def close(self, client: KernelClient, reset: bool) -> int:
        self.closed[client.handle] = "reset" if reset else "closed"
        return 0

    # --- events ----------------------------------------------------------------------------

    def _happened(self, number: int) -> None:
        assert self.world is not None
        self.world.engine.transport_event(self.clients[number])

    def accept(self, number: int = 0, error: int = 0) -> None:
        assert self.world is not None
        self.clients[number].on_connected(error, self.world.engine.now_ns)
        self._happened(number)

    def answer(self, size: int, number: int = 0) -> None:
        assert self.world is not None
        self.clients[number].on_received(size, self.world.engine.now_ns)
        self._happened(number)

    def end(self, number: int = 0) -> None:
        assert self.world is not None
        self.clients[number].on_end(self.world.engine.now_ns)
        self._happened(number)

    def fail(self, error: int, number: int = 0) -> None:
        assert self.world is not None
        self.clients[number].on_error(error, self.world.engine.now_ns)
        self._happened(number)


def sockets(config: EngineConfig | None = None, **arguments: object) -> tuple[World, Sockets]:
    """A world in socket mode."""
    transport = Sockets()
    world = World(config, transport=transport, **arguments)  # type: ignore[arg-type]
    transport.world = world
    return world, transport


def test_whole_session() -> None:
    world, transport = sockets()
    caller = Caller(world)
    caller.connect()
    caller.say("one")
    assert transport.said == [b""]
    transport.accept()
    assert transport.said == [b"one"]
    caller.say("two", seen=5)
    assert transport.said == [b"one"]
    transport.answer(5)
    world.run_to(2 * MS)  # a moment of quiet after the first answers: sockets show no pushes
    assert transport.said == [b"onetwo"]
    caller.fin()
    assert transport.closed == ["shut"]
    transport.end()
    assert world.outcomes() == {"REPLAYED": 1}
    assert transport.closed == ["closed"]
    assert world.counts.bytes_delivered == 6
    assert world.counts.answer_bytes == 5
    assert world.sent() == []
    world.check_ended()


def test_no_identity_is_asked_for_and_none_is_live() -> None:
    world, transport = sockets()
    Caller(world).connect()
    assert list(world.engine.live_identities()) == []
    assert not world.engine.by_answer
    assert transport.clients[0].target_address == TARGET
    assert transport.clients[0].address == b""


def test_local_addresses_take_turns() -> None:
    addresses = (bytes((10, 5, 0, 1)), bytes((10, 5, 0, 2)))
    world, transport = sockets(local_addresses=addresses)
    for port in range(40000, 40005):
        Caller(world, port).connect()
    assert [client.address for client in transport.clients] == [
        addresses[index % 2] for index in range(5)
    ]


def test_targets_and_copies_are_connections_of_their_own() -> None:
    world, transport = sockets(copies=2, targets=(Target(), OTHER))
    caller = Caller(world)
    caller.connect()
    caller.say("x")
    for number in range(4):
        transport.accept(number)
    assert transport.said == [b"x"] * 4
    ports = [client.target_port for client in transport.clients]
    assert ports == [8080, 8080, 9090, 9090]
    world.check()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errno.ECONNREFUSED, Outcome.REFUSED),
        (errno.ETIMEDOUT, Outcome.CONNECT_TIMEOUT),
        (errno.EHOSTUNREACH, Outcome.SEND_FAILED),
    ],
)
def test_connect_that_fails(error: int, outcome: Outcome) -> None:
    world, transport = sockets()
    caller = Caller(world)
    caller.connect()
    transport.accept(error=error)
    assert world.outcomes() == {outcome.name: 1}
    assert caller.say("x") is Drop.CLOSED_SESSION
    world.check_ended()


def test_client_reset_is_replayed() -> None:
    world, transport = sockets()
    caller = Caller(world)
    caller.connect()
    transport.accept()
    caller.say("x")
    transport.unacked[0] = 1
    caller.rst()
    assert transport.closed == [""]
    world.run_to(50 * MS)
    assert transport.closed == [""]
    transport.unacked[0] = 0
    world.run_to(200 * MS)
    assert transport.closed == ["reset"]
    assert world.outcomes() == {"CLIENT_RESET": 1}
    world.check_ended()


def test_target_resets() -> None:
    world, transport = sockets()
    caller = Caller(world)
    caller.connect()
    transport.accept()
    caller.say("hello")
    transport.unacked[0] = 2
    transport.fail(errno.ECONNRESET)
    assert world.outcomes() == {"RESET": 1}
    assert world.counts.bytes_delivered == 3
    world.check_ended()


def test_target_closes_early() -> None:
    world, transport = sockets()
    caller = Caller(world)
    caller.connect()
    transport.accept()
    transport.end()
    caller.say("hello")
    transport.unacked[0] = 5
    transport.fail(errno.EPIPE)
    assert world.outcomes() == {"CLOSED_EARLY": 1}
    world.check_ended()


@pytest.mark.parametrize(
    ("unacked", "outcome"), [(0, Outcome.IDLE_COMPLETE), (1, Outcome.IDLE_TIMEOUT)]
)
def test_idle_session_whose_data_stand_in_the_kernel(unacked: int, outcome: Outcome) -> None:
    world, transport = sockets(EngineConfig(idle_timeout_ns=5 * SECOND))
    caller = Caller(world)
    caller.connect()
    transport.accept()
    caller.say("x")
    transport.unacked[0] = unacked
    world.run_to(5 * SECOND)
    assert world.outcomes() == {outcome.name: 1}
    assert transport.closed == ["reset"]


@pytest.mark.parametrize(
    ("unacked", "outcome"), [(0, Outcome.OPEN_COMPLETE), (1, Outcome.OPEN_AT_EXIT)]
)
def test_exit(unacked: int, outcome: Outcome) -> None:
    world, transport = sockets()
    caller = Caller(world)
    caller.connect()
    transport.accept()
    caller.say("x")
    transport.unacked[0] = unacked
    assert world.engine.unfinished() == unacked
    world.engine.close_all()
    assert world.outcomes() == {outcome.name: 1}
    assert transport.closed == ["reset"]
    assert world.counts.bytes_delivered == 1 - unacked
    world.check_ended()


def test_port_used_again_while_the_old_replay_still_runs() -> None:
    world, transport = sockets()
    first = Caller(world)
    first.connect()
    first.say("first")
    second = Caller(world, isn=77)
    second.connect()
    second.say("second")
    transport.accept(0)
    transport.accept(1)
    assert transport.said == [b"first", b"second"]
    world.run_to(10 * MS)
    assert transport.closed == ["reset", ""]
    assert world.outcomes() == {"CLIENT_RESET": 1}
    world.check()


def test_event_of_a_session_that_has_ended() -> None:
    world, transport = sockets()
    Caller(world).connect()
    transport.accept(error=errno.ECONNREFUSED)
    world.engine.transport_event(transport.clients[0])
    assert world.outcomes() == {"REFUSED": 1}
    world.check_ended()


def test_session_looks_back_from_its_connection() -> None:
    world, transport = sockets()
    Caller(world).connect()
    (session,) = world.sessions()
    assert transport.clients[0].owner is session
    assert session.replayed is transport.clients[0]
    assert session.last_captured_ns == START
    assert session.captured_addresses >> 32 == int.from_bytes((10, 1, 0, 7), "big")
    assert session.captured_ports >> 16 == CLIENT_PORT
