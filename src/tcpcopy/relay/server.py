"""Intercept's end of the relay: takes in tcpcopies, reads what they announce, sends them answers.

Owns the sockets and an epoll of its own, whose descriptor the loop watches. What arrives goes to
the `AnswerRouter`; what the router packed goes out with `flush`. A peer that does not speak the
protocol is dropped and counted; one that reads too slowly loses records, which are counted, and
never costs memory beyond its buffer.
"""

from __future__ import annotations

import errno
import logging
import select
import socket

from tcpcopy.errors import UsageError
from tcpcopy.relay.classic import MAX_BATCH, Layout, MessageDecoder, RelayFault
from tcpcopy.relay.records import RecordWriter
from tcpcopy.relay.router import AnswerRouter

_log = logging.getLogger("tcpcopy.relay")
_RECEIVE_BYTES = 65536
_READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
# How long a connection may go without its version message.
_SILENCE_NS = 10_000_000_000


class _Connection:
    """One relay connection from a tcpcopy."""

    __slots__ = (
        "address",  # the peer's, without its port
        "decoder",
        "opened_ns",
        "peer",  # address:port, for the log
        "socket",
        "waits_to_write",  # EPOLLOUT is asked for
        "writer",
    )

    def __init__(
        self, peer_socket: socket.socket, address: str, port: int, writer: RecordWriter, now_ns: int
    ) -> None:
        self.address = address
        self.decoder = MessageDecoder()
        self.opened_ns = now_ns
        self.peer = f"{address}:{port}"
        self.socket = peer_socket
        self.waits_to_write = False
        self.writer = writer


