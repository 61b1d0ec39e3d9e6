"""The process stood still (SIGSTOP, a paused host): that time is nobody's silence.

`stand_still` is what the loop calls in the first turn after it, before anything is read.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.datagram import IDLE_NS
from tcpcopy.engine.pacing import FIRST_WAIT_NS
from tcpcopy.mapping.rate import QUEUE, RateLimit, SessionRate
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.report.flow_outcome import DatagramDrop
from tests.unit.engine import test_datagram as udp
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.test_engine_sockets import Sockets
from tests.unit.engine.world import START, Answerer, Caller, World

STOP = 20 * SECOND
SHORT = EngineConfig(
    answer_timeout_ns=8 * SECOND,
    idle_timeout_ns=9 * SECOND,
    connect_timeout_ns=5 * SECOND,
    hole_timeout_ns=4 * SECOND,
)


def stop(world: World, duration_ns: int = STOP) -> None:
    """The process is stopped for so long; the next turn begins."""
    world.engine.now_ns += duration_ns
    world.context.stand_still(world.engine.now_ns, duration_ns)


def test_idle_sessions_stay() -> None:
    world = World(SHORT)
    target, caller = Answerer(world, "OK"), Caller(world)
    caller.connect()
    target.settle()
    caller.say("one")
    target.settle()
    stop(world)
    world.engine.run_timers()  # with packets of the client unread, in rings and backlog
    assert world.counts.live == 1
    caller.say("two", seen=2)
    target.settle()
    caller.fin(seen=4)
    target.settle()
    assert world.outcomes() == {"REPLAYED": 1}
    assert target.texts() == ["onetwo"]


def test_silence_counts_from_there_on() -> None:
    """As long as ever, and not a moment longer."""
    world = World(SHORT)
    target, caller = Answerer(world, "OK"), Caller(world)
    caller.connect()
    target.settle()
    caller.say("one")
    target.settle()
    stop(world)
    world.run_to(world.now + 9 * SECOND - 1)
    assert world.counts.live == 1
    world.run_to(world.now + 1)
    assert world.outcomes() == {"IDLE_COMPLETE": 1}


def test_an_answer_may_still_come() -> None:
    """Asked before the standstill, answered after it: the next turn waits as long as ever."""
    world = World(SHORT)
    target, caller = Answerer(world), Caller(world)  # it takes requests, and says nothing
    caller.connect()
    target.settle()
    caller.say("one")
    target.settle()
    caller.say("two", seen=2)
    stop(world)
    assert world.engine.run_timers() >= 1
    target.settle()
    world.run_to(world.now + FIRST_WAIT_NS - 1)
    target.settle()
    assert target.texts() == ["one"]
    world.run_to(world.now + 1)
    target.settle()
    assert target.texts() == ["onetwo"]


def test_a_target_that_acknowledges_nothing_is_sent_it_again() -> None:
    """What was under way is retransmitted, once for each session: no storm, and not given up."""
    world = World(SHORT)
    target = Answerer(world, "OK")
    callers = [Caller(world, port) for port in range(40001, 40021)]
    for caller in callers:
        caller.connect()
        target.settle()
    target.deaf = {caller.blank.source_port for caller in callers}
    for caller in callers:
        caller.say("one")
    world.sent()
    stop(world)
    world.engine.run_timers()
    assert sorted(world.lines()) == [f"{caller.blank.source_port} PA one" for caller in callers]
    assert world.counts.live == 20


def test_a_hole_may_still_be_filled() -> None:
    world = World(SHORT)
    target, caller = Answerer(world, "OK"), Caller(world)
    caller.connect()
    target.settle()
    caller.give("PA", at=3, payload=b"two")  # "one" stands in a ring
    stop(world)
    world.engine.run_timers()
    assert world.counts.live == 1
    caller.give("PA", at=0, payload=b"one")
    target.settle()
    assert target.texts() == ["onetwo"]
    # A hole that nobody fills is given up as ever.
    caller.give("PA", at=9, payload=b"four")
    world.run_to(world.now + 4 * SECOND - 1)
    assert world.counts.live == 1
    world.run_to(world.now + 1)
    target.settle()
    assert world.outcomes() == {"CAPTURE_HOLE": 1}


def test_a_connect_is_tried_on() -> None:
    world = World(SHORT)
    target, caller = Answerer(world), Caller(world)
    caller.syn()
    world.sent()
    stop(world)
    world.engine.run_timers()
    assert world.lines() == ["40001 S"] and world.counts.live == 1
    world.run_to(world.now + 5 * SECOND - 1)
    assert world.counts.live == 1
    world.run_to(world.now + 1)
    assert world.outcomes() == {"CONNECT_TIMEOUT": 1}
    target.settle()


def test_a_connect_of_a_kernel_socket_is_waited_for() -> None:
    transport = Sockets()
    world = World(SHORT, transport=transport)
    Caller(world).syn()
    stop(world)
    world.engine.run_timers()
    assert world.counts.live == 1
    world.run_to(world.now + 5 * SECOND - 1)
    assert world.counts.live == 1
    world.run_to(world.now + 1)
    assert world.outcomes() == {"CONNECT_TIMEOUT": 1}


def test_sessions_that_wait_for_the_rate_do_not_go_in_a_burst() -> None:
    """Ten a second are asked for: so many go after the standstill, and those that come then."""
    world = World(SHORT)
    limit = RateLimit(Fraction(10))
    world.opener.rate = SessionRate(limit, QUEUE)
    target = Answerer(world, "OK")
    for port in range(40001, 40041):
        Caller(world, port).syn()
    target.settle()
    world.run_to(world.now + 500 * MS)
    target.settle()
    assert world.counts.established == 6
    stop(world)
    world.engine.run_timers()
    target.settle()
    assert world.counts.established <= 7
    Caller(world, 50000).syn()  # it comes behind the others
    world.run_to(world.now + 1 * SECOND)
    target.settle()
    assert 15 <= world.counts.established <= 17
    assert limit.taken == 41 and (udp.CLIENT, 50000) not in {key[:2] for key in target.heard}


def test_requests_that_wait_for_the_rate_do_not_go_in_a_burst() -> None:
    world = World(EngineConfig())
    limit = RateLimit(Fraction(10))
    world.context.turn_rate = limit
    target = Answerer(world, "OK")
    callers = [Caller(world, port) for port in range(40001, 40041)]
    for caller in callers:
        caller.connect()
    target.settle()
    for caller in callers:
        caller.say("x")
    target.settle()
    stop(world)
    world.engine.run_timers()
    target.settle()
    assert world.counts.turns_replayed <= 2
    world.run_to(world.now + 1 * SECOND)
    target.settle()
    assert 10 <= world.counts.turns_replayed <= 12


@pytest.mark.parametrize("stopped", [True, False])
def test_udp_flows_stay(stopped: bool) -> None:
    """What a flow's client sent meanwhile is not read yet. (Else it ends, as ever.)"""
    world = udp.World()
    world.send()
    world.engine.now_ns += 2 * IDLE_NS
    if stopped:
        world.engine.stand_still(world.engine.now_ns, 2 * IDLE_NS)
    assert world.engine.run_timers() == (0 if stopped else 1)
    world.send()
    assert world.counts.seen == (1 if stopped else 2)
    if stopped:
        assert world.engine.next_deadline_ns() == world.engine.now_ns + IDLE_NS
    world.wait(IDLE_NS - 1)
    assert world.counts.live == 1
    world.wait(1)
    assert world.counts.live == 0


