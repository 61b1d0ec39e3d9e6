"""The replayed half of socket mode: an ordinary kernel TCP connection.

The engine owns no socket: a `Transport` (deliver/sockets.py, or a simulated one) opens, sends,
counts what came and closes; this class decides when. What this host lacks for a connect (a local
port, an open file, a route) the transport waits for by itself: only what is final is told here.
"""

from __future__ import annotations

import errno

import cython

from tcpcopy.engine import replayed
from tcpcopy.engine.chunk import Chunk, ChunkQueue
from tcpcopy.engine.context import Context
from tcpcopy.engine.replayed import Replayed
from tcpcopy.said.answer import kind_of

POLL_NS = 1_000_000
POLL_MAX_NS = 100_000_000
WOULD_BLOCK = -errno.EAGAIN
# What the kernel ends an established connection with when nothing came back for -t: its time-out,
# or the last thing that the network had said of it by then.
SILENT_ERRORS = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)

_POLL = POLL_NS
_POLL_MAX = POLL_MAX_NS
_WOULD_BLOCK = WOULD_BLOCK
_RUNNING = replayed.RUNNING
_CLOSED = replayed.CLOSED
_REFUSED = replayed.REFUSED
_RESET = replayed.RESET_BY_TARGET
_RESET_AT_END = replayed.RESET_AT_END
_RESET_SENT = replayed.RESET_SENT
_CONNECT_TIMEOUT = replayed.CONNECT_TIMEOUT
_ANSWER_TIMEOUT = replayed.ANSWER_TIMEOUT
_SEND_FAILED = replayed.SEND_FAILED


class Transport:
    """Kernel sockets, as far as a `KernelClient` needs them. Errors are negative errno values."""

    __slots__ = ()

    def connect(self, client: KernelClient) -> int:
        """Begin to connect, which sets `client.handle`, or wait for what this host lacks for it.

        0, or the negative errno of what no waiting mends. After a wait `on_connecting` is called.
        """
        raise NotImplementedError

    def waits_until_ns(self, client: KernelClient) -> int:
        """Until when a connect waits for what this host lacks; 0: it does not."""
        return 0

    def leave(self, client: KernelClient) -> int:
        """The client has ended without a handle: it waits no more."""
        return 0

    def send(self, client: KernelClient, data: bytes, at: int) -> int:
        """Send `data[at:]`; the bytes taken, WOULD_BLOCK (then `on_writable` follows) or error."""
        raise NotImplementedError

    def shutdown(self, client: KernelClient) -> int:
        """Half-close: the target's application sees the end of the stream."""
        raise NotImplementedError

    def unacknowledged(self, client: KernelClient) -> int:
        """Bytes (the FIN counts one) that the target has not acknowledged."""
        raise NotImplementedError

    def close(self, client: KernelClient, reset: bool) -> int:
        """Close; with `reset` the target sees a RST. The handle is free afterwards."""
        raise NotImplementedError


