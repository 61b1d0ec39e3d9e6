"""The captured half knows how far away its client is: what is put back between answer and turn.

The handshake tells first: from the SYN to the segment that follows it. It may have taken longer
than what comes later (a radio that woke up, a busy host), so two things lower it. With timestamps
each turn echoes the clock of the server's newest segment, and the handshake tells what that clock
showed when; a clock that does not count milliseconds is found out and not used. Without them, what
came as a reaction took a round trip at least.

Source: RFC 7323 (4), DESIGN section 4, "Pacing".
"""

from __future__ import annotations

import cython

from tcpcopy.engine import seqnum
from tcpcopy.engine.captured import CapturedHalf
from tcpcopy.engine.context import Context
from tcpcopy.packet.segment import Segment

# Round trips below this are not put back: the wake-up would cost more than it tells.
RTT_FLOOR_NS = 250_000
# A handshake that took longer is a SYN that was lost, not a distance.
MAX_RTT_NS = 1_000_000_000
# The server's clock counts milliseconds (RFC 7323, 5.4): below this it tells nothing.
ECHO_FLOOR_NS = 4_000_000
TICK_NS = 1_000_000

_RTT_FLOOR = RTT_FLOOR_NS
_MAX_RTT = MAX_RTT_NS
_ECHO_FLOOR = ECHO_FLOOR_NS
_TICK = TICK_NS


class MeasuredHalf(CapturedHalf):
    """A captured half with the client's round-trip time."""

    __slots__ = (
        "client_rtt_ns",  # the round-trip time that the capture showed, as captured, 0: none
        "context",
        "echo_from",  # what the server's clock showed at the handshake
        "echo_from_ns",  # capture time of that, 0: echoes tell nothing
        "rtt_ns",  # the round-trip time to put back
        "syn_ns",  # capture time of the SYN while the round-trip time is not known, 0 else
    )

    def __init__(self, context: Context) -> None:
        self.set_up_measured(context)

    def set_up_measured(self, context: Context) -> None:
        """See `Timed.set_up_timed`."""
        self.set_up_captured()
        self.client_rtt_ns = 0
        self.context = context
        self.echo_from = 0
        self.echo_from_ns = 0
        self.rtt_ns = context.rtt_ns
        self.syn_ns = 0

    def wants_options(self) -> bool:
        """Whether the next segment is to be given with its options parsed."""
        return self.syn_ns != 0 or self.echo_from_ns != 0

    def note_handshake(self, segment: Segment, captured_ns: int) -> int:
        """The first segment after the SYN, an acknowledgement; 1 when it tells a round trip."""
        as_captured = self._as_captured(captured_ns - self.syn_ns)
        known = _RTT_FLOOR <= as_captured <= _MAX_RTT
        if known:
            self.client_rtt_ns = cython.cast(cython.uint, as_captured)
            self._put_back(captured_ns - self.syn_ns)
        if known and as_captured >= _ECHO_FLOOR and segment.timestamp_present:
            self.echo_from = cython.cast(cython.uint, segment.timestamp_echo)
            self.echo_from_ns = self.syn_ns
        self.syn_ns = 0
        return 1 if known else 0

    def note_echo(self, segment: Segment, captured_ns: int) -> int:
        """A segment with data, while `wants_options`."""
        if not segment.timestamp_present:
            return 0
        ticks = seqnum.difference(segment.timestamp_echo, self.echo_from)
        sample = self._as_captured(captured_ns - self.echo_from_ns) - ticks * _TICK
        if sample < -_TICK:
            self.echo_from_ns = 0  # this clock is faster than one that counts milliseconds
        elif sample + _TICK < self.client_rtt_ns:
            sample = max(sample, _TICK)
            self.client_rtt_ns = cython.cast(cython.uint, sample)
            self._put_back(int(cython.cast(cython.double, sample) / self.context.speed))
        return 0

    def note_reaction(self, gap_ns: int) -> int:
        """The client reacted so long after its last turn, in which a round trip is contained."""
        if gap_ns < self.rtt_ns:
            self._put_back(gap_ns)
        return 0

    def note_urgent(self) -> int:
        """An urgent byte was taken out of the stream."""
        self.context.counts.urgent += 1
        return 0

    def _as_captured(self, nanoseconds: int) -> int:
        return int(cython.cast(cython.double, nanoseconds) * self.context.speed)

    def _put_back(self, rtt_ns: int) -> None:
        if self.context.rtt_ns != 0:
            return  # -R
        self.rtt_ns = rtt_ns if rtt_ns >= _RTT_FLOOR else 0
        if self.rtt_ns > _MAX_RTT:
            self.rtt_ns = _MAX_RTT
