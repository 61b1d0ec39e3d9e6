"""Waiting for descriptors and for a time, with nanoseconds and in one system call.

A loop has a handful of descriptors: rings, the epolls of relay and sockets, the stop signal. So
poll(2) does, whose variant ppoll takes nanoseconds, needs no timer descriptor, and leaves behind
which of them are ready, so that the others are left alone.

Source: ppoll(2), clock_gettime(2), clock_nanosleep(2).
"""

from __future__ import annotations

import select
import sys
import time
from typing import Literal

import cython

FOR_EVER_NS = -1

_NS = 1_000_000_000.0
_BYTE_ORDER: Literal["little", "big"] = sys.byteorder


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC in nanoseconds."""
    if cython.compiled:
        return clock_now()  # type: ignore[name-defined,no-any-return]  # noqa: F821
    return time.monotonic_ns()


def nap(duration_ns: int) -> None:
    """Sleep for so long, or until a signal comes."""
    if cython.compiled:
        clock_nap(duration_ns)  # type: ignore[name-defined]  # noqa: F821
    else:
        time.sleep(duration_ns / _NS)


class Waiter:
    """Descriptors to wait for, each known by its place. Not thread-safe.

    A place stays what it is until it is taken away, and may then be given to another descriptor.
    """

    __slots__ = (
        "_descriptors",  # by place; -1: a place without one
        "_ready",  # by place: 1 if it was ready when `wait` returned
        "_table",  # compiled: what ppoll gets, an array of struct pollfd as bytes
    )

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self._ready = bytearray()
        self._table = bytearray()

    def add(self, descriptor: int) -> int:
        """Wait for `descriptor` to become readable, too; its place."""
        if -1 in self._descriptors:
            place = self._descriptors.index(-1)
            self._descriptors[place] = descriptor
        else:
            place = len(self._descriptors)
            self._descriptors.append(descriptor)
        self._rebuild()
        return place

    def remove(self, place: int) -> None:
        """Wait for it no more."""
        self._descriptors[place] = -1
        self._rebuild()

    def _rebuild(self) -> None:
        self._ready = bytearray(len(self._descriptors))
        # struct pollfd: descriptor, events, returned events. ppoll skips what is below zero.
        self._table = bytearray().join(
            descriptor.to_bytes(4, _BYTE_ORDER, signed=True)
            + select.POLLIN.to_bytes(2, _BYTE_ORDER)
            + bytes(2)
            for descriptor in self._descriptors
        )

    def wait(self, timeout_ns: int) -> int:
        """Sleep until one is readable or has failed, or for so long; how many are ready.

        `FOR_EVER_NS` waits without end. A signal ends it early, as does nothing at all now and
        then: look at the clock.
        """
        if cython.compiled:
            return wait_for(  # type: ignore[name-defined,no-any-return]  # noqa: F821
                self._table, self._ready, len(self._descriptors), timeout_ns
            )
        descriptors = [descriptor for descriptor in self._descriptors if descriptor >= 0]
        timeout = None if timeout_ns < 0 else timeout_ns / _NS
        readable = select.select(descriptors, [], [], timeout)[0]
        for place, descriptor in enumerate(self._descriptors):
            self._ready[place] = int(descriptor in readable)
        return len(readable)

    def is_ready(self, place: int) -> bool:
        """Whether it was readable, or had failed, when `wait` returned last."""
        return bool(self._ready[place])
