"""Waiting for descriptors and a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tcpcopy.waiting import FOR_EVER_NS, Waiter, monotonic_ns, nap

MS = 1_000_000


@pytest.fixture
def events() -> Iterator[list[int]]:
    """Three descriptors, none readable yet."""
    descriptors = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3)]
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def test_only_what_is_readable_is_ready(events: list[int]) -> None:
    waiter = Waiter()
    places = [waiter.add(descriptor) for descriptor in events]
    assert [waiter.is_ready(place) for place in places] == [False, False, False]
    os.eventfd_write(events[1], 1)
    assert waiter.wait(FOR_EVER_NS) == 1
    assert [waiter.is_ready(place) for place in places] == [False, True, False]
    os.eventfd_read(events[1])
    assert waiter.wait(0) == 0
    assert [waiter.is_ready(place) for place in places] == [False, False, False]


def test_a_place_is_given_again_and_others_stay(events: list[int]) -> None:
    waiter = Waiter()
    first, second = waiter.add(events[0]), waiter.add(events[1])
    waiter.remove(first)
    os.eventfd_write(events[0], 1)
    assert waiter.wait(0) == 0
    assert waiter.add(events[2]) == first
    os.eventfd_write(events[2], 1)
    assert waiter.wait(0) == 1
    assert waiter.is_ready(first) and not waiter.is_ready(second)


def test_time_runs_out_no_earlier_than_asked(events: list[int]) -> None:
    waiter = Waiter()
    waiter.add(events[0])
    for timeout_ns in (0, 300_000, 3 * MS):
        started_ns = time.monotonic_ns()
        assert waiter.wait(timeout_ns) == 0
        assert timeout_ns <= time.monotonic_ns() - started_ns < timeout_ns + 2_000 * MS


def test_a_failed_descriptor_is_ready() -> None:
    """The other end of a pipe is gone: that must wake the loop, or nobody looks."""
    read_fd, write_fd = os.pipe()
    waiter = Waiter()
    place = waiter.add(read_fd)
    os.close(write_fd)
    assert waiter.wait(FOR_EVER_NS) == 1 and waiter.is_ready(place)
    os.close(read_fd)


def test_clock_and_nap() -> None:
    before_ns = time.monotonic_ns()
    started_ns = monotonic_ns()
    nap(MS)
    ended_ns = monotonic_ns()
    assert before_ns <= started_ns <= ended_ns - MS
    assert ended_ns <= time.monotonic_ns()
