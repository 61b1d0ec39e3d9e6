"""The files of this run, and those of runs before it that ended without a word.

Each worker has a `Ledger` in a directory that nobody else may write. Its lock is gone when all
processes that had it are: then it is a dead run's, and tells that this run has no summary, and
which sessions are open at the targets yet. They go over into the files of this run, whose workers
reset them; only then is the dead file removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import secrets
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tcpcopy.errors import UsageError
from tcpcopy.ledger import MOST_BYTES, RUN_BYTES, Header, Ledger, read_header, read_sessions
from tcpcopy.mapping.addresses import is_loopback, unusable_as_destination
from tcpcopy.mapping.clients import AddressPool
from tcpcopy.mapping.shares import worker_of
from tcpcopy.report.text import plural

_log = logging.getLogger("tcpcopy.runs")

_OPTION: Final = "--state"
_SUFFIX: Final = ".run"
_MOST_FILES: Final = 1000  # that are looked at
_SO_NETNS_COOKIE: Final = 71
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

#: Index of the worker that may reset a session (mapped, port, target, port); -1: none may.
Owner = Callable[[bytes, int, bytes, int], int]


@dataclass(frozen=True, slots=True)
class Job:
    """What a run does, by which the next one that does the same finds its file."""

    mode: str
    transfers: tuple[str, ...]
    files: tuple[str, ...] = ()

    def digest(self) -> bytes:
        """The same for the same job."""
        words = "\0".join([self.mode, *sorted(self.transfers), "", *self.files])
        return hashlib.sha256(words.encode(errors="surrogateescape")).digest()


@dataclass(slots=True)
class EarlierRun:
    """A run that is no more, and left its files."""

    process: int
    started_ns: int
    is_same_job: bool
    ended: bool  # with a summary
    sessions: int = 0  # open at the targets, to be reset
    impossible: int = 0  # that this run cannot have opened, and so leaves alone

    def describe(self) -> str:
        """One line for the log."""
        begun = datetime.fromtimestamp(self.started_ns // 1_000_000_000).astimezone()
        who = "the last run" if self.is_same_job else "another run"
        text = f"{who} (process {self.process}, begun {begun.isoformat(timespec='seconds')}) "
        text += "ended before all was closed" if self.ended else "ended without a summary"
        if self.sessions:
            were = "was" if self.sessions == 1 else "were"
            them = "it" if self.sessions == 1 else "them"
            text += f"; {plural(self.sessions, 'session')} {were} left open at the target: "
            text += f"resetting {them}"
        if self.impossible:
            text += (
                f"; {plural(self.impossible, 'session')} may be open at a target or with an address"
                " that this run does not use, and stay"
            )
        return text


def default_directory(environment: Mapping[str, str], user: int) -> str:
    """Where files go when --state is not given; "" when this user has no place for them."""
    service = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]  # systemd.exec(5)
    if os.path.isabs(service):
        return os.path.realpath(service)  # with DynamicUser= it is a link to a private one
    if user == 0:
        return "/run/tcpcopy"
    own = environment.get("XDG_RUNTIME_DIR", "")
    return os.path.join(own, "tcpcopy") if os.path.isabs(own) else ""


class RunFiles:
    """The ledgers of a run, by worker; none when there is no place for them."""

    def __init__(
        self, directory: str, given: bool, job: Job, owner: Owner, packets: bool = True
    ) -> None:
        """Nothing is opened yet. `given`: by --state, so that it must do.

        `packets`: sessions at the target outlive this process, so that no file is worth a warning.
        """
        self.ledgers: list[Ledger] = []
        self.earlier: list[EarlierRun] = []
        self._given = given
        self._job = job
        self._owner = owner
        self._packets = packets
        self._path = directory
        self._fd = -1
        self._dead: dict[str, int] = {}  # name: descriptor, locked
        self._begun = False

    @property
    def found(self) -> EarlierRun | None:
        """The last run of this job, if it ended without a summary."""
        mine = [run for run in self.earlier if run.is_same_job and not run.ended]
        return max(mine, key=lambda run: run.started_ns, default=None)

    def open(self, targets: Iterable[tuple[bytes, int]], count: int) -> None:
        """Make the files of `count` workers, and take over what dead runs left.

        Raises: UsageError when the directory was given and does not do.
        """
        try:
            self._fd = _open_directory(self._path, make=not self._given)
            self._make(tuple(targets), count)
            self._take_over()
        except OSError as error:
            self.close()
            problem = error.strerror or str(error)
            if self._given:
                raise UsageError(
                    _OPTION, self._path, problem, "give a directory that only this user may write"
                ) from None
            _log.log(
                logging.WARNING if self._packets else logging.INFO,
                "no file for the state of this run%s: %s; after a kill the next start will not know"
                " of it%s (--state DIR)",
                f" in {self._path}" if self._path else "",
                problem,
                ", nor reset the sessions that it leaves open" if self._packets else "",
            )

    def _make(self, targets: tuple[tuple[bytes, int], ...], count: int) -> None:
        run = secrets.token_bytes(RUN_BYTES)
        for worker in range(count):
            header = Header(
                run,
                self._job.digest(),
                targets,
                os.getpid(),
                time.time_ns(),
                network_namespace(),
                worker,
            )
            name = f"{os.getpid()}-{run.hex()[:8]}-{worker}{_SUFFIX}"
            new = f".{name}"  # until it is locked and whole: nobody looks at it before
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(new, flags, 0o600, dir_fd=self._fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ledger = Ledger(fd, os.path.join(self._path, name), header)
                os.rename(new, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except BaseException:
                os.close(fd)
                with contextlib.suppress(OSError):
                    os.unlink(new, dir_fd=self._fd)
                raise
            self.ledgers.append(ledger)

    # --- what dead runs left ------------------------------------------------------------------

    def _take_over(self) -> None:
        runs: dict[bytes, EarlierRun] = {}
        for name in sorted(os.listdir(self._fd))[:_MOST_FILES]:
            if name.startswith(".") or not name.endswith(_SUFFIX):
                continue
            fd = self._lock_dead(name)
            if fd < 0:
                continue
            if not self._take_file(fd, runs):
                os.close(fd)
                continue
            self._dead[name] = fd
        self.earlier = sorted(runs.values(), key=lambda run: run.started_ns)

    def _lock_dead(self, name: str) -> int:
        """The file, when it is one of ours and nobody has it locked; else -1."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(name, flags, dir_fd=self._fd)
        except OSError:
            return -1
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if status.st_nlink and status.st_size <= MOST_BYTES:
                    return fd
        except OSError:
            pass
        os.close(fd)
        return -1

    def _take_file(self, fd: int, runs: dict[bytes, EarlierRun]) -> bool:
        """Take over what concerns this run; whether the file may go."""
        data = _whole(fd)
        header = read_header(data)
        if header is None:
            return False
        if not self._given and header.namespace != network_namespace():
            return False
        same = header.job == self._job.digest()
        owners = [self._owner(*session) for session in read_sessions(data, header)]
        impossible = owners.count(-1)
        if not same and (impossible or not owners):
            return False  # the next run of that job sees to it
        sessions = 0
        for worker, session in zip(owners, read_sessions(data, header), strict=True):
            if worker >= 0:
                sessions += self.ledgers[worker].add(*session) > 0
        run = runs.setdefault(
            header.run, EarlierRun(header.process, header.started_ns, same, header.ended)
        )
        run.ended = run.ended and header.ended
        run.sessions += sessions
        run.impossible += impossible
        return True

    # --- the course of the run ----------------------------------------------------------------

    def begin(self) -> None:
        """All is open: what was taken over is this run's, and the dead files go."""
        self._begun = True
        for name, fd in self._dead.items():
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._fd)
            os.close(fd)
        self._dead.clear()
        for run in self.earlier:
            if run.sessions or run.impossible or not run.ended:
                _log.warning("%s", run.describe())

    def finish(self) -> None:
        """The summary is made."""
        for ledger in self.ledgers:
            ledger.finish()

    def close(self) -> None:
        """Let go of everything; files of a run that has not begun go."""
        for ledger in self.ledgers:
            if not self._begun:
                ledger.discard()
            ledger.close()
        self.ledgers = []
        for fd in self._dead.values():
            os.close(fd)
        self._dead.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Possible:
    """Which sessions this run can have opened, as an `Owner`: it resets no others."""

    def __init__(
        self,
        targets: Iterable[tuple[bytes, int]],
        *,
        pool: AddressPool | None = None,
        parts: Sequence[AddressPool] = (),
        is_own: Callable[[bytes], bool] | None = None,
        workers: int = 1,
    ) -> None:
        """`pool` is -c (None: clients keep their addresses), `parts` the range of each worker of
        local mode. `is_own` is for its `-c keep`: which addresses are this host's.
        """
        self._targets = frozenset(targets)
        self._pool = pool
        self._parts = parts
        self._is_own = is_own
        self._workers = workers

    def __call__(self, mapped: bytes, port: int, target: bytes, target_port: int) -> int:
        if (target, target_port) not in self._targets or len(mapped) != len(target) or not port:
            return -1
        for worker, part in enumerate(self._parts):
            if mapped in part:
                return worker
        if self._parts and self._is_own is None:
            return -1
        if self._pool is not None and mapped not in self._pool:
            return -1
        # As everywhere, loopback clients of a loopback target stay what they are.
        if is_loopback(mapped) and not (is_loopback(target) and self._is_own is None):
            return -1
        if unusable_as_destination(mapped) or (self._is_own is not None and self._is_own(mapped)):
            return -1
        return worker_of(mapped, port, self._workers)


def network_namespace() -> int:
    """A number of the network namespace that this process is in; no other ever has it.

    Source: socket(7), SO_NETNS_COOKIE. Before Linux 5.14 it is the inode, which may come again.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
            return int.from_bytes(cookie, sys.byteorder)
        except OSError:
            return os.stat("/proc/self/ns/net").st_ino


def _open_directory(path: str, *, make: bool) -> int:
    """The directory, which only this user may write; made when it is not there. Raises: OSError."""
    if not path:
        raise OSError(errno.ENOENT, "there is no RUNTIME_DIRECTORY and no XDG_RUNTIME_DIR")
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_MAY_WRITE:
        os.close(fd)
        raise OSError(errno.EPERM, "it is another user's, or others may write it")
    return fd


def _whole(fd: int) -> bytes:
    """All of a file. Raises: OSError."""
    with open(fd, "rb", closefd=False) as file:
        return file.read(MOST_BYTES)
