"""The process around a loop: daemon, pid file, log, stop signals, limits. Both commands share it.

A daemon is forked before anything is opened, and the command that was typed waits for it: what is
wrong is still said on the terminal, with the exit code it would have without `-d`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from logging.handlers import MemoryHandler, SysLogHandler
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn, Self, TextIO

from tcpcopy import output_files
from tcpcopy.errors import UsageError
from tcpcopy.privileges import User
from tcpcopy.report import log

_EXIT_BAD_USAGE: Final = 2
_EXIT_INTERRUPTED: Final = 130  # as a shell shows SIGINT
_SYSLOG: Final = "/dev/log"
_MOST_OPEN_FILES: Final = 1 << 20
_PID_DIGITS: Final = 20
_HELD_RECORDS: Final = 1000
_READY: Final = 0xFF  # byte from a daemon that is up; any other is the exit code of one that is not


def run_command(program: str, daemon: bool, run: Callable[[Startup | None], int]) -> int:
    """Run a command, as a daemon when asked for; its exit code.

    `run` raises UsageError, with nothing left behind, for what cannot be done: one line on the
    terminal and exit code 2. A daemon's `run` calls `ready` once all is open.
    """
    startup = None
    try:
        fill_standard_streams()
        startup = daemonize() if daemon else None
        code = run(startup)
        _flush()  # what a terminal that is gone does not take must not change the exit code
        return code
    except UsageError as error:
        line = f"{program}: {error}"
    except KeyboardInterrupt:  # before `stop_signals`: nothing has begun
        return _EXIT_INTERRUPTED
    if startup is not None:
        startup.fail(line, _EXIT_BAD_USAGE)
    else:
        say(f"{line}\n", sys.stderr)
    return _EXIT_BAD_USAGE


def say(text: str, stream: TextIO | None) -> None:
    """Write to a standard stream; nobody reading it (`| head`, a terminal gone) is no error."""
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        # The interpreter would flush it again at its end, and complain.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def fill_standard_streams() -> None:
    """Open descriptors 0 to 2 where they are closed, or a socket would take their place."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return


def raise_open_files() -> int:
    """Raise the limit of open files as far as this process may; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = [(max(hard, _MOST_OPEN_FILES),) * 2, (hard, hard)]
    if hard == resource.RLIM_INFINITY:
        wanted = [(_MOST_OPEN_FILES, hard)]
    for limits in wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (ValueError, OSError):  # no privilege, or above fs.nr_open
            continue
        return limits[0]
    return soft


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """What the system refuses while all is opened becomes a UsageError."""
    try:
        yield
    except OSError as error:
        hint = {
            errno.EMFILE: "raise the limit of open files (ulimit -n)",
            errno.ENFILE: "raise the limit of open files of this host (sysctl fs.file-max)",
            errno.ENOMEM: "free memory, or ask for less (-B)",
            errno.ENOBUFS: "free memory, or ask for less (-B)",
        }.get(error.errno or 0, "this host does not allow what is needed to run here")
        where = f" ({error.filename})" if error.filename else ""
        raise UsageError("start", None, f"{error.strerror or error}{where}", hint) from error


class Startup:
    """A daemon's line to the command that was typed, until one of `ready` and `fail` is called."""

    def __init__(self, write_fd: int) -> None:
        self._write_fd = write_fd

    def ready(self) -> None:
        """Everything is open: let the command return 0, and let go of its terminal."""
        self._tell(bytes([_READY]))
        null = os.open(os.devnull, os.O_RDWR)
        _flush()
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
    _flush()
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


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        say("", stream)


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
    say(f"{text}\n", sys.stderr)
    return data[0] if data else 1


