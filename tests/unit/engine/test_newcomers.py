"""Whose a segment is, and whether online would have taken it."""

from __future__ import annotations

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.outcome import Drop
from tcpcopy.packet import flags
from tests.unit.engine.rig import SECOND
from tests.unit.engine.world import CLIENT_PORT, ONLINE_PORT, Answerer, Caller, World


def test_data_without_an_acknowledgement_are_dropped() -> None:
    world = World()
    target, caller = Answerer(world), Caller(world)
    caller.connect()
    target.settle()
    assert caller.give("P", payload=b"EVIL") is Drop.NO_ACK
    assert caller.say("GOOD") == 0
    target.settle()
    assert target.texts() == ["GOOD"]
    assert Caller(world, CLIENT_PORT + 1).give("P", payload=b"x") is Drop.NO_ACK
    world.check()


@pytest.mark.parametrize("after", ["A", "PA", "FA"])
def test_stray_syn_is_ignored(after: str) -> None:
    world = World()
    target, caller = Answerer(world), Caller(world)
    caller.connect()
    target.settle()
    caller.say("first")
    target.settle()
    assert Caller(world, isn=0x5555_5555).syn() == 0
    assert Caller(world, isn=0x5555_5555).syn() is Drop.DUPLICATE
    world.check()
    assert caller.give(after, payload=b"more" if after == "PA" else b"") == 0
    target.settle()
    assert world.drops() == {"STRAY_SYN": 1, "DUPLICATE": 1}
    assert world.counts.sessions == 1
    assert target.texts() == ["firstmore" if after == "PA" else "first"]
    world.check()


@pytest.mark.parametrize("has_ack", [True, False])
def test_syn_of_a_client_that_was_started_again(has_ack: bool) -> None:
    """Its acknowledgement may not have been captured."""
    world = World()
    target, caller = Answerer(world), Caller(world)
    caller.connect()
    target.settle()
    caller.say("first")
    target.settle()
    again = Caller(world, isn=0x5555_5555)
    assert again.syn() == 0
    if has_ack:
        assert again.give("A") == 0
    assert again.say("second") == 0
    target.settle()
    assert target.texts() == ["first", "second"]
    assert world.outcomes() == {"CLIENT_RESET": 1}
    world.check()


def test_syn_that_nothing_follows_is_no_loss() -> None:
    world = World(EngineConfig(idle_timeout_ns=100 * SECOND))
    target, caller = Answerer(world), Caller(world)
    caller.connect()
    target.settle()
    Caller(world, isn=0x5555_5555).syn()
    world.run_to(90 * SECOND)
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 1}
    world.check()


def test_port_used_again_without_a_syn() -> None:
    world = World()
    target, caller = Answerer(world), Caller(world, isn=1000)
    caller.connect()
    target.settle()
    caller.say("first")
    caller.fin()
    target.settle()
    assert world.outcomes() == {"REPLAYED": 1}
    assert caller.again() is Drop.CLOSED_SESSION
    again = Caller(world, isn=0x6000_0000)
    assert again.say("second") == 0
    target.settle()
    assert target.texts() == ["first", "second"]
    world.check()


def test_port_used_again_without_a_syn_while_the_target_is_slow() -> None:
    world = World()
    target, caller = Answerer(world), Caller(world, isn=1000)
    target.deaf.add(CLIENT_PORT)
    caller.connect()
    caller.say("first")
    caller.fin()
    again = Caller(world, isn=0x6000_0000)
    assert again.say("second") == 0
    assert world.counts.sessions == 2
    world.check()


def test_keep_alive_at_a_pick_up_is_no_data() -> None:
    world = World()
    target, caller = Answerer(world), Caller(world)
    assert caller.give("A", at=-1, payload=b"\0") is Drop.DUPLICATE
    assert world.counts.sessions == 0
    assert caller.say("text") == 0
    target.settle()
    assert target.texts() == ["text"]


def test_one_pushed_byte_at_a_pick_up_is_data() -> None:
    world = World()
    target, caller = Answerer(world), Caller(world)
    assert caller.say("x") == 0
    target.settle()
    assert target.texts() == ["x"]


def test_urgent_byte_is_left_out_and_counted_once() -> None:
    world = World()
    target, caller = Answerer(world), Caller(world)
    caller.connect()
    target.settle()
    caller.say("abc")
    packet = bytearray(caller.packet("PA", payload=b"\xff"))
    packet[20 + 13] |= flags.URG
    packet[20 + 18 : 20 + 20] = b"\0\1"
    assert world.capture(bytes(packet)) == 0
    assert world.capture(bytes(packet)) is Drop.DUPLICATE
    caller.give("PA", at=4, payload=b"def")
    caller.give("FA", at=7)
    target.settle()
    assert target.texts() == ["abcdef"]
    assert world.counts.urgent == 1
    world.check_ended()


def test_answer_from_a_port_of_x_is_no_request() -> None:
    world = World()
    target = Answerer(world)
    caller = Caller(world, ONLINE_PORT)
    caller.connect()
    target.settle()
    answer = Caller(world, ONLINE_PORT)
    blank = answer.blank
    blank.source, blank.destination = blank.destination, blank.source
    result = answer.give("PA", payload=b"answer")
    assert result in (Drop.ANSWER_SIDE, Drop.NO_TRANSFER)  # -x may name the address
    assert world.counts.sessions == 1
    world.check()


def _join(caller: Caller, option: bytes) -> bytes:
    """The SYN of `caller` with an MPTCP option."""
    packet = bytearray(caller.packet("S", at=-1))
    packet += option
    packet[3] += len(option)
    packet[32] = (5 + len(option) // 4) << 4
    return bytes(packet)


def test_mptcp_with_a_second_subflow_is_named_and_not_sent_in_pieces() -> None:
    world = World()
    target, caller = Answerer(world), Caller(world)
    assert world.capture(_join(caller, b"\x1e\x0c\x01\x81" + bytes(8))) == 0
    caller.give("A")
    target.settle()
    other = Caller(world, CLIENT_PORT + 7)
    assert world.capture(_join(other, b"\x1e\x0c\x10\x01" + bytes(8))) is Drop.SUBFLOW
    assert other.say("piece") is Drop.SUBFLOW
    assert world.outcomes() == {"MPTCP": 2}
    assert target.texts() == [""]
    world.check()


def test_mptcp_of_one_flow_is_a_connection_like_any_other() -> None:
    world = World()
    target, caller = Answerer(world), Caller(world)
    assert world.capture(_join(caller, b"\x1e\x0c\x01\x81" + bytes(8))) == 0
    caller.give("A")
    target.settle()
    caller.say("whole")
    caller.fin()
    target.settle()
    assert target.texts() == ["whole"]
    assert world.outcomes() == {"REPLAYED": 1}
