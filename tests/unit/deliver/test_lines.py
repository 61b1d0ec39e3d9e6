"""Who waits to connect: in order, one at a time, ever less often."""

from __future__ import annotations

import errno

import pytest

from tcpcopy.deliver.lines import (
    AT_ONCE,
    FIRST_DELAY_NS,
    LONGEST_DELAY_NS,
    PORT_ERRORS,
    PROCESS_ERRORS,
    ROUTE_ERRORS,
    Lines,
)
from tcpcopy.engine.chunk import ChunkQueue
from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.kernel import KernelClient, Transport
from tcpcopy.packet.batch import PacketBatch
from tests.unit.engine.rig import MS, SECOND, CollectingSink

START = 50 * SECOND
LACK, ROUTE = 600 * SECOND, 20 * SECOND
NO_PORT, NO_ROUTE, NO_FILE = errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EMFILE


class World:
    """Lines, and a kernel that the test plays."""

    def __init__(self) -> None:
        self.lines = Lines(self.connect, LACK, ROUTE)
        self.now = START
        self.error = 0  # of every connect
        self.room = -1  # connects that succeed before that; -1: none is needed
        self.tried: list[int] = []  # numbers of the clients, in the order of their tries
        self.begun: list[int] = []
        self.clients: list[KernelClient] = []
        self.context = Context(EngineConfig(), PacketBatch(CollectingSink()))

    def connect(self, client: KernelClient, now_ns: int) -> int:
        number = self.clients.index(client)
        self.tried.append(number)
        if self.room == 0 or (self.error and self.room < 0):
            return -self.error
        if self.room > 0:
            self.room -= 1
        client.handle = number
        return 0

    def open(self, count: int = 1, target: int = 3) -> None:
        for _ in range(count):
            address = bytes((10, 0, 0, target))
            client = KernelClient(self.context, ChunkQueue(), Transport(), b"", address, 80)
            self.clients.append(client)
            self.lines.open(client, self.now)

    def run_to(self, after_ns: int) -> list[int]:
        """Let time pass; the numbers of those that wait no more, in order."""
        done = []
        while 0 <= self.lines.next_deadline_ns() <= START + after_ns:
            self.now = max(self.now, self.lines.next_deadline_ns())
            found = self.lines.run(self.now)
            done += [self.clients.index(client) for client, _ in found]
        self.now = START + after_ns
        return done


def test_nobody_waits_where_nothing_is_lacking() -> None:
    world = World()
    world.open(3)
    assert world.tried == [0, 1, 2]
    assert world.lines.waiting == world.lines.waited == 0
    assert world.lines.next_deadline_ns() == -1
    assert world.lines.run(world.now) == []
    assert world.lines.waits_until_ns(world.clients[0]) == 0


@pytest.mark.parametrize("error", sorted(PORT_ERRORS | PROCESS_ERRORS | ROUTE_ERRORS))
def test_one_is_tried_for_all_and_ever_less_often(error: int) -> None:
    world = World()
    world.error = error
    world.open(100)
    assert world.tried == [0], "the others stand behind it"
    assert world.lines.waiting == 100
    world.run_to(10 * SECOND)
    assert set(world.tried) == {0}
    # After 100 ms, 200, 400, 800, and then each second.
    assert len(world.tried) == 1 + 4 + 8
    assert FIRST_DELAY_NS == 100 * MS and LONGEST_DELAY_NS == SECOND


def test_those_behind_follow_at_once_and_in_order() -> None:
    world = World()
    world.error = NO_PORT
    world.open(AT_ONCE + 6)
    world.error = 0
    world.tried.clear()
    first = world.run_to(FIRST_DELAY_NS)
    assert first == world.tried == list(range(AT_ONCE + 6))
    assert world.lines.waiting == 0 and not world.lines.lines


def test_a_turn_does_not_take_more_than_a_bounded_number() -> None:
    world = World()
    world.error = NO_PORT
    world.open(2 * AT_ONCE)
    world.error = 0
    assert len(world.lines.run(START + FIRST_DELAY_NS)) == AT_ONCE
    assert world.lines.next_deadline_ns() == START + FIRST_DELAY_NS


def test_what_is_there_for_some_goes_to_the_first() -> None:
    world = World()
    world.error = NO_PORT
    world.open(5)
    world.room = 2
    assert world.run_to(FIRST_DELAY_NS) == [0, 1]
    world.open()
    assert world.run_to(2 * FIRST_DELAY_NS - 1) == []
    world.room = 3
    # The delay is short again after a success.
    assert world.run_to(2 * FIRST_DELAY_NS) == [2, 3, 4]
    world.room = 1
    assert world.run_to(3 * FIRST_DELAY_NS) == [5]


