"""A recorded stream made by a test, and an engine that it is played to, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

from tcpcopy.engine.context import EngineConfig
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.recorded.feed import Feed
from tcpcopy.recorded.player import Player, RecordedConfig
from tcpcopy.recorded.stream import PacketStream
from tests.sim.model import wire
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import ONLINE_PORT, START, Answerer, Caller, Ports, World

RECORDED_NS = 1_600_000_000 * SECOND


class Tape:
    """What is recorded: stands for the world of a `Caller`, and for a PacketStream afterwards."""

    total_bytes = 0

    def __init__(self) -> None:
        self.now = 0  # of the recording, nanoseconds
        self.packets: list[tuple[int, bytes]] = []
        self.at = 0
        self.rewinds = 0
        self.ready = 1 << 60  # a pipe that has so many packets
        self.problems: list[str] = []

    def capture(self, packet: bytes) -> int:
        """Record one packet."""
        self.packets.append((RECORDED_NS + self.now, packet))
        return 0

    def caller(self, port: int, isn: int = 0xFFFF_FFF0) -> Caller:
        """A client that is recorded."""
        return Caller(cast(World, self), port, isn=isn)

    def is_ready(self) -> bool:
        return self.at < self.ready

    def next_ns(self) -> int:
        return self.packets[self.at][0] if self.at < len(self.packets) else -1

    def hand_on(self, handler: PacketHandler) -> int:
        time, packet = self.packets[self.at]
        self.at += 1
        return handler.packet(packet, 0, len(packet), len(packet), time)

    def rewind(self) -> None:
        self.at = 0
        self.rewinds += 1

    @property
    def bytes_read(self) -> int:
        return sum(len(packet) for _, packet in self.packets[: self.at])


class SlowAnswerer(Answerer):
    """Answers after `delay_ns`, each packet for itself; remembers when what was heard."""

    def __init__(self, world: World, reply: str, delay_ns: int) -> None:
        super().__init__(world, reply)
        self.delay_ns = delay_ns
        self.waiting: list[tuple[int, wire.Segment]] = []
        self.times: list[tuple[int, str]] = []

    def step(self) -> int:
        now = self.world.now
        for segment in self.world.sent():
            if segment.payload:
                self.times.append((now, segment.payload.decode()))
                if self.delay_ns >= SECOND:  # as any host does, or all would be sent again
                    seq = self.isn + 1 + self.told[segment.key]
                    self.tell(segment, "A", seq=seq, ack=segment.seq + len(segment.payload))
            self.waiting.append((now + self.delay_ns, segment))
        due = [segment for at, segment in self.waiting if at <= now]
        self.waiting = [(at, segment) for at, segment in self.waiting if at > now]
        for segment in due:
            if segment.source_port not in self.deaf:
                self._take(segment)
        return len(due)


class Stage:
    """A tape, a player, an engine and a target."""

    def __init__(
        self,
        tape: Tape,
        *,
        config: EngineConfig | None = None,
        reply: str = "ok",
        delay_ns: int = 0,
        memory_bytes: int = 1 << 30,
        **recorded: Any,
    ) -> None:
        self.tape = tape
        self.recorded = RecordedConfig(paths=("tape",), **recorded)
        self.world = World(
            replace(
                config or EngineConfig(),
                recorded=True,
                speed=float(self.recorded.engine_speed),
                paced=not self.recorded.fast,
            ),
            ports=Ports(limit=1 << 20),
        )
        self.target = SlowAnswerer(self.world, reply, delay_ns)
        self.player = Player(
            self.recorded,
            cast(PacketStream, tape),
            Feed([ONLINE_PORT]),
            self.world.engine,
            memory_bytes=memory_bytes,
        )
        self.peak_busy = 0
        self.peak_queued = 0

    def run(self, until: Callable[[], bool] | None = None, limit_ns: int = 100_000 * SECOND) -> int:
        """Play to the end, or until `until()`; nanoseconds that it took."""
        engine, player, counts = self.world.engine, self.player, self.world.counts
        begin = self.world.now
        for _ in range(1_000_000):
            while player.play(engine.now_ns):
                self._note()
                self._serve()
            self._serve()
            self._note()
            if until() if until is not None else player.finished and counts.live == 0:
                return self.world.now - begin
            times = [at + START for at, _ in self.target.waiting]
            times += [deadline for deadline in (engine.next_deadline_ns(),) if deadline > 0]
            times += [player.due_ns] if player.due_ns > 0 else []
            assert times, "nothing will ever happen again"
            engine.now_ns = max(engine.now_ns, min(times))
            assert self.world.now - begin < limit_ns, "it does not end"
        raise AssertionError("it does not end")

    def _serve(self) -> None:
        self.world.engine.run_timers()
        while self.target.step():
            pass

    def _note(self) -> None:
        self.peak_busy = max(self.peak_busy, self.world.counts.busy)
        self.peak_queued = max(self.peak_queued, self.world.counts.queued_bytes)

    def check(self) -> None:
        """All has ended, all accounts close."""
        counts = self.world.counts
        assert counts.busy == 0
        feed = self.player.feed
        passes = self.tape.rewinds + 1
        assert feed.taken + feed.left_out == len(self.tape.packets) * passes
        assert feed.taken == counts.packets_captured
        self.world.check_ended()


def talk(tape: Tape, caller: Caller, texts: list[str], gap_ns: int, reply: int = 2) -> None:
    """A connection of one request after the other, each after its answer."""
    caller.syn()
    tape.now += MS
    caller.give("A")
    for number, text in enumerate(texts):
        tape.now += gap_ns
        caller.say(text, seen=number * reply)
    tape.now += gap_ns
    caller.fin(seen=len(texts) * reply)


__all__ = ["MS", "RECORDED_NS", "SECOND", "Fraction", "Stage", "Tape", "talk"]
