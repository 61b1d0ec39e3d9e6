"""Pacing: silent targets, endings, free streams, and the accounts (DESIGN, section 4)."""

from __future__ import annotations

import pytest

from tcpcopy.engine.context import WAIT_FACTOR
from tcpcopy.engine.pacing import (
    FIRST_QUIET_NS,
    FIRST_WAIT_NS,
    GREETING_WAIT_NS,
    QUIET_NS,
    SHORT_ANSWER_QUIET_NS,
    SILENT_FACTOR,
    STREAM_MISSES,
    SURPLUS_FACTOR,
    SURPLUS_MIN_NS,
    TAKEN_LOOK_NS,
    WAIT_MIN_NS,
)
from tcpcopy.engine.replayed import Replayed
from tests.unit.engine.gating import START, Gate, asked
from tests.unit.engine.rig import MS, SECOND

# --- a silent target -----------------------------------------------------------------------


def answered(*, usual_ns: int = 2 * MS, rtt_ns: int = 0) -> Gate:
    """Two turns went, and the target answered the first as online did; now is 100 ms."""
    gate = asked(rtt_ns=rtt_ns)
    gate.answer(usual_ns, 100)
    gate.turn(100 * MS, seen=100)
    gate.goes(100 * MS)
    return gate


def test_silent_target_holds_the_next_turn_for_a_bounded_time() -> None:
    """Online took milliseconds: a second, which is counted."""
    gate = answered()
    gate.turn(105 * MS, seen=200)
    gate.goes_at(105 * MS + WAIT_MIN_NS)
    assert gate.counts.waits_expired == 1


def test_silent_target_is_waited_for_in_proportion_to_online() -> None:
    gate = answered()
    gate.turn(2 * SECOND, seen=200)
    gate.goes_at(2 * SECOND + WAIT_FACTOR * 1900 * MS)


def test_first_answer_is_waited_for_longer() -> None:
    gate = asked()
    gate.turn(MS, seen=100)
    gate.goes_at(MS + FIRST_WAIT_NS)


def test_greeting_is_waited_for_longest() -> None:
    gate = Gate()
    gate.turn(MS, seen=100)
    gate.goes_at(MS + GREETING_WAIT_NS)


def test_slow_target_is_waited_for_longer() -> None:
    """Its answers take 400 ms here or in other sessions: a second is nothing to it."""
    gate = answered(usual_ns=80 * MS)
    for _ in range(200):
        gate.context.note_answer_time(400 * MS)
    gate.turn(105 * MS, seen=200)
    opens = gate.look(105 * MS)
    assert opens is not None
    assert abs(opens - 105 * MS - SILENT_FACTOR * 400 * MS) < 100 * MS


def test_silent_target_holds_the_fin_for_a_bounded_time() -> None:
    gate = answered()
    gate.fin(105 * MS, seen=200)
    gate.goes_at(105 * MS + WAIT_MIN_NS)


def test_wait_begins_when_the_target_has_taken_what_was_sent() -> None:
    """What it has not acknowledged it cannot answer; -t is the bound for that."""
    gate = asked()
    gate.answer(2 * MS, 100)
    gate.takes = False
    gate.turn(100 * MS, seen=100)
    gate.goes(100 * MS)
    gate.turn(105 * MS, seen=200)
    gate.waits_for_progress(3600 * SECOND)
    gate.replayed.acknowledged = gate.half.released_end
    gate.replayed.acknowledged_ns = START + 3600 * SECOND
    gate.goes_at(3600 * SECOND + WAIT_MIN_NS)


def test_what_stands_in_the_kernels_buffer_is_not_taken() -> None:
    class Buffered(Replayed):
        waiting = 10

        def undelivered(self) -> int:
            return self.waiting

    gate = answered()
    gate.replayed = half = Buffered()
    half.established, half.received, half.coarse = 1, 100, 1
    half.acknowledged = gate.half.released_end
    gate.turn(105 * MS, seen=200)
    late = 105 * MS + WAIT_MIN_NS
    assert gate.look(late) == late + TAKEN_LOOK_NS
    half.waiting = 0
    gate.goes(late + TAKEN_LOOK_NS)


