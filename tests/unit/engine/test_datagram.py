"""The UDP engine on its own: flows, legs, limits, times, and counts that add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tcpcopy.engine.datagram import (
    AWAIT_NS,
    IDLE_NS,
    LEAST_IDLE_NS,
    DatagramConfig,
    DatagramEngine,
    ProtocolSwitch,
)
from tcpcopy.engine.flow import DatagramCounts, DatagramOutput, Leg
from tcpcopy.engine.forged import PacketOutput
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import AddressPool, parse_clients
from tcpcopy.mapping.sampling import Sampler
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.segment import Segment, parse_udp, payload
from tcpcopy.report.flow_outcome import DatagramDrop, FlowOutcome

CLIENT = bytes((10, 1, 0, 7))
ONLINE = bytes((10, 2, 0, 1))
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Target:
    target_address: bytes = bytes((10, 9, 0, 3))
    target_port: int = 5353


class Table:
    """-x: port 53 goes to the targets."""

    def __init__(self, *targets: Target) -> None:
        self.targets = targets or (Target(),)

    def lookup(self, address: bytes, port: int, /) -> tuple[Target, ...]:
        return self.targets if port == 53 else ()


class Recorder(DatagramOutput):
    """Keeps what it is to send; `refuse` says why the next legs cannot be opened."""

    def __init__(self, counts: DatagramCounts) -> None:
        self.counts = counts
        self.sent: list[tuple[Leg, bytes]] = []
        self.opened: list[tuple[bytes, int, int]] = []
        self.closed: list[Leg] = []
        self.refuse: list[int] = []
        self.error: Exception | None = None
        self.on_close: Callable[[Leg], object] = lambda leg: None

    def open(self, leg: Leg, client_address: bytes, client_port: int, copy: int) -> int:
        self.opened.append((client_address, client_port, copy))
        return self.refuse.pop(0) if self.refuse else 0

    def send(self, leg: Leg, data: Any, at: int, length: int) -> int:
        if self.error is not None:
            raise self.error
        self.sent.append((leg, bytes(data[at : at + length])))
        self.counts.sent(leg, length, 1)
        return 0

    def flush(self) -> None:
        pass

    def close(self, leg: Leg) -> None:
        self.closed.append(leg)
        self.on_close(leg)


class World:
    """An engine with a recorder, and packets for it."""

    def __init__(
        self, config: DatagramConfig | None = None, percentage: int = 100, *targets: Target
    ) -> None:
        self.counts = DatagramCounts()
        self.output = Recorder(self.counts)
        self.bugs: list[str] = []
        self.engine = DatagramEngine(
            config or DatagramConfig(),
            self.output,
            self.counts,
            transfers=Table(*targets),
            sampling=Sampler(percentage),
            on_bug=self.bugs.append,
        )
        self.engine.now_ns = 100 * SECOND

    def send(self, data: bytes = b"hello", port: int = 40000, **fields: Any) -> int:
        packet = datagram(data, port, **fields)
        return self.engine.packet(packet, 0, len(packet), len(packet), 0)

    def wait(self, nanoseconds: int) -> None:
        self.engine.now_ns += nanoseconds
        self.engine.run_timers()

    def outcomes(self) -> dict[str, int]:
        """After the end of all flows: what they came to. Checks that the sums close."""
        self.engine.close_all()
        counts = self.counts
        assert counts.live == 0 and not self.engine.flows and self.engine.open_legs == 0
        assert counts.seen == sum(counts.outcome_counts())
        assert counts.datagrams == sum(counts.datagram_drop_counts())
        assert counts.packets == sum(counts.packet_drop_counts())
        found = counts.outcome_counts()
        return {outcome.name: found[outcome] for outcome in FlowOutcome if found[outcome]}


def datagram(
    data: bytes, port: int, *, online_port: int = 53, client: bytes = CLIENT, mtu: int = 9000
) -> bytes:
    batch = PacketBatch(PacketSink(), 128, mtu)
    batch.udp(client, port, ONLINE, online_port, data, 0, len(data), mtu)
    return batch.packet(0)


def test_datagrams_go_out_as_they_came() -> None:
    world = World()
    for data in (b"one", b"", b"three" * 500):
        assert world.send(data) == 0
    assert [data for _, data in world.output.sent] == [b"one", b"", b"three" * 500]
    assert len({id(leg) for leg, _ in world.output.sent}) == 1
    assert world.counts.bytes_sent == world.counts.bytes_captured == 3 + 2500
    assert world.outcomes() == {"REPLAYED": 1}


def test_a_leg_for_each_target_and_copy() -> None:
    targets = Target(), Target(target_port=5354)
    world = World(DatagramConfig(copies=3), 100, *targets)
    world.send()
    assert world.output.opened == [(CLIENT, 40000, copy) for copy in (0, 1, 2)] * 2
    ports = [leg.target_port for leg, _ in world.output.sent]
    assert ports == [5353] * 3 + [5354] * 3
    assert (world.counts.seen, world.counts.datagrams, world.counts.peak) == (6, 6, 6)
    assert world.outcomes() == {"REPLAYED": 6}


def test_what_x_does_not_name() -> None:
    world = World()
    assert world.send(online_port=54) == DatagramDrop.NO_TRANSFER
    assert world.outcomes() == {}


def test_sampling_decides_once() -> None:
    """-r: a flow left out stays left out, and counts for every leg that it would have had."""
    world = World(DatagramConfig(copies=2), 30)
    for port in range(1000, 1200):
        world.send(port=port)
        world.send(port=port)
    taken = len(world.output.sent) // 4
    assert 30 < taken < 90
    assert world.counts.datagram_drop_counts()[DatagramDrop.SKIPPED_FLOW] == (200 - taken) * 4
    assert world.outcomes() == {"REPLAYED": taken * 2, "SKIPPED_SAMPLING": (200 - taken) * 2}


def test_idle_flows_end() -> None:
    world = World()
    world.send(port=1)
    world.wait(IDLE_NS - 1)
    world.send(port=2)
    assert world.engine.next_deadline_ns() == 100 * SECOND + IDLE_NS
    world.wait(1)
    assert len(world.engine.flows) == 1 and len(world.output.closed) == 1
    world.send(port=1)
    assert world.counts.seen == 3, "it comes back as another flow"
    assert world.outcomes() == {"REPLAYED": 3}


def test_answers_keep_a_flow() -> None:
    world = World()
    world.send()
    leg = world.output.sent[0][0]
    world.wait(IDLE_NS - 1)
    world.engine.answered(leg, 70)
    world.wait(IDLE_NS - 1)
    assert world.engine.flows
    world.wait(1)
    assert not world.engine.flows
    world.engine.answered(leg, 1)  # too late, counted all the same
    assert (world.counts.answers, world.counts.answer_bytes, world.counts.answered) == (2, 71, 1)


def test_answers_found_at_the_end_of_a_flow() -> None:
    """They are counted, and the flows that go on stay in their order."""
    world = World(DatagramConfig(copies=2))
    world.output.on_close = lambda leg: world.engine.answered(leg, 9)
    for port in (1, 2, 3):
        world.send(port=port)
        world.wait(SECOND)
    world.wait(IDLE_NS - 2 * SECOND)
    assert (len(world.engine.flows), world.counts.answers) == (1, 4)
    world.send(port=4)
    assert world.outcomes() == {"REPLAYED": 8}
    assert world.counts.answers == world.counts.answered == 8
    assert world.bugs == []


def test_the_quietest_flow_makes_room() -> None:
    world = World(DatagramConfig(max_flows=2))
    for port in (1, 2):
        world.send(port=port)
        world.wait(LEAST_IDLE_NS)
    world.send(port=1)
    world.send(port=3)
    assert [leg.flow is None for leg in world.output.closed] == [True]
    assert [leg for leg, _ in world.output.sent].index(world.output.closed[0]) == 1, "port 2"
    assert world.outcomes() == {"REPLAYED": 3}


def test_busy_flows_are_not_ended_for_new_ones() -> None:
    world = World(DatagramConfig(max_flows=2))
    for port in (1, 2, 3):
        world.send(port=port)
    world.send(port=3)
    assert world.counts.datagram_drop_counts()[DatagramDrop.SHED_FLOW] == 2
    assert world.outcomes() == {"REPLAYED": 2, "SHED_FLOWS": 1}


def test_flows_left_out_take_no_room() -> None:
    world = World(DatagramConfig(max_flows=100), 50)
    for port in range(1000, 1150):
        world.send(port=port)
    assert "SHED_FLOWS" not in world.outcomes()


def test_a_limit_of_the_system_ends_the_quietest() -> None:
    """No descriptor or port left: what is quiet ends, and it is tried again, once."""
    world = World()
    world.send(port=1)
    world.wait(LEAST_IDLE_NS)
    world.output.refuse = [-1]
    world.send(port=2)
    assert len(world.output.sent) == 2
    world.output.refuse = [-1, -1]
    world.send(port=3)
    assert world.outcomes() == {"REPLAYED": 2, "SEND_FAILED": 1}


def test_shut_and_opened_again() -> None:
    """All flows end, and what follows of them is left out, until it is let in again."""
    world = World()
    world.send(port=1)
    for shut in (int(FlowOutcome.SHED_FORWARDED), 0):
        world.engine.shut = shut
        world.engine.close_all()
        for port in (1, 2, 2):
            world.send(port=port)
        assert len(world.output.sent) == (1 if shut else 4)
    assert world.outcomes() == {"REPLAYED": 3, "SHED_FORWARDED": 2}


def test_memory_is_short() -> None:
    """New flows are left out, and the table does not grow; flows that are there go on."""
    world = World()
    for port in range(1, 11):
        world.send(port=port)
    world.engine.memory_is_short = True
    world.send(port=10)
    for port in range(100, 200):
        world.send(port=port)
    assert len(world.engine.flows) == 10
    assert len(world.output.sent) == 11
    assert world.outcomes() == {"REPLAYED": 10, "SHED_MEMORY": 100}


def test_table_is_bounded() -> None:
    world = World(DatagramConfig(max_entries=50), 1)
    for port in range(1000, 2000):
        world.send(port=port)
        assert len(world.engine.flows) <= 50
    world.outcomes()


def test_no_address() -> None:
    world = World()
    world.output.refuse = [int(FlowOutcome.NO_ADDRESS)]
    world.send()
    world.send()
    assert world.output.sent == [] and world.output.closed == []
    assert world.outcomes() == {"NO_ADDRESS": 1}


def test_cut_datagrams_are_not_sent() -> None:
    world = World()
    packet = datagram(b"x" * 100, 40000)
    world.engine.packet(packet, 0, 80, len(packet), 0)
    assert world.output.sent == []
    world.send()
    assert world.counts.datagram_drop_counts()[DatagramDrop.CUT] == 1
    assert world.outcomes() == {"INCOMPLETE": 1}


@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        (lambda counts, leg: counts.refused(leg), "REFUSED"),
        (lambda counts, leg: counts.failed(leg, 1), "INCOMPLETE"),
        (lambda counts, leg: (counts.failed(leg, 1), counts.refused(leg)), "REFUSED"),
    ],
)
def test_outcomes(spoil: Callable[[DatagramCounts, Leg], object], outcome: str) -> None:
    world = World()
    world.send()
    spoil(world.counts, world.output.sent[0][0])
    world.counts.datagrams += world.counts.datagram_drop_counts()[DatagramDrop.SEND_ERROR]
    assert world.outcomes() == {outcome: 1}


def test_our_own_bug_ends_nothing_else() -> None:
    world = World()
    world.send(port=1)
    world.output.error = ValueError("a bug")
    world.send(port=2)
    world.output.error = None
    world.send(port=3)
    assert len(world.bugs) == 1 and "a bug" in world.bugs[0]
    assert world.outcomes() == {"REPLAYED": 2, "SEND_FAILED": 1}


def test_unfinished_are_those_asked_and_not_answered() -> None:
    world = World()
    world.send(port=1)
    world.send(port=2)
    world.engine.answered(world.output.sent[0][0], 5)
    assert world.engine.unfinished() == 1
    world.wait(AWAIT_NS)
    assert world.engine.unfinished() == 0


def test_long_packets_are_counted() -> None:
    """In one piece and longer than a usual packet: perhaps several, merged by the kernel."""
    world = World()
    world.send(bytes(1472))
    assert world.counts.large == 0
    world.send(bytes(1473))
    assert world.counts.large == 1
    assert world.outcomes() == {"REPLAYED": 1}


def test_fragments_are_joined_and_counted() -> None:
    world = World()
    batch = PacketBatch(PacketSink(), 128, 1500)
    data = bytes(range(256)) * 20
    batch.udp(CLIENT, 9, ONLINE, 53, data, 0, len(data), 1500)
    parts = [batch.packet(index) for index in range(batch.count)]
    for part in parts:
        assert world.engine.packet(part, 0, len(part), len(part), 0) == 0
    assert [sent for _, sent in world.output.sent] == [data]
    assert (world.counts.fragments, world.counts.joined) == (4, 1)
    for part in parts[:2]:
        world.engine.packet(part, 0, len(part), len(part), 0)
    world.engine.packet(parts[2], 0, len(parts[2]), len(parts[2]), 0)
    assert world.outcomes() == {"REPLAYED": 1}
    assert world.counts.packet_drop_counts()[DatagramDrop.FRAGMENT] == 3


# --- packets ----------------------------------------------------------------------------------


class Lossy(PacketSink):
    """Keeps packets; those at the places in `bad` fail."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.bad: set[int] = set()
        self.failures: list[tuple[int, int]] = []

    def send_batch(self, batch: PacketBatch) -> None:
        for index in range(batch.count):
            if index in self.bad:
                self.failures.append((index, 1))
            else:
                self.packets.append(batch.packet(index))


