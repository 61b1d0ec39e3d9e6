"""UDP of a file played on a virtual clock: when, in which flows, and what reading waits for."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, cast

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.datagram import LEAST_IDLE_NS, DatagramConfig, DatagramEngine, ProtocolSwitch
from tcpcopy.engine.flow import DatagramCounts, DatagramOutput, Leg
from tcpcopy.mapping.sampling import Sampler
from tcpcopy.mapping.transfers import TransferTable, parse_transfers
from tcpcopy.recorded.datagrams import (
    MOST_UNANSWERED,
    PATIENCE_NS,
    SLICE_BYTES,
    SLICE_DATAGRAMS,
    SLICE_NS,
    DatagramReading,
)
from tcpcopy.recorded.player import Player, RecordedConfig, open_feed
from tcpcopy.recorded.stream import PacketStream
from tests.lab.capture_files import ip, udp
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import World
from tests.unit.recorded.tape import Tape


class Answering(DatagramOutput):
    """Sends to a target that answers after `delay_ns`, every `of`-th datagram (0: none)."""

    def __init__(self, counts: DatagramCounts) -> None:
        self.counts = counts
        self.now_ns = 0
        self.delay_ns = 0
        self.of = 1
        self.number = 0
        self.sent: list[tuple[int, int, bytes]] = []  # time, leg, payload
        self.legs: list[Leg] = []
        self.due: list[tuple[int, Leg]] = []

    def open(self, leg: Leg, client_address: bytes, client_port: int, copy: int) -> int:
        self.legs.append(leg)
        return 0

    def send(self, leg: Leg, data: Any, at: int, length: int) -> int:
        self.counts.sent(leg, length, self.now_ns)
        self.sent.append((self.now_ns, self.legs.index(leg), bytes(data[at : at + length])))
        self.number += 1
        if self.of and self.number % self.of == 0:
            self.due.append((self.now_ns + self.delay_ns, leg))
        return 0

    def flush(self) -> None:
        pass

    def close(self, leg: Leg) -> None:
        pass

    def flows(self) -> list[list[bytes]]:
        """Payloads of each leg in the order of opening."""
        found: list[list[bytes]] = [[] for _ in self.legs]
        for _, number, data in self.sent:
            found[number].append(data)
        return found


class Stage:
    """A tape with datagrams to port 53, a player, both engines."""

    def __init__(
        self,
        tape: Tape,
        *,
        hears: bool = True,
        delay_ns: int = MS,
        of: int = 1,
        config: DatagramConfig | None = None,
        both: bool = False,
        memory_bytes: int = 1 << 30,
        **recorded: Any,
    ) -> None:
        self.tape = tape
        self.recorded = RecordedConfig(paths=("tape",), **recorded)
        self.world = World(EngineConfig(recorded=True, speed=float(self.recorded.engine_speed)))
        self.counts = DatagramCounts()
        self.output = Answering(self.counts)
        self.output.delay_ns, self.output.of = delay_ns, of
        self.hears = hears
        self.engine = DatagramEngine(
            config or DatagramConfig(),
            self.output,
            self.counts,
            transfers=TransferTable(parse_transfers("53-10.9.0.3:5353")),
            sampling=Sampler(100),
        )
        handler = ProtocolSwitch(self.engine, self.world.engine) if both else self.engine
        self.player = Player(
            self.recorded,
            cast(PacketStream, tape),
            open_feed((53,), EXPRESSION),
            self.world.engine,
            memory_bytes=memory_bytes,
            udp=DatagramReading(self.engine, handler, fast=self.recorded.fast, hears_answers=hears),
        )
        self.most_at_once = 0
        self.begin = self.world.engine.now_ns

    def run(self) -> int:
        """Play to the end; nanoseconds that it took."""
        tcp, udp, player, output = self.world.engine, self.engine, self.player, self.output
        for _ in range(1_000_000):
            udp.now_ns = output.now_ns = tcp.now_ns
            before = len(output.sent)
            player.play(tcp.now_ns)
            self.most_at_once = max(self.most_at_once, len(output.sent) - before)
            if self.hears:
                for _, leg in [answer for answer in output.due if answer[0] <= tcp.now_ns]:
                    udp.answered(leg, 1)
            output.due = [answer for answer in output.due if answer[0] > tcp.now_ns]
            udp.run_timers()
            if player.finished:
                return tcp.now_ns - self.begin
            times = [at for at, _ in output.due] if self.hears else []
            times += [player.due_ns] if player.due_ns > 0 else [tcp.now_ns + 1]
            tcp.now_ns = max(tcp.now_ns + 1, min(times))
        raise AssertionError("it does not end")

    def outcomes(self) -> dict[int, int]:
        """What the flows came to; all sums close."""
        self.engine.close_all()
        counts = self.counts
        assert counts.live == 0 == self.engine.open_legs and not self.engine.flows
        assert counts.seen == sum(counts.outcome_counts())
        assert counts.datagrams == sum(counts.datagram_drop_counts())
        assert counts.packets == sum(counts.packet_drop_counts()) == self.player.feed.taken
        return {number: count for number, count in enumerate(counts.outcome_counts()) if count}


EXPRESSION = "udp dst port 53 or (ip[9] == 17 and ip[6:2] & 0x1fff != 0)"
REPLAYED = 1


def question(tape: Tape, port: int, data: bytes) -> None:
    tape.capture(udp(f"10.1.0.7:{port}", "10.2.0.1:53", data))


def numbered(flows: int, each: int, gap_ns: int = MS) -> Tape:
    tape = Tape()
    for number in range(each):
        for flow in range(flows):
            question(tape, 10_000 + flow, b"%d.%d" % (flow, number))
            tape.now += gap_ns
    return tape


def wanted(flows: int, each: int) -> list[list[bytes]]:
    return [[b"%d.%d" % (flow, number) for number in range(each)] for flow in range(flows)]


@pytest.mark.parametrize("speed", [Fraction(1), Fraction(10), Fraction(1, 2)])
def test_datagrams_go_when_they_were_recorded(speed: Fraction) -> None:
    stage = Stage(numbered(3, 4, 100 * MS), speed=speed)
    stage.run()
    assert stage.output.flows() == wanted(3, 4)
    for number, (at, _, _) in enumerate(stage.output.sent):
        assert abs(at - stage.begin - number * 100 * MS / speed) <= 1
    assert stage.counts.lag.count == 12
    assert stage.counts.lag.percentile(100) <= 1
    assert stage.outcomes() == {REPLAYED: 3}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("hears", [False, True])
def test_passes_are_flows_of_their_own(hears: bool, fast: bool) -> None:
    stage = Stage(numbered(5, 3), hears=hears, passes=3, fast=fast, delay_ns=5 * MS)
    stage.run()
    assert stage.output.flows() == wanted(5, 3) * 3
    if not hears:  # nothing may be waited for: the same clients can be shown again
        assert stage.counts.live == 0
    assert stage.outcomes() == {REPLAYED: 15}


def test_answers_of_the_pass_before_are_counted() -> None:
    stage = Stage(numbered(5, 3), passes=2, fast=True, delay_ns=100 * MS)
    stage.run()
    stage.engine.now_ns += SECOND
    for _, leg in stage.output.due:
        stage.engine.answered(leg, 1)
    assert stage.counts.answers == 30 and stage.counts.answered == 10


@pytest.mark.parametrize("hears", [False, True])
def test_fast_sends_no_more_at_once_than_a_socket_takes(hears: bool) -> None:
    stage = Stage(numbered(100, 10), hears=hears, fast=True, delay_ns=MS // 10)
    took = stage.run()
    assert stage.output.flows() == wanted(100, 10)
    assert stage.most_at_once == SLICE_DATAGRAMS
    # Not slower than that either, a thousandth of the file's second.
    assert took <= (1000 // SLICE_DATAGRAMS + 1) * SLICE_NS + 2 * MS
    assert stage.counts.lag.count == 0, "no time at which they should have gone"


def test_fast_sends_large_datagrams_one_by_one() -> None:
    tape = Tape()
    for number in range(20):
        question(tape, 40_000, bytes([number]) * 40_000)
    stage = Stage(tape, fast=True)
    stage.run()
    assert stage.most_at_once == SLICE_BYTES // 40_000 + 1
    assert len(stage.output.sent) == 20


def test_fast_stays_near_a_slow_target() -> None:
    """It answers 15 ms later: no more than a window is ahead of it at any time."""
    stage = Stage(numbered(10, 100), fast=True, delay_ns=15 * MS)
    took = stage.run()
    assert stage.output.flows() == wanted(10, 100)
    times = [at for at, _, _ in stage.output.sent]
    for first, later in zip(times, times[MOST_UNANSWERED:], strict=False):
        assert later - first >= 15 * MS
    assert took >= (1000 // MOST_UNANSWERED - 1) * 15 * MS


def test_fast_does_not_wait_for_answers_that_never_come() -> None:
    stage = Stage(numbered(10, 1000), fast=True, of=0)
    assert stage.run() <= PATIENCE_NS + (10_000 // SLICE_DATAGRAMS + 1) * SLICE_NS
    assert stage.output.flows() == wanted(10, 1000)


def test_fast_with_a_target_that_answers_half() -> None:
    stage = Stage(numbered(10, 200), fast=True, of=2)
    assert stage.run() <= 2000 // MOST_UNANSWERED * (PATIENCE_NS + 2 * MS)
    assert stage.output.flows() == wanted(10, 200)


@pytest.mark.parametrize("fast", [False, True])
def test_reading_waits_for_room(fast: bool) -> None:
    """More flows at once than there may be: the quietest ends, none is left out."""
    config = DatagramConfig(max_flows=20)
    stage = Stage(numbered(200, 1, 1000), config=config, fast=fast)
    took = stage.run()
    assert sorted(stage.output.flows()) == sorted(wanted(200, 1))
    assert stage.counts.peak <= 21  # the new one counts before the old one ends
    assert took >= (200 // 20 - 1) * LEAST_IDLE_NS
    assert stage.outcomes() == {REPLAYED: 200}


def test_no_room_is_no_hindrance_for_flows_that_have_it() -> None:
    stage = Stage(numbered(20, 50, 1000), config=DatagramConfig(max_flows=20))
    assert stage.run() <= 20 * 50 * 1000 + MS
    assert stage.output.flows() == wanted(20, 50)


def halves(first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """The two fragments of a datagram of two times 8 bytes."""
    whole = udp("10.1.0.7:40000", "10.2.0.1:53", first + second)[20:]
    ends = "10.1.0.7", "10.2.0.1"
    return ip(*ends, 17, whole[:16], fragment=0x2000), ip(*ends, 17, whole[16:], fragment=2)


@pytest.mark.parametrize("recorded", [{"speed": Fraction(1000)}, {"fast": True}])
def test_fragments_wait_by_the_clock_of_the_file(recorded: dict[str, Any]) -> None:
    """A first half without its second, and 31 s later in the file the number comes again."""
    tape = Tape()
    first, _ = halves(b"lost....", b"lost....")
    tape.capture(first)
    tape.now += 31 * SECOND
    for piece in halves(b"first...", b"second.."):
        tape.capture(piece)
        tape.now += MS
    stage = Stage(tape, **recorded)
    stage.run()
    assert stage.output.flows() == [[b"first...second.."]]
    assert stage.outcomes() == {REPLAYED: 1}
    assert stage.counts.joined == 1


def test_fragments_of_two_passes_are_not_put_together() -> None:
    """The file begins with a second half and ends with a first one of the same number."""
    tape = Tape()
    first, second = halves(b"first...", b"second..")
    tape.capture(second)
    tape.now += 31 * SECOND  # too late for the first one
    question(tape, 40_001, b"x")
    tape.capture(first)
    stage = Stage(tape, passes=2, speed=Fraction(1000))
    stage.run()
    assert stage.output.flows() == [[b"x"]] * 2
    assert stage.counts.joined == 0
    assert stage.outcomes() == {REPLAYED: 2}


def test_other_traffic_beside() -> None:
    """TCP goes to its own engine, answers of UDP servers are left out."""
    tape = numbered(2, 2)
    tape.capture(udp("10.2.0.1:53", "10.1.0.7:10000", b"answer"))
    stage = Stage(tape, both=True)
    stage.run()
    assert stage.output.flows() == wanted(2, 2)
    assert stage.player.feed.left_out == 1
    assert stage.world.counts.packets_captured == 0
