"""Pacing: when a turn may go to the target, rule by rule (DESIGN, section 4)."""

from __future__ import annotations

import pytest

from tcpcopy.engine.pacing import (
    FIRST_QUIET_NS,
    QUIET_NS,
    SHORT_ANSWER_QUIET_NS,
    SURPLUS_MAX_NS,
    SURPLUS_MIN_NS,
    WAIT_FACTOR,
    WAIT_MIN_NS,
)
from tests.unit.engine.gating import START, Gate
from tests.unit.engine.rig import MS, SECOND, US


def asked(gate: Gate | None = None, *, rtt_ns: int = 0) -> Gate:
    """A gate whose first turn went at time 0."""
    gate = gate or Gate(rtt_ns=rtt_ns)
    gate.turn(0, seen=0)
    gate.goes(0)
    return gate


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
    gate.waits(100 * SECOND)
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
    gate.goes_at(11 * MS + QUIET_NS)


def test_silence_counts_from_the_newest_data() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 100, pushed=False)
    gate.answer(12 * MS, 1, pushed=False)
    gate.goes_at(12 * MS + QUIET_NS)


@pytest.mark.parametrize("rtt_ns", [300 * US, 5 * MS, 50 * MS, 800 * MS])
def test_round_trip_time_is_put_back(rtt_ns: int) -> None:
    gate = asked(rtt_ns=rtt_ns)
    gate.turn(1 * SECOND, seen=100)
    gate.answer(2 * SECOND, 100)
    gate.goes_at(2 * SECOND + rtt_ns)


def test_round_trip_longer_than_the_quiet_time_covers_it() -> None:
    gate = asked(rtt_ns=30 * MS)
    gate.turn(1 * SECOND, seen=100)
    gate.answer(2 * SECOND, 100, pushed=False)
    gate.goes_at(2 * SECOND + 30 * MS)


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


def test_same_shortfall_again_is_complete_at_once() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 90)
    gate.goes_at(11 * MS + SHORT_ANSWER_QUIET_NS)
    for index in range(2, 6):
        at = index * 200 * MS
        gate.turn(at, seen=100 * index)
        gate.answer(at + 1 * MS, 90)
        gate.goes(at + 1 * MS)
    assert gate.counts.waits_expired == 0


def test_same_shortfall_again_waits_for_the_round_trip_time() -> None:
    gate = asked(rtt_ns=20 * MS)
    gate.turn(20 * MS, seen=100)
    gate.answer(21 * MS, 90)
    gate.goes_at(21 * MS + SHORT_ANSWER_QUIET_NS)
    gate.turn(300 * MS, seen=200)
    gate.answer(301 * MS, 90)
    gate.goes_at(321 * MS)


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


def test_answer_that_trickles_is_bounded_and_counted() -> None:
    """While an answer is coming in the wait is bounded too, at least a second."""
    gate = asked()
    gate.turn(10 * MS, seen=1000)
    started = 20 * MS
    for index in range(30):
        at = started + index * 33 * MS
        gate.answer(at, 1)
        assert gate.look(at) != 0
    gate.goes_at(started + WAIT_MIN_NS)
    assert gate.counts.waits_expired == 1


def test_bound_is_many_times_what_the_online_answer_took() -> None:
    gate = asked()
    online_ns = 400 * MS
    gate.turn(online_ns, seen=1000)
    started = 500 * MS
    at = started
    while at < started + WAIT_FACTOR * online_ns:
        gate.answer(at, 1)
        assert gate.look(at) != 0
        at += 90 * MS
    gate.goes(started + WAIT_FACTOR * online_ns)
    assert gate.counts.waits_expired == 1


# --- longer answers ------------------------------------------------------------------------


def test_longer_answer_goes_with_its_pushed_end() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 130)
    gate.goes(11 * MS)
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
    gate.goes(0)
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


def test_answer_that_came_before_its_question() -> None:
    """Enough is there, yet nothing since the last turn: its own answer gets its usual time."""
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(11 * MS, 300)
    gate.goes(11 * MS)
    gate.turn(20 * MS, seen=200)
    opens = gate.look(20 * MS)
    assert opens is not None and SURPLUS_MIN_NS <= opens - 11 * MS <= SURPLUS_MAX_NS
    gate.goes_at(opens)
    assert gate.counts.waits_expired == 0


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


# --- a silent target -----------------------------------------------------------------------


