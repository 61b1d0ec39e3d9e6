"""`--workers`: several copiers, each in a process of its own, that look like one from outside.

The workers share nothing. The kernel deals the captured packets out to them by client address and
port (`capture.fanout`); the rings are opened, and held open, by the parent, so that a worker that
dies takes nothing along but its sessions: the next one in its place goes on with its ring.

A worker tells its parent what it has to say in lines of JSON through a pipe: that it is up (or why
not), its log, its counts twice a second and at the end. The parent tells a worker by signals to
stop (SIGUSR1), and to do so at once (SIGUSR2); to open no session (SIGRTMIN) or some again
(SIGRTMIN+1), when another has found that this is called for. What a terminal or a service manager
sends to all processes (SIGINT, SIGTERM, SIGHUP) is the parent's affair and ignored in workers.
When the parent ends, however, the kernel ends its workers (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import logging
import os
import select
import signal
import sys
import termios
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

from tcpcopy import rights
from tcpcopy.capture.fanout import join
from tcpcopy.capture.filters import REJECT_ALL
from tcpcopy.capture.ring import Ring, open_rings
from tcpcopy.capture_side import fill as fill_encapsulations
from tcpcopy.capture_side import unwrapping
from tcpcopy.copier import Copier, no_privilege, unread_of
from tcpcopy.copier_config import CopierConfig, filter_program
from tcpcopy.ending import EXIT_WAIT_NS, count_ring
from tcpcopy.errors import UsageError
from tcpcopy.figures import fill_rings, fill_unread
from tcpcopy.ledger import Ledger
from tcpcopy.memory import resident_bytes
from tcpcopy.namespaces import inside
from tcpcopy.rehearsal import give_up
from tcpcopy.report import log
from tcpcopy.report.counters import Snapshot, merged
from tcpcopy.report.flow_outcome import FlowOutcome
from tcpcopy.report.outcome import Outcome

_log = logging.getLogger(__name__)

_TELL_NS: Final = 500_000_000
_FIRST_BACKOFF_NS: Final = 100_000_000
_LONGEST_BACKOFF_NS: Final = 10_000_000_000
_STEADY_NS: Final = 60_000_000_000  # a worker that ran so long is not one that cannot start
_GRACE_NS: Final = 5_000_000_000  # beyond the copier's own bound for its end
_URGENT_GRACE_NS: Final = 2_000_000_000
_COUNT_NS: Final = 500_000_000  # for looking at what a worker that died has left unread
_OPEN_WAIT_S: Final = 60.0
_LEAST_BUFFER: Final = 4 << 20
_PIPE_BYTES: Final = 1 << 16
_PR_SET_PDEATHSIG: Final = 1
_MANAGED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ORDERS: Final = (signal.SIGUSR1, signal.SIGUSR2)
_OPEN_NONE, _OPEN_AGAIN = signal.SIGRTMIN, signal.SIGRTMIN + 1
_HANDLED: Final = (*_MANAGED, *_ORDERS, _OPEN_NONE, _OPEN_AGAIN)
_kept: list[logging.Handler] = []  # in a worker: handlers of the parent, never used


class _Worker:
    """The parent's side of one worker."""

    __slots__ = (
        "backoff_ns",
        "buffer",
        "index",
        "is_done",
        "is_open",
        "pid",
        "pipe",
        "refusal",
        "resident_bytes",
        "restart_ns",
        "snapshot",
        "started_ns",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.pid = 0  # 0: no process
        self.pipe = -1
        self.buffer = b""  # the begin of a line
        self.is_open = False  # it captures
        self.is_done = False  # it has told its last counts
        self.refusal: list[str | None] | None = None  # why it could not open: of a UsageError
        self.snapshot = Snapshot()
        self.started_ns = 0
        self.resident_bytes = 0  # when it had opened all
        self.restart_ns = 0
        self.backoff_ns = _FIRST_BACKOFF_NS


class Workers:
    """Several workers with the methods of one `Copier`. Main thread only."""

    def __init__(
        self,
        config: CopierConfig,
        count: int,
        draw: Callable[[], int],
        *,
        ledgers: Sequence[Ledger] = (),
    ) -> None:
        """`config` is what all together may use; `draw()` gives random numbers of 31 bits.

        `ledgers`, where there are any: one for each worker, in which the next in its place goes on.
        """
        self._config = config
        self._ledgers = ledgers
        self._count = count
        self._draw = draw
        self._rings: list[list[Ring]] = []  # by worker
        self._workers = [_Worker(index) for index in range(count)]
        self._by_pipe: dict[int, _Worker] = {}
        self._poll = select.poll()
        self._past: list[Snapshot] = []  # of workers that died
        self._lost = 0
        self._is_shut = False  # no worker is to open sessions
        self._stopping = False

    @property
    def rings(self) -> list[Ring]:
        """The rings of one worker; all workers' buffers for a device make up -B together."""
        return self._rings[0] if self._rings else []

    @property
    def resident_bytes(self) -> int:
        """What all workers together had in memory at the start."""
        return sum(worker.resident_bytes for worker in self._workers)

    # --- opening ---------------------------------------------------------------------------

    def open(self) -> None:
        """Open everything that can fail. Raises: UsageError, with nothing left open or running."""
        try:
            program = filter_program(self._config)
            self._open_rings()
            # What is in memory already is shared with the workers as long as nobody writes to it.
            gc.collect()
            gc.freeze()
            for worker in self._workers:
                self._start(worker)
            self._await_open()
            for rings in self._rings:
                for ring in rings:
                    ring.set_filter(program)
        except BaseException:
            self.close()
            raise

    def _open_rings(self) -> None:
        """All workers' rings, in groups; nothing is captured yet."""
        config = self._config
        size = min(config.buffer_bytes, max(_LEAST_BUFFER, config.buffer_bytes // self._count))
        try:
            # In the order of the workers: the kernel orders a group by it when a device comes up.
            with inside(config.capture_namespace):
                for _ in self._workers:
                    self._rings.append(
                        open_rings(
                            config.devices,
                            REJECT_ALL,
                            buffer_bytes=size,
                            snaplen=config.snaplen,
                            promiscuous=config.promiscuous,
                            unwraps=config.unwraps and config.filter is None,
                        )
                    )
        except PermissionError:
            raise no_privilege() from None
        try:
            for group in zip(*self._rings, strict=True):
                join(group, defragment=True)
        except OSError as error:
            raise UsageError(
                "--workers",
                self._count,
                f"the kernel does not share captured packets out ({error.strerror})",
                "leave out --workers",
            ) from None

        for rings in self._rings:
            for ring in rings:
                ring.let_go()  # only workers read them

    def _await_open(self) -> None:
        until = time.monotonic() + _OPEN_WAIT_S
        while not all(worker.is_open for worker in self._workers):
            self._read(0.1)
            for worker in self._workers:
                if worker.refusal is not None:
                    option, value, problem, hint = worker.refusal
                    raise UsageError(option or "", value, problem or "", hint or "")
                if not worker.pid or time.monotonic() > until:
                    raise UsageError(
                        "--workers", self._count, "a worker did not start", "see the log"
                    )

    # --- processes -------------------------------------------------------------------------

    def _share(self, index: int) -> CopierConfig:
        """What one worker is to do."""
        config, count = self._config, self._count
        return replace(
            config,
            engine=replace(config.engine, seed=self._draw()),
            memory_bytes=config.memory_bytes // count,
            share=(index, count),
            ledger=self._ledgers[index] if self._ledgers else None,
        )

    def _start(self, worker: _Worker, again: bool = False) -> None:
        config = self._share(worker.index)
        if again:
            # An intercept that is away for the moment keeps no worker from coming back.
            config = replace(config, lonely=True)
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        # Until the child has handlers of its own, no signal may run those of the parent in it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid = os.fork()
            if not pid:
                self._in_child(worker.index, config, read_fd, write_fd, parent, again)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(write_fd)
        worker.pid, worker.pipe, worker.buffer = pid, read_fd, b""
        worker.is_open = worker.is_done = False
        worker.refusal = None
        worker.snapshot = Snapshot()
        worker.started_ns = time.monotonic_ns()
        self._by_pipe[read_fd] = worker
        self._poll.register(read_fd, select.POLLIN)

    def _in_child(
        self,
        index: int,
        config: CopierConfig,
        read_fd: int,
        write_fd: int,
        parent: int,
        again: bool,
    ) -> NoReturn:
        """Be a worker, and end."""
        code = 1
        parent_line = _Line(write_fd)
        try:
            _die_with(parent)
            for other, rings in enumerate(self._rings):
                for ring in rings if other != index else ():
                    ring.detach()
            rings = self._rings[index]
            wanted = {write_fd, *(ring.fileno() for ring in rings)}
            if config.ledger is not None:
                wanted.add(config.ledger.fileno())
            _close_all_but(wanted)
            for ring in rings:
                ring.take_up()
                if again:
                    ring.resume()
            _work(config, rings, parent_line, parent, again)
            code = 0
        except BaseException:
            with contextlib.suppress(BaseException):
                parent_line.tell("log", __name__, logging.ERROR, traceback.format_exc())
        finally:
            os._exit(code)

    def _read(self, timeout_s: float) -> None:
        """Take what workers tell, or wait for it."""
        for fd, _ in self._poll.poll(timeout_s * 1000):
            worker = self._by_pipe.get(fd)
            if worker is None:
                continue  # a stop signal
            data = os.read(fd, _PIPE_BYTES)
            *lines, worker.buffer = (worker.buffer + data).split(b"\n")
            for line in lines:
                self._take(worker, json.loads(line))
            if not data:
                self._ended(worker)

    def _take(self, worker: _Worker, message: list[Any]) -> None:
        kind, *rest = message
        if kind == "log":
            name, level, text = rest
            label = f"worker {worker.index + 1}/{self._count}"
            logging.getLogger(name).log(level, "%s: %s", label, text)
        elif kind == "counts":
            worker.snapshot = Snapshot.from_dict(rest[0])
        elif kind == "last counts":
            worker.snapshot = Snapshot.from_dict(rest[0])
            worker.is_done = True
        elif kind == "open":
            worker.is_open = True
            (worker.resident_bytes,) = rest
            if self._is_shut:
                os.kill(worker.pid, _OPEN_NONE)
        elif kind == "shut":
            self._is_shut = bool(rest[0])
            self._signal(_OPEN_NONE if self._is_shut else _OPEN_AGAIN)
        elif kind == "refused":
            worker.refusal = rest

    def _ended(self, worker: _Worker) -> None:
        """Take note of a process that is no more."""
        self._poll.unregister(worker.pipe)
        del self._by_pipe[worker.pipe]
        os.close(worker.pipe)
        worker.pipe = -1
        _, status = os.waitpid(worker.pid, 0)
        worker.pid = 0
        if worker.is_done:
            return
        if worker.index == 0 and self._is_shut:  # the one that probes: it finds out anew
            self._is_shut = False
            self._signal(_OPEN_AGAIN)
        now_ns = time.monotonic_ns()
        if now_ns - worker.started_ns > _STEADY_NS:
            worker.backoff_ns = _FIRST_BACKOFF_NS
        worker.restart_ns = now_ns + worker.backoff_ns
        worker.backoff_ns = min(worker.backoff_ns * 2, _LONGEST_BACKOFF_NS)
        label = f"worker {worker.index + 1}/{self._count}"
        if worker.refusal is not None:
            option, value, problem, hint = worker.refusal
            _log.error("%s: %s", label, UsageError(option or "", value, problem or "", hint or ""))
            return
        self._lost += 1
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        live = worker.snapshot.sessions_live
        then = "" if self._stopping else "; it is started again"
        _log.error("%s died (%s), %d open sessions are lost%s", label, how, live, then)
        self._past.append(_after_death(worker.snapshot))
        worker.snapshot = Snapshot()

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)  # a zombie at worst: only `_ended` reaps it

    # --- the run ---------------------------------------------------------------------------

    def run(
        self, stop_fd: int, stopping: Callable[[], bool], tick: Callable[[int], object]
    ) -> None:
        """Copy until `stopping()`; `tick` is called with the time, a few times a second."""
        self._poll.register(stop_fd, select.POLLIN)
        while not stopping():
            now_ns = time.monotonic_ns()
            wait_ns = 1_000_000_000
            for worker in self._workers:
                if worker.pid:
                    continue
                if worker.restart_ns <= now_ns:
                    self._start(worker, again=True)
                else:
                    wait_ns = min(wait_ns, worker.restart_ns - now_ns)
            self._read(wait_ns / 1e9 + 0.001)
            tick(time.monotonic_ns())
        self._poll.unregister(stop_fd)

    def finish(self, urgent: Callable[[], bool], tick: Callable[[int], object]) -> None:
        """Let all workers end their work, for a bounded time."""
        self._stopping = True
        self._signal(signal.SIGUSR1)
        until_ns = time.monotonic_ns() + EXIT_WAIT_NS + _GRACE_NS
        hurried = False
        while any(worker.pid for worker in self._workers):
            self._read(0.05)  # first: this process may have stood still while they ended
            tick(time.monotonic_ns())
            now_ns = time.monotonic_ns()
            if urgent() and not hurried:
                hurried = True
                self._signal(signal.SIGUSR2)
                until_ns = min(until_ns, now_ns + _URGENT_GRACE_NS)
            if now_ns > until_ns:
                _log.error("workers that do not end are killed")
                self._signal(signal.SIGKILL)
                until_ns = now_ns + _GRACE_NS
        for worker in self._workers:
            if not worker.is_done:
                try:
                    self._count_left(self._rings[worker.index])
                except (OSError, UsageError) as error:  # the summary must come all the same
                    label = f"worker {worker.index + 1}/{self._count}"
                    _log.error("%s: packets left unread are not counted: %s", label, error)

    def _count_left(self, rings: list[Ring]) -> None:
        """Count what was captured for a worker that is no more, and that no other works on."""
        unread, left = unread_of(self._config), Snapshot()
        until_ns = time.monotonic_ns() + _COUNT_NS
        within = unwrapping(self._config, unread)
        for ring in rings:
            ring.set_filter(REJECT_ALL)
            ring.take_up()
            ring.resume()
            count_ring(ring, unread, until_ns, within)
        if within is not None:
            within.unwrapper.finish()
        fill_encapsulations(left, rings, within)
        fill_rings(left, rings)
        fill_unread(left, unread)
        self._past.append(left)

    def close(self) -> None:
        """End what still runs, at once, and close everything; may be called twice."""
        self._signal(signal.SIGKILL)
        for worker in self._workers:
            if worker.pid:
                os.waitpid(worker.pid, 0)
                self._poll.unregister(worker.pipe)
                os.close(worker.pipe)
                worker.pid, worker.pipe = 0, -1
        self._by_pipe.clear()
        for rings in self._rings:
            for ring in rings:
                ring.close()
        self._rings = []

    def snapshot(self) -> Snapshot:
        """The counts of all workers together, as last told, those that died included."""
        joined = merged([*self._past, *(worker.snapshot for worker in self._workers)])
        joined.workers_lost = self._lost
        return joined


def _after_death(snapshot: Snapshot) -> Snapshot:
    """The last counts of a worker that died: its open sessions have ended with it."""
    snapshot.outcomes[Outcome.WORKER_LOST] += snapshot.sessions_live
    snapshot.sessions_live = 0
    snapshot.outcomes[Outcome.HANDSHAKE_INCOMPLETE] += snapshot.sessions_waiting
    snapshot.sessions_waiting = snapshot.syn_flood_rate = 0
    snapshot.udp_outcomes[FlowOutcome.WORKER_LOST] += snapshot.udp_flows_live
    snapshot.udp_flows_live = 0
    snapshot.memory_bytes = 0
    snapshot.leftovers.found -= snapshot.leftovers.waiting  # the next one finds them again
    for relay in snapshot.relays.values():
        relay.connected = 0
    return snapshot


# --- in the worker -------------------------------------------------------------------------------


class _Line:
    """A worker's line to its parent."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def is_full(self) -> bool:
        """Whether much is there that nobody has read: the parent stands still, or waits for a disk.

        More would soon wait for room, and with it all copying.
        """
        waiting = fcntl.ioctl(self._fd, termios.FIONREAD, b"\0\0\0\0")
        return int.from_bytes(waiting, sys.byteorder) >= _PIPE_BYTES // 2

    def tell(self, *message: object) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            data = data[os.write(self._fd, data) :]


class _ParentLog(logging.Handler):
    """Sends what is logged to the parent, which alone writes the log."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._line.tell("log", record.name, record.levelno, text)


class _Orders:
    """The parent's signals, and a descriptor that polls readable when one has come."""

    def __init__(self) -> None:
        self.level = 0  # 1: stop, 2: at once
        self.is_shut = False  # no session is to be opened
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.fd = read_fd
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in _MANAGED:
            signal.signal(number, signal.SIG_IGN)
        for level, number in enumerate(_ORDERS, 1):
            signal.signal(number, lambda *_, level=level: self._note(level))
        signal.signal(_OPEN_NONE, lambda *_: self._note_shut(True))
        signal.signal(_OPEN_AGAIN, lambda *_: self._note_shut(False))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)

    def _note(self, level: int) -> None:
        self.level = max(self.level, level)

    def _note_shut(self, is_shut: bool) -> None:
        self.is_shut = is_shut

    def rest(self) -> None:
        """What woke the loop is dealt with: it may sleep again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 64)


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when the parent ends, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before
        os._exit(1)


def _close_all_but(wanted: set[int]) -> None:
    """Close what came along from the parent: its terminal, and what tells a shell that it is up."""
    # Handlers that are thrown away would close their files, whose numbers have new owners by then.
    _kept.extend(logging.getLogger(log.ROOT).handlers)
    # Python maps a ring by a descriptor of its own to the same socket: that stays, too.
    files = {os.readlink(f"/proc/self/fd/{fd}") for fd in wanted}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the directory itself is closed already
            if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}") not in files:
                os.close(int(name))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _work(config: CopierConfig, rings: list[Ring], line: _Line, parent: int, again: bool) -> None:
    """Copy until told to stop. `again`: in the place of a worker that died."""
    orders = _Orders()
    logging.getLogger(log.ROOT).handlers[:] = [_ParentLog(line)]
    copier = Copier(config, rings)
    try:
        copier.open()
    except UsageError as error:
        value = None if error.value is None else str(error.value)
        line.tell("refused", error.option, value, error.problem, error.hint)
        return
    except OSError as error:
        reason = error.strerror or str(error)
        line.tell("refused", "start", None, reason, "this host does not allow what is needed")
        return
    # The parent, which opens what the next worker takes, gives up its own when all are open.
    give_up(rights.of_worker(config), config.user)
    _die_with(parent)  # a change of the user puts an end to that
    _log.info("process %d", os.getpid())
    left = copier.snapshot().leftovers.found
    if again and left:
        text = "%d sessions of the one before are open at the target: resetting them"
        _log.warning(text, left)
    line.tell("open", resident_bytes())
    # As in a process without workers: sessions free themselves without the collector.
    gc.collect()
    gc.disable()
    next_ns = 0

    copier.stop.told = lambda is_shut: line.tell("shut", is_shut)

    is_shut = False

    def tick(now_ns: int) -> None:
        nonlocal next_ns, is_shut
        if orders.is_shut != is_shut:
            is_shut = orders.is_shut
            copier.stop.set(is_shut)
        orders.rest()
        if now_ns >= next_ns:
            next_ns = now_ns + _TELL_NS
            if not line.is_full():
                line.tell("counts", copier.snapshot().to_dict())

    copier.run(orders.fd, lambda: orders.level > 0, tick)
    copier.finish(lambda: orders.level > 1, tick)
    line.tell("last counts", copier.snapshot().to_dict())
    copier.close()
