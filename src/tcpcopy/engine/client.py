"""The replayed half of the packet modes: a user-space TCP client, sans-I/O.

Segments of the target come in by `take_segment`, released chunks go out by `transmit`.

Source: RFC 9293 (3.10), RFC 7323, RFC 2018, RFC 5961 (challenge acknowledgements are answered).
"""

from __future__ import annotations

import cython

from tcpcopy.engine import replayed, seqnum, states
from tcpcopy.engine.chunk import ChunkQueue
from tcpcopy.engine.context import Context
from tcpcopy.engine.outcome import Drop
from tcpcopy.engine.receiver import ReceiveHalf
from tcpcopy.engine.syn import initial_number, syn_options
from tcpcopy.packet import flags
from tcpcopy.packet.segment import Segment

_SYN_SENT = int(states.State.SYN_SENT)
_ESTABLISHED = int(states.State.ESTABLISHED)
_FIN_WAIT_1 = int(states.State.FIN_WAIT_1)
_FIN_WAIT_2 = int(states.State.FIN_WAIT_2)
_CLOSING = int(states.State.CLOSING)
_TIME_WAIT = int(states.State.TIME_WAIT)
_CLOSE_WAIT = int(states.State.CLOSE_WAIT)
_LAST_ACK = int(states.State.LAST_ACK)
_CLOSED = int(states.State.CLOSED)
_ALLOWED = states.ALLOWED

_RUNNING = replayed.RUNNING
_ENDED_CLOSED = replayed.CLOSED
_ENDED_REFUSED = replayed.REFUSED
_ENDED_RESET = replayed.RESET_BY_TARGET
_ENDED_RESET_AT_END = replayed.RESET_AT_END
_ENDED_RESET_SENT = replayed.RESET_SENT
_ENDED_CONNECT_TIMEOUT = replayed.CONNECT_TIMEOUT
_ENDED_ANSWER_TIMEOUT = replayed.ANSWER_TIMEOUT

_USED = 0
_BAD_STATE = int(Drop.BAD_STATE)
_BAD_ACK = int(Drop.BAD_ACK)
_OUT_OF_WINDOW = int(Drop.OUT_OF_WINDOW)
_DUPLICATE = int(Drop.DUPLICATE)

_FIN = flags.FIN
_SYN = flags.SYN
_RST = flags.RST
_PSH = flags.PSH
_ACK = flags.ACK
_MASK = 0xFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_NOTHING = b""
_WINDOW = 65535
_CHALLENGE_GAP = 5_000_000  # at most one answer to an odd segment in this time (RFC 5961, 7)
_RST_REPEATS = 2  # a RST is never acknowledged: it is repeated against loss
_RST_GAP = 20_000_000


