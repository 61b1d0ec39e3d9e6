"""A session: its time-outs, and the outcome that each way to end is counted as."""

from __future__ import annotations

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.outcome import Outcome
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import CLIENT_PORT, START, Answerer, Caller, World


def connected(
    config: EngineConfig | None = None, reply: str = "OK"
) -> tuple[World, Answerer, Caller]:
    """A session whose target has accepted."""
    world = World(config)
    target = Answerer(world, reply)
    caller = Caller(world)
    caller.connect()
    target.settle()
    return world, target, caller


# --- the target at fault -------------------------------------------------------------------


def test_target_refuses() -> None:
    world = World()
    caller = Caller(world)
    caller.connect()
    (syn,) = world.sent()
    Answerer(world).tell(syn, "RA", seq=0, ack=syn.seq + 1)
    assert world.outcomes() == {"REFUSED": 1}
    world.check_ended()


def test_target_does_not_answer_the_connect() -> None:
    world = World(EngineConfig(connect_timeout_ns=4 * SECOND))
    caller = Caller(world)
    caller.connect()
    caller.say("x")
    world.run_to(4 * SECOND - 1)
    assert world.outcomes() == {}
    world.run_to(4 * SECOND)
    assert world.outcomes() == {"CONNECT_TIMEOUT": 1}
    assert world.lines() == [f"{CLIENT_PORT} S"] * 3
    world.check_ended()


def test_target_resets() -> None:
    world, target, caller = connected()
    caller.say("x")
    (request,) = world.sent()
    target.tell(request, "RA", seq=target.isn + 1, ack=request.seq + 1)
    assert world.outcomes() == {"RESET": 1}
    assert world.counts.bytes_delivered == 1  # the reset acknowledges it
    world.check_ended()


def test_target_closes_and_then_resets() -> None:
    world, target, caller = connected()
    caller.say("x")
    (request,) = world.sent()
    target.tell(request, "FA", seq=target.isn + 1, ack=request.seq + 1)
    caller.say("y")
    world.sent()
    target.tell(request, "R", seq=target.isn + 2, ack=0)
    assert world.outcomes() == {"CLOSED_EARLY": 1}
    world.check_ended()


def test_target_closes_first_and_the_client_too() -> None:
    world, target, caller = connected()
    caller.say("x")
    (request,) = world.sent()
    target.tell(request, "FA", seq=target.isn + 1, ack=request.seq + 1)
    caller.fin(seen=1)
    fin = world.sent()[-1]
    assert fin.flags & 1
    target.tell(fin, "A", seq=target.isn + 2, ack=fin.seq + 1)
    assert world.outcomes() == {"REPLAYED": 1}
    world.check_ended()


def test_target_acknowledges_nothing_any_more() -> None:
    world, _, caller = connected(EngineConfig(answer_timeout_ns=3 * SECOND))
    caller.say("x")
    world.run_to(20 * SECOND)
    assert world.outcomes() == {"ANSWER_TIMEOUT": 1}
    world.check_ended()


def test_target_acknowledges_but_does_not_answer() -> None:
    """-t, from the last that was heard of the target or of the turn that waits."""
    world, target, caller = connected(EngineConfig(answer_timeout_ns=3 * SECOND), reply="")
    world.run_to(1 * SECOND)
    caller.say("one")
    target.settle()
    world.run_to(2 * SECOND)
    caller.say("two", seen=100)
    world.run_to(5 * SECOND - 1)
    assert world.outcomes() == {}
    world.run_to(5 * SECOND)
    assert world.outcomes() == {"ANSWER_TIMEOUT": 1}
    target.settle()
    assert target.texts() == ["one"]
    assert target.reset == [CLIENT_PORT]
    world.check_ended()


def test_answer_in_time_moves_the_time_out() -> None:
    world, target, caller = connected(EngineConfig(answer_timeout_ns=3 * SECOND), reply="")
    caller.say("one")
    (request,) = world.sent()
    caller.say("two", seen=100_000)
    world.run_to(2900 * MS)
    target.tell(request, "A", seq=target.isn + 1, ack=request.seq + 3, payload=bytes(10))
    world.run_to(2950 * MS)
    assert world.outcomes() == {}
    assert world.sessions()[0].replayed.received == 10


# --- nobody speaks -------------------------------------------------------------------------


