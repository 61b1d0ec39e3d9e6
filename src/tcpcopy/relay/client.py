"""tcpcopy's end of the relay: connections to every intercept, announcements out, answers in.

Driven by the owner's loop, never blocking but in `connect_all`. It owns an epoll of its own: the
loop watches `fileno()` for reading and calls `service`. Each intercept gets every announcement,
over one of its connections in turn. A connection that is lost is opened again; the intercept has
forgotten the sessions it had announced, so all live ones are announced again. Whether an intercept
speaks native or classic is found out on each connection before anything is announced over it.

Source: TCPCopy 1.3.0 (`tc_message_module.c`, `tc_session.c: send_router_info`) for what is said.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay import native
from tcpcopy.relay.classic import MESSAGE_BYTES, Layout, MessageType, RelayFault
from tcpcopy.relay.connection import FIRST_RETRY_NS, Connection, LiveSession, Server
from tcpcopy.relay.handshake import Kind
from tcpcopy.relay.native import RelayTerms
from tcpcopy.relay.sockets import is_certificate_refused, met_itself, problem_of, watch_peer
from tcpcopy.relay.turns import RENEW_NS, TurnWatch
from tcpcopy.report.counters import RelayCounts

_log = logging.getLogger("tcpcopy.relay")
_MS = 1_000_000
_LAST_RETRY_NS = 500 * _MS
_REFUSED_RETRY_NS = 5_000 * _MS  # it is there and says no: only a person can mend that
_ATTEMPT_NS = 500 * _MS
# Connected, the other end may be busy; a classic one says nothing, which is not waited for so long.
_HANDSHAKE_NS = 3_000 * _MS
_CLASSIC_NS = 250 * _MS
# A connection that lived this long was no accident: the next retry is quick again.
_SETTLED_NS = 1_000 * _MS
_CHUNK = 512  # sessions announced again in one go
_LOOK_NS = 500 * _MS  # native connections are looked at so often
_REMOVALS = 4096  # bytes of them are sent at the latest; until then they wait for company
_OUT = int(select.EPOLLOUT)
_NOT_OUT = ~_OUT
BYTES_OF_ONE = max(MESSAGE_BYTES, native.MESSAGE_V6_BYTES)


class Unreachable(NamedTuple):
    """An intercept that cannot be connected to, or does not go on with us."""

    server: str  # address:port
    problem: str
    refused: bool = False  # it is there, and what is spoken or shared does not fit


class RelayClient:
    """The relay connections of one tcpcopy worker. Not thread-safe."""

    __slots__ = (
        "_by_fd",
        "_deadline_ns",
        "_handler",
        "_layout",
        "_live_sessions",
        "_poll",
        "_queue_bytes",
        "_resuming",
        "_servers",
        "_terms",
        "_turns",
        "_unsent",
        "faults",
    )

    def __init__(
        self,
        servers: Iterable[tuple[str, int]],
        handler: PacketHandler,
        *,
        connections_per_server: int = 2,
        live_sessions: Callable[[], Iterable[LiveSession]] = lambda: (),
        layout: Layout = Layout.AUTO,
        queue_bytes: int = 256 << 10,
        terms: RelayTerms | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is opened yet; `servers` are IP addresses and ports.

        `handler` gets the answers as `RecordDecoder` and `NativeDecoder` say. `live_sessions` is
        called after a connection was lost; what it returns is consumed over many calls, so it must
        not mind sessions that come and go meanwhile. `queue_bytes` bounds what waits for one
        connection. `terms`: what is spoken, with which secret; `names`: of addresses, as in their
        certificates.
        """
        self._handler = handler
        self._layout = layout
        self._live_sessions = live_sessions
        self._poll = select.epoll()
        self._queue_bytes = max(queue_bytes, 2 * BYTES_OF_ONE)
        names = names or {}
        self._servers = [
            Server(host, port, connections_per_server, names.get(host, host))
            for host, port in servers
        ]
        self._terms = terms or RelayTerms()
        if self._terms.bare:
            self._layout = Layout.BARE
        self._turns: dict[str, TurnWatch] = {}  # of servers of which it is not known
        for server in self._servers:
            server.is_single = self._terms.single
            if connections_per_server > 1 and not server.is_single:
                self._turns[server.name] = TurnWatch()
        self._by_fd: dict[int, tuple[Server, Connection]] = {}
        self._unsent: list[tuple[Server, Connection]] = []  # the kernel may take more of these
        self._deadline_ns: int | None = None
        self._resuming = False  # a server has live sessions to be announced again
        self.faults = [0] * len(RelayFault)  # connections given up, by RelayFault

    # --- what the loop calls ------------------------------------------------------------------

    def connect_all(self, now_ns: int, timeout_ns: int = 3_000 * _MS) -> list[Unreachable]:
        """Connect to every intercept, waiting until it is known who answers, and what is spoken.

        Returns the intercepts to which not one connection could be made. They are tried again
        with the others from then on: it is for the caller to go on or not.
        """
        started_ns = now_ns
        for server, connection in self._all():
            self._connect(server, connection, now_ns, timeout_ns)
        while any(c.socket is not None and not c.up for _, c in self._all()):
            left_ns = started_ns + timeout_ns - now_ns
            if left_ns <= 0:
                break
            if self._deadline_ns is not None:
                left_ns = min(left_ns, max(self._deadline_ns - now_ns, _MS))
            before = time.monotonic_ns()
            for fd, events in self._poll.poll(left_ns / 1e9):
                self._on_event(fd, events, now_ns, 0)
            now_ns += time.monotonic_ns() - before
            self._give_up_late(now_ns)
        unreachable = []
        for server in self._servers:
            for connection in server.connections:
                if connection.socket is not None and not connection.up:
                    self._lose(server, connection, now_ns, "no answer")
            if not any(connection.up for connection in server.connections):
                problem = server.connections[0].problem
                unreachable.append(Unreachable(server.name, problem, server.refused))
        return unreachable

    def fileno(self) -> int:
        """Readable when `service` has something to do."""
        return self._poll.fileno()

    def service(self, now_ns: int, timestamp_ns: int) -> int:
        """Read and write what is possible now; returns how many records came.

        `timestamp_ns` (CLOCK_REALTIME) is given to the handler with each.
        """
        records = 0
        for fd, events in self._poll.poll(0):
            records += self._on_event(fd, events, now_ns, timestamp_ns)
        return records

    def announce(self, mapped: bytes, mapped_port: int, target: bytes, target_port: int) -> int:
        """Queue a session for every intercept; call `flush` before its SYN is sent.

        Returns the number of intercepts that will hear of it now. Those that are down hear of it
        when they are back, if `live_sessions` still has it. Addresses are 4 bytes each, or 16
        where the native relay is spoken.
        """
        session = (mapped, mapped_port, target, target_port)
        told = 0
        for server in self._servers:
            for _ in server.connections:
                connection = server.next_up()
                if connection is None:
                    break
                if server.is_single:
                    told += 1
                    break
                if connection.queued_bytes + BYTES_OF_ONE <= self._queue_bytes:
                    told += self._queue(server, connection, session)
                    break
            else:
                # It reads too slowly. Told again when there is room, as after a lost connection.
                server.counts.lost += 1
                if server.resumed is None:
                    self._resume(server)
        return told

    def withdraw(self, mapped: bytes, mapped_port: int, target: bytes, target_port: int) -> None:
        """Say that a session is over, with the next that is sent, over every native connection.

        Only the one that announced it is heeded, so that a session announced anew over another is
        not hit. A classic intercept does nothing with it but write a log line.
        """
        session = (mapped, mapped_port, target, target_port)
        for server in self._servers:
            for connection in server.connections:
                queued = connection.queued_bytes
                if connection.kind == Kind.NATIVE and queued < self._queue_bytes // 2:
                    connection.queue(MessageType.REMOVE, session)
                    if connection.queued_bytes >= _REMOVALS:
                        self._mark(server, connection)

    def flush(self, now_ns: int) -> None:
        """Hand what is queued to the kernel, as far as it takes it; never blocks."""
        if self._resuming:
            self._announce_all_again()
        if not self._unsent:
            return
        unsent = self._unsent
        self._unsent = []
        for server, connection in unsent:
            connection.marked = False
            if connection.up and not connection.waits_to_write:
                self._send(server, connection, now_ns)

    def next_deadline_ns(self) -> int | None:
        """When `run_timers` is due; None while there is nothing to wait for."""
        for server in self._servers if self._resuming else ():
            # Without room for more, the socket that takes what is queued wakes the loop.
            if server.resumed is not None and self._with_room(server) is not None:
                return 0
        return self._deadline_ns

    def run_timers(self, now_ns: int) -> None:
        """Open what is down and due, give up what takes too long, keep the others alive.

        Call `service` before, so that nothing is judged that has not been read. When this comes
        much later than it was due, nobody could be heard meanwhile: that is not their silence.
        """
        if self._deadline_ns is not None and self._deadline_ns <= now_ns:
            late_ns = now_ns - self._deadline_ns
            if late_ns > native.STANDSTILL_NS:
                for _, connection in self._all():
                    connection.stand_still(now_ns, late_ns)
            for server in self._servers:
                if 0 < server.renew_ns <= now_ns:
                    self._renew(server, now_ns)
            for server, connection in self._all():
                if connection.socket is None:
                    if connection.next_attempt_ns <= now_ns:
                        self._connect(server, connection, now_ns, _ATTEMPT_NS)
                elif connection.up:
                    self._keep_alive(server, connection, now_ns)
            self._give_up_late(now_ns)
            self._set_deadline(now_ns)
        self.flush(now_ns)

    def close(self) -> None:
        """Close all connections; what is queued is lost."""
        for _, connection in list(self._by_fd.values()):
            self._close_socket(connection)
        self._poll.close()

    # --- what the owner reads -----------------------------------------------------------------

    @property
    def is_single(self) -> bool:
        """Whether an intercept hands answers to any connection, also to those of a probe."""
        return any(server.is_single for server in self._servers)

    @property
    def servers_up(self) -> int:
        """Intercepts that have at least one connection now."""
        return sum(any(c.up for c in server.connections) for server in self._servers)

    def kinds(self) -> dict[str, Kind]:
        """What is spoken with each intercept now, by "address:port"; UNDECIDED: it is down."""
        return {s.name: max(c.kind for c in s.connections) for s in self._servers}

    def counts(self) -> dict[str, RelayCounts]:
        """The counts of each intercept by "address:port".

        `lost` counts lost announcements, and lost answers of which a native intercept told.
        """
        return {server.name: server.counted() for server in self._servers}

    # --- announcements ------------------------------------------------------------------------

    def _all(self) -> Iterator[tuple[Server, Connection]]:
        return ((server, c) for server in self._servers for c in server.connections)

    def _queue(self, server: Server, connection: Connection, session: LiveSession) -> int:
        self._mark(server, connection)
        turns = self._turns.get(server.name)
        if turns is not None and connection.kind == Kind.CLASSIC:
            turns.announced(connection, session)
        return int(connection.queue(MessageType.ADD, session))

    def _mark(self, server: Server, connection: Connection) -> None:
        """It has something that is to go with the next flush."""
        if not connection.marked:
            connection.marked = True
            self._unsent.append((server, connection))

    def _resume(self, server: Server) -> None:
        """Start to announce all live sessions again."""
        if server.is_single:
            return
        server.resumed = iter(self._live_sessions())
        self._resuming = True

    def _announce_all_again(self) -> None:
        for server in self._servers:
            if server.resumed is not None:
                self._announce_again(server)
        self._resuming = any(server.resumed is not None for server in self._servers)

    def _announce_again(self, server: Server) -> None:
        """The next few of the live sessions, as long as there is room for new ones beside them."""
        sessions = server.resumed
        assert sessions is not None
        for _ in range(_CHUNK):
            connection = self._with_room(server)
            if connection is None:
                if server.next_up() is None:
                    server.resumed = None  # starts anew when a connection is back
                return
            session = next(sessions, None)
            if session is None:
                server.resumed = None
                return
            self._queue(server, connection, session)

    def _with_room(self, server: Server) -> Connection | None:
        """The next connection that is up and whose queue is not half full."""
        for _ in server.connections:
            connection = server.next_up()
            if connection is not None and connection.queued_bytes <= self._queue_bytes // 2:
                return connection
        return None

    # --- coming up ----------------------------------------------------------------------------

    def _connect(
        self, server: Server, connection: Connection, now_ns: int, timeout_ns: int
    ) -> None:
        attempt = socket.socket(server.family, socket.SOCK_STREAM)
        try:
            attempt.setblocking(False)
            watch_peer(attempt, 2, 1, 5_000)
            attempt.connect(server.sockaddr)
        except BlockingIOError:
            pass
        except OSError as error:
            attempt.close()
            self._wait(connection, now_ns, problem_of(error))
            return
        connection.socket = attempt
        connection.attempt_until_ns = now_ns + timeout_ns
        self._by_fd[attempt.fileno()] = (server, connection)
        self._poll.register(attempt.fileno(), select.EPOLLIN | select.EPOLLOUT)
        connection.waits_to_write = True
        self._set_deadline(now_ns)

    def _on_event(self, fd: int, events: int, now_ns: int, timestamp_ns: int) -> int:
        found = self._by_fd.get(fd)
        if found is None:
            return 0
        server, connection = found
        if connection.socket is None:
            return 0
        if not connection.up:
            try:
                return self._come_up(server, connection, events, now_ns)
            except OSError as error:
                self._fail(server, connection, now_ns, error)
                return 0
        records = 0
        if events & _NOT_OUT:
            records = self._receive(server, connection, now_ns, timestamp_ns)
        if events & _OUT and connection.up:
            self._send(server, connection, now_ns)
        return records

    def _come_up(self, server: Server, connection: Connection, events: int, now_ns: int) -> int:
        """The next step of a connection on its way: TCP, TLS, relay handshake, up."""
        attempt = connection.socket
        assert attempt is not None
        if connection.handshake is None and not connection.tls_pending:
            code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            if met_itself(attempt):
                raise ConnectionRefusedError("nothing listens there")
            self._watch_writing(connection, False)
            connection.attempt_until_ns = max(connection.attempt_until_ns, now_ns + _HANDSHAKE_NS)
            if self._terms.tls is not None:
                connection.start_tls(self._terms.tls)
        if connection.tls_pending and not connection.shake_tls():
            return 0
        if connection.handshake is None:
            connection.open_relay(self._terms)
            wait_ns = _CLASSIC_NS
            if server.is_native or self._terms.native_only:
                wait_ns = _HANDSHAKE_NS
            connection.decide_until_ns = now_ns + wait_ns
            connection.attempt_until_ns = max(connection.attempt_until_ns, now_ns + wait_ns)
            self._set_deadline(now_ns)
        elif events & _NOT_OUT:
            connection.read_handshake()
            server.is_native = server.is_native or connection.handshake.heard_native
        return self._conclude(server, connection, now_ns)

    def _fail(self, server: Server, connection: Connection, now_ns: int, error: OSError) -> None:
        """The connection broke on its way up."""
        problem = problem_of(error)
        if connection.tls_pending:
            problem = f"TLS handshake: {problem}"
            server.refused = True
            if is_certificate_refused(error):
                connection.retry_ns = _REFUSED_RETRY_NS
        elif connection.handshake is not None:
            problem = f"{problem}; its log says why (--allow, --max-peers, --tls)"
            server.refused = True
        self._lose(server, connection, now_ns, problem)

    def _conclude(self, server: Server, connection: Connection, now_ns: int) -> int:
        """Go on with what the handshake came to, if it has come to something."""
        handshake = connection.handshake
        assert handshake is not None
        if handshake.fault:
            self.faults[handshake.fault] += 1
            server.refused = True
            connection.retry_ns = _REFUSED_RETRY_NS
            self._lose(server, connection, now_ns, handshake.problem)
            return 0
        if not handshake.kind:
            return 0
        others_up = any(other.up for other in server.connections)
        counts = server.counts
        counts.connects += 1
        counts.native += handshake.kind == Kind.NATIVE
        counts.encrypted += connection.has_tls
        server.refused = False
        if connection.retry_ns > _LAST_RETRY_NS:
            connection.retry_ns = _LAST_RETRY_NS
        if connection.was_up:
            counts.reconnects += 1
            _log.info("intercept %s: connected again", server.name)
        elif not others_up:
            _log.info("intercept %s: %s relay", server.name, handshake.kind.name.lower())
        connection.was_up = True
        handler, turns = self._handler, self._turns.get(server.name)
        if turns is not None and handshake.kind == Kind.CLASSIC:
            handler = turns.of(connection, handler)
        records = connection.come_up(handler, self._layout, now_ns)
        counts.records += records
        self._send(server, connection, now_ns)
        if not others_up and connection.up:
            self._resume(server)
        self._set_deadline(now_ns)
        return records

    # --- while it is up -----------------------------------------------------------------------

    def _receive(
        self, server: Server, connection: Connection, now_ns: int, timestamp_ns: int
    ) -> int:
        decoder = connection.decoder
        assert decoder is not None
        counts = server.counts
        records_before, malformed_before = decoder.records, decoder.malformed
        problem = ""
        try:
            state = connection.read(timestamp_ns)
        except OSError as error:
            problem, state = problem_of(error), 1
        handed = decoder.records - records_before
        counts.records += handed
        counts.malformed += decoder.malformed - malformed_before
        counts.lost += connection.take_losses()
        connection.heard_ns = now_ns
        if decoder.fault:
            fault = RelayFault(decoder.fault)
            self.faults[fault] += 1
            problem = fault.description
            if fault is RelayFault.NOT_A_RECORD:
                # Perhaps the hello of a native intercept that was too busy to say it in time.
                server.is_native = True
        elif state == 0:
            problem = "closed by it"
        elif state < 0:
            problem = os.strerror(-state)
        if problem:
            self._lose(server, connection, now_ns, problem)
        elif connection.grant() | connection.take_credit():
            self._mark(server, connection)
        self._heard(server, connection)
        turns = self._turns.get(server.name) if self._turns else None
        if turns is not None and turns.is_over:
            turns.end(server, self._handler, now_ns)
            del self._turns[server.name]
            self._set_deadline(now_ns)
        return handed

    def _renew(self, server: Server, now_ns: int) -> None:
        """Make all connections anew: a C intercept built --single forgets those that are gone."""
        server.renew_ns = 0
        for connection in server.connections:
            if connection.socket is not None:
                self._close_socket(connection)
            connection.was_up = False
            connection.next_attempt_ns = now_ns

    def _heard(self, server: Server, connection: Connection) -> None:
        """Something was read: a tunnel has more to look at."""

    def _send(self, server: Server, connection: Connection, now_ns: int) -> None:
        try:
            wanted = connection.write()
        except OSError as error:
            self._lose(server, connection, now_ns, problem_of(error))
            return
        connection.said_ns = now_ns
        self._watch_writing(connection, wanted)

    def _watch_writing(self, connection: Connection, wanted: bool) -> None:
        if connection.waits_to_write != wanted:
            connection.waits_to_write = wanted
            mask = select.EPOLLIN | (select.EPOLLOUT if wanted else 0)
            assert connection.socket is not None
            self._poll.modify(connection.socket.fileno(), mask)

    def _keep_alive(self, server: Server, connection: Connection, now_ns: int) -> None:
        """Removals do not wait for ever, and a native intercept is heard of or given up."""
        if connection.kind != Kind.NATIVE:
            return
        if now_ns - connection.heard_ns >= native.SILENCE_NS:
            self.faults[RelayFault.SILENT] += 1
            self._lose(server, connection, now_ns, RelayFault.SILENT.description)
            return
        if not connection.queued_bytes and now_ns - connection.said_ns >= native.PING_NS:
            connection.out += native.frame(native.FrameType.PING)
        if connection.queued_bytes and not connection.waits_to_write:
            self._send(server, connection, now_ns)

    # --- going down ---------------------------------------------------------------------------

    def _give_up_late(self, now_ns: int) -> None:
        """Attempts that take too long; an intercept that says nothing is a classic one."""
        for server, connection in self._all():
            if connection.socket is None or connection.up or connection.due_ns() > now_ns:
                continue
            if connection.handshake is not None:
                connection.handshake.silent()
                self._conclude(server, connection, now_ns)
            else:
                connection.retry_ns = FIRST_RETRY_NS  # the attempt was the wait
                self._lose(server, connection, now_ns, "no answer")
        self._set_deadline(now_ns)

    def _lose(self, server: Server, connection: Connection, now_ns: int, problem: str) -> None:
        """The connection, or the attempt at one, has failed."""
        was_up = connection.up
        self._close_socket(connection)
        if was_up:
            _log.warning("intercept %s: connection lost: %s", server.name, problem)
            if server.is_single:  # what has pushed it out may be gone soon
                server.renew_ns = now_ns + RENEW_NS
            if now_ns - connection.since_ns >= _SETTLED_NS:
                connection.retry_ns = FIRST_RETRY_NS
            if any(other.up for other in server.connections):
                self._resume(server)  # the sessions it had announced are forgotten there
        elif (
            server.refused and problem != connection.problem and connection is server.connections[0]
        ):
            _log.warning("intercept %s: %s", server.name, problem)
        self._wait(connection, now_ns, problem)

    def _wait(self, connection: Connection, now_ns: int, problem: str) -> None:
        connection.problem = problem
        connection.next_attempt_ns = now_ns + connection.retry_ns
        if connection.retry_ns < _LAST_RETRY_NS:
            connection.retry_ns = min(2 * connection.retry_ns, _LAST_RETRY_NS)
        self._set_deadline(now_ns)

    def _close_socket(self, connection: Connection) -> None:
        assert connection.socket is not None
        fd = connection.socket.fileno()
        del self._by_fd[fd]
        self._poll.unregister(fd)
        connection.close()

    def _set_deadline(self, now_ns: int) -> None:
        due = [c.due_ns() for _, c in self._all() if not c.up]
        due += [server.renew_ns for server in self._servers if server.renew_ns]
        if any(c.kind == Kind.NATIVE for _, c in self._all()):
            due.append(now_ns + _LOOK_NS)
        self._deadline_ns = min(due, default=None)
