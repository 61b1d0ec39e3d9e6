"""`--rate`: at most so many sessions or requests a second, by slots of a fixed schedule.

Slot n has a fixed time after the first one: n over the rate, later while the rate ramps up. Who
wants to go takes the earliest slot that is left, and waits for it; a slot whose time is long past
is lost, so that a quiet minute is not made up for by a burst. Sans-I/O and deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Final

from tcpcopy.report.outcome import Outcome

_NS: Final = 1_000_000_000
# A loop that is late must not lose slots; as much of a burst is possible.
SLACK_NS: Final = 50_000_000
# Who would have to wait longer is not taken on; of files, reading waits instead.
QUEUE_NS: Final = 60 * _NS

QUEUE, PACE, DROP = "queue", "pace", "drop"
MODES: Final = (QUEUE, PACE, DROP)
SESSIONS, REQUESTS = "sessions", "requests"


@dataclass(frozen=True, slots=True)
class RateConfig:
    """`--rate` as asked for; checked already."""

    per_second: Fraction
    is_requests: bool = False  # else sessions
    mode: str = QUEUE
    ramp_ns: int = 0

    def limit(self, workers: int) -> RateLimit:
        """The share of one of so many workers."""
        return RateLimit(self.per_second / workers, self.ramp_ns)

    def session_rate(self, limit: RateLimit, recorded: bool) -> SessionRate:
        """What decides about new sessions."""
        return SessionRate(limit, self.mode, requests=self.is_requests, recorded=recorded)


class RateLimit:
    """The slots of one rate. `ramp_ns`: it grows evenly from 0 for so long, from the first use."""

    __slots__ = (
        "_next",  # number of the first slot that is left
        "_period",  # nanoseconds between slots, a fraction
        "_ramp_ns",
        "_start_ns",  # time of slot 0; None before the first use
        "_steady_first_ns",  # the first slot taken after the ramp; None: none yet
        "_steady_from",  # slots taken before that one
        "_steady_last_ns",
        "taken",  # slots taken
        "waited",  # of these, taken before their time
    )

    def __init__(self, per_second: Fraction, ramp_ns: int = 0) -> None:
        if per_second <= 0:
            raise ValueError("a rate is above 0")
        self._period = _NS / Fraction(per_second)
        self._ramp_ns = ramp_ns
        self._start_ns: int | None = None
        self._next = 0
        self._steady_first_ns: int | None = None
        self._steady_from = 0
        self._steady_last_ns = 0
        self.taken = 0
        self.waited = 0

    def offset_ns(self, slot: int) -> int:
        """Time of a slot after slot 0, rounded up."""
        periods = slot * self._period
        if 2 * periods < self._ramp_ns:  # the area below a rising line: t * t / (2 * ramp)
            square = 2 * self._ramp_ns * periods
            root = isqrt(square.numerator // square.denominator)
            return root if root * root >= square else root + 1
        return -(-(periods + Fraction(self._ramp_ns, 2)) // 1)

    def reserve(self, now_ns: int) -> int:
        """Take the next slot; when it is, `now_ns` at the earliest."""
        if self._start_ns is None:
            self._start_ns = now_ns
        slot = max(self._next, self._first_after(now_ns - SLACK_NS))
        self._next = slot + 1
        at_ns = max(now_ns, self._start_ns + self.offset_ns(slot))
        self.taken += 1
        if at_ns > now_ns:
            self.waited += 1
        if at_ns - self._start_ns >= self._ramp_ns:
            if self._steady_first_ns is None:
                self._steady_first_ns = at_ns
                self._steady_from = self.taken
            self._steady_last_ns = max(self._steady_last_ns, at_ns)
        return at_ns

    def ahead_ns(self, now_ns: int) -> int:
        """How long the next slot would have to be waited for; 0: it could go now."""
        if self._start_ns is None:
            return 0
        slot = max(self._next, self._first_after(now_ns - SLACK_NS))
        return max(0, self._start_ns + self.offset_ns(slot) - now_ns)

    def reached(self, now_ns: int) -> float:
        """Slots used per second after the ramp, up to `now_ns`; 0.0 when there is no telling."""
        if self._steady_first_ns is None or self._start_ns is None:
            return 0.0
        coming = max(0, self._next - self._first_after(now_ns + 1))
        last_ns = min(self._steady_last_ns, now_ns)
        used = self.taken - coming - self._steady_from
        seconds = (last_ns - self._steady_first_ns) / _NS
        return used / seconds if used > 0 and seconds > 0 else 0.0

    def _first_after(self, now_ns: int) -> int:
        """Number of the first slot at or after `now_ns`."""
        assert self._start_ns is not None
        elapsed_ns = now_ns - self._start_ns
        if elapsed_ns <= 0:
            return 0
        if elapsed_ns < self._ramp_ns:
            periods = Fraction(elapsed_ns * elapsed_ns, 2 * self._ramp_ns)
        else:
            periods = elapsed_ns - Fraction(self._ramp_ns, 2)
        return -(-periods // self._period)


class SessionRate:
    """Decides about each new session: when it may connect, or why not at all."""

    __slots__ = ("_bound_ns", "_limits_requests", "_mode", "limit")

    def __init__(
        self, limit: RateLimit, mode: str, *, requests: bool = False, recorded: bool = False
    ) -> None:
        """`requests`: `limit` is one of requests; sessions are only refused when too many wait."""
        self.limit = limit
        self._mode = mode
        self._limits_requests = requests
        self._bound_ns = 0 if recorded else QUEUE_NS  # 0: reading is what waits

    def admit(self, now_ns: int) -> int:
        """When the session may connect (0: at once), or the negative Outcome it ends in."""
        if self._mode == DROP and self.limit.ahead_ns(now_ns) > 0:
            return -int(Outcome.SKIPPED_RATE)
        if self._bound_ns and self.limit.ahead_ns(now_ns) > self._bound_ns:
            return -int(Outcome.SHED_RATE)
        return 0 if self._limits_requests else self.limit.reserve(now_ns)
