"""Pacing: when a turn may go to the target, rule by rule (DESIGN, section 4)."""

from __future__ import annotations

import pytest

from tcpcopy.engine.context import WAIT_FACTOR
from tcpcopy.engine.pacing import (
    FIRST_QUIET_NS,
    GREETING_WAIT_NS,
    QUIET_NS,
    SHORT_ANSWER_QUIET_NS,
    SURPLUS_MAX_NS,
    SURPLUS_MIN_NS,
    UNPUSHED_QUIET_NS,
    WAIT_MIN_NS,
)
from tests.unit.engine.gating import Gate, asked
from tests.unit.engine.rig import MS, SECOND, US

# --- the first turn ------------------------------------------------------------------------


def test_first_turn_goes_as_soon_as_the_target_has_accepted() -> None:
    gate = Gate(established=False)
    gate.turn(0, seen=0)
    gate.waits(5 * MS)
    gate.replayed.established = 1
    gate.goes(5 * MS)


def test_greeting_of_the_server_comes_first() -> None:
    gate = Gate()
    gate.turn(0, seen=80)
    gate.waits(0)
    gate.waits(GREETING_WAIT_NS - 1)
    gate.answer(100 * SECOND, 80)
    gate.goes(100 * SECOND)


def test_greeting_that_is_not_complete_is_waited_for() -> None:
    gate = Gate()
    gate.turn(0, seen=80)
    gate.answer(3 * MS, 50)
    assert gate.look(3 * MS) == 3 * MS + SHORT_ANSWER_QUIET_NS
    gate.answer(4 * MS, 30)
    gate.goes(4 * MS)


def test_shorter_greeting_is_complete_when_it_has_been_quiet() -> None:
    gate = Gate()
    gate.turn(0, seen=80)
    gate.answer(3 * MS, 50)
    gate.goes_at(3 * MS + SHORT_ANSWER_QUIET_NS)
    assert gate.counts.waits_expired == 0


def test_greeting_waits_for_the_clients_round_trip_time() -> None:
    gate = Gate(rtt_ns=40 * MS)
    gate.turn(0, seen=80)
    gate.answer(3 * MS, 80)
    gate.goes_at(43 * MS)


# --- the same turn -------------------------------------------------------------------------


def test_chunks_of_one_turn_go_together() -> None:
    gate = asked()
    for _ in range(3):
        gate.turn(1 * MS, seen=0)
        gate.goes(1 * MS)
    assert gate.counts.turns_replayed == 1


def test_rest_of_a_turn_goes_though_the_target_is_silent() -> None:
    gate = asked()
    gate.turn(10 * SECOND, seen=0)
    gate.goes(10 * SECOND)


def test_acknowledgements_alone_make_no_turn() -> None:
    """The captured side's pure acknowledgements never hold anything up."""
    gate = Gate()
    gate.turn(0, seen=0)
    gate.turn(1, seen=0)
    gate.half.acknowledged_by_client(5000 + 300)
    gate.goes(1)
    gate.goes(1)


# --- the next turn -------------------------------------------------------------------------


def test_next_turn_goes_with_the_pushed_end_of_the_answer() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.waits(10 * MS)
    gate.answer(11 * MS, 60, pushed=False)
    gate.answer(12 * MS, 40)
    gate.goes(12 * MS)


def test_answer_that_came_before_the_turn_was_captured() -> None:
    gate = asked()
    gate.answer(1 * MS, 100)
    gate.turn(10 * MS, seen=100)
    gate.goes(10 * MS)


def test_answer_without_a_push_must_be_quiet() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 100, pushed=False)
    gate.goes_at(11 * MS + UNPUSHED_QUIET_NS)


def test_silence_counts_from_the_newest_data() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 100, pushed=False)
    gate.answer(12 * MS, 1, pushed=False)
    gate.goes_at(12 * MS + UNPUSHED_QUIET_NS)