def test_idle_session_with_everything_delivered() -> None:
    """-k."""
    world, target, caller = connected(EngineConfig(idle_timeout_ns=30 * SECOND))
    world.run_to(5 * SECOND)
    caller.say("one")
    target.settle()
    world.run_to(35 * SECOND - 1)
    assert world.outcomes() == {}
    world.run_to(35 * SECOND)
    assert world.outcomes() == {"IDLE_COMPLETE": 1}
    target.settle()
    assert target.reset == [CLIENT_PORT]
    world.check_ended()


def test_idle_session_with_something_undelivered() -> None:
    world, target, caller = connected(
        EngineConfig(idle_timeout_ns=5 * SECOND, answer_timeout_ns=100 * SECOND), reply=""
    )
    caller.say("one")
    target.settle()
    caller.say("two", seen=100)
    world.run_to(5 * SECOND)
    assert world.outcomes() == {"IDLE_TIMEOUT": 1}
    world.check_ended()


@pytest.mark.parametrize("what", ["ack", "double", "data"])
def test_anything_of_the_client_keeps_the_session(what: str) -> None:
    world, target, caller = connected(EngineConfig(idle_timeout_ns=5 * SECOND))
    caller.say("one")
    target.settle()
    for index in range(1, 10):
        world.run_to(index * 4 * SECOND)
        if what == "ack":
            caller.give("A", seen=2)
        elif what == "double":
            caller.give("PA", at=0, payload=b"one")
        else:
            caller.say("x", seen=2)
            target.settle()
    assert world.outcomes() == {}


# --- the outcome at exit -------------------------------------------------------------------


def test_open_with_everything_delivered() -> None:
    world, target, caller = connected()
    caller.say("one")
    target.settle()
    (session,) = world.sessions()
    assert session.is_delivered()
    assert session.outcome_at_exit() == Outcome.OPEN_COMPLETE
    assert world.engine.unfinished() == 0


@pytest.mark.parametrize("state", ["not accepted", "in flight", "gated", "gap", "fin in flight"])
def test_open_with_something_undelivered(state: str) -> None:
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    if state != "not accepted":
        target.settle()
        caller.say("one")
    if state in ("gated", "gap"):
        target.settle()
    if state == "gated":
        caller.say("two", seen=50)
    if state == "gap":
        caller.give("PA", at=10, payload=b"late")
    if state == "fin in flight":
        (request,) = world.sent()
        caller.fin()
        target.tell(request, "A", seq=target.isn + 1, ack=request.seq + 3)
    (session,) = world.sessions()
    assert not session.is_delivered()
    assert session.outcome_at_exit() == Outcome.OPEN_AT_EXIT
    assert world.engine.unfinished() == 1


def test_closed_by_the_client_and_only_the_targets_fin_is_missing() -> None:
    world, target, caller = connected()
    caller.fin()
    (fin,) = world.sent()
    target.tell(fin, "A", seq=target.isn + 1, ack=fin.seq + 1)
    (session,) = world.sessions()
    assert session.outcome_at_exit() == Outcome.REPLAYED


# --- deadlines -----------------------------------------------------------------------------


def test_there_is_always_a_deadline() -> None:
    world, _, _ = connected(EngineConfig(idle_timeout_ns=30 * SECOND))
    world.run_to(1 * MS)
    (session,) = world.sessions()
    assert session.next_deadline_ns() == START + 30 * SECOND


def test_gate_that_opens_by_time_is_a_deadline() -> None:
    world, target, caller = connected()
    caller.say("one")
    target.settle()
    caller.say("two", seen=3)
    (session,) = world.sessions()
    assert session.gate_deadline_ns == START + 100 * MS
    world.run_to(50 * MS)
    assert world.lines() == [f"{CLIENT_PORT} A"]
    assert session.next_deadline_ns() == START + 100 * MS
    world.run_to(100 * MS - 1)
    assert world.lines() == []
    world.run_to(100 * MS)
    assert world.lines() == [f"{CLIENT_PORT} PA two"]


def test_no_deadline_comes_round_and_round() -> None:
    """A target that does not accept, and -t shorter than the connect time-out: no busy loop."""
    world = World(EngineConfig(answer_timeout_ns=1 * SECOND, connect_timeout_ns=20 * SECOND))
    caller = Caller(world)
    caller.connect()
    caller.say("x")
    looks = world.run_to(19 * SECOND)
    assert looks < 20
    assert world.outcomes() == {}
    world.run_to(20 * SECOND)
    assert world.outcomes() == {"CONNECT_TIMEOUT": 1}
