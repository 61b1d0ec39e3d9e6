"""Intercept's end of the relay: takes in tcpcopies, reads what they announce, sends them answers.

Owns the sockets and an epoll of its own, whose descriptor the loop watches. What arrives goes to
the `AnswerRouter`; what the router packed goes out with `flush`. A peer that does not speak the
protocol, or may not, is dropped and counted; one that reads too slowly loses records, which are
counted, and never costs memory beyond its buffer. A connection counts as a tcpcopy's once its
handshake is over; those before that are bounded, and an old one makes room for a new one.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
from collections import Counter
from typing import Any

from tcpcopy.errors import UsageError
from tcpcopy.relay import native
from tcpcopy.relay.builds import Builds
from tcpcopy.relay.classic import MAX_BATCH, Layout, MessageDecoder, RelayFault
from tcpcopy.relay.desk import ProbeDesk
from tcpcopy.relay.handshake import Kind, ServerHandshake
from tcpcopy.relay.injection import Injector
from tcpcopy.relay.native import FrameDecoder, FrameType, RelayTerms
from tcpcopy.relay.native_records import NativeWriter
from tcpcopy.relay.packet_queue import frame_bytes
from tcpcopy.relay.peers import Peers
from tcpcopy.relay.probing import Flow
from tcpcopy.relay.records import RecordWriter
from tcpcopy.relay.router import AnswerRouter
from tcpcopy.relay.sockets import problem_of, watch_peer, would_block

_log = logging.getLogger("tcpcopy.relay")
_RECEIVE_BYTES = 65536
_READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
# How long a connection may take to say what it is.
_HANDSHAKE_NS = 10_000_000_000
_MOST_IN_HANDSHAKE = 256
_LISTEN_BACKLOG = 1024
# Credit for packets is given again when so much of it has been used.
_GRANT_BYTES = native.PACKET_WINDOW_BYTES // 8


class _Connection:
    """One relay connection from a tcpcopy, or from what may turn out to be one."""

    __slots__ = (
        "address",  # the peer's, without its port
        "checked_offset",  # native: of the writer, when the timers ran last
        "dropped",  # packets of it that were not injected
        "granted",  # offset up to which its frames of packets are taken
        "classic",  # MessageDecoder of a classic one, else None
        "frames",  # FrameDecoder of a native one, else None
        "handshake",  # None once it is over
        "has_tls",
        "heard_ns",  # bytes came last
        "opened_ns",
        "peer",  # address:port, for the log
        "pinged_ns",  # native: something was sent last, as far as is known
        "packet_bytes",  # frames of packets that came, in bytes
        "socket",
        "tls_pending",  # the TLS handshake is not over
        "told_dropped",
        "told_lost",  # native: lost answers that tcpcopy was told of
        "waits_to_write",  # EPOLLOUT is asked for
        "writer",  # None in the handshake
    )

    def __init__(
        self, peer_socket: socket.socket, address: str, port: int, terms: RelayTerms, now_ns: int
    ) -> None:
        self.address = address
        self.checked_offset = 0
        self.classic: MessageDecoder | None = None
        self.frames: FrameDecoder | None = None
        self.handshake: ServerHandshake | None = ServerHandshake(
            terms, os.urandom(native.NONCE_BYTES)
        )
        self.dropped = self.told_dropped = 0
        self.granted = self.packet_bytes = 0
        self.heard_ns = now_ns
        self.opened_ns = now_ns
        self.peer = f"{address}:{port}"
        self.pinged_ns = now_ns
        self.socket = peer_socket
        self.tls_pending = self.has_tls = terms.tls is not None
        self.told_lost = 0
        self.waits_to_write = False
        self.writer: RecordWriter | None = None


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
        terms: RelayTerms | None = None,
        peers: Peers | None = None,
        injector: Injector | None = None,
        finds_layout: bool = False,
        shows_quiet: bool = False,
    ) -> None:
        """Nothing is opened yet. `host` "" means all IPv4 addresses of this host.

        `protected`: while connections of one tcpcopy host are open, those of others are refused.
        `buffer_bytes` bounds what waits for one connection. `batch_records` and `layout` are for
        classic peers. `terms`: what is spoken, with which secret; `peers`: who may connect;
        `injector`: where the packets of tunnels go, with `terms` that have one. `finds_layout`:
        who does not understand batches gets bare records. `shows_quiet`: a tcpcopy that announces
        nothing may get answers that nobody has announced.
        """
        self.router = router
        self.host = host
        self.port = port
        self.accepted = 0  # connections whose handshake was over
        self.refused = 0  # not allowed, over a limit, or protected
        self.crowded_out = 0  # made room for newer ones
        self.payload_refused = 0  # connections that asked for payload, and get none
        self.faults = [0] * len(RelayFault)  # connections dropped, by RelayFault
        self.injector = injector
        self.lost_at_close = 0  # records packed for a connection that broke before they were sent
        self.peers = peers or Peers()
        self.desk: ProbeDesk | None = None  # answers probes
        self._layout = layout
        self._batch_records = batch_records
        self._buffer_bytes = buffer_bytes
        self._connection_limit = connection_limit
        self._connections: dict[int, _Connection] = {}
        self._in_handshake: dict[int, _Connection] = {}  # those of them, the oldest first
        self._lost_of_closed = 0  # RecordWriter.lost of connections that are gone
        self._now_ns = 0  # of the last call
        self._timers_ns = 0  # of the last `run_timers`; 0: not yet
        self._poll = select.epoll()
        self._paused = False  # out of descriptors: nothing is accepted until the next timers
        self._protected = protected
        self._listener: socket.socket | None = None
        self._terms = terms or RelayTerms()
        self._builds = Builds(
            router,
            self.peers,
            is_single=self._terms.single,
            guesses_single=shows_quiet,
            guesses_bare=finds_layout,
        )

    @property
    def connections(self) -> int:
        """Connections of tcpcopies that are open now."""
        return len(self._connections) - len(self._in_handshake)

    def open(self) -> None:
        """Listen. Raises: UsageError when the address or port cannot be had."""
        family = socket.AF_INET
        if ":" in self.host:
            family = socket.AF_INET6
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen(_LISTEN_BACKLOG)
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
        self._now_ns = now_ns
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
        """Drop who says nothing, and say something to the others; call about once a second.

        Call `service` before. When this comes much later, nobody could be heard meanwhile: that is
        not their silence.
        """
        gap_ns = now_ns - self._timers_ns
        if self._timers_ns and gap_ns > native.STANDSTILL_NS:
            self._stand_still(now_ns, gap_ns)
        self._now_ns = self._timers_ns = now_ns
        if self._paused and self._listener is not None:
            self._paused = False
            self._poll.register(self._listener.fileno(), select.EPOLLIN)
        while self._in_handshake:
            oldest = next(iter(self._in_handshake.values()))
            if now_ns - oldest.opened_ns <= _HANDSHAKE_NS:
                break
            self._fault(oldest, RelayFault.SILENT)
        for connection in list(self._connections.values()):
            writer = connection.writer
            if not isinstance(writer, NativeWriter):
                continue
            if now_ns - connection.heard_ns >= native.SILENCE_NS:
                self._fault(connection, RelayFault.SILENT)
                continue
            if writer.offset != connection.checked_offset:
                connection.checked_offset = writer.offset
                connection.pinged_ns = now_ns
            idle = now_ns - connection.pinged_ns >= native.PING_NS
            # Losses are told as soon as there is credit again to tell them.
            if idle or (writer.lost != connection.told_lost and writer.allowed > writer.offset):
                connection.pinged_ns = now_ns
                connection.told_lost = writer.lost
                writer.ping(writer.lost)
                self._send(connection)
            if self._terms.tunnel and not writer.closed:
                self._tell_of_packets(connection, writer)
        self._builds.look(now_ns)
        self.peers.look(now_ns)
        if self.desk is not None:
            self.desk.look(now_ns)

    def _stand_still(self, now_ns: int, duration_ns: int) -> None:
        for connection in self._connections.values():
            connection.heard_ns = min(connection.heard_ns + duration_ns, now_ns)
            connection.opened_ns = min(connection.opened_ns + duration_ns, now_ns)

    def _tell_of_packets(self, connection: _Connection, writer: NativeWriter) -> None:
        """Say what was dropped, and give credit that there was no room to give."""
        injector = self.injector
        if (
            injector is not None
            and connection.dropped != connection.told_dropped
            and writer.dropped(injector.reason, connection.dropped)
        ):
            connection.told_dropped = connection.dropped
        self._grant(connection, writer)
        self._send(connection)

    def lost_records(self) -> int:
        """Answers that did not get to a tcpcopy, slow readers and broken connections."""
        now = sum(c.writer.lost for c in self._connections.values() if c.writer is not None)
        return self._lost_of_closed + now + self.lost_at_close

    def close(self) -> None:
        """Send what the sockets take at once, then close everything."""
        self.flush()
        for connection in list(self._connections.values()):
            self._drop(connection)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self.desk is not None:
            self.desk.close()
            self.desk = None
        self._poll.close()

    # --- coming in ----------------------------------------------------------------------------

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
            if not self.peers.is_allowed(address):
                self._refuse(address, "its address is not in --allow")
                peer_socket.close()
                continue
            if len(self._in_handshake) >= _MOST_IN_HANDSHAKE:
                self._crowd_out()
            try:
                peer_socket = self._prepare(peer_socket)
            except OSError:  # it is gone already
                peer_socket.close()
                continue
            fd = peer_socket.fileno()
            connection = _Connection(peer_socket, address, port, self._terms, now_ns)
            self._connections[fd] = self._in_handshake[fd] = connection
            self._poll.register(fd, select.EPOLLIN)

    def _crowd_out(self) -> None:
        """Drop the oldest in the handshake, of the host that has most there."""
        waiting = self._in_handshake.values()
        ((most, _),) = Counter(connection.address for connection in waiting).most_common(1)
        self.crowded_out += 1
        self._drop(next(connection for connection in waiting if connection.address == most))

    def _prepare(self, peer_socket: socket.socket) -> socket.socket:
        peer_socket.setblocking(False)
        watch_peer(peer_socket, 10, 5, 30_000)
        if self._terms.tls is None:
            return peer_socket
        return self._terms.tls.wrap_socket(
            peer_socket, server_side=True, do_handshake_on_connect=False
        )

    def _refuse(self, address: str, reason: str) -> None:
        self.refused += 1
        self.peers.log_refusal(address, reason, self._now_ns)

    def _reason_to_refuse(self, address: str) -> str:
        if self.connections >= self._connection_limit and not self._make_room(address):
            return f"{self._connection_limit} connections are open, which is the most"
        if not self.peers.has_room(address):
            return f"{self.peers.count} tcpcopies are connected, which is the most (--max-peers)"
        if self._protected:
            for connection in self._connections.values():
                if connection.address != address and connection.handshake is None:
                    return f"-c protects the connections of {connection.address}"
        return ""

    def _make_room(self, address: str) -> bool:
        """Let a host with many connections have one less, for one with fewer."""
        most = self.peers.most_connected(address)
        newest = None
        for connection in self._connections.values():
            if connection.address == most and connection.handshake is None:
                newest = connection
        if newest is None:
            return False
        self.crowded_out += 1
        self._drop(newest, "another tcpcopy needs the room")
        return True

    # --- reading ------------------------------------------------------------------------------

    def _receive(self, connection: _Connection) -> None:
        try:
            if connection.tls_pending:
                encrypted: Any = connection.socket  # an ssl.SSLSocket
                encrypted.do_handshake()
                connection.tls_pending = False
            data = connection.socket.recv(_RECEIVE_BYTES)
        except would_block():
            return
        except OSError as error:
            if connection.tls_pending:
                with contextlib.suppress(OSError):  # or the alert just sent is lost with a reset
                    socket.socket.recv(connection.socket, _RECEIVE_BYTES)
                detail = f"{RelayFault.TLS.description} ({problem_of(error)})"
                self._fault(connection, RelayFault.TLS, detail)
            else:
                self._drop(connection, problem_of(error))
            return
        if not data:
            self._drop(connection, "closed by it")
            return
        connection.heard_ns = self._now_ns
        if connection.handshake is not None:
            self._shake_hands(connection, connection.handshake, data)
        else:
            self._take(connection, data)

    def _shake_hands(
        self, connection: _Connection, handshake: ServerHandshake, data: bytes
    ) -> None:
        answer = handshake.feed(data)
        reason = ""
        if handshake.kind:
            reason = self._reason_to_refuse(connection.address)
            if reason:
                answer = native.refused(RelayFault.NOT_ADMITTED) if answer else b""
        if answer:
            try:
                sent = connection.socket.send(answer)
            except OSError:
                sent = -1
            if sent != len(answer):  # a few bytes, into an empty socket buffer
                self._drop(connection, "it does not read")
                return
        if reason:
            self._refuse(connection.address, reason)
            self._drop(connection)
        elif handshake.fault:
            self._fault(connection, handshake.fault)
        elif handshake.kind:
            self._admit(connection, handshake)

    def _admit(self, connection: _Connection, handshake: ServerHandshake) -> None:
        """It is a tcpcopy: give it a writer, and take what it has said already."""
        fd = connection.socket.fileno()
        peer = self.peers.connected(connection.address)
        if handshake.kind == Kind.NATIVE:
            connection.frames = FrameDecoder(self._terms.tunnel)
            connection.writer = NativeWriter(
                fd,
                self._buffer_bytes,
                peer,
                window=handshake.window,
                payload_bytes=handshake.payload_bytes,
                kinds=handshake.kinds,
            )
            shown = "tunnel" if self._terms.tunnel else "native relay"
            if self._terms.tunnel:
                self._grant(connection, connection.writer)
        else:
            connection.classic = MessageDecoder()
            connection.writer = RecordWriter(
                fd, self._batch_records, self._buffer_bytes, self._layout, peer
            )
            shown = "classic relay"
        if handshake.payload_refused:
            self.payload_refused += 1
            reason = "that takes a secret, or certificates of tcpcopies (--secret-file, --tls-ca)"
            self.peers.log_refusal(connection.address, reason, self._now_ns, what="payload for")
        connection.handshake = None
        del self._in_handshake[fd]
        self.accepted += 1
        is_classic = connection.classic is not None
        self._builds.connected(connection.writer, connection.address, is_classic=is_classic)
        self._take(connection, handshake.rest)
        if connection.socket.fileno() >= 0:
            self.peers.log(connection.address, "tcpcopy %s connected, %s", connection.peer, shown)

    def _take(self, connection: _Connection, data: bytes) -> None:
        """Bytes of a connection whose handshake is over."""
        writer = connection.writer
        assert writer is not None
        if connection.classic is not None:
            messages = connection.classic.feed(data)
            if messages:
                self._builds.announced(writer)
                self.router.messages(writer, messages)
            fault = connection.classic.fault
        else:
            assert connection.frames is not None
            for kind, body in connection.frames.feed(data):
                if kind == FrameType.SESSIONS_V4:
                    self.router.messages(writer, body)
                elif kind == FrameType.SESSIONS_V6:
                    self.router.messages_v6(writer, body)
                elif kind == FrameType.CREDIT:
                    assert isinstance(writer, NativeWriter)
                    writer.grant(native.read_credit(body))
                elif kind == FrameType.PROBE:
                    assert isinstance(writer, NativeWriter)
                    self._report(connection, writer, body)
                elif kind == FrameType.PACKETS:
                    assert isinstance(writer, NativeWriter)
                    if not self._inject(connection, writer, body):
                        self._fault(connection, RelayFault.CREDIT)
                        return
            fault = connection.frames.fault
        if fault:
            self._fault(connection, fault)
        elif writer.sendable_bytes and not connection.waits_to_write:
            self._send(connection)

    def _inject(self, connection: _Connection, writer: NativeWriter, body: bytes) -> bool:
        """Packets for the tunnel; False: there was no credit for them."""
        connection.packet_bytes += frame_bytes(body)
        if connection.packet_bytes > connection.granted or self.injector is None:
            return False
        connection.dropped += self.injector.inject(body)
        self._grant(connection, writer)
        return True

    def _grant(self, connection: _Connection, writer: NativeWriter) -> None:
        wanted = connection.packet_bytes + native.PACKET_WINDOW_BYTES
        if wanted - connection.granted >= _GRANT_BYTES and writer.credit(wanted):
            connection.granted = wanted

    def _report(self, connection: _Connection, writer: NativeWriter, body: bytes) -> None:
        """Answer a PROBE: always, whatever there is to say."""
        report = None
        if self.desk is not None:
            fd, peer = connection.socket.fileno(), writer.peer

            def holds(flow: Flow) -> bool:
                return self.router.holds(
                    peer, flow.mapped, flow.mapped_port, flow.target, flow.target_port
                )

            report = self.desk.answer(fd, body, self._now_ns, holds)
        writer.put_frame(native.frame(FrameType.REPORT, report or b"{}"))

    # --- writing ------------------------------------------------------------------------------

    def _send(self, connection: _Connection) -> None:
        writer = connection.writer
        if writer is None:
            return
        if not connection.has_tls:
            state = writer.write(writer.identity)
            if state < 0:
                self._drop(connection, os.strerror(-state))
            else:
                self._watch_writing(connection, state == 0)
            return
        while writer.sendable_bytes:
            with writer.pending() as data:
                try:
                    count = connection.socket.send(data)
                except would_block():
                    self._watch_writing(connection, True)
                    return
                except OSError as error:
                    problem = problem_of(error)
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

    # --- going --------------------------------------------------------------------------------

    def _fault(self, connection: _Connection, fault: RelayFault, detail: str = "") -> None:
        self.faults[fault] += 1
        if connection.handshake is not None:
            reason = detail or fault.description
            self.peers.log_refusal(connection.address, reason, self._now_ns)
            self._drop(connection)
        else:
            self._drop(connection, fault.description)

    def _drop(self, connection: _Connection, problem: str = "") -> None:
        fd = connection.socket.fileno()
        del self._connections[fd]
        self._poll.unregister(fd)
        connection.socket.close()
        writer = connection.writer
        if writer is None:
            del self._in_handshake[fd]
            return
        lost = writer.pending_records
        self.lost_at_close += lost
        self._lost_of_closed += writer.lost
        writer.close()
        self.peers.closed(connection.address)
        self._builds.closed(writer, self._now_ns)
        self.router.connection_closed()
        if problem:
            unsent = f", {lost} answers were not sent" if lost else ""
            self.peers.log(
                connection.address, "tcpcopy %s gone: %s%s", connection.peer, problem, unsent
            )


def _refusal(host: str, port: int, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError("-p", port, "the port is in use", "stop what listens there (`ss -ltnp`)")
    if error.errno in (errno.EACCES, errno.EPERM):
        return UsageError("-p", port, "not allowed to listen there", "use a port above 1023")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError("-b", host, "not an address of this host", "see `ip address`")
    return UsageError("-b", host, error.strerror or str(error), "give an IP address of this host")
