"""The captured half: the client's segments put in order, as the online host's TCP saw them.

Segments may come twice, overlap, come early (a segment before them was lost or is late) and be up
to 64 KiB long. What is new and in order becomes a chunk of the queue; what is early is held;
what is known already is dropped. A gap that does not fill is a hole: something was not captured.

Nothing but the client's side may have been captured, so RCV.NXT and the window of the online host
are not known, and a segment that stands ahead may mean two things: bytes before it were not
captured, or it is none of this stream and was dropped by the online host. What the client does next
tells: where it goes on before that segment, the segment was stray. So what stands ahead (`Signs`)
is waited for as a gap is; a RST stands right only at the next byte (RFC 5961, 3).

Source: RFC 9293 (3.10.7.4), RFC 5961, DESIGN section 4.
"""

from __future__ import annotations

import cython

from tcpcopy.engine import outcome as outcomes
from tcpcopy.engine import seqnum
from tcpcopy.engine.chunk import DATA, FIN, RST, ChunkQueue, make_chunk

# More than a client can have in flight: a default Linux client's send buffer ends at 4 MiB.
EARLY_LIMIT_BYTES = 16 * 1024 * 1024
EARLY_LIMIT_SEGMENTS = 16384
# No window is larger (RFC 7323, 2.3): what is farther ahead belongs to another connection.
FARTHEST_AHEAD = 0x3FFFFFFF
# What is farther off than this cannot be in flight, but with windows that nobody has.
FARTHEST_IN_FLIGHT = 64 * 1024 * 1024
# A segment that shows bytes never seen is stray once so many have come that stand before it.
MOST_DOUBTS = 3
# What is farther off than anything in flight shows that the client is elsewhere if it comes again.
FAR_SIGNS = 2

_MASK = 0xFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_USED = 0
_DUPLICATE = int(outcomes.Drop.DUPLICATE)
_OUT_OF_WINDOW = int(outcomes.Drop.OUT_OF_WINDOW)
_EARLY_LIMIT = int(outcomes.Drop.EARLY_LIMIT)
_CLOSED = int(outcomes.Drop.CLOSED_SESSION)
_BEHIND_HOLE = int(outcomes.Drop.BEHIND_HOLE)
_EARLY_BYTES = EARLY_LIMIT_BYTES
_EARLY_SEGMENTS = EARLY_LIMIT_SEGMENTS
_FAR = FARTHEST_IN_FLIGHT
_DOUBTS = MOST_DOUBTS
_FAR_SIGNS = FAR_SIGNS
_NONE = -1
_DATA = DATA
_FIN = FIN
_RST = RST


