"""The engine takes packets: each is used or dropped with the reason that fits it."""

from __future__ import annotations

import pytest

from tcpcopy.engine.client import TcpClient
from tcpcopy.engine.outcome import Drop
from tcpcopy.packet import flags
from tests.sim.model import wire
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import (
    CLIENT,
    CLIENT_PORT,
    DROPS,
    ONLINE,
    ONLINE_PORT,
    START,
    TARGET,
    TARGET_PORT,
    Answerer,
    Caller,
    Target,
    World,
)


def packet(letters: int = wire.ACK, **fields: object) -> bytes:
    """A packet of a client that nobody knows."""
    segment = wire.Segment(CLIENT, CLIENT_PORT, ONLINE, ONLINE_PORT, 1000, 2000, letters)
    for name, value in fields.items():
        setattr(segment, name, value)
    return wire.encode(segment)


SIX_CLIENT = bytes.fromhex("20010db8" + "00" * 11 + "07")
SIX_ONLINE = bytes.fromhex("fd" * 16)
SIX_TARGET = bytes.fromhex("20010db8" + "11" * 12)


def six_caller(world: World) -> Caller:
    """A client that speaks IPv6."""
    caller = Caller(world)
    caller.blank.source, caller.blank.destination = SIX_CLIENT, SIX_ONLINE
    return caller


# --- numbers that two modules share --------------------------------------------------------


def test_reasons_of_the_parser_are_reasons_of_the_engine() -> None:
    assert flags.PARSED == 0
    names = ["NOT_IP", "SHORT", "BAD_HEADER", "FRAGMENT", "NOT_TCP"]
    assert [DROPS[number].name for number in range(1, 6)] == names
    assert [getattr(flags, name) for name in names] == [1, 2, 3, 4, 5]


# --- captured packets ----------------------------------------------------------------------


def damaged(at: int, value: int) -> bytes:
    """A good packet with one byte changed."""
    whole = bytearray(packet(payload=b"x"))
    whole[at] = value
    return bytes(whole)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Drop.SHORT),
        (packet()[:19], Drop.SHORT),
        (packet()[:39], Drop.SHORT),
        (damaged(0, 0x55), Drop.NOT_IP),
        (damaged(0, 0x44), Drop.BAD_HEADER),
        (damaged(9, 17), Drop.NOT_TCP),
        (damaged(32, 0x40), Drop.BAD_HEADER),
    ],
)
def test_packets_that_cannot_be_read(data: bytes, reason: Drop) -> None:
    world = World()
    assert world.capture(data) is reason
    assert world.drops() == {reason.name: 1}
    world.check_ended()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packet(wire.SYN, destination_port=81), Drop.NO_TRANSFER),
        (packet(wire.ACK | wire.PSH, destination_port=81, payload=b"x"), Drop.NO_TRANSFER),
        (packet(wire.ACK), Drop.PURE_ACK_NO_SESSION),
        (packet(wire.ACK, destination_port=81), Drop.PURE_ACK_NO_SESSION),
        (packet(wire.ACK | wire.FIN), Drop.NO_SESSION),
        (packet(wire.RST), Drop.NO_SESSION),
        (packet(wire.RST | wire.ACK, payload=b"why"), Drop.NO_SESSION),
        (packet(wire.SYN | wire.ACK), Drop.NO_SESSION),
        (packet(wire.SYN | wire.FIN), Drop.NO_SESSION),
        (packet(wire.SYN | wire.RST), Drop.NO_SESSION),
    ],
)
def test_packets_that_begin_no_session(data: bytes, reason: Drop) -> None:
    world = World()
    assert world.capture(data) is reason
    assert world.counts.sessions == 0
    assert world.sent() == []
    world.check_ended()


def test_first_data_that_were_cut_begin_no_session() -> None:
    world = World()
    whole = packet(wire.ACK, payload=bytes(100))
    assert world.capture(whole[:-1], wire_length=len(whole)) is Drop.CUT
    assert world.counts.sessions == 0


