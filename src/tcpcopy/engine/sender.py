"""The sending side of the engine's TCP client: windows, retransmission, loss recovery.

Offsets are 64-bit stream offsets: byte 0 is the first after the SYN, the FIN stands at
`fin_offset`. Chunks come from the session's queue; one segment never spans two of them, so that
the target sees requests cut as the client cut them, at most smaller.

Source: RFC 9293 (3.7, 3.8), RFC 6298 (timer), RFC 5681 and 6582 (congestion, NewReno), RFC 2018
and 6675 (SACK, simplified: one or two segments for each acknowledgement while recovering),
RFC 5827 (early retransmit), RFC 9293 (3.8.6.1, zero-window probes).
"""

from __future__ import annotations

import cython

from tcpcopy.engine import seqnum
from tcpcopy.engine.chunk import Chunk, ChunkQueue
from tcpcopy.engine.context import Context
from tcpcopy.engine.replayed import Replayed
from tcpcopy.packet import flags

# RFC 6298 (2.1) starts at one second; the floor is Linux's 200 ms rather than the RFC's second.
INITIAL_RTO_NS = 1_000_000_000
MIN_RTO_NS = 200_000_000
MAX_RTO_NS = 60_000_000_000
INITIAL_WINDOW_SEGMENTS = 10  # RFC 6928
MAX_SACKED_RANGES = 64

PING_PONG_NS = 40_000_000  # Linux: the least time-out of its delayed acknowledgements

_INITIAL_RTO = INITIAL_RTO_NS
_MIN_RTO = MIN_RTO_NS
_MAX_RTO = MAX_RTO_NS
_PING_PONG = PING_PONG_NS
_MAX_RANGES = MAX_SACKED_RANGES
_ACK = flags.ACK
_PSH = flags.PSH
_FIN = flags.FIN
_MASK = 0xFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_NOTHING = b""
_HUGE = 1 << 40
_MOST_SEGMENTS = 64  # of one packet that is cut later: what every device's limit allows