@pytest.mark.parametrize("rtt_ns", [300 * US, 5 * MS, 50 * MS, 800 * MS])
def test_round_trip_time_is_put_back(rtt_ns: int) -> None:
    gate = asked(rtt_ns=rtt_ns)
    gate.turn(1 * SECOND, seen=100)
    gate.answer(2 * SECOND, 100)
    gate.goes_at(2 * SECOND + rtt_ns)


def test_round_trip_longer_than_the_quiet_time_covers_it() -> None:
    gate = asked(rtt_ns=60 * MS)
    gate.turn(1 * SECOND, seen=100)
    gate.answer(2 * SECOND, 100, pushed=False)
    gate.goes_at(2 * SECOND + 60 * MS)


def test_many_turns_in_step() -> None:
    gate = Gate(rtt_ns=2 * MS)
    for index in range(50):
        at = index * 20 * MS
        gate.turn(at, seen=index * 100)
        if index:
            gate.answer(at + 1 * MS, 100)
            gate.goes_at(at + 3 * MS)
        else:
            gate.goes(at)
    assert gate.counts.turns_captured == gate.counts.turns_replayed == 50
    assert gate.counts.waits_expired == 0
    assert gate.half.drift == 0


def test_turns_captured_together_go_one_by_one() -> None:
    """The target is slower than online was: nothing is sent on top of an open question."""
    gate = Gate()
    for index in range(4):
        gate.turn(index * MS, seen=index * 100)
    gate.goes(10 * MS)
    for index in range(1, 4):
        at = (10 + 10 * index) * MS
        gate.waits(at)
        gate.answer(at, 100)
        gate.goes(at)


def test_first_answers_of_a_kernel_socket_must_be_quiet_for_a_moment() -> None:
    """It shows no pushes: each read counts as one, so the first ones may be parts."""
    gate = Gate()
    gate.replayed.coarse = 1
    asked(gate)
    for number, quiet in enumerate((FIRST_QUIET_NS, FIRST_QUIET_NS, 0, 0), 1):
        at = number * 20 * MS
        gate.turn(at, seen=100 * number)
        gate.answer(at + MS, 100)
        if quiet:
            gate.goes_at(at + MS + quiet)
        else:
            gate.goes(at + MS)


def test_end_of_a_connection_waits_for_no_quiet_moment() -> None:
    gate = Gate()
    gate.replayed.coarse = 1
    asked(gate)
    gate.fin(10 * MS, seen=100)
    gate.answer(11 * MS, 100)
    gate.goes(11 * MS)


# --- shorter answers -----------------------------------------------------------------------


def test_shorter_answer_is_complete_after_a_longer_silence() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 90)
    gate.goes_at(11 * MS + SHORT_ANSWER_QUIET_NS)
    assert gate.counts.waits_expired == 0


def test_shorter_answer_of_a_slow_target_gets_four_times_its_usual_time() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(150 * MS, 90)
    gate.goes_at(150 * MS + 4 * 150 * MS)


def test_shorter_answer_is_never_waited_for_longer_than_the_least_bound() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(5 * SECOND, 90)
    gate.goes_at(5 * SECOND + WAIT_MIN_NS)


def trusting(gate: Gate) -> Gate:
    """The targets' shorter answers are known to be complete; `Gate`'s session explores turn 40."""
    while not gate.context.pauses.are_rare():
        gate.context.pauses.note(0)
    return gate


def shorter_answers(gate: Gate, count: int, size: int = 90) -> list[int]:
    """Online sent 100 bytes for each turn, the target sends `size`; how long each was waited for.

    The turns were captured at once, after the first.
    """
    waits = []
    at = 0
    for index in range(1, count + 1):
        gate.turn(MS, seen=100 * index)
        at += MS
        gate.answer(at, size)
        opened = gate.goes_after(at)
        waits.append(opened - at)
        at = opened
    return waits


