"""The engine's sessions: from the first packet to the outcome, and what is remembered after."""

from __future__ import annotations

import pytest

from tcpcopy.engine.chunk import CHUNK_COST
from tcpcopy.engine.context import REMEMBER_NS, EngineConfig
from tcpcopy.engine.outcome import Drop
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import (
    CLIENT,
    CLIENT_PORT,
    TARGET,
    TARGET_PORT,
    Answerer,
    Caller,
    Ports,
    World,
)


def talk(world: World, target: Answerer, caller: Caller, *texts: str) -> None:
    """Requests, each after the answer to the one before."""
    for text in texts:
        assert caller.say(text) == 0
        target.settle()
        caller.seen += len(target.reply)


def replayed_once(config: EngineConfig | None = None) -> tuple[World, Answerer, Caller]:
    """A session that has ended in good order; the target has acknowledged the last FIN."""
    world = World(config)
    target = Answerer(world, "OK")
    caller = Caller(world)
    caller.connect()
    talk(world, target, caller, "one")
    caller.fin()
    target.settle()
    assert world.outcomes() == {"REPLAYED": 1}
    return world, target, caller


# --- whole sessions ------------------------------------------------------------------------


def test_whole_session() -> None:
    world = World()
    target = Answerer(world, "answer")
    caller = Caller(world)
    caller.connect()
    talk(world, target, caller, "first", "second", "third")
    caller.fin()
    target.settle()
    assert target.texts() == ["firstsecondthird"]
    assert world.outcomes() == {"REPLAYED": 1}
    counts = world.counts
    assert (counts.sessions, counts.established, counts.peak, counts.live) == (1, 1, 1, 0)
    assert counts.bytes_captured == counts.bytes_delivered == 16
    assert counts.answer_bytes == 18
    assert counts.turns_captured == counts.turns_replayed == 3
    assert counts.picked_up == 0
    world.check_ended()


def test_request_waits_for_the_answer_before_it() -> None:
    world = World()
    target = Answerer(world, "answer")
    target.deaf.add(CLIENT_PORT)
    caller = Caller(world)
    caller.connect()
    assert world.lines() == [f"{CLIENT_PORT} S"]
    target.deaf.clear()
    world.run_to(1 * SECOND)
    target.settle()
    caller.say("one")
    assert world.lines() == [f"{CLIENT_PORT} PA one"]
    caller.say("two", seen=6)
    assert world.lines() == []


def test_session_without_data() -> None:
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    target.settle()
    caller.fin()
    target.settle()
    assert world.outcomes() == {"REPLAYED": 1}
    world.check_ended()


def test_client_reset_is_replayed() -> None:
    world = World()
    target = Answerer(world, "OK")
    caller = Caller(world)
    caller.connect()
    talk(world, target, caller, "one")
    caller.rst()
    target.settle()
    assert target.reset == [CLIENT_PORT]
    assert world.outcomes() == {"CLIENT_RESET": 1}
    world.check_ended()


def test_segments_in_any_order() -> None:
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    target.settle()
    assert caller.give("PA", at=5, payload=b"67890") == 0
    assert world.counts.queued_bytes == 5
    assert world.counts.bytes_captured == 0
    world.check()
    assert caller.give("PA", at=0, payload=b"12345") == 0
    target.settle()
    assert target.texts() == ["1234567890"]
    assert world.counts.queued_bytes == 0
    world.check()


def test_data_on_the_syn() -> None:
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    assert caller.syn(b"early") == 0
    caller.said = b"early"
    assert world.counts.queued_bytes == CHUNK_COST + 5
    caller.say(" late")
    target.settle()
    assert target.texts() == ["early late"]
    assert world.counts.bytes_captured == 10
    caller.fin()
    target.settle()
    assert world.outcomes() == {"REPLAYED": 1}
    world.check_ended()


# --- mid-stream ----------------------------------------------------------------------------


def test_session_without_its_syn_is_picked_up() -> None:
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    assert caller.say("middle") == 0
    assert world.counts.picked_up == 1
    syn = world.sent()
    assert [(s.flags, s.mss, s.window_scale, s.sack_permitted) for s in syn] == [(2, 1460, 7, True)]
    world.run_to(1 * SECOND)
    target.settle()
    assert target.texts() == ["middle"]
    caller.say(" end")
    target.settle()
    caller.fin()
    target.settle()
    assert target.texts() == ["middle end"]
    assert world.outcomes() == {"REPLAYED": 1}
    assert world.counts.bytes_captured == 10
    world.check_ended()


