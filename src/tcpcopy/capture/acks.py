"""Whether pure acknowledgements are captured: they are most packets of many clients.

Two things need them, both at a connection's start, where the last one of the handshake tells the
client's round-trip time, and from where the server's bytes count (when the server speaks first).
Where clients are near and speak first, neither matters, and the kernel drops them: a filter has no
memory, so it is all of them or none. From time to time they are let in again, to see whether that
still holds. They are let in at once when many connections are begun whose clients say nothing: only
the acknowledgements tell those that are there from those of a SYN flood.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from tcpcopy.capture.ring import Ring

_log = logging.getLogger(__name__)
_SECOND_NS = 1_000_000_000
SESSIONS_NEEDED = 20
CLOSED_NS = 60 * _SECOND_NS
OPEN_NS = _SECOND_NS


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the engine has seen of connections from their start; totals that only grow."""

    client_first: int = 0  # the client spoke first
    server_first: int = 0
    far: int = 0  # their round-trip time is worth being put back


class AckFilter:
    """Switches the filter of the rings. The owner calls `look` about once a second."""

    def __init__(
        self, rings: Sequence[Ring], with_acks: bytes, without_acks: bytes, *, far_matters: bool
    ) -> None:
        """Acknowledgements are let in at first. `far_matters`: no round-trip time was given."""
        self._rings = rings
        self._programs = {True: with_acks, False: without_acks}
        self._far_matters = far_matters
        self._since = Evidence()
        self._changed_ns = 0
        self._failed = False
        self.open = True  # they are let in

    def look(self, now_ns: int, seen: Evidence, *, wanted: bool = False) -> bool:
        """Decide anew; whether pure acknowledgements are let in from now on.

        `wanted`: whatever was seen, they have to be.
        """
        if not self._changed_ns:
            self._changed_ns = now_ns
        lasted_ns = now_ns - self._changed_ns
        if not self.open:
            if wanted or lasted_ns >= CLOSED_NS:
                self._switch(True, now_ns, seen)
        elif lasted_ns >= OPEN_NS and not self._failed and not (wanted or self._are_needed(seen)):
            self._switch(False, now_ns, seen)
        return self.open

    def _are_needed(self, seen: Evidence) -> bool:
        since = self._since
        return (
            seen.client_first - since.client_first < SESSIONS_NEEDED
            or seen.server_first > since.server_first
            or (self._far_matters and seen.far > since.far)
        )

    def _switch(self, wanted: bool, now_ns: int, seen: Evidence) -> None:
        try:
            for ring in self._rings:
                ring.set_filter(self._programs[wanted])
        except Exception as error:  # the longer program may not fit; the other one did
            _log.warning("pure acknowledgements are captured: %s", error)
            self._failed = True
            if not wanted:
                for ring in self._rings:
                    ring.set_filter(self._programs[True])
            return
        self.open = wanted
        self._changed_ns = now_ns
        self._since = seen