class PidFile:
    """A file that holds this process's id while it runs; use as a context manager.

    It is locked, so that a file left over by a process that was killed is taken over, and one of a
    process that runs is not. A file that holds anything but a process id is left alone.
    """

    def __init__(self, path: str) -> None:
        self._fd = -1
        self._path = path

    def __enter__(self) -> Self:
        """Write it. Raises: UsageError when that cannot be done or its process still runs."""
        try:
            self._open()
        except output_files.Unfit as error:
            self._refuse(error.problem, error.hint)
        except OSError as error:
            self._close()
            self._refuse(error.strerror or str(error), "give a file that can be written")
        except BaseException:
            self._close()
            raise
        return self

    def _open(self) -> None:
        self._fd = output_files.open_exclusively(self._path, {0, os.geteuid()})
        status = os.fstat(self._fd)
        text = os.read(self._fd, _PID_DIGITS + 1).strip()
        if text and not (text.isdigit() and len(text) <= _PID_DIGITS):
            self._refuse("holds something else than a process id", "name a file of its own")
        owner = int(text or 0)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            runs = owner != os.getpid() and started_before(owner, status.st_mtime)
        except BlockingIOError:
            runs = True
        if runs:
            who = f"process {owner}" if owner else "another process"
            self._refuse(f"{who} runs with this file", "stop it, or name another")
        if not os.fstat(self._fd).st_nlink:  # its owner has ended and removed it meanwhile
            self._close()
            return self._open()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        return None

    def _refuse(self, problem: str, hint: str) -> NoReturn:
        raise UsageError("-P", self._path, problem, hint)

    def __exit__(self, *exception: object) -> None:
        """Remove it, unless another has its name or number by now."""
        with contextlib.suppress(OSError):
            own, named = os.fstat(self._fd), os.lstat(self._path)
            if (
                (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino)
                and os.pread(self._fd, _PID_DIGITS + 1, 0).strip() == str(os.getpid()).encode()
            ):  # fmt: skip
                try:
                    os.unlink(self._path)
                except PermissionError:  # --user may not; an empty one is taken for none
                    os.ftruncate(self._fd, 0)
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def started_before(pid: int, moment: float) -> bool:
    """Whether process `pid` runs and did so at `moment` (seconds of CLOCK_REALTIME).

    One that began later has the number by chance. Source: proc(5), stat and btime.
    """
    if pid <= 0:
        return False
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[19])
        lines = Path("/proc/stat").read_text().splitlines()
    except (OSError, ValueError, IndexError):
        return False
    if fields[0] in "ZX":  # dead, and nobody has taken note
        return False
    booted = next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)
    # btime is in whole seconds.
    return booted + ticks / os.sysconf("SC_CLK_TCK") <= moment + 1


def check_replaceable(option: str, path: str) -> None:
    """Raise UsageError unless a report can be written there, now; nothing is left behind."""
    try:
        output_files.check_whole(path)
    except output_files.Unfit as error:
        raise UsageError(option, path, error.problem, error.hint) from None
    except OSError as error:
        raise UsageError(
            option, path, error.strerror or str(error), "give a file that can be written"
        ) from None


def hold_log() -> None:
    """Keep what is logged from now on until `open_log`, which writes it: the log comes last."""
    logger = logging.getLogger(log.ROOT)
    log.shut_down()
    logger.addHandler(MemoryHandler(_HELD_RECORDS, logging.CRITICAL, flushOnClose=False))
    logger.setLevel(logging.INFO)
    logger.propagate = False


def open_log(
    path: str | None,
    *,
    daemon: bool = False,
    program: str = "tcpcopy",
    user: User | None = None,
) -> logging.Logger:
    """Send the log to `path` (-l), else to stderr, or to syslog for a daemon, which has none.

    `user` (--user) gets the file when it is new. What `hold_log` kept comes first. Where there is
    no syslog either, that is said on the terminal.
    Raises: UsageError when the file cannot be opened.
    """
    handlers = logging.getLogger(log.ROOT).handlers
    held = [r for handler in handlers if isinstance(handler, MemoryHandler) for r in handler.buffer]
    logger = log.set_up(path, owner=None if user is None else (user.uid, user.gid))
    if daemon and not path:
        log.shut_down()
        logger.addHandler(_syslog(program))
    for record in held:
        logger.handle(record)
    return logger


def _syslog(program: str) -> logging.Handler:
    if not Path(_SYSLOG).exists():
        say(f"{program}: -d: no syslog here, nothing is logged; give -l FILE\n", sys.stderr)
        return logging.NullHandler()
    handler = SysLogHandler(_SYSLOG, SysLogHandler.LOG_DAEMON)  # a syslog that is down is no error
    handler.setFormatter(logging.Formatter("%(name)s[%(process)d]: %(levelname)s %(message)s"))
    return handler


class StopSignals:
    """SIGINT and SIGTERM as a descriptor that polls readable, for a loop to end cleanly.

    SIGHUP is one of them where there is a terminal, which is then gone. Without one it is ignored:
    a log that was rotated is opened anew by itself. Main thread only. SIGPIPE stays ignored, as
    Python has it.
    """

    def __init__(self) -> None:
        self.requests = 0  # signals so far; the second means: at once
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._before: dict[int, Any] = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # else nohup has seen to it
            handler = self._note if _has_terminal() else signal.SIG_IGN
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, handler)

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


def _has_terminal() -> bool:
    return any(os.isatty(descriptor) for descriptor in (0, 1, 2))


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """`StopSignals` for the time of a `with` block."""
    signals = StopSignals()
    try:
        yield signals
    finally:
        signals.close()