def test_session_picked_up_by_its_last_segment() -> None:
    world = World()
    target = Answerer(world)
    assert Caller(world).give("FPA", payload=b"bye") == 0
    target.settle()
    assert target.texts() == ["bye"]
    assert world.outcomes() == {"REPLAYED": 1}
    world.check_ended()


def test_picked_up_session_does_not_wait_for_answers_from_before() -> None:
    world = World()
    target = Answerer(world, "OK")
    caller = Caller(world)
    caller.seen = 123_456
    caller.say("one")
    target.settle()
    caller.say("two", seen=123_458)
    target.settle()
    assert target.texts() == ["onetwo"]


def test_round_trip_of_a_picked_up_session_is_not_known() -> None:
    world = World()
    caller = Caller(world)
    caller.say("one")
    world.run_to(50 * MS)
    caller.say("two")
    assert world.sessions()[0].rtt_ns == 0


def test_partial_sessions_are_left_out_when_told_so() -> None:
    """-O."""
    world = World(EngineConfig(full_sessions_only=True))
    caller = Caller(world)
    assert caller.say("middle") is Drop.SKIPPED_SESSION
    assert caller.say("more") is Drop.SKIPPED_SESSION
    assert caller.fin() is Drop.SKIPPED_SESSION
    assert world.outcomes() == {"SKIPPED_PARTIAL": 1}
    assert world.counts.sessions == 1
    other = Caller(world, 40002)
    other.connect()
    assert world.counts.live == 1
    world.check()


# --- the client uses its port again ----------------------------------------------------------


def test_port_used_again_after_the_end() -> None:
    world, target, caller = replayed_once()
    world.run_to(2 * SECOND)
    again = Caller(world, isn=caller.isn + 100_000)
    again.connect()
    again.say("two")
    target.settle()
    again.fin()
    target.settle()
    assert world.outcomes() == {"REPLAYED": 2}
    assert world.drops() == {}
    world.check_ended()


def test_port_used_again_while_the_old_replay_still_runs() -> None:
    """Where TCPCopy drops such a session this one replays it, from another port."""
    world = World()
    target = Answerer(world, "OK")
    target.deaf.add(CLIENT_PORT)
    first = Caller(world)
    first.connect()
    first.say("first")
    first.fin()
    target.settle()
    second = Caller(world, isn=77)
    second.connect()
    second.say("second")
    target.settle()
    second.fin()
    target.settle()
    assert target.texts() == ["second"]
    assert world.outcomes() == {"REPLAYED": 1}
    assert [session.mapped_port for session in world.sessions()] == [CLIENT_PORT]
    target.deaf.clear()
    world.run_to(1 * SECOND)
    target.settle()
    assert sorted(target.texts()) == ["first", "second"]
    assert world.outcomes() == {"REPLAYED": 2}
    world.check_ended()


def test_old_session_whose_end_was_not_seen_is_reset_after_its_data() -> None:
    world = World()
    target = Answerer(world, "OK")
    first = Caller(world)
    first.connect()
    talk(world, target, first, "first")
    second = Caller(world, isn=77)
    assert second.syn() == 0
    assert second.give("A") == 0
    target.settle()
    assert target.reset == [CLIENT_PORT]
    assert target.texts()[0] == "first"
    assert world.outcomes() == {"CLIENT_RESET": 1}
    assert [session.mapped_port for session in world.sessions()] == [CLIENT_PORT + 1]
    world.check()


def test_old_session_with_a_gap_is_left_to_its_time_out() -> None:
    world = World(EngineConfig(hole_timeout_ns=3 * SECOND))
    target = Answerer(world)
    first = Caller(world)
    first.connect()
    first.give("PA", at=10, payload=b"late")
    second = Caller(world, isn=77)
    second.connect()
    target.settle()
    assert world.outcomes() == {}
    world.run_to(3 * SECOND)
    target.settle()
    assert world.outcomes() == {"CAPTURE_HOLE": 1}
    world.check()


