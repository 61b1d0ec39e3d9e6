"""The log: one line for each event, to stderr or to `-l FILE`, with repeats held back.

Logging never ends the program: a full disk or a deleted file costs lines, which are counted and
told about once writing works again.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Final, TextIO

from tcpcopy import output_files
from tcpcopy.errors import UsageError

#: The logger of both commands; modules may use children of it.
ROOT: Final = "tcpcopy"
_SECOND_NS: Final = 1_000_000_000
Owner = tuple[int, int]  # user and group


class LineFormatter(logging.Formatter):
    """`2025-03-01T12:00:00.123+01:00 WARNING text`: local time with its zone, to the millisecond.

    A line break in a message is written as `\\n`, so that one event stays one line and nothing
    that came from the network can fake a second one. Tracebacks follow on lines of their own.
    """

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone()
        return moment.isoformat(timespec="milliseconds")

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = record.message
        if not text.isprintable():
            text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        name = record.name.removeprefix(ROOT).removeprefix(".")
        where = f"{name}: " if name else ""
        return f"{self.formatTime(record)} {record.levelname} {where}{text}"

    def usesTime(self) -> bool:
        return False  # formatMessage makes it


class FileHandler(logging.FileHandler):
    """Appends to a file, and opens it anew when it was rotated away.

    While the new one cannot be opened (no right to, or somebody has put a link there), it goes on
    in the old one, and says so there.
    """

    def __init__(self, path: str, owner: Owner | None = None) -> None:
        """`owner` gets the file when it is new. Raises: OSError (`output_files.Unfit`)."""
        self._owner = owner
        self._owners = {0, os.geteuid(), *(() if owner is None else owner[:1])}
        self._place: tuple[int, int] | None = None  # device and inode; None: nothing that rotates
        self._told = ""  # why it goes on in the old file
        self.lost_lines = 0  # since writing last worked
        super().__init__(path, mode="a", encoding="utf-8", errors="backslashreplace")

    def _open(self) -> io.TextIOWrapper:
        descriptor, is_new = output_files.open_to_append(self.baseFilename, self._owners)
        status = os.fstat(descriptor)
        if is_new and self._owner is not None:
            with contextlib.suppress(PermissionError):  # it is that user's already
                os.fchown(descriptor, *self._owner)
        named = output_files.descriptor_named(self.baseFilename) is not None
        self._place = None if named else (status.st_dev, status.st_ino)
        # Unbuffered: each line is one write, and a line that fails is not kept to fail again.
        raw = open(descriptor, "ab", buffering=0)  # noqa: SIM115  # logging closes it
        return io.TextIOWrapper(raw, encoding=self.encoding, errors=self.errors, write_through=True)

    def reopen(self) -> None:
        """Go on in a new file when the name no longer leads to this one. Never raises."""
        if self._place is None:
            return
        with contextlib.suppress(OSError):
            status = os.lstat(self.baseFilename)
            if (status.st_dev, status.st_ino) == self._place:
                return
        before, self._place = self._place, None
        try:
            stream = self._open()
        except OSError as error:
            self._place = before
            self._tell_of(error.strerror or str(error))
            return
        if self.stream is not None:
            self.stream.close()
        self.stream = stream
        self._told = ""

    def _tell_of(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            if not self._is_deleted():
                self._note(f"the new log {self.baseFilename}: {problem}; going on in the old one")

    def _is_deleted(self) -> bool:
        return self.stream is not None and not os.fstat(self.stream.fileno()).st_nlink

    def _note(self, text: str) -> None:
        record = logging.LogRecord(ROOT, logging.WARNING, __file__, 0, text, None, None)
        self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        """Write a record, or count it as lost: what has no name any more nobody will read."""
        lost_before = self.lost_lines
        if self._told and self._is_deleted():
            self.lost_lines += 1
            return
        super().emit(record)
        if lost_before and self.lost_lines == lost_before:
            self.lost_lines = 0
            self._note(f"{lost_before} log lines before this one could not be written")

    def emit(self, record: logging.LogRecord) -> None:
        self.reopen()
        self._write(record)

    def handleError(self, record: logging.LogRecord) -> None:
        self.lost_lines += 1


class TerminalHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream that may also show a status line, which is wiped before each record."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        #: Called before a record is written; `StatusReporter.clear` belongs here.
        self.before: Callable[[], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.before is not None:
            self.before()
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Nobody reads a stderr that is gone; the run goes on."""


