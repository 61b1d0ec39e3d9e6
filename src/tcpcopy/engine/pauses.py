"""Are answers that seem shorter than online's complete? Learnt from all sessions of a run.

One that was pushed, and is not as long as online's, may have ended, or be the first part of one
that goes on after a pause. Targets differ in that, their sessions hardly: where such answers have
been complete, a short silence is enough.
"""

from __future__ import annotations

_ONE = 1 << 16
# At first one in four: some forty answers that were complete show the contrary.
_FIRST = _ONE // 4
# Each answer moves the share by a 16th of the way.
_SHIFT = 4
# Fewer than one in fifty are rare.
_LIMIT = _ONE // 50


class Pauses:
    """The share of answers that went on after they had seemed complete, the newest weigh most."""

    __slots__ = (
        "share",  # in 65,536ths
    )

    def __init__(self) -> None:
        self.share = _FIRST

    def note(self, paused: int) -> int:
        """An answer was seen to its end; did it pause when it was shorter than online's?"""
        self.share += ((_ONE if paused else 0) - self.share) >> _SHIFT
        return 0

    def are_rare(self) -> bool:
        """Whether a pushed answer can be taken as complete after a short silence."""
        return self.share < _LIMIT
