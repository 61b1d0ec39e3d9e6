"""A target that goes away: what waits, what is sent again, what is not, and how it is counted."""

from __future__ import annotations

import errno
import itertools
from dataclasses import replace

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.retry import MOST_FRUITLESS, MOST_SHORT
from tests.sim.model import wire
from tests.unit.engine.rig import MS, SECOND, flag_letters
from tests.unit.engine.test_engine_sockets import Sockets, sockets
from tests.unit.engine.world import CLIENT_PORT, Answerer, Caller, Target, World

CONFIG = EngineConfig(retry_ns=10 * SECOND)
CONNECTION_REFUSED = errno.ECONNREFUSED


class Door(Answerer):
    """A target whose server can be ended: its port refuses then, what it had open is reset."""

    def __init__(self, world: World, reply: str = "") -> None:
        super().__init__(world, reply)
        self.is_open = True
        self.syns: list[wire.Segment] = []
        self.newest: wire.Segment | None = None
        self.isns: dict[object, int] = {}

    def _take(self, segment: wire.Segment) -> None:
        letters = flag_letters(segment.flags)
        if "S" in letters:
            self.syns.append(segment)
        if "R" not in letters:
            self.newest = segment
        if not self.is_open:
            if "R" not in letters:
                self.tell(segment, "RA", seq=0, ack=segment.seq + ("S" in letters))
            return
        if "S" in letters:
            self.isns[segment.key] = 0x3333_0000 + 1_000_000 * len(self.syns)
        self.isn = self.isns[segment.key]
        super()._take(segment)

    def cut(self, letters: str = "RA") -> None:
        """End the newest connection."""
        last = self.newest
        assert last is not None
        seq = self.isn + 1 + self.told[last.key]
        self.tell(last, letters, seq=seq, ack=last.seq + len(last.payload))


def settle_until(world: World, door: Door, until_ns: int) -> None:
    """Let time pass in small steps, the target answering."""
    while world.now < until_ns:
        world.run_to(min(until_ns, world.now + 10 * MS))
        door.settle()


@pytest.fixture
def world() -> World:
    return World(CONFIG)


def test_refused_connect_is_tried_again_and_the_session_is_exact(world: World) -> None:
    door = Door(world)
    door.is_open = False
    caller = Caller(world)
    caller.connect()
    caller.say("one")
    caller.fin()
    door.settle()
    settle_until(world, door, 2 * SECOND)
    assert world.outcomes() == {} and len(door.syns) >= 4
    door.is_open = True
    settle_until(world, door, 4 * SECOND)
    assert door.texts() == ["one"]
    settle_until(world, door, 8 * SECOND)
    assert world.outcomes() in ({"REPLAYED": 1}, {"UNANSWERED": 1})
    assert world.counts.established == 1
    assert world.counts.connects_retried == len(door.syns) - 1
    assert world.counts.retry_waited == 1
    world.check_ended()


