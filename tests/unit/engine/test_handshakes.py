"""What a SYN alone comes to: opened ahead, waiting, taken back; and what proves a client."""

from __future__ import annotations

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.handshakes import AHEAD_SESSIONS, PATIENCE_NS, WAIT_NS
from tcpcopy.engine.outcome import Drop
from tests.unit.engine.flooding import strangers, world_of
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import START, Answerer, Caller, Target

TWO_TARGETS = (Target(), Target(target_port=8081))


def test_a_client_is_connected_at_its_syn() -> None:
    world = world_of(ahead=AHEAD_SESSIONS)
    caller = Caller(world)
    caller.syn()
    assert world.lines() == ["40001 S"]
    assert (world.counts.waiting, world.engine.ahead_sessions) == (0, 1)
    caller.give("A")
    assert (world.sessions()[0].unproven, world.engine.ahead_sessions) == (0, 0)
    world.check()


@pytest.mark.parametrize("proof", ["A", "PA", "FA"])
def test_beyond_the_bound_a_syn_waits_for_its_client(proof: str) -> None:
    world = world_of()
    target = Answerer(world, "answer")
    Caller(world, 40001).syn()
    caller = Caller(world, 40002)
    target.settle()
    assert caller.syn() == 0
    assert world.lines() == [] and world.counts.live == 1 and world.counts.waiting == 1
    world.check()
    world.run_to(30 * MS)
    if proof == "PA":
        assert caller.say("hello") == 0
    else:
        assert caller.give(proof) == 0
    assert (world.counts.waiting, world.counts.live, world.counts.sessions) == (0, 2, 2)
    target.settle()
    assert target.texts()[1] == ("hello" if proof == "PA" else "")
    world.engine.close_all()
    world.check_ended()
    assert world.outcomes()["HANDSHAKE_INCOMPLETE"] == 1, "the first one"


def test_a_proven_client_makes_room() -> None:
    world = world_of()
    for port in range(40001, 40020):
        caller = Caller(world, port)
        caller.syn()
        assert world.lines() == [f"{port} S"]
        caller.give("A")
    assert world.counts.waiting == 0


def test_the_round_trip_time_of_one_that_waited() -> None:
    world = world_of()
    Caller(world, 40001).syn()
    caller = Caller(world, 40002)
    caller.syn(timestamp=(1, 0))
    world.run_to(80 * MS)
    caller.give("A", timestamp=(2, 500))
    _, session = world.sessions()
    assert (session.client_rtt_ns, session.rtt_ns) == (80 * MS, 80 * MS)
    assert world.counts.far == 1


def test_the_options_of_one_that_waited() -> None:
    world = world_of()
    Caller(world, 40001).syn()
    world.sent()
    caller = Caller(world, 40002)
    caller.syn(mss=1234, window_scale=3, window=777, sack_permitted=False)
    assert world.sent() == []
    caller.give("A")
    (syn,) = world.sent()
    assert (syn.mss, syn.window_scale, syn.window, syn.sack_permitted) == (1234, 3, 777, False)


def test_a_greeting_is_waited_for() -> None:
    """The server speaks first: the client's data goes when the target has greeted as well."""
    world = world_of()
    Caller(world, 40001).syn()
    target = Answerer(world)
    target.settle()
    caller = Caller(world, 40002)
    caller.syn()
    caller.give("A")
    (syn,) = world.sent()
    target.heard[syn.key], target.told[syn.key] = b"", 0
    target.tell(syn, "SA", seq=target.isn, ack=syn.seq + 1, mss=1460)
    assert caller.say("login", seen=20) == 0
    target.settle()
    assert target.heard[syn.key] == b""
    target.tell(syn, "PA", seq=target.isn + 1, ack=syn.seq + 1, payload=bytes(20))
    target.told[syn.key] += 20
    target.settle()
    assert target.heard[syn.key] == b"login"
    assert world.counts.server_first == 1


def test_early_data_on_a_syn_that_waits() -> None:
    world = world_of()
    target = Answerer(world)
    Caller(world, 40001).syn()
    caller = Caller(world, 40002)
    assert caller.syn(b"early ") == 0
    caller.said = b"early "
    target.settle()
    caller.say("late")
    target.settle()
    assert "early late" in target.texts()
    assert world.counts.bytes_captured == 10


