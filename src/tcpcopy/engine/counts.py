"""What the engine counts while it runs: plain numbers, copied into a report when asked."""

from __future__ import annotations

from array import array

from tcpcopy.engine.outcome import DROP_SLOTS, OUTCOME_SLOTS, Outcome
from tcpcopy.report.histogram import Histogram
from tcpcopy.said.tally import Tally

_INCOMPLETE = int(Outcome.HANDSHAKE_INCOMPLETE)


class Counts:
    """Totals since the start; every captured packet is used or dropped with a reason."""

    __slots__ = (
        "answer_bytes",  # bytes that the targets sent
        "answer_drops",  # array by Drop; slot 0 counts answers used
        "begun_at_accept",  # `begun()` when the target last accepted a session
        "busy",  # recorded: sessions with work that does not depend on what is captured next
        "bytes_captured",  # client payload taken into sessions
        "bytes_delivered",  # of it, acknowledged by the targets
        "answer_time",  # histogram: a turn released to the first byte of its answer, ns
        "capture_drops",  # array by Drop; slot 0 counts captured packets used
        "client_first",  # connections seen from their SYN whose client spoke first
        "capture_lag",  # histogram: a turn captured to the same turn released, ns
        "connects_retried",  # connects tried again, and those of sessions that went on
        "far",  # connections whose round-trip time is put back
        "established",  # sessions that the target accepted
        "live",  # sessions open now
        "outcomes",  # array by Outcome
        "picked_up",  # sessions begun in mid-stream
        "packets_answered",  # packets of the targets that came in
        "packets_captured",  # captured packets that came in
        "peak",  # most sessions open at once
        "queued_bytes",  # memory that waiting payload takes now, in all sessions; 0 when idle
        "retransmitted",  # segments sent again
        "retry_waited",  # sessions that waited in line for a target that refused
        "retry_waiting",  # those that do now
        "said",  # what each target said, by its address and port
        "segments_sent",
        "server_first",  # connections seen from their SYN whose server spoke first
        "sessions",  # captured connections, times copies and targets
        "sessions_resumed",  # sessions cut by the target that went on with a later turn
        "turns_captured",
        "urgent",  # urgent bytes, which are no part of a stream
        "turns_late",  # turns released later than captured, because the target was slower
        "turns_missed",  # of `turns_replayed`, those under way when such a session was cut
        "turns_replayed",
        "waiting",  # of `sessions`, those whose SYN waits for a sign of life
        "waits_expired",  # gates opened because an answer did not come as it did online
    )

    def __init__(self) -> None:
        self.outcomes = array("q", bytes(8 * OUTCOME_SLOTS))
        self.capture_drops = array("q", bytes(8 * DROP_SLOTS))
        self.answer_drops = array("q", bytes(8 * DROP_SLOTS))
        self.answer_time = Histogram()
        self.capture_lag = Histogram()
        self.answer_bytes = 0
        self.begun_at_accept = 0
        self.busy = 0
        self.bytes_captured = 0
        self.bytes_delivered = 0
        self.client_first = 0
        self.connects_retried = 0
        self.established = 0
        self.far = 0
        self.live = 0
        self.packets_answered = 0
        self.packets_captured = 0
        self.peak = 0
        self.picked_up = 0
        self.queued_bytes = 0
        self.retransmitted = 0
        self.retry_waited = 0
        self.retry_waiting = 0
        self.said: dict[tuple[bytes, int], Tally] = {}
        self.segments_sent = 0
        self.server_first = 0
        self.sessions = 0
        self.sessions_resumed = 0
        self.turns_captured = 0
        self.turns_late = 0
        self.turns_missed = 0
        self.turns_replayed = 0
        self.urgent = 0
        self.waiting = 0
        self.waits_expired = 0

    def tally(self, address: bytes, port: int) -> Tally:
        """The counts of what that target says."""
        tally = self.said.get((address, port))
        if tally is None:
            tally = self.said[(address, port)] = Tally()
        return tally

    def count_established(self) -> None:
        """The target has accepted one more session."""
        self.established += 1
        self.begun_at_accept = self.begun()

    def begun(self) -> int:
        """Sessions that were opened, left out or not taken on: all but those of a SYN alone."""
        return self.sessions - self.waiting - self.outcomes[_INCOMPLETE]

    def count_outcome(self, outcome: int) -> None:
        """One more session has ended so."""
        self.outcomes[outcome] += 1

    def outcome_counts(self) -> list[int]:
        """A copy, indexed by Outcome."""
        return list(self.outcomes)

    def capture_drop_counts(self) -> list[int]:
        """A copy, indexed by Drop; slot 0 is the packets used."""
        return list(self.capture_drops)

    def answer_drop_counts(self) -> list[int]:
        """A copy, indexed by Drop; slot 0 is the answers used."""
        return list(self.answer_drops)
