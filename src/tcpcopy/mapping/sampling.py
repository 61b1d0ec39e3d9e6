"""`-r` and `-g`: which sessions are replayed at all."""

from __future__ import annotations

from typing import Final

from tcpcopy.mapping.hashing import stable_hash

_NS_PER_SECOND: Final = 1_000_000_000


class Sampler:
    """Admits a share of the sessions, always the same ones for the same percentage.

    `percentage` is 1 to 100. With `gradual` the share begins at 1 % and grows by 1 % each second
    up to `percentage`, counted from `start_ns`, or from the first call when that is None. (The C
    program's -g ignores -r and goes up to 100.)
    """

    __slots__ = ("_gradual", "_percentage", "_start_ns")

    _percentage: int
    _gradual: bool  # whether the share still grows
    _start_ns: int | None

    def __init__(
        self, percentage: int = 100, gradual: bool = False, *, start_ns: int | None = None
    ) -> None:
        if not 1 <= percentage <= 100:
            raise ValueError("percentage is 1 to 100")
        self._percentage = percentage
        self._gradual = gradual
        self._start_ns = start_ns

    def admit(self, client_address: bytes, client_port: int, *, now_ns: int) -> bool:
        """Whether the session of a client address and port is replayed.

        A session admitted at some percentage is admitted at every higher one. Call it once a
        session and keep the answer: with `gradual` it changes from no to yes.
        """
        percentage = self.percentage(now_ns)
        if percentage >= 100:
            return True
        return stable_hash(client_address + client_port.to_bytes(2, "big")) % 100 < percentage

    def percentage(self, now_ns: int) -> int:
        """Share that is admitted now, 1 to 100."""
        if not self._gradual:
            return self._percentage
        if self._start_ns is None:
            self._start_ns = now_ns
        reached = max(0, now_ns - self._start_ns) // _NS_PER_SECOND + 1
        if reached >= self._percentage:
            self._gradual = False
        return min(reached, self._percentage)