@pytest.mark.parametrize("at_ns", [1, SECOND, 3600 * SECOND])
def test_silent_target_holds_the_next_turn(at_ns: int) -> None:
    """Only -t ends it, and that is the session's business."""
    gate = asked()
    gate.turn(1, seen=100)
    gate.waits(at_ns)


def test_silent_target_holds_the_fin() -> None:
    gate = asked()
    gate.fin(1, seen=100)
    gate.waits(3600 * SECOND)


@pytest.mark.parametrize("rtt_ns", [0, 50 * MS])
def test_nothing_is_waited_for_when_told_so(rtt_ns: int) -> None:
    """-W."""
    gate = Gate(wait=False, rtt_ns=rtt_ns)
    for index in range(5):
        gate.turn(index * SECOND, seen=index * 100)
        gate.goes(index * SECOND)
    gate.fin(6 * SECOND, seen=500)
    gate.goes(6 * SECOND)


def test_connection_is_waited_for_even_then() -> None:
    gate = Gate(wait=False, established=False)
    gate.turn(0, seen=0)
    gate.waits(SECOND)


# --- endings -------------------------------------------------------------------------------


def test_fin_is_gated_like_data() -> None:
    gate = asked(rtt_ns=10 * MS)
    gate.fin(500 * MS, seen=100)
    gate.waits(500 * MS)
    gate.answer(600 * MS, 100)
    gate.goes_at(610 * MS)
    assert gate.half.fin_released == 1


def test_fin_behind_the_last_turn_goes_with_it() -> None:
    gate = asked()
    gate.fin(1 * MS, seen=0)
    gate.goes(1 * MS)


def test_reset_is_gated_like_data() -> None:
    gate = asked()
    gate.rst(10 * MS, seen=100)
    gate.waits(10 * MS)
    gate.answer(20 * MS, 100)
    gate.goes(20 * MS)
    assert gate.half.rst_released == 1


def test_fin_after_the_servers_fin_waits_for_it() -> None:
    """Online the server closed first (its FIN counts one), so the target is to close first too."""
    gate = asked()
    gate.fin(10 * MS, seen=101)
    gate.answer(20 * MS, 100)
    assert gate.look(20 * MS) == 20 * MS + SHORT_ANSWER_QUIET_NS
    gate.close(30 * MS)
    gate.goes(30 * MS)


def test_fin_goes_when_the_target_keeps_the_connection_open() -> None:
    gate = asked()
    gate.fin(10 * MS, seen=101)
    gate.answer(20 * MS, 100)
    gate.goes_at(20 * MS + SHORT_ANSWER_QUIET_NS)


def test_fin_goes_when_only_the_servers_fin_came_online() -> None:
    """The answer had been acknowledged before; nothing but the FIN is owed, for a second."""
    gate = asked()
    gate.answer(1 * MS, 100)
    gate.turn(2 * MS, seen=100)
    gate.goes(2 * MS)
    gate.fin(10 * MS, seen=101)
    gate.goes_at(10 * MS + WAIT_MIN_NS)
    assert gate.counts.waits_expired == 1


def test_fin_of_a_shorter_stream_waits_for_the_targets_fin_alone() -> None:
    """The target had answered ten bytes less, and that is all it owes: its FIN, for a second."""
    gate = asked()
    gate.turn(1 * MS, seen=100)
    gate.answer(2 * MS, 90)
    at = gate.goes_after(2 * MS)
    gate.fin(at + MS, seen=101)
    gate.goes_at(at + MS + WAIT_MIN_NS)


def test_nothing_is_waited_for_after_the_target_has_closed() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.turn(20 * MS, seen=200)
    gate.close(30 * MS)
    gate.goes(30 * MS)
    gate.goes(30 * MS)


# --- streams in which both sides send freely -------------------------------------------------


WEBSOCKET = b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "streaming"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", True),
        (WEBSOCKET, True),
        (WEBSOCKET.replace(b"Upgrade: w", b"upgrade: w"), True),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", False),
        (b"PRINT", False),
        (b"POST / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", False),
        (b"", False),
    ],
)
def test_first_bytes_tell(data: bytes, streaming: bool) -> None:
    gate = Gate()
    gate.turn(0, seen=0, data=data + b"x" * (not data))
    assert gate.half.streaming == streaming


