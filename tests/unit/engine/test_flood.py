"""When many attempts that do not complete are called a flood, and when it is over."""

from __future__ import annotations

import pytest

from tcpcopy.engine.flood import (
    BLIND_RATE,
    BLIND_SECONDS,
    FLOOD_RATE,
    QUIET_SECONDS,
    FloodWatch,
)
from tests.unit.engine.rig import MS, SECOND

START = 9_000 * SECOND


class Stage:
    """A watch and its clock."""

    def __init__(self, speed: int = 1) -> None:
        self.second = SECOND // speed
        self.flood = FloodWatch(self.second)
        self.at = START
        self.flood.look(self.at)

    def pass_second(self, attempts: int, completed: int = 0, after: int = 20 * MS) -> None:
        """A second with evenly spread attempts, of which the first ones complete."""
        for index in range(attempts):
            syn = self.at + index * self.second // max(1, attempts)
            self.flood.begin(syn)
            if index < completed:
                self.flood.complete(syn, syn + after)
        self.at += self.second
        self.flood.look(self.at)


@pytest.mark.parametrize("speed", [1, 100])
def test_more_than_a_hundred_in_a_second_are_a_flood(speed: int) -> None:
    stage = Stage(speed)
    stage.pass_second(FLOOD_RATE)
    for _ in range(3):
        stage.pass_second(0)
    assert not stage.flood.flooding
    stage.pass_second(FLOOD_RATE + 1)
    assert not stage.flood.flooding, "they may still complete"
    stage.pass_second(0)
    stage.pass_second(0)
    assert stage.flood.flooding
    assert (stage.flood.attempts, stage.flood.peak) == (FLOOD_RATE + 1, FLOOD_RATE + 1)


def test_attempts_that_complete_are_no_flood_however_many() -> None:
    stage = Stage()
    for _ in range(10):
        stage.pass_second(5000, 4950, after=900 * MS)
    assert not stage.flood.flooding and stage.flood.attempts == 0
    assert stage.flood.is_calm()


def test_what_completes_in_the_next_second_has_completed() -> None:
    stage = Stage()
    syns = [stage.at + index * SECOND // 1000 for index in range(1000)]
    for syn in syns:
        stage.flood.begin(syn)
    for syn in syns:
        stage.flood.complete(syn, syn + SECOND)
    stage.at += SECOND
    for _ in range(4):
        stage.pass_second(0)
    assert not stage.flood.flooding


def test_a_flood_is_told_with_its_strength_and_ends_after_quiet_seconds() -> None:
    stage = Stage()
    for attempts in (20_000, 30_000, 5_000):
        stage.pass_second(attempts + 100, completed=100)
    assert stage.flood.flooding and not stage.flood.is_calm()
    assert stage.flood.rate == 30_000
    for _ in range(QUIET_SECONDS + 1):
        assert stage.flood.flooding
        stage.pass_second(FLOOD_RATE // 2)
    assert not stage.flood.flooding
    assert stage.flood.peak == 30_000
    assert 55_000 <= stage.flood.attempts <= 55_000 + (QUIET_SECONDS + 1) * FLOOD_RATE


def test_what_is_neither_a_flood_nor_quiet_does_not_end_one() -> None:
    stage = Stage()
    stage.pass_second(5_000)
    for _ in range(30):
        stage.pass_second(FLOOD_RATE - 10)
    assert stage.flood.flooding


def test_seconds_without_acknowledgements_have_to_be_several() -> None:
    stage = Stage()
    stage.flood.blind_until_ns = START + 3600 * SECOND
    for _ in range(BLIND_SECONDS - 1):
        stage.pass_second(BLIND_RATE)
    for _ in range(5):
        stage.pass_second(0)
    assert not stage.flood.flooding
    for _ in range(BLIND_SECONDS):
        stage.pass_second(FLOOD_RATE + 1)
    assert not stage.flood.flooding
    stage.pass_second(0)
    assert stage.flood.flooding
    assert stage.flood.attempts == BLIND_SECONDS * (FLOOD_RATE + 1)


def test_or_one_with_very_many() -> None:
    stage = Stage()
    stage.flood.blind_until_ns = START + 3600 * SECOND
    stage.pass_second(BLIND_RATE + 1)
    stage.pass_second(0)
    assert stage.flood.flooding


def test_a_long_silence_costs_nothing_and_ends_a_flood() -> None:
    stage = Stage()
    for _ in range(3):
        stage.pass_second(5_000)
    assert stage.flood.flooding
    stage.at += 10**9 * SECOND
    stage.flood.look(stage.at)
    assert not stage.flood.flooding
    assert stage.flood.attempts == 15_000
    stage.pass_second(101)
    stage.pass_second(0)
    stage.pass_second(0)
    assert stage.flood.flooding


def test_what_comes_late_is_not_counted() -> None:
    """A SYN that was captured long before what came in already, or an answer to it."""
    stage = Stage()
    stage.pass_second(50)
    for _ in range(1000):
        stage.flood.begin(START - 60 * SECOND)
        stage.flood.complete(START - 60 * SECOND, stage.at)
    for _ in range(4):
        stage.pass_second(0)
    assert not stage.flood.flooding and stage.flood.rate == 0
