"""The process around a loop: daemon, pid file, log, stop signals. Both commands share it.

A daemon is forked before anything is opened, and the command that was typed waits for it: what is
wrong is still said on the terminal, with the exit code it would have without `-d`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Iterator
from logging.handlers import SysLogHandler
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

from tcpcopy.errors import UsageError
from tcpcopy.report import log

_SYSLOG: Final = "/dev/log"
_READY: Final = 0xFF  # byte from a daemon that is up; any other is the exit code of one that is not


class Startup:
    """A daemon's line to the command that was typed, until one of `ready` and `fail` is called."""

    def __init__(self, write_fd: int) -> None:
        self._write_fd = write_fd

    def ready(self) -> None:
        """Everything is open: let the command return 0, and let go of its terminal."""
        self._tell(bytes([_READY]))
        null = os.open(os.devnull, os.O_RDWR)
        sys.stdout.flush()
        sys.stderr.flush()
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        if null > 2:
            os.close(null)

    def fail(self, text: str, code: int) -> None:
        """Let the command print the line `text` on stderr and return `code` (1 to 254)."""
        self._tell(bytes([code]) + text.encode(errors="backslashreplace"))

    def _tell(self, data: bytes) -> None:
        if self._write_fd >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._write_fd, data)
            os.close(self._write_fd)
            self._write_fd = -1


def daemonize() -> Startup:
    """Go on in a child process without terminal; the parent waits for it, and never returns.

    Call before threads, sockets and files are there. The child runs in a session of its own with
    SIGHUP ignored, as TCPCopy 1.3.0 does, and in `/`: paths must be absolute.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child:
        os.close(write_fd)
        os._exit(_await_startup(read_fd, child))
    os.close(read_fd)
    os.setsid()
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return Startup(write_fd)


def _await_startup(read_fd: int, child: int) -> int:
    """What the command returns: the daemon's word, or 1 when it ended without one."""
    data = b""
    with open(read_fd, "rb") as pipe:
        try:
            data = pipe.read()
        except KeyboardInterrupt:
            os.kill(child, signal.SIGTERM)
            return 130
    if data[:1] == bytes([_READY]):
        return 0
    text = data[1:].decode() or "the daemon ended before it was up"
    print(text, file=sys.stderr, flush=True)
    return data[0] if data else 1


class PidFile:
    """A file that holds this process's id while it runs; use as a context manager.

    It is locked, so that a file left over by a process that was killed is taken over, and one of a
    process that runs is not.
    """

    def __init__(self, path: str) -> None:
        self._fd = -1
        self._path = path

    def __enter__(self) -> Self:
        """Write it. Raises: UsageError when that cannot be done or its process still runs."""
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._fd, 32).decode(errors="replace").strip()
            self._close()
            raise UsageError(
                "-P", self._path, f"process {owner} runs with this file", "stop it, or name another"
            ) from None
        except OSError as error:
            self._close()
            raise UsageError(
                "-P", self._path, error.strerror or str(error), "give a file that can be written"
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_log(path: str | None, *, daemon: bool = False) -> logging.Logger:
    """Send the log to `path` (-l), else to stderr, or to syslog for a daemon, which has none.

    Raises: UsageError when the file cannot be opened.
    """
    logger = log.set_up(path)
    if daemon and not path:
        log.shut_down()
        logger.addHandler(_syslog())
    return logger


def _syslog() -> logging.Handler:
    if not Path(_SYSLOG).exists():
        return logging.NullHandler()
    try:
        handler = SysLogHandler(_SYSLOG, SysLogHandler.LOG_DAEMON)
    except OSError:
        return logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(name)s[%(process)d]: %(levelname)s %(message)s"))
    return handler


class StopSignals:
    """SIGINT and SIGTERM as a descriptor that polls readable, for a loop to end cleanly.

    Main thread only. SIGPIPE stays ignored, as Python has it.
    """

    def __init__(self) -> None:
        self.requests = 0  # signals so far; the second means: at once
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._before: dict[int, Any] = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def fileno(self) -> int:
        """Readable once a signal has come, and from then on."""
        return self._read_fd

    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.requests > 0

    def close(self) -> None:
        """Put back the handlers that were there."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requests += 1


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """`StopSignals` for the time of a `with` block."""
    signals = StopSignals()
    try:
        yield signals
    finally:
        signals.close()
