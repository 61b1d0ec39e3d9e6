"""The receiving side of the engine's TCP client: every byte the target sends is answered for.

Only headers are known, and lengths are enough: what arrives is counted, never kept. Acknowledging
waits for the client's round-trip time, so that the target's connections live as long as real ones,
and a moment at least, so that a request sent meanwhile carries the acknowledgement. Where the
client reacts to answers quickly, that moment is as long as in the kernels of real clients.

Source: RFC 9293 (3.10.7.4), RFC 5681 (4.2), RFC 2018 (4), RFC 7323 (4.3); Linux, tcp_input.c and
tcp_output.c: interactive ("ping-pong") sessions.
"""

from __future__ import annotations

import cython

from tcpcopy.engine import seqnum
from tcpcopy.engine.sender import SendHalf
from tcpcopy.packet import flags

ACK_DELAY_NS = 1_000_000
# As Linux, and up to 8 ms more: the acknowledgements of many sessions then leave in one turn.
DELAYED_ACK_NS = 40_000_000
DELAYED_ACK_GRID_NS = 0x7FFFFF
MAX_EARLY_RANGES = 64
RECEIVE_WINDOW = 65535

_ACK_DELAY = ACK_DELAY_NS
_DELAYED_ACK = DELAYED_ACK_NS
_DELAYED_ACK_GRID = DELAYED_ACK_GRID_NS
_MAX_EARLY = MAX_EARLY_RANGES
_WINDOW = RECEIVE_WINDOW
_ACK = flags.ACK
_NOTHING = b""


class ReceiveHalf(SendHalf):
    """Counts the target's bytes in order and acknowledges them."""

    __slots__ = (
        "early",  # None, or sorted disjoint (start, end) server offsets beyond `received`
        "ack_now",  # an acknowledgement must go at once
        "early_newest",  # where the newest early segment starts; it is told of first
        "later_ack_ns",  # when bytes that came after the pending ones were due, 0: none did
        "rcv_wscale",  # window scale that we announced
        "rtt_ns",  # the client's round-trip time, put back on acknowledgements
        "target_fin",  # server offset of the target's FIN, -1 while unknown
    )

    def set_up_receiver(self) -> None:
        """See `Timed.set_up_timed`; after `set_up_sender`."""
        self.early: list[tuple[int, int]] | None = None
        self.ack_now = 0
        self.early_newest = 0
        self.later_ack_ns = 0
        self.rcv_wscale = 0
        self.rtt_ns = 0
        self.target_fin = -1

    def take_payload(
        self, offset: int, length: int, is_fin: bool, pushed: bool, now_ns: int
    ) -> int:
        """The target sent [offset, offset + length), perhaps with its FIN; 1 if that was news."""
        end = offset + length
        if is_fin:
            if self.target_fin < 0 and end >= self.received and self._is_in_window(offset):
                self.target_fin = end
            end += 1
        if end <= self.received:
            self.ack_now = 1  # our acknowledgement was lost, or it is a keep-alive
            return 0
        if offset > self.received:
            self.ack_now = 1  # a duplicate acknowledgement tells the target what is missing
            if self._is_in_window(offset):
                self._hold(offset, end)
                self.last_receive_ns = now_ns  # the answer goes on behind the gap
                self.pushed = 0
            return 0
        self._receive_to(end)
        if self.early is not None:
            self._take_early()
        self.last_receive_ns = now_ns
        self.pushed = cython.cast(cython.uchar, pushed or is_fin)
        return 1

    def _is_in_window(self, offset: int) -> bool:
        return offset - self.received <= _WINDOW << self.rcv_wscale

    def _receive_to(self, end: int) -> None:
        gained = end - self.received
        self.received = end
        self.ack_pending_bytes += gained
        if 0 <= self.target_fin < end:
            self.target_closed = 1
            gained -= 1
        self.context.counts.answer_bytes += gained

    def _hold(self, start: int, end: int) -> None:
        self.early_newest = start
        ranges = []
        for left, right in self.early or ():
            if right < start or left > end:
                ranges.append((left, right))
            else:
                start = min(start, left)
                end = max(end, right)
        ranges.append((start, end))
        ranges.sort()
        self.early = ranges[:_MAX_EARLY]

    def _take_early(self) -> None:
        kept = []
        for start, end in self.early or ():
            if start > self.received:
                kept.append((start, end))
            elif end > self.received:
                self._receive_to(end)
        self.early = kept or None

    def schedule_ack(self, now_ns: int) -> int:
        """What was received is to be acknowledged: at once, or a round trip from now, or later."""
        due = now_ns + self.rtt_ns
        if self.ack_now or self.ack_pending_bytes >= 2 * self.mss or self.target_closed:
            if self.rtt_ns < _ACK_DELAY:
                return self.send_ack(now_ns)
        elif self.ping_pong and self.fin_offset < 0:
            if self.rtt_ns < _DELAYED_ACK:
                due = (now_ns + _DELAYED_ACK) | _DELAYED_ACK_GRID
        elif self.rtt_ns < _ACK_DELAY:
            due = now_ns + _ACK_DELAY
        if self.ack_deadline_ns == 0:
            self.later_ack_ns = 0
            self.ack_deadline_ns = due
        elif due < self.ack_deadline_ns:
            self.ack_deadline_ns = due
        else:
            self.later_ack_ns = due
        return 0

    def send_ack(self, now_ns: int) -> int:
        """A pure acknowledgement of everything received, with SACK blocks when there are holes."""
        self.ack_now = 0
        options = _NOTHING if self.early is None else self._sack_option()
        return self.emit(self.snd_nxt, _ACK, options, _NOTHING, 0, 0, now_ns)

    def ack_due(self, now_ns: int) -> int:
        """The pending acknowledgement is due; what came later is due a round trip later."""
        later = self.later_ack_ns
        self.later_ack_ns = 0
        self.ack_deadline_ns = 0
        if self.ack_pending_bytes > 0 or self.ack_now:
            self.send_ack(now_ns)
        if later > now_ns:
            self.ack_deadline_ns = later
        return 0

    def _sack_option(self) -> bytes:
        """Up to three blocks, the newest first (RFC 2018, 4), after two bytes of padding."""
        if not self.sack_permitted or self.early is None:
            return _NOTHING
        base = self.irs + 1
        newest = self.early_newest
        told = [r for r in self.early if r[0] <= newest < r[1]]
        told += [r for r in self.early[:3] if not r[0] <= newest < r[1]]
        blocks = b"".join(
            seqnum.add(base, start).to_bytes(4, "big") + seqnum.add(base, end).to_bytes(4, "big")
            for start, end in told[:3]
        )
        return b"\x01\x01\x05" + bytes((len(blocks) + 2,)) + blocks
