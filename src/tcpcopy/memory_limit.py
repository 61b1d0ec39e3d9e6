"""How a memory limit (-m) is kept: what may still be taken on, given what is resident now.

Resident memory alone says too little: what a burst has left behind free stays resident, as the
allocators keep pages that hold anything at all. So what is held now (captured packets and payload
that wait) is compared with what was held when the process was at its largest: so much of its memory
is free to be used again, and no reason to leave anything out.
"""

from __future__ import annotations

from collections.abc import Callable

_LEAST_SHARE = 8  # of the limit, the part that waiting payload has in any case
_TRIM_NS = 10_000_000_000


class MemoryLimit:
    """Looks at the memory now and then, and says what the limit leaves.

    What is left beside everything else goes to waiting payload (1/2), to captured packets that
    wait (1/4), and to new sessions and what the allocators cannot use (1/4).
    """

    def __init__(
        self, limit: int, resident: Callable[[], int], give_back: Callable[[], object]
    ) -> None:
        """`limit`: bytes; `resident`: bytes now; `give_back`: free pages go back to the kernel."""
        self._limit = limit
        self._resident = resident
        self._give_back = give_back
        self._most = 0  # resident, at the largest
        self._held_at_most = 0
        self._next_trim_ns = 0
        self.resident_bytes = 0
        self.is_short = False  # new sessions are left out
        self.payload_limit = self.backlog_limit = 0  # until the first look

    def look(self, now_ns: int, held: int, most_held: int = 0) -> None:
        """Look again; `held`: bytes that waiting packets and payload take now.

        `most_held`: at the largest since the look before.
        """
        nearly_all = self._limit - self._limit // 10
        resident = self._resident()
        if resident > nearly_all and now_ns >= self._next_trim_ns:
            self._next_trim_ns = now_ns + _TRIM_NS
            self._give_back()
            resident = self._resident()
        if resident > self._most:
            self._most = resident
            self._held_at_most = max(held, most_held)
        self.resident_bytes = resident
        reusable = max(0, self._held_at_most - held - (self._most - resident))
        used = resident - reusable
        self.is_short = used > nearly_all
        left = max(self._limit - (used - held), self._limit // _LEAST_SHARE)
        self.payload_limit = left // 2
        self.backlog_limit = left // 4
