"""Opening sessions: targets, copies, identities, sampling, shedding."""

from __future__ import annotations

import pytest

from tcpcopy.engine.chunk import CHUNK_COST
from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.outcome import Drop, Outcome
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import (
    CLIENT,
    CLIENT_PORT,
    TARGET,
    TARGET_PORT,
    Answerer,
    Caller,
    Ports,
    Target,
    World,
    reasons,
)

OTHER = Target(bytes((10, 9, 0, 4)), 9090)


class Announcements:
    """Notes what is announced, and whether something had been sent before."""

    def __init__(self) -> None:
        self.made: list[tuple[bytes, int, bytes, int]] = []
        self.withdrawn: list[tuple[bytes, int, bytes, int]] = []
        self.world: World | None = None

    def announce(self, mapped: bytes, mapped_port: int, target: bytes, target_port: int, /) -> int:
        assert self.world is not None and self.world.batch.count == 0
        self.made.append((mapped, mapped_port, target, target_port))
        return 0

    def withdraw(self, mapped: bytes, mapped_port: int, target: bytes, target_port: int, /) -> None:
        self.withdrawn.append((mapped, mapped_port, target, target_port))


# --- targets and copies --------------------------------------------------------------------


def test_session_goes_to_every_target() -> None:
    world = World(targets=(Target(), OTHER))
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    caller.say("hello")
    target.settle()
    caller.fin()
    target.settle()
    assert sorted(target.heard) == [
        (CLIENT, CLIENT_PORT, TARGET, TARGET_PORT),
        (CLIENT, CLIENT_PORT, OTHER.target_address, 9090),
    ]
    assert target.texts() == ["hello", "hello"]
    assert world.counts.sessions == 2
    assert world.counts.bytes_captured == 10
    assert world.outcomes() == {"REPLAYED": 2}
    world.check_ended()


def test_copies() -> None:
    """-n: each copy is a session of its own, from a port of its own."""
    world = World(copies=3)
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    caller.say("hello")
    target.settle()
    assert [key[1] for key in target.heard] == [CLIENT_PORT, CLIENT_PORT + 1, CLIENT_PORT + 2]
    assert [session.copy for session in world.sessions()] == [0, 1, 2]
    caller.fin()
    target.settle()
    assert target.texts() == ["hello"] * 3
    assert world.outcomes() == {"REPLAYED": 3}
    assert world.counts.sessions == 3
    world.check_ended()


@pytest.mark.parametrize("first", [0, 1, 2])
def test_copies_that_end_leave_the_others(first: int) -> None:
    """The first, the middle one or the last of a chain of siblings is reset by the target."""
    world = World(copies=3)
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    target.settle()
    caller.say("hello")
    requests = world.sent()
    assert len(requests) == 3
    gone = requests[first]
    target.tell(gone, "RA", seq=target.isn + 1, ack=gone.seq)
    assert world.outcomes() == {"RESET": 1}
    assert world.counts.live == 2
    assert caller.say(" again") == 0
    for request in requests:
        if request is not gone:
            target._take(request)
    target.settle()
    assert sorted(target.texts()) == ["", "hello again", "hello again"]
    caller.fin()
    target.settle()
    assert world.outcomes() == {"RESET": 1, "REPLAYED": 2}
    assert caller.again() is Drop.CLOSED_SESSION
    world.check_ended()


def test_copies_are_answered_at_their_own_pace() -> None:
    world = World(copies=2)
    target = Answerer(world, "OK")
    caller = Caller(world)
    caller.connect()
    target.settle()
    caller.say("one")
    target.deaf.add(CLIENT_PORT)
    target.settle()
    caller.say("two", seen=2)
    target.settle()
    assert target.texts() == ["", "onetwo"]


# --- identities ----------------------------------------------------------------------------


def test_identity_is_taken_and_given_back_once() -> None:
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    ports = world.ports
    assert isinstance(ports, Ports)
    assert ports.live == {(CLIENT, CLIENT_PORT, TARGET, TARGET_PORT)}
    caller.fin()
    target.settle()
    world.run_to(5 * SECOND)
    assert ports.released == [(CLIENT, CLIENT_PORT, TARGET, TARGET_PORT)]


