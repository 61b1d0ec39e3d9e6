"""What a worker does about handshakes beside its engine: acknowledgements, words, counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from tcpcopy.capture.acks import AckFilter, Evidence
from tcpcopy.capture.ring import Ring
from tcpcopy.engine.engine import Engine
from tcpcopy.report.counters import Snapshot
from tcpcopy.report.text import number

_log = logging.getLogger(__name__)


class HandshakeSide:
    """Looks at an engine's handshakes, about once a second and when the engine asks for it."""

    __slots__ = ("_acks", "_attempts_before", "_engine", "_told")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._acks: AckFilter | None = None
        self._told = False  # that there is a flood
        self._attempts_before = 0  # in the floods before this one

    def switch_acks(
        self, rings: Sequence[Ring], with_acks: bytes, without_acks: bytes, *, far_matters: bool
    ) -> None:
        """Let pure acknowledgements in only while they are needed; see `AckFilter`."""
        self._acks = AckFilter(rings, with_acks, without_acks, far_matters=far_matters)
        self._engine.note_acks(True, 0)

    def stop(self) -> None:
        """The rings are not captured from any more."""
        self._acks = None

    def look(self, now_ns: int, *, stood_still: bool = False) -> None:
        """See to the filter, and say when a flood begins and ends.

        `stood_still`: this process did until now, so what had no time to come proves nothing.
        """
        engine = self._engine
        if self._acks is not None and not stood_still:
            counts = engine.context.counts
            evidence = Evidence(counts.client_first, counts.server_first, counts.far)
            is_open = self._acks.look(now_ns, evidence, wanted=engine.wants_acks)
            engine.note_acks(is_open, time.monotonic_ns())
        flood = engine.flood
        if flood.flooding != self._told:
            self._told = flood.flooding
            self._tell()

    def _tell(self) -> None:
        flood = self._engine.flood
        if self._told:
            _log.warning(
                "SYN flood: %s connection attempts/s whose handshake never completes; connections"
                " are opened at the target once their client has completed its handshake",
                number(flood.rate),
            )
            return
        _log.warning(
            "SYN flood is over: %s connection attempts that never completed their handshake, at"
            " most %s/s until now",
            number(flood.attempts - self._attempts_before),
            number(flood.peak),
        )
        self._attempts_before = flood.attempts

    def fill(self, snapshot: Snapshot) -> None:
        """Put the counts in."""
        counts, flood = self._engine.context.counts, self._engine.flood
        snapshot.sessions_waiting = counts.waiting
        snapshot.sessions_since_accept = max(0, counts.begun() - counts.begun_at_accept)
        snapshot.syn_flood_rate = flood.rate if flood.flooding else 0
        snapshot.syn_flood_peak = flood.peak
        snapshot.syn_flood_attempts = flood.attempts
