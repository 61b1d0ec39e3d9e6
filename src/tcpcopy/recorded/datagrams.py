"""UDP out of files: when reading has to wait for it, and what a pass and the file's times mean.

TCP paces itself, UDP does not: nothing says that a datagram has arrived. So reading waits where a
flow would not be taken on for want of room, and `--fast` sends no more at once than an ordinary
socket buffer takes, and no more ahead of the target's answers, where it answers.

Sans-I/O; the time is passed in.
"""

from __future__ import annotations

from typing import Final

from tcpcopy.engine.datagram import LEAST_IDLE_NS, DatagramEngine
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.twins import DatagramTwins

#: What `--fast` sends in `SLICE_NS`: an eighth of what a socket takes by default (rmem_default,
#: 212,992 bytes, of which the shortest datagram takes 768), or one large datagram.
SLICE_NS: Final = 500_000
SLICE_DATAGRAMS: Final = 32
SLICE_BYTES: Final = 1 << 16
#: Datagrams that `--fast` sends ahead of answers, and how long an answer is waited for then.
MOST_UNANSWERED: Final = 64
PATIENCE_NS: Final = 20_000_000


class DatagramReading:
    """Tells a player when to hand on UDP. Not thread-safe."""

    __slots__ = (
        "_engine",
        "_forgiven",  # datagrams asked less `heard` that are not waited for any more
        "_hears",  # answers are seen (socket mode)
        "_heard",  # answers and refusals so far
        "_heard_before",  # the same when waiting was given up last
        "_is_fast",
        "_is_gated",  # answers are waited for: some have come since waiting was given up
        "_since_ns",  # since then nothing was heard of a full window
        "_slice_bytes",  # captured when the slice began
        "_slice_datagrams",  # likewise
        "_slice_ns",  # when it began
        "_slice_sent",  # datagrams sent when it began
        "handler",  # takes the packets of the file
    )

    def __init__(
        self, engine: DatagramEngine, handler: PacketHandler, *, fast: bool, hears_answers: bool
    ) -> None:
        """`handler`: the engine, or what tells its packets from others."""
        self.handler = handler
        self._engine = engine
        self._is_fast = fast
        self._hears = hears_answers
        self._is_gated = True
        self._forgiven = self._heard = self._heard_before = 0
        self._since_ns = 0
        self._slice_ns = -SLICE_NS
        self._slice_bytes = self._slice_datagrams = self._slice_sent = 0
        engine.counts_lag = not fast
        engine.file_ns = 0
        engine.twins = DatagramTwins()  # whatever devices it was recorded on

    def wait_ns(self, packet: bytes, wire_length: int, now_ns: int) -> int:
        """How long reading has to wait before this packet, at most; 0: not at all."""
        wait_ns = self._room_wait_ns(packet, wire_length, now_ns)
        if wait_ns or not self._is_fast:
            return wait_ns
        return self._slice_wait_ns(now_ns) or (self._answer_wait_ns(now_ns) if self._hears else 0)

    def take(self, timestamp_ns: int) -> None:
        """The packet that is handed on next was captured then: fragments wait by that clock."""
        self._engine.file_ns = timestamp_ns

    def end_pass(self) -> None:
        """All of the file has been handed on; the next pass is new flows."""
        self._engine.end_pass(self._hears)

    def _room_wait_ns(self, packet: bytes, wire_length: int, now_ns: int) -> int:
        engine = self._engine
        if engine.open_legs + engine.most_legs <= engine.max_flows:
            return 0
        oldest = engine.order.oldest
        quiet_ns = LEAST_IDLE_NS if oldest is None else now_ns - oldest.last_ns
        if quiet_ns >= LEAST_IDLE_NS or not engine.would_open(packet, wire_length):
            return 0
        return LEAST_IDLE_NS - quiet_ns

    def _slice_wait_ns(self, now_ns: int) -> int:
        counts = self._engine.counts
        if now_ns - self._slice_ns >= SLICE_NS:
            self._slice_ns = now_ns
            self._slice_bytes = counts.bytes_captured
            self._slice_datagrams = counts.datagrams
            self._slice_sent = counts.datagram_drop_counts()[0]
        elif (
            counts.datagrams - self._slice_datagrams >= SLICE_DATAGRAMS
            or counts.bytes_captured - self._slice_bytes >= SLICE_BYTES
        ):
            return self._slice_ns + SLICE_NS - now_ns
        return 0

    def _answer_wait_ns(self, now_ns: int) -> int:
        counts = self._engine.counts
        heard = counts.answers + counts.refusals
        if heard != self._heard:
            self._heard = heard
            self._since_ns = now_ns
            self._is_gated = True
        # What the output still holds counts as sent.
        asked = self._slice_sent + counts.datagrams - self._slice_datagrams
        self._forgiven = min(self._forgiven, asked - heard)  # more answers than one for each
        if asked - heard - self._forgiven < MOST_UNANSWERED:
            self._since_ns = now_ns
            return 0
        if self._is_gated:
            wait_ns = self._since_ns + PATIENCE_NS - now_ns
            if wait_ns > 0:
                # Answers are taken after reading in a turn of the loop, and wake nobody then.
                return min(wait_ns, SLICE_NS)
        # It does not answer all, or none at all: those are not waited for again.
        self._is_gated = heard != self._heard_before
        self._heard_before = heard
        self._forgiven = asked - heard
        self._since_ns = now_ns
        return 0