def test_data_that_were_cut_are_not_taken() -> None:
    """A snap length below the packets: the hole is counted as one in its time."""
    world = World()
    caller = Caller(world)
    caller.connect()
    whole = caller.packet("PA", payload=b"hello")
    assert world.capture(whole[:-1], wire_length=len(whole)) is Drop.CUT
    assert world.counts.bytes_captured == 0
    assert world.capture(whole) == 0
    assert world.counts.bytes_captured == 5


def test_doubles() -> None:
    world = World()
    caller = Caller(world)
    assert caller.syn() == 0
    assert caller.again() is Drop.DUPLICATE
    assert caller.give("A") == 0
    assert caller.say("hello") == 0
    assert caller.again() is Drop.DUPLICATE
    assert caller.fin() == 0
    assert caller.again() is Drop.DUPLICATE
    assert world.drops() == {"DUPLICATE": 3}
    assert world.counts.sessions == 1
    world.check()


def test_fin_of_a_segment_whose_data_were_known() -> None:
    world = World()
    caller = Caller(world)
    caller.connect()
    caller.say("hello")
    assert caller.give("FPA", at=0, payload=b"hello") is Drop.DUPLICATE
    session = world.sessions()[0]
    assert session.captured_fin_offset == 5


def test_syn_ack_in_a_known_session_is_nothing() -> None:
    world = World()
    caller = Caller(world)
    caller.connect()
    assert caller.give("SA", at=-1) is Drop.DUPLICATE


def test_options_and_padding_of_captured_packets_do_not_matter() -> None:
    world = World()
    caller = Caller(world)
    caller.connect()
    payload = b"hello"
    data = caller.packet("PA", payload=payload, timestamp=(1, 2)) + bytes(20)
    assert world.capture(data) == 0
    assert world.counts.bytes_captured == 5


def test_session_over_ipv6() -> None:
    world = World(targets=(Target(SIX_TARGET),))
    target = Answerer(world)
    caller = six_caller(world)
    assert caller.syn() == 0
    assert caller.say("hello") == 0
    target.settle()
    assert target.texts() == ["hello"]
    caller.fin()
    target.settle()
    assert world.outcomes() == {"REPLAYED": 1}
    world.check_ended()


def test_client_of_another_family_than_the_target_has_no_address() -> None:
    world = World()
    assert six_caller(world).syn() is Drop.SHED_SESSION
    assert world.outcomes() == {"NO_ADDRESS": 1}
    assert world.sent() == []
    world.check_ended()


# --- the capture's clock -------------------------------------------------------------------


def test_capture_times_are_put_on_the_engines_clock() -> None:
    world = World()
    offset = 1_700_000_000 * SECOND
    world.engine.clock_offset_ns = offset
    caller = Caller(world)
    syn = caller.packet("S", at=-1)
    world.engine.packet(syn, 0, len(syn), len(syn), offset + START + 3 * MS)
    data = caller.packet("PA", payload=b"x")
    world.engine.packet(data, 0, len(data), len(data), offset + START + 7 * MS)
    session = world.sessions()[0]
    assert session.tail is not None
    assert session.tail.captured_ns == START + 7 * MS
    assert session.client_rtt_ns == 4 * MS


def test_packet_stands_anywhere_in_the_buffer() -> None:
    world = World()
    caller = Caller(world)
    for data in (caller.packet("S", at=-1), caller.packet("PA", payload=b"hello")):
        buffer = b"\xff" * 14 + data + b"\xff" * 7
        assert world.engine.packet(buffer, 14, 14 + len(data), len(data), START) == 0
    assert world.counts.bytes_captured == 5


# --- the client's round-trip time ----------------------------------------------------------