class RelayServer:
    """Listens for tcpcopies and keeps a bounded number of connections. Not thread-safe."""

    def __init__(
        self,
        router: AnswerRouter,
        *,
        host: str,
        port: int,
        batch_records: int = MAX_BATCH,
        layout: Layout = Layout.BATCHED,
        protected: bool = False,
        connection_limit: int = 512,
        buffer_bytes: int = 2 << 20,
    ) -> None:
        """Nothing is opened yet. `host` "" means all IPv4 addresses of this host.

        `protected`: while connections of one tcpcopy host are open, those of others are refused.
        `buffer_bytes` bounds what waits for one connection.
        """
        self.router = router
        self.host = host
        self.port = port
        self.accepted = 0
        self.refused = 0  # over the limit, or protected
        self.faults = [0] * len(RelayFault)  # connections dropped, by RelayFault
        self.lost_at_close = 0  # records packed for a connection that broke before they were sent
        self._layout = layout
        self._batch_records = batch_records
        self._buffer_bytes = buffer_bytes
        self._connection_limit = connection_limit
        self._connections: dict[int, _Connection] = {}
        self._lost_of_closed = 0  # RecordWriter.lost of connections that are gone
        self._poll = select.epoll()
        self._paused = False  # out of descriptors: nothing is accepted until the next timers
        self._protected = protected
        self._listener: socket.socket | None = None

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    def open(self) -> None:
        """Listen. Raises: UsageError when the address or port cannot be had."""
        family = socket.AF_INET
        if ":" in self.host:
            family = socket.AF_INET6
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise _refusal(self.host, self.port, error) from None
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._poll.register(listener.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when `service` has something to do."""
        return self._poll.fileno()

    def service(self, now_ns: int) -> None:
        """Accept, read and write whatever is possible now; never blocks."""
        for fd, events in self._poll.poll(0):
            if self._listener is not None and fd == self._listener.fileno():
                self._accept(now_ns)
                continue
            connection = self._connections.get(fd)
            if connection is not None and events & _READABLE:
                self._receive(connection)
            if events & select.EPOLLOUT:
                connection = self._connections.get(fd)
                if connection is not None:
                    self._send(connection)
        self.flush()

    def flush(self) -> None:
        """Send what the router has packed, as far as the sockets take it."""
        for writer in self.router.take_ready():
            connection = self._connections.get(writer.identity)
            if (
                connection is not None
                and connection.writer is writer
                and not connection.waits_to_write
            ):
                self._send(connection)

    def run_timers(self, now_ns: int) -> None:
        """Drop connections that opened and never said what they are; call about once a second."""
        if self._paused and self._listener is not None:
            self._paused = False
            self._poll.register(self._listener.fileno(), select.EPOLLIN)
        for connection in list(self._connections.values()):
            if connection.decoder.version == 0 and now_ns - connection.opened_ns > _SILENCE_NS:
                self._fault(connection, RelayFault.NOT_A_TCPCOPY)

    def lost_records(self) -> int:
        """Records that were lost on the way to a tcpcopy, slow readers and broken connections."""
        now = sum(connection.writer.lost for connection in self._connections.values())
        return self._lost_of_closed + now + self.lost_at_close

    def close(self) -> None:
        """Send what the sockets take at once, then close everything."""
        self.flush()
        for connection in list(self._connections.values()):
            self._drop(connection)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._poll.close()

    def _accept(self, now_ns: int) -> None:
        assert self._listener is not None
        for _ in range(64):  # then let the packets have their turn
            try:
                peer_socket, peer = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    _log.warning("cannot accept a tcpcopy: %s", error.strerror)
                    self._paused = True
                    self._poll.unregister(self._listener.fileno())
                return
            address, port = str(peer[0]), int(peer[1])
            reason = self._reason_to_refuse(address)
            if reason:
                self.refused += 1
                _log.warning("tcpcopy %s:%d refused: %s", address, port, reason)
                peer_socket.close()
                continue
            _prepare(peer_socket)
            fd = peer_socket.fileno()
            writer = RecordWriter(fd, self._batch_records, self._buffer_bytes, self._layout)
            self._connections[fd] = _Connection(peer_socket, address, port, writer, now_ns)
            self._poll.register(fd, select.EPOLLIN)
            self.accepted += 1

    def _reason_to_refuse(self, address: str) -> str:
        if len(self._connections) >= self._connection_limit:
            return f"{self._connection_limit} connections are open, which is the most"
        if self._protected:
            for connection in self._connections.values():
                if connection.address != address:
                    return f"-c protects the connections of {connection.address}"
        return ""

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._drop(connection, error.strerror or "broken")
            return
        if not data:
            self._drop(connection, "closed by it")
            return
        decoder = connection.decoder
        announced_before = decoder.version
        self.router.messages(connection.writer, decoder.feed(data))
        if decoder.fault:
            self._fault(connection, decoder.fault)
        elif decoder.version != announced_before:
            _log.info("tcpcopy %s connected, version %d", connection.peer, decoder.version)

    def _send(self, connection: _Connection) -> None:
        writer = connection.writer
        while writer.pending_bytes:
            with writer.pending() as data:
                try:
                    count = connection.socket.send(data)
                except (BlockingIOError, InterruptedError):
                    self._watch_writing(connection, True)
                    return
                except OSError as error:
                    problem = error.strerror or "broken"
                    break
            writer.sent(count)
        else:
            self._watch_writing(connection, False)
            return
        self._drop(connection, problem)

    def _watch_writing(self, connection: _Connection, wanted: bool) -> None:
        if connection.waits_to_write != wanted:
            connection.waits_to_write = wanted
            mask = select.EPOLLIN | (select.EPOLLOUT if wanted else 0)
            self._poll.modify(connection.socket.fileno(), mask)

    def _fault(self, connection: _Connection, fault: RelayFault) -> None:
        self.faults[fault] += 1
        self._drop(connection, fault.description)

    def _drop(self, connection: _Connection, problem: str = "") -> None:
        writer = connection.writer
        fd = connection.socket.fileno()
        del self._connections[fd]
        self._poll.unregister(fd)
        connection.socket.close()
        lost = writer.pending_records
        self.lost_at_close += lost
        self._lost_of_closed += writer.lost
        writer.close()
        self.router.connection_closed()
        if problem:
            unsent = f", {lost} answers were not sent" if lost else ""
            _log.info("tcpcopy %s gone: %s%s", connection.peer, problem, unsent)


def _prepare(peer_socket: socket.socket) -> None:
    """Send at once, and notice within half a minute when the host at the other end is gone."""
    peer_socket.setblocking(False)
    peer_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    peer_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    peer_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    peer_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)


def _refusal(host: str, port: int, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError("-p", port, "the port is in use", "stop what listens there (`ss -ltnp`)")
    if error.errno in (errno.EACCES, errno.EPERM):
        return UsageError("-p", port, "not allowed to listen there", "use a port above 1023")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError("-b", host, "not an address of this host", "see `ip address`")
    return UsageError("-b", host, error.strerror or str(error), "give an IP address of this host")
