"""tcpcopy's end of the relay: connections to every intercept, announcements out, answers in.

Driven by the owner's loop, never blocking but in `connect_all`. It owns an epoll of its own: the
loop watches `fileno()` for reading and calls `service`. Each intercept gets every announcement,
over one of its connections in turn. A connection that is lost is opened again; the intercept has
forgotten the sessions it had announced, so all live ones are announced again.

Source: TCPCopy 1.3.0 (`tc_message_module.c`, `tc_session.c: send_router_info`) for what is said.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay.classic import (
    MESSAGE_BYTES,
    Layout,
    MessageType,
    RelayFault,
    encode_message,
    encode_version,
)
from tcpcopy.relay.records import RecordDecoder
from tcpcopy.report.counters import RelayCounts

_log = logging.getLogger("tcpcopy.relay")
_MS = 1_000_000
# An intercept that is back must have new sessions within a second: attempts stay close together.
_FIRST_RETRY_NS = 50 * _MS
_LAST_RETRY_NS = 500 * _MS
_ATTEMPT_NS = 500 * _MS
# A connection that lived this long was no accident: the next retry is quick again.
_SETTLED_NS = 1_000 * _MS
_CHUNK = 512  # sessions announced again in one go

#: A live session: mapped address and port, target address and port.
LiveSession = tuple[bytes, int, bytes, int]


class Unreachable(NamedTuple):
    """An intercept that cannot be connected to."""

    server: str  # address:port
    problem: str


class _Connection:
    """One connection to an intercept, or the wait for the next attempt."""

    __slots__ = (
        "attempt_until_ns",  # when an attempt under way is given up
        "decoder",
        "next_attempt_ns",  # of a connection that is down
        "out",  # bytes to send; whole messages at the end, the first may be sent in part
        "problem",  # why the last attempt failed
        "retry_ns",  # the wait before the next attempt
        "server",
        "since_ns",  # up since
        "socket",  # None: down
        "up",
        "waits_to_write",
        "was_up",  # it has been up before
    )

    def __init__(self, server: _Server) -> None:
        self.attempt_until_ns = 0
        self.decoder: RecordDecoder | None = None
        self.next_attempt_ns = 0
        self.out = bytearray()
        self.problem = ""
        self.retry_ns = _FIRST_RETRY_NS
        self.server = server
        self.since_ns = 0
        self.socket: socket.socket | None = None
        self.up = False
        self.waits_to_write = False
        self.was_up = False


class _Server:
    """One intercept of `-s`."""

    __slots__ = ("connections", "counts", "family", "name", "resumed", "sockaddr", "turn")

    def __init__(self, host: str, port: int, connections: int) -> None:
        self.connections = [_Connection(self) for _ in range(connections)]
        self.counts = RelayCounts()
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.resumed: Iterator[LiveSession] | None = None  # live sessions still to announce again
        self.sockaddr = (host, port)
        self.turn = 0

    def next_up(self) -> _Connection | None:
        """The connection whose turn it is, of those that are up."""
        for _ in self.connections:
            connection = self.connections[self.turn]
            self.turn = (self.turn + 1) % len(self.connections)
            if connection.up:
                return connection
        return None


class RelayClient:
    """The relay connections of one tcpcopy worker. Not thread-safe."""

    def __init__(
        self,
        servers: Iterable[tuple[str, int]],
        handler: PacketHandler,
        *,
        connections_per_server: int = 2,
        live_sessions: Callable[[], Iterable[LiveSession]] = lambda: (),
        layout: Layout = Layout.AUTO,
        queue_bytes: int = 256 << 10,
    ) -> None:
        """Nothing is opened yet; `servers` are IP addresses and ports.

        `handler` gets the answers as `RecordDecoder` says. `live_sessions` is called after a
        connection was lost; what it returns is consumed over many calls, so it must not mind
        sessions that come and go meanwhile. `queue_bytes` bounds what waits for one connection.
        """
        self._handler = handler
        self._layout = layout
        self._live_sessions = live_sessions
        self._poll = select.epoll()
        self._queue_bytes = max(queue_bytes, 2 * MESSAGE_BYTES)
        self._servers = [_Server(host, port, connections_per_server) for host, port in servers]
        self._by_fd: dict[int, _Connection] = {}
        self._unsent: list[_Connection] = []  # have something in `out` that the kernel may take
        self._deadline_ns: int | None = None
        self._resuming = False  # a server has live sessions to be announced again
        self.faults = [0] * len(RelayFault)  # connections given up, by RelayFault

    # --- what the loop calls ------------------------------------------------------------------

    def connect_all(self, now_ns: int, timeout_ns: int = 3_000 * _MS) -> list[Unreachable]:
        """Connect to every intercept, waiting until it is known who answers.

        Returns the intercepts to which not one connection could be made. They are tried again
        with the others from then on: it is for the caller to go on or not.
        """
        started_ns = now_ns
        for server in self._servers:
            for connection in server.connections:
                self._connect(connection, now_ns, timeout_ns)
        while any(c.socket is not None and not c.up for s in self._servers for c in s.connections):
            left_ns = started_ns + timeout_ns - now_ns
            if left_ns <= 0:
                break
            before = time.monotonic_ns()
            for fd, events in self._poll.poll(left_ns / 1e9):
                self._on_event(fd, events, now_ns, 0)
            now_ns += time.monotonic_ns() - before
        unreachable = []
        for server in self._servers:
            for connection in server.connections:
                if connection.socket is not None and not connection.up:
                    self._lose(connection, now_ns, "no answer")
            if not any(connection.up for connection in server.connections):
                unreachable.append(Unreachable(server.name, server.connections[0].problem))
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
        when they are back, if `live_sessions` still has it. Addresses are 4 bytes each.
        """
        message = encode_message(MessageType.ADD, mapped, mapped_port, target, target_port)
        return self._tell_all(message)

    def withdraw(self, mapped: bytes, mapped_port: int, target: bytes, target_port: int) -> None:
        """Queue that a session is over, over every connection: only the one that announced it
        is heeded, so that a session announced anew over another is not hit.
        """
        message = encode_message(MessageType.REMOVE, mapped, mapped_port, target, target_port)
        for server in self._servers:
            for connection in server.connections:
                if connection.up and len(connection.out) < self._queue_bytes // 2:
                    self._queue(connection, message)

    def flush(self, now_ns: int) -> None:
        """Hand what is queued to the kernel, as far as it takes it; never blocks."""
        if self._resuming:
            for server in self._servers:
                if server.resumed is not None:
                    self._announce_again(server)
            self._resuming = any(server.resumed is not None for server in self._servers)
        if not self._unsent:
            return
        unsent = self._unsent
        self._unsent = []
        for connection in unsent:
            if connection.up and not connection.waits_to_write:
                self._send(connection, now_ns)

    def next_deadline_ns(self) -> int | None:
        """When `run_timers` is due; None while there is nothing to wait for."""
        for server in self._servers if self._resuming else ():
            # Without room for more, the socket that takes what is queued wakes the loop.
            if server.resumed is not None and self._with_room(server) is not None:
                return 0
        return self._deadline_ns

    def run_timers(self, now_ns: int) -> None:
        """Open what is down and due, give up attempts that take too long."""
        if self._deadline_ns is not None and self._deadline_ns <= now_ns:
            for server in self._servers:
                for connection in server.connections:
                    if connection.socket is None:
                        if connection.next_attempt_ns <= now_ns:
                            self._connect(connection, now_ns, _ATTEMPT_NS)
                    elif not connection.up and connection.attempt_until_ns <= now_ns:
                        connection.retry_ns = _FIRST_RETRY_NS  # the attempt was the wait
                        self._lose(connection, now_ns, "no answer")
            self._set_deadline()
        self.flush(now_ns)

    def close(self) -> None:
        """Close all connections; what is queued is lost."""
        for connection in list(self._by_fd.values()):
            self._close_socket(connection)
        self._poll.close()

    # --- what the owner reads -----------------------------------------------------------------

    @property
    def servers_up(self) -> int:
        """Intercepts that have at least one connection now."""
        return sum(any(c.up for c in server.connections) for server in self._servers)

    def counts(self) -> dict[str, RelayCounts]:
        """The counts of each intercept by "address:port"; `lost` counts lost announcements."""
        found = {}
        for server in self._servers:
            counts = server.counts
            found[server.name] = RelayCounts(
                connected=sum(connection.up for connection in server.connections),
                records=counts.records,
                malformed=counts.malformed,
                lost=counts.lost,
                connects=counts.connects,
                reconnects=counts.reconnects,
            )
        return found

    # --- announcements ------------------------------------------------------------------------

    def _tell_all(self, message: bytes) -> int:
        told = 0
        for server in self._servers:
            for _ in server.connections:
                connection = server.next_up()
                if connection is None:
                    break
                if len(connection.out) + MESSAGE_BYTES <= self._queue_bytes:
                    self._queue(connection, message)
                    told += 1
                    break
            else:
                # It reads too slowly. Told again when there is room, as after a lost connection.
                server.counts.lost += 1
                if server.resumed is None:
                    self._resume(server)
        return told

    def _queue(self, connection: _Connection, message: bytes) -> None:
        if not connection.out:
            self._unsent.append(connection)
        connection.out += message

    def _resume(self, server: _Server) -> None:
        """Start to announce all live sessions again."""
        server.resumed = iter(self._live_sessions())
        self._resuming = True

    def _announce_again(self, server: _Server) -> None:
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
            self._queue(connection, encode_message(MessageType.ADD, *session))

    def _with_room(self, server: _Server) -> _Connection | None:
        """The next connection that is up and whose queue is not half full."""
        for _ in server.connections:
            connection = server.next_up()
            if connection is not None and len(connection.out) <= self._queue_bytes // 2:
                return connection
        return None

    # --- connections --------------------------------------------------------------------------

    def _connect(self, connection: _Connection, now_ns: int, timeout_ns: int) -> None:
        server = connection.server
        attempt = socket.socket(server.family, socket.SOCK_STREAM)
        try:
            attempt.setblocking(False)
            _prepare(attempt)
            attempt.connect(server.sockaddr)
        except BlockingIOError:
            pass
        except OSError as error:
            attempt.close()
            self._wait(connection, now_ns, error.strerror or str(error))
            return
        connection.socket = attempt
        connection.attempt_until_ns = now_ns + timeout_ns
        self._by_fd[attempt.fileno()] = connection
        self._poll.register(attempt.fileno(), select.EPOLLIN | select.EPOLLOUT)
        self._set_deadline()

    def _on_event(self, fd: int, events: int, now_ns: int, timestamp_ns: int) -> int:
        connection = self._by_fd.get(fd)
        if connection is None or connection.socket is None:
            return 0
        if not connection.up:
            self._finish_connect(connection, now_ns)
            return 0
        records = 0
        if events & ~select.EPOLLOUT:
            records = self._receive(connection, now_ns, timestamp_ns)
        if events & select.EPOLLOUT and connection.up:
            self._send(connection, now_ns)
        return records

    def _finish_connect(self, connection: _Connection, now_ns: int) -> None:
        attempt = connection.socket
        assert attempt is not None
        code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lose(connection, now_ns, os.strerror(code))
            return
        if met_itself(attempt):
            self._lose(connection, now_ns, "nothing listens there")
            return
        server = connection.server
        others_up = any(other.up for other in server.connections)
        server.counts.connects += 1
        connection.up = True
        connection.since_ns = now_ns
        connection.problem = ""
        connection.decoder = RecordDecoder(self._handler, self._layout)
        connection.out = bytearray(encode_version())
        connection.waits_to_write = True
        if connection.was_up:
            server.counts.reconnects += 1
            _log.info("intercept %s: connected again", server.name)
        connection.was_up = True
        self._send(connection, now_ns)
        if not others_up:
            self._resume(server)
        self._set_deadline()

    def _receive(self, connection: _Connection, now_ns: int, timestamp_ns: int) -> int:
        decoder = connection.decoder
        assert decoder is not None and connection.socket is not None
        counts = connection.server.counts
        records_before, malformed_before = decoder.records, decoder.malformed
        state = decoder.read(connection.socket.fileno(), timestamp_ns)
        handed = decoder.records - records_before
        counts.records += handed
        counts.malformed += decoder.malformed - malformed_before
        if decoder.fault:
            fault = RelayFault(decoder.fault)
            self.faults[fault] += 1
            self._lose(connection, now_ns, fault.description)
        elif state == 0:
            self._lose(connection, now_ns, "closed by it")
        elif state < 0:
            self._lose(connection, now_ns, os.strerror(-state))
        return handed

    def _send(self, connection: _Connection, now_ns: int) -> None:
        assert connection.socket is not None
        try:
            while connection.out:
                count = connection.socket.send(connection.out)
                del connection.out[:count]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._lose(connection, now_ns, error.strerror or str(error))
            return
        wanted = bool(connection.out)
        if connection.waits_to_write != wanted:
            connection.waits_to_write = wanted
            mask = select.EPOLLIN | (select.EPOLLOUT if wanted else 0)
            self._poll.modify(connection.socket.fileno(), mask)

    def _lose(self, connection: _Connection, now_ns: int, problem: str) -> None:
        """The connection, or the attempt at one, has failed."""
        was_up = connection.up
        self._close_socket(connection)
        server = connection.server
        if was_up:
            _log.warning("intercept %s: connection lost: %s", server.name, problem)
            if now_ns - connection.since_ns >= _SETTLED_NS:
                connection.retry_ns = _FIRST_RETRY_NS
            if any(other.up for other in server.connections):
                self._resume(server)  # the sessions it had announced are forgotten there
        self._wait(connection, now_ns, problem)

    def _wait(self, connection: _Connection, now_ns: int, problem: str) -> None:
        connection.problem = problem
        connection.next_attempt_ns = now_ns + connection.retry_ns
        connection.retry_ns = min(2 * connection.retry_ns, _LAST_RETRY_NS)
        self._set_deadline()

    def _close_socket(self, connection: _Connection) -> None:
        closed = connection.socket
        assert closed is not None
        del self._by_fd[closed.fileno()]
        self._poll.unregister(closed.fileno())
        closed.close()
        connection.socket = None
        connection.up = False
        connection.decoder = None
        connection.out = bytearray()
        connection.waits_to_write = False

    def _set_deadline(self) -> None:
        due = [
            c.next_attempt_ns if c.socket is None else c.attempt_until_ns
            for server in self._servers
            for c in server.connections
            if not c.up
        ]
        self._deadline_ns = min(due, default=None)


def met_itself(attempt: socket.socket) -> bool:
    """Whether a socket is connected to itself, or not at all any more.

    The intercept's port may be among those that the kernel gives to clients: without an intercept
    on this host an attempt can get that very port, and would then keep an intercept from it.
    Source: RFC 9293 (3.5), simultaneous open.
    """
    try:
        return bool(attempt.getsockname() == attempt.getpeername())
    except OSError:
        return True


def _prepare(attempt: socket.socket) -> None:
    """Send at once, and notice within seconds when the intercept's host is gone."""
    attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5_000)
