"""One packet or session that fails never ends the process: our bugs are isolated and counted."""

from __future__ import annotations

import pytest

from tcpcopy.engine.kernel import KernelClient, Transport
from tcpcopy.engine.outcome import Drop
from tcpcopy.engine.replayed import Replayed
from tests.unit.engine.rig import SECOND
from tests.unit.engine.world import CLIENT_PORT, Answerer, Caller, Ports, World


class Broken(Replayed):
    """A replayed half with a bug in one of its calls."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.calls: list[str] = []
        self.established = 1

    def _call(self, name: str) -> int:
        self.calls.append(name)
        if name == self.where:
            raise ZeroDivisionError(f"bug in {name}")
        return 0

    def open(self, now_ns: int) -> int:
        return self._call("open")

    def transmit(self, now_ns: int) -> int:
        return self._call("transmit")

    def abort(self, now_ns: int) -> int:
        return self._call("abort")

    def run_timers(self, now_ns: int) -> int:
        return self._call("run_timers")

    def deadline_ns(self) -> int:
        self._call("deadline_ns")
        return 9_001 * SECOND if self.where == "run_timers" else 0

    def linger(self, now_ns: int) -> int:
        self.calls.append("linger")
        return 1


def world_with_bug(where: str) -> tuple[World, Caller, Broken]:
    """A world whose first session has a broken half, and a second that is sound."""
    world = World()
    world.expect_bugs = True
    sound = Caller(world, 40002)
    sound.connect()
    caller = Caller(world)
    caller.connect()
    broken = Broken(where)
    next(s for s in world.sessions() if s.mapped_port == CLIENT_PORT).replayed = broken
    return world, caller, broken


@pytest.mark.parametrize("where", ["transmit", "deadline_ns"])
def test_bug_while_a_packet_is_taken(where: str) -> None:
    world, caller, broken = world_with_bug(where)
    assert caller.say("x") is Drop.INTERNAL_ERROR
    assert world.outcomes() == {"INTERNAL_ERROR": 1}
    assert len(world.bugs) == 1 and f"bug in {where}" in world.bugs[0]
    assert "abort" in broken.calls, "the connection was left open"
    assert caller.say("y") is Drop.CLOSED_SESSION
    world.check()
    assert [session.mapped_port for session in world.sessions()] == [40002]


def test_bug_in_a_timer() -> None:
    world, _, _ = world_with_bug("run_timers")
    world.run_to(2 * SECOND)
    assert world.outcomes() == {"INTERNAL_ERROR": 1}
    assert len(world.bugs) == 1
    world.check()


def test_bug_in_giving_up_is_told_too() -> None:
    """Too much ends the session; ending it trips, and ending it for that trips again."""
    world, caller, _ = world_with_bug("abort")
    world.engine.max_queued_bytes = 1
    assert caller.give("PA", at=20, payload=b"xyz") is Drop.INTERNAL_ERROR
    assert world.outcomes() == {"INTERNAL_ERROR": 1}
    assert len(world.bugs) == 2
    world.check()


def test_identity_of_a_broken_session_is_given_back() -> None:
    world, caller, _ = world_with_bug("transmit")
    caller.say("x")
    ports = world.ports
    assert isinstance(ports, Ports)
    assert [identity[1] for identity in ports.released] == [CLIENT_PORT]
    assert CLIENT_PORT not in {identity[1] for identity in world.engine.live_identities()}


def test_bug_while_the_port_is_used_again() -> None:
    world, _, _ = world_with_bug("transmit")
    again = Caller(world, isn=5)
    assert again.syn() == 0
    assert again.give("A") == 0
    assert world.outcomes() == {"INTERNAL_ERROR": 1}
    assert again.say("x") == 0
    world.check()


def test_sound_copies_go_on() -> None:
    world = World(copies=3)
    world.expect_bugs = True
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    target.settle()
    world.sessions()[1].replayed = Broken("transmit")
    caller.say("hello")
    target.settle()
    assert target.texts() == ["hello", "", "hello"]
    assert world.outcomes() == {"INTERNAL_ERROR": 1}
    caller.fin()
    target.settle()
    assert world.outcomes() == {"INTERNAL_ERROR": 1, "REPLAYED": 2}
    world.check_ended()


# --- bugs of what is handed in -----------------------------------------------------------------


class BrokenPorts(Ports):
    """Fails for one port."""

    def acquire(
        self,
        client_address: bytes,
        client_port: int,
        target_address: bytes,
        target_port: int,
        copy: int,
        now_ns: int,
    ) -> tuple[bytes, int] | None:
        if copy == 1:
            raise ZeroDivisionError("bug in acquire")
        return super().acquire(
            client_address, client_port, target_address, target_port, copy, now_ns
        )


class BrokenAnnouncer:
    """Fails always."""

    def announce(self, mapped: bytes, mapped_port: int, target: bytes, target_port: int, /) -> int:
        raise ZeroDivisionError("bug in announce")

    def withdraw(self, mapped: bytes, mapped_port: int, target: bytes, target_port: int, /) -> None:
        """What was not announced is withdrawn all the same."""


class BrokenTransport(Transport):
    """Fails in connect."""

    def connect(self, client: KernelClient) -> int:
        raise ZeroDivisionError("bug in connect")


def test_bug_in_the_allocator() -> None:
    world = World(ports=BrokenPorts(), copies=3)
    world.expect_bugs = True
    caller = Caller(world)
    assert caller.syn() == 0
    assert len(world.bugs) == 1 and "bug in acquire" in world.bugs[0]
    assert world.counts.sessions == 3
    assert world.counts.live == 2
    assert world.outcomes() == {"INTERNAL_ERROR": 1}
    world.check()


def test_bug_in_the_announcer() -> None:
    world = World(announcer=BrokenAnnouncer())
    world.expect_bugs = True
    assert Caller(world).syn() is Drop.SHED_SESSION
    assert len(world.bugs) == 1 and "bug in announce" in world.bugs[0]
    assert world.outcomes() == {"INTERNAL_ERROR": 1}
    assert world.lines() == []
    world.check_ended()
    world.opener.announcer = None
    assert Caller(world, 40005).syn() == 0
    assert len(world.bugs) == 1


def test_bug_in_the_transport() -> None:
    world = World(transport=BrokenTransport())
    world.expect_bugs = True
    caller = Caller(world)
    caller.syn()
    assert len(world.bugs) == 1 and "bug in connect" in world.bugs[0]
    assert world.outcomes() == {"INTERNAL_ERROR": 1}
    assert caller.say("x") is Drop.CLOSED_SESSION
    world.check_ended()


def test_bug_in_the_sampling() -> None:
    def admit(port: int) -> bool:
        raise ZeroDivisionError("bug in admit")

    world = World(admit=admit)
    world.expect_bugs = True
    assert Caller(world).syn() is Drop.INTERNAL_ERROR
    assert world.drops() == {"INTERNAL_ERROR": 1}
    assert world.counts.sessions == 0
    world.check_ended()