def test_a_syn_again_is_nothing_new_and_keeps_its_time() -> None:
    world = world_of()
    Caller(world, 40001).syn()
    caller = Caller(world, 40002)
    caller.syn()
    world.run_to(300 * MS)
    assert caller.again() is Drop.DUPLICATE
    assert (world.counts.waiting, world.counts.sessions) == (1, 2)
    world.run_to(400 * MS)
    caller.give("A")
    assert world.sessions()[1].client_rtt_ns == 400 * MS
    world.check()


def test_another_syn_of_the_same_port_takes_the_place() -> None:
    world = world_of()
    Caller(world, 40001).syn()
    first = Caller(world, 40002, isn=1000)
    second = Caller(world, 40002, isn=900_000_000)
    first.syn()
    second.syn()
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 1}
    assert (world.counts.waiting, world.counts.sessions) == (1, 3)
    second.give("A")
    assert world.sessions()[1].captured_isn == 900_000_000
    world.check()


def test_another_syn_ends_an_unproven_session() -> None:
    world = world_of()
    first = Caller(world, 40001, isn=1000)
    second = Caller(world, 40001, isn=900_000_000)
    first.syn()
    second.syn()
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 1}
    (session,) = world.sessions()
    assert session.captured_isn == 900_000_000 and session.unproven == 1
    world.check()


@pytest.mark.parametrize("letters", ["R", "RA"])
@pytest.mark.parametrize("waits", [False, True])
def test_a_reset_instead_of_the_handshake(waits: bool, letters: str) -> None:
    world = world_of(ahead=0 if waits else 1)
    target = Answerer(world)
    caller = Caller(world)
    caller.syn()
    target.settle()
    assert caller.give(letters, at=70_000_000_0 * 3) is Drop.OUT_OF_WINDOW
    assert caller.give(letters) == 0
    target.settle()
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 1}
    assert target.reset == ([] if waits else [40001])
    assert caller.say("late") in (0, Drop.CLOSED_SESSION)
    world.engine.close_all()
    world.check_ended()


def test_what_does_not_fit_is_no_proof() -> None:
    world = world_of(ahead=0)
    caller = Caller(world)
    caller.syn()
    assert caller.give("A", at=-1_000) is Drop.OUT_OF_WINDOW
    assert caller.give("", at=0) is Drop.OUT_OF_WINDOW, "without ACK"
    assert caller.give("SA", at=-1) is Drop.NO_SESSION
    assert world.counts.waiting == 1
    world.engine.ahead_most = 1
    other = Caller(world, 40002)
    other.syn()
    assert other.give("PA", at=-1_000, payload=b"x") is Drop.OUT_OF_WINDOW
    assert other.give("P", payload=b"x") is Drop.OUT_OF_WINDOW
    assert world.sessions()[0].unproven == 1
    assert other.give("PA", at=-1, payload=b"x") is Drop.DUPLICATE
    assert world.sessions()[0].unproven == 0, "a keep-alive probe shows that it is there"
    world.check()


def test_cut_data_does_not_open() -> None:
    world = world_of(ahead=0)
    caller = Caller(world)
    caller.syn()
    packet = caller.packet("PA", payload=b"x" * 100)
    assert world.capture(packet[:-50], wire_length=len(packet)) is Drop.CUT
    assert world.counts.waiting == 1
    assert world.capture(packet) == 0


def test_a_silent_client_is_taken_back_and_may_still_come() -> None:
    """Its connection at the target ends; when the client goes on after all, it is made anew."""
    world = world_of()
    target = Answerer(world)
    caller = Caller(world)
    caller.syn()
    target.settle()
    assert (world.counts.live, world.counts.established) == (1, 1)
    world.run_to(PATIENCE_NS - SECOND)
    assert target.reset == []
    world.run_to(PATIENCE_NS + 2 * SECOND)
    target.settle()
    assert 40001 in target.reset
    assert (world.counts.live, world.counts.waiting, world.counts.established) == (0, 1, 0)
    assert world.outcomes() == {}
    world.check()
    world.run_to(PATIENCE_NS + 10 * SECOND)
    assert caller.say("slow, but here") == 0
    target.settle()
    assert target.texts()[-1] == "slow, but here"
    caller.fin()
    target.settle()
    world.run_to(world.now + 5 * SECOND)
    target.settle()
    world.check_ended()
    assert world.outcomes() == {"REPLAYED": 1}
    assert world.counts.sessions == 1 == world.counts.established


