"""Packets before a session has them: fragments, networks, authentication headers."""

from __future__ import annotations

import pytest

from tcpcopy.engine.handshakes import PATIENCE_NS
from tcpcopy.engine.outcome import Drop
from tests.lab.encapsulations import authenticated, fragments
from tests.unit.engine.rig import SECOND
from tests.unit.engine.test_engine_packets import SIX_TARGET, six_caller
from tests.unit.engine.world import CLIENT, CLIENT_PORT, Answerer, Caller, Target, World

REQUEST = "".join(f"{number:07}\n" for number in range(300))
NET, OTHER = 0x1234, 0x5678_0000_0000


def world_of(make: object) -> World:
    """A world whose target is of the client's family."""
    return World() if make is Caller else World(targets=(Target(SIX_TARGET),))


def finished(world: World, answerer: Answerer) -> dict[str, int]:
    """The outcomes once all is answered; the accounts close."""
    answerer.settle()
    world.run_to(world.now + 10 * SECOND)
    world.engine.close_all()
    world.check_ended()
    return world.outcomes()


@pytest.mark.parametrize("make", [Caller, six_caller], ids=["v4", "v6"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_request_in_fragments(make: type[Caller], order: int) -> None:
    world = world_of(make)
    answerer = Answerer(world, "ok")
    caller = make(world)
    caller.connect()
    parts = fragments(caller.packet("PA", payload=REQUEST.encode()), 512)[::order]
    assert len(parts) > 4
    assert [world.capture(part) for part in parts] == [0] * len(parts)
    caller.said += REQUEST.encode()
    answerer.settle()
    caller.fin(seen=2)
    assert finished(world, answerer) == {"REPLAYED": 1}
    assert list(answerer.heard.values()) == [REQUEST.encode()]
    assert world.drops() == {}


def test_a_fragment_that_is_lost_is_counted_and_sent_again() -> None:
    world = World()
    answerer = Answerer(world, "ok")
    caller = Caller(world)
    caller.connect()
    packet = caller.packet("PA", payload=REQUEST.encode())
    for part in fragments(packet, 512, 7)[:-1]:
        assert world.capture(part) == 0
    for part in fragments(packet, 512, 8):
        assert world.capture(part) == 0
    caller.said += REQUEST.encode()
    answerer.settle()
    caller.fin(seen=2)
    assert finished(world, answerer) == {"REPLAYED": 1}
    assert world.drops() == {"FRAGMENT": len(fragments(packet, 512)) - 1}


def test_fragments_of_what_is_not_wanted_have_its_reason() -> None:
    world = World()
    caller = Caller(world)
    caller.blank.destination_port = 81
    parts = fragments(caller.packet("PA", payload=REQUEST.encode()), 512)
    assert [world.capture(part) for part in parts[:-1]] == [0] * (len(parts) - 1)
    assert world.capture(parts[-1]) == Drop.NO_TRANSFER
    world.engine.close_all()
    assert world.drops() == {"NO_TRANSFER": len(parts)}
    world.check()


@pytest.mark.parametrize("make", [Caller, six_caller], ids=["v4", "v6"])
def test_behind_an_authentication_header(make: type[Caller]) -> None:
    world = world_of(make)
    answerer = Answerer(world, "ok")
    caller = make(world)
    for packet in (
        caller.packet("S", at=-1),
        caller.packet("A"),
        caller.packet("PA", payload=b"request"),
    ):
        assert world.capture(authenticated(packet)) == 0
    caller.said += b"request"
    answerer.settle()
    assert world.capture(authenticated(caller.packet("FA", seen=2))) == 0
    assert finished(world, answerer) == {"REPLAYED": 1}
    assert list(answerer.heard.values()) == [b"request"]


def give(world: World, network: int, packet: bytes) -> Drop | int:
    """A packet of a virtual network."""
    world.engine.enter(network)
    reason = world.capture(packet)
    world.engine.enter(0)
    return reason


@pytest.mark.parametrize("other", [OTHER, 0])
@pytest.mark.parametrize("make", [Caller, six_caller], ids=["v4", "v6"])
def test_two_connections_with_the_same_addresses(make: type[Caller], other: int) -> None:
    """In two networks, or one without and one with, at the same time."""
    world = world_of(make)
    answerer = Answerer(world, "ok")
    one, two = make(world), make(world)
    two.isn = 0x4000_0000
    networks = ((one, NET), (two, other))
    for letters, at in (("S", -1), ("A", None)):
        for caller, network in networks:
            assert give(world, network, caller.packet(letters, at=at)) == 0
    first, second = world.sessions()
    client = (one.blank.source, CLIENT_PORT)
    assert first.captured_client() == second.captured_client() == client
    for turn in range(3):
        for caller, network in networks:
            text = b"one" if caller is one else b"other"
            assert give(world, network, caller.packet("PA", payload=text, seen=2 * turn)) == 0
            caller.said += text
        answerer.settle()
        world.run_to(world.now + SECOND)
        answerer.settle()
    for caller, network in networks:
        assert give(world, network, caller.packet("FA", seen=6)) == 0
    assert finished(world, answerer) == {"REPLAYED": 2}
    assert sorted(answerer.heard.values()) == [b"one" * 3, b"other" * 3]
    # Late packets find what has ended, each its own.
    for caller, network in networks:
        assert give(world, network, caller.packet("PA", at=0, payload=b"o")) == Drop.CLOSED_SESSION


@pytest.mark.parametrize("make", [Caller, six_caller], ids=["v4", "v6"])
@pytest.mark.parametrize("ahead", [0, 2])
def test_handshakes_with_the_same_addresses(make: type[Caller], ahead: int) -> None:
    """Opened ahead or waiting: each is proven, or not completed, by what is its own."""
    world = world_of(make)
    world.engine.note_acks(True, 0)
    world.engine.ahead_most = ahead
    answerer = Answerer(world, "ok")
    one, two = make(world), make(world)
    two.isn = 0x4000_0000
    for network, caller in ((NET, one), (OTHER, two)):
        assert give(world, network, caller.packet("S", at=-1)) == 0
    assert world.counts.sessions == 2 and world.counts.live == ahead
    assert give(world, OTHER, two.packet("PA", payload=b"two")) == 0
    two.said += b"two"
    answerer.settle()
    # The first one's client is silent: what was opened for it is taken back, and waits as well.
    if ahead:
        world.run_to(PATIENCE_NS + 2 * SECOND)
    answerer.settle()
    assert (world.counts.live, world.counts.waiting) == (1, 1)
    assert give(world, NET, one.packet("PA", payload=b"one")) == 0
    one.said += b"one"
    answerer.settle()
    for network, caller in ((NET, one), (OTHER, two)):
        assert give(world, network, caller.packet("FA", seen=2)) == 0
    assert finished(world, answerer) == {"REPLAYED": 2}
    assert b"one" in answerer.heard.values() and b"two" in answerer.heard.values()


@pytest.mark.parametrize("make", [Caller, six_caller], ids=["v4", "v6"])
def test_handshakes_with_the_same_addresses_that_nobody_completes(make: type[Caller]) -> None:
    world = world_of(make)
    world.engine.note_acks(True, 0)
    answerer = Answerer(world, "ok")
    one, two = make(world), make(world)
    two.isn = 0x4000_0000
    for network, caller in ((NET, one), (OTHER, two)):
        assert give(world, network, caller.packet("S", at=-1)) == 0
    answerer.settle()
    assert world.counts.live == 2
    assert give(world, OTHER, two.packet("R")) == 0  # its client is there, and does not want it
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 1}
    world.engine.close_all()
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 2}
    world.check_ended()