def test_each_wait_in_silence_is_half_as_long_and_three_show_a_stream() -> None:
    gate = answered()
    for number in range(12):
        gate.turn(101 * MS + number * MS, seen=200 + 100 * number)
    at = 112 * MS
    waits = [WAIT_MIN_NS]
    at = gate.goes_after(at)
    assert at == 101 * MS + WAIT_MIN_NS
    for number in range(1, 12):
        went = gate.goes_after(at)
        waits.append(went - at)
        assert gate.half.streaming == (number >= STREAM_MISSES - 1)
        at = went
    assert waits[:4] == [WAIT_MIN_NS, WAIT_MIN_NS // 2, WAIT_MIN_NS // 4, WAIT_MIN_NS // 8]
    assert waits[-1] == QUIET_NS
    assert sum(waits) < 2 * WAIT_MIN_NS + 12 * QUIET_NS


def test_a_target_that_speaks_again_is_waited_for_again() -> None:
    gate = answered()
    gate.turn(105 * MS, seen=200)
    at = gate.goes_after(105 * MS)
    gate.turn(at + MS, seen=300)
    at = gate.goes_after(at + MS)
    assert gate.half.misses == 2
    gate.answer(at + MS, 100)
    assert gate.half.misses == 1
    gate.answer(at + 2 * MS, 100)
    assert gate.half.misses == 0


# --- what is no reaction -------------------------------------------------------------------


def test_what_was_being_written_is_no_reaction_to_an_answer_that_came_meanwhile() -> None:
    """A large upload that online answers early, and the target at its end."""
    gate = asked()
    gate.half.note_segment_end(1448, 0)
    for number in range(50):
        gate.turn(number * 1000, seen=100, size=1448)
        gate.goes(number * 1000)
        gate.half.note_segment_end(1448, 0)
    assert gate.counts.turns_captured == 1
    assert gate.half.turn_offset == 0


@pytest.mark.parametrize(("length", "pushed"), [(1448, 8), (535, 0)])
def test_what_follows_the_end_of_a_write_is_a_turn(length: int, pushed: int) -> None:
    """PSH, or a segment that is not full, ends what was written."""
    gate = asked()
    gate.half.note_segment_end(length, pushed)
    gate.turn(1000, seen=100)
    gate.waits(1000)
    assert gate.counts.turns_captured == 2


# --- a target that pushes ------------------------------------------------------------------


def pushed_ahead(parts: int) -> Gate:
    """Two turns were answered as online did; then the target pushes 100 bytes so often."""
    gate = asked()
    gate.turn(10 * MS, seen=4)
    gate.answer(11 * MS, 4)
    gate.goes(11 * MS)
    gate.turn(20 * MS, seen=9)
    gate.answer(21 * MS, 5)
    gate.goes(21 * MS)
    for number in range(parts):
        gate.answer(30 * MS + number, 100)
    return gate


def test_reactions_to_what_a_target_pushed_ahead_are_soon_sent() -> None:
    """An acknowledgement for each message: the target has sent all of them before the first."""
    gate = pushed_ahead(200)
    for number in range(200):
        gate.turn(40 * MS + number * MS // 10, seen=9 + 100 * (number + 1))
    at = 60 * MS
    for _ in range(200):
        at = gate.goes_after(at)
    assert at - 60 * MS <= STREAM_MISSES * SURPLUS_FACTOR * gate.half.answer_usual_ns
    assert gate.half.streaming == 1


def test_a_lead_that_shrinks_is_no_shorter_answer() -> None:
    """Online acknowledged late, the target at once: nothing more can come, and nothing is owed."""
    gate = asked()
    for number in range(1, 5):  # messages, each acknowledged with 4 bytes; online is 16 behind
        gate.turn(10 * MS * number, seen=4 * number)
        gate.answer(10 * MS * number, 20 if number == 1 else 4)
        gate.goes_after(10 * MS * number)
    gate.turn(60 * MS, seen=32)  # online has caught up
    gate.answer(60 * MS, 4)  # to 36
    usual_ns = gate.half.answer_usual_ns
    assert gate.goes_after(60 * MS) - 60 * MS <= SURPLUS_FACTOR * usual_ns + QUIET_NS


def test_target_that_pushes_on_and_on_holds_nothing_for_long() -> None:
    """More comes every millisecond, so that it is never quiet."""
    gate = pushed_ahead(1)
    gate.turn(31 * MS, seen=109)
    gate.goes(31 * MS)
    at = 40 * MS
    gate.turn(at, seen=209)
    sent = 0
    while gate.look(at) != 0:
        at += MS // 2
        gate.answer(at, 150)
        sent += 1
    assert sent > 2
    assert at - 40 * MS <= 2 * SURPLUS_MIN_NS + QUIET_NS


def test_longer_greeting_costs_no_silence() -> None:
    """Greetings name versions, ids and times: their length tells nothing of the answers'."""
    gate = Gate()
    gate.turn(0, seen=80)
    gate.answer(MS, 83)
    gate.goes(MS + FIRST_QUIET_NS)
    gate.answer(1100 * MS, 6)
    gate.turn(1100 * MS, seen=86)
    gate.goes(1100 * MS)


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


def test_waiting_begins_when_the_target_has_the_turn() -> None:
    """What was lost on the way and sent again cannot have been answered before."""
    gate = asked()
    gate.answer(1 * MS, 100)
    gate.turn(2 * MS, seen=100)
    gate.goes(2 * MS)
    gate.fin(10 * MS, seen=101)
    gate.replayed.acknowledged_ns = START + 700 * MS
    gate.goes_at(700 * MS + WAIT_MIN_NS)


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


@pytest.mark.parametrize(("gap_ns", "streaming"), [(10 * MS - 1, True), (10 * MS, False)])
def test_turns_much_faster_than_a_round_trip_tell(gap_ns: int, streaming: bool) -> None:
    """No reaction can be faster; a quarter allows for a handshake that took longer than others."""
    gate = Gate(rtt_ns=40 * MS)
    gate.turn(0, seen=0)
    gate.turn(SECOND, seen=100)
    gate.turn(SECOND + gap_ns, seen=200)
    assert gate.half.streaming == streaming


def test_handshake_of_a_busy_host_shows_no_stream() -> None:
    """A near client whose handshake took 9 ms once; its turns are reactions all the same."""
    gate = Gate(rtt_ns=10 * MS - 1)
    for index in range(5):
        gate.turn(index * MS, seen=100 * index)
    assert gate.half.streaming == 0


def test_turn_bounds_the_round_trip_that_is_put_back() -> None:
    """The handshake took 300 ms (a radio woke up), a turn follows another after 100."""
    gate = asked(rtt_ns=300 * MS)
    gate.answer(10 * MS, 100)
    gate.turn(100 * MS, seen=100)
    gate.goes_at(110 * MS)
    assert gate.half.streaming == 0


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


def test_stream_of_a_target_that_says_less_goes_when_it_is_quiet() -> None:
    gate = streaming_gate()
    gate.turn(10 * MS, seen=100)
    gate.answer(20 * MS, 50)
    gate.goes_at(20 * MS + SHORT_ANSWER_QUIET_NS)
    assert gate.counts.waits_expired == 0


def test_stream_of_a_target_whose_every_answer_is_shorter_never_stalls() -> None:
    """Its headers lack a line: 100 answers of 90 bytes where online sent 100."""
    gate = streaming_gate()
    at = 0
    for index in range(1, 101):
        gate.turn(at + MS, seen=100 * index)
        gate.answer(at + MS, 90)
        at = gate.goes_after(at + MS)
    assert at <= 50 * SHORT_ANSWER_QUIET_NS + 100 * (MS + QUIET_NS)
    assert gate.counts.waits_expired == 0


def test_stream_goes_with_what_the_target_has_shown_to_say_less() -> None:
    """It lacks ten bytes for good; window updates after its last data wait for nothing."""
    gate = streaming_gate()
    gate.turn(10 * MS, seen=100)
    gate.answer(20 * MS, 90)
    gate.goes(20 * MS + SHORT_ANSWER_QUIET_NS)
    gate.turn(200 * MS, seen=200)
    gate.answer(200 * MS, 900)
    gate.goes(200 * MS)
    gate.turn(201 * MS, seen=1000)
    gate.goes(201 * MS)


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