def test_what_waits_expires() -> None:
    world = world_of(ahead=0)
    caller = Caller(world)
    caller.syn()
    world.run_to(WAIT_NS - SECOND)
    assert world.counts.waiting == 1
    world.run_to(2 * WAIT_NS + 3 * SECOND)
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 1}
    assert caller.give("A") is Drop.PURE_ACK_NO_SESSION
    assert caller.say("hello") == 0
    assert world.counts.picked_up == 1
    world.check()


def test_what_is_left_at_exit() -> None:
    world = world_of()
    target = Answerer(world)
    Caller(world, 40001).syn()
    Caller(world, 40002).syn()
    target.settle()
    world.engine.close_all()
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 2}
    world.check_ended()


def test_what_is_left_at_the_end_of_a_file() -> None:
    world = world_of(EngineConfig(recorded=True))
    Caller(world, 40001).syn()
    Caller(world, 40002).syn()
    world.engine.end_pass()
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 2}
    world.check_ended()


def test_early_data_of_one_that_is_taken_back_is_not_delivered_twice() -> None:
    world = world_of()
    target = Answerer(world)
    caller = Caller(world)
    caller.syn(b"early")
    target.settle()
    world.run_to(PATIENCE_NS + 2 * SECOND)
    target.settle()
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 1}
    assert caller.give("A") is Drop.CLOSED_SESSION
    assert world.counts.bytes_captured == world.counts.bytes_delivered == 5
    world.check_ended()


def test_early_data_that_no_target_took() -> None:
    world = world_of()
    Caller(world).syn(b"early")
    world.sent()
    world.engine.close_all()
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 1}
    assert (world.counts.bytes_captured, world.counts.bytes_delivered) == (0, 0)
    world.check_ended()


# --- several sessions of a connection ------------------------------------------------------


def test_copies_and_targets_wait_and_are_counted_together() -> None:
    world = world_of(ahead=0, targets=TWO_TARGETS, copies=3)
    target = Answerer(world)
    caller = Caller(world)
    caller.syn()
    assert (world.counts.sessions, world.counts.waiting) == (6, 6)
    caller.say("six times")
    target.settle()
    assert target.texts() == ["six times"] * 6
    world.check()
    other = Caller(world, 40002)
    other.syn()
    other.give("R")
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 6}
    world.check()


def test_copies_are_opened_ahead_and_taken_back_together() -> None:
    world = world_of(ahead=4, copies=3)
    target = Answerer(world)
    first, second, third = (Caller(world, port) for port in (40001, 40101, 40201))
    for caller in (first, second, third):
        caller.syn()
    target.settle()
    assert (world.engine.ahead_sessions, world.counts.live, world.counts.waiting) == (6, 6, 3)
    first.give("A")
    assert world.engine.ahead_sessions == 3
    assert [session.unproven for session in world.sessions()] == [0, 0, 0, 1, 1, 1]
    world.run_to(PATIENCE_NS + 2 * SECOND)
    assert (world.counts.live, world.counts.waiting) == (3, 3)
    assert world.outcomes() == {"HANDSHAKE_INCOMPLETE": 3}, "of the third, which has expired"
    world.check()
    second.say("late")
    target.settle()
    assert target.texts().count("late") == 3
    world.engine.close_all()
    world.check_ended()


def test_one_of_two_targets_refuses_an_unproven_client() -> None:
    world = world_of(targets=TWO_TARGETS)
    target = Answerer(world)
    Caller(world).syn()
    one, two = world.sent()
    target.tell(one, "RA", seq=0, ack=one.seq + 1)
    target.heard[two.key], target.told[two.key] = b"", 0
    target.tell(two, "SA", seq=target.isn, ack=two.seq + 1, mss=1460)
    assert world.outcomes() == {"REFUSED": 1}
    world.run_to(PATIENCE_NS + 2 * SECOND)
    assert world.outcomes() == {"REFUSED": 1, "HANDSHAKE_INCOMPLETE": 1}
    world.check_ended()


