"""The receiving side of the server model: order, window, SACK blocks, all bytes kept.

Positions count from the initial sequence number of the peer: its SYN is 0, the first byte of
data is 1. They never wrap; only `position` and `wire` know sequence numbers.

Reading list: RFC 9293 3.4, 3.8.6 and 3.10.7.4, RFC 2018 section 4, RFC 2883, RFC 7323 section 2.
"""

from __future__ import annotations

from collections.abc import Callable

from .config import ServerConfig
from .wire import SEQUENCE_MASK


class Receiver:
    """Puts the peer's bytes in order and announces a window that never shrinks."""

    __slots__ = (
        "_buffer",
        "_complain",
        "_early",
        "_initial",
        "_lenient",
        "_mss",
        "_shift",
        "_stamp",
        "duplicate",
        "edge",
        "fin_position",
        "next",
        "read_at",
        "stream",
    )

    def __init__(
        self,
        initial: int,
        config: ServerConfig,
        mss: int,
        shift: int,
        complain: Callable[[str], None],
    ) -> None:
        self._initial = initial  # IRS
        self._buffer = config.receive_buffer
        self._lenient = config.lenient_edge
        self._mss = mss  # what a full segment of the peer holds, for window steps
        self._shift = shift  # Rcv.Wind.Shift; a SYN is never scaled (RFC 7323 2.2)
        self._complain = complain
        self._early: list[tuple[int, bytes, int]] = []  # (start, bytes, last touched), disjoint
        self._stamp = 0
        self.next = 1  # RCV.NXT
        self.edge = 1  # right edge of the largest window announced
        self.fin_position: int | None = None  # where the peer's stream ends, once seen
        self.stream = bytearray()  # every byte in order; stream[0] is position 1
        self.read_at = 0  # bytes of `stream` that the application has read
        self.duplicate: tuple[int, int] | None = None  # for the next D-SACK

    def position(self, seq: int) -> int:
        """Return the position nearest to RCV.NXT that `seq` can stand for."""
        distance = (seq - self._initial - self.next) & SEQUENCE_MASK
        return self.next + (distance - (1 << 32) if distance >> 31 else distance)

    def wire(self, position: int) -> int:
        """Return the sequence number of `position`."""
        return (self._initial + position) & SEQUENCE_MASK

    @property
    def window(self) -> int:
        """RCV.WND: what the peer may still send, as far as it has been told."""
        return self.edge - self.next

    @property
    def unread(self) -> int:
        """Bytes in order that the application has not read."""
        return len(self.stream) - self.read_at

    @property
    def finished(self) -> bool:
        """Whether the peer's FIN has been taken in."""
        return self.fin_position is not None and self.next > self.fin_position

    @property
    def out_of_order(self) -> bool:
        """Whether something is held that is early."""
        return bool(self._early)

    def offer(self) -> int:
        """Return the right edge that would be announced now (RFC 9293 3.8.6.2.2)."""
        # Bytes in order that wait to be read take room; early ones stand inside the window.
        edge = 1 + self.read_at + self._buffer
        step = min(self._mss, max(1, self._buffer // 2))
        return edge if edge - self.edge >= step or edge <= self.edge else self.edge

    def announce(self, *, scaled: bool = True) -> int:
        """Return the window field of a segment that leaves now, and hold to it."""
        shift = self._shift if scaled else 0
        window = max(self.offer(), self.edge) - self.next
        units = min(window >> shift, 0xFFFF)
        if self.next + (units << shift) < self.edge:
            units = min(-(-(self.edge - self.next) >> shift), 0xFFFF)  # RFC 7323 2.4
        self.edge = max(self.edge, self.next + (units << shift))
        return units

    def acceptable(self, position: int, length: int) -> bool:
        """RFC 9293 3.10.7.4, first check, table of four cases."""
        window = self.window
        if length == 0 and (window == 0 or self._lenient):
            return self.next <= position <= self.edge
        if length == 0:
            return self.next <= position < self.edge
        if window == 0:
            return False
        last = position + length - 1
        return self.next <= position < self.edge or self.next <= last < self.edge

    def check(self, position: int, data: bytes, *, fin: bool) -> None:
        """Complain about what no correct sender sends: beyond the window, or other bytes."""
        if not data and not fin:
            return
        end = position + len(data)
        probe = len(data) == 1 and position == self.edge  # RFC 9293 3.8.6.1
        if end > self.edge and not probe:
            self._complain(f"data up to {end} beyond the announced window edge {self.edge}")
        if self.fin_position is not None and (
            end > self.fin_position or (fin and end != self.fin_position)
        ):
            self._complain(f"stream ended at {self.fin_position}, now data or FIN at {end}")
        if fin and self._early and self._early[-1][0] + len(self._early[-1][1]) > end:
            self._complain(f"FIN at {end} before data sent earlier")
        keep_alive = len(data) == 1 and position == self.next - 1
        if position < self.next and data and not keep_alive:
            if position < 1:
                self._complain(f"data at position {position}, before the stream")
            known = bytes(self.stream[max(position, 1) - 1 : end - 1])
            if known != data[max(1 - position, 0) :][: len(known)]:
                self._complain(f"bytes {position}..{end} sent again differ")

    def accept(self, position: int, data: bytes, *, fin: bool) -> bool:
        """Take an acceptable segment in; True when RCV.NXT moved."""
        self.duplicate = None
        end = position + len(data)
        if data and end <= self.next:
            self.duplicate = (position, end)
        if fin and end < self.edge:  # a FIN takes a place in the window
            self.fin_position = end
        if data and end > self.next:
            start = max(position, self.next)
            self._hold(start, data[start - position : self.edge - position])
        before = self.next
        while self._early and self._early[0][0] <= self.next:
            start, piece, _ = self._early.pop(0)
            self.stream += piece[self.next - start :]
            self.next = max(self.next, start + len(piece))
        if self.fin_position == self.next:
            self.next += 1
            self.edge = max(self.edge, self.next)
        return self.next > before

    def _hold(self, start: int, data: bytes) -> None:
        """Join `data` with what is held early, older bytes kept and compared."""
        if not data:
            return
        self._stamp += 1
        end = start + len(data)
        kept = []
        for piece in self._early:
            other, old, _ = piece
            other_end = other + len(old)
            if other_end < start or other > end:
                kept.append(piece)
                continue
            low, high = max(start, other), min(end, other_end)
            if data[low - start : high - start] != old[low - other : high - other]:
                self._complain(f"early bytes {low}..{high} sent again differ")
            if other <= start and end <= other_end:
                self.duplicate = (start, end)
            data = old[: max(start - other, 0)] + data + old[max(end - other, 0) :]
            start, end = min(start, other), max(end, other_end)
        kept.append((start, data, self._stamp))
        self._early = sorted(kept)

    def forget_early(self) -> None:
        """Throw away all early data, as a receiver short of memory may (RFC 2018 section 8)."""
        self._early.clear()
        if self.fin_position is not None and not self.finished:
            self.fin_position = None

    def sack_blocks(self, limit: int, *, with_duplicate: bool) -> tuple[tuple[int, int], ...]:
        """Return at most `limit` blocks, the one touched last first (RFC 2018 section 4)."""
        blocks = []
        if with_duplicate and self.duplicate is not None:
            blocks.append(self.duplicate)  # RFC 2883 section 4
        for start, piece, _ in sorted(self._early, key=lambda entry: -entry[2]):
            blocks.append((start, start + len(piece)))
        self.duplicate = None
        return tuple((self.wire(left), self.wire(right)) for left, right in blocks[:limit])

    def read(self, limit: int) -> bytes:
        """Hand at most `limit` bytes to the application."""
        data = bytes(self.stream[self.read_at : self.read_at + limit])
        self.read_at += len(data)
        return data