def set_up(
    path: str | None = None,
    *,
    level: int = logging.INFO,
    stream: TextIO | None = None,
    owner: Owner | None = None,
) -> logging.Logger:
    """Send the log to the file `path` (`-l`), or to `stream` (stderr); returns the logger.

    `owner` gets the file when it is new. Calling it again replaces what was set up before. Raises:
    UsageError when the file cannot be opened for appending.
    """
    handler: logging.Handler
    if path:
        try:
            handler = FileHandler(path, owner)
        except output_files.Unfit as error:
            raise UsageError("-l", path, error.problem, error.hint) from None
        except OSError as error:
            raise UsageError(
                "-l", path, error.strerror or str(error), "give a file that can be written"
            ) from error
    else:
        handler = TerminalHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(LineFormatter())
    logger = logging.getLogger(ROOT)
    shut_down()
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    return logger


def shut_down() -> None:
    """Close what `set_up` opened."""
    logger = logging.getLogger(ROOT)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def wipe_before(clear: Callable[[], None] | None) -> None:
    """Call `clear` before each record on a terminal, so that a status line does not mix with it."""
    for handler in logging.getLogger(ROOT).handlers:
        if isinstance(handler, TerminalHandler):
            handler.before = clear


def reopen() -> None:
    """Open a rotated log file anew at once (SIGHUP); without it that happens at the next line."""
    for handler in logging.getLogger(ROOT).handlers:
        if isinstance(handler, FileHandler):
            handler.reopen()


class RateLimited:
    """Passes on the first few records of a kind in each interval, and counts the others.

    A kind is a `key`, any hashable that is cheap to make. What was held back is told in one line
    when its interval is over: before the next record of the kind, or by `flush`. At most
    `max_keys` kinds are remembered; the oldest makes room, its count is told first.
    """

    __slots__ = ("_burst", "_interval_ns", "_kinds", "_logger", "_max_keys", "held_back")

    def __init__(
        self,
        logger: logging.Logger,
        interval_ns: int = 10 * _SECOND_NS,
        burst: int = 3,
        max_keys: int = 256,
    ) -> None:
        self._logger = logger
        self._interval_ns = interval_ns
        self._burst = burst
        self._max_keys = max_keys
        self._kinds: dict[object, _Kind] = {}  # in the order of first use
        self.held_back = 0  # records not passed on, in all

    def log(self, level: int, key: object, now_ns: int, message: str, *args: object) -> bool:
        """Log `message % args` unless its kind had its share; whether it was logged."""
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= self._max_keys:
                self._tell(self._kinds.pop(next(iter(self._kinds))))
            kind = self._kinds[key] = _Kind(now_ns)
        elif now_ns - kind.since_ns >= self._interval_ns:
            self._tell(kind)
            kind.since_ns, kind.passed = now_ns, 0
        if kind.passed >= self._burst:
            kind.held_back += 1
            kind.level, kind.message, kind.args = level, message, args
            self.held_back += 1
            return False
        kind.passed += 1
        self._logger.log(level, message, *args)
        return True

    def warning(self, key: object, now_ns: int, message: str, *args: object) -> bool:
        """`log` at level WARNING."""
        return self.log(logging.WARNING, key, now_ns, message, *args)

    def flush(self, now_ns: int | None = None) -> None:
        """Tell what was held back in intervals that are over; without a time, everything."""
        for key, kind in list(self._kinds.items()):
            if now_ns is None or now_ns - kind.since_ns >= self._interval_ns:
                self._tell(kind)
                del self._kinds[key]

    def _tell(self, kind: _Kind) -> None:
        if kind.held_back:
            text = f"{kind.message} (and {kind.held_back - 1} more like this)"
            if kind.held_back == 1:
                text = kind.message
            self._logger.log(kind.level, text, *kind.args)
            kind.held_back = 0


class _Kind:
    """One kind of record."""

    __slots__ = ("args", "held_back", "level", "message", "passed", "since_ns")

    def __init__(self, since_ns: int) -> None:
        self.since_ns = since_ns  # start of its interval
        self.passed = 0  # logged in the interval, at most the burst
        self.held_back = 0  # not logged since
        self.level = logging.WARNING  # level, message and args: of the last one held back
        self.message = ""
        self.args: tuple[object, ...] = ()
