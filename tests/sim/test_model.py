"""The simulation's models are sound: the server's TCP, the links, the conversations, the harness.

A failure here means that a failure of the engine in the simulation says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sim.model import conversation, harness
from tests.sim.model.app import Finish, Script, answer_bytes
from tests.sim.model.capture import Captured, render, successor, with_hole
from tests.sim.model.client import ClientConfig
from tests.sim.model.clock import MILLISECOND, SECOND, Clock
from tests.sim.model.config import near_wrap
from tests.sim.model.conversation import Ending, Plan, TargetHabits, Turn
from tests.sim.model.link import Faults, Link, TraceEntry
from tests.sim.model.pacing import early_turns, turn_delays
from tests.sim.model.reference import ReferenceEngine
from tests.sim.model.server import Admission, Server
from tests.sim.model.wire import (
    ACK,
    FIN,
    RST,
    SEQUENCE_MASK,
    SYN,
    Segment,
    WireError,
    cut_answer,
    decode,
    decode_cut,
    encode,
)

CLIENT = bytes((192, 0, 2, 7))
PLAIN = Plan(seed=1, client=CLIENT, client_port=4000, turns=(Turn(100, 200), Turn(3000, 5000)))
slow_ok = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


# The wire.


def segments() -> st.SearchStrategy[Segment]:
    """Any segment of either family whose options fit."""
    numbers = st.integers(0, SEQUENCE_MASK)
    addresses = st.sampled_from(((b"\x0a\0\0\1", b"\x0a\0\0\2"), (b"\xfd" * 16, b"\xfc" * 16)))
    return st.builds(
        lambda pair, seq, ack, flags, payload, mss, scale, timestamp, blocks: Segment(
            pair[0],
            1000,
            pair[1],
            80,
            seq,
            ack,
            flags,
            501,
            payload,
            mss,
            scale,
            timestamp=timestamp,
            sack_blocks=tuple(blocks),
        ),
        addresses,
        numbers,
        numbers,
        st.integers(0, 31),
        st.binary(max_size=300),
        st.one_of(st.none(), st.integers(0, 0xFFFF)),
        st.one_of(st.none(), st.integers(0, 14)),
        st.one_of(st.none(), st.tuples(numbers, numbers)),
        st.lists(st.tuples(numbers, numbers), max_size=2),
    )


@given(segments())
def test_decode_gives_back_what_was_encoded(segment: Segment) -> None:
    """All fields survive, the options' length is that on the wire."""
    decoded = decode(encode(segment))
    assert decoded.options_length % 4 == 0
    assert replace(decoded, options_length=0) == segment


@given(segments(), st.data())
def test_any_flipped_bit_is_noticed(segment: Segment, data: st.DataObject) -> None:
    """No single bit of a packet is left unchecked, the IPv6 class, flow label and hops apart."""
    packet = bytearray(encode(segment))
    first = 6 if packet[0] >> 4 == 6 else 0
    at = data.draw(st.integers(first, len(packet) - 1))
    if first and at == 7:
        return  # the hop limit is in no checksum
    packet[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WireError):
        decode(bytes(packet))


def test_checksum_of_a_known_packet() -> None:
    """A SYN written down by hand, so that encode and decode cannot be wrong together."""
    packet = bytes.fromhex(
        "4500003c1c4640004006b1e6ac100a63ac100a0c"  # the header of RFC 1071 tutorials
        "04d2005000000001000000005002ffff00000000"
    )
    header = bytearray(packet[:40])
    header[2:4] = (40).to_bytes(2, "big")
    words = [int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2) if at != 10]
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (~total & 0xFFFF).to_bytes(2, "big")
    words = [int.from_bytes(header[at : at + 2], "big") for at in range(12, 40, 2)]
    total = sum(words) + 6 + 20
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header[36:38] = (~total & 0xFFFF).to_bytes(2, "big")
    segment = decode(bytes(header))
    assert (segment.seq, segment.flags, segment.source_port) == (1, SYN, 1234)


@pytest.mark.parametrize("address", [b"\x0a\0\0\1", b"\xfd" * 16])
def test_cut_answer_keeps_lengths_and_24_bytes_of_options(address: bytes) -> None:
    """The record is 64 or 84 bytes, says the true length, and loses what does not fit."""
    segment = Segment(address, 80, address, 1, 5, 6, ACK, 7, b"x" * 1000, timestamp=(1, 2))
    segment.sack_blocks = ((1, 2), (3, 4), (5, 6))
    record = cut_answer(encode(segment))
    assert len(record) == (64 if len(address) == 4 else 84)
    back = decode_cut(record)
    assert (len(back.payload), back.seq, back.ack, back.timestamp) == (1000, 5, 6, (1, 2))
    assert back.sack_blocks == ()


