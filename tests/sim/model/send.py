"""The sending side of the server model: what may be sent, and when it is sent again.

Positions count from the initial sequence number of this side: its SYN is 0, data starts at 1.

Reading list: RFC 9293 3.8, RFC 6298, RFC 5681, RFC 6582 (partial acknowledgements).
"""

from __future__ import annotations

from collections.abc import Callable

from .clock import MILLISECOND, SECOND
from .wire import SEQUENCE_MASK

RTO_MINIMUM_NS = 200 * MILLISECOND  # as Linux; RFC 6298 (2.4) would have a second
RTO_MAXIMUM_NS = 60 * SECOND


class Sender:
    """Keeps unacknowledged bytes, the peer's window, a congestion window and the RTO."""

    __slots__ = (
        "_base",
        "_complain",
        "_initial",
        "_queue",
        "_recover",
        "_rttvar_ns",
        "_srtt_ns",
        "_ssthresh",
        "_timed",
        "closing",
        "cwnd",
        "dup_acks",
        "max_window",
        "mss",
        "nxt",
        "retries",
        "rto_ns",
        "snd_max",
        "una",
        "window",
        "wl1",
        "wl2",
    )

    def __init__(
        self, initial: int, mss: int, congestion_window: int, complain: Callable[[str], None]
    ) -> None:
        self._initial = initial  # ISS
        self._complain = complain
        self._queue = bytearray()  # bytes from position `_base` on
        self._base = 1
        self.mss = mss  # payload of a full segment, options already taken off
        self.una = 0  # SND.UNA
        self.nxt = 1  # SND.NXT; goes back to SND.UNA on a time-out
        self.snd_max = 1  # the largest SND.NXT there was
        self.window = 0  # SND.WND, bytes
        self.max_window = 0  # the largest SND.WND there was
        self.wl1 = 0  # SND.WL1, as a position of the peer
        self.wl2 = 0  # SND.WL2
        self.closing = False  # a FIN follows the queue
        self.cwnd = congestion_window * mss
        self._ssthresh = 1 << 30
        self.dup_acks = 0
        self._recover = 0  # fast recovery ends when this is acknowledged
        self.rto_ns = SECOND  # RFC 6298 (2.1)
        self._srtt_ns = 0  # 0: no sample yet
        self._rttvar_ns = 0
        self._timed: tuple[int, int] | None = None  # (position, time sent), one at a time
        self.retries = 0

    def wire(self, position: int) -> int:
        """Return the sequence number of `position`."""
        return (self._initial + position) & SEQUENCE_MASK

    def position(self, ack: int) -> int:
        """Return the position nearest to SND.UNA that `ack` can stand for."""
        distance = (ack - self._initial - self.una) & SEQUENCE_MASK
        return self.una + (distance - (1 << 32) if distance >> 31 else distance)

    @property
    def end(self) -> int:
        """Position behind the last byte queued; the FIN stands there."""
        return self._base + len(self._queue)

    @property
    def in_flight(self) -> int:
        """Sequence space sent and not acknowledged."""
        return self.nxt - self.una

    @property
    def fin_acknowledged(self) -> bool:
        """Whether this side has closed and the peer has acknowledged it."""
        return self.closing and self.una > self.end

    @property
    def pending(self) -> bool:
        """Whether bytes or a FIN have not been sent, or have to be sent again."""
        return self.nxt < self.end or (self.closing and self.nxt == self.end)

    def write(self, data: bytes) -> None:
        """Queue `data` behind what is there."""
        if self.closing:
            raise AssertionError("the model's application writes after its close")
        self._queue += data

    def take(self, now_ns: int) -> tuple[int, bytes, bool] | None:
        """Return (position, bytes, fin) of the next segment that may go now, and count it sent."""
        if not self.pending:
            return None
        position = max(self.nxt, 1)
        room = min(self.window, self.cwnd) - self.in_flight
        length = min(self.mss, self.end - position, max(room, 0))
        if length < min(self.mss, self.end - position) and (
            self.in_flight and length < self.max_window // 2
        ):
            return None  # the silly window, sender's side (RFC 9293 3.8.6.2.1)
        # A FIN takes a place in the peer's window, too.
        fin = self.closing and position + length == self.end and room > length
        if length <= 0 and not fin:
            return None
        return self._sent(position, length, fin, now_ns)

    def probe(self, now_ns: int) -> tuple[int, bytes, bool]:
        """Return one byte, or the FIN, against a window of zero (RFC 9293 3.8.6.1)."""
        position = max(self.una, 1)
        length = min(1, self.end - position)
        self.nxt = position
        return self._sent(position, length, length == 0, now_ns)

    def again(self, now_ns: int) -> tuple[int, bytes, bool]:
        """Return the first unacknowledged segment once more."""
        position = max(self.una, 1)
        length = min(self.mss, self.end - position, self.snd_max - position)
        fin = self.closing and position + length == self.end and self.snd_max > self.end
        resume = self.nxt
        sent = self._sent(position, length, fin, now_ns)
        self.nxt = max(resume, self.nxt)
        return sent

    def _sent(self, position: int, length: int, fin: bool, now_ns: int) -> tuple[int, bytes, bool]:
        start = position - self._base
        data = bytes(self._queue[start : start + length])
        self.nxt = position + length + fin
        if self.nxt > self.snd_max:
            if self._timed is None and position >= self.snd_max:
                self._timed = (self.nxt, now_ns)
            self.snd_max = self.nxt
        else:
            self._timed = None  # Karn: never time what was sent twice (RFC 6298 section 3)
        return position, data, fin

    def acknowledge(self, ack: int, now_ns: int) -> bool:
        """Take an ACK of new data; True when a hole behind it should be sent again."""
        newly = ack - self.una
        self.una = ack
        self.nxt = max(self.nxt, ack)
        done = min(ack, self.end) - self._base
        if done > 0:
            del self._queue[:done]
            self._base += done
        self.retries = 0
        if self._timed is not None and ack >= self._timed[0]:
            self._sample(now_ns - self._timed[1])
            self._timed = None
        elif self._srtt_ns:
            self._set_rto()  # progress ends the backoff
        partial = self.dup_acks >= 3 and ack < self._recover  # RFC 6582 3.2 (5)
        if not partial:
            self.dup_acks = 0
            grow = self.mss if self.cwnd < self._ssthresh else self.mss * self.mss // self.cwnd
            self.cwnd += min(newly, max(grow, 1))
        return partial

    def duplicate_ack(self) -> bool:
        """Count a duplicate ACK; True at the third (RFC 5681 3.2)."""
        self.dup_acks += 1
        if self.dup_acks != 3 or self.una < self._recover:
            return False
        self._ssthresh = max((self.snd_max - self.una) // 2, 2 * self.mss)
        self.cwnd = self._ssthresh
        self._recover = self.snd_max
        return True

    def timed_out(self) -> None:
        """Go back to SND.UNA, back off (RFC 6298 section 5)."""
        self.retries += 1
        self._timed = None
        self.rto_ns = min(self.rto_ns * 2, RTO_MAXIMUM_NS)
        self._ssthresh = max((self.snd_max - self.una) // 2, 2 * self.mss)
        self.cwnd = self.mss
        self.dup_acks = 0
        self._recover = self.snd_max
        self.nxt = self.una

    def _sample(self, rtt_ns: int) -> None:
        """RFC 6298 (2.2) and (2.3)."""
        if not self._srtt_ns:
            self._srtt_ns = max(rtt_ns, 1)
            self._rttvar_ns = rtt_ns // 2
        else:
            self._rttvar_ns = (3 * self._rttvar_ns + abs(self._srtt_ns - rtt_ns)) // 4
            self._srtt_ns = (7 * self._srtt_ns + rtt_ns) // 8
        self._set_rto()

    def _set_rto(self) -> None:
        rto_ns = self._srtt_ns + max(4 * self._rttvar_ns, RTO_MINIMUM_NS)
        self.rto_ns = min(max(rto_ns, RTO_MINIMUM_NS), RTO_MAXIMUM_NS)

    def check_sack(self, blocks: tuple[tuple[int, int], ...], ack: int) -> None:
        """Complain about SACK blocks of what was never sent (RFC 2018 section 4)."""
        for left_seq, right_seq in blocks:
            left, right = self.position(left_seq), self.position(right_seq)
            if not 0 < left < right <= self.snd_max:
                self._complain(f"SACK block {left}..{right}, sent up to {self.snd_max}")
            elif left < ack < right:
                self._complain(f"SACK block {left}..{right} straddles the ACK {ack}")
