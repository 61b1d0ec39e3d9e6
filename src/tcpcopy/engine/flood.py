"""Is this a SYN flood: connection attempts that come fast, and whose handshake never completes.

Attempts are counted by the second in which their SYN was captured. A second is judged when the
next but one begins: what is not completed by then, after one to two seconds, is taken for never.
More than `FLOOD_RATE` of those in one second begin a flood; it is over after `QUIET_SECONDS` on
end with at most half as many.

While pure acknowledgements are not captured, a client that connects and says nothing looks the
same as one that is not there. One such second proves nothing; `BLIND_SECONDS` on end do, or more
than `BLIND_RATE` in one.

All times are of the capture: a file comes to the same however fast it is replayed.
"""

from __future__ import annotations

from array import array

# Attempts of one second that do not complete: more are a flood.
FLOOD_RATE = 100
QUIET_SECONDS = 5
BLIND_SECONDS = 3
BLIND_RATE = 10 * FLOOD_RATE

_RATE = FLOOD_RATE
_QUIET_RATE = FLOOD_RATE // 2
_QUIET = QUIET_SECONDS
_BLIND = BLIND_SECONDS
_BLIND_RATE = BLIND_RATE
_KEPT = 4  # seconds: the one that runs, the one before it, and two for what comes late


class FloodWatch:
    """Counts attempts by the second; tells whether there is a flood, and how strong it is."""

    __slots__ = (
        "attempts",  # in all floods: those that did not complete
        "begun",  # attempts of each second kept; its number modulo _KEPT is the place
        "blind_until_ns",  # seconds that begin earlier were captured without acknowledgements
        "done",  # of `begun`, those that completed
        "flooding",  # there is one now
        "peak",  # most attempts of a second that did not complete, in floods
        "quiet",  # seconds on end that were quiet
        "rate",  # attempts of the second judged last that did not complete
        "second",  # number of the newest second
        "second_ns",  # how long one lasts, in the times given here
        "streak",  # seconds on end above the limit
        "streak_attempts",  # what did not complete in them
    )

    def __init__(self, second_ns: int) -> None:
        self.second_ns = second_ns
        self.begun = array("q", bytes(8 * _KEPT))
        self.done = array("q", bytes(8 * _KEPT))
        self.attempts = 0
        self.blind_until_ns = 0
        self.flooding = False
        self.peak = 0
        self.quiet = 0
        self.rate = 0
        self.second = 0
        self.streak = 0
        self.streak_attempts = 0

    def begin(self, syn_ns: int) -> int:
        """An attempt whose SYN was captured at `syn_ns`."""
        second = syn_ns // self.second_ns
        if second > self.second:
            self._go_to(second)
        if self.second - second < _KEPT:
            self.begun[second % _KEPT] += 1
        return 0

    def complete(self, syn_ns: int, now_ns: int) -> int:
        """An attempt that was given to `begin` has completed at `now_ns`."""
        second = now_ns // self.second_ns
        if second > self.second:
            self._go_to(second)
        second = syn_ns // self.second_ns
        if 0 <= self.second - second < _KEPT:
            self.done[second % _KEPT] += 1
        return 0

    def look(self, now_ns: int) -> int:
        """Nothing more comes that was captured before `now_ns`: judge what can be."""
        second = now_ns // self.second_ns
        if second > self.second:
            self._go_to(second)
        return 0

    def stop(self) -> int:
        """Nothing more is captured: a flood that is on ends here."""
        self.flooding = False
        self.streak = 0
        self.streak_attempts = 0
        return 0

    def is_calm(self) -> bool:
        """Whether hardly anything was left incomplete lately."""
        return not self.flooding and self.quiet > 0

    def _go_to(self, second: int) -> None:
        """A later second has begun."""
        if second - self.second > 2 * _KEPT + _QUIET:
            # Long ago: what was begun then is judged, and what follows was quiet.
            for _ in range(2 * _KEPT + _QUIET):
                self._next()
            self.second = second
            return
        while self.second < second:
            self._next()

    def _next(self) -> None:
        """The next second begins: judge the one before the one that ends."""
        if self.second > 0:
            self._judge(self.second - 1)
        self.second += 1
        place = self.second % _KEPT
        self.begun[place] = 0
        self.done[place] = 0

    def _judge(self, second: int) -> None:
        place = second % _KEPT
        left = self.begun[place] - self.done[place]
        self.rate = left
        self.quiet = self.quiet + 1 if left <= _QUIET_RATE else 0
        if left > _RATE:
            self.streak += 1
            self.streak_attempts += left
        else:
            self.streak = 0
            self.streak_attempts = 0
        if self.flooding:
            self.attempts += left
            if left > self.peak:
                self.peak = left
            self.flooding = self.quiet < _QUIET
            return
        is_blind = second * self.second_ns < self.blind_until_ns
        if self.streak >= (_BLIND if is_blind and left <= _BLIND_RATE else 1):
            self.flooding = True
            self.attempts += self.streak_attempts
            if left > self.peak:
                self.peak = left
