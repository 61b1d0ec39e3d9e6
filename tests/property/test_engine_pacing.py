"""Pacing over whole conversations: turns in step, exact times, no stall, whatever is answered."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.engine.pacing import SURPLUS_MIN_NS, WAIT_MIN_NS
from tests.unit.engine.gating import Gate
from tests.unit.engine.rig import MS

STALL_NS = 1000 * WAIT_MIN_NS


@dataclass(frozen=True)
class Exchange:
    """One turn: what online and the target answer to it, and how."""

    gap_ns: int  # from the online answer to this turn, beyond the round trip
    online: int  # bytes that online answered
    parts: tuple[int, ...]  # bytes that the target answers, part by part
    latency_ns: int  # from the turn's release to the first part
    spread_ns: int  # between the parts
    pushed: bool  # whether the last part is pushed


def exchanges(equal: bool) -> st.SearchStrategy[Exchange]:
    """Any turn; with `equal` the target answers as many bytes as online did."""
    sizes = st.integers(1, 5000)
    times = st.integers(1000, 80 * MS)

    def make(
        gap: int, sizes: list[int], more: int, latency: int, spread: int, pushed: bool
    ) -> Exchange:
        online = sum(sizes) if equal else more
        return Exchange(gap, online, tuple(sizes), latency, spread, pushed)

    parts = st.lists(sizes, min_size=1, max_size=3)
    spread = st.integers(1000, 20 * MS)
    return st.builds(make, times, parts, sizes, times, spread, st.booleans())


@dataclass
class Run:
    """What happened: when turns were captured and released, and when the target spoke."""

    gate: Gate
    captured: list[int]
    released: list[int]
    heard: list[list[int]]  # times of the parts of each turn's answer

    def last_heard(self, turn: int) -> int:
        """When the newest part came before a turn was released."""
        times = [at for parts in self.heard for at in parts if at <= self.released[turn]]
        return max(times, default=0)


def run(found: list[Exchange], rtt_ns: int) -> Run:
    """Play the conversation: the target answers each turn when it is released."""
    gate = Gate(rtt_ns=rtt_ns)
    captured, seen, now = [], 0, 0
    events: list[tuple[int, int, int, int, bool]] = []  # time, kind, turn, size, pushed
    for number, exchange in enumerate(found):
        now += exchange.gap_ns + rtt_ns
        captured.append(now)
        heapq.heappush(events, (now, 0, number, seen, False))
        seen += exchange.online
    result = Run(gate, captured, [], [[] for _ in found])
    while len(result.released) < len(found):
        look = gate.look(now) if gate.half.gate is not None else None
        if look == 0:
            turn = len(result.released)
            gate.goes(now)
            result.released.append(now)
            at = now + found[turn].latency_ns
            for index, size in enumerate(found[turn].parts):
                last = index == len(found[turn].parts) - 1
                heapq.heappush(events, (at, 1, turn, size, last and found[turn].pushed))
                at += found[turn].spread_ns
            continue
        assert events or look is not None, "nothing opens the gate any more"
        if look is not None and (not events or look <= events[0][0]):
            assert look > now
            now = look
            continue
        at, kind, turn, size, pushed = heapq.heappop(events)
        if kind == 0 and not result.released and turn == 0:
            now = at
        now = max(now, at)
        if kind == 0:
            gate.turn(at, seen=size)
        else:
            gate.answer(at, size, pushed=pushed)
            result.heard[turn].append(at)
        assert now < STALL_NS
    return result


@given(st.lists(exchanges(True), min_size=1, max_size=12), st.sampled_from((0, MS, 60 * MS)))
def test_same_answers_give_exact_times(found: list[Exchange], rtt_ns: int) -> None:
    """A turn goes when it was captured, or with the pushed end of the answer and the round trip."""
    played = run(found, rtt_ns)
    for turn in range(1, len(found)):
        before = found[turn - 1]
        answered = played.heard[turn - 1][-1]
        assert len(played.heard[turn - 1]) == len(before.parts)
        if before.pushed:
            assert played.released[turn] == max(played.captured[turn], answered + rtt_ns)
        else:
            assert played.released[turn] >= max(played.captured[turn], answered + rtt_ns)
    assert played.gate.counts.waits_expired == 0
    assert played.gate.half.drift == 0
    assert played.gate.half.streaming == 0


@given(st.lists(exchanges(False), min_size=1, max_size=12), st.sampled_from((0, MS, 60 * MS)))
def test_other_answers_never_stall(found: list[Exchange], rtt_ns: int) -> None:
    """Every turn goes, after the target spoke (or time to), and within the bound after that.

    What is heard may be the rest of an earlier answer: bytes do not say to what they belong.
    """
    played = run(found, rtt_ns)
    counts = played.gate.counts
    assert counts.turns_captured == counts.turns_replayed == len(found)
    for turn in range(1, len(found)):
        released = played.released[turn]
        assert released >= played.captured[turn]
        since = played.released[turn - 1]
        spoke = any(since < at <= released for parts in played.heard for at in parts)
        assert spoke or released - since >= SURPLUS_MIN_NS, "sent on an open question"
        newest = max(played.captured[turn], played.last_heard(turn), played.released[turn - 1])
        assert released - newest <= 10 * WAIT_MIN_NS + rtt_ns


@given(st.lists(exchanges(False), min_size=2, max_size=8), st.integers(0, 3))
def test_capture_times_are_never_undercut(found: list[Exchange], start: int) -> None:
    """However fast the target is: a turn is sent no earlier than it was captured."""
    fast = [Exchange(e.gap_ns, e.online, e.parts, 1, 1, True) for e in found]
    played = run(fast, start * MS)
    for captured, released in zip(played.captured, played.released, strict=True):
        assert released >= captured
