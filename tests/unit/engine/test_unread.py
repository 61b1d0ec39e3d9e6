"""Packets that nobody will work on any more: counted, with the sessions that begin in them."""

from __future__ import annotations

import pytest

from tcpcopy.engine.unread import Unread
from tests.unit.engine.test_datagram import Table as UdpTable
from tests.unit.engine.test_datagram import datagram
from tests.unit.engine.world import ONLINE_PORT, Caller, Sampling, Table, Target, World


def give(unread: Unread, packet: bytes) -> None:
    assert unread.packet(packet, 0, len(packet), len(packet), 0) == 0


def syn(world: World, port: int, isn: int = 5) -> bytes:
    return Caller(world, port, isn=isn).packet("S", at=-1)


def test_each_syn_to_a_source_of_x_is_a_session() -> None:
    """One for each target and copy; what goes elsewhere, or is no SYN, is a packet alone."""
    world = World()
    unread = Unread(Table((Target(), Target(target_port=9))), 3)
    for port in (1000, 1001):
        give(unread, syn(world, port))
    caller = Caller(world, 1002)
    for letters in ("SA", "A", "PA", "FA", "R"):
        give(unread, caller.packet(letters))
    elsewhere = Caller(world, 1003)
    elsewhere.blank = type(elsewhere.blank)(
        elsewhere.blank.source, 1003, elsewhere.blank.destination, ONLINE_PORT + 1, 0
    )
    give(unread, elsewhere.packet("S", at=-1))
    give(unread, b"damaged")
    assert (unread.packets, unread.sessions, unread.udp_packets) == (9, 2 * 2 * 3, 0)
    assert unread.total == 9


def test_a_syn_that_is_sent_again_is_no_other_session() -> None:
    world = World()
    unread = Unread(Table(), 1)
    for isn in (5, 5, 6):  # the last one is another connection from the same port
        give(unread, syn(world, 1000, isn=isn))
    assert (unread.packets, unread.sessions) == (3, 2)


def test_sessions_that_have_begun_are_not_counted_again() -> None:
    """Live ones and those that ended lately: their client has sent its SYN again."""
    world = World()
    live, ended = Caller(world, 1000), Caller(world, 1001)
    for caller in (live, ended):
        caller.connect()
    ended.rst()
    world.run_to(30_000_000_000)
    unread = Unread(Table(), 1, engine=world.engine)
    for caller in (live, ended):
        give(unread, caller.packet("S", at=-1))
    assert (unread.packets, unread.sessions) == (2, 0)
    give(unread, syn(world, 1000, isn=77))  # but this is new
    assert unread.sessions == 1


def test_sessions_of_other_networks_are_told_apart() -> None:
    """The same addresses in two networks: each has begun, and its SYN again begins nothing."""
    world = World()
    one, two = Caller(world, 1000), Caller(world, 1000, isn=0x4000_0000)
    for network, caller in ((7, one), (8, two)):
        world.engine.enter(network)
        caller.connect()
    world.engine.enter(0)
    assert len(world.sessions()) == 2
    unread = Unread(Table(), 1, engine=world.engine)
    for network, caller in ((7, one), (8, two), (7, one)):
        unread.enter(network)
        give(unread, caller.packet("S", at=-1))
    assert (unread.packets, unread.sessions) == (3, 0)
    unread.enter(9)
    give(unread, syn(world, 1000, isn=0x7000_0000))  # in a third one
    assert (unread.packets, unread.sessions) == (4, 1)


def test_clients_that_are_left_out_begin_no_session() -> None:
    world = World()
    unread = Unread(Table(), 1, sampling=Sampling(lambda port: port % 2 == 0))
    for port in range(1000, 1010):
        give(unread, syn(world, port))
    assert (unread.packets, unread.sessions) == (10, 5)


@pytest.mark.parametrize(
    ("tcp", "udp", "counted"),
    [(True, False, (3, 0)), (True, True, (1, 2)), (False, True, (0, 3))],
)
def test_udp_is_counted_by_itself_where_it_is_copied(
    tcp: bool, udp: bool, counted: tuple[int, int]
) -> None:
    unread = Unread(UdpTable(), 1, with_tcp=tcp, with_udp=udp)
    for packet in (datagram(b"one", 1), datagram(b"two", 2), syn(World(), 1000)):
        give(unread, packet)
    assert (unread.packets, unread.udp_packets) == counted
    unread.add(100)  # which of them nobody has seen
    assert (unread.packets + unread.udp_packets, unread.total) == (103, 103)
    assert unread.udp_packets == counted[1] + (0 if tcp else 100)
