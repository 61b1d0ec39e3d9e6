"""The ordinary handshake with a target, from this host's own address: all that socket mode does.

It is never completed, so that no application hears of it: the SYN goes out by a raw socket, and
this host's kernel resets what it knows nothing of. Without the right to use raw sockets it is an
ordinary connection, which the target's application sees being opened and closed.
"""

from __future__ import annotations

import errno
import random
import select
import socket
import time
from typing import Final

from tcpcopy.capture.filters import compile_filter
from tcpcopy.capture.tap import Tap
from tcpcopy.doctor.observed import Answer, Attempt, ProbeFacts
from tcpcopy.doctor.packets import (
    OwnAttempt,
    connect_in_full,
    is_neighbour,
    own_address,
    send_whole,
)
from tcpcopy.packet.brief import ECHO, RESET, SYN_ACK, UNREACHABLE, Brief, echo_request, read_brief
from tcpcopy.packet.flags import RST
from tcpcopy.relay.desk import flow_expression, text_of
from tcpcopy.relay.probing import Flow

_MS: Final = 1_000_000
_PIECE_MS: Final = 20
_REFUSED: Final = (errno.ECONNREFUSED, errno.ECONNRESET)


class OwnProbe:
    """One ordinary handshake. `flow.mapped` is the address to send from; b"": as routed."""

    def __init__(self, flow: Flow, limit_ns: int, *, may_connect: bool = True) -> None:
        """Nothing is opened yet. `may_connect`: in full, where raw sockets are not allowed."""
        self.flow = flow
        self.may_connect = may_connect
        self.limit_ns = limit_ns
        self.error = 0
        self.flags = 0  # of the answer that came through
        self.reached_device = False
        self.rejected: Brief | None = None
        self.is_alive = False
        self.half: OwnAttempt | None = None
        self.full: socket.socket | None = None
        self.is_connected = False
        self._port = 0
        self._source = flow.mapped
        self._seq = random.getrandbits(32)

    # --- one by one: for a probe that does more --------------------------------------------------

    def begin(self) -> None:
        """Open what it takes; what fails is a fact, too. Raises: PermissionError."""
        flow = self.flow
        try:
            self._source = self._source or own_address(flow.target)
            try:
                self.half = OwnAttempt(self._source, flow.target, flow.target_port)
                self._port = self.half.port
            except PermissionError:
                if not self.may_connect:
                    raise
                self.full = connect_in_full(flow.mapped, flow.target, flow.target_port)
        except OSError as error:
            if isinstance(error, PermissionError) and not self.may_connect:
                raise
            self._fail(error)

    def send(self) -> None:
        """Send the SYN, again if need be."""
        if self.half is not None and not self.error and not self.flags:
            self.error = self.half.send(self._seq)

    def collect(self) -> None:
        """Take what came back."""
        if self.half is not None:
            self.flags = self.flags or self.half.take()
        if self.full is not None and not self.is_connected and not self.error:
            poll = select.poll()
            poll.register(self.full.fileno(), select.POLLOUT)
            if poll.poll(0):
                self.error = self.full.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self.is_connected = not self.error

    def note(self, brief: Brief, leaves: bool) -> None:
        """A packet that was seen on a device of this host."""
        flow = self.flow
        if brief.kind == ECHO:
            self.is_alive = self.is_alive or brief.source == flow.target
        elif brief.kind == UNREACHABLE:
            if (brief.source, brief.source_port) == (self._source, self._port):
                self.rejected = self.rejected or brief
        elif brief.kind in (SYN_ACK, RESET) and not leaves:
            came = (brief.source, brief.source_port, brief.destination_port)
            if came == (flow.target, flow.target_port, self._port):
                self.reached_device = True

    def is_over(self) -> bool:
        """Whether nothing more is to be waited for."""
        return bool(self.flags or self.error or self.is_connected or self.rejected)

    def attempt(self) -> Attempt:
        """What came of it."""
        if self.flags or self.is_connected:
            return Attempt(Answer.RESET if self.flags & RST else Answer.SYN_ACK)
        if self.error in _REFUSED and self.half is None:
            return Attempt(Answer.RESET)
        if self.error:
            return Attempt(Answer.FAILED, errno=self.error)
        if self.rejected is not None:
            said_by = text_of(self.rejected.reporter)
            return Attempt(Answer.UNREACHABLE, said_by=said_by, code=self.rejected.code)
        return Attempt(Answer.NOTHING, reached_device=self.reached_device)

    def close(self) -> None:
        """Close what was opened; may be called twice."""
        if self.half is not None:
            self.half.close()
        if self.full is not None:
            self.full.close()

    # --- by itself: in socket mode ---------------------------------------------------------------

    def run(self) -> ProbeFacts:
        """All of it; what was observed."""
        self.begin()
        started_ns = time.monotonic_ns()
        tap = self._open_tap()
        try:
            for _ in range(3):
                self.send()
                sent_ns = time.monotonic_ns()
                self._wait(tap, sent_ns + self.limit_ns // 4)
                if self.is_over():
                    break
                if self._source:
                    ping = echo_request(self._source, self.flow.target, self._port)
                    send_whole(ping, self.flow.target)
            took_ms = (time.monotonic_ns() - started_ns) / _MS
        finally:
            self.close()
            if tap is not None:
                tap.close()
        own = self.attempt()
        return ProbeFacts(
            self.flow,
            own=own,
            target_is_alive=self.is_alive or own.answer in (Answer.SYN_ACK, Answer.RESET),
            is_neighbour=is_neighbour(self.flow.target),
            milliseconds=took_ms,
        )

    def _open_tap(self) -> Tap | None:
        flow = self.flow
        if self.half is None:
            return None
        try:
            wanted = Flow(flow.target, flow.target_port, self._source, self._port)
            return Tap(compile_filter(flow_expression(wanted)))
        except OSError:
            return None

    def _wait(self, tap: Tap | None, until_ns: int) -> None:
        while True:
            self.collect()
            for sighting in tap.take() if tap is not None else ():
                brief = read_brief(sighting.data)
                if brief is not None:
                    self.note(brief, sighting.leaves)
            now_ns = time.monotonic_ns()
            if self.is_over() or now_ns >= until_ns:
                return
            poll = select.poll()
            if self.half is not None:
                poll.register(self.half.fileno(), select.POLLIN)
            elif self.full is not None:
                poll.register(self.full.fileno(), select.POLLOUT)
            poll.poll(max(1, min(_PIECE_MS, (until_ns - now_ns) // _MS)))

    def _fail(self, error: OSError) -> None:
        self.error = error.errno or errno.EIO
