"""What one worker does about sessions that are open at the target and nobody's: those of a run
before, or of the worker in whose place it is. And its own, for the next.
"""

from __future__ import annotations

import logging

from tcpcopy.engine.engine import Engine
from tcpcopy.engine.leftovers import Leftovers
from tcpcopy.ledger import Ledger
from tcpcopy.loop import Loop
from tcpcopy.relay.client import RelayClient
from tcpcopy.report.counters import LeftoverCounts
from tcpcopy.report.leftovers import describe

_log = logging.getLogger("tcpcopy.leftovers")


class LeftoverSide:
    """The ledger of a worker, and the resets of what stands in it at the start."""

    def __init__(
        self, ledger: Ledger, engine: Engine, loop: Loop, relay: RelayClient | None
    ) -> None:
        """Nothing is sent yet. `relay` is open; without one the mode needs none."""
        self._ledger = ledger
        self._engine = engine
        self._loop = loop
        self._told_of_room = False
        places = ledger.resume()
        self._leftovers = Leftovers(
            engine.context,
            engine.by_answer,
            relay,
            ledger,
            places,
            lambda: relay is None or relay.servers_up > 0,
        )
        if places:
            engine.leftovers = loop.leftovers = self._leftovers
        if engine.opener.identities is not None:
            engine.opener.ledger = ledger

    def look(self) -> None:
        """Tell what became of them, once; about once a second."""
        if self._ledger.unrecorded and not self._told_of_room:
            self._told_of_room = True
            _log.warning(
                "%s cannot grow: sessions that find no room there are not reset after a kill",
                self._ledger.path,
            )
        if self._engine.leftovers is not None and not self._leftovers.waiting:
            self._engine.leftovers = self._loop.leftovers = None
            counts = self._leftovers
            level = logging.WARNING if counts.unanswered else logging.INFO
            _log.log(level, "%s", describe(self.counts()))

    def finish(self) -> None:
        """The sessions of this run are closed; those that were to be reset yet are kept."""
        self._ledger.keep_only(frozenset(self._leftovers.places()))

    def counts(self) -> LeftoverCounts:
        """What became of them until now."""
        left = self._leftovers
        return LeftoverCounts(
            left.found,
            left.reset,
            left.gone,
            left.superseded,
            left.unanswered,
            self._ledger.unrecorded,
        )
