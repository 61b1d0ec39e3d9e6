"""When recorded packets are replayed: capture times mapped to a clock of the present.

Everything is counted from one fixed anchor, the first packet of the first pass, in whole
nanoseconds of the file and with the speed as an exact fraction, so that nothing drifts, however
long the file is and however often it is repeated: pass k begins k times the length of a pass after
the anchor. Sans-I/O: the time is passed in.
"""

from __future__ import annotations

from fractions import Fraction

ONE = Fraction(1)


class Schedule:
    """Due times of the packets of one replay. They never go back, even where a file's times do.

    `speed`: so many times faster than captured. `longest_gap_ns`: what is longer between two
    packets of the file (not of the replay) is cut to this; None: nothing is cut.
    """

    __slots__ = (
        "_anchor_ns",  # when the first packet of the first pass is due; None before it is known
        "_denominator",
        "_elapsed_ns",  # time of the file up to the packet taken last, this pass
        "_last_ns",  # capture time of that packet, the latest of this pass; None before the first
        "_longest_gap_ns",
        "_numerator",
        "_passed_ns",  # time of the file in the passes before this one
    )

    def __init__(self, speed: Fraction = ONE, longest_gap_ns: int | None = None) -> None:
        if speed <= 0:
            raise ValueError("speed is above 0")
        self._numerator = speed.numerator
        self._denominator = speed.denominator
        self._longest_gap_ns = longest_gap_ns
        self._anchor_ns: int | None = None
        self._passed_ns = 0
        self._elapsed_ns = 0
        self._last_ns: int | None = None

    def due_ns(self, timestamp_ns: int, now_ns: int) -> int:
        """When a packet captured at `timestamp_ns` is due; the very first one is due `now_ns`."""
        if self._anchor_ns is None:
            self._anchor_ns = now_ns
        total_ns = self._passed_ns + self._elapsed_ns + self._gap_ns(timestamp_ns)
        return self._anchor_ns + total_ns * self._denominator // self._numerator

    def take(self, timestamp_ns: int) -> None:
        """The packet has been replayed: later ones are counted from it."""
        self._elapsed_ns += self._gap_ns(timestamp_ns)
        if self._last_ns is None or timestamp_ns > self._last_ns:
            self._last_ns = timestamp_ns

    def next_pass(self) -> None:
        """The file begins anew; its first packet is due when the last one of this pass was."""
        self._passed_ns += self._elapsed_ns
        self._elapsed_ns = 0
        self._last_ns = None

    def shift(self, by_ns: int) -> None:
        """Everything to come is due so much later (or earlier)."""
        if self._anchor_ns is not None:
            self._anchor_ns += by_ns

    def _gap_ns(self, timestamp_ns: int) -> int:
        if self._last_ns is None:
            return 0
        gap_ns = max(0, timestamp_ns - self._last_ns)
        return gap_ns if self._longest_gap_ns is None else min(gap_ns, self._longest_gap_ns)