@pytest.mark.parametrize(
    ("elapsed_ns", "expected_ns"),
    [
        (249_999, 0),  # too short to tell anything
        (250_000, 250_000),
        (80 * MS, 80 * MS),
        (1 * SECOND, 1 * SECOND),
        (1 * SECOND + 1, 0),  # a SYN that was lost, not a distance
    ],
)
def test_round_trip_is_from_the_syn_to_the_next_segment(elapsed_ns: int, expected_ns: int) -> None:
    world = World()
    caller = Caller(world)
    caller.syn()
    world.run_to(elapsed_ns)
    caller.give("A")
    session = world.sessions()[0]
    assert session.rtt_ns == session.client_rtt_ns == expected_ns
    world.run_to(2 * SECOND)
    caller.say("later")
    assert session.rtt_ns == expected_ns


def test_echoes_correct_a_handshake_that_was_slow() -> None:
    """300 ms for the handshake, 60 from then on, by the timestamps that the client echoes."""
    world = World()
    caller = Caller(world)
    caller.syn(timestamp=(1, 0))
    world.run_to(300 * MS)
    caller.give("A", timestamp=(300, 5000))
    session = world.sessions()[0]
    client = session.replayed
    assert isinstance(client, TcpClient)
    assert session.rtt_ns == client.rtt_ns == 300 * MS
    world.run_to(SECOND)
    caller.give("PA", payload=b"ask", timestamp=(1000, 5940))
    assert session.rtt_ns == client.rtt_ns == session.client_rtt_ns == 60 * MS


def test_repeated_syn_does_not_move_the_round_trip() -> None:
    world = World()
    caller = Caller(world)
    caller.syn()
    world.run_to(10 * MS)
    caller.again()
    world.run_to(30 * MS)
    caller.give("A")
    assert world.sessions()[0].rtt_ns == 30 * MS


# --- answers -------------------------------------------------------------------------------


def test_answer_to_nobody_is_foreign() -> None:
    world = World()
    assert world.answer(wire.Segment(TARGET, TARGET_PORT, CLIENT, 1234, 5)) is Drop.FOREIGN
    assert world.drops(answers=True) == {"FOREIGN": 1}
    assert world.sent() == []
    world.check()


@pytest.mark.parametrize(
    "changed",
    [
        {"source": bytes((10, 9, 0, 4))},
        {"source_port": TARGET_PORT + 1},
        {"destination": bytes((10, 1, 0, 8))},
        {"destination_port": CLIENT_PORT + 1},
    ],
)
def test_answer_must_fit_in_all_four(changed: dict[str, object]) -> None:
    world = World()
    Caller(world).syn()
    segment = wire.Segment(TARGET, TARGET_PORT, CLIENT, CLIENT_PORT, 5, 5, wire.SYN | wire.ACK)
    for name, value in changed.items():
        setattr(segment, name, value)
    assert world.answer(segment) is Drop.FOREIGN


def test_answer_that_cannot_be_read() -> None:
    world = World()
    assert world.engine.answers.packet(b"\x45" + bytes(30), 0, 31, 31, 0) == Drop.NOT_TCP
    assert world.drops(answers=True) == {"NOT_TCP": 1}
    world.check()


def test_answers_are_counted_apart_from_captured_packets() -> None:
    world = World()
    target = Answerer(world, "OK")
    caller = Caller(world)
    caller.connect()
    caller.say("hello")
    target.settle()
    assert world.counts.packets_captured == 3
    assert world.counts.packets_answered == 2
    assert world.drops(answers=True) == {}
    assert world.counts.answer_bytes == 2


def test_answer_of_which_only_the_headers_came() -> None:
    """A relay hands on 64 bytes; the IP header says how long the packet was."""
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    caller.say("hello")
    target.settle()
    session = world.sessions()[0]
    segment = wire.Segment(
        TARGET, TARGET_PORT, CLIENT, CLIENT_PORT, target.isn + 1, 0, wire.ACK | wire.PSH
    )
    segment.ack = (session.replayed.iss + 1 + 5) & 0xFFFFFFFF  # type: ignore[attr-defined]
    segment.payload = bytes(1000)
    record = wire.cut_answer(wire.encode(segment))
    assert world.engine.answers.packet(record, 0, len(record), len(record), 0) == 0
    assert session.replayed.received == 1000
    assert world.counts.answer_bytes == 1000