def test_without_a_free_port_a_session_is_not_taken_on() -> None:
    world = World(ports=Ports(limit=1))
    Caller(world).connect()
    other = Caller(world, 40002)
    assert other.syn() is Drop.SHED_SESSION
    assert other.say("x") is Drop.SHED_SESSION
    assert world.outcomes() == {"NO_ADDRESS": 1}
    world.check()


def test_some_copies_without_a_free_port() -> None:
    world = World(ports=Ports(limit=2), copies=3)
    caller = Caller(world)
    caller.connect()
    assert world.counts.live == 2
    assert world.outcomes() == {"NO_ADDRESS": 1}
    assert caller.say("x") == 0
    world.check()


def test_sessions_are_announced_before_their_syn() -> None:
    announcements = Announcements()
    world = World(targets=(Target(), OTHER), announcer=announcements)
    announcements.world = world
    Caller(world).syn()
    assert announcements.made == [
        (CLIENT, CLIENT_PORT, TARGET, TARGET_PORT),
        (CLIENT, CLIENT_PORT, OTHER.target_address, 9090),
    ]
    assert len(world.sent()) == 2


def test_sessions_are_withdrawn_when_they_are_forgotten() -> None:
    """Not when they end: what the target says while they linger is still wanted."""
    announcements = Announcements()
    world = World(announcer=announcements)
    announcements.world = world
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    target.settle()
    caller.fin()
    target.settle()
    assert world.counts.live == 0 and announcements.withdrawn == []
    world.run_to(10 * 60 * 1_000_000_000)
    assert announcements.withdrawn == announcements.made
    world.check_ended()


def test_live_identities() -> None:
    world = World(targets=(Target(), OTHER))
    Caller(world).syn()
    Caller(world, 40002).syn()
    assert sorted(world.engine.live_identities()) == [
        (CLIENT, 40001, TARGET, TARGET_PORT),
        (CLIENT, 40001, OTHER.target_address, 9090),
        (CLIENT, 40002, TARGET, TARGET_PORT),
        (CLIENT, 40002, OTHER.target_address, 9090),
    ]


# --- the SYN -------------------------------------------------------------------------------


def test_syn_goes_with_the_clients_options() -> None:
    world = World()
    Caller(world).syn(mss=1200, window_scale=3, sack_permitted=False, timestamp=(5, 0), window=777)
    (syn,) = world.sent()
    assert (syn.mss, syn.window_scale, syn.sack_permitted, syn.window) == (1200, 3, False, 777)
    assert syn.timestamp is not None and syn.timestamp[0] != 5


def test_syn_of_a_client_without_options() -> None:
    world = World()
    Caller(world).syn(mss=None, window_scale=None, sack_permitted=False)
    (syn,) = world.sent()
    assert (syn.mss, syn.window_scale, syn.sack_permitted, syn.timestamp) == (
        536,
        None,
        False,
        None,
    )


@pytest.mark.parametrize(
    ("asked", "limit", "expected"), [(1460, 0, 1460), (1460, 1000, 1000), (536, 1000, 536)]
)
def test_announced_mss_is_limited(asked: int, limit: int, expected: int) -> None:
    """-D."""
    world = World(EngineConfig(mss=limit))
    Caller(world).syn(mss=asked)
    assert world.sent()[0].mss == expected


def test_mss_of_a_session_picked_up() -> None:
    world = World(EngineConfig(mss=1000))
    Caller(world).say("x")
    assert world.sent()[0].mss == 1000


def test_round_trip_time_that_was_asked_for() -> None:
    """-R: put back instead of what the capture shows."""
    world = World(EngineConfig(rtt_ns=100 * MS))
    target = Answerer(world)
    caller = Caller(world)
    caller.syn()
    world.run_to(10 * MS)
    caller.give("A")
    target.step()
    session = world.sessions()[0]
    assert (session.rtt_ns, session.client_rtt_ns) == (100 * MS, 10 * MS)
    world.run_to(110 * MS - 1)
    assert world.lines() == []
    world.run_to(110 * MS)
    assert world.lines() == [f"{CLIENT_PORT} A"]


# --- sampling ------------------------------------------------------------------------------


