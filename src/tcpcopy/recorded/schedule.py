"""When recorded packets are replayed: capture times mapped to a clock of the present.

Everything is counted from one fixed anchor, the first packet of the first pass, in whole
nanoseconds of the file and with the speed as an exact fraction, so that nothing drifts, however
long the file is and however often it is repeated: pass k begins k times the length of a pass after
the anchor. Sans-I/O: the time is passed in.
"""

from __future__ import annotations

from fractions import Fraction

ONE = Fraction(1)
#: Where nothing is cut (`longest_gap_ns`), a clock that goes on by more was set.
FORWARD_NS = 3600 * 10**9
#: What is left of such a wait.
LEFT_NS = 10**9
#: A clock that is set back by more than this is not the order of several interfaces.
BACK_NS = 10**9


class Schedule:
    """Due times of the packets of one replay. They never go back, even where a file's times do.

    Where the clock of the file jumps, back by more than `BACK_NS` or ahead by more than
    `FORWARD_NS`, the pauses after that are kept all the same: packets are counted from the jump.

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
        "jumps_back",  # of the clock of the file, all passes together
        "jumps_forward",
        "_passed_ns",  # time of the file in the passes before this one
    )

    def __init__(self, speed: Fraction = ONE, longest_gap_ns: int | None = None) -> None:
        if speed <= 0:
            raise ValueError("speed is above 0")
        self._numerator = speed.numerator
        self._denominator = speed.denominator
        self._longest_gap_ns = longest_gap_ns
        self.jumps_back = self.jumps_forward = 0
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
            self.jumps_forward += self._last_ns is not None and self._is_jump(timestamp_ns)
            self._last_ns = timestamp_ns
        elif self._last_ns - timestamp_ns > BACK_NS:
            self.jumps_back += 1
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
        if self._is_jump(timestamp_ns):
            return LEFT_NS
        return gap_ns if self._longest_gap_ns is None else min(gap_ns, self._longest_gap_ns)

    def _is_jump(self, timestamp_ns: int) -> bool:
        """Whether the clock was set forwards. Who names a longest gap means what is shorter."""
        if self._last_ns is None or self._longest_gap_ns is not None:
            return False
        return timestamp_ns - self._last_ns > FORWARD_NS
