"""The end of a run: what was captured is worked on, what there is no time for is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tcpcopy.capture.ring import Ring
from tcpcopy.capture.unwrapping import Unwrapping
from tcpcopy.ending import EXIT_WAIT_NS, Ending, count_ring, count_unread
from tcpcopy.engine.unread import Unread
from tcpcopy.loop import STANDSTILL_NS, Loop
from tcpcopy.packet.handler import PacketHandler
from tests.lab.capture_files import ethernet, tcp
from tests.lab.encapsulations import fragments, vxlan
from tests.unit.engine.world import ONLINE_PORT, Caller, Table, World

FAR_NS = 1 << 62


class FakeRing:
    """Holds packets as a ring does, and hands them on."""

    def __init__(self, packets: list[bytes]) -> None:
        self.packets = packets

    def drain(self, handler: PacketHandler, limit: int) -> int:
        taken, self.packets = self.packets[:limit], self.packets[limit:]
        for packet in taken:
            handler.packet(packet, 0, len(packet), len(packet), 0)
        return len(taken)

    def waiting(self) -> int:
        return len(self.packets)


class Run:
    """A loop whose backlog holds SYNs of new connections."""

    def __init__(self, syns: int) -> None:
        self.world = World()
        self.world.engine.now_ns = 0
        self.loop = Loop(self.world.engine, self.world.batch, lambda now_ns: None)
        for packet in self.syns(syns):
            self.loop.backlog.packet(packet, 0, len(packet), len(packet), 0)
        self.unread = Unread(Table(), 1, engine=self.world.engine)

    def syns(self, count: int, first: int = 1024) -> list[bytes]:
        return [Caller(self.world, first + n).packet("S", at=-1) for n in range(count)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The clock that `ending` looks at."""
    now = [time.monotonic_ns()]
    monkeypatch.setattr("tcpcopy.ending.time", SimpleNamespace(monotonic_ns=lambda: now[0]))
    yield now


def test_what_stands_in_the_backlog_is_replayed() -> None:
    run = Run(2000)
    ticks: list[int] = []
    ending = Ending(run.loop, [], lambda: False, ticks.append)
    ending.read(run.unread)
    assert run.world.counts.sessions == run.world.counts.packets_captured == 2000
    assert run.unread.total == 0 and len(run.loop.backlog) == 0
    assert ticks, "the reports go on meanwhile"


def test_a_second_signal_leaves_the_rest_unread_and_counted() -> None:
    run = Run(2000)
    Ending(run.loop, [], lambda: True, lambda now_ns: None).read(run.unread)
    begun = run.world.counts.sessions
    assert 0 < begun < 2000, "one turn's worth"
    assert begun + run.unread.sessions == begun + run.unread.packets == 2000
    assert len(run.loop.backlog) == 0 == run.loop.backlog.held_bytes


def test_the_time_there_is_leaves_the_rest_unread_and_counted(clock: list[int]) -> None:
    run = Run(2000)
    clock[0] -= EXIT_WAIT_NS  # the ending began so long ago
    ending = Ending(run.loop, [], lambda: False, lambda now_ns: None)
    clock[0] += EXIT_WAIT_NS
    ending.read(run.unread)
    assert 0 < run.world.counts.sessions < 2000
    assert run.world.counts.sessions + run.unread.sessions == 2000


def test_a_standstill_takes_nothing_of_that_time(clock: list[int]) -> None:
    """The process is stopped for longer than an ending may take: all is replayed nevertheless."""
    run = Run(2000)
    run.loop.turn()
    clock[0] -= 2 * EXIT_WAIT_NS
    ending = Ending(run.loop, [], lambda: False, lambda now_ns: None)
    clock[0] += 2 * EXIT_WAIT_NS
    run.loop.awaited_ns -= 2 * EXIT_WAIT_NS  # the turn that should have been then comes now
    ending.read(run.unread)
    assert run.world.context.stood_still_ns >= 2 * EXIT_WAIT_NS > STANDSTILL_NS
    assert run.world.counts.sessions == 2000 and run.unread.total == 0


def test_rings_are_looked_at_as_well() -> None:
    run = Run(3)
    rings = [FakeRing(run.syns(700, 3000)), FakeRing(run.syns(5, 9000))]
    count_unread(run.loop, cast(Any, rings), run.unread)
    assert (run.unread.packets, run.unread.sessions) == (708, 708)


def test_what_is_in_tunnels_is_what_is_unread() -> None:
    """Of tunnels the packets within are counted, and their sessions; the rest has its own count."""
    run = Run(0)
    within = Unwrapping(run.world.engine, [ONLINE_PORT], lambda packet: packet[2:] != b"")
    run.loop.handler = within
    tunnelled = [vxlan(ethernet(packet)) for packet in run.syns(3)]
    piece = fragments(vxlan(ethernet(Caller(run.world, 900).packet("PA", payload=bytes(99)))), 64)
    other = vxlan(ethernet(tcp("10.9.0.2:40000", "10.9.0.1:81", 2)))
    for packet in (*tunnelled, piece[0], other):
        run.loop.backlog.packet(packet, 0, len(packet), len(packet), 0)
    rings = [FakeRing([vxlan(ethernet(packet)) for packet in run.syns(2, 5000)])]
    count_unread(run.loop, cast(Any, rings), run.unread)
    assert (run.unread.packets, run.unread.sessions) == (5, 5)
    assert (within.kept, within.left_out, within.unwrapper.lost) == (1, 1, 1)


def test_what_there_is_no_time_to_look_at_is_counted_all_the_same(clock: list[int]) -> None:
    run = Run(0)
    ring = FakeRing(run.syns(700))
    count_ring(cast(Ring, ring), run.unread, clock[0])
    assert (run.unread.packets, run.unread.sessions) == (700, 0)
    count_ring(cast(Ring, ring), run.unread, FAR_NS)
    assert (run.unread.packets, run.unread.sessions) == (1400, 700)


def test_open_sessions_have_the_time_that_is_left(clock: list[int]) -> None:
    """And no longer; and none of it when nothing is left to do."""
    run = Run(0)
    clock[0] -= EXIT_WAIT_NS - 50_000_000
    late = Ending(run.loop, [], lambda: False, lambda now_ns: None)
    clock[0] += EXIT_WAIT_NS
    looks: list[int] = []

    def look(unfinished: int) -> int:
        looks.append(unfinished)
        return unfinished

    late.wait(lambda: look(1))
    assert looks
    looks.clear()
    Ending(run.loop, [], lambda: False, lambda now_ns: None).wait(lambda: look(0))
    assert looks == [0]