# Clock and link.


def test_clock_runs_in_order_and_forgets_what_was_cancelled() -> None:
    """Same time: in the order set. A call may set another for now."""
    clock = Clock()
    seen: list[str] = []
    clock.at(20, lambda: seen.append("c"))

    def first() -> None:
        seen.append("a")
        clock.after(0, lambda: seen.append("b"))

    clock.at(10, first)
    clock.at(15, lambda: seen.append("never")).cancel()
    clock.run(19)
    assert (seen, clock.now_ns) == (["a", "b"], 19)
    clock.run(20)
    assert seen == ["a", "b", "c"]


def through(faults: Faults, count: int, seed: int = 1) -> tuple[list[bytes], list[TraceEntry]]:
    """Send `count` numbered packets 1 ms apart; return what arrives, and the trace."""
    clock = Clock()
    arrived: list[bytes] = []
    trace: list[TraceEntry] = []
    link = Link("target", clock, Random(seed), faults, arrived.append, trace)
    for index in range(count):
        packet = encode(Segment(CLIENT, 1, CLIENT, 2, index, flags=ACK))
        clock.at(index * MILLISECOND, lambda packet=packet: link.send(packet))  # type: ignore[misc]
    clock.run(count * SECOND)
    return arrived, trace


def test_link_without_faults_keeps_all_in_order() -> None:
    """The plain link is a wire."""
    arrived, trace = through(Faults(), 50)
    assert [decode(packet).seq for packet in arrived] == list(range(50))
    assert len(trace) == 50


def test_link_faults_happen_and_are_the_same_for_the_same_seed() -> None:
    """Loss, copies and disorder are all seen in 500 packets, in the trace as well."""
    faults = Faults(jitter_ns=5 * MILLISECOND, loss=0.1, duplication=0.1)
    arrived, trace = through(faults, 500)
    numbers = [decode(packet).seq for packet in arrived]
    lost = sum(entry.action == "lost" for entry in trace)
    doubled = sum(entry.action == "doubled" for entry in trace)
    assert 20 < lost < 100 and 20 < doubled < 100
    assert len(numbers) == 500 - lost + doubled
    assert numbers != sorted(numbers)
    assert through(faults, 500) == (arrived, trace)
    assert through(faults, 500, seed=2)[0] != arrived


def test_link_blackout_queue_and_mtu() -> None:
    """Black-outs and full queues lose, packets above the MTU are the sender's fault."""
    assert len(through(Faults(blackouts=((0, 10 * MILLISECOND),)), 50)[0]) == 40
    assert len(through(Faults(delay_ns=10 * SECOND, queue_limit=3), 50)[0]) == 3
    with pytest.raises(WireError, match="exceed the MTU"):
        through(Faults(mtu=39), 1)


# Conversations.


def reassemble(captured: list[Captured], plan: Plan) -> bytes:
    """Put the captured bytes in order in the plainest way; first arrival wins."""
    stream: dict[int, int] = {}
    for _, packet in captured:
        segment = decode(packet, verify=plan.tcp.fill_checksums)
        first = (segment.seq - plan.isn) & SEQUENCE_MASK
        if segment.flags & SYN:
            first += 1
        for offset, byte in enumerate(segment.payload, first):
            stream.setdefault(offset, byte)
    stream.pop(0, None)  # the garbage of a probe before any data
    return bytes(stream[offset] for offset in sorted(stream))


@slow_ok
@given(conversation.plans())
def test_rendered_packets_hold_the_plans_bytes(plan: Plan) -> None:
    """Whole, in order of time, begun by the SYN, and the same every time."""
    captured = render(plan)
    assert render(plan) == captured
    assert [entry[0] for entry in captured] == sorted(entry[0] for entry in captured)
    assert decode(captured[0][1], verify=False).flags & SYN
    assert reassemble(captured, plan) == plan.expected_data


@slow_ok
@given(conversation.plans())
def test_midstream_plans_begin_without_the_handshake(plan: Plan) -> None:
    """No SYN and no greeting, all bytes there."""
    plan = replace(plan, midstream=True)
    captured = render(plan)
    assert not any(decode(packet, verify=False).flags & SYN for _, packet in captured)
    assert reassemble(captured, plan) == plan.expected_data