def test_shorter_answers_that_were_complete_are_soon_complete() -> None:
    """A tenth of a second each, until the targets have shown forty times that nothing follows."""
    gate = asked()
    waits = shorter_answers(gate, 200)
    assert set(waits[:30]) == {SHORT_ANSWER_QUIET_NS}
    brief = [wait for wait in waits[50:] if wait < SHORT_ANSWER_QUIET_NS]
    assert max(brief) <= QUIET_NS
    assert len(waits[50:]) - len(brief) == 2, "one turn in 64 explores"
    assert gate.counts.waits_expired == 0


def test_what_one_session_has_shown_holds_for_the_others() -> None:
    gate = trusting(asked())
    assert shorter_answers(gate, 1) == [4 * MS]


@pytest.mark.parametrize(("usual_ns", "wait_ns"), [(100 * US, MS), (900 * US, 3600 * US)])
def test_short_silence_fits_the_targets_usual_time(usual_ns: int, wait_ns: int) -> None:
    gate = trusting(asked())
    gate.turn(MS, seen=100)
    gate.answer(usual_ns, 90)
    gate.goes_at(usual_ns + wait_ns)


def test_answer_that_goes_on_after_it_had_seemed_complete_is_noted() -> None:
    gate = asked()
    before = gate.context.pauses.share
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 60)
    assert gate.look(11 * MS) == 11 * MS + SHORT_ANSWER_QUIET_NS
    gate.answer(40 * MS, 40)
    gate.goes(40 * MS)
    assert gate.context.pauses.share > before


def test_rest_of_an_answer_cut_short_is_known_by_its_length() -> None:
    """Then the next turn waits until the target is quiet, and trust is lost."""
    gate = trusting(asked())
    before = gate.context.pauses.share
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 60)
    at = gate.goes_after(11 * MS)
    gate.turn(12 * MS, seen=200)
    gate.answer(at + 30 * MS, 40)
    opens = gate.look(at + 30 * MS)
    assert opens is not None and opens >= at + 30 * MS + 2 * gate.half.answer_usual_ns
    gate.answer(opens, 100)
    gate.goes_after(opens)
    assert gate.context.pauses.share > before


def test_what_follows_too_soon_after_a_shorter_answer_may_be_its_rest() -> None:
    """The target takes 50 ms for an answer; what comes after one is none."""
    gate = trusting(asked())
    gate.turn(MS, seen=100)
    gate.answer(50 * MS, 90)
    at = gate.goes_after(50 * MS)
    gate.turn(2 * MS, seen=200)
    gate.answer(at + MS, 70)
    opens = gate.look(at + MS)
    assert opens is not None and opens >= at + 80 * MS
    gate.answer(at + 50 * MS, 30)
    assert gate.goes_after(at + 50 * MS) >= at + 130 * MS


def test_much_shorter_answer_is_waited_for_longer_at_first() -> None:
    """Less than half of online's answer may be a pause: a second, then half with each turn."""
    gate = trusting(asked())
    waits = []
    at = 0
    for index in range(1, 11):
        gate.turn(at + MS, seen=1000 * index)
        gate.answer(at + MS, 90)
        opened = gate.goes_after(at + MS)
        waits.append(opened - at - MS)
        at = opened
    halved = [WAIT_MIN_NS >> times for times in range(8)]
    assert waits == [*halved, 4 * MS, 4 * MS]
    assert gate.counts.waits_expired == 0


def test_pauses_within_answers_are_learnt() -> None:
    """A target that paused for 60 ms within an answer is not cut off after 100 ms of silence."""
    gate = asked()
    gate.turn(10 * MS, seen=1000)
    gate.answer(20 * MS, 600)
    gate.answer(80 * MS, 200)
    gate.goes_at(80 * MS + 4 * 60 * MS)


def test_shorter_answer_waits_for_the_round_trip_time() -> None:
    gate = trusting(asked(rtt_ns=20 * MS))
    gate.turn(20 * MS, seen=100)
    gate.answer(21 * MS, 90)
    gate.goes_at(41 * MS)


