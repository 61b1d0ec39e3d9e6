"""tcpcopy's connections to an intercept: of each its socket, what it speaks, what waits to be sent.

Down, connecting, TLS handshake, relay handshake, up: `client.RelayClient` takes it from one to the
next. Nothing here blocks; what fails raises OSError, and its owner closes the connection.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cython

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay import native
from tcpcopy.relay.classic import MESSAGE_BYTES, Layout, MessageType, encode_message
from tcpcopy.relay.handshake import ClientHandshake, Kind
from tcpcopy.relay.native import FrameType, RelayTerms
from tcpcopy.relay.native_records import NativeDecoder
from tcpcopy.relay.packet_queue import PacketQueue
from tcpcopy.relay.records import RecordDecoder
from tcpcopy.relay.sockets import would_block
from tcpcopy.report.counters import RelayCounts

if TYPE_CHECKING:
    import ssl

_READS = 32  # of a TLS record at most each: then other connections have their turn
# Credit is given again when so much of it has been used.
_WINDOW_BYTES = native.WINDOW_BYTES
_GRANT_BYTES = _WINDOW_BYTES // 8
# Packets are moved to what is sent so far: what else is said must not wait long for its turn.
_AHEAD_BYTES = 65536

_PATIENCE_NS = 250_000_000
# An intercept that is back must have new sessions within a second: attempts stay close together.
FIRST_RETRY_NS = 50_000_000

#: A live session: mapped address and port, target address and port.
LiveSession = tuple[bytes, int, bytes, int]


class Connection:
    """One connection to an intercept, or the wait for the next attempt."""

    __slots__ = (
        "attempt_until_ns",  # when an attempt under way is given up
        "decide_until_ns",  # when an intercept that has said nothing is taken for a classic one
        "decoder",  # once up
        "granted",  # native: offset of its stream up to which intercept may send
        "handshake",  # between connected and up
        "heard_ns",  # native: bytes came last
        "kind",  # what it speaks, once up
        "marked",  # the owner's mark: it has something to send
        "name",  # host for the TLS certificate
        "next_attempt_ns",  # of a connection that is down
        "has_tls",
        "out",  # bytes to send, as they are; the first message or frame may be sent in part
        "packets",  # PacketQueue of a tunnel, once up; else None
        "problem",  # why the last attempt failed
        "queued_v4",  # native: messages not put into frames yet
        "queued_v6",
        "retry_ns",  # the wait before the next attempt
        "said_ns",  # native: bytes were sent last
        "since_ns",  # up since
        "socket",  # None: down
        "tls_pending",  # the TLS handshake is not over
        "told_dropped",  # of the decoder, as counted already
        "told_lost",  # the same
        "tunnel",  # it is to be one
        "up",
        "waits_to_write",
        "was_up",  # it has been up before
    )

    def __init__(self, name: str, retry_ns: int) -> None:
        self.attempt_until_ns = 0
        self.decide_until_ns = 0
        self.decoder: RecordDecoder | None = None
        self.granted = 0
        self.handshake: ClientHandshake | None = None
        self.heard_ns = 0
        self.kind = Kind.UNDECIDED
        self.marked = False
        self.name = name
        self.next_attempt_ns = 0
        self.has_tls = False
        self.out = bytearray()
        self.packets: PacketQueue | None = None
        self.problem = ""
        self.queued_v4 = bytearray()
        self.queued_v6 = bytearray()
        self.retry_ns = retry_ns
        self.said_ns = 0
        self.since_ns = 0
        self.socket: socket.socket | None = None
        self.tls_pending = False
        self.told_dropped = 0
        self.told_lost = 0
        self.tunnel = False
        self.up = False
        self.waits_to_write = False
        self.was_up = False

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent, packets of a tunnel left out as long as they wait for credit."""
        return len(self.out) + len(self.queued_v4) + len(self.queued_v6)

    def due_ns(self) -> int:
        """When the owner has to look at it, as long as it is not up."""
        if self.socket is None:
            return self.next_attempt_ns
        if self.handshake is not None and not self.handshake.heard_native:
            return min(self.attempt_until_ns, self.decide_until_ns)
        return self.attempt_until_ns

    def stand_still(self, now_ns: int, duration_ns: int) -> None:
        """This process could not hear it for so long: its time-outs end later."""
        self.heard_ns = min(self.heard_ns + duration_ns, now_ns)
        least_ns = now_ns + _PATIENCE_NS  # for what has come and has not been read
        self.attempt_until_ns = max(self.attempt_until_ns + duration_ns, least_ns)
        self.decide_until_ns = max(self.decide_until_ns + duration_ns, least_ns)

    # --- coming up ----------------------------------------------------------------------------

    def start_tls(self, context: ssl.SSLContext) -> None:
        """The TCP connection is there: put TLS on it."""
        assert self.socket is not None
        self.socket = context.wrap_socket(
            self.socket, server_hostname=self.name, do_handshake_on_connect=False
        )
        self.tls_pending = self.has_tls = True

    def shake_tls(self) -> bool:
        """Go on with the TLS handshake; whether it is over. Raises: OSError."""
        connection: Any = self.socket  # an ssl.SSLSocket
        try:
            connection.do_handshake()
        except would_block():
            return False
        self.tls_pending = False
        return True

    def open_relay(self, terms: RelayTerms) -> None:
        """Say what this end speaks. Raises: OSError."""
        self.handshake = ClientHandshake(terms, os.urandom(native.NONCE_BYTES))
        self.tunnel = terms.tunnel
        self.out = bytearray(self.handshake.opening())
        self.write()

    def read_handshake(self) -> None:
        """Take what came in the relay handshake, and answer. Raises: OSError."""
        assert self.socket is not None and self.handshake is not None
        try:
            data = self.socket.recv(4096)
        except would_block():
            return
        if not data:
            raise ConnectionAbortedError("closed by it")
        self.out += self.handshake.feed(data)
        self.write()

    def come_up(self, handler: PacketHandler, layout: Layout, now_ns: int) -> int:
        """The handshake is over: read on what it found. Returns the answers that came with it."""
        handshake = self.handshake
        assert handshake is not None
        self.handshake = None
        self.kind = handshake.kind
        self.up = True
        self.since_ns = self.heard_ns = self.said_ns = now_ns
        self.problem = ""
        self.told_dropped = self.told_lost = 0
        self.packets = PacketQueue() if self.tunnel else None
        self.granted = native.WINDOW_BYTES
        if self.kind == Kind.NATIVE:
            self.decoder = NativeDecoder(handler, kinds=handshake.kinds)
        else:
            self.decoder = RecordDecoder(handler, layout)
        handed = self.decoder.feed(handshake.rest, 0)
        self.take_credit()
        return handed

    def close(self) -> None:
        """Close the socket; what was queued is lost."""
        assert self.socket is not None
        self.socket.close()
        self.socket = None
        self.decoder = None
        self.handshake = None
        self.kind = Kind.UNDECIDED
        self.out = bytearray()
        self.packets = None
        self.queued_v4 = bytearray()
        self.queued_v6 = bytearray()
        self.tls_pending = False
        self.up = False
        self.waits_to_write = False

    # --- while it is up -----------------------------------------------------------------------

    def queue(self, kind: MessageType, session: tuple[bytes, int, bytes, int]) -> bool:
        """Queue a session to be added or removed; False: it cannot be said in what is spoken."""
        mapped, mapped_port, target, target_port = session
        if len(mapped) == 4:
            message = encode_message(kind, mapped, mapped_port, target, target_port)
            if self.kind == Kind.NATIVE:
                self.queued_v4 += message
            else:
                self.out += message
            return True
        if self.kind != Kind.NATIVE:
            return False
        self.queued_v6 += native.MESSAGE_V6.pack(target, mapped, target_port, mapped_port, kind)
        return True

    def write(self) -> bool:
        """Send what is queued, as far as it goes; whether some is left. Raises: OSError."""
        assert self.socket is not None
        if self.queued_v4:
            for piece in native.frames(FrameType.SESSIONS_V4, self.queued_v4, MESSAGE_BYTES):
                self.out += piece
            self.queued_v4 = bytearray()
        if self.queued_v6:
            messages = self.queued_v6
            for piece in native.frames(FrameType.SESSIONS_V6, messages, native.MESSAGE_V6_BYTES):
                self.out += piece
            self.queued_v6 = bytearray()
        self._add_packets()
        try:
            while self.out:
                count = self.socket.send(self.out)
                del self.out[:count]
                if self.packets is not None and len(self.out) < _AHEAD_BYTES:
                    self._add_packets()
        except would_block():
            pass
        return bool(self.out)

    def _add_packets(self) -> None:
        """Move frames of packets to what is sent next, as far as credit goes."""
        queue = self.packets
        while queue is not None and len(self.out) < _AHEAD_BYTES:
            data = queue.take()
            if not data:
                break
            self.out += data

    def read(self, timestamp_ns: int) -> int:
        """Take the answers that came; 0 at the end of the stream, else 1, or a negative errno.

        Raises: OSError (with TLS).
        """
        decoder = self.decoder
        assert decoder is not None and self.socket is not None
        if not self.has_tls:
            state: int = cython.cast(cython.int, decoder.read(self.socket.fileno(), timestamp_ns))
            return state
        for _ in range(_READS):
            with decoder.space() as free:
                try:
                    count = self.socket.recv_into(free)
                except would_block():
                    return 1
            if count == 0:
                return 0
            decoder.received(count, timestamp_ns)
            if decoder.fault:
                return 1
        return 1

    def take_losses(self) -> int:
        """Answers that intercept says it has lost since the last call."""
        if not isinstance(self.decoder, NativeDecoder):
            return 0
        decoder: NativeDecoder = self.decoder
        more = decoder.told_lost - self.told_lost
        self.told_lost = decoder.told_lost
        return max(more, 0)

    def take_credit(self) -> bool:
        """Take the credit that came for packets; whether some of them can go now."""
        decoder, queue = self.decoder, self.packets
        if queue is None or not isinstance(decoder, NativeDecoder):
            return False
        more = decoder.packet_credit > queue.allowed
        queue.grant(decoder.packet_credit)
        return more and queue.packets > 0

    def take_dropped(self) -> tuple[int, int]:
        """Packets that intercept says it has not injected since the last call, and a reason."""
        decoder = self.decoder
        if not isinstance(decoder, NativeDecoder):
            return 0, 0
        more = decoder.told_dropped - self.told_dropped
        self.told_dropped = decoder.told_dropped
        return max(more, 0), decoder.told_reason

    def grant(self) -> bool:
        """Give credit for what was taken; whether there is something to send."""
        if not isinstance(self.decoder, NativeDecoder):
            return False
        decoder: NativeDecoder = self.decoder
        wanted = decoder.consumed + _WINDOW_BYTES
        if wanted - self.granted < _GRANT_BYTES:
            return False
        self.granted = wanted
        self.out += native.credit(wanted)
        return True


