"""What a session sees of its replayed half, whatever carries it to the target."""

from __future__ import annotations

# How a replayed half ended; 0 while it runs.
RUNNING = 0
CLOSED = 1  # both sides have closed
REFUSED = 2
RESET_BY_TARGET = 3
RESET_SENT = 4  # the client's RST has been replayed
CONNECT_TIMEOUT = 5
ANSWER_TIMEOUT = 6  # data not acknowledged within -t
SEND_FAILED = 7  # this host could not open or use the connection
RESET_AT_END = 8  # by the target, which had acknowledged all data before the client's FIN


class Replayed:
    """The connection towards the target, as far as pacing and outcomes need it."""

    __slots__ = (
        "acknowledged",  # stream offset that the target has acknowledged
        "acknowledged_ns",  # when it last acknowledged something, 0: never, or not known
        "coarse",  # pushes are not seen: each read counts as one
        "ended",  # RUNNING or how it ended
        "established",  # the target has accepted the connection
        "fin_acknowledged",  # the target knows that the client has closed
        "last_receive_ns",  # when the target last sent something new
        "looks",  # an answer is to begin: which kind it is, is wanted
        "pushed",  # the newest data ended with a push (or the socket was drained)
        "received",  # server bytes received in order; the target's FIN counts one
        "said",  # the kind of the answer that has begun (said.kinds), NONE: not seen
        "target_closed",  # the target's FIN was received
    )

    def __init__(self) -> None:
        self.set_up_replayed()

    def set_up_replayed(self) -> None:
        """See `Timed.set_up_timed`."""
        self.acknowledged = 0
        self.acknowledged_ns = 0
        self.coarse = 0
        self.ended = RUNNING
        self.established = 0
        self.fin_acknowledged = 0
        self.last_receive_ns = 0
        self.looks = 1
        self.pushed = 0
        self.received = 0
        self.said = 0
        self.target_closed = 0

    def open(self, now_ns: int) -> int:
        """Start to connect."""
        raise NotImplementedError

    def begin_at(self, offset: int) -> int:
        """Before `open`: what the client sent before stream offset `offset` is not sent."""
        raise NotImplementedError

    def connect_by(self, deadline_ns: int) -> int:
        """After `open`: wait no longer for the target to accept."""
        raise NotImplementedError

    def transmit(self, now_ns: int) -> int:
        """Send what has been released and may be sent now."""
        raise NotImplementedError

    def abort(self, now_ns: int) -> int:
        """Give the connection up; the target is told with a RST where it knows of it."""
        raise NotImplementedError

    def run_timers(self, now_ns: int) -> int:
        """Do what is due."""
        raise NotImplementedError

    def deadline_ns(self) -> int:
        """When `run_timers` is wanted next; 0: not by itself."""
        raise NotImplementedError

    def undelivered(self) -> int:
        """Bytes counted in `acknowledged` that the target may not have acknowledged yet."""
        return 0

    def linger(self, now_ns: int) -> int:
        """The session is over: drop what it held, keep what late packets need. 1: nothing."""
        raise NotImplementedError
