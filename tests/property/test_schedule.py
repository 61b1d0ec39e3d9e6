"""The schedule of recorded packets: no drift, nothing earlier than it should be, no way back."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.recorded.schedule import BACK_NS, FORWARD_NS, LEFT_NS, Schedule

TIMES = st.lists(st.integers(0, 10**15), min_size=1, max_size=40)
SPEEDS = st.fractions(Fraction(1, 1000), 10**6, max_denominator=1000)
GAPS = st.none() | st.integers(0, 10**12)
START = 10**12


def replay(
    schedule: Schedule, times: list[int], passes: int = 1, lateness: list[int] | None = None
) -> list[int]:
    """Due times of all packets, taken in order at times that do not matter."""
    due: list[int] = []
    for number in range(passes):
        if number:
            schedule.next_pass()
        for index, time in enumerate(times):
            now = START + (lateness[index % len(lateness)] if due and lateness else 0)
            due.append(schedule.due_ns(time, now))
            schedule.take(time)
    return due


@given(TIMES, SPEEDS)
def test_exactly_the_recorded_times_over_the_speed(times: list[int], speed: Fraction) -> None:
    times.sort()
    due = replay(Schedule(speed), times)
    total = 0
    expected = [START]
    for before, after in pairwise(times):
        gap = after - before
        total += LEFT_NS if gap > FORWARD_NS else gap  # a clock that was set
        expected.append(START + int(total / speed // 1))
    assert due == expected


@given(TIMES, SPEEDS, GAPS, st.lists(st.integers(0, 10**10), min_size=1))
def test_when_packets_were_taken_does_not_matter(
    times: list[int], speed: Fraction, gap: int | None, lateness: list[int]
) -> None:
    assert replay(Schedule(speed, gap), times) == replay(
        Schedule(speed, gap), times, lateness=lateness
    )


@given(TIMES, SPEEDS, GAPS, st.integers(1, 6))
def test_passes_are_the_same_and_do_not_drift(
    times: list[int], speed: Fraction, gap: int | None, passes: int
) -> None:
    schedule = Schedule(speed, gap)
    due = replay(schedule, times, passes)
    assert due == sorted(due)
    one = replay(Schedule(Fraction(1), gap), times)  # time of the file, exactly
    length = one[-1] - START
    size = len(times)
    for number in range(passes):
        exact = [START + (number * length + at - START) / speed for at in one]
        for found, wanted in zip(due[number * size :], exact, strict=False):
            assert 0 <= wanted - found < 1  # rounded down, once


@given(TIMES, st.integers(0, 10**12))
def test_no_gap_is_longer_than_the_threshold(times: list[int], gap: int) -> None:
    due = replay(Schedule(longest_gap_ns=gap), times)
    highest = times[0]
    for (before, after), time in zip(pairwise(due), times[1:], strict=True):
        assert after - before == min(gap, max(0, time - highest))
        highest = time if highest - time > BACK_NS else max(highest, time)


@given(TIMES, SPEEDS, st.integers(-(10**9), 10**9))
def test_a_shift_moves_what_follows(times: list[int], speed: Fraction, by: int) -> None:
    plain, shifted = Schedule(speed), Schedule(speed)
    assert shifted.due_ns(times[0], START) == plain.due_ns(times[0], START)
    plain.take(times[0])
    shifted.take(times[0])
    shifted.shift(by)
    assert replay(shifted, times) == [due + by for due in replay(plain, times)]


@given(SPEEDS, GAPS)
def test_times_that_cannot_be_wait_for_nothing(speed: Fraction, gap: int | None) -> None:
    """A packet that is earlier than the one before is due with it."""
    due = replay(Schedule(speed, gap), [50, 10, 0, 50])
    assert due == [START] * 4