def test_sessions_left_out() -> None:
    world = World(admit=lambda port: port % 2 == 0)
    callers = [Caller(world, port) for port in range(40000, 40006)]
    assert reasons(caller.syn() for caller in callers) == ["", "SKIPPED_SESSION"] * 3
    for caller in callers:
        caller.say("x")
    assert world.outcomes() == {"SKIPPED_SAMPLING": 3}
    assert world.drops() == {"SKIPPED_SESSION": 6}
    assert (world.counts.sessions, world.counts.live) == (6, 3)
    world.check()


def test_session_is_left_out_with_all_its_copies() -> None:
    world = World(admit=lambda port: False, copies=2, targets=(Target(), OTHER))
    Caller(world).syn()
    assert world.outcomes() == {"SKIPPED_SAMPLING": 4}
    assert world.counts.sessions == 4
    world.check()


def test_what_no_transfer_names_is_not_sampled() -> None:
    asked: list[int] = []

    def admit(port: int) -> bool:
        asked.append(port)
        return True

    world = World(admit=admit, targets=())
    assert Caller(world).syn() is Drop.NO_TRANSFER
    assert asked == []


# --- shedding ------------------------------------------------------------------------------


def test_new_sessions_are_shed_while_memory_is_short() -> None:
    world = World()
    first = Caller(world)
    first.connect()
    world.opener.memory_is_short = True
    second = Caller(world, 40002)
    assert second.syn() == 0, "nobody knows yet whether that is a client"
    assert world.outcomes() == {}
    assert second.give("A") is Drop.SHED_SESSION
    assert second.say("x") is Drop.SHED_SESSION
    assert first.say("goes on") == 0
    assert world.outcomes() == {"SHED_MEMORY": 1}
    world.opener.memory_is_short = False
    assert Caller(world, 40003).syn() == 0
    world.check()


def test_sessions_are_ended_and_none_opened_while_it_is_shut() -> None:
    """Each in that outcome, those that were open included; a reset tells the target."""
    world = World()
    target = Answerer(world)
    first = Caller(world)
    first.connect()
    target.settle()
    shut = int(Outcome.SHED_FORWARDED)
    world.opener.shut = shut
    world.engine.close_all(shut)
    second = Caller(world, 40002)
    assert second.syn() == 0, "it waits until its handshake is complete"
    assert second.say("x") is Drop.SHED_SESSION
    assert first.say("x") is Drop.CLOSED_SESSION
    assert world.outcomes() == {"SHED_FORWARDED": 2}
    world.opener.shut = 0
    assert Caller(world, 40003).syn() == 0
    world.check()


def test_the_last_client_of_each_target_is_known() -> None:
    world = World()
    Caller(world, 40002).syn()
    [(target, client)] = world.opener.last_clients.items()
    assert (len(target), len(client)) == (4, 4)


def test_session_limit() -> None:
    world = World(EngineConfig(max_sessions=2))
    target = Answerer(world)
    first, second, third = (Caller(world, port) for port in (40001, 40002, 40003))
    first.connect()
    second.connect()
    assert third.syn() == 0
    assert third.say("x") is Drop.SHED_SESSION
    assert world.outcomes() == {"SHED_SESSIONS": 1}
    assert world.counts.peak == 2
    first.fin()
    target.settle()
    assert Caller(world, 40004).syn() == 0
    world.check()


def test_queue_limit_ends_the_session_that_goes_beyond_it() -> None:
    world = World()
    world.engine.max_queued_bytes = 100 + 2 * CHUNK_COST
    target = Answerer(world)
    small, large = Caller(world, 40001), Caller(world, 40002)
    small.connect()
    large.connect()
    small.say("x" * 10)
    large.say("y" * 90)
    assert world.outcomes() == {}
    large.say("z")
    assert world.outcomes() == {"SHED_MEMORY": 1}
    assert world.counts.queued_bytes == CHUNK_COST + 10
    world.check()
    target.settle()
    assert "x" * 10 in target.texts()


def test_early_data_count_towards_the_queue_limit() -> None:
    world = World()
    world.engine.max_queued_bytes = 100
    caller = Caller(world)
    caller.connect()
    caller.give("A", at=10, payload=bytes(100))
    assert world.outcomes() == {}
    caller.give("A", at=200, payload=bytes(1))
    assert world.outcomes() == {"SHED_MEMORY": 1}
    world.check_ended()