def test_target_that_answers_nothing_to_a_turn_after_it_has_shown_to_say_less() -> None:
    """What is owed may be nothing at all, so the wait is bounded, generously, and counted."""
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 90)
    gate.goes(SECOND)
    gate.turn(2 * SECOND, seen=200)
    opens = gate.look(2 * SECOND)
    assert opens is not None
    assert opens >= 2 * SECOND + WAIT_MIN_NS
    gate.goes_at(opens)
    assert gate.counts.waits_expired == 1


def trickle(gate: Gate, started_ns: int) -> int:
    """The target sends a byte every 40 ms and never comes to an end; when the gate opens."""
    at = started_ns
    while at < started_ns + 100 * SECOND:
        gate.answer(at, 1)
        for moment in (at, at + 39 * MS):
            look = gate.look(moment)
            if look == 0:
                gate.goes(moment)
                return moment
            assert look is not None
            if look < at + 40 * MS:
                gate.goes_at(look)
                return look
        at += 40 * MS
    raise AssertionError("the gate never opens")


def test_answer_that_trickles_is_bounded_and_counted() -> None:
    """While an answer is coming in the wait is bounded too, generously, a second at least."""
    gate = asked()
    gate.turn(10 * MS, seen=100_000)
    opened = trickle(gate, 20 * MS)
    assert WAIT_MIN_NS <= opened - 20 * MS <= 20 * WAIT_MIN_NS
    assert gate.counts.waits_expired == 1


def test_bound_is_many_times_what_the_online_answer_took() -> None:
    gate = asked()
    online_ns = 2 * SECOND
    gate.turn(online_ns, seen=100_000)
    assert trickle(gate, 3 * SECOND) == 3 * SECOND + WAIT_FACTOR * online_ns
    assert gate.counts.waits_expired == 1


# --- longer answers ------------------------------------------------------------------------


def test_longer_answer_goes_a_moment_after_its_pushed_end() -> None:
    """Linux pushes a large answer more than once; how long this one is, nobody knows."""
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 130)
    gate.goes_at(11 * MS + FIRST_QUIET_NS)
    assert gate.counts.waits_expired == 0


def test_longer_answers_are_awaited_to_their_end() -> None:
    """Online answered 100 bytes, the target sends 160 in two parts; later turns wait for both."""
    gate = Gate()
    for index in range(12):
        at = index * SECOND
        gate.turn(at, seen=100 * index)
        if not index:
            gate.goes(at)
            continue
        gate.answer(at + 1 * MS, 100)
        early = gate.look(at + 1 * MS) == 0
        assert not early or index <= 3, f"turn {index} went in the middle of the answer"
        gate.answer(at + 2 * MS, 60)
        gate.goes(at + 2 * MS + QUIET_NS)


def test_longer_greeting_is_no_answer_to_the_first_request() -> None:
    gate = Gate()
    gate.turn(0, seen=80)
    gate.answer(0, 100)
    gate.goes_at(FIRST_QUIET_NS)
    gate.turn(10 * MS, seen=90)
    assert gate.look(10 * MS) != 0
    gate.answer(20 * MS, 10)
    gate.goes(20 * MS + QUIET_NS)


def test_greeting_tells_nothing_of_the_usual_time_of_answers() -> None:
    gate = Gate()
    gate.answer(0, 80)
    gate.turn(1 * MS, seen=80)
    gate.goes(1 * MS)
    assert gate.half.answer_usual_ns == 0
    gate.answer(3 * MS, 50)
    assert gate.half.answer_usual_ns == 2 * MS


def test_longer_answers_leave_no_doubt_that_one_is_owed() -> None:
    """The second turn goes when it is answered, though as much had come as online ever sent."""
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 300)
    gate.goes_at(11 * MS + FIRST_QUIET_NS)
    gate.turn(20 * MS, seen=200)
    gate.answer(900 * MS, 300)
    gate.goes(900 * MS)
    assert gate.counts.waits_expired == 0