class TcpClient(ReceiveHalf):
    """One connection towards the target."""

    __slots__ = (
        "again",  # the session had a connection before; `iss` is then a number after all of its
        "challenge_ns",  # when an odd segment was answered last
        "progress_ns",  # when the target last acknowledged something, or nothing was in flight
        "rst_deadline_ns",  # when the RST is repeated, 0: not
        "rst_repeats",
        "state",
        "state_deadline_ns",  # until when to wait for the SYN's answer, later for a FIN; or 0
        "syn_mss",  # what the SYN announces
        "syn_sack",
        "syn_timestamps",
        "syn_window",  # window field of the SYN, as the client's was
        "syn_wscale",  # -1: no window scaling
    )

    def __init__(
        self,
        context: Context,
        queue: ChunkQueue,
        address: bytes,
        port: int,
        target_address: bytes,
        target_port: int,
    ) -> None:
        self.set_up_client(context, queue, address, port, target_address, target_port)

    def set_up_client(
        self,
        context: Context,
        queue: ChunkQueue,
        address: bytes,
        port: int,
        target_address: bytes,
        target_port: int,
    ) -> None:
        """See `Timed.set_up_timed`."""
        self.set_up_sender(context, queue, address, port, target_address, target_port)
        self.set_up_receiver()
        self.again = 0
        self.challenge_ns = 0
        self.progress_ns = 0
        self.rst_deadline_ns = 0
        self.rst_repeats = 0
        self.state = _SYN_SENT
        self.state_deadline_ns = 0
        self.syn_mss = 1460
        self.syn_sack = 1
        self.syn_timestamps = 1
        self.syn_window = 64240
        self.syn_wscale = 7

    def _set_state(self, state: int) -> None:
        if not _ALLOWED[self.state * 16 + state]:
            states.complain(self.state, state)
        self.state = state

    # --- opening ---------------------------------------------------------------------------

    def open(self, now_ns: int) -> int:
        """Send the SYN."""
        # A port is promoted to a signed int, which has no room for 16 bits above 16.
        ports = cython.cast(cython.uint, self.port) << 16 | self.target_port
        seed = self.context.seed
        first = initial_number(self.address, self.target_address, ports, seed, now_ns)
        if self.again and seqnum.difference(first, self.iss) < 0:
            first = self.iss  # later than what was sent before (RFC 6191)
        self.iss = cython.cast(cython.uint, (first - self.snd_una) & _MASK)
        self.state_deadline_ns = now_ns + self.context.connect_timeout_ns
        self.progress_ns = now_ns
        self.rto_deadline_ns = now_ns + self.rto_ns
        self.rtt_started_ns = now_ns
        self._send_syn(now_ns)
        return 0

    def begin_at(self, offset: int) -> int:
        """See `Replayed`."""
        self.snd_una = self.snd_nxt = self.acknowledged = offset
        return 0

    def connect_by(self, deadline_ns: int) -> int:
        """See `Replayed`."""
        if self.state == _SYN_SENT and self.state_deadline_ns > deadline_ns:
            self.state_deadline_ns = deadline_ns
        return 0

    def come_after(self, before: TcpClient) -> int:
        """Before `open`: take the place of a connection between the same ends that has ended."""
        self.again = 1
        self.iss = cython.cast(cython.uint, (before.iss + 1 + before.snd_nxt) & _MASK)
        self.rtt_ns = before.rtt_ns
        self.syn_mss = before.syn_mss
        self.syn_sack = before.syn_sack
        self.syn_timestamps = before.syn_timestamps
        self.syn_window = before.syn_window
        self.syn_wscale = before.syn_wscale
        return 0

    def _send_syn(self, now_ns: int) -> None:
        context = self.context
        clock = (now_ns // 1_000_000 + context.seed) & _MASK
        options = syn_options(
            self.syn_mss, self.syn_sack, self.syn_timestamps, clock, self.syn_wscale
        )
        context.batch.tcp(
            self.address,
            self.port,
            self.target_address,
            self.target_port,
            (self.iss + self.snd_una) & _MASK,
            0,
            _SYN,
            self.syn_window,
            0,
            0,
            0,
            options,
            _NOTHING,
            0,
            0,
        )
        context.counts.segments_sent += 1

    def _take_in_syn_sent(self, segment: Segment, now_ns: int) -> int:
        segment_flags = segment.flags
        if self.state_deadline_ns == 0:
            # No SYN was sent yet: it is of the connection before, which has ended.
            if segment_flags & _ACK and not segment_flags & _RST:
                self._send_bare_rst(segment.ack)
            return _BAD_STATE
        number = seqnum.add(self.iss, 1 + self.snd_una)
        acceptable = segment_flags & _ACK and segment.ack == number
        if segment_flags & _RST:
            if not acceptable:
                return _BAD_ACK
            self._end(_ENDED_REFUSED)
            return _USED
        if not acceptable:
            if segment_flags & _ACK and now_ns - self.challenge_ns >= _CHALLENGE_GAP:
                # The target still knows an older connection on this pair of ends: RST ends it
                # (RFC 9293, 3.5.2), then the SYN is taken.
                self.challenge_ns = now_ns
                self._send_bare_rst(segment.ack)
                self._send_syn(now_ns)
            return _BAD_ACK
        if not segment_flags & _SYN:
            return _BAD_STATE
        self._establish(segment, now_ns)
        return _USED

    def _establish(self, segment: Segment, now_ns: int) -> None:
        self.irs = cython.cast(cython.uint, segment.seq)
        peer_mss = segment.mss if segment.mss else 536
        headers = 40 if len(self.address) == 4 else 60
        self.mss = min(peer_mss, self.context.mtu - headers)
        both = self.syn_timestamps and segment.timestamp_present
        self.timestamps = cython.cast(cython.uchar, both)
        if self.timestamps:
            self.mss -= 12
            self.timestamp_recent = cython.cast(cython.uint, segment.timestamp_value)
        self.mss = cython.cast(cython.int, max(self.mss, 48))
        both = self.syn_sack and segment.sack_permitted
        self.sack_permitted = cython.cast(cython.uchar, both)
        if self.syn_wscale >= 0 and segment.window_scale >= 0:
            self.snd_wscale = cython.cast(cython.uchar, segment.window_scale)
            self.rcv_wscale = cython.cast(cython.uchar, min(self.syn_wscale, 14))
        self.snd_wnd = cython.cast(
            cython.uint, segment.window
        )  # never scaled on a SYN (RFC 7323, 2.2)
        self.cwnd = 10 * self.mss
        if self.backoff == 0:
            self._sample(now_ns - self.rtt_started_ns)
        self.backoff = 0
        self.rto_deadline_ns = 0
        self.state_deadline_ns = 0
        self._set_state(_ESTABLISHED)
        self.established = 1
        self.context.counts.count_established()
        self.last_receive_ns = now_ns
        self.progress_ns = now_ns
        self.ack_pending_bytes = 1
        self.schedule_ack(now_ns)

    # --- segments of the target ------------------------------------------------------------

    def server_offset(self, seq: int) -> int:
        """The server offset that a sequence number stands for, near what was received."""
        received = self.received
        return received + seqnum.difference(seq, (self.irs + 1 + received) & _MASK)

    def take_segment(self, segment: Segment, now_ns: int) -> int:
        """Process one segment of the target (options parsed); 0 or the Drop reason."""
        if self.state == _SYN_SENT:
            return self._take_in_syn_sent(segment, now_ns)
        if self.state == _CLOSED:
            return self._take_when_closed(segment, now_ns)
        segment_flags = segment.flags
        received = self.received
        offset = self.server_offset(segment.seq)
        if segment_flags & _RST:
            return self._take_rst(segment, offset, now_ns)
        if segment_flags & _SYN or not segment_flags & _ACK:
            self._challenge(now_ns)  # our ACK of its SYN was lost, or RFC 5961 (4)
            return _DUPLICATE if segment_flags & _SYN else _BAD_STATE
        una = self.snd_una
        ack = una + seqnum.difference(segment.ack, (self.iss + 1 + una) & _MASK)
        if ack > self.snd_nxt:
            if not self.probing or ack > self.snd_nxt + 1:
                self._challenge(now_ns)
                return _BAD_ACK
            self.snd_nxt = ack  # a probe that was taken back had been accepted
            self.cursor = None
        length = segment.payload_length
        is_fin = segment_flags & _FIN
        if (
            self.timestamps
            and segment.timestamp_present
            and offset <= received
            and seqnum.difference(segment.timestamp_value, self.timestamp_recent) >= 0
        ):
            # RFC 7323 (4.3)
            self.timestamp_recent = cython.cast(cython.uint, segment.timestamp_value)
        if ack >= una:
            self._take_acknowledgement(segment, ack, length == 0 and not is_fin, now_ns)
            if self.ended != _RUNNING:
                return _USED
        if length > 0 or is_fin:
            self._take_data(offset, length, is_fin != 0, segment_flags & _PSH != 0, now_ns)
        elif offset < received:
            self._challenge(now_ns)  # a keep-alive probe without data
        return _USED

    def _take_acknowledgement(self, segment: Segment, ack: int, pure: bool, now_ns: int) -> None:
        window = segment.window << self.snd_wscale
        news = 0
        if segment.sack_count > 0 and self.sack_permitted:
            news = self._take_sacks(segment)
        duplicate = (
            pure
            and ack == self.snd_una
            and (window == self.snd_wnd or news != 0)
            and not (self.probing and self.snd_wnd == 0)
        )
        if ack > self.snd_una:
            self.progress_ns = now_ns
        self.take_ack(ack, duplicate, now_ns)
        self.window_update(window)
        if self.fin_acknowledged:
            if self.state == _FIN_WAIT_1:
                self._set_state(_FIN_WAIT_2)
                self.state_deadline_ns = now_ns + self.context.close_timeout_ns
            elif self.state == _CLOSING:
                if self.ack_deadline_ns:
                    self.send_ack(now_ns)  # of the target's FIN; nothing later would carry it
                self._set_state(_TIME_WAIT)
                self._end(_ENDED_CLOSED)
            elif self.state == _LAST_ACK:
                self._set_state(_CLOSED)
                self._end(_ENDED_CLOSED)

    def _take_sacks(self, segment: Segment) -> int:
        base = (self.iss + 1 + self.snd_una) & _MASK
        una = self.snd_una
        news = self.take_sack(
            una + seqnum.difference(segment.sack_start_0, base),
            una + seqnum.difference(segment.sack_end_0, base),
        )
        if segment.sack_count > 1:
            news |= self.take_sack(
                una + seqnum.difference(segment.sack_start_1, base),
                una + seqnum.difference(segment.sack_end_1, base),
            )
        if segment.sack_count > 2:
            news |= self.take_sack(
                una + seqnum.difference(segment.sack_start_2, base),
                una + seqnum.difference(segment.sack_end_2, base),
            )
        return news

    def _take_data(self, offset: int, length: int, is_fin: bool, pushed: bool, now_ns: int) -> None:
        was_closed = self.target_closed
        if self.state_deadline_ns:
            self.state_deadline_ns = now_ns + self.context.close_timeout_ns
        self.take_payload(offset, length, is_fin, pushed, now_ns)
        if self.target_closed and not was_closed:
            self.ack_now = 1
            if self.state == _ESTABLISHED:
                self._set_state(_CLOSE_WAIT)
            elif self.state == _FIN_WAIT_1:
                self._set_state(_CLOSING)
            elif self.state == _FIN_WAIT_2:
                self._set_state(_TIME_WAIT)
                self.send_ack(now_ns)
                self._end(_ENDED_CLOSED)
                return
        self.schedule_ack(now_ns)

    def _take_rst(self, segment: Segment, offset: int, now_ns: int) -> int:
        # What the target took our last segment's acknowledgement for, up to the window's end.
        oldest = self.received - self.ack_pending_bytes
        if offset < oldest - 1 or offset > self.received + (_WINDOW << self.rcv_wscale):
            return _OUT_OF_WINDOW
        if segment.flags & _ACK:
            una = self.snd_una
            ack = una + seqnum.difference(segment.ack, (self.iss + 1 + una) & _MASK)
            if una < ack <= self.snd_nxt:
                self._take_acknowledgement(segment, ack, False, now_ns)
        if self.ended == _RUNNING:
            self._end(_ENDED_RESET_AT_END if self._data_is_taken() else _ENDED_RESET)
        return _USED

    def _data_is_taken(self) -> bool:
        """The FIN was sent, and the target has acknowledged everything before it."""
        return 0 <= self.fin_offset <= self.snd_una

    def _challenge(self, now_ns: int) -> None:
        if now_ns - self.challenge_ns >= _CHALLENGE_GAP:
            self.challenge_ns = now_ns
            self.send_ack(now_ns)

    def _take_when_closed(self, segment: Segment, now_ns: int) -> int:
        """A lingering connection: what a closed port, or TIME-WAIT, answers."""
        if segment.flags & _RST:
            return _BAD_STATE
        if self.ended == _ENDED_CLOSED:
            if segment.payload_length > 0 or segment.flags & _FIN:
                self._challenge(now_ns)
            return _DUPLICATE
        if segment.flags & _ACK and now_ns - self.challenge_ns >= _CHALLENGE_GAP:
            self.challenge_ns = now_ns
            self._send_bare_rst(segment.ack)
        return _BAD_STATE

    # --- sending ---------------------------------------------------------------------------

    def transmit(self, now_ns: int) -> int:
        """Send released data, FIN and RST as far as they may go."""
        if not self.established or self.ended != _RUNNING:
            return 0
        queue = self.queue
        if self.snd_nxt == self.snd_una:
            self.progress_ns = now_ns
        if self.snd_nxt < queue.released_end or (queue.fin_released and self.fin_offset < 0):
            self.send_new(now_ns)
            if self.fin_offset >= 0:
                if self.state == _ESTABLISHED:
                    self._set_state(_FIN_WAIT_1)
                elif self.state == _CLOSE_WAIT:
                    self._set_state(_LAST_ACK)
        if (
            queue.rst_released
            and self.acknowledged == queue.released_end
            and (not queue.fin_released or self.fin_acknowledged)
        ):
            if self.ack_deadline_ns:
                self.send_ack(now_ns)  # it may be the one that completes the handshake
            self._send_rst(now_ns)
            self._end(_ENDED_RESET_SENT)
        return 0

    def _send_rst(self, now_ns: int) -> None:
        self.emit(self.snd_nxt, _RST | _ACK, _NOTHING, _NOTHING, 0, 0, now_ns)
        self.rst_repeats = _RST_REPEATS
        self.rst_deadline_ns = now_ns + _RST_GAP

    def _send_bare_rst(self, seq: int) -> None:
        """A RST for a connection that is not ours: its number is what the peer acknowledged."""
        self.context.batch.tcp(
            self.address,
            self.port,
            self.target_address,
            self.target_port,
            seq,
            0,
            _RST,
            0,
            0,
            0,
            0,
            _NOTHING,
            _NOTHING,
            0,
            0,
        )
        self.context.counts.segments_sent += 1

    def abort(self, now_ns: int) -> int:
        """Give up: RST where the target knows of the connection, or may."""
        if self.ended == _RUNNING:
            if self.established:
                self._send_rst(now_ns)
            self._end(_ENDED_RESET_SENT)
        return 0

    def _end(self, how: int) -> None:
        if self.state != _CLOSED:
            self._set_state(_CLOSED)
        self.ended = cython.cast(cython.uchar, how)
        self.rto_deadline_ns = 0
        self.ack_deadline_ns = 0
        self.state_deadline_ns = 0

    def linger(self, now_ns: int) -> int:
        """Drop what a closed connection does not need; 1 when it need not be kept at all."""
        self.cursor = None
        self.queue = None  # type: ignore[assignment]  # nothing more to send; ends the cycle
        self.sacked = None
        self.early = None
        return 1 if self.ended in (_ENDED_REFUSED, _ENDED_RESET, _ENDED_RESET_AT_END) else 0

    # --- time ------------------------------------------------------------------------------

    def deadline_ns(self) -> int:
        """The earliest of the timers that run, 0 when none does."""
        earliest = self.rto_deadline_ns
        if self.ack_deadline_ns and (earliest == 0 or self.ack_deadline_ns < earliest):
            earliest = self.ack_deadline_ns
        if self.state_deadline_ns and (earliest == 0 or self.state_deadline_ns < earliest):
            earliest = self.state_deadline_ns
        if self.rst_deadline_ns and (earliest == 0 or self.rst_deadline_ns < earliest):
            earliest = self.rst_deadline_ns
        return earliest

    def run_timers(self, now_ns: int) -> int:
        """Do what is due."""
        if self.rst_deadline_ns and self.rst_deadline_ns <= now_ns:
            self._repeat_rst(now_ns)
        if self.ended != _RUNNING:
            return 0
        if self.state_deadline_ns and self.state_deadline_ns <= now_ns:
            if self.state == _SYN_SENT:
                self.state_deadline_ns = self.context.connect_ends_ns(self.state_deadline_ns)
                if self.state_deadline_ns <= now_ns:
                    self._end(_ENDED_CONNECT_TIMEOUT)
                    return 0
            else:
                # The target has everything and knows that the client has gone; it just stays open.
                self._send_rst(now_ns)
                self._end(_ENDED_CLOSED)
                return 0
        if self.ack_deadline_ns and self.ack_deadline_ns <= now_ns:
            self.ack_due(now_ns)
        if self.rto_deadline_ns and self.rto_deadline_ns <= now_ns:
            self._retransmit(now_ns)
        return 0

    def _retransmit(self, now_ns: int) -> None:
        if self.state == _SYN_SENT:
            self.backoff += 1
            self.rto_deadline_ns = now_ns + (self.rto_ns << min(self.backoff, 6))
            self.context.counts.retransmitted += 1
            self._send_syn(now_ns)
        elif (
            now_ns - max(self.progress_ns, self.context.resumed_ns)
            >= self.context.answer_timeout_ns
        ):
            self._send_rst(now_ns)
            self._end(_ENDED_ANSWER_TIMEOUT)
        else:
            self.retransmission_timeout(now_ns)

    def _repeat_rst(self, now_ns: int) -> None:
        self.rst_repeats -= 1
        self.rst_deadline_ns = now_ns + 4 * _RST_GAP if self.rst_repeats > 0 else 0
        self.emit(self.snd_nxt, _RST | _ACK, _NOTHING, _NOTHING, 0, 0, now_ns)