class Signs:
    """What only sequence numbers have shown of a stream, until the client settles it."""

    __slots__ = (
        "doubts",  # segments that have come since and stand before `offset` and `rst_offset`
        "far",  # segments in a row that are farther off than anything in flight
        "offset",  # the client has sent all bytes before this stream offset; -1: not shown
        "rst_offset",  # of a RST that does not stand at the next byte; -1: there is none
        "shift",  # urgent bytes taken out since the early segments were looked at
        "urgent_offset",  # of an urgent byte that has not been reached; -1: there is none
    )

    def __init__(self) -> None:
        self.doubts = 0
        self.far = 0
        self.offset = _NONE
        self.rst_offset = _NONE
        self.shift = 0
        self.urgent_offset = _NONE

    def is_open(self, rcv: int) -> bool:
        """Whether bytes seem to be missing behind stream offset `rcv`."""
        return self.offset > rcv or self.rst_offset >= 0 or self.far >= _FAR_SIGNS

    def is_idle(self, rcv: int) -> bool:
        """Whether it can be forgotten."""
        return not self.is_open(rcv) and self.far == 0 and self.urgent_offset < 0


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
        "signs",  # Signs, or None: nothing strange was seen
        "stuck_since_ns",  # since when early data waits for a gap to fill; 0: nothing waits
        "torn",  # bytes that follow were not captured: nothing more is taken
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
        self.signs: Signs | None = None
        self.stuck_since_ns = 0
        self.torn = 0

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
        if offset - rcv > _FAR or rcv - end > _FAR:
            return self._is_far(now_ns)
        server_offset = self.acknowledged_by_client(ack)
        if end <= rcv:
            return _DUPLICATE
        if self.captured_end != 0:
            return _CLOSED
        if self.torn:
            return _BEHIND_HOLE
        if self.captured_fin_offset >= 0 and end > self.captured_fin_offset:
            return _OUT_OF_WINDOW
        if offset > rcv:
            return self._hold(offset, data, server_offset, now_ns)
        if offset < rcv:
            data = data[rcv - offset :]
        self._accept(data, server_offset, now_ns)
        if self.stuck_since_ns != 0 or self.early is not None or self.signs is not None:
            self._take_early(now_ns)
        return _USED

    def take_ack(self, seq: int, ack: int, now_ns: int) -> int:
        """Take a segment that has nothing but an acknowledgement; 0, or why not.

        One that stands behind bytes never seen shows that they were sent. A single one may be the
        FIN, which is no loss.
        """
        rcv = self.captured_rcv_offset
        ahead = seqnum.difference(seq, (self.captured_isn + 1 + rcv) & _MASK)
        if ahead > 1 or ahead < -_FAR:
            if ahead > _FAR or ahead < -_FAR:
                return self._is_far(now_ns)
            if self.captured_end == 0 and not self.torn:
                signs = self._make_signs()
                signs.offset = max(signs.offset, rcv + ahead)
                signs.doubts = 0
                self._wait_for_gap(now_ns)
        elif self.signs is not None:
            self._doubt(False)
            self._see_what_waits(now_ns)
        self.acknowledged_by_client(ack)
        return _USED

    def take_fin(self, seq_after_data: int, ack: int, now_ns: int) -> int:
        """Note the client's FIN, which stands at sequence number `seq_after_data`."""
        if self.captured_fin_offset >= 0 or self.captured_end != 0:
            return _DUPLICATE
        if self.torn:
            return _BEHIND_HOLE
        rcv = self.captured_rcv_offset
        offset = rcv + seqnum.difference(seq_after_data, (self.captured_isn + 1 + rcv) & _MASK)
        if offset - rcv > _FAR or rcv - offset > _FAR:
            return self._is_far(now_ns)
        if offset < rcv:
            return _OUT_OF_WINDOW
        self.captured_fin_offset = offset
        self.acknowledged_by_client(ack)
        self._end_if_complete(now_ns)
        if self.captured_end == 0:
            self._wait_for_gap(now_ns)
        elif self.stuck_since_ns != 0 or self.signs is not None:
            # It stands at the next byte: what stood behind it was none of this stream.
            self._forget_what_waits()
        return _USED

    def take_rst(self, seq: int, ack: int, now_ns: int) -> int:
        """Note the client's RST; `ack` is -1 when it carries no acknowledgement.

        It counts where it stands at the next byte (behind the FIN that is the one after it). One
        that stands ahead waits for the bytes before it, or for the client to go on without it.
        """
        if self.captured_end == _RST:
            return _DUPLICATE
        if self.torn:
            return _BEHIND_HOLE
        rcv = self.captured_rcv_offset
        ahead = seqnum.difference(seq, (self.captured_isn + 1 + rcv) & _MASK)
        if ahead < -1 or ahead > _FAR:
            return _OUT_OF_WINDOW
        if ack >= 0:
            self.acknowledged_by_client(ack)
        if ahead > 0 and self.captured_end == 0:
            signs = self._make_signs()
            signs.rst_offset = rcv + ahead
            signs.doubts = 0
            self._wait_for_gap(now_ns)
            return _USED
        if ahead > 1:
            return _OUT_OF_WINDOW
        self._end_with_rst(now_ns)
        return _USED

    def take_urgent(self, seq: int) -> int:
        """The byte with this sequence number is urgent: no ordinary read of online has seen it."""
        rcv = self.captured_rcv_offset
        ahead = seqnum.difference(seq, (self.captured_isn + 1 + rcv) & _MASK)
        if 0 <= ahead <= _FAR and self.captured_end == 0 and not self.torn:
            self._make_signs().urgent_offset = rcv + ahead
        return 0

    def note_urgent(self) -> int:
        """An urgent byte was taken out of the stream."""
        return 0

    def tear_captured(self, now_ns: int) -> int:
        """What is missing does not come any more: the stream ends before it.

        Returns how much memory was held for what had come behind it. A RST that stood there is the
        client's end; else the connection is closed from here (`close_captured`).
        """
        freed = self.early_bytes
        signs = self.signs
        was_reset = signs is not None and signs.rst_offset >= 0
        self._forget_what_waits()
        if self.captured_end == 0:
            self.captured_fin_offset = _NONE
            if was_reset:
                self._end_with_rst(now_ns)
        self.torn = 1
        return freed

    def close_captured(self, now_ns: int) -> int:
        """The capture ends here, the connection does not: it is closed after what was captured."""
        self.captured_fin_offset = self.captured_rcv_offset
        self._end_if_complete(now_ns)
        return 0

    def _accept(self, data: bytes, server_offset: int, now_ns: int) -> None:
        if self.signs is not None:
            data = self._without_urgent(data)
            if not data:
                self._end_if_complete(now_ns)
                return
        tail = self.tail
        if tail is not None and server_offset < tail.server_offset:
            server_offset = tail.server_offset  # knowledge does not shrink
        rcv = self.captured_rcv_offset
        self.append(make_chunk(_DATA, data, rcv, server_offset, now_ns))
        self.captured_rcv_offset = rcv + len(data)
        self._end_if_complete(now_ns)

    def _without_urgent(self, data: bytes) -> bytes:
        """`data`, which comes next, without the urgent byte if that is in it.

        Offsets count the bytes of the stream, so the one after it gets the offset of this one.
        """
        signs: Signs = self.signs  # type: ignore[assignment]
        at = signs.urgent_offset - self.captured_rcv_offset
        if signs.urgent_offset < 0 or at >= len(data):
            return data
        signs.urgent_offset = _NONE
        if at < 0:
            return data
        self.captured_isn = cython.cast(cython.uint, (self.captured_isn + 1) & _MASK)
        if self.captured_fin_offset >= 0:
            self.captured_fin_offset -= 1
        if signs.offset >= 0:
            signs.offset -= 1
        if signs.rst_offset >= 0:
            signs.rst_offset -= 1
        signs.shift += 1
        self.note_urgent()
        return data[:at] + data[at + 1 :]

    def _end_if_complete(self, now_ns: int) -> None:
        if self.captured_fin_offset == self.captured_rcv_offset and self.captured_end == 0:
            self.append(make_chunk(_FIN, b"", self.captured_rcv_offset, self.server_seen, now_ns))
            self.captured_end = _FIN

    def _end_with_rst(self, now_ns: int) -> None:
        self.append(make_chunk(_RST, b"", self.captured_rcv_offset, self.server_seen, now_ns))
        self.captured_end = _RST

    # --- what stands ahead, or elsewhere ----------------------------------------------------

    def _make_signs(self) -> Signs:
        if self.signs is None:
            self.signs = Signs()
        return self.signs

    def _wait_for_gap(self, now_ns: int) -> None:
        if self.stuck_since_ns == 0:
            self.stuck_since_ns = now_ns

    def _is_far(self, now_ns: int) -> int:
        """A segment is farther off than anything in flight: no window of online held it.

        A single one is stray. More of them, and none between them that fits, are the client, which
        has gone on where nothing shows how.
        """
        if self.captured_end == 0 and not self.torn:
            signs = self._make_signs()
            signs.far += 1
            if signs.far >= _FAR_SIGNS:
                self._wait_for_gap(now_ns)
        return _OUT_OF_WINDOW

    def _doubt(self, has_gone_on: bool) -> None:
        """A segment fits; `has_gone_on`: with new data. Does it contradict what stands ahead?"""
        signs: Signs = self.signs  # type: ignore[assignment]
        rcv = self.captured_rcv_offset
        signs.far = 0
        if signs.offset <= rcv and signs.rst_offset < 0:
            return
        signs.doubts += 1
        if has_gone_on or signs.doubts >= _DOUBTS:
            if has_gone_on and signs.rst_offset == rcv and self.captured_end == 0:
                return  # the bytes before it have come
            signs.rst_offset = _NONE
        if signs.doubts >= _DOUBTS:
            signs.offset = _NONE

    def _see_what_waits(self, now_ns: int) -> None:
        """Whether anything is waited for, after a change."""
        signs = self.signs
        rcv = self.captured_rcv_offset
        is_open = False
        if signs is not None:
            if signs.is_idle(rcv):
                self.signs = None
            is_open = signs.is_open(rcv)
        if not (is_open or self.early or (self.captured_fin_offset >= 0 and not self.captured_end)):
            self.stuck_since_ns = 0
        elif self.stuck_since_ns == 0:
            self.stuck_since_ns = now_ns

    def _forget_what_waits(self) -> None:
        self.early = None
        self.early_bytes = 0
        self.signs = None
        self.stuck_since_ns = 0

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
        while self._take_some_early(now_ns):
            pass  # an urgent byte was taken out: what is left has other offsets
        signs = self.signs
        if signs is not None:
            self._doubt(True)
            if signs.rst_offset == self.captured_rcv_offset and self.captured_end == 0:
                self._end_with_rst(now_ns)
            if self.captured_end != 0:
                self._forget_what_waits()
                return
        self.stuck_since_ns = 0  # a gap that is left begins now
        self._see_what_waits(now_ns)

    def _take_some_early(self, now_ns: int) -> bool:
        """Whether to go on."""
        early = self.early
        if early is None:
            return False
        signs = self.signs
        if signs is not None and signs.shift:
            shift = signs.shift
            signs.shift = 0
            early = [(entry[0] - shift, entry[1], entry[2], entry[3]) for entry in early]
            self.early = early
        taken = 0
        goes_on = False
        for offset, data, server_offset, _held_ns in early:
            rcv = self.captured_rcv_offset
            if offset > rcv:
                break
            taken += 1
            self.early_bytes -= len(data)
            if offset + len(data) > rcv:
                self._accept(data[rcv - offset :], server_offset, now_ns)
                if signs is not None and signs.shift:
                    goes_on = True
                    break
        del early[:taken]
        if not early:
            self.early = None
        return goes_on