class SendHalf(Replayed):
    """Sends released chunks, knows what the target has acknowledged, sends again what is lost.

    Idle (all sent data acknowledged): snd_una == snd_nxt and rto_deadline_ns == 0.
    """

    __slots__ = (
        "ack_deadline_ns",  # when a pending acknowledgement must go, 0: none pending
        "ack_pending_bytes",  # received bytes not acknowledged yet
        "address",  # mapped address, as the target sees the client
        "backoff",  # doublings of the timer since the last progress
        "context",
        "cursor",  # chunk that holds snd_nxt, or the one sent last; None when idle
        "cwnd",  # congestion window, bytes
        "duplicate_acks",
        "fin_offset",  # stream offset of our FIN once sent, -1 before
        "irs",  # initial receive sequence number
        "iss",
        "mss",  # largest payload of a segment we send
        "port",  # mapped port
        "ping_pong",  # data was sent soon after some was received: the client reacts to answers
        "probing",  # the target's window is closed and the timer is the probe timer
        "queue",  # the session's chunks
        "recover",  # recovery ends when this offset is acknowledged, -1: not recovering
        "recovering_by_timer",  # recovery began with a time-out: all below `recover` is lost
        "retransmit_next",  # first offset not yet sent again in this recovery
        "rto_deadline_ns",  # 0: timer off
        "rto_ns",
        "rtt_offset",  # the timed byte (RFC 6298, Karn's rule), -1: nothing is timed
        "rtt_started_ns",
        "sack_permitted",
        "sacked",  # None, or sorted disjoint (start, end) above snd_una
        "snd_nxt",
        "snd_una",
        "snd_wnd",  # the target's window, bytes, scaled
        "snd_wscale",
        "srtt_ns",  # 0: no sample yet
        "ssthresh",
        "target_address",
        "target_port",
        "rttvar_ns",
        "timestamp_recent",  # what to echo
        "timestamps",  # both sides use timestamps
    )

    def set_up_sender(
        self,
        context: Context,
        queue: ChunkQueue,
        address: bytes,
        port: int,
        target_address: bytes,
        target_port: int,
    ) -> None:
        """See `Timed.set_up_timed`."""
        self.set_up_replayed()
        self.context = context
        self.queue = queue
        self.address = address
        self.port = cython.cast(cython.ushort, port)
        self.target_address = target_address
        self.target_port = cython.cast(cython.ushort, target_port)
        self.cursor: Chunk | None = None
        self.sacked: list[tuple[int, int]] | None = None
        self.ack_deadline_ns = 0
        self.ack_pending_bytes = 0
        self.backoff = 0
        self.cwnd = 0
        self.duplicate_acks = 0
        self.fin_offset = -1
        self.irs = 0
        self.iss = 0
        self.mss = 536
        self.ping_pong = 0
        self.probing = 0
        self.recover = -1
        self.recovering_by_timer = 0
        self.retransmit_next = 0
        self.rto_deadline_ns = 0
        self.rto_ns = _INITIAL_RTO
        self.rtt_offset = -1
        self.rtt_started_ns = 0
        self.sack_permitted = 0
        self.snd_nxt = 0
        self.snd_una = 0
        self.snd_wnd = 0
        self.snd_wscale = 0
        self.srtt_ns = 0
        self.rttvar_ns = 0
        self.ssthresh = _HUGE
        self.timestamp_recent = 0
        self.timestamps = 0

    # --- one segment -----------------------------------------------------------------------

    def receive_window(self) -> int:
        """The window field that we announce."""
        return 65535

    def emit(
        self,
        offset: int,
        segment_flags: int,
        options: bytes,
        data: bytes,
        data_at: int,
        length: int,
        now_ns: int,
    ) -> int:
        """Write one segment into the batch; anything with an ACK settles the pending one.

        More than one MSS is cut into segments on its way, and counted as that many.
        """
        context = self.context
        cut = self.mss if length > self.mss else 0
        acknowledge = 0
        if segment_flags & _ACK:
            acknowledge = seqnum.add(self.irs + 1, self.received)
            self.ack_deadline_ns = 0
            self.ack_pending_bytes = 0
        context.batch.tcp(
            self.address,
            self.port,
            self.target_address,
            self.target_port,
            seqnum.add(self.iss + 1, offset),
            acknowledge,
            segment_flags,
            self.receive_window(),
            self.timestamps,
            (now_ns // 1_000_000 + context.seed) & _MASK,
            self.timestamp_recent,
            options,
            data,
            data_at,
            length,
            cut,
        )
        context.counts.segments_sent += (length + cut - 1) // cut if cut else 1
        return 0

    def emit_data(self, chunk: Chunk, offset: int, length: int, now_ns: int) -> int:
        """Send `length` bytes of `chunk` from stream offset `offset`."""
        last = offset + length == chunk.end
        return self.emit(
            offset,
            _ACK | _PSH if last else _ACK,
            _NOTHING,
            chunk.data,
            offset - chunk.offset,
            length,
            now_ns,
        )

    # --- new data --------------------------------------------------------------------------

    def send_new(self, now_ns: int) -> int:
        """Send released data as far as both windows allow, then the FIN."""
        queue = self.queue
        window_end = self.snd_una + self.snd_wnd
        congestion_end = self.snd_una + self.cwnd + self._sacked_bytes()
        limit = window_end if window_end < congestion_end else congestion_end
        while self.snd_nxt < queue.released_end:
            chunk = self.cursor = queue.at_or_after(self.cursor, self.snd_nxt)
            if chunk is None:
                break
            length = chunk.end - self.snd_nxt
            if length > self.mss:
                length = self._several(length, limit - self.snd_nxt)
            if self.snd_nxt + length > limit:
                # Part of a segment only into an otherwise empty pipe (RFC 9293, 3.8.6.2.1).
                if self.snd_nxt > self.snd_una or limit <= self.snd_nxt:
                    break
                length = limit - self.snd_nxt
            self.emit_data(chunk, self.snd_nxt, length, now_ns)
            if now_ns - self.last_receive_ns < _PING_PONG:
                self.ping_pong = 1
            if self.rtt_offset < 0:
                self.rtt_offset = self.snd_nxt + min(length, self.mss)
                self.rtt_started_ns = now_ns
            self.snd_nxt += length
        if (
            queue.fin_released
            and self.fin_offset < 0
            and self.snd_nxt == queue.released_end
            and self.snd_nxt <= window_end
        ):
            self.fin_offset = self.snd_nxt
            self.emit(self.snd_nxt, _ACK | _FIN, _NOTHING, _NOTHING, 0, 0, now_ns)
            self.snd_nxt += 1
        if self.rto_deadline_ns == 0:
            if self.snd_nxt > self.snd_una:
                self.rto_deadline_ns = now_ns + self.rto_ns
            elif self.snd_nxt < queue.released_end:
                self.probing = 1
                self.rto_deadline_ns = now_ns + self.rto_ns
        return 0

    def _several(self, length: int, room: int) -> int:
        """How much of `length` bytes, more than one segment, goes into one packet.

        All of it or whole segments, no more than the windows have room for, if the device cuts.
        """
        most = min(self.context.batch.largest, _MOST_SEGMENTS * self.mss, room)
        if most >= length:
            return length
        return most - most % self.mss if most > self.mss else self.mss

    def window_update(self, window: int) -> int:
        """The target announces `window` bytes; a probe in flight is taken back when it opens."""
        self.snd_wnd = cython.cast(cython.uint, window)
        if self.probing and window > 0:
            self.probing = 0
            self.backoff = 0
            self.rto_deadline_ns = 0
            self.snd_nxt = self.snd_una
            self.cursor = None
        return 0

    # --- acknowledgements ------------------------------------------------------------------

    def take_ack(self, offset: int, is_duplicate: bool, now_ns: int) -> int:
        """Process an acceptable acknowledgement; `is_duplicate`: it could be a duplicate ACK."""
        if offset > self.snd_una:
            self._advance(offset, now_ns)
        elif is_duplicate and self.snd_nxt > self.snd_una:
            self.duplicate_acks += 1
            if self.recover < 0:
                if self._is_lost():
                    self._enter_recovery(0, now_ns)
            else:
                self._retransmit_some(1, now_ns)
        return 0

    def _advance(self, offset: int, now_ns: int) -> None:
        acknowledged = offset - self.snd_una
        self.acknowledged_ns = now_ns
        self.snd_una = offset
        if offset == self.snd_nxt:
            self.cursor = None  # an idle connection holds no data
        self.duplicate_acks = 0
        self.backoff = 0
        self.probing = 0
        if 0 <= self.rtt_offset <= offset:
            self._sample(now_ns - self.rtt_started_ns)
            self.rtt_offset = -1
        data_end = offset
        if self.fin_offset >= 0 and offset > self.fin_offset:
            self.fin_acknowledged = 1
            data_end = self.fin_offset
        self.context.counts.bytes_delivered += data_end - self.acknowledged
        self.acknowledged = data_end
        self.context.counts.queued_bytes -= self.queue.acknowledge(data_end)
        if self.sacked is not None:
            self._trim_sacked()
        if self.recover >= 0:
            if offset >= self.recover:
                self.recover = -1
                self.recovering_by_timer = 0
                self.cwnd = max(self.ssthresh, 2 * self.mss)
            else:
                if self.recovering_by_timer:
                    self.cwnd += min(acknowledged, 2 * self.mss)
                self._retransmit_some(2 if self.recovering_by_timer else 1, now_ns)
        elif self.cwnd < self.ssthresh:
            self.cwnd += acknowledged  # slow start (RFC 5681, 3.1; RFC 3465)
        else:
            self.cwnd += max(1, self.mss * self.mss // self.cwnd)
        self.rto_deadline_ns = now_ns + self.rto_ns if self.snd_nxt > self.snd_una else 0

    def _sample(self, rtt_ns: int) -> None:
        """RFC 6298 (2.2, 2.3)."""
        if self.srtt_ns == 0:
            self.srtt_ns = rtt_ns
            self.rttvar_ns = rtt_ns // 2
        else:
            error = self.srtt_ns - rtt_ns
            if error < 0:
                error = -error
            self.rttvar_ns += (error - self.rttvar_ns) // 4
            self.srtt_ns += (rtt_ns - self.srtt_ns) // 8
        rto = self.srtt_ns + max(4 * self.rttvar_ns, _MIN_RTO)
        self.rto_ns = min(rto, _MAX_RTO)

    # --- loss ------------------------------------------------------------------------------

    def _is_lost(self) -> bool:
        """Three duplicates, or fewer when little is in flight (RFC 5827)."""
        needed = 3
        in_flight = (self.snd_nxt - self.snd_una + self.mss - 1) // self.mss
        if in_flight < 4:
            needed = max(1, in_flight - 1)
        return self.duplicate_acks >= needed or self._sacked_bytes() > 2 * self.mss

    def _enter_recovery(self, by_timer: int, now_ns: int) -> None:
        in_flight = self.snd_nxt - self.snd_una
        self.ssthresh = max(in_flight // 2, 2 * self.mss)
        self.cwnd = self.mss if by_timer else self.ssthresh
        self.recover = self.snd_nxt
        self.recovering_by_timer = cython.cast(cython.uchar, by_timer)
        self.retransmit_next = self.snd_una
        self.rtt_offset = -1  # Karn's rule
        self._retransmit_some(1, now_ns)

    def _retransmit_some(self, count: int, now_ns: int) -> None:
        """Send again up to `count` segments that are held to be lost."""
        offset = max(self.retransmit_next, self.snd_una)
        while count > 0 and offset < self.recover:
            offset = self._skip_sacked(offset)
            if offset >= self.recover:
                break
            if (
                not self.recovering_by_timer
                and offset > self.snd_una
                and offset >= self._sacked_top()
            ):
                break  # nothing says that this one is lost
            offset = self._retransmit_at(offset, now_ns)
            count -= 1
        self.retransmit_next = offset

    def _retransmit_at(self, offset: int, now_ns: int) -> int:
        """Send again what stands at `offset`; the offset after it."""
        self.context.counts.retransmitted += 1
        if offset == self.fin_offset:
            self.emit(offset, _ACK | _FIN, _NOTHING, _NOTHING, 0, 0, now_ns)
            return offset + 1
        chunk = self.queue.find(offset)
        if chunk is None:
            return offset + 1 if offset >= self.queue.released_end else self.recover
        length = min(chunk.end - offset, self.mss, self.snd_nxt - offset)
        self.emit_data(chunk, offset, length, now_ns)
        return offset + length

    def retransmission_timeout(self, now_ns: int) -> int:
        """The timer has run out: RFC 6298 (5.4 - 5.7), or a zero-window probe."""
        self.backoff += 1
        wait = self.rto_ns << min(self.backoff, 10)
        self.rto_deadline_ns = now_ns + min(wait, _MAX_RTO)
        if self.probing:
            self._probe(now_ns)
            return 0
        self.duplicate_acks = 0
        if self.backoff == 1:
            self._enter_recovery(1, now_ns)
        else:
            # Again: the acknowledged ranges may have been dropped by the target (RFC 2018, 8).
            self.sacked = None
            self.cwnd = self.mss
            self.recover = self.snd_nxt
            self.recovering_by_timer = 1
            self.retransmit_next = self.snd_una
            self.rtt_offset = -1  # Karn's rule, for what was first sent since the last time-out
            self._retransmit_some(1, now_ns)
        return 0

    def _probe(self, now_ns: int) -> None:
        """One byte beyond the closed window (RFC 9293, 3.8.6.1)."""
        chunk = self.queue.find(self.snd_una)
        if chunk is None:
            return
        self.emit_data(chunk, self.snd_una, 1, now_ns)
        if self.snd_nxt == self.snd_una:
            self.snd_nxt += 1

    # --- selective acknowledgements --------------------------------------------------------

    def take_sack(self, start: int, end: int) -> int:
        """Note that the target holds [start, end); 1 if that is news."""
        if start >= end or end > self.snd_nxt or end <= self.snd_una:
            return 0
        start = max(start, self.snd_una)
        ranges = self.sacked
        if ranges is None:
            self.sacked = [(start, end)]
            return 1
        merged = []
        news = 1
        for left, right in ranges:
            if right < start or left > end:
                merged.append((left, right))
            else:
                if left <= start and end <= right:
                    news = 0
                start = min(start, left)
                end = max(end, right)
        merged.append((start, end))
        merged.sort()
        self.sacked = merged[:_MAX_RANGES]
        return news

    def _trim_sacked(self) -> None:
        una = self.snd_una
        kept = [r if r[0] >= una else (una, r[1]) for r in self.sacked or () if r[1] > una]
        self.sacked = kept or None

    def _sacked_bytes(self) -> int:
        if self.sacked is None:
            return 0
        total = 0
        for start, end in self.sacked:
            total += end - start
        return total

    def _sacked_top(self) -> int:
        if self.sacked is None:
            return self.snd_una
        return self.sacked[len(self.sacked) - 1][1]

    def _skip_sacked(self, offset: int) -> int:
        if self.sacked is not None:
            for start, end in self.sacked:
                if start <= offset < end:
                    return end
        return offset