@slow_ok
@given(conversation.plans(), st.integers(0, 1000))
def test_a_hole_takes_bytes_away(plan: Plan, seed: int) -> None:
    """At least one byte is in no packet any more."""
    if plan.request_bytes:
        holed = with_hole(render(plan), plan, Random(seed))
        assert len(reassemble(holed, plan)) < plan.request_bytes


def test_random_plans_contain_everything() -> None:
    """A few hundred random plans have every ending, both families, wraps, large segments."""
    plans = conversation.random_workload(Random(5), 400)
    assert {plan.ending for plan in plans} == set(Ending)
    assert {len(plan.client) for plan in plans} == {4, 16}
    assert any(plan.isn + plan.request_bytes > SEQUENCE_MASK for plan in plans)
    sizes = [len(packet) for plan in plans for _, packet in render(plan)]
    assert max(sizes) > 10_000
    flags = {
        decode(packet, verify=False).flags
        for plan in plans
        if plan.tcp.fast_open
        for _, packet in render(plan)
        if len(packet) > 100
    }
    assert SYN in flags


# All together: the reference engine replays through faulty links.


def replay(seed: int, *, faulty: bool, count: int = 5) -> harness.Result:
    """One run of `count` random conversations."""
    random = Random(seed)
    if faulty:
        plans, conditions = harness.random_case(random, count)
    else:
        plans, conditions = conversation.random_workload(random, count), harness.Conditions()
    client = ClientConfig(
        timestamps=random.random() < 0.6,
        window_scale=random.choice((None, 0, 7)),
        window=random.choice((1000, 65_535)),
    )
    engine = ReferenceEngine(random, client, cut_answers=conditions.cut_answers)
    result = harness.run(plans, engine, seed, conditions)
    for plan, replays in zip(plans, result.replays, strict=True):
        played = engine.client_of(plan.client, plan.client_port)
        if played.end == "closed":  # both FINs were acknowledged, so all answers have arrived
            assert played.answered == replays[0].record.written
    return result


@pytest.mark.parametrize("block", range(10))
def test_exact_without_faults(block: int) -> None:
    """50 conversations each, every kind, on a clean link: exact, and all answers arrive."""
    for seed in range(block * 10, block * 10 + 10):
        result = replay(seed, faulty=False)
        result.check_exact()
        assert result.end_ns < 400 * SECOND


@pytest.mark.parametrize("block", range(20))
def test_exact_through_faulty_links(block: int) -> None:
    """Loss to 20 %, copies, disorder, tiny windows, any server: exact, and everything ends."""
    for seed in range(1000 + block * 20, 1000 + block * 20 + 20):
        result = replay(seed, faulty=True, count=3)
        result.check_exact()
        for index, plan in enumerate(result.plans):
            for done in result.replays[index]:
                lost = done.connection.opening.source_port in {
                    port for _, port in result.lost_reset_peers
                }
                if plan.ending is not Ending.OPEN and not lost:
                    assert done.connection not in harness.alive(result)


@pytest.mark.soak
def test_exact_through_faulty_links_for_long() -> None:
    """The same, many more seeds."""
    for seed in range(100_000, 105_000):
        replay(seed, faulty=True, count=5).check_exact()


@slow_ok
@given(conversation.plans(largest=500), st.integers(0, 1 << 32))
def test_exact_for_any_plan(plan: Plan, seed: int) -> None:
    """Hypothesis looks for a plan that the models disagree on."""
    faults = Faults(jitter_ns=300_000, loss=0.05, duplication=0.05)
    conditions = harness.Conditions(faults, replace(faults, mtu=None))
    harness.run([plan], ReferenceEngine(Random(seed)), seed, conditions).check_exact()


def test_same_seed_same_run() -> None:
    """A failure can be repeated from its seed."""
    first, second = replay(77, faulty=True), replay(77, faulty=True)
    assert first.trace == second.trace


def test_black_out_is_survived() -> None:
    """Two seconds without any packet."""
    faults = Faults(blackouts=((3 * MILLISECOND, 2 * SECOND),))
    plan = replace(PLAIN, turns=(Turn(50_000, 50_000), Turn(50_000, 50_000)))
    conditions = harness.Conditions(faults, replace(faults, mtu=None))
    result = harness.run([plan], ReferenceEngine(Random(1)), 1, conditions)
    result.check_exact()
    assert any(entry.action == "blackout" for entry in result.trace)


