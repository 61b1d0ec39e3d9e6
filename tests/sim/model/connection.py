"""One connection of the server model: the passive side's states, strict about its peer.

Whatever a correct client would not have sent is written to `violations`, which fails the test.

Reading list: RFC 9293 3.10.7, RFC 5961 sections 3 to 5, RFC 7323 sections 3 and 5, RFC 1122.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .clock import SECOND, Clock
from .config import ServerConfig
from .transmit import DATA_STATES, Application, State, Transmitter
from .wire import ACK, FIN, RST, SEQUENCE_MASK, SYN, Segment


def _later(left: int, right: int) -> bool:
    """Whether timestamp `left` is after `right` (RFC 7323 5.2)."""
    return 0 < (left - right) & SEQUENCE_MASK < 1 << 31


class Connection(Transmitter):
    """The server's end of one connection, from the SYN that made it."""

    __slots__ = ("_on_established", "_random")

    def __init__(
        self,
        clock: Clock,
        random: Random,
        config: ServerConfig,
        syn: Segment,
        transmit: Callable[[Segment], None],
        on_established: Callable[[Connection], Application],
        initial: int | None = None,
    ) -> None:
        """Answer `syn`; `initial` is the ISS where a TIME-WAIT is taken over."""
        super().__init__(clock, random, config, syn, transmit, initial)
        self._random = random
        self._on_established = on_established
        self._send_syn_ack()
        self._retransmit_due_ns = clock.now_ns + self.sender.rto_ns
        self._arm()

    # What the application calls.

    def read(self, limit: int = 1 << 30) -> bytes:
        """Return up to `limit` bytes in order; tells the peer when its window opened enough."""
        data = self.receiver.read(limit)
        if data and self.state in DATA_STATES and self.receiver.offer() > self.receiver.edge:
            self._acknowledge()
            self._arm()
        return data

    def write(self, data: bytes) -> None:
        """Send `data`; the send buffer has no limit."""
        if self.state in (State.ESTABLISHED, State.CLOSE_WAIT):
            self.sender.write(data)
            self._output()

    def shutdown(self) -> None:
        """Close the sending half: FIN behind what was written."""
        if self.state in (State.ESTABLISHED, State.CLOSE_WAIT) and not self.sender.closing:
            self.sender.closing = True
            self._output()

    def close(self) -> None:
        """Close both halves; unread or later data is answered by RST (RFC 1122 4.2.2.13)."""
        if self.receiver.unread:
            self.abort()
            return
        self._fully_closed = True
        if self.state is State.FIN_WAIT_2:
            self._fin_wait_2()
            self._arm()
        self.shutdown()

    def abort(self) -> None:
        """Send RST and forget the connection."""
        if self.state not in (State.CLOSED, State.TIME_WAIT):
            self._send(RST | ACK, self.sender.nxt)
        self._finish(None)

    def vanish(self) -> None:
        """Go to CLOSED without a word to anybody, as when the host loses power."""
        self._finish(None)

    # Segments that arrive.

    def receive(self, segment: Segment) -> None:
        """Take one segment of this connection (RFC 9293 3.10.7.4)."""
        if self.state is State.CLOSED:
            return
        receiver = self.receiver
        position = receiver.position(segment.seq)
        flags = segment.flags
        if flags & (SYN | RST) == SYN:
            self._receive_syn(segment)
            return
        self._check_options(segment)
        if self._timestamps and segment.timestamp is None and not flags & RST:
            return  # RFC 7323 3.2
        if self._outdated(segment):
            self._challenge(segment)
            return
        if flags & RST:
            self._receive_reset(position)
            return
        receiver.check(position, segment.payload, fin=bool(flags & FIN))
        if not receiver.acceptable(position, segment.length):
            self._unacceptable(segment, position)
            return
        if not flags & ACK:
            self.complain("neither ACK, SYN nor RST")
            return
        self._note_timestamp(segment, position)
        if self._receive_ack(segment, position):
            self._receive_text(segment, position)
        self._arm()

    def _receive_syn(self, segment: Segment) -> None:
        """RFC 5961 4.2: a challenge ACK, except that a lost SYN-ACK is sent again."""
        if segment.flags & ACK:
            self.complain("SYN-ACK from a client")
        if self.state is State.SYN_RECEIVED and segment.seq == self.opening.seq:
            self._send_syn_ack()
        else:
            self._challenge(segment)

    def _unacceptable(self, segment: Segment, position: int) -> None:
        """RFC 9293: an ACK in reply; valid ACKs still count against a window of zero."""
        if (
            position == self.receiver.next
            and segment.flags & ACK
            and not self._receive_ack(segment, position)
        ):
            return
        if position < self.receiver.next and segment.payload:
            self.receiver.duplicate = (position, position + len(segment.payload))
        self._challenge(segment)
        if segment.flags & FIN and self.state is State.TIME_WAIT:
            self._idle_due_ns = self._clock.now_ns + self._config.time_wait_ns
        self._arm()

    def _check_options(self, segment: Segment) -> None:
        """Complain about options that were not agreed, and about the MSS."""
        own_mss = self.own_mss
        if len(segment.payload) + segment.options_length > own_mss:
            self.complain(
                f"{len(segment.payload)} bytes and {segment.options_length} of options exceed "
                f"the MSS of {own_mss} (RFC 9293 3.7.1)"
            )
        if segment.sack_blocks and not self._sack:
            self.complain("SACK blocks that were not negotiated")
        if segment.timestamp is not None and not self._timestamps:
            self.complain("timestamps that were not negotiated")
        elif segment.timestamp is None and self._timestamps and not segment.flags & RST:
            self.complain("no timestamp although negotiated (RFC 7323 3.2)")
        elif segment.timestamp is not None and segment.flags & ACK and not segment.flags & RST:
            echo = segment.timestamp[1]
            if self._ts_first is None or (
                _later(self._ts_first, echo) or _later(echo, self._timestamp())
            ):
                self.complain(f"echoed timestamp {echo}, which was never sent")

    def _outdated(self, segment: Segment) -> bool:
        """PAWS, RFC 7323 5.3 R1."""
        return (
            self._timestamps
            and segment.timestamp is not None
            and not segment.flags & RST
            and _later(self._ts_recent, segment.timestamp[0])
        )

    def _note_timestamp(self, segment: Segment, position: int) -> None:
        """RFC 7323 4.3 (2)."""
        if self._timestamps and segment.timestamp is not None and position <= self._last_ack_sent:
            self._ts_recent = segment.timestamp[0]

    def _receive_reset(self, position: int) -> None:
        """RFC 5961 3.2: only the exact sequence number resets."""
        receiver = self.receiver
        if position == receiver.next:
            self._finish("reset")
        elif receiver.next < position < receiver.edge:
            self._challenge(None)

    def _receive_ack(self, segment: Segment, position: int) -> bool:
        """The fifth check; False when the segment is used up by it."""
        sender = self.sender
        ack = sender.position(segment.ack)
        opened = self.state is State.SYN_RECEIVED
        if opened:
            if not sender.una < ack <= sender.snd_max:
                self._transmit(self._bare(RST, segment.ack))
                return False
            self._establish(segment, position)
        if ack > sender.snd_max:
            self.complain(f"acknowledged {ack}, sent up to {sender.snd_max}")
            self._challenge(segment)
            return False
        if ack < sender.una - max(sender.max_window, 1):
            self._challenge(segment)  # RFC 5961 5.2
            return False
        sender.check_sack(segment.sack_blocks, ack)
        window = segment.window << self._peer_shift
        duplicate = (
            not opened
            and ack == sender.una
            and sender.in_flight > 0
            and not segment.length
            and window == sender.window
        )
        newer = sender.wl1 < position or (sender.wl1 == position and sender.wl2 <= ack)
        if ack > sender.una or (ack == sender.una and newer):  # the first as Linux
            if window and not sender.window:
                sender.nxt = max(sender.una, 1)  # a probe that was not taken goes again
                self._retransmit_due_ns = None
            sender.window, sender.wl1, sender.wl2 = window, position, ack
            sender.max_window = max(sender.max_window, window)
        if not sender.window:
            sender.retries = 0  # the peer lives, it only has no room
        again = False
        if ack > sender.una:
            again = sender.acknowledge(ack, self._clock.now_ns)
            self._restart_retransmission()
        elif duplicate:
            again = sender.duplicate_ack()
        if again and sender.una < sender.snd_max:
            self._send_chunk(*sender.again(self._clock.now_ns))
        self._own_fin_acknowledged()
        self._keep_alive_again()
        self._output()
        return True

    def _establish(self, segment: Segment, position: int) -> None:
        self.state = State.ESTABLISHED
        self._retransmit_due_ns = None
        self.sender.retries = 0
        self.sender.rto_ns = SECOND
        self.sender.wl1, self.sender.wl2 = position, self.sender.position(segment.ack)
        self.sender.window = self.sender.max_window = segment.window << self._peer_shift
        self.sender.acknowledge(1, self._clock.now_ns)
        self.application = self._on_established(self)

    def _own_fin_acknowledged(self) -> None:
        if not self.sender.fin_acknowledged:
            return
        if self.state is State.FIN_WAIT_1:
            self._fin_wait_2()
        elif self.state is State.CLOSING:
            self._time_wait()
        elif self.state is State.LAST_ACK:
            self._finish(None)

    def _receive_text(self, segment: Segment, position: int) -> None:
        """The seventh and eighth check: data and FIN."""
        if not segment.length:
            return
        if self.state not in DATA_STATES:
            if self.state is not State.CLOSED:
                self._acknowledge()
            return
        if segment.payload and self._fully_closed:
            self.abort()  # nobody reads it any more
            return
        receiver = self.receiver
        advanced = receiver.accept(position, segment.payload, fin=bool(segment.flags & FIN))
        early = receiver.out_of_order
        if early and self._config.renege and self._random.random() < self._config.renege:
            receiver.forget_early()
        if receiver.finished:
            self._receive_fin()
        self._ack_owed += 1
        full = len(segment.payload) >= self.own_mss or self._ack_owed > 1
        if advanced and self.application is not None:
            self.application.readable()
        if self.state is State.CLOSED or not self._ack_owed:
            return  # aborted, or what the application did carried the acknowledgement
        if early or not advanced or full or not self._config.delayed_ack_ns or receiver.finished:
            self._acknowledge()
        elif self._ack_due_ns is None:
            self._ack_due_ns = self._clock.now_ns + self._config.delayed_ack_ns

    def _receive_fin(self) -> None:
        if self.state is State.ESTABLISHED:
            self.state = State.CLOSE_WAIT
        elif self.state is State.FIN_WAIT_1:
            self.state = State.CLOSING
        elif self.state is State.FIN_WAIT_2:
            self._time_wait()

    def may_be_replaced(self, syn: Segment) -> bool:
        """Whether a TIME-WAIT makes room for `syn` (RFC 9293 3.6.1, RFC 6191, as Linux)."""
        if self.state is not State.TIME_WAIT:
            return False
        if self._timestamps and syn.timestamp is not None:
            if _later(self._ts_recent, syn.timestamp[0]):
                return False
            if _later(syn.timestamp[0], self._ts_recent):
                return True
        return self.receiver.position(syn.seq) > self.receiver.next
