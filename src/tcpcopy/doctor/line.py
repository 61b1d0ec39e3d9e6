"""A relay connection of the probe's own: made, asked, and closed again, apart from the replay's."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from typing import Any, Final

from tcpcopy.packet.brief import Brief, read_brief
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay import native
from tcpcopy.relay.classic import Layout, MessageType, RelayFault
from tcpcopy.relay.connection import Connection
from tcpcopy.relay.handshake import Kind
from tcpcopy.relay.native import FrameType, PacketDrop, RelayTerms
from tcpcopy.relay.native_records import NativeDecoder
from tcpcopy.relay.probing import Flow, Report, encode_probe, read_report
from tcpcopy.relay.sockets import problem_of, watch_peer
from tcpcopy.report.context import endpoint

_MS: Final = 1_000_000
_CLASSIC_NS: Final = 300 * _MS  # an intercept that says nothing so long is a classic one
_NATIVE_NS: Final = 3_000 * _MS
_MOST_ANSWERS: Final = 64


class _Catcher(PacketHandler):
    """Keeps the few answers that come, in brief."""

    def __init__(self) -> None:
        self.answers: list[Brief] = []

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        brief = read_brief(bytes(data[start:end]))
        if brief is not None and len(self.answers) < _MOST_ANSWERS:
            self.answers.append(brief)
        return 0


class RelayLine:
    """One connection to one intercept. Not thread-safe, never blocking."""

    def __init__(self, host: str, port: int, terms: RelayTerms, name: str = "") -> None:
        """Nothing is opened yet; `host` is an address, `name` what a certificate calls it."""
        self.host = host
        self.name = endpoint(host, port)
        self.problem = ""
        self.fault = RelayFault.NONE
        self.was_reached = False  # the TCP connection was made
        self.takes_probes = False
        self.reports: list[Report] = []
        self._catcher = _Catcher()
        self._connection = Connection(name or host, 0)
        self._port = port
        self._terms = terms
        self._dropped = ""
        self._over = False

    @property
    def is_up(self) -> bool:
        """Whether it can be used."""
        return self._connection.up

    @property
    def is_native(self) -> bool:
        """Whether it speaks the native relay."""
        return self._connection.kind == Kind.NATIVE

    @property
    def is_decided(self) -> bool:
        """Whether it is up, or will not be."""
        return self._over or self._connection.up

    @property
    def answers(self) -> list[Brief]:
        """What it brought back."""
        return self._catcher.answers

    def wants(self) -> tuple[int, int]:
        """Descriptor and events to poll for; -1: none."""
        connection = self._connection
        if connection.socket is None:
            return -1, 0
        waits = not self.was_reached or bool(connection.out)
        return connection.socket.fileno(), select.POLLIN | (select.POLLOUT if waits else 0)

    # --- coming up ----------------------------------------------------------------------------

    def start(self, now_ns: int) -> None:
        """Begin to connect."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        attempt = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._connection.socket = attempt
        try:
            watch_peer(attempt, 2, 1, 5_000)
            with contextlib.suppress(BlockingIOError):
                attempt.connect((self.host, self._port))
        except OSError as error:
            self._fail(problem_of(error))

    def service(self, now_ns: int) -> None:
        """Go as far as is possible now; never raises for what the other end does."""
        if self._over:
            return
        try:
            if not self._connection.up:
                self._come_up(now_ns)
            if self._connection.up:
                self._take()
        except OSError as error:
            problem = problem_of(error)
            if self._connection.tls_pending:
                self.fault = RelayFault.TLS
                problem = f"TLS handshake: {problem}"
            self._fail(problem)

    def _come_up(self, now_ns: int) -> None:
        connection = self._connection
        assert connection.socket is not None
        if not self.was_reached:
            if not _is_writable(connection.socket):
                return
            code = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            self.was_reached = True
            if self._terms.tls is not None:
                connection.start_tls(self._terms.tls)
        if connection.tls_pending and not connection.shake_tls():
            return
        if connection.handshake is None:
            connection.open_relay(self._terms)
            wait_ns = _NATIVE_NS if self._terms.native_only else _CLASSIC_NS
            connection.decide_until_ns = now_ns + wait_ns
        else:
            connection.read_handshake()
        handshake = connection.handshake
        assert handshake is not None
        if not handshake.over and now_ns >= connection.decide_until_ns:
            handshake.silent()
        if handshake.fault:
            self.fault = handshake.fault
            self._fail(handshake.problem)
        elif handshake.kind:
            self.takes_probes = handshake.takes_probes
            connection.come_up(self._catcher, Layout.AUTO, now_ns)

    def give_up(self, problem: str) -> None:
        """It takes too long."""
        if not self.is_decided:
            self._fail(problem)

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self._over = True
        if self._connection.socket is not None:
            self._connection.close()

    def close(self) -> None:
        """Close it; may be called twice."""
        self._over = True
        if self._connection.socket is not None:
            self._connection.close()

    # --- while it is up -----------------------------------------------------------------------

    def announce(self, flow: Flow) -> None:
        """Let answers to this flow be sent here. Does nothing when it is not up."""
        session = (flow.mapped, flow.mapped_port, flow.target, flow.target_port)
        if self._connection.up:
            self._connection.queue(MessageType.ADD, session)
            self._write()

    def ask(self, flow: Flow, *, watch: bool) -> None:
        """Ask what it has seen of the flow; `watch`: and let it look on."""
        if self._connection.up and self.takes_probes:
            body = encode_probe(flow, watch=watch)
            self._connection.out += native.frame(FrameType.PROBE, body)
            self._write()

    def send_packet(self, packet: bytes) -> int:
        """Let a packet go through the tunnel that this is; 0 or the errno."""
        queue = self._connection.packets
        if queue is None:
            return errno.ENOTCONN
        if not queue.put(packet):
            return errno.ENOBUFS
        self._write()
        return 0

    def not_injected(self) -> str:
        """Why intercept did not inject what went through the tunnel; "": it did."""
        dropped, reason = self._connection.take_dropped()
        if dropped and reason in set(PacketDrop):
            self._dropped = PacketDrop(reason).description
        return self._dropped

    def _write(self) -> None:
        try:
            self._connection.write()
        except OSError as error:
            self._fail(problem_of(error))

    def _take(self) -> None:
        connection = self._connection
        decoder = connection.decoder
        assert decoder is not None
        state = connection.read(0)
        if isinstance(decoder, NativeDecoder) and decoder.reports:
            self.reports += [read_report(body) for body in decoder.take_reports()]
        if connection.take_credit() or connection.out:
            connection.write()
        if decoder.fault:
            self._fail(RelayFault(decoder.fault).description)
        elif state == 0:
            self._fail("closed by it")
        elif state < 0:
            self._fail(os.strerror(-state))


def _is_writable(attempt: socket.socket) -> bool:
    poll = select.poll()
    poll.register(attempt.fileno(), select.POLLOUT)
    return bool(poll.poll(0))