def test_targets_wait_apart_and_what_the_process_lacks_holds_all() -> None:
    world = World()
    world.error = NO_PORT
    world.open(2, target=3)
    world.error = 0
    world.open(1, target=4)
    assert world.tried == [0, 2], "another target is not held up"
    world.error = NO_FILE
    world.open(1, target=5)
    world.open(1, target=6)
    assert world.tried == [0, 2, 3], "any target is"
    world.error = 0
    assert sorted(world.run_to(SECOND)) == [0, 1, 3, 4]


def test_out_of_reach_until_the_target_has_said_something() -> None:
    world = World()
    world.error = NO_ROUTE
    world.open(50)
    world.error = 0  # the route is back, but who knows what is behind it
    world.tried.clear()
    world.run_to(FIRST_DELAY_NS)
    assert world.tried == [0]
    assert world.lines.waits_until_ns(world.clients[0]) == START + ROUTE
    world.run_to(FIRST_DELAY_NS + 10 * MS)
    assert world.tried == [0]
    world.lines.answered(world.clients[0], world.now)
    assert world.run_to(FIRST_DELAY_NS + 20 * MS) == list(range(1, 50))
    assert world.lines.waiting == 0


def test_refusal_is_an_answer() -> None:
    world = World()
    world.error = NO_ROUTE
    world.open(3)
    world.error = 0
    world.run_to(FIRST_DELAY_NS)
    assert not world.lines.failed(world.clients[0], errno.ECONNREFUSED, world.now)
    assert world.run_to(FIRST_DELAY_NS) == [1, 2]


def test_silence_of_one_that_is_tried_holds_nobody_for_ever() -> None:
    """Its SYN may have been lost: the next is tried in its turn."""
    world = World()
    world.error = NO_ROUTE
    world.open(4)
    world.error = 0
    world.tried.clear()
    world.run_to(3 * SECOND)
    assert world.tried == [0, 1, 2, 3]
    world.lines.answered(world.clients[2], world.now)
    assert world.lines.waiting == 0, "those tried go on by themselves"


def test_late_failure_keeps_the_place() -> None:
    world = World()
    world.error = NO_ROUTE
    world.open(3)
    world.error = 0
    world.run_to(FIRST_DELAY_NS)
    world.tried.clear()
    assert world.lines.failed(world.clients[0], errno.EHOSTUNREACH, world.now)
    world.run_to(SECOND)
    assert world.tried[0] == 0


def test_connects_under_way_that_fail_begin_a_line() -> None:
    world = World()
    world.open(3)
    for client in world.clients:
        assert world.lines.failed(client, errno.EHOSTUNREACH, world.now)
    world.tried.clear()
    world.open()
    assert world.tried == [] and world.lines.waiting == 4
    world.run_to(FIRST_DELAY_NS)
    assert world.tried == [0]


def test_how_long_is_waited() -> None:
    world = World()
    world.error = NO_PORT
    world.open(2)
    first, second = world.clients
    assert world.lines.waits_until_ns(second) == START + LACK
    world.run_to(5 * SECOND)
    world.error = NO_ROUTE  # the ports are there, and now the route is not
    world.run_to(6 * SECOND)
    since = world.lines.lines[(first.target_address, 80)].since_ns
    assert START + 5 * SECOND <= since <= START + 6 * SECOND
    assert world.lines.waits_until_ns(second) == since + ROUTE
    world.error = NO_PORT
    world.run_to(9 * SECOND)
    assert world.lines.waits_until_ns(second) == START + LACK


def test_who_leaves_is_not_tried_and_the_line_ends_with_the_last() -> None:
    world = World()
    world.error = NO_PORT
    world.open(3)
    world.tried.clear()
    world.lines.leave(world.clients[0])
    world.lines.leave(world.clients[0])
    world.error = 0
    assert world.run_to(FIRST_DELAY_NS) == [1, 2]
    world.error = NO_PORT
    world.open()
    world.lines.leave(world.clients[3])
    assert not world.lines.lines and world.lines.next_deadline_ns() == -1
    world.error = 0
    world.open()
    assert world.tried[-1] == 4, "who comes later waits for nobody"


def test_final_error_of_one_does_not_stop_the_others() -> None:
    world = World()
    world.error = NO_PORT
    world.open(3)
    world.error = errno.ECONNABORTED
    done = world.lines.run(START + FIRST_DELAY_NS)
    assert [result for _, result in done] == [-errno.ECONNABORTED] * 3
    assert world.lines.waiting == 0
    world.open()
    assert world.lines.waiting == 0, "and nobody waits for what no waiting mends"


def test_another_lack_moves_the_first_to_another_line() -> None:
    world = World()
    world.error = NO_PORT
    world.open(2)
    world.error = NO_FILE
    world.run_to(SECOND)
    assert None in world.lines.lines
    world.error = 0
    assert sorted(world.run_to(3 * SECOND)) == [0, 1]
    assert world.lines.waited == 2, "a session that moves has waited once"
