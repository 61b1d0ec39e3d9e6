"""The engine under test, in the shape that the simulation's harness asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.engine import Engine
from tcpcopy.engine.opening import Opener
from tcpcopy.engine.outcome import Outcome
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.sampling import Sampler
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tests.sim.model.cutting import cut
from tests.sim.model.harness import target_of


@dataclass(frozen=True)
class SimTarget:
    """Where the simulation's server listens."""

    target_address: bytes
    target_port: int


class SimTransfers:
    """Every online address has its target."""

    def lookup(self, address: bytes, port: int) -> tuple[SimTarget, ...]:
        return (SimTarget(*target_of(address)),)


class CollectingSink(PacketSink):
    """Keeps what the engine sends until it is drained; what is to be cut, as the device cuts it."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.cut = 0  # packets that came to be cut

    def send_batch(self, batch: PacketBatch) -> None:
        for index in range(batch.count):
            packet, size = batch.packet(index), batch.part_size(index)
            if size:
                self.cut += 1
                self.packets += cut(packet, size)
            else:
                self.packets.append(packet)


class EngineUnderTest:
    """Implements `tests.sim.model.harness.Engine`."""

    def __init__(
        self,
        config: EngineConfig | None = None,
        *,
        copies: int = 1,
        transfers: Any = None,
        allocator: Allocator | None = None,
        largest: int = 0,
    ) -> None:
        """`largest`: a device cuts segments of up to so many bytes."""
        self.config = config or EngineConfig()
        self.bugs: list[str] = []
        self.sink = CollectingSink()
        self.batch = PacketBatch(self.sink, mtu=self.config.mtu)
        self.batch.largest = largest
        self.context = Context(self.config, self.batch)
        opener = Opener(
            self.config,
            self.context,
            transfers=transfers or SimTransfers(),
            identities=allocator or Allocator(copies=copies),
            sampling=Sampler(),
            copies=copies,
        )
        self.engine = Engine(self.config, self.context, opener, on_bug=self.bugs.append)

    def feed_captured(self, packet: bytes, now_ns: int) -> None:
        self.engine.now_ns = now_ns
        self.engine.packet(packet, 0, len(packet), len(packet), now_ns)

    def feed_answer(self, packet: bytes, now_ns: int) -> None:
        self.engine.now_ns = now_ns
        self.engine.answers.packet(packet, 0, len(packet), len(packet), now_ns)

    def run_timers(self, now_ns: int) -> None:
        self.engine.now_ns = now_ns
        self.engine.run_timers()

    def next_deadline_ns(self) -> int | None:
        deadline = self.engine.next_deadline_ns()
        return None if deadline < 0 else deadline

    def drain(self) -> list[bytes]:
        self.batch.flush()
        packets, self.sink.packets = self.sink.packets, []
        return packets

    def outcomes(self) -> dict[str, int]:
        """Sessions by outcome, those that are not zero."""
        counts = self.context.counts.outcome_counts()
        return {outcome.name: counts[outcome] for outcome in Outcome if counts[outcome]}

    def check_ended(self) -> None:
        """Every session ended once, nothing is held any more, and no bug was met."""
        assert not self.bugs, self.bugs[0]
        counts = self.context.counts
        assert counts.live == 0, f"{counts.live} sessions never ended"
        assert sum(counts.outcome_counts()) == counts.sessions
        assert counts.queued_bytes == 0
        assert sum(counts.capture_drop_counts()) == counts.packets_captured
        assert sum(counts.answer_drop_counts()) == counts.packets_answered

    def live(self) -> Iterator[Any]:
        return self.engine.sessions()