# What the target may do instead.


def run_plain(
    script: Callable[[int, Script], Script] = lambda index, script: script,
    admission: Admission = Admission.ACCEPT,
    events: tuple[harness.Event, ...] = (),
) -> harness.Result:
    return harness.run(
        [PLAIN],
        ReferenceEngine(Random(4)),
        4,
        harness.Conditions(linger_ns=30 * SECOND),
        scripts=script,
        admit=lambda syn: admission,
        events=events,
    )


@pytest.mark.parametrize("admission", [Admission.REFUSE, Admission.IGNORE])
def test_target_that_takes_nobody(admission: Admission) -> None:
    """No connection, no byte, and check_exact says so."""
    result = run_plain(admission=admission)
    result.check_sound()
    assert result.replays == [[]]
    with pytest.raises(AssertionError, match="0 connections"):
        result.check_exact()


@pytest.mark.parametrize("reset", [True, False])
def test_target_that_gives_up(reset: bool) -> None:
    """Reset or close after 150 bytes: these were read, the run is sound but not exact."""
    result = run_plain(
        lambda index, script: replace(
            script, reset_after=150 if reset else None, close_after=None if reset else 150
        )
    )
    result.check_sound()
    record = result.replays[0][0].record
    assert record.gave_up and bytes(record.data) == PLAIN.expected_data[:150]
    with pytest.raises(AssertionError, match="read 150 bytes"):
        result.check_exact()


def test_target_that_never_answers_or_never_closes() -> None:
    """Silence is a script without answers."""
    result = run_plain(lambda index, script: Script(finish=Finish.NEVER))
    record = result.replays[0][0].record
    assert (record.written, record.end) == (0, "fin")
    assert harness.alive(result)


def test_target_that_crashes_and_comes_back() -> None:
    """After the crash the next segment is reset."""

    def start(server: Server) -> None:
        server.listening = True

    result = run_plain(events=((3 * MILLISECOND, Server.crash), (SECOND, start)))
    result.check_sound()
    assert len(result.replays[0][0].record.data) < PLAIN.request_bytes
    assert result.server is not None and result.server.counts.resets_sent > 0


def test_port_used_again_while_the_target_is_in_time_wait() -> None:
    """Two conversations of one four-tuple, the server closed the first one."""
    first = replace(PLAIN, ending=Ending.SERVER_FIN)
    second = replace(PLAIN, seed=9, start_ns=10 * SECOND, isn=PLAIN.isn + 10_000_000)
    result = harness.run([first, second], ReferenceEngine(Random(4)), 4)
    result.check_exact()


@pytest.mark.parametrize("seed", range(20))
def test_successors_on_one_port(seed: int) -> None:
    """Three conversations of one client address and port, each after the one before."""
    random = Random(seed)
    plans = [replace(PLAIN, seed=seed)]
    while len(plans) < 3:
        plan = successor(plans[-1], random, gap_ns=SECOND)
        plans.append(replace(plan, ending=random.choice((Ending.CLIENT_FIN, Ending.SERVER_FIN))))
    assert plans[1].start_ns > render(plans[0])[-1][0]
    harness.run(plans, ReferenceEngine(random), seed).check_exact()


def test_pacing_is_measured() -> None:
    """The reference engine does not wait, so a slow target shows turns that came too early."""
    plan = replace(PLAIN, turns=(Turn(10, 10), Turn(10, 10, think_ns=MILLISECOND)))
    result = harness.run([plan], ReferenceEngine(Random(1)), 1)
    (done,) = result.replays[0]
    delays = turn_delays(plan, done)
    assert len(delays) == 2 and all(delay is not None and delay > 0 for delay in delays)
    assert early_turns(plan, done) == []
    slow = harness.Conditions(habits=TargetHabits(service_ns=(SECOND, SECOND)))
    result = harness.run([plan], ReferenceEngine(Random(1)), 1, slow)
    assert early_turns(plan, result.replays[0][0]) == [
        "turn 1 was read before 10 bytes were answered"
    ]


# An engine that is wrong is found out.


class Broken(ReferenceEngine):
    """The reference engine with each packet to send passed through `harm`."""

    def __init__(self, harm: Callable[[Segment], bytes | None]) -> None:
        super().__init__(Random(6))
        self._harm = harm

    def drain(self) -> list[bytes]:
        harmed = [self._harm(decode(packet)) for packet in super().drain()]
        return [packet for packet in harmed if packet is not None]


