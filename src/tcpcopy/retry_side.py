"""Targets that go away (--retry): said in the log, and counted in the summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tcpcopy.engine.counts import Counts
from tcpcopy.engine.retry import Target
from tcpcopy.mapping.addresses import format_address
from tcpcopy.report.context import endpoint
from tcpcopy.report.counters import Snapshot

_log = logging.getLogger(__name__)
_PAUSE_NS = 60_000_000_000  # between two warnings about one target


class RetryLog:
    """What `Retries.tell` is set to. Not thread-safe."""

    __slots__ = ("_clock", "_down", "_seconds", "_told_ns")

    def __init__(self, seconds: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """`seconds` as given to `--retry`."""
        self._clock = clock
        self._down: set[Target] = set()  # told to refuse, and not told to be back
        self._seconds = seconds
        self._told_ns: dict[Target, int] = {}

    def __call__(self, target: Target, refuses: bool, waited: int) -> None:
        """A target begins to refuse, or is back; `waited`: sessions that stood in line for it."""
        now_ns = self._clock()
        name = endpoint(format_address(target[0]), target[1])
        if not refuses:
            if target in self._down:
                self._down.discard(target)
                _log.info("target %s is back: %d sessions waited for it", name, waited)
            return
        before = self._told_ns.get(target)
        if before is None or now_ns - before >= _PAUSE_NS:
            self._told_ns[target] = now_ns
            self._down.add(target)
            _log.warning(
                "target %s refuses connections: trying again for %d s (--retry)",
                name, self._seconds,
            )  # fmt: skip


def fill_retries(snapshot: Snapshot, counts: Counts) -> None:
    """What was tried again, and what went on."""
    snapshot.sessions_resumed = counts.sessions_resumed
    snapshot.sessions_waited = counts.retry_waited
    snapshot.sessions_refused = counts.retry_waiting
    snapshot.connects_retried = counts.connects_retried
    snapshot.turns_missed = counts.turns_missed