def test_pauses_grow_to_a_second_and_end_with_retry(world: World) -> None:
    door = Door(world)
    door.is_open = False
    Caller(world).connect()
    at = []
    while world.counts.live:
        before = len(door.syns)
        door.settle()
        at += [world.now] * (len(door.syns) - before)
        assert world.now <= 10 * SECOND
        if world.counts.live:
            world.run_to(max(0, world.engine.next_deadline_ns() - world.engine.now_ns) + world.now)
    gaps = [(b - a) // MS for a, b in itertools.pairwise(at)]
    assert gaps[:5] == [50, 100, 200, 400, 800]
    assert set(gaps[5:]) == {1000}
    assert world.outcomes() == {"REFUSED": 1}
    assert world.now == 10 * SECOND
    world.check_ended()


def test_without_retry_it_ends_at_once() -> None:
    world = World(EngineConfig())
    door = Door(world)
    door.is_open = False
    Caller(world).connect()
    door.settle()
    assert world.outcomes() == {"REFUSED": 1}


def test_one_probes_and_the_others_wait_in_line(world: World) -> None:
    door = Door(world)
    door.is_open = False
    callers = [Caller(world, CLIENT_PORT + n) for n in range(200)]
    for caller in callers:
        caller.connect()
        caller.say(f"{caller.blank.source_port}")
        caller.fin()
    door.settle()
    assert len(door.syns) == 200  # nobody knew
    settle_until(world, door, 3 * SECOND)
    assert len({s.source_port for s in door.syns[200:]}) == 1
    assert len(door.syns) < 210
    late = Caller(world, CLIENT_PORT + 500)
    late.connect()
    late.say("late")
    late.fin()
    door.settle()
    assert len(door.syns) < 210  # waits, though it was never refused itself
    door.is_open = True
    settle_until(world, door, 5 * SECOND)
    assert sorted(door.texts()) == sorted([*(str(CLIENT_PORT + n) for n in range(200)), "late"])
    settle_until(world, door, 10 * SECOND)
    assert not set(world.outcomes()) - {"REPLAYED", "UNANSWERED"}
    world.check_ended()


def test_all_end_refused_when_the_target_stays_down(world: World) -> None:
    door = Door(world)
    door.is_open = False
    for number in range(50):
        Caller(world, CLIENT_PORT + number).connect()
        door.settle()
    settle_until(world, door, 10 * SECOND + 10 * MS)
    assert world.outcomes() == {"REFUSED": 50}
    assert world.counts.retry_waiting == 0
    assert len(door.syns) < 80
    world.check_ended()


def test_targets_do_not_wait_for_each_other() -> None:
    other = Target(bytes((10, 9, 0, 4)), 9090)
    world, transport = sockets(CONFIG, targets=(Target(), other))
    Caller(world).connect()
    transport.accept(0, CONNECTION_REFUSED)
    transport.accept(1)
    Caller(world, CLIENT_PORT + 1).connect()
    assert [client.target_port for client in transport.clients] == [8080, 9090, 9090]
    assert world.counts.retry_waiting == 2


def test_an_unanswered_connect_ends_as_before(world: World) -> None:
    """Its SYN was sent again all the time, for longer than --retry."""
    Caller(world).connect()
    world.run_to(21 * SECOND)
    assert world.outcomes() == {"CONNECT_TIMEOUT": 1}


def test_unanswered_connects_are_tried_again_for_longer_when_asked() -> None:
    world = World(replace(CONFIG, retry_ns=60 * SECOND))
    door = Door(world)
    Caller(world).connect()
    world.sent()
    world.run_to(20 * SECOND + 1)
    assert world.outcomes() == {}
    settle_until(world, door, 22 * SECOND)
    assert world.counts.established == 1


def test_a_refusal_that_turns_into_silence_is_no_longer_either(world: World) -> None:
    door = Door(world)
    door.is_open = False
    Caller(world).connect()
    door.settle()
    world.run_to(9 * SECOND)
    world.run_to(10 * SECOND + MS)
    assert world.outcomes() == {"REFUSED": 1}


def conversation(world: World) -> tuple[Door, Caller]:
    """A client that has sent two turns, both answered with two bytes."""
    door = Door(world, "ok")
    caller = Caller(world)
    caller.connect()
    door.settle()
    caller.say("one.")
    door.settle()
    settle_until(world, door, world.now + 100 * MS)
    caller.say("two.", seen=2)
    settle_until(world, door, world.now + 100 * MS)
    assert door.texts() == ["one.two."]
    return door, caller


@pytest.mark.parametrize("how", ["RA", "FA"])
def test_cut_between_turns_goes_on_on_another_connection(world: World, how: str) -> None:
    door, caller = conversation(world)
    first = door.syns[0]
    door.cut(how)
    settle_until(world, door, world.now + 200 * MS)
    assert world.outcomes() == {} and len(door.syns) == 1  # nothing to send yet
    caller.say("three.", seen=4)
    settle_until(world, door, world.now + 200 * MS)
    caller.say("four.", seen=6)
    settle_until(world, door, world.now + 200 * MS)
    second = door.syns[1]
    assert second.key == first.key  # the same ends
    ahead = (second.seq - first.seq) & 0xFFFFFFFF
    assert len("one.two.") < ahead < 1 << 31  # RFC 6191: later than what was sent before
    assert door.texts() == ["three.four."]
    caller.fin(seen=8)
    settle_until(world, door, world.now + 2 * SECOND)
    assert world.outcomes() == {"GONE_ON": 1}
    assert world.counts.turns_missed == 0
    assert world.counts.sessions_resumed == 1
    assert world.counts.established == 1
    world.check_ended()


def test_the_turn_under_way_is_never_sent_twice(world: World) -> None:
    door, caller = conversation(world)
    caller.say("three.", seen=4)
    door.reply = b""
    settle_until(world, door, world.now + 20 * MS)
    assert door.texts() == ["one.two.three."]
    caller.say("and more", seen=4)  # of the same turn
    door.cut()
    settle_until(world, door, world.now + 100 * MS)
    door.reply = b"ok"
    caller.say(" of it", seen=4)
    caller.say("four.", seen=6)
    settle_until(world, door, world.now + 200 * MS)
    assert door.texts() == ["four."]
    assert world.counts.turns_missed == 1
    caller.fin(seen=8)
    settle_until(world, door, world.now + 2 * SECOND)
    assert world.outcomes() == {"GONE_ON": 1}
    world.check_ended()


def test_late_answers_of_the_old_connection_are_not_the_new_ones(world: World) -> None:
    door, caller = conversation(world)
    old, isn, told = door.newest, door.isn, 4
    assert old is not None
    door.cut()
    caller.say("three.", seen=4)
    # Before the SYN, after it, and once the new connection stands.
    for _ in range(3):
        world.answer(
            wire.Segment(
                old.destination, old.destination_port, old.source, old.source_port,
                isn + 1 + told, old.seq, 0x18, 65535, b"late",
            )
        )  # fmt: skip
        settle_until(world, door, world.now + 50 * MS)
    (session,) = world.sessions()
    assert session.replayed.received == 2
    assert door.texts()[-1] == "three."


def test_the_new_number_comes_after_more_bytes_than_the_clock_counts(world: World) -> None:
    door, caller = conversation(world)
    for _ in range(50):
        caller.say("x" * 1400, seen=4)
        door.settle()
    first = door.syns[0]
    sent = len(door.texts()[0])
    door.cut()
    caller.say("next.", seen=6)
    settle_until(world, door, world.now + 10 * MS)
    ahead = (door.syns[1].seq - first.seq) & 0xFFFFFFFF
    assert 70_000 < sent < ahead < 1 << 31


@pytest.mark.parametrize("ending", ["fin", "rst"])
def test_a_cut_without_a_next_turn_is_what_it_was(world: World, ending: str) -> None:
    door, caller = conversation(world)
    door.cut()
    assert world.outcomes() == {}
    getattr(caller, ending)(seen=4)
    assert world.outcomes() == {"RESET": 1}
    world.check_ended()


def test_a_target_that_closes_first_and_a_client_that_follows_is_exact(world: World) -> None:
    door, caller = conversation(world)
    door.cut("FA")
    caller.fin(seen=5)
    settle_until(world, door, world.now + SECOND)
    assert world.outcomes() == {"REPLAYED": 1}


def test_full_sessions_only_does_not_go_on() -> None:
    world = World(replace(CONFIG, full_sessions_only=True))
    door, caller = conversation(world)
    door.cut()
    assert world.outcomes() == {"RESET": 1}
    caller.say("three.", seen=4)
    door.settle()
    assert len(door.syns) == 1


def test_cut_while_the_target_is_down_waits_for_it(world: World) -> None:
    door, caller = conversation(world)
    door.is_open = False
    door.cut()
    caller.say("three.", seen=4)
    settle_until(world, door, world.now + 2 * SECOND)
    door.is_open = True
    settle_until(world, door, world.now + 2 * SECOND)
    assert door.texts()[-1] == "three."
    caller.fin(seen=6)
    settle_until(world, door, world.now + 2 * SECOND)
    assert world.outcomes() == {"GONE_ON": 1}


def test_cut_and_down_for_good_is_the_cut(world: World) -> None:
    door, caller = conversation(world)
    door.is_open = False
    door.cut()
    caller.say("three.", seen=4)
    settle_until(world, door, world.now + 11 * SECOND)
    assert world.outcomes() == {"RESET": 1}
    world.check_ended()


def test_a_target_that_always_cuts_is_given_up(world: World) -> None:
    door, caller = conversation(world)
    door.reply = b""
    seen = 4
    for number in range(MOST_FRUITLESS + 2):
        caller.say(f"turn {number}.", seen=seen)
        seen += 2
        settle_until(world, door, world.now + 500 * MS)
        if world.outcomes():
            break
        door.cut()
    assert world.outcomes() == {"RESET": 1}
    assert len(door.syns) == 1 + MOST_FRUITLESS
    world.check_ended()


def test_connections_that_end_with_their_first_turn_are_given_up(world: World) -> None:
    """Each answers, and is cut: a log-in that fails, say. That is not tried for ever."""
    door = Door(world, "no")
    caller = Caller(world)
    caller.connect()
    door.settle()
    seen = 0
    for number in range(MOST_SHORT + 5):
        caller.say(f"turn {number}.", seen=seen)
        seen += 2
        settle_until(world, door, world.now + 500 * MS)
        if world.outcomes():
            break
        door.cut()
    assert world.outcomes() == {"RESET": 1}
    assert len(door.syns) == MOST_SHORT
    world.check_ended()


def test_at_exit_what_waits_is_refused_and_what_was_cut_is_cut(world: World) -> None:
    door, _ = conversation(world)
    door.cut()
    door.is_open = False
    Caller(world, CLIENT_PORT + 1).connect()
    door.settle()
    assert world.engine.unfinished() == 1  # one that was cut has nothing to wait for
    world.engine.close_all()
    assert world.outcomes() == {"RESET": 1, "REFUSED": 1}
    world.check_ended()


def test_data_that_waits_are_counted_and_bounded(world: World) -> None:
    door = Door(world)
    door.is_open = False
    world.engine.max_queued_bytes = 3000
    caller = Caller(world)
    caller.connect()
    door.settle()
    caller.say("x" * 1000)
    assert world.counts.queued_bytes > 1000
    caller.say("x" * 1000)
    caller.say("x" * 1000)
    assert world.outcomes() == {"SHED_MEMORY": 1}
    assert world.counts.queued_bytes == 0
    world.check_ended()


def test_the_owner_is_told_once_of_each_change() -> None:
    world, transport = sockets(CONFIG)
    told: list[tuple[int, bool, int]] = []
    world.engine.retries.tell = lambda target, down, waited: told.append((target[1], down, waited))
    for number in range(3):
        Caller(world, CLIENT_PORT + number).connect()
    for number in range(3):
        transport.accept(number, CONNECTION_REFUSED)
    assert told == [(8080, True, 0)]
    world.run_to(60 * MS)
    transport.accept(3)
    assert told == [(8080, True, 0), (8080, False, 3)]
    world.run_to(70 * MS)
    assert len(transport.clients) == 6
    assert world.counts.retry_waiting == 0


def kernel_conversation() -> tuple[World, Sockets, Caller]:
    world, transport = sockets(CONFIG)
    caller = Caller(world)
    caller.connect()
    transport.accept()
    caller.say("one.")
    transport.answer(2)
    world.run_to(world.now + 100 * MS)
    return world, transport, caller


@pytest.mark.parametrize("by_fin", [False, True])
def test_sockets_go_on(by_fin: bool) -> None:
    world, transport, caller = kernel_conversation()
    if by_fin:
        transport.end()
    else:
        transport.fail(errno.ECONNRESET)
    world.run_to(world.now + 100 * MS)
    assert len(transport.clients) == 1
    caller.say("two.", seen=2)
    world.run_to(world.now + 100 * MS)
    transport.accept(1)
    assert transport.said == [b"one.", b"two."]
    assert transport.closed[0] == ("reset" if by_fin else "closed")
    transport.answer(2, 1)
    caller.fin(seen=4)
    world.run_to(world.now + 100 * MS)
    transport.end(1)
    assert world.outcomes() == {"GONE_ON": 1}
    assert world.counts.turns_missed == 0 and world.counts.established == 1
    assert world.counts.bytes_delivered == 8
    world.check_ended()


def test_sockets_do_not_send_what_was_under_way() -> None:
    world, transport, caller = kernel_conversation()
    caller.say("two.", seen=2)
    assert transport.said == [b"one.two."]
    transport.unacked[0] = 4
    transport.fail(errno.ECONNRESET)
    caller.say("three.", seen=4)
    world.run_to(world.now + 100 * MS)
    transport.accept(1)
    assert transport.said == [b"one.two.", b"three."]
    assert world.counts.turns_missed == 1
    assert world.counts.bytes_delivered == 10
