"""Floods of SYNs; and what is done where the acknowledgements of clients are not captured."""

from __future__ import annotations

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.handshakes import (
    AHEAD_SESSIONS,
    FLOOD_PATIENCE_NS,
    PATIENCE_NS,
    PRESUME_MOST,
)
from tests.unit.engine.flooding import flood, strangers, world_of
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import Answerer, Caller, World

# --- floods --------------------------------------------------------------------------------


def test_in_a_flood_clients_are_served_and_nobody_else_is() -> None:
    world = world_of(ahead=AHEAD_SESSIONS)
    target = Answerer(world)
    clients = []
    for second in range(8):
        flood(world, 1, first=1 + 300 * second)
        target.settle()
        caller = Caller(world, 50000 + second)
        caller.syn()
        world.run_to(world.now + 20 * MS)
        target.settle()
        caller.say(f"request {second}")
        target.settle()
        clients.append(caller)
        world.check()
    assert world.engine.flood.flooding
    assert sorted(text for text in target.texts() if text) == [
        f"request {second}" for second in range(8)
    ]
    attacked = len(target.texts()) - len(clients)
    assert attacked <= AHEAD_SESSIONS
    assert len([port for port in target.reset if port < 50000]) >= attacked, "taken back"
    assert world.counts.live == 8
    for caller in clients:
        caller.fin()
    target.settle()
    world.run_to(world.now + 100 * SECOND)
    target.settle()
    world.check_ended()
    assert world.outcomes() == {"REPLAYED": 8, "HANDSHAKE_INCOMPLETE": 2400}
    assert not world.engine.flood.flooding
    assert world.engine.flood.peak == pytest.approx(300, abs=2)
    assert world.engine.flood.attempts == pytest.approx(2400, abs=310)


def test_nothing_is_opened_ahead_until_the_flood_is_over() -> None:
    world = world_of(ahead=2)
    flood(world, 6)
    world.sent()
    assert world.engine.flood.flooding
    assert world.engine.ahead == {}, "those were taken back"
    caller = Caller(world)
    caller.syn()
    assert world.lines() == []
    caller.give("A")
    assert world.lines() == ["40001 S"]
    world.run_to(world.now + 12 * SECOND)
    assert not world.engine.flood.flooding
    Caller(world, 40002).syn()
    assert "40002 S" in world.lines()