class Server:
    """One intercept of `-s`."""

    __slots__ = (
        "connections",
        "counts",
        "family",
        "is_native",  # it has said so once: that is waited for
        "is_single",  # it hands answers to the connections in turn: nothing is announced
        "name",
        "refused",  # the last attempt ended in a handshake
        "renew_ns",  # when all connections are to be made anew; 0: never
        "resumed",  # live sessions still to announce again, or None
        "sockaddr",
        "turn",
    )

    def __init__(self, host: str, port: int, connections: int, name: str) -> None:
        self.connections = [Connection(name, FIRST_RETRY_NS) for _ in range(connections)]
        self.counts = RelayCounts()
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.is_native = False
        self.is_single = False
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.refused = False
        self.renew_ns = 0
        self.resumed: Iterator[LiveSession] | None = None
        self.sockaddr = (host, port)
        self.turn = 0

    def next_up(self) -> Connection | None:
        """The connection whose turn it is, of those that are up."""
        for _ in self.connections:
            connection = self.connections[self.turn]
            self.turn = (self.turn + 1) % len(self.connections)
            if connection.up:
                return connection
        return None

    def counted(self) -> RelayCounts:
        """Its counts, and how many of its connections are up."""
        counts = self.counts
        return RelayCounts(
            connected=sum(connection.up for connection in self.connections),
            records=counts.records,
            malformed=counts.malformed,
            lost=counts.lost,
            dropped=counts.dropped,
            native=counts.native,
            encrypted=counts.encrypted,
            connects=counts.connects,
            reconnects=counts.reconnects,
        )
