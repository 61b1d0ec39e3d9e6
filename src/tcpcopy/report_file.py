"""The file of `--json`: whole at any time, however the process ends.

It is written at the start, every ten seconds, and at the end; what is not the end says so. A reader
never sees half a report: a new file takes the place of the old one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

from tcpcopy.output_files import is_replaced, write_whole

_log = logging.getLogger("tcpcopy.report")
EVERY_NS: Final = 10_000_000_000


class ReportFile:
    """Writes what is not the end yet, now and then."""

    def __init__(self, path: str, every_ns: int = EVERY_NS) -> None:
        """A pipe or a terminal is left alone: it gets the end only."""
        self._path = path
        self._every_ns = every_ns
        self._next_ns = 0
        self._told = False
        self._is_replaced = is_replaced(path)

    def tick(self, now_ns: int, data: Callable[[], bytes]) -> None:
        """Write `data()` if it is time to. A fault is logged, once."""
        if now_ns < self._next_ns or not self._is_replaced:
            return
        self._next_ns = now_ns + self._every_ns
        try:
            write_whole(self._path, data(), {0, os.geteuid()})
        except OSError as error:
            if not self._told:
                self._told = True
                _log.warning("--json %s: %s; trying on", self._path, error.strerror)