def forged(pool: AddressPool | None = None, copies: int = 1) -> tuple[DatagramEngine, Lossy]:
    sink = Lossy()
    counts = DatagramCounts()
    output = PacketOutput(
        PacketBatch(sink, 128, 1500), counts, Allocator(pool, copies=copies, cooldown_ns=0), 1500
    )
    output.failures = sink.failures
    engine = DatagramEngine(
        DatagramConfig(copies=copies), output, counts, transfers=Table(), sampling=Sampler()
    )
    return engine, sink


def test_clients_keep_their_addresses() -> None:
    engine, sink = forged()
    packet = datagram(b"hi", 40000)
    engine.packet(packet, 0, len(packet), len(packet), 0)
    engine.flush()
    assert len(sink.packets) == 1
    assert sink.packets[0][12:24] == CLIENT + Target().target_address + packet[20:22] + b"\x14\xe9"


def test_two_live_flows_never_share_an_address_and_port() -> None:
    pool = parse_clients("10.99.0.1", option="-c")
    engine, sink = forged(pool, copies=2)
    for host in range(1, 200):
        packet = datagram(b"x", 5000, client=bytes((10, 1, 0, host)))
        engine.packet(packet, 0, len(packet), len(packet), 0)
    engine.flush()
    shown = [packet[12:16] + packet[20:22] for packet in sink.packets]
    assert len(shown) == len(set(shown)) == 398
    engine.close_all()
    assert engine.counts.outcome_counts()[FlowOutcome.REPLAYED] == 398


