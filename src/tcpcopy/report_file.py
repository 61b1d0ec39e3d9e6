"""The file of `--json`: whole at any time, however the process ends.

It is written at the start, every ten seconds, and at the end; what is not the end says so. A reader
never sees half a report: a new file takes the place of the old one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

_log = logging.getLogger("tcpcopy.report")
EVERY_NS: Final = 10_000_000_000


def write_report(path: str, text: str) -> None:
    """Put `text` into the file, in one step. Raises: OSError, with the old text still there."""
    if not is_replaced(path):  # a pipe, a terminal
        Path(path).write_text(text, encoding="utf-8")
        return
    new = f"{path}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)  # of a process with the same id that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(new, flags, 0o666)
    except PermissionError:
        if not os.path.exists(path):
            raise
        Path(path).write_text(text, encoding="utf-8")  # the file is ours, its directory is not
        return
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def is_replaced(path: str) -> bool:
    """Whether it is a file, or will be one, whose place another can take."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


class ReportFile:
    """Writes what is not the end yet, now and then."""

    def __init__(self, path: str, every_ns: int = EVERY_NS) -> None:
        self._path = path
        self._every_ns = every_ns
        self._next_ns = 0
        self._told = False
        self._is_replaced = is_replaced(path)

    def tick(self, now_ns: int, text: Callable[[], str]) -> None:
        """Write `text()` if it is time to. A fault is logged, once."""
        if now_ns < self._next_ns or not self._is_replaced:
            return
        self._next_ns = now_ns + self._every_ns
        try:
            write_report(self._path, text())
        except OSError as error:
            if not self._told:
                self._told = True
                _log.warning("--json %s: %s; trying on", self._path, error.strerror)
