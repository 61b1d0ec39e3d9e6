"""A simple client TCP, only to prove the server model and the harness sound.

Go-back-N on a timer, no congestion window, no SACK of its own. Sans-I/O: segments to send are
appended to `outbox`, times are passed in. Positions: 0 is a SYN, 1 the first byte of either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .app import answer_bytes
from .clock import MILLISECOND, SECOND
from .config import near_wrap
from .wire import ACK, FIN, PSH, RST, SEQUENCE_MASK, SYN, Segment

RETRIES = 30


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What the client offers."""

    mss: int | None = 1460
    window_scale: int | None = 7
    timestamps: bool = True
    sack: bool = True
    window: int = 65_535  # bytes, announced always


class Client:
    """One connection to a server."""

    def __init__(
        self,
        random: Random,
        config: ClientConfig,
        local: tuple[bytes, int],
        remote: tuple[bytes, int],
        outbox: list[Segment],
        *,
        check_answers: bool = True,
    ) -> None:
        self._config = config
        self._local = local
        self._remote = remote
        self._check_answers = check_answers
        self._iss = near_wrap(random)
        self._irs = 0
        self._ts_base = near_wrap(random)
        self._ts_recent = 0
        self._timestamps = False
        self._scaling = False
        self._shift = 0
        self._mss = 536
        self._data = bytearray()  # all bytes to send; data[0] is position 1
        self._finish = False
        self._una = 0
        self._nxt = 0
        self._max = 0  # the largest `_nxt` there was
        self._window = 0
        self._wl = (0, 0)
        self._rcv_nxt = 0
        self._early: dict[int, tuple[bytes, bool]] = {}  # position: (bytes, fin)
        self._retries = 0
        self.deadline_ns: int | None = None
        self._outbox = outbox
        self.answered = 0  # bytes of answers in order
        self.established = False
        self.server_finished = False
        self.end: str | None = None  # "closed", "aborted", "reset", "refused", "timeout"

    # What its user calls.

    def open(self, now_ns: int) -> None:
        """Send the SYN."""
        self._nxt = self._max = 1
        self._emit(SYN, 0, b"", now_ns)
        self.deadline_ns = now_ns + SECOND

    def send(self, data: bytes, now_ns: int) -> None:
        """Queue and send."""
        self._data += data
        self._output(now_ns)

    def finish(self, now_ns: int) -> None:
        """FIN after all data."""
        self._finish = True
        self._output(now_ns)

    def abort(self, now_ns: int) -> None:
        """RST now."""
        self._emit(RST | ACK, self._nxt, b"", now_ns)
        self._over("aborted")

    @property
    def all_acknowledged(self) -> bool:
        """Whether the server has all data (and the FIN, when there is one)."""
        return self.established and self._una == 1 + len(self._data) + self._finish

    # What the network brings.

    def receive(self, segment: Segment, now_ns: int) -> None:
        """Take one segment of the server."""
        if self.end is not None:
            self._after_end(segment, now_ns)
            return
        if not self.established:
            self._receive_syn_ack(segment, now_ns)
            return
        offset = (segment.seq - self._irs - self._rcv_nxt) & SEQUENCE_MASK
        position = self._rcv_nxt + (offset - (1 << 32) if offset >> 31 else offset)
        if segment.flags & RST:
            if position == self._rcv_nxt:
                self._over("reset")
            elif 0 < position - self._rcv_nxt < self._config.window:
                self._emit(ACK, self._nxt, b"", now_ns)
            return
        if segment.timestamp is not None and position <= self._rcv_nxt:
            self._ts_recent = segment.timestamp[0]
        if segment.flags & SYN:
            self._emit(ACK, self._nxt, b"", now_ns)
            return
        self._receive_ack(segment, position, now_ns)
        if segment.length:
            self._receive_text(segment, position)
            self._emit(ACK, self._nxt, b"", now_ns)
        elif position < self._rcv_nxt:
            self._emit(ACK, self._nxt, b"", now_ns)  # a keep-alive
        if self.server_finished and self._finish and self.all_acknowledged:
            self._over("closed")

    def run_timers(self, now_ns: int) -> None:
        """Retransmit or probe when due."""
        if self.deadline_ns is None or now_ns < self.deadline_ns:
            return
        self._retries += 1
        if self._retries > RETRIES:
            self._over("timeout")
            return
        self.deadline_ns = now_ns + min(200 * MILLISECOND << self._retries, 3 * SECOND)
        if not self.established:
            self._emit(SYN, 0, b"", now_ns)
            return
        self._nxt = self._una
        if self._window:
            self._output(now_ns)
        else:
            data = bytes(self._data[self._una - 1 : self._una])
            self._emit(ACK if data else ACK | FIN, self._una, data, now_ns)
            self._max = max(self._max, self._una + 1)

    # Within.

    def _over(self, how: str) -> None:
        self.end = how
        self.deadline_ns = None

    def _after_end(self, segment: Segment, now_ns: int) -> None:
        """TIME-WAIT answers with ACK; what was aborted answers with RST."""
        if segment.flags & RST:
            return
        if self.end == "closed":
            if segment.length or segment.flags & SYN:
                self._emit(ACK, self._nxt, b"", now_ns)
        elif segment.flags & ACK:
            self._emit(RST, segment.ack - self._iss, b"", now_ns)

    def _receive_syn_ack(self, segment: Segment, now_ns: int) -> None:
        if segment.flags & ACK and segment.ack != (self._iss + 1) & SEQUENCE_MASK:
            if not segment.flags & RST:
                self._emit(RST, segment.ack - self._iss, b"", now_ns)
            return
        if segment.flags & RST:
            if segment.flags & ACK:
                self._over("refused")
            return
        if segment.flags & (SYN | ACK) != SYN | ACK:
            return
        self.established = True
        self._irs = segment.seq
        self._rcv_nxt = 1
        self._timestamps = self._config.timestamps and segment.timestamp is not None
        if segment.timestamp is not None:
            self._ts_recent = segment.timestamp[0]
        self._scaling = self._config.window_scale is not None and segment.window_scale is not None
        self._shift = (segment.window_scale or 0) if self._scaling else 0
        default_mss = 536 if len(self._local[0]) == 4 else 1220
        mtu_room = 1460 if len(self._local[0]) == 4 else 1440
        self._mss = min(segment.mss or default_mss, mtu_room) - (12 if self._timestamps else 0)
        self._una = self._nxt = 1
        self._window = segment.window
        self._wl = (0, 1)
        self._retries = 0
        self.deadline_ns = None
        self._emit(ACK, 1, b"", now_ns)
        self._output(now_ns)

    def _receive_ack(self, segment: Segment, position: int, now_ns: int) -> None:
        if not segment.flags & ACK:
            return
        offset = (segment.ack - self._iss - self._una) & SEQUENCE_MASK
        ack = self._una + (offset - (1 << 32) if offset >> 31 else offset)
        if not self._una <= ack <= self._max:
            return
        # With new data acknowledged always: after a retransmission the peer's sequence numbers go
        # back, and an old window counted from a new SND.UNA would reach too far (as Linux).
        if ack > self._una or (position, ack) >= self._wl:
            self._wl = (position, ack)
            window = segment.window << self._shift
            if window and not self._window:
                self.deadline_ns = None
            self._window = window
            if not window:
                self._retries = 0
        if ack > self._una:
            self._una = ack
            self._nxt = max(self._nxt, ack)
            self._retries = 0
            self.deadline_ns = None
        self._output(now_ns)

    def _receive_text(self, segment: Segment, position: int) -> None:
        if position > self._rcv_nxt + self._config.window:
            return
        kept = self._early.get(position)
        if kept is None or len(kept[0]) < len(segment.payload) or segment.flags & FIN:
            self._early[position] = (segment.payload, bool(segment.flags & FIN))
        progress = True
        while progress and not self.server_finished:
            progress = False
            for start in sorted(self._early):
                data, fin = self._early[start]
                if start > self._rcv_nxt:
                    break
                del self._early[start]
                new = data[self._rcv_nxt - start :]
                if new and self._check_answers and new != answer_bytes(self.answered, len(new)):
                    raise AssertionError("the server sent other bytes than were written")
                self.answered += len(new)
                self._rcv_nxt += len(new)
                progress = progress or bool(new)
                if fin and self._rcv_nxt == start + len(data):
                    self._rcv_nxt += 1
                    self.server_finished = True
                    break

    def _output(self, now_ns: int) -> None:
        if not self.established or self.end is not None:
            return
        end = 1 + len(self._data)
        while self._nxt < end + self._finish:
            length = min(self._mss, end - self._nxt, self._una + self._window - self._nxt)
            last = self._nxt + length == end
            fin = self._finish and last and self._una + self._window > end
            if length < 0 or (length == 0 and not fin):
                break
            data = bytes(self._data[self._nxt - 1 : self._nxt - 1 + length])
            flags = ACK | (PSH if last and data else 0) | (FIN if fin else 0)
            self._emit(flags, self._nxt, data, now_ns)
            self._nxt += length + fin
            self._max = max(self._max, self._nxt)
        if self._una < end + self._finish and self.deadline_ns is None:
            self.deadline_ns = now_ns + 250 * MILLISECOND

    def _emit(self, flags: int, position: int, payload: bytes, now_ns: int) -> None:
        config = self._config
        segment = Segment(
            *self._local,
            *self._remote,
            (self._iss + position) & SEQUENCE_MASK,
            flags=flags,
            payload=payload,
            window=min(config.window, 0xFFFF),
        )
        if flags & ACK:
            segment.ack = (self._irs + self._rcv_nxt) & SEQUENCE_MASK
        if flags & SYN:
            segment.mss = config.mss
            segment.window_scale = config.window_scale
            segment.sack_permitted = config.sack
        elif self._scaling:
            segment.window = min(config.window >> (config.window_scale or 0), 0xFFFF)
        if (config.timestamps and flags & SYN) or (self._timestamps and not flags & RST):
            ticks = (self._ts_base + now_ns // MILLISECOND) & SEQUENCE_MASK
            segment.timestamp = (ticks, 0 if flags & SYN else self._ts_recent)
        self._outbox.append(segment)