def test_a_fragment_that_fails_fails_its_datagram() -> None:
    """Counted once, and for the right flow; the others are sent."""
    engine, sink = forged()
    for port, size in ((1, 10), (2, 4000), (3, 10)):  # places 0, 1 to 3, 4
        packet = datagram(bytes(size), port)
        engine.packet(packet, 0, len(packet), len(packet), 0)
    sink.bad = {2, 3}
    engine.flush()
    counts = engine.counts
    assert counts.datagram_drop_counts()[0] == 2
    assert counts.datagram_drop_counts()[DatagramDrop.SEND_ERROR] == 1
    engine.close_all()
    outcomes = counts.outcome_counts()
    assert outcomes[FlowOutcome.REPLAYED] == 2 and outcomes[FlowOutcome.SEND_FAILED] == 1
    assert counts.errors == {1: 1}


def test_longest_datagrams_fit_the_batch() -> None:
    engine, sink = forged()
    for _ in range(5):
        packet = datagram(bytes(65507), 7, mtu=65535)
        engine.packet(packet, 0, len(packet), len(packet), 0)
    engine.flush()
    assert len(sink.packets) == 5 * 45
    assert engine.counts.bytes_sent == 5 * 65507


# --- the switch -------------------------------------------------------------------------------


class Named(PacketHandler):
    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        self.seen.append(bytes(data[start:end]))
        return 0


