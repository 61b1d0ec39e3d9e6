"""Sessions that a killed run left open: asked for their numbers, reset, and never begun anew."""

from __future__ import annotations

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.leftovers import Leftovers
from tcpcopy.engine.outcome import Drop
from tests.sim.model import wire
from tests.unit.engine.rig import MS, SECOND, flag_bits, flag_letters
from tests.unit.engine.test_engine_opening import Announcements
from tests.unit.engine.world import (
    CLIENT,
    CLIENT_PORT,
    START,
    TARGET,
    TARGET_PORT,
    Answerer,
    Caller,
    World,
)

V6 = (
    bytes.fromhex("20010db8" + "00" * 11 + "07"),
    5,
    bytes.fromhex("20010db8" + "00" * 11 + "03"),
    443,
)
Session = tuple[bytes, int, bytes, int]


class Book:
    """A ledger as a list."""

    def __init__(self, sessions: list[Session]) -> None:
        self.sessions: list[Session | None] = [None, *sessions]

    def add(self, *session: object) -> int:
        raise AssertionError("nothing is written down here")

    def session(self, place: int) -> Session | None:
        return self.sessions[place]

    def remove(self, place: int) -> None:
        assert self.sessions[place] is not None
        self.sessions[place] = None


class Bench:
    """An engine with leftovers, and a target that the test plays."""

    def __init__(self, sessions: list[Session], *, announcer: Announcements | None = None) -> None:
        self.world = World(EngineConfig(seed=7), announcer=announcer)
        self.book = Book(sessions)
        self.can_send = True
        engine = self.world.engine
        self.left = Leftovers(
            self.world.context,
            engine.by_answer,
            announcer,
            self.book,
            range(1, len(sessions) + 1),
            lambda: self.can_send,
        )
        engine.leftovers = self.left

    def run(self, duration_ns: int = 0) -> list[wire.Segment]:
        """Let time pass; what was sent."""
        engine = self.world.engine
        end = engine.now_ns + duration_ns
        while True:
            self.left.run(engine.now_ns)
            if engine.now_ns >= end:
                return self.world.sent()
            engine.now_ns = min(end, max(engine.now_ns + 1, self.left.deadline_ns()))

    def answer(self, to: wire.Segment, letters: str, *, seq: int = 9, ack: int = 0) -> Drop | int:
        return self.world.answer(
            wire.Segment(
                to.destination, to.destination_port, to.source, to.source_port,
                seq, ack, flag_bits(letters),
            )
        )  # fmt: skip

    def counts(self) -> dict[str, int]:
        """Those that are not zero; they add up."""
        left = self.left
        names = ("reset", "gone", "superseded", "unanswered", "waiting")
        counts = {name: getattr(left, name) for name in names if getattr(left, name)}
        assert sum(counts.values()) == left.found
        return counts


ONE = (CLIENT, CLIENT_PORT, TARGET, TARGET_PORT)


@pytest.mark.parametrize("session", [ONE, V6], ids=["IPv4", "IPv6"])
def test_a_challenge_tells_the_number_of_the_reset(session: Session) -> None:
    bench = Bench([session])
    (syn,) = bench.run()
    assert flag_letters(syn.flags) == "S"
    assert (syn.source, syn.source_port, syn.destination, syn.destination_port) == session
    assert bench.answer(syn, "A", ack=0xFFFF_FFF0) == 0
    (rst,) = bench.run()
    assert (flag_letters(rst.flags), rst.seq) == ("R", 0xFFFF_FFF0)
    assert bench.counts() == {"waiting": 1}
    again = bench.run(SECOND)
    assert [(flag_letters(s.flags), s.seq) for s in again] == [("R", 0xFFFF_FFF0)] * 2
    assert bench.counts() == {"reset": 1}
    assert bench.book.session(1) is None
    assert bench.answer(syn, "A", ack=5) == Drop.FOREIGN, "it is forgotten"
    bench.world.check()


def test_a_target_that_does_not_know_it_gets_no_connection() -> None:
    """Its SYN-ACK is reset, never acknowledged: no application hears of it."""
    bench = Bench([ONE])
    (syn,) = bench.run()
    bench.answer(syn, "SA", ack=syn.seq + 1 & 0xFFFFFFFF)
    sent = bench.run(5 * SECOND)
    assert {(flag_letters(s.flags), s.seq) for s in sent} == {("R", syn.seq + 1 & 0xFFFFFFFF)}
    assert bench.counts() == {"gone": 1}