def changed(with_payload: bool, **changes: object) -> Callable[[Segment], bytes]:
    """Change fields of the segments with payload, or of the bare ACKs."""

    def harm(segment: Segment) -> bytes:
        if segment.flags & SYN or bool(segment.payload) != with_payload:
            return encode(segment)
        return encode(replace(segment, **changes))  # type: ignore[arg-type]

    return harm


def flip_last_byte(segment: Segment) -> bytes:
    payload = segment.payload
    return (
        encode(replace(segment, payload=payload[:-1] + bytes((payload[-1] ^ 1,))))
        if (payload)
        else encode(segment)
    )


def fin_for_nothing(segment: Segment) -> bytes:
    return encode(replace(segment, flags=segment.flags & ~FIN))


def wrong_checksum(segment: Segment) -> bytes:
    packet = bytearray(encode(segment))
    packet[-1] ^= 1
    return bytes(packet)


def reset_for_fin(segment: Segment) -> bytes:
    if segment.flags & FIN:
        return encode(replace(segment, flags=RST))
    return encode(segment)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flip_last_byte, "alike up to"),
        (fin_for_nothing, "ended by None instead of fin"),
        (wrong_checksum, "wrong TCP checksum"),
        (reset_for_fin, "ended by reset instead of fin"),
        (changed(True, timestamp=None), "no timestamp"),
        (changed(True, timestamp=(1 << 31, 5)), "never sent"),
        (changed(False, sack_blocks=((1, 2),)), "SACK block"),
        (changed(False, ack=1), "acknowledged"),
        (lambda segment: None if segment.payload else encode(segment), "read 0 bytes"),
        (lambda segment: encode(segment) + b"x", "total length"),
    ],
)
def test_broken_engine_is_found_out(harm: Callable[[Segment], bytes | None], message: str) -> None:
    """Each harm fails the run with its own words."""
    with pytest.raises(AssertionError, match=message):
        harness.run([PLAIN], Broken(harm), 3).check_exact()


def test_engine_that_spins_is_found_out() -> None:
    """A deadline that stays in the past would hang a loop."""

    class Spinning(ReferenceEngine):
        def next_deadline_ns(self) -> int | None:
            return 5

    with pytest.raises(AssertionError, match="stands still"):
        harness.run([PLAIN], Spinning(Random(1)), 1)


def test_engine_that_adds_a_connection_is_found_out() -> None:
    """A connection of no conversation is a stranger, a second one of the same is one too many."""

    class Doubling(ReferenceEngine):
        def feed_captured(self, packet: bytes, now_ns: int) -> None:
            super().feed_captured(packet, now_ns)
            segment = decode(packet)
            super().feed_captured(encode(replace(segment, source_port=9)), now_ns)

    result = harness.run([PLAIN], Doubling(Random(1)), 1)
    assert result.problems(0) == []
    with pytest.raises(AssertionError, match="strangers"):
        result.check_exact()


def test_mapped_addresses_are_identified_by_the_caller() -> None:
    """With pool addresses the caller says which conversation a connection is."""
    other = bytes((10, 9, 9, 9))

    class Mapping(ReferenceEngine):
        def feed_captured(self, packet: bytes, now_ns: int) -> None:
            super().feed_captured(encode(replace(decode(packet), source=other)), now_ns)

    def identify(address: bytes, port: int, ordinal: int) -> int | None:
        return 0 if (address, port, ordinal) == (other, PLAIN.client_port, 0) else None

    harness.run([PLAIN], Mapping(Random(1)), 1, identify=identify).check_exact()


def test_answer_pattern_is_one_stream() -> None:
    """Pieces of the answer stream fit together wherever it is cut, beyond its period too."""
    whole = answer_bytes(0, 150_000)
    random = Random(2)
    for _ in range(50):
        start = random.randrange(149_000)
        length = random.randrange(1, 1000)
        assert answer_bytes(start, length) == whole[start : start + length]


def test_near_wrap_reaches_both_sides() -> None:
    """Initial numbers lie just below the wrap often enough to matter."""
    numbers = [near_wrap(Random(seed)) for seed in range(200)]
    assert sum(number > SEQUENCE_MASK - 64 for number in numbers) > 10
    assert sum(number < 3 for number in numbers) > 10