def test_segments_of_the_old_connection_do_not_reach_the_new_one() -> None:
    world = World()
    first = Caller(world)
    first.connect()
    first.say("first")
    second = Caller(world, isn=0x4000_0000)
    second.connect()
    assert first.again() in (Drop.DUPLICATE, Drop.OUT_OF_WINDOW)
    assert world.sessions()[-1].captured_rcv_offset == 0


# --- what is remembered ------------------------------------------------------------------------


def test_packets_after_the_end_are_told_from_new_sessions() -> None:
    world, _, caller = replayed_once()
    assert caller.give("A") is Drop.CLOSED_SESSION
    assert caller.give("PA", at=0, payload=b"one") is Drop.CLOSED_SESSION
    assert caller.give("FA") is Drop.CLOSED_SESSION
    assert caller.rst() is Drop.CLOSED_SESSION
    assert world.counts.sessions == 1
    world.check_ended()


def test_memory_ends_after_two_generations() -> None:
    world, _, caller = replayed_once()
    world.run_to(REMEMBER_NS - 1)
    assert caller.give("A") is Drop.CLOSED_SESSION
    for turn in (2, 4, 6):
        world.run_to(turn * REMEMBER_NS)
    assert caller.give("A") is Drop.PURE_ACK_NO_SESSION


