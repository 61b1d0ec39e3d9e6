"""The captured half: the client's segments put in order, as the online host's TCP saw them.

Segments may come twice, overlap, come early (a segment before them was lost or is late) and be up
to 64 KiB long. What is new and in order becomes a chunk of the queue; what is early is held;
what is known already is dropped. A gap that does not fill is a hole: something was not captured.

Source: RFC 9293 (3.10.7.4), DESIGN section 4.
"""

from __future__ import annotations

from tcpcopy.engine import outcome as outcomes
from tcpcopy.engine import seqnum
from tcpcopy.engine.chunk import DATA, FIN, RST, ChunkQueue, make_chunk

# More than a client can have in flight: a default Linux client's send buffer ends at 4 MiB.
EARLY_LIMIT_BYTES = 16 * 1024 * 1024
EARLY_LIMIT_SEGMENTS = 16384
# No window is larger (RFC 7323, 2.3): what is farther ahead belongs to another connection.
FARTHEST_AHEAD = 0x3FFFFFFF

_MASK = 0xFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_USED = 0
_DUPLICATE = int(outcomes.Drop.DUPLICATE)
_OUT_OF_WINDOW = int(outcomes.Drop.OUT_OF_WINDOW)
_EARLY_LIMIT = int(outcomes.Drop.EARLY_LIMIT)
_CLOSED = int(outcomes.Drop.CLOSED_SESSION)
_EARLY_BYTES = EARLY_LIMIT_BYTES
_EARLY_SEGMENTS = EARLY_LIMIT_SEGMENTS
_FARTHEST = FARTHEST_AHEAD
_DATA = DATA
_FIN = FIN
_RST = RST


