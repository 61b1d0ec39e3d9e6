"""The engine and time: deadlines, what an idle engine costs, the exit."""

from __future__ import annotations

import pytest

from tcpcopy.engine.context import EngineConfig
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import CLIENT_PORT, START, Answerer, Caller, World


def test_empty_engine_waits_for_nothing() -> None:
    world = World()
    assert world.engine.next_deadline_ns() == -1
    assert world.engine.run_timers() == 0


def test_deadline_is_that_of_the_earliest_session() -> None:
    world = World(EngineConfig(connect_timeout_ns=5 * SECOND))
    Caller(world).syn()
    assert world.engine.next_deadline_ns() == START + 1 * SECOND
    world.run_to(300 * MS)
    Caller(world, 40002).syn()
    assert world.engine.next_deadline_ns() == START + 1 * SECOND
    world.run_to(1 * SECOND)
    assert world.engine.next_deadline_ns() == START + 1300 * MS


def test_nothing_runs_before_it_is_due() -> None:
    world = World()
    Caller(world).syn()
    world.sent()
    world.engine.now_ns = START + 1 * SECOND - 1
    assert world.engine.run_timers() == 0
    assert world.lines() == []
    world.engine.now_ns = START + 1 * SECOND
    assert world.engine.run_timers() == 1
    assert world.lines() == [f"{CLIENT_PORT} S"]


def test_late_call_runs_everything_once() -> None:
    world = World()
    for port in range(40000, 40050):
        Caller(world, port).syn()
    world.sent()
    world.engine.now_ns = START + 2 * SECOND
    assert world.engine.run_timers() == 50
    assert len(world.sent()) == 50
    assert world.engine.next_deadline_ns() > world.engine.now_ns


def test_idle_sessions_cost_nothing() -> None:
    """Work in proportion to packets, never to open sessions."""
    world = World(EngineConfig(idle_timeout_ns=1000 * SECOND))
    target = Answerer(world)
    for port in range(40000, 40100):
        caller = Caller(world, port)
        caller.connect()
    target.settle()
    world.run_to(1 * SECOND)
    target.settle()
    assert world.run_to(900 * SECOND) <= 200
    assert world.counts.live == 100


def test_busy_session_is_looked_at_in_proportion_to_its_packets() -> None:
    world = World()
    target = Answerer(world, "OK")
    caller = Caller(world)
    caller.connect()
    target.settle()
    looks = 0
    for index in range(200):
        looks += world.run_to(index * 10 * MS)
        caller.say("x", seen=2 * index)
        target.settle()
    assert looks <= 600
    assert world.counts.turns_replayed == 200


# --- the exit ------------------------------------------------------------------------------


def test_exit_counts_every_session() -> None:
    world = World()
    target = Answerer(world)
    names = ["complete", "in flight", "not accepted", "closing"]
    callers = {name: Caller(world, 40001 + index) for index, name in enumerate(names)}
    target.deaf.add(callers["not accepted"].blank.source_port)
    for caller in callers.values():
        caller.connect()
    target.settle()
    callers["complete"].say("done")
    target.settle()
    callers["in flight"].say("lost")
    callers["closing"].fin()
    for segment in world.sent():
        if segment.flags & 1:
            target.tell(segment, "A", seq=target.isn + 1, ack=segment.seq + 1)
    assert world.engine.unfinished() == 2
    world.engine.close_all()
    assert world.outcomes() == {"OPEN_COMPLETE": 1, "OPEN_AT_EXIT": 2, "REPLAYED": 1}
    world.check_ended()


def test_exit_tells_the_targets() -> None:
    world = World()
    target = Answerer(world)
    Caller(world).connect()
    target.settle()
    world.engine.close_all()
    target.settle()
    assert target.reset[0] == CLIENT_PORT


def test_exit_of_an_empty_engine() -> None:
    world = World()
    world.engine.close_all()
    assert world.outcomes() == {}


def test_exit_twice() -> None:
    world = World()
    Caller(world).connect()
    world.engine.close_all()
    world.engine.close_all()
    assert world.outcomes() == {"OPEN_AT_EXIT": 1}
    world.check_ended()


def test_packets_after_the_exit_find_no_session() -> None:
    world = World()
    caller = Caller(world)
    caller.connect()
    world.engine.close_all()
    caller.say("x")
    assert world.counts.sessions == 1
    world.check()


def test_lingering_sessions_are_not_sessions() -> None:
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    caller.fin()
    target.settle()
    assert list(world.engine.sessions()) == []
    assert len(list(world.engine.live_identities())) == 1
    world.engine.close_all()
    assert world.outcomes() == {"REPLAYED": 1}


@pytest.mark.parametrize("copies", [1, 3])
def test_peak_and_live(copies: int) -> None:
    world = World(copies=copies)
    target = Answerer(world)
    callers = [Caller(world, port) for port in range(41000, 41050, 10)]
    for caller in callers:
        caller.connect()
    assert world.counts.live == world.counts.peak == 5 * copies
    for caller in callers:
        caller.fin()
    target.settle()
    assert world.counts.live == 0
    assert world.counts.peak == 5 * copies
    world.check_ended()


# --- what tells whether pure acknowledgements are needed ------------------------------------


def test_who_speaks_first_is_counted_where_the_handshake_was_seen() -> None:
    world = World()
    for port, seen in ((1001, 0), (1002, 0), (1003, 30)):
        caller = Caller(world, port)
        caller.connect()
        caller.say("request", seen=seen)
        caller.say("another", seen=seen + 100)
    half_seen = Caller(world, 1004)  # its handshake ended outside the capture
    half_seen.syn()
    half_seen.say("request", seen=30)
    Caller(world, 1005).say("picked up in mid-stream", seen=30)
    assert (world.counts.client_first, world.counts.server_first) == (2, 1)


def test_far_clients_are_counted() -> None:
    world = World()
    for port, rtt_ns in ((1001, 249_000), (1002, 250_000), (1003, 80 * MS)):
        caller = Caller(world, port)
        caller.syn()
        world.run_to(world.now + rtt_ns)
        caller.give("A")
    assert world.counts.far == 2


def test_no_round_trip_time_is_read_off_a_request_when_acknowledgements_are_not_captured() -> None:
    world = World()
    world.engine.pure_acks = False
    caller = Caller(world)
    caller.syn()
    world.run_to(70 * MS)
    caller.say("request")
    (session,) = world.sessions()
    assert (session.client_rtt_ns, world.counts.far) == (0, 0)