def test_one_connection_seen_in_two_networks_is_one_session() -> None:
    world = World()
    answerer = Answerer(world, "ok")
    caller = Caller(world)
    for letters, at, text in (("S", -1, b""), ("A", None, b""), ("PA", None, b"request")):
        for network in (NET, OTHER, 0):
            give(world, network, caller.packet(letters, at=at, payload=text))
    caller.said += b"request"
    answerer.settle()
    for network in (OTHER, 0, NET):
        give(world, network, caller.packet("FA", seen=2))
    assert finished(world, answerer) == {"REPLAYED": 1}
    assert list(answerer.heard.values()) == [b"request"]


def test_a_session_that_was_open_before_there_were_networks() -> None:
    world = World()
    answerer = Answerer(world, "ok")
    one, two = Caller(world), Caller(world)
    two.isn = 0x4000_0000
    one.connect()
    assert one.say("one") == 0
    assert give(world, NET, two.packet("S", at=-1)) == 0
    assert give(world, NET, two.packet("PA", payload=b"two")) == 0
    two.said += b"two"
    answerer.settle()
    assert one.say(" more", seen=2) == 0
    answerer.settle()
    assert one.fin(seen=4) == 0
    assert give(world, NET, two.packet("FA", seen=2)) == 0
    assert finished(world, answerer) == {"REPLAYED": 2}
    assert sorted(answerer.heard.values()) == [b"one more", b"two"]
    assert one.blank.source == CLIENT


def test_nothing_is_made_without_networks_and_fragments() -> None:
    world = World()
    caller = Caller(world)
    caller.connect()
    assert world.engine.networks is None and world.engine.reassembler is None