def test_only_the_first_bytes_tell() -> None:
    gate = Gate()
    gate.turn(0, seen=0)
    gate.turn(SECOND, seen=10, data=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert gate.half.streaming == 0


@pytest.mark.parametrize(("gap_ns", "streaming"), [(30 * MS - 1, True), (30 * MS, False)])
def test_turns_faster_than_a_round_trip_tell(gap_ns: int, streaming: bool) -> None:
    """No reaction can be faster; three quarters allow for what a clock does."""
    gate = Gate(rtt_ns=40 * MS)
    gate.turn(0, seen=0)
    gate.turn(SECOND, seen=100)
    gate.turn(SECOND + gap_ns, seen=200)
    assert gate.half.streaming == streaming


def test_round_trip_that_was_asked_for_tells_nothing() -> None:
    """-R is what is put back, not how far away the client was."""
    gate = Gate(rtt_ns=200 * MS)
    gate.half.client_rtt_ns = 0
    for index in range(5):
        gate.turn(index * MS, seen=100 * index)
    assert gate.half.streaming == 0


def test_fin_right_after_data_is_no_stream() -> None:
    gate = Gate(rtt_ns=40 * MS)
    gate.turn(0, seen=0)
    gate.fin(1 * MS, seen=100)
    assert gate.half.streaming == 0


def streaming_gate() -> Gate:
    """A stream whose first turn went at time 0."""
    gate = Gate()
    gate.turn(0, seen=0, data=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    gate.goes(0)
    assert gate.half.streaming == 1
    return gate


def test_stream_goes_with_the_plain_offset() -> None:
    gate = streaming_gate()
    gate.turn(10 * MS, seen=100)
    gate.answer(20 * MS, 99)
    assert gate.look(20 * MS) != 0
    gate.answer(21 * MS, 1)
    gate.goes(21 * MS)


def test_stream_never_stalls() -> None:
    """The target sends less: each wait is bounded, and counted."""
    gate = streaming_gate()
    gate.turn(10 * MS, seen=100)
    gate.answer(20 * MS, 50)
    opens = gate.look(20 * MS)
    assert opens is not None and opens >= 10 * MS + WAIT_MIN_NS
    gate.goes_at(opens)
    assert gate.counts.waits_expired == 1


def test_stream_of_a_silent_target_never_stalls() -> None:
    gate = streaming_gate()
    gate.turn(300 * MS, seen=100)
    gate.goes_at(300 * MS + WAIT_FACTOR * 300 * MS)
    assert gate.counts.waits_expired == 1


def test_stream_that_begins_with_the_server_never_stalls() -> None:
    """HTTP/2 servers may send their settings first; nothing is known of online's time yet."""
    gate = Gate()
    gate.turn(0, seen=40, data=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    gate.goes_at(WAIT_MIN_NS)
    assert gate.counts.waits_expired == 1


# --- accounts ------------------------------------------------------------------------------


def test_turns_are_counted_once_each() -> None:
    gate = Gate()
    gate.turn(0, seen=0)
    gate.turn(0, seen=0)
    gate.turn(MS, seen=50)
    gate.turn(MS, seen=50)
    gate.fin(2 * MS, seen=90)
    assert gate.counts.turns_captured == 2
    gate.goes(2 * MS)
    gate.goes(2 * MS)
    gate.answer(3 * MS, 50)
    gate.goes(3 * MS)
    gate.goes(3 * MS)
    assert gate.counts.turns_replayed == 2
    gate.answer(4 * MS, 40)
    gate.goes(4 * MS)
    assert gate.counts.turns_replayed == 2


def test_lag_behind_the_capture_is_recorded() -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(40 * MS, 100)
    gate.goes(40 * MS)
    lag = gate.counts.capture_lag
    assert (lag.count, lag.smallest, lag.largest) == (2, 0, 30 * MS)


@pytest.mark.parametrize(("lag_ns", "late"), [(QUIET_NS, 0), (QUIET_NS + 1, 1)])
def test_late_turns_are_counted(lag_ns: int, late: int) -> None:
    gate = asked()
    gate.turn(10 * MS, seen=100)
    gate.answer(10 * MS + lag_ns, 100)
    gate.goes(10 * MS + lag_ns)
    assert gate.counts.turns_late == late


def test_time_to_the_answer_is_recorded_once_a_turn() -> None:
    gate = asked()
    gate.answer(3 * MS, 50)
    gate.answer(9 * MS, 50)
    assert gate.counts.answer_time.count == 1
    assert gate.half.answer_started_ns == START + 3 * MS


def test_greeting_is_no_answer_time() -> None:
    gate = Gate()
    gate.answer(3 * MS, 80)
    assert gate.counts.answer_time.count == 0


def test_empty_gate_says_nothing() -> None:
    gate = asked()
    gate.waits(0)
    gate.half.release_gate(gate.replayed, START)
    assert gate.half.turn_count == 1
