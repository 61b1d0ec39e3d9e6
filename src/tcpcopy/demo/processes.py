"""Programs that the demonstration and the tests start: each is ended and waited for, always."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_OPEN_FILES = 65536

# Loaded before any fork: a child between fork and exec should not have to look for a library.
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The hosts or a program in them could not be set up; `str()` says what and why."""


class Interrupted(Exception):
    """A signal asked the program to end; raised only where `Interrupts.check` is called."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Interrupts:
    """Turns SIGINT, SIGTERM and SIGHUP into an exception at places of the program's own choice.

    An exception out of a signal handler can strike in the middle of a clean-up. Here the handler
    only notes the signal, and `check` or `sleep` raises `Interrupted`: once, so that the clean-up
    that follows is not disturbed by an impatient second Ctrl-C. Main thread only.
    """

    def __init__(self) -> None:
        self.number = 0  # the first signal that came; 0: none
        self._raised = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number

    @contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """Catch the signals within the `with` block; the handlers before it come back after it."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        previous = {number: signal.getsignal(number) for number in numbers}
        try:
            for number in numbers:
                signal.signal(number, self._note)
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Interrupted` if a signal came and has not been raised yet."""
        if self.number and not self._raised:
            self._raised = True
            raise Interrupted(self.number)

    def sleep(self, seconds: float) -> None:
        """Sleep, but not on after a signal. Raises `Interrupted`."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))


def _die_with_parent() -> None:
    """In the child before exec: SIGTERM when the parent goes, and room for many connections."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    _raise_open_files()


def _raise_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else max(hard, _OPEN_FILES)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, wanted))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Program:
    """One started program, in a session of its own, its output in a file.

    `name` is what error messages call it; `log_path` holds what it wrote on both outputs.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        name: str,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start `argv`. Raises `LabError` if there is no such program."""
        self.name = name
        self.argv = list(argv)
        self.log_path = log_path
        # The kernel sends the parent-death signal when the *thread* that forked ends, so only a
        # child of the main thread may ask for it.
        by_main = threading.current_thread() is threading.main_thread()
        with log_path.open("ab") as log:
            try:
                self.popen = subprocess.Popen(
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    start_new_session=True,
                    preexec_fn=_die_with_parent if by_main else _raise_open_files,  # noqa: PLW1509
                )
            except OSError as error:
                raise LabError(f"{name}: cannot start {argv[0]}: {error.strerror}") from error

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal, None while it runs."""
        return self.popen.poll()

    def output(self) -> str:
        """All that the program has written until now."""
        return self.log_path.read_text(errors="replace")

    def wait_for(self, pattern: str, timeout: float = 10.0) -> str:
        """Wait for a line of output that matches `pattern` (regex, multi-line); return the line.

        Raises `LabError` with the end of the output when the time is over or the program ends.
        """
        deadline = time.monotonic() + timeout
        expression = re.compile(f"^.*(?:{pattern}).*$", re.MULTILINE)
        while True:
            alive = self.alive  # looked at before the output, which may come with the end
            found = expression.search(self.output())
            if found:
                return found.group(0)
            if not alive:
                raise LabError(self.describe(f"ended with {self.returncode} before {pattern!r}"))
            if time.monotonic() > deadline:
                raise LabError(self.describe(f"no {pattern!r} in {timeout:g} s"))
            time.sleep(0.01)

    def sockets(self, port: int, state: str) -> int:
        """TCP sockets in the program's network with this local or remote port and state.

        `state` as /proc/net/tcp has it: "0A" listens, "01" is established.
        """
        wanted, count = f":{port:04X}", 0
        for table in ("tcp", "tcp6"):
            try:
                lines = Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]
            except OSError:  # it has ended, or the kernel has no IPv6
                continue
            for line in lines:
                _, local, remote, its_state = line.split()[:4]
                count += its_state == state and wanted in (local[-5:], remote[-5:])
        return count

    def wait_sockets(self, port: int, state: str = "0A", timeout: float = 10.0) -> None:
        """Wait until `sockets(port, state)` finds one; "0A" waits for a server to listen.

        Raises `LabError` when the time is over or the program ends.
        """
        deadline = time.monotonic() + timeout
        while not self.sockets(port, state):
            if not self.alive:
                raise LabError(self.describe(f"ended with {self.returncode}"))
            if time.monotonic() > deadline:
                raise LabError(self.describe(f"has no socket on port {port} in {timeout:g} s"))
            time.sleep(0.01)

    def describe(self, problem: str) -> str:
        """`problem` with the program's name and the last lines it wrote."""
        tail = "\n".join(self.output().splitlines()[-15:])
        return f"{self.name}: {problem}\n{tail}" if tail else f"{self.name}: {problem}"

    def send_signal(self, number: int) -> None:
        """Send a signal to the program itself (not to its children)."""
        self.popen.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Wait for the end; return the exit status. Raises `LabError` after `timeout` seconds."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(self.describe(f"still runs after {timeout:g} s")) from None

    def stop(self, number: int = signal.SIGINT, timeout: float = 15.0) -> int:
        """Ask the program to end and wait; return its exit status.

        Raises `LabError` if it does not end in `timeout` seconds; it is killed then.
        """
        self.send_signal(number)
        try:
            return self.wait(timeout)
        except LabError:
            self.kill()
            raise

    def kill(self) -> None:
        """End the program and what it started in its session, at once. May be called twice."""
        if self.popen.poll() is None or _group_exists(self.pid):
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:  # in an uninterruptible call; nothing more can be done
            pass


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_all(programs: Sequence[Program], grace: float = 1.0) -> None:
    """End all programs: SIGTERM to all, `grace` seconds together, then SIGKILL to what is left."""
    for program in programs:
        if program.alive:
            program.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(program.alive for program in programs):
        time.sleep(0.01)
    for program in programs:
        program.kill()
