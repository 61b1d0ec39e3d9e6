"""A one-way link with faults: delay, jitter, loss, duplication, MTU, queue limit, black-outs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .clock import Clock
from .wire import RST, WireError, describe


@dataclass(frozen=True, slots=True)
class Faults:
    """What a link does to packets. Times are nanoseconds, probabilities 0 to 1."""

    delay_ns: int = 100_000
    jitter_ns: int = 0  # added at random, so packets overtake each other
    loss: float = 0.0
    duplication: float = 0.0
    mtu: int | None = 1500  # a bigger packet fails the test; None lets all through
    queue_limit: int | None = None  # packets under way; what comes on top is lost
    blackouts: tuple[tuple[int, int], ...] = ()  # (from, to): everything is lost

    @property
    def faulty(self) -> bool:
        """Whether a packet may be lost or overtaken."""
        return bool(self.jitter_ns or self.loss or self.blackouts or self.queue_limit is not None)


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """What a link did with one packet."""

    time_ns: int
    link: str
    action: str
    packet: bytes

    def __str__(self) -> str:
        return f"{self.time_ns / 1e6:12.3f} ms {self.link:<7} {self.action:<9} " + describe(
            self.packet
        )


class Link:
    """Carries packets from `send` to the `deliver` call; `trace` gets an entry per packet."""

    __slots__ = (
        "_clock",
        "_deliver",
        "_faults",
        "_name",
        "_random",
        "_trace",
        "_under_way",
        "lost",
        "lost_resets",
    )

    def __init__(
        self,
        name: str,
        clock: Clock,
        random: Random,
        faults: Faults,
        deliver: Callable[[bytes], None],
        trace: list[TraceEntry],
    ) -> None:
        self._name = name
        self._clock = clock
        self._random = random
        self._faults = faults
        self._deliver = deliver
        self._trace = trace
        self._under_way = 0
        self.lost = 0  # packets that never arrive
        self.lost_resets: set[bytes] = set()  # addresses and ports of lost RSTs, as on the wire

    def send(self, packet: bytes) -> None:
        """Take one packet.

        Raises: WireError when it is larger than the MTU.
        """
        faults = self._faults
        if faults.mtu is not None and len(packet) > faults.mtu:
            raise WireError(
                f"{self._name}: {len(packet)} bytes exceed the MTU of {faults.mtu}: "
                + describe(packet)
            )
        if self._random.random() < faults.loss:
            self._lose("lost", packet)
        elif any(start <= self._clock.now_ns < end for start, end in faults.blackouts):
            self._lose("blackout", packet)
        elif faults.queue_limit is not None and self._under_way >= faults.queue_limit:
            self._lose("overflow", packet)
        else:
            self._carry("sent", packet)
            if faults.duplication and self._random.random() < faults.duplication:
                self._carry("doubled", packet)

    def _lose(self, action: str, packet: bytes) -> None:
        self.lost += 1
        self._trace.append(TraceEntry(self._clock.now_ns, self._name, action, packet))
        start = 40 if packet[0] >> 4 == 6 else (packet[0] & 15) * 4
        if packet[start + 13] & RST:
            self.lost_resets.add(flow_bytes(packet))

    def _carry(self, action: str, packet: bytes) -> None:
        delay_ns = self._faults.delay_ns
        if self._faults.jitter_ns:
            delay_ns += self._random.randrange(self._faults.jitter_ns + 1)
        self._trace.append(TraceEntry(self._clock.now_ns, self._name, action, packet))
        self._under_way += 1

        def arrive() -> None:
            self._under_way -= 1
            self._deliver(packet)

        self._clock.after(delay_ns, arrive)


def flow_bytes(packet: bytes) -> bytes:
    """Return addresses and ports as they stand in the packet, source first."""
    if packet[0] >> 4 == 6:
        return packet[8:44]
    start = (packet[0] & 15) * 4
    return packet[12:20] + packet[start : start + 4]