def test_in_a_flood_unproven_sessions_are_taken_back_soon() -> None:
    world = world_of(ahead=2)
    target = Answerer(world)
    flood(world, 2)
    target.settle()
    assert world.counts.live == 2
    flood(world, FLOOD_PATIENCE_NS // SECOND + 1, first=5000)
    target.settle()
    assert world.counts.live == 0
    assert world.outcomes() == {}, "they wait with the others"
    world.check()


def test_a_flood_holds_no_more_memory_than_the_table() -> None:
    world = world_of(ahead=2)
    world.engine.half_open.most = 100
    flood(world, 5)
    assert len(world.engine.half_open) <= 200
    assert world.counts.waiting <= 200
    assert world.outcomes()["HANDSHAKE_INCOMPLETE"] >= 1300
    assert world.engine.ended.names == {}
    assert len(world.ports.live) <= 2  # type: ignore[attr-defined]
    world.check()


# --- acknowledgements that are not captured ------------------------------------------------


def test_while_nobody_knows_of_acknowledgements_a_silent_client_stays() -> None:
    """-F or a file without them: what is today a session that is open at exit stays that."""
    world = World()
    target = Answerer(world)
    Caller(world).syn()
    target.settle()
    world.run_to(PATIENCE_NS + 5 * SECOND)
    assert world.counts.live == 1
    world.engine.close_all()
    assert world.outcomes() == {"OPEN_COMPLETE": 1}


def test_one_acknowledgement_shows_that_they_are_captured() -> None:
    world = World()
    silent = Caller(world, 40001)
    silent.syn()
    Caller(world, 40002).connect()
    Answerer(world).settle()
    world.run_to(PATIENCE_NS + 5 * SECOND)
    assert (world.counts.live, world.counts.waiting) == (1, 1)


def test_a_pool_of_idle_clients_whose_acknowledgements_were_not_captured() -> None:
    """They are given the benefit of the doubt, in a few seconds, if there is no flood."""
    world = world_of(ahead=AHEAD_SESSIONS)
    target = Answerer(world)
    world.run_to(10 * SECOND)
    world.engine.note_acks(False, world.engine.now_ns)
    world.run_to(30 * SECOND)
    pool = list(strangers(world, count=300))
    for caller in pool:
        caller.syn()
    assert (world.counts.live, world.counts.waiting) == (AHEAD_SESSIONS, 300 - AHEAD_SESSIONS)
    assert not world.engine.wants_acks, "they may be on their way"
    world.run_to(32 * SECOND)
    assert world.engine.wants_acks
    world.engine.note_acks(True, world.engine.now_ns)
    target.settle()
    world.run_to(36 * SECOND)
    target.settle()
    assert (world.counts.live, world.counts.waiting) == (300, 0)
    world.run_to(100 * SECOND)
    assert world.counts.live == 300
    assert not world.engine.wants_acks
    world.engine.close_all()
    world.check_ended()
    assert "HANDSHAKE_INCOMPLETE" not in world.outcomes()


def test_the_benefit_of_the_doubt_has_an_end() -> None:
    """A slow flood, with a filter that never lets acknowledgements in."""
    world = World(ports=None)
    world.ports.limit = 10**6  # type: ignore[attr-defined]
    world.engine.ahead_most = 8
    target = Answerer(world)
    for second in range(40):
        flood(world, 1, rate=45, first=1 + 45 * second)
        target.settle()
    assert not world.engine.flood.flooding
    assert 8 < world.counts.live <= PRESUME_MOST + 50
    world.check()


def test_the_filter_is_asked_for_at_once_when_nothing_moves() -> None:
    world = world_of(ahead=4)
    world.engine.note_acks(False, world.engine.now_ns)
    attackers = strangers(world)
    for _ in range(20):
        next(attackers).syn()
    assert not world.engine.wants_acks
    world.run_to(60 * MS)
    next(attackers).syn()
    assert world.engine.wants_acks


def test_clients_that_speak_at_once_do_not_ask_for_acknowledgements() -> None:
    world = world_of(ahead=4)
    target = Answerer(world)
    world.engine.note_acks(False, world.engine.now_ns)
    for round_number in range(40):
        callers = [Caller(world, 40000 + 10 * round_number + n) for n in range(10)]
        for caller in callers:
            caller.syn()
        world.run_to(world.now + 2 * MS)
        for caller in callers:
            caller.say("hello")
        target.settle()
        world.run_to(world.now + 100 * MS)
        assert not world.engine.wants_acks
    assert target.texts() == ["hello"] * 400


def test_a_flood_that_begins_while_acknowledgements_are_not_captured() -> None:
    world = world_of(ahead=AHEAD_SESSIONS)
    target = Answerer(world)
    world.engine.note_acks(False, world.engine.now_ns)
    world.run_to(10 * SECOND)
    real = Caller(world, 50000)
    real.syn()
    attackers = strangers(world)
    for index in range(2400):
        world.run_to(10 * SECOND + index * SECOND // 300)
        next(attackers).syn()
        if world.engine.wants_acks and not world.engine.pure_acks:
            world.engine.note_acks(True, world.engine.now_ns)
        target.settle()
    assert world.engine.pure_acks and world.engine.flood.flooding
    world.run_to(25 * SECOND)
    assert not world.engine.flood.flooding
    assert world.counts.live == 0, "not one has the benefit of the doubt"
    assert len(target.texts()) <= AHEAD_SESSIONS
    assert real.say("here all the time") == 0
    target.settle()
    assert "here all the time" in target.texts()
    world.check()


def test_a_reset_proves_where_the_handshake_cannot_be_seen() -> None:
    world = World()
    target = Answerer(world)
    world.engine.ahead_most = 0
    caller = Caller(world)
    caller.syn()
    caller.give("RA")
    target.settle()
    world.run_to(SECOND)
    assert world.outcomes() == {"CLIENT_RESET": 1}


def test_the_wish_for_acknowledgements_ends_when_it_was_calm_for_a_time() -> None:
    world = world_of(ahead=2)
    flood(world, 5)
    assert world.engine.wants_acks
    world.run_to(world.now + 8 * SECOND)
    assert world.engine.wants_acks, "SYNs wait"
    world.run_to(world.now + 90 * SECOND)
    assert not world.engine.wants_acks


# --- shares and files ----------------------------------------------------------------------


def test_workers_share_what_is_bounded() -> None:
    world = world_of()
    world.engine.divide(4)
    assert world.engine.ahead_most == AHEAD_SESSIONS // 4
    world.engine.divide(1000)
    assert world.engine.ahead_most == 1


@pytest.mark.parametrize("speed", [1, 20])
def test_a_flood_in_a_file_is_one_in_its_own_time(speed: int) -> None:
    world = world_of(EngineConfig(recorded=True, speed=speed), ahead=8)
    target = Answerer(world)
    attackers = strangers(world)
    for index in range(1500):
        at = index * SECOND // 300 // speed
        world.run_to(at)
        next(attackers).syn()
        world.context.capture_ns = world.engine.now_ns
        target.settle()
    assert world.engine.flood.flooding
    assert world.engine.flood.peak == pytest.approx(300, abs=2)
    world.engine.end_pass()
    world.check_ended()
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 1500}
    assert len(target.texts()) <= 8