def test_fragments_of_udp_wait_for_each_other() -> None:
    """The second half of a datagram stood in a ring; one that never comes is given up later."""
    world = udp.World()
    batch = PacketBatch(PacketSink(), 128, 1500)
    data = bytes(2500)
    batch.udp(udp.CLIENT, 9, udp.ONLINE, 53, data, 0, len(data), 1500)
    first, second = [batch.packet(index) for index in range(batch.count)]
    world.engine.packet(first, 0, len(first), len(first), 0)
    world.engine.now_ns += 60 * SECOND
    world.engine.stand_still(world.engine.now_ns, 60 * SECOND)
    world.engine.run_timers()
    world.engine.packet(second, 0, len(second), len(second), 0)
    assert [sent for _, sent in world.output.sent] == [data]
    world.engine.packet(first, 0, len(first), len(first), 0)
    world.wait(29 * SECOND)
    assert world.counts.packet_drop_counts()[DatagramDrop.FRAGMENT] == 0
    world.wait(1 * SECOND)  # by the timers alone: no other fragment comes
    assert world.counts.packet_drop_counts()[DatagramDrop.FRAGMENT] == 1


def test_without_a_standstill_nothing_is_excused() -> None:
    """A late look alone is none: the loop says when it was one."""
    world = World(SHORT)
    target, caller = Answerer(world, "OK"), Caller(world)
    caller.connect()
    target.settle()
    world.engine.now_ns = START + STOP
    world.engine.run_timers()
    assert world.outcomes() == {"IDLE_COMPLETE": 1}