def test_a_half_open_connection_of_before_is_reset() -> None:
    """The run was killed in a handshake: the target repeats its SYN-ACK, with the old number."""
    bench = Bench([ONE])
    (syn,) = bench.run()
    bench.answer(syn, "SA", ack=77)
    (rst, *_) = bench.run(SECOND)
    assert (flag_letters(rst.flags), rst.seq) == ("R", 77)
    assert bench.counts() == {"reset": 1}


def test_a_closed_port_is_gone_at_once() -> None:
    bench = Bench([ONE])
    (syn,) = bench.run()
    bench.answer(syn, "RA", ack=syn.seq + 1 & 0xFFFFFFFF)
    assert bench.run(10 * SECOND) == []
    assert bench.counts() == {"gone": 1}


def test_a_reset_that_was_lost_is_made_up_for() -> None:
    """The target goes on sending in the old connection: it is reset with the newest number."""
    bench = Bench([ONE])
    (syn,) = bench.run()
    bench.answer(syn, "A", ack=100)
    bench.run(30 * MS)
    bench.answer(syn, "PA", ack=200)
    assert [s.seq for s in bench.run(SECOND)] == [200, 200, 200]
    assert bench.counts() == {"reset": 1}


def test_silence_is_asked_again_and_then_counted() -> None:
    bench = Bench([ONE])
    sent = bench.run(20 * SECOND)
    assert [flag_letters(s.flags) for s in sent] == ["S"] * 4
    assert bench.counts() == {"unanswered": 1}
    assert bench.world.counts.retransmitted == 3
    assert bench.book.session(1) is None


def test_many_are_spread_over_time() -> None:
    """At most 500 a second, and a bounded number of them unanswered."""
    sessions = [(CLIENT, port, TARGET, TARGET_PORT) for port in range(1, 4001)]
    bench = Bench(sessions)
    syns = bench.run(SECOND - 1)
    assert len(syns) == 500
    for syn in syns:
        bench.answer(syn, "A", ack=1)
    bench.run(300 * MS)
    assert bench.left.reset == 500
    bench.run(20 * SECOND)
    assert len(bench.left._asked) <= 2000
    assert sum(1 for _ in bench.left.places()) == bench.left.waiting


def test_nothing_is_sent_while_the_relay_is_down() -> None:
    bench = Bench([ONE])
    bench.can_send = False
    assert bench.run(5 * SECOND) == []
    bench.can_send = True
    assert len(bench.run(1100 * MS)) == 1


def test_intercepts_hear_of_it_before_and_after() -> None:
    announced = Announcements()
    bench = Bench([ONE], announcer=announced)
    announced.world = bench.world
    (syn,) = bench.run()
    assert announced.made == [ONE]
    bench.answer(syn, "A", ack=1)
    bench.run(SECOND)
    assert announced.withdrawn == [ONE]


@pytest.mark.parametrize("asked", [False, True], ids=["before it is asked", "after"])
def test_a_new_session_with_its_address_and_port_wins(asked: bool) -> None:
    """Nothing more is sent for the old one, and the new one is replayed whole."""
    announced = Announcements()
    bench = Bench([ONE], announcer=announced)
    world = bench.world
    announced.world = world
    if asked:
        assert len(bench.run()) == 1
    caller = Caller(world)
    caller.connect()
    caller.say("hello")
    target = Answerer(world)
    target.settle()
    caller.fin()
    target.settle()
    assert bench.run(20 * SECOND) == []
    assert bench.counts() == {"superseded": 1}
    assert announced.withdrawn == [], "the route is the new session's"
    assert target.texts() == ["hello"]


def test_the_new_session_is_told_of_the_old_connection_by_a_challenge() -> None:
    """Both SYNs were sent; the challenge comes to the new session, which resets and asks again."""
    bench = Bench([ONE])
    world = bench.world
    (old,) = bench.run()
    Caller(world).syn()
    (new,) = world.sent()
    assert bench.answer(old, "A", ack=1234) == Drop.BAD_ACK
    rst, again = world.sent()
    assert (flag_letters(rst.flags), rst.seq) == ("R", 1234)
    assert (flag_letters(again.flags), again.seq) == ("S", new.seq)
    assert bench.run(SECOND - 10 * MS) == []


def test_what_stands_twice_or_nowhere_costs_nothing() -> None:
    bench = Bench([ONE, ONE, V6])
    bench.book.sessions[3] = None
    assert len(bench.run()) == 1
    assert bench.counts() == {"waiting": 1, "superseded": 1, "gone": 1}


def test_time_of_the_first_look() -> None:
    bench = Bench([ONE])
    assert bench.left.deadline_ns() <= START