def test_connection_that_still_talks_is_remembered_longer() -> None:
    world, _, caller = replayed_once()
    for turn in range(1, 40):
        world.run_to(turn * REMEMBER_NS // 2)
        assert caller.give("PA", at=0, payload=b"one") is Drop.CLOSED_SESSION
    assert world.counts.sessions == 1


def test_repeated_syn_of_a_session_that_has_ended_is_no_second_session() -> None:
    """A target that refuses at once ends the session before the client's SYN comes again."""
    world = World()
    caller = Caller(world)
    caller.syn()
    syn = world.sent()[0]
    Answerer(world).tell(syn, "RA", seq=0, ack=syn.seq + 1)
    assert world.outcomes() == {"REFUSED": 1}
    world.run_to(1 * SECOND)
    assert caller.syn() is Drop.CLOSED_SESSION
    assert world.counts.sessions == 1
    assert world.outcomes() == {"REFUSED": 1}


def test_repeated_syn_of_a_session_left_out_is_no_second_session() -> None:
    world = World(admit=lambda port: False)
    caller = Caller(world)
    assert caller.syn() is Drop.SKIPPED_SESSION
    world.run_to(1 * SECOND)
    assert caller.again() is Drop.SKIPPED_SESSION
    assert caller.give("A") is Drop.SKIPPED_SESSION
    assert world.counts.sessions == 1
    assert world.outcomes() == {"SKIPPED_SAMPLING": 1}


def test_same_syn_is_a_new_session_when_the_capture_begins_anew() -> None:
    """A file that is read again."""
    world, target, caller = replayed_once()
    assert caller.syn() is Drop.CLOSED_SESSION
    world.engine.ended.forget_all()
    again = Caller(world)
    again.connect()
    talk(world, target, again, "one")
    again.fin()
    target.settle()
    assert world.outcomes() == {"REPLAYED": 2}
    world.check_ended()


def test_new_connection_of_a_port_that_was_left_out_is_looked_at_again() -> None:
    admitted = [False, True]
    world = World(admit=lambda port: admitted.pop(0))
    assert Caller(world).syn() is Drop.SKIPPED_SESSION
    assert Caller(world, isn=5).syn() == 0
    assert world.counts.sessions == 2
    world.check()


# --- holes -------------------------------------------------------------------------------------


def test_gap_that_does_not_fill_is_a_hole() -> None:
    world = World(EngineConfig(hole_timeout_ns=3 * SECOND))
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    caller.say("known")
    target.settle()
    world.run_to(1 * SECOND)
    caller.give("PA", at=10, payload=b"late")
    world.run_to(4 * SECOND - 1)
    assert world.outcomes() == {}
    world.run_to(4 * SECOND)
    target.settle()
    assert world.outcomes() == {"CAPTURE_HOLE": 1}
    assert target.texts() == ["known"]
    assert target.reset == []
    world.check_ended()


def test_fin_over_a_gap_is_a_hole_in_its_time() -> None:
    world = World(EngineConfig(hole_timeout_ns=3 * SECOND))
    caller = Caller(world)
    caller.connect()
    target = Answerer(world)
    target.settle()
    caller.give("FA", at=10)
    world.run_to(3 * SECOND)
    target.settle()
    assert world.outcomes() == {"CAPTURE_HOLE": 1}


def test_reset_over_a_gap_is_a_hole_in_its_time() -> None:
    world = World(EngineConfig(hole_timeout_ns=3 * SECOND))
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    target.settle()
    caller.give("PA", at=10, payload=b"late")
    caller.give("RA", at=14)
    assert world.outcomes() == {}
    world.run_to(3 * SECOND)
    target.settle()
    assert target.reset == [CLIENT_PORT]
    assert world.outcomes() == {"CAPTURE_HOLE": 1}
    world.check_ended()


def test_too_much_early_data_is_a_hole_at_once() -> None:
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    target.settle()
    block = bytes(60_000)
    results = [caller.give("A", at=1 + index * 60_000, payload=block) for index in range(280)]
    assert results[279] is Drop.EARLY_LIMIT
    target.settle()
    assert world.outcomes() == {"CAPTURE_HOLE": 1}
    world.check_ended()


# --- what lingers --------------------------------------------------------------------------------


def test_identity_is_kept_while_late_packets_may_come() -> None:
    world, target, _ = replayed_once(EngineConfig(linger_ns=2 * SECOND))
    ports = world.ports
    assert isinstance(ports, Ports)
    assert ports.released == []
    assert list(world.engine.live_identities()) == [(CLIENT, CLIENT_PORT, TARGET, TARGET_PORT)]
    world.run_to(2 * SECOND - 1)
    assert ports.released == []
    world.run_to(2 * SECOND)
    assert ports.released == [(CLIENT, CLIENT_PORT, TARGET, TARGET_PORT)]
    assert list(world.engine.live_identities()) == []
    assert world.engine.next_deadline_ns() == -1
    assert target.step() == 0


def test_lost_last_acknowledgement_is_sent_again() -> None:
    world = World()
    target = Answerer(world)
    caller = Caller(world)
    caller.connect()
    caller.fin()
    for _ in range(10):
        segments = world.sent()
        if segments and segments[-1].flags & 1:
            break
        for segment in segments:
            target._take(segment)
    fin = segments[-1]
    target.tell(fin, "FA", seq=target.isn + 1, ack=fin.seq + 1)
    assert world.outcomes() == {"REPLAYED": 1}
    assert world.lines() == [f"{CLIENT_PORT} A"]
    world.run_to(300 * MS)
    assert target.tell(fin, "FA", seq=target.isn + 1, ack=fin.seq + 1) is Drop.DUPLICATE
    assert world.lines() == [f"{CLIENT_PORT} A"]
    assert world.outcomes() == {"REPLAYED": 1}
    # It talked, so it stays a second more.
    world.run_to(1300 * MS - 1)
    assert world.engine.by_answer
    world.run_to(1300 * MS)
    assert not world.engine.by_answer
    world.check_ended()


def test_reset_is_repeated_while_the_session_lingers() -> None:
    world = World()
    caller = Caller(world)
    target = Answerer(world)
    caller.connect()
    target.settle()
    caller.rst()
    assert world.lines() == [f"{CLIENT_PORT} A", f"{CLIENT_PORT} RA"]
    world.run_to(20 * MS)
    assert world.lines() == [f"{CLIENT_PORT} RA"]
    world.run_to(100 * MS)
    assert world.lines() == [f"{CLIENT_PORT} RA"]
    world.run_to(10 * SECOND)
    assert world.lines() == []
    world.check_ended()


def test_nothing_lingers_when_told_so() -> None:
    world, _, _ = replayed_once(EngineConfig(linger_ns=0))
    assert not world.engine.by_answer
    assert world.engine.next_deadline_ns() == -1
    world.check_ended()


@pytest.mark.parametrize("letters", ["RA", "R"])
def test_session_that_the_target_reset_does_not_linger(letters: str) -> None:
    world = World()
    target = Answerer(world, "OK")
    caller = Caller(world)
    caller.connect()
    target.settle()
    caller.say("one")
    request = world.sent()[-1]
    target.tell(request, letters, seq=target.isn + 1, ack=request.seq)
    assert world.outcomes() == {"RESET": 1}
    assert not world.engine.by_answer
    assert target.tell(request, "RA", seq=target.isn + 1, ack=request.seq) is Drop.FOREIGN
    world.check_ended()