class CapturedHalf(ChunkQueue):
    """Orders one client's segments; offset 0 is the first byte after the SYN."""

    __slots__ = (
        "captured_end",  # 0 open, FIN or RST once it stands in the queue
        "captured_fin_offset",  # stream offset of the client's FIN, -1 while unknown
        "captured_isn",  # the client's initial sequence number; seq of offset o is isn + 1 + o
        "captured_rcv_offset",  # next stream offset expected; everything before it is in the queue
        "early",  # None, or early segments sorted by offset: (offset, data, ack, time)
        "early_bytes",  # payload held in `early`; 0 when it is None
        "last_captured_ns",  # when the client was last heard of
        "server_base",  # sequence number of the server's first byte, -1 while unknown
        "server_seen",  # highest server offset that the client has acknowledged
        "stuck_since_ns",  # since when early data waits for a gap to fill; 0: nothing waits
    )

    def __init__(self) -> None:
        self.set_up_captured()

    def set_up_captured(self) -> None:
        """See `Timed.set_up_timed`."""
        self.set_up_queue()
        self.captured_isn = 0
        self.captured_rcv_offset = 0
        self.captured_fin_offset = -1
        self.captured_end = 0
        self.server_base = -1
        self.server_seen = 0
        self.last_captured_ns = 0
        self.early: list[tuple[int, bytes, int, int]] | None = None
        self.early_bytes = 0
        self.stuck_since_ns = 0

    def acknowledged_by_client(self, ack: int) -> int:
        """Server offset for the acknowledgement number `ack`: lower again for an older segment.

        `server_seen`, the highest offset acknowledged, never goes back.
        """
        if self.server_base < 0:
            # The first acknowledgement seen covers the server's SYN only (or, picked up
            # mid-stream, everything that the replay need not wait for).
            self.server_base = ack
            return 0
        ahead = seqnum.difference(ack, (self.server_base + self.server_seen) & _MASK)
        if ahead > 0:
            self.server_seen += ahead
            return self.server_seen
        return self.server_seen + ahead if self.server_seen + ahead > 0 else 0

    def take_syn_data(self, data: bytes, now_ns: int) -> int:
        """Take the payload of the SYN (RFC 7413): the first bytes of the stream."""
        self._accept(data, 0, now_ns)
        return _USED

    def take_data(self, seq: int, ack: int, data: bytes, now_ns: int) -> int:
        """Take a segment's payload (not empty); 0 when something of it is new, else why not."""
        rcv = self.captured_rcv_offset
        isn = self.captured_isn
        offset = rcv + seqnum.difference(seq, (isn + 1 + rcv) & _MASK)
        end = offset + len(data)
        if offset - rcv > _FARTHEST:
            return _OUT_OF_WINDOW
        server_offset = self.acknowledged_by_client(ack)
        if end <= rcv:
            return _DUPLICATE
        if self.captured_end != 0:
            return _CLOSED
        if self.captured_fin_offset >= 0 and end > self.captured_fin_offset:
            return _OUT_OF_WINDOW
        if offset > rcv:
            return self._hold(offset, data, server_offset, now_ns)
        if offset < rcv:
            data = data[rcv - offset :]
        self._accept(data, server_offset, now_ns)
        if self.stuck_since_ns != 0 or self.early is not None:
            self._take_early(now_ns)
        return _USED

    def take_fin(self, seq_after_data: int, ack: int, now_ns: int) -> int:
        """Note the client's FIN, which stands at sequence number `seq_after_data`."""
        if self.captured_fin_offset >= 0 or self.captured_end != 0:
            return _DUPLICATE
        rcv = self.captured_rcv_offset
        offset = rcv + seqnum.difference(seq_after_data, (self.captured_isn + 1 + rcv) & _MASK)
        if offset < rcv or offset - rcv > _FARTHEST:
            return _OUT_OF_WINDOW
        self.captured_fin_offset = offset
        self.acknowledged_by_client(ack)
        self._end_if_complete(now_ns)
        if self.captured_end == 0 and self.stuck_since_ns == 0:
            self.stuck_since_ns = now_ns
        return _USED

    def take_rst(self, seq: int, ack: int, now_ns: int) -> int:
        """Note the client's RST; `ack` is -1 when it carries no acknowledgement.

        What was held early can no longer be completed.
        """
        if self.captured_end == _RST:
            return _DUPLICATE
        rcv = self.captured_rcv_offset
        ahead = seqnum.difference(seq, (self.captured_isn + 1 + rcv) & _MASK)
        if ahead < -1 or ahead > _FARTHEST:
            return _OUT_OF_WINDOW
        if ack >= 0:
            self.acknowledged_by_client(ack)
        self.append(make_chunk(_RST, b"", rcv, self.server_seen, now_ns))
        self.captured_end = _RST
        return _USED

    def close_captured(self, now_ns: int) -> int:
        """The capture ends here, the connection does not: it is closed after what was captured."""
        self.captured_fin_offset = self.captured_rcv_offset
        self._end_if_complete(now_ns)
        return 0

    def _accept(self, data: bytes, server_offset: int, now_ns: int) -> None:
        tail = self.tail
        if tail is not None and server_offset < tail.server_offset:
            server_offset = tail.server_offset  # knowledge does not shrink
        rcv = self.captured_rcv_offset
        self.append(make_chunk(_DATA, data, rcv, server_offset, now_ns))
        self.captured_rcv_offset = rcv + len(data)
        self._end_if_complete(now_ns)

    def _end_if_complete(self, now_ns: int) -> None:
        if self.captured_fin_offset == self.captured_rcv_offset and self.captured_end == 0:
            self.append(make_chunk(_FIN, b"", self.captured_rcv_offset, self.server_seen, now_ns))
            self.captured_end = _FIN

    def _hold(self, offset: int, data: bytes, server_offset: int, now_ns: int) -> int:
        """Keep an early segment; sorted by offset, exact doubles dropped."""
        if self.early is None:
            self.early = []
        if self.stuck_since_ns == 0:
            self.stuck_since_ns = now_ns
        early = self.early
        if self.early_bytes + len(data) > _EARLY_BYTES or len(early) >= _EARLY_SEGMENTS:
            return _EARLY_LIMIT
        at = len(early)
        while at > 0 and early[at - 1][0] > offset:
            at -= 1
        if at > 0 and early[at - 1][0] == offset:
            if len(early[at - 1][1]) >= len(data):
                return _DUPLICATE
            self.early_bytes -= len(early[at - 1][1])
            early[at - 1] = (offset, data, server_offset, now_ns)
        else:
            early.insert(at, (offset, data, server_offset, now_ns))
        self.early_bytes += len(data)
        return _USED

    def _take_early(self, now_ns: int) -> None:
        """Move what has become in order from `early` to the queue."""
        early = self.early or []
        taken = 0
        for offset, data, server_offset, _held_ns in early:
            rcv = self.captured_rcv_offset
            if offset > rcv:
                break
            taken += 1
            self.early_bytes -= len(data)
            if offset + len(data) > rcv:
                self._accept(data[rcv - offset :], server_offset, now_ns)
        del early[:taken]
        if not early:
            self.early = None
        waits = early or (self.captured_fin_offset >= 0 and self.captured_end == 0)
        self.stuck_since_ns = now_ns if waits else 0