def test_wait_for_an_answer_that_seems_owed_is_bounded_and_counted() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 300)
    gate.goes_at(11 * MS + FIRST_QUIET_NS)
    gate.turn(20 * MS, seen=200)
    gate.goes_at(12 * MS + WAIT_MIN_NS)
    assert gate.counts.waits_expired == 1


def test_end_of_a_connection_does_not_wait_for_many_times_a_think_time() -> None:
    """A server that closes after a minute of idling here, and not there."""
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 300)
    gate.goes_at(11 * MS + FIRST_QUIET_NS)
    gate.answer(12 * MS + 1, 300)
    gate.fin(60 * SECOND, seen=201)
    gate.goes(60 * SECOND)
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 300)
    gate.goes_at(11 * MS + FIRST_QUIET_NS)
    gate.fin(SECOND // 2, seen=200)
    gate.goes_at(12 * MS + WAIT_MIN_NS)


def leading() -> Gate:
    """A target that had said more than online, of which a part has been used up; 300 ms on."""
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 300)
    gate.goes(100 * MS)
    gate.turn(110 * MS, seen=200)
    gate.answer(120 * MS, 50)
    gate.goes(300 * MS)
    assert gate.half.lead > 0
    return gate


def test_answer_that_came_before_its_question() -> None:
    """Enough is there, yet nothing since the last turn: its own answer gets its usual time."""
    gate = leading()
    gate.turn(310 * MS, seen=300)
    opens = gate.look(310 * MS)
    assert opens is not None and SURPLUS_MIN_NS <= opens - 300 * MS <= SURPLUS_MAX_NS
    gate.goes_at(opens)
    assert gate.counts.waits_expired == 0


def test_after_a_turn_that_went_on_a_lead_the_target_must_be_quiet() -> None:
    """The answer to it and the one that was late after all: both come before the next turn."""
    gate = leading()
    gate.turn(310 * MS, seen=300)
    at = gate.goes_after(310 * MS)
    gate.turn(at + MS, seen=400)
    gate.answer(at + 5 * MS, 200)
    late = at + 20 * MS
    opens = gate.look(at + 5 * MS)
    assert opens is not None and opens > late
    gate.answer(late, 200)
    usual = gate.half.answer_usual_ns
    assert 2 * usual > QUIET_NS
    gate.goes_at(late + 2 * usual)
    gate.turn(SECOND, seen=500)
    gate.answer(SECOND + MS, 100)
    opens = gate.look(SECOND + MS)
    assert opens is not None and opens <= SECOND + MS + QUIET_NS, "in step again"


def test_answer_after_a_turn_that_went_on_a_lead_tells_no_usual_time() -> None:
    gate = leading()
    gate.turn(310 * MS, seen=300)
    at = gate.goes_after(310 * MS)
    usual = gate.half.answer_usual_ns
    recorded = gate.counts.answer_time.count
    gate.answer(at + 1, 200)
    assert (gate.half.answer_usual_ns, gate.counts.answer_time.count) == (usual, recorded)


def drifts(sizes: list[int]) -> list[int]:
    """The drift after each turn, with 100 bytes online and these from the target."""
    gate = asked()
    found = []
    for index, size in enumerate(sizes, 1):
        at = index * SECOND
        gate.turn(at, seen=100 * index)
        gate.answer(at + MS, size)
        gate.goes_after(at + MS)
        found.append(gate.half.drift)
    return found


def test_drift_is_the_least_surplus_of_four_turns() -> None:
    """So a lead (an answer that came early) is not taken for longer answers."""
    assert drifts([110, 100, 130, 90, 105, 98]) == [10, 10, 10, 10, 10, 30]


def test_drift_follows_answers_that_are_longer_again_and_again() -> None:
    assert drifts([130, 130, 130]) == [30, 60, 90]


def test_drift_follows_answers_that_are_shorter_again_and_again() -> None:
    assert drifts([90, 90, 90]) == [-10, -20, -30]


def test_drift_of_the_same_answers_is_none() -> None:
    assert drifts([100] * 6) == [0] * 6
