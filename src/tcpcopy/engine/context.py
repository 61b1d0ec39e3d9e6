"""What all sessions of one engine share: where packets go, settings, counts."""

from __future__ import annotations

from dataclasses import dataclass

from tcpcopy.engine.counts import Counts
from tcpcopy.engine.pauses import Pauses
from tcpcopy.packet.batch import PacketBatch

SECOND_NS = 1_000_000_000
# How long a connection that has ended is known: twice the longest life of a segment (RFC 9293).
REMEMBER_NS = 120 * SECOND_NS
# "Generously: many times what the online answer took."
WAIT_FACTOR = 10


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of an engine; times in nanoseconds, 0 where "off" or "as the client" is meant."""

    answer_timeout_ns: int = 600 * SECOND_NS  # -t
    idle_timeout_ns: int = 720 * SECOND_NS  # -k
    connect_timeout_ns: int = 20 * SECOND_NS
    hole_timeout_ns: int = 10 * SECOND_NS
    retry_ns: int = 0  # --retry: for how long a refused session is tried again, and cut ones go on
    linger_ns: int = SECOND_NS  # a closed session answers late packets for so long
    close_timeout_ns: int = (
        60 * SECOND_NS
    )  # for the target's FIN after the client's is acknowledged
    rtt_ns: int = 0  # -R: used for every session instead of what the capture shows
    mtu: int = 1500  # -M
    mss: int = 0  # -D: announced to the target instead of the client's
    wait_for_answers: bool = True  # not -W
    full_sessions_only: bool = False  # -O
    max_sessions: int = 0
    seed: int = 0  # initial sequence numbers and timestamps
    recorded: bool = False  # packets come from files: `Context.capture_ns` is the client's clock
    speed: float = 1.0  # recorded: so many times faster than it was captured
    paced: bool = True  # turns have a time at which they should go (not --fast)


class Context:
    """The shared part, with C fields for the hot path.

    What is about the client (holes, idle sessions, packets after the end) is measured on the clock
    of the capture. Live that is `now_ns`; of files it is `capture_ns`, the time up to which all
    packets have been taken: it stands still while a file is read on later. The time-outs kept
    here are in units of that clock, in which a file may pass faster (`speed`).

    While this process stands still (it was stopped, or its host was) nothing is read, so that time
    is nobody's silence: what would give a session up counts from `resumed_ns` at the earliest.
    Slots of `--rate` are on a clock that stood still, too (`rate_clock_ns`).
    """

    __slots__ = (
        "answer_timeout_ns",
        "answer_usual_ns",  # smoothed time from a turn to its answer, over all sessions, 0: none
        "batch",
        "capture_ns",  # recorded: set by the owner
        "close_timeout_ns",
        "connect_timeout_ns",
        "counts",
        "hole_look_ns",  # recorded: when to look at a session with a hole again
        "hole_timeout_ns",
        "idle_look_ns",  # recorded: when to look at an idle session again
        "idle_timeout_ns",
        "linger_ns",
        "mss",
        "mtu",
        "paced",
        "pauses",  # what is known of the targets' pauses within answers
        "recorded",
        "remember_ns",  # how long a connection that has ended is known
        "resumes",  # a session that the target cut goes on with its next turn (engine.retry)
        "resumed_ns",  # when the last standstill of this process ended, 0: there was none
        "rtt_ns",
        "seed",
        "speed",
        "stood_still_ns",  # how long all standstills took
        "turn_rate",  # --rate of requests (mapping.rate.RateLimit), or None
        "wait_factor",  # a wait is bounded by so many times what the online answer took
        "wait_for_answers",
    )

    def __init__(self, config: EngineConfig, batch: PacketBatch) -> None:
        self.batch = batch
        self.counts = Counts()
        self.answer_timeout_ns = config.answer_timeout_ns
        self.answer_usual_ns = 0
        self.close_timeout_ns = config.close_timeout_ns
        self.connect_timeout_ns = config.connect_timeout_ns
        self.speed = config.speed
        self.recorded = config.recorded
        self.paced = config.paced
        self.capture_ns = 0
        self.hole_look_ns = 0
        self.idle_look_ns = 0
        self.hole_timeout_ns = int(config.hole_timeout_ns / config.speed)
        self.idle_timeout_ns = int(config.idle_timeout_ns / config.speed)
        self.remember_ns = int(REMEMBER_NS / config.speed)
        self.resumes = config.retry_ns > 0 and not config.full_sessions_only
        self.resumed_ns = 0
        self.stood_still_ns = 0
        self.turn_rate: object | None = None
        self.wait_factor = max(1, int(WAIT_FACTOR * config.speed))
        self.linger_ns = config.linger_ns
        self.mss = config.mss
        self.mtu = config.mtu
        self.pauses = Pauses()
        self.rtt_ns = config.rtt_ns
        self.seed = config.seed
        self.wait_for_answers = config.wait_for_answers

    def note_answer_time(self, nanoseconds: int) -> int:
        """A turn was answered after that time."""
        self.counts.answer_time.record(nanoseconds)
        if self.answer_usual_ns == 0:
            self.answer_usual_ns = nanoseconds
        self.answer_usual_ns += (nanoseconds - self.answer_usual_ns) // 16
        return 0

    def stand_still(self, now_ns: int, duration_ns: int) -> None:
        """This process goes on at `now_ns` after so long."""
        self.resumed_ns = now_ns
        self.stood_still_ns += duration_ns

    def connect_ends_ns(self, deadline_ns: int) -> int:
        """The deadline of a connect, later after a standstill."""
        bound_ns = self.resumed_ns + self.connect_timeout_ns
        return bound_ns if bound_ns > deadline_ns else deadline_ns

    def rate_clock_ns(self, now_ns: int) -> int:
        """The time by which slots of `--rate` go: none passes while nobody could take it."""
        return now_ns - self.stood_still_ns
