"""What all sessions of one engine share: where packets go, settings, counts."""

from __future__ import annotations

from dataclasses import dataclass

from tcpcopy.engine.counts import Counts
from tcpcopy.packet.batch import PacketBatch

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of an engine; times in nanoseconds, 0 where "off" or "as the client" is meant."""

    answer_timeout_ns: int = 600 * SECOND_NS  # -t
    idle_timeout_ns: int = 720 * SECOND_NS  # -k
    connect_timeout_ns: int = 20 * SECOND_NS
    hole_timeout_ns: int = 10 * SECOND_NS
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
    max_queued_bytes: int = 0
    seed: int = 0  # initial sequence numbers and timestamps


class Context:
    """The shared part, with C fields for the hot path."""

    __slots__ = (
        "answer_timeout_ns",
        "batch",
        "close_timeout_ns",
        "connect_timeout_ns",
        "counts",
        "hole_timeout_ns",
        "idle_timeout_ns",
        "linger_ns",
        "mss",
        "mtu",
        "rtt_ns",
        "seed",
        "wait_for_answers",
    )

    def __init__(self, config: EngineConfig, batch: PacketBatch) -> None:
        self.batch = batch
        self.counts = Counts()
        self.answer_timeout_ns = config.answer_timeout_ns
        self.close_timeout_ns = config.close_timeout_ns
        self.connect_timeout_ns = config.connect_timeout_ns
        self.hole_timeout_ns = config.hole_timeout_ns
        self.idle_timeout_ns = config.idle_timeout_ns
        self.linger_ns = config.linger_ns
        self.mss = config.mss
        self.mtu = config.mtu
        self.rtt_ns = config.rtt_ns
        self.seed = config.seed
        self.wait_for_answers = config.wait_for_answers