def test_switch_tells_udp_from_the_rest() -> None:
    udp, others = Named(), Named()
    switch = ProtocolSwitch(udp, others)
    whole = datagram(b"hi", 40000)
    tcp = whole[:9] + b"\x06" + whole[10:]
    v6 = b"\x60" + bytes(5) + b"\x11\x40" + bytes(40)
    v6_options = (
        b"\x60" + bytes(5) + b"\x00\x40" + bytes(32) + b"\x2c" + bytes(7) + b"\x11" + bytes(15)
    )
    v6_tcp = b"\x60" + bytes(5) + b"\x2c\x40" + bytes(32) + b"\x06" + bytes(15)
    for packet in (whole, tcp, v6, v6_options, v6_tcp, b"", b"\x45" * 19, b"\x60" * 30):
        switch.packet(packet, 0, len(packet), len(packet), 0)
    assert udp.seen == [whole, v6, v6_options]
    assert len(others.seen) == 5


def test_payload_stands_behind_options_of_ip() -> None:
    whole = datagram(b"payload", 1)
    packet = b"\x46\0\0\x27" + whole[4:20] + b"\1\1\1\1" + whole[20:]
    segment = Segment()
    assert parse_udp(segment, packet, 0, len(packet), len(packet)) == 0
    assert payload(segment, packet, 0) == b"payload"