def test_a_refused_client_that_is_there_is_no_attempt() -> None:
    """The target refuses before the client has acknowledged: no flood is made of that."""
    world = world_of(ahead=10_000)
    target = Answerer(world)
    for number, caller in enumerate(strangers(world, count=900)):
        world.run_to(number * SECOND // 300)
        caller.syn()
        (syn,) = world.sent()
        target.tell(syn, "RA", seq=0, ack=syn.seq + 1)
        assert caller.give("A") is Drop.CLOSED_SESSION
    world.run_to(world.now + 5 * SECOND)
    assert not world.engine.flood.flooding and world.engine.ahead == {}
    assert world.outcomes() == {"REFUSED": 900}


def test_refused_unproven_sessions_make_room_only_after_a_while() -> None:
    world = world_of(ahead=5)
    target = Answerer(world)
    attackers = strangers(world)
    for _ in range(50):
        next(attackers).syn()
        for syn in world.sent():
            target.tell(syn, "RA", seq=0, ack=syn.seq + 1)
    assert (world.outcomes(), world.counts.waiting) == ({"REFUSED": 5}, 45)
    world.run_to(3 * SECOND)
    assert world.engine.ahead == {}


# --- what else decides about sessions ------------------------------------------------------


def test_sampling_is_asked_when_the_client_is_there() -> None:
    world = world_of(ahead=0, admit=lambda port: port == 40002)
    target = Answerer(world)
    out, let_in = Caller(world, 40001), Caller(world, 40002)
    for caller in (out, let_in):
        assert caller.syn() == 0
    assert out.give("A") is Drop.SKIPPED_SESSION
    assert out.say("x") is Drop.SKIPPED_SESSION
    assert let_in.say("y") == 0
    target.settle()
    assert (world.outcomes(), target.texts()) == ({"SKIPPED_SAMPLING": 1}, ["y"])
    world.check()


def test_full_sessions_only_takes_what_has_waited() -> None:
    world = world_of(EngineConfig(full_sessions_only=True), ahead=0)
    target = Answerer(world)
    caller = Caller(world)
    caller.syn()
    caller.say("whole")
    target.settle()
    assert target.texts() == ["whole"] and world.counts.picked_up == 0


def test_an_address_that_nothing_is_copied_from() -> None:
    world = world_of(ahead=0)
    caller = Caller(world)
    blank = caller.blank
    caller.blank = type(blank)(
        blank.source, blank.source_port, blank.destination, 81, 0, window=502
    )
    assert caller.syn() is Drop.NO_TRANSFER
    assert (world.counts.sessions, world.counts.waiting) == (0, 0)


def test_a_full_worker_sheds_clients_and_not_attackers() -> None:
    world = world_of(EngineConfig(max_sessions=1), ahead=64)
    Caller(world, 40001).connect()
    for attacker in strangers(world, count=500):
        assert attacker.syn() == 0
    assert world.outcomes() == {}
    client = Caller(world, 40002)
    client.syn()
    assert client.give("A") is Drop.SHED_SESSION
    assert world.outcomes() == {"SHED_SESSIONS": 1}
    assert len(world.engine.ended.names) == 1
    world.check()


class Slots:
    """--rate: one session a second."""

    def __init__(self) -> None:
        self.next_ns = START

    def admit(self, now_ns: int) -> int:
        self.next_ns = max(self.next_ns, now_ns) + SECOND
        return self.next_ns - SECOND


def test_the_rate_is_asked_when_the_client_is_there() -> None:
    world = world_of(ahead=0)
    slots = world.opener.rate = Slots()
    target = Answerer(world)
    for attacker in strangers(world, count=100):
        attacker.syn()
    callers = [Caller(world, 40001), Caller(world, 40002)]
    for caller in callers:
        caller.syn()
        caller.say("go")
    assert slots.next_ns == START + 2 * SECOND
    target.settle()
    assert target.texts() == ["go"]
    world.run_to(SECOND + MS)
    target.settle()
    assert target.texts() == ["go", "go"]
    world.check()