class KernelClient(Replayed):
    """One kernel connection towards the target."""

    __slots__ = (
        "address",  # local address to connect from, b"" for the kernel's choice
        "closed_first",  # the FIN was sent before the target's was seen
        "close_deadline_ns",  # when a half-closed connection stops waiting for the target's FIN
        "connect_deadline_ns",
        "context",
        "cursor",  # chunk that holds byte `sent`
        "fin_sent",
        "handle",  # the transport's number for it, -1: none
        "owner",  # the session, for the one who hears of events
        "poll_deadline_ns",  # when to look again whether all was acknowledged, 0: not
        "poll_ns",  # interval of that
        "queue",
        "sent",  # stream offset handed to the kernel
        "target_address",
        "target_port",
        "transport",
        "writable",  # 0 while the kernel's buffer is full
    )

    def __init__(
        self,
        context: Context,
        queue: ChunkQueue,
        transport: Transport,
        address: bytes,
        target_address: bytes,
        target_port: int,
    ) -> None:
        self.set_up_replayed()
        self.context = context
        self.queue = queue
        self.transport = transport
        self.address = address
        self.target_address = target_address
        self.target_port = target_port
        self.owner: object = None
        self.coarse = 1
        self.closed_first = 0
        self.close_deadline_ns = 0
        self.connect_deadline_ns = 0
        self.cursor: Chunk | None = None
        self.fin_sent = 0
        self.handle = -1
        self.poll_deadline_ns = 0
        self.poll_ns = _POLL
        self.sent = 0
        self.writable = 1

    def open(self, now_ns: int) -> int:
        """Begin to connect."""
        self.connect_deadline_ns = now_ns + self.context.connect_timeout_ns
        result = self.transport.connect(self)
        if result < 0:
            self._connect_failed(-result)
        return 0

    def begin_at(self, offset: int) -> int:
        """See `Replayed`."""
        self.sent = self.acknowledged = offset
        return 0

    def connect_by(self, deadline_ns: int) -> int:
        """See `Replayed`."""
        if self.connect_deadline_ns > deadline_ns:
            self.connect_deadline_ns = deadline_ns
        return 0

    def _connect_failed(self, error: int) -> None:
        if error == errno.ECONNREFUSED or error == errno.ECONNRESET:
            self._end(_REFUSED)
        elif error == errno.ETIMEDOUT:
            self._end(_CONNECT_TIMEOUT)
        else:
            self._end(_SEND_FAILED)

    # --- events ----------------------------------------------------------------------------

    def on_connecting(self, now_ns: int) -> int:
        """What was waited for is there, the connect has begun: now the target has its time."""
        self.connect_deadline_ns = now_ns + self.context.connect_timeout_ns
        return 0

    def on_connected(self, error: int, now_ns: int) -> int:
        """The connect has ended, `error` is its errno or 0."""
        if error:
            self._connect_failed(error)
            return 0
        self.established = 1
        self.context.counts.count_established()
        self.connect_deadline_ns = 0
        self.last_receive_ns = now_ns
        self.pushed = 1
        return 0

    def on_received(self, count: int, now_ns: int) -> int:
        """The target sent `count` bytes, and the socket is drained."""
        self.received += count
        self.context.counts.answer_bytes += count
        self.last_receive_ns = now_ns
        self.pushed = 1
        if self.close_deadline_ns:
            self.close_deadline_ns = now_ns + self.context.close_timeout_ns
        return 0

    def on_answer(self, data: bytes) -> int:
        """The first bytes that came since `looks` was set; `on_received` follows."""
        self.said = cython.cast(cython.uchar, kind_of(data))
        return 0

    def on_end(self, now_ns: int) -> int:
        """The target has closed its side."""
        if self.target_closed:
            return 0
        self.target_closed = 1
        self.received += 1
        self.last_receive_ns = now_ns
        self.pushed = 1
        if self.fin_sent:
            self._close_when_acknowledged(now_ns)
        return 0

    def on_error(self, error: int, now_ns: int) -> int:
        """The connection has failed."""
        if not self.established:
            self._connect_failed(error)
        elif error in SILENT_ERRORS:
            done = self.fin_sent and self.transport.unacknowledged(self) == 0
            self._end(_CLOSED if done else _ANSWER_TIMEOUT)
        elif self.fin_sent and self.transport.unacknowledged(self) <= 1:
            # Only the FIN is open: its acknowledgement may have come with the RST.
            self._end(_RESET_AT_END)
        else:
            self._end(_RESET)
        return 0

    def on_writable(self, now_ns: int) -> int:
        """The kernel takes bytes again."""
        self.writable = 1
        return self.transmit(now_ns)

    # --- sending ---------------------------------------------------------------------------

    def transmit(self, now_ns: int) -> int:
        """Hand over what has been released."""
        if not self.established or self.ended != _RUNNING:
            return 0
        queue = self.queue
        while self.writable and self.sent < queue.released_end:
            chunk = self.cursor = queue.at_or_after(self.cursor, self.sent)
            if chunk is None:
                break
            taken = self.transport.send(self, chunk.data, self.sent - chunk.offset)
            if taken == _WOULD_BLOCK:
                self.writable = 0
                return 0
            if taken < 0:
                self.on_error(cython.cast(cython.int, -taken), now_ns)
                return 0
            self.sent += taken
            self.acknowledged = self.sent
            self.context.counts.segments_sent += 1
            self.context.counts.bytes_delivered += taken
            self.context.counts.queued_bytes -= queue.acknowledge(self.sent)
        if self.sent < queue.released_end:
            return 0
        self.cursor = None  # an idle connection holds no data
        if queue.fin_released and not self.fin_sent:
            error = -self.transport.shutdown(self)
            if error:
                self.on_error(error, now_ns)
                return 0
            self.fin_sent = 1
            self.closed_first = not self.target_closed
            self.close_deadline_ns = now_ns + self.context.close_timeout_ns
            if self.target_closed:
                self._close_when_acknowledged(now_ns)
            else:
                self._poll_soon(now_ns)
        elif queue.rst_released and self.poll_deadline_ns == 0:
            self._poll(now_ns)
        return 0

    def _close_when_acknowledged(self, now_ns: int) -> None:
        """Both sides have closed; a target that has not read everything may still reset."""
        if self.transport.unacknowledged(self) == 0:
            self._end(_CLOSED)
        elif self.poll_deadline_ns == 0:
            self._poll_soon(now_ns)

    def _poll_soon(self, now_ns: int) -> None:
        self.poll_ns = _POLL
        self.poll_deadline_ns = now_ns + self.poll_ns

    def _poll(self, now_ns: int) -> None:
        """Has the target acknowledged everything, the FIN included?"""
        self.poll_deadline_ns = 0
        if self.transport.unacknowledged(self) > 0:
            self.poll_ns = min(2 * self.poll_ns, _POLL_MAX)
            self.poll_deadline_ns = now_ns + self.poll_ns
            return
        if self.fin_sent:
            self.fin_acknowledged = 1
            if self.target_closed:
                self._end(_CLOSED)
                return
        if self.queue.rst_released:
            self._drop_handle(True)
            self._end(_RESET_SENT)

    def abort(self, now_ns: int) -> int:
        """Give up; the target sees a RST."""
        if self.ended == _RUNNING:
            self._settle_delivered()
            self._drop_handle(True)
            self._end(_RESET_SENT)
        return 0

    def _end(self, how: int) -> None:
        self.ended = cython.cast(cython.uchar, how)
        if how in (_CLOSED, _RESET_AT_END):
            self.fin_acknowledged = 1
        else:
            self._settle_delivered()
        self._drop_handle(False)
        self.close_deadline_ns = 0
        self.poll_deadline_ns = 0

    def _settle_delivered(self) -> None:
        """What the target never acknowledged was not delivered."""
        if self.handle >= 0 and self.established:
            missing = self.transport.unacknowledged(self)
            if missing > 0 and self.fin_sent:
                missing -= 1  # the FIN is last
            missing = min(missing, self.sent)
            if missing > 0:
                self.acknowledged = self.sent - missing
                self.context.counts.bytes_delivered -= missing

    def undelivered(self) -> int:
        """Bytes (the FIN counts one) in the kernel's buffer or under way."""
        if self.handle < 0 or not self.established:
            return 0
        return self.transport.unacknowledged(self)

    def _drop_handle(self, reset: bool) -> None:
        if self.handle >= 0:
            self.transport.close(self, reset)
            self.handle = -1
        elif self.connect_deadline_ns:
            self.transport.leave(self)
        self.connect_deadline_ns = 0

    def linger(self, now_ns: int) -> int:
        """Nothing is needed of a closed socket."""
        self.cursor = None
        self.queue = None  # type: ignore[assignment]  # ends the cycle with the session
        self.owner = None
        return 1

    # --- time ------------------------------------------------------------------------------

    def deadline_ns(self) -> int:
        """The earliest of the timers that run, 0 when none does."""
        earliest = self.connect_deadline_ns
        if self.close_deadline_ns and (earliest == 0 or self.close_deadline_ns < earliest):
            earliest = self.close_deadline_ns
        if self.poll_deadline_ns and (earliest == 0 or self.poll_deadline_ns < earliest):
            earliest = self.poll_deadline_ns
        return earliest

    def run_timers(self, now_ns: int) -> int:
        """Do what is due."""
        if self.ended != _RUNNING:
            return 0
        if self.connect_deadline_ns and self.connect_deadline_ns <= now_ns:
            self.connect_deadline_ns = self.context.connect_ends_ns(self.connect_deadline_ns)
        if self.connect_deadline_ns and self.connect_deadline_ns <= now_ns:
            until_ns = self.transport.waits_until_ns(self)
            if until_ns > now_ns:
                self.connect_deadline_ns = until_ns
            else:
                self._end(_CONNECT_TIMEOUT if until_ns == 0 else _SEND_FAILED)
            return 0
        if self.close_deadline_ns and self.close_deadline_ns <= now_ns:
            if self.transport.unacknowledged(self) == 0:
                self._end(_CLOSED)
                return 0
            # The target does not read; the kernel's own time-out ends that.
            self.close_deadline_ns = now_ns + self.context.close_timeout_ns
        if self.poll_deadline_ns and self.poll_deadline_ns <= now_ns:
            self._poll(now_ns)
        return 0
