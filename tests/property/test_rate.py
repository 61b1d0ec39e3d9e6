"""The slots of --rate: never more than asked for in any stretch, nothing wasted when wanted."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.mapping.rate import (
    DROP,
    PACE,
    QUEUE,
    QUEUE_NS,
    SLACK_NS,
    RateConfig,
    RateLimit,
    SessionRate,
)
from tcpcopy.report.outcome import Outcome

SECOND = 1_000_000_000
RATES = st.fractions(Fraction(1, 10), 100_000, max_denominator=100)
RAMPS = st.integers(0, 100 * SECOND)
START = 77 * SECOND
GAPS = st.lists(st.integers(0, 2 * SECOND), min_size=1, max_size=60)


def arrivals(gaps: list[int]) -> list[int]:
    times = [START]
    for gap in gaps:
        times.append(times[-1] + gap)
    return times


@given(RATES, RAMPS, GAPS)
def test_slots_are_in_order_and_never_early(rate: Fraction, ramp: int, gaps: list[int]) -> None:
    limit = RateLimit(rate, ramp)
    slots = []
    for now in arrivals(gaps):
        ahead = limit.ahead_ns(now)
        slots.append(limit.reserve(now))
        assert slots[-1] == now + ahead
    assert slots == sorted(slots)
    assert limit.taken == len(slots)


@given(RATES, RAMPS, GAPS)
def test_no_stretch_has_more_than_the_rate(rate: Fraction, ramp: int, gaps: list[int]) -> None:
    """Beyond the slack for a loop that is late."""
    limit = RateLimit(rate, ramp)
    slots = [limit.reserve(now) for now in arrivals(gaps)]
    for first in range(len(slots)):
        for last in range(first, len(slots)):
            seconds = Fraction(slots[last] - slots[first] + SLACK_NS, SECOND)
            assert last - first <= rate * seconds + 1


@given(RATES, RAMPS, st.integers(2, 400))
def test_steady_demand_gets_every_slot(rate: Fraction, ramp: int, count: int) -> None:
    """The area below the rate's line is what has been let through, exactly."""
    limit = RateLimit(rate, ramp)
    slots = [limit.reserve(START) - START for _ in range(count)]
    for number, at in enumerate(slots):
        if at >= ramp:
            area = rate * (at - Fraction(ramp, 2)) / SECOND
        else:
            area = rate * Fraction(at * at, 2 * ramp) / SECOND
        assert number <= area
        # One nanosecond earlier it would have been too early.
        before = at - 1
        if before >= ramp:
            assert number > rate * (before - Fraction(ramp, 2)) / SECOND
        elif before >= 0 and ramp:
            assert number > rate * Fraction(before * before, 2 * ramp) / SECOND


@given(st.integers(1, 10_000), st.integers(1, SLACK_NS), st.integers(2, 300))
def test_a_loop_that_is_late_loses_nothing(rate: int, late: int, count: int) -> None:
    """Asking only every so often, but for all there is by then, reaches the rate."""
    limit = RateLimit(Fraction(rate))
    now, taken = START, 0
    for _ in range(count):
        while limit.ahead_ns(now) == 0:
            limit.reserve(now)
            taken += 1
        now += late
    elapsed = (now - late - START) / SECOND
    assert abs(taken - 1 - rate * elapsed) <= 1


@given(st.integers(1, 1000), st.integers(0, 5 * SECOND))
def test_reached_is_what_was_let_through(rate: int, ramp: int) -> None:
    limit = RateLimit(Fraction(rate), ramp)
    for _ in range(rate * 3 + rate * ramp // SECOND + 2):
        limit.reserve(START)
    reached = limit.reached(START + ramp + 2 * SECOND)
    assert abs(reached - rate) <= rate * 0.02 + 1
    assert limit.reached(START + 3600 * SECOND) <= rate * 1.02 + 1


def test_nothing_reached_before_it_is_used() -> None:
    limit = RateLimit(Fraction(10))
    assert limit.reached(START) == 0.0 and limit.ahead_ns(START) == 0


@given(RATES, GAPS)
def test_drop_leaves_out_what_would_wait(rate: Fraction, gaps: list[int]) -> None:
    decides = SessionRate(RateLimit(rate), DROP)
    results = [(now, decides.admit(now)) for now in arrivals(gaps)]
    assert all(result in (now, -Outcome.SKIPPED_RATE) for now, result in results)
    assert results[0][1] == START
    admitted = [now for now, result in results if result > 0]
    for first, second in pairwise(admitted):
        assert second - first >= 0
    assert decides.limit.taken == len(admitted) and decides.limit.waited == 0


@given(RATES, st.integers(1, 300))
def test_queue_is_bounded_live_and_not_of_files(rate: Fraction, count: int) -> None:
    live = SessionRate(RateLimit(rate), QUEUE)
    recorded = SessionRate(RateLimit(rate), QUEUE, recorded=True)
    for _ in range(count):
        result = live.admit(START)
        assert START <= result <= START + QUEUE_NS or result == -Outcome.SHED_RATE
        assert recorded.admit(START) >= START
    waiting = live.limit.taken
    assert waiting == min(count, int(rate * QUEUE_NS / SECOND) + 1)
    assert recorded.limit.taken == count


def test_requests_do_not_hold_sessions_back() -> None:
    config = RateConfig(Fraction(100), is_requests=True, mode=PACE)
    limit = config.limit(workers=4)
    decides = config.session_rate(limit, recorded=True)
    assert [decides.admit(START) for _ in range(50)] == [0] * 50
    assert limit.taken == 0
    first = limit.reserve(START)
    assert [limit.reserve(START) - first for _ in range(3)] == [40_000_000 * n for n in (1, 2, 3)]
