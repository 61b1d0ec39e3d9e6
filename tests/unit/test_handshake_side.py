"""The filter follows the engine's wish, and a flood is said when it begins and when it ends."""

from __future__ import annotations

import logging

import pytest

from tcpcopy.capture.ring import Ring
from tcpcopy.engine.engine import Engine
from tcpcopy.handshake_side import HandshakeSide
from tcpcopy.report.counters import Snapshot
from tests.unit.capture.test_acks import WITH, WITHOUT, FakeRing
from tests.unit.engine.flooding import flood
from tests.unit.engine.rig import SECOND
from tests.unit.engine.world import World


def made() -> tuple[World, Engine, HandshakeSide, FakeRing]:
    world = World()
    ring = FakeRing()
    side = HandshakeSide(world.engine)
    rings: list[Ring] = [ring]  # type: ignore[list-item]
    side.switch_acks(rings, WITH, WITHOUT, far_matters=True)
    return world, world.engine, side, ring


def test_acknowledgements_are_known_to_come_from_the_start() -> None:
    _, engine, _, _ = made()
    assert engine.acks_known and engine.pure_acks


def test_the_filter_opens_when_the_engine_asks() -> None:
    _, engine, side, ring = made()
    side.look(SECOND)
    engine.context.counts.client_first = 100
    side.look(3 * SECOND)
    assert (ring.program, engine.pure_acks) == (WITHOUT, False)
    engine.wants_acks = True
    side.look(3 * SECOND + 1)
    assert (ring.program, engine.pure_acks) == (WITH, True)
    side.stop()
    engine.wants_acks = False
    engine.context.counts.client_first = 1000
    side.look(9 * SECOND)
    assert ring.program == WITH


def test_a_flood_is_said_when_it_begins_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    world, engine, side, _ = made()
    for second in range(6):
        flood(world, 1, first=1 + 300 * second)
        side.look(engine.now_ns)
        snapshot = Snapshot()
        side.fill(snapshot)
    assert snapshot.syn_flood_rate == pytest.approx(300, abs=2)
    assert snapshot.sessions_waiting > 1500
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "SYN flood: 30" in record.message or "SYN flood: 29" in record.message
    assert "connection attempts/s whose handshake never completes" in record.message
    world.run_to(world.now + 15 * SECOND)
    side.look(engine.now_ns)
    side.look(engine.now_ns)
    assert len(caplog.records) == 2
    assert "SYN flood is over: 1," in caplog.records[1].message
    side.fill(snapshot)
    assert snapshot.syn_flood_rate == 0
    assert snapshot.syn_flood_attempts == pytest.approx(1800, abs=5)
