"""What a connection of the server model sends, and its timers.

Reading list: RFC 9293 3.8, RFC 6298 section 5, RFC 5961 section 7, RFC 7323 section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import Random
from typing import Protocol

from .clock import MILLISECOND, Clock, Timer
from .config import ServerConfig, near_wrap
from .receive import Receiver
from .send import Sender
from .wire import ACK, FIN, PSH, RST, SEQUENCE_MASK, SYN, Segment

KEEP_ALIVE_PROBES = 20  # so many that even heavy loss does not end a living connection


class State(Enum):
    """RFC 9293 3.3.2; LISTEN belongs to the server, not to a connection."""

    SYN_RECEIVED = "SYN_RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN_WAIT_1"
    FIN_WAIT_2 = "FIN_WAIT_2"
    CLOSE_WAIT = "CLOSE_WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST_ACK"
    TIME_WAIT = "TIME_WAIT"
    CLOSED = "CLOSED"


DATA_STATES = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)  # the peer may send


class Application(Protocol):
    """What a connection tells its application."""

    def readable(self) -> None:
        """Bytes or the peer's FIN have come in."""

    def ended(self, how: str) -> None:
        """The connection is over without a FIN in order: "reset" or "timeout"."""


class Transmitter:
    """The half of a connection that sends; `connection.Connection` adds the half that receives."""

    __slots__ = (
        "_ack_due_ns",
        "_ack_owed",
        "_challenged_ns",
        "_clock",
        "_config",
        "_fully_closed",
        "_idle_due_ns",
        "_keep_alives",
        "_last_ack_sent",
        "_peer_mss",
        "_peer_shift",
        "_retransmit_due_ns",
        "_sack",
        "_scaling",
        "_timer",
        "_timestamps",
        "_transmit",
        "_ts_first",
        "_ts_offset",
        "_ts_recent",
        "application",
        "opening",
        "receiver",
        "sender",
        "state",
        "strict",
        "violations",
    )

    def __init__(
        self,
        clock: Clock,
        random: Random,
        config: ServerConfig,
        syn: Segment,
        transmit: Callable[[Segment], None],
        initial: int | None,
    ) -> None:
        self._clock = clock
        self._config = config
        self._transmit = transmit
        self.opening = syn  # the SYN; its source is the peer
        self.state = State.SYN_RECEIVED
        self.application: Application | None = None
        self.violations: list[str] = []
        self.strict = True  # False where old duplicates of the same four-tuple are about
        self._timestamps = config.timestamps and syn.timestamp is not None
        self._sack = config.sack and syn.sack_permitted
        self._scaling = config.window_scale is not None and syn.window_scale is not None
        self._peer_shift = min(syn.window_scale or 0, 14) if self._scaling else 0
        headers = 40 if len(syn.source) == 4 else 60
        self._peer_mss = min(syn.mss or self.default_mss, config.path_mtu - headers)
        if config.large_segments is not None:
            self._peer_mss = config.large_segments
        shift = (config.window_scale or 0) if self._scaling else 0
        self.receiver = Receiver(syn.seq, config, self.own_mss, shift, self.complain)
        if initial is None:
            initial = config.initial_sequence
        self.sender = Sender(
            near_wrap(random) if initial is None else initial,
            max(self._peer_mss - (12 if self._timestamps else 0), 1),
            config.congestion_window,
            self.complain,
        )
        self._ts_recent = syn.timestamp[0] if syn.timestamp is not None else 0  # TS.Recent
        self._ts_offset = near_wrap(random)
        self._ts_first: int | None = None  # the first TSval sent
        self._last_ack_sent = 0  # as a position of the peer
        self._fully_closed = False  # the application reads no more
        self._ack_owed = 0  # segments taken in since the last ACK went out
        self._ack_due_ns: int | None = None
        self._retransmit_due_ns: int | None = None  # also the persist timer
        self._idle_due_ns: int | None = None  # TIME-WAIT, FIN-WAIT-2 or keep-alive
        self._keep_alives = 0  # probes without an answer
        self._challenged_ns: int | None = None  # when the last challenge ACK went out
        self._timer: Timer | None = None

    @property
    def default_mss(self) -> int:
        """RFC 9293 3.7.1: what holds without an MSS option."""
        return 536 if len(self.opening.source) == 4 else 1220

    @property
    def own_mss(self) -> int:
        """What the peer may send: segment and options together."""
        return self.default_mss if self._config.mss is None else self._config.mss

    def complain(self, problem: str) -> None:
        """Note what a correct client would not have sent."""
        if self.strict:
            self.violations.append(f"{self._clock.now_ns / 1e6:.3f} ms: {problem}")

    # What is sent.

    def _timestamp(self) -> int:
        return (self._clock.now_ns // MILLISECOND + self._ts_offset) & SEQUENCE_MASK

    def _bare(self, flags: int, seq: int) -> Segment:
        peer = self.opening
        return Segment(
            peer.destination,
            peer.destination_port,
            peer.source,
            peer.source_port,
            seq,
            flags=flags,
        )

    def _send(self, flags: int, position: int, payload: bytes = b"") -> None:
        """Send one segment with acknowledgement, window and the options agreed."""
        segment = self._bare(flags, self.sender.wire(position))
        segment.payload = payload
        segment.window = self.receiver.announce(scaled=not flags & SYN)
        segment.ack = self.receiver.wire(self.receiver.next)
        self._last_ack_sent = self.receiver.next
        self._ack_owed = 0
        self._ack_due_ns = None
        if self._timestamps:
            segment.timestamp = (self._timestamp(), self._ts_recent)
            if self._ts_first is None:
                self._ts_first = segment.timestamp[0]
        if self._sack and not flags & (SYN | RST):
            options = 12 if self._timestamps else 0
            room = min(40, self._peer_mss - len(payload)) - options
            segment.sack_blocks = self.receiver.sack_blocks(
                max((room - 4) // 8, 0), with_duplicate=self._config.duplicate_sack
            )
        if flags & SYN:
            segment.mss = self._config.mss
            segment.sack_permitted = self._sack
            if self._scaling:
                segment.window_scale = self._config.window_scale
        self._transmit(segment)

    def _send_syn_ack(self) -> None:
        self._send(SYN | ACK, 0)

    def _acknowledge(self) -> None:
        self._send(ACK, self.sender.nxt)

    def _challenge(self, segment: Segment | None) -> None:
        """Reply with an ACK, at most one per interval to what carries no data (as Linux)."""
        now_ns = self._clock.now_ns
        if segment is None or not segment.payload:
            last_ns = self._challenged_ns
            if last_ns is not None and now_ns - last_ns < self._config.challenge_interval_ns:
                return
            self._challenged_ns = now_ns
        self._acknowledge()

    def _send_chunk(self, position: int, data: bytes, fin: bool) -> None:
        flags = ACK | (FIN if fin else 0)
        if data and self._config.push and position + len(data) == self.sender.end:
            flags |= PSH
        self._send(flags, position, data)
        if fin and self.state is State.ESTABLISHED:
            self.state = State.FIN_WAIT_1
        elif fin and self.state is State.CLOSE_WAIT:
            self.state = State.LAST_ACK

    def _output(self) -> None:
        """Send all that windows allow; keep the retransmission or persist timer running."""
        if self.state in (State.SYN_RECEIVED, State.FIN_WAIT_2, State.TIME_WAIT, State.CLOSED):
            return
        now_ns = self._clock.now_ns
        while (chunk := self.sender.take(now_ns)) is not None:
            self._send_chunk(*chunk)
        unacknowledged = self.sender.in_flight or self.sender.pending
        if unacknowledged and self._retransmit_due_ns is None:
            self._retransmit_due_ns = now_ns + self.sender.rto_ns
        self._arm()

    # Timers.

    def _restart_retransmission(self) -> None:
        """RFC 6298 (5.2) and (5.3)."""
        if self.sender.una < self.sender.snd_max:
            self._retransmit_due_ns = self._clock.now_ns + self.sender.rto_ns
        else:
            self._retransmit_due_ns = None

    def _keep_alive_again(self) -> None:
        self._keep_alives = 0
        if self._fully_closed or self.state not in DATA_STATES:
            return
        if self._config.keep_alive_ns is not None:
            self._idle_due_ns = self._clock.now_ns + self._config.keep_alive_ns

    def _arm(self) -> None:
        """Have one timer set, for what is due first."""
        due_ns = min(
            (
                due
                for due in (self._ack_due_ns, self._retransmit_due_ns, self._idle_due_ns)
                if due is not None
            ),
            default=None,
        )
        timer = self._timer
        if timer is not None and timer.call is not None:
            if due_ns is not None and timer.due_ns <= due_ns:
                return  # fires early and sets itself again
            timer.cancel()
        self._timer = None if due_ns is None else self._clock.at(due_ns, self._run_timers)

    def _run_timers(self) -> None:
        now_ns = self._clock.now_ns
        if self._ack_due_ns is not None and self._ack_due_ns <= now_ns:
            self._acknowledge()
        if self._retransmit_due_ns is not None and self._retransmit_due_ns <= now_ns:
            self._retransmit_due_ns = None
            self._retransmission_timeout()
        if self._idle_due_ns is not None and self._idle_due_ns <= now_ns:
            self._idle_due_ns = None
            self._idle_timeout()
        self._arm()

    def _retransmission_timeout(self) -> None:
        sender = self.sender
        limit = self._config.data_retries
        if self.state is State.SYN_RECEIVED:
            limit = self._config.syn_ack_retries
        persist = self.state is not State.SYN_RECEIVED and not sender.window
        sender.timed_out()
        if sender.retries > limit:
            self._finish("timeout")
            return
        if self.state is State.SYN_RECEIVED:
            sender.nxt = 1
            self._send_syn_ack()
        elif persist and sender.pending:
            self._send_chunk(*sender.probe(self._clock.now_ns))
        elif sender.una < sender.snd_max:
            self._send_chunk(*sender.again(self._clock.now_ns))
        if self.state is not State.CLOSED:
            self._retransmit_due_ns = self._clock.now_ns + sender.rto_ns
            self._output()

    def _idle_timeout(self) -> None:
        if self.state is State.TIME_WAIT or (self.state is State.FIN_WAIT_2 and self._fully_closed):
            self._finish(None)
        elif self.state in DATA_STATES and self._config.keep_alive_ns is not None:
            self._idle_due_ns = self._clock.now_ns + self._config.keep_alive_ns
            if self.sender.una < self.sender.snd_max or self.sender.pending:
                return  # no probes beside retransmissions, as Linux
            self._keep_alives += 1
            if self._keep_alives > KEEP_ALIVE_PROBES:
                self._send(RST | ACK, self.sender.nxt)
                self._finish("timeout")
                return
            self._send(ACK, self.sender.nxt - 1)  # RFC 9293 3.8.4

    def _fin_wait_2(self) -> None:
        """Only a full close is waited on for a bounded time, as Linux does."""
        self.state = State.FIN_WAIT_2
        if self._fully_closed:
            self._idle_due_ns = self._clock.now_ns + self._config.fin_wait_ns

    def _time_wait(self) -> None:
        self.state = State.TIME_WAIT
        self._retransmit_due_ns = None
        self._idle_due_ns = self._clock.now_ns + self._config.time_wait_ns
        self._arm()

    def _finish(self, how: str | None) -> None:
        """Go to CLOSED; `how` is what the application learns, None when it knows."""
        self.state = State.CLOSED
        self._ack_due_ns = self._retransmit_due_ns = self._idle_due_ns = None
        self._arm()
        if how is not None and self.application is not None:
            self.application.ended(how)
