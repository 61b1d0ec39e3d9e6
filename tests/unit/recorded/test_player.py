"""Files played to an engine: at the time, in order, as often as asked, within bounds."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest

from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.unread import Unread
from tcpcopy.mapping.rate import DROP, PACE, QUEUE, RateConfig
from tcpcopy.recorded.player import FAST_BUSY, open_feed
from tests.unit.engine.rig import MS, SECOND
from tests.unit.engine.world import Table
from tests.unit.recorded.tape import Stage, Tape, talk

TEXTS = ["one", "two", "three"]


def conversation(port: int = 40001, gap_ns: int = 100 * MS) -> Tape:
    tape = Tape()
    talk(tape, tape.caller(port), TEXTS, gap_ns)
    return tape


@pytest.mark.parametrize("speed", [Fraction(1), Fraction(10), Fraction(1, 2), Fraction(7, 3)])
def test_turns_go_when_they_were_recorded(speed: Fraction) -> None:
    stage = Stage(conversation(), speed=speed)
    stage.run()
    stage.check()
    assert stage.world.outcomes() == {"REPLAYED": 1}
    assert stage.target.texts() == ["onetwothree"]
    recorded = [101 * MS, 201 * MS, 301 * MS]
    for (at, text), time, wanted in zip(stage.target.times, recorded, TEXTS, strict=True):
        exact = time / speed
        # What comes back is put back: the round trip of the client, once its answer is there.
        assert text == wanted and exact - 1 <= at <= exact + 1 * MS / speed + 1


def test_a_session_of_a_file_that_does_not_end() -> None:
    """It is closed when what it asked has been answered, and counted as what it is."""
    tape = Tape()
    caller = tape.caller(40001)
    caller.syn()
    caller.give("A")
    caller.say("one")
    tape.now += 10 * MS
    caller.say("two", seen=2)
    stage = Stage(tape, delay_ns=300 * MS)
    took = stage.run()
    stage.check()
    assert stage.target.texts() == ["onetwo"]
    assert stage.world.outcomes() == {"OPEN_COMPLETE": 1}
    # Connect, two answers, the silence after the last one, the close.
    assert 4 * 300 * MS <= took < 4 * 300 * MS + 500 * MS
    assert not stage.target.reset


def test_a_session_that_begins_before_the_file() -> None:
    tape = Tape()
    caller = tape.caller(40001)
    caller.said = b"unknown"
    caller.say("one", seen=1000)
    tape.now += 10 * MS
    caller.say("two", seen=1002)
    caller.fin(seen=1004)
    stage = Stage(tape)
    stage.run()
    stage.check()
    assert stage.target.texts() == ["onetwo"]
    assert stage.world.outcomes() == {"REPLAYED": 1}
    assert stage.world.counts.picked_up == 1


@pytest.mark.parametrize("fast", [False, True])
def test_passes_are_sessions_of_their_own(fast: bool) -> None:
    """Whole, begun before, and cut ones; the same numbers come again and are new connections."""
    tape = conversation()
    cut = tape.caller(40002)
    cut.syn()
    cut.give("A")
    cut.say("cut")
    early = tape.caller(40003)
    early.said = b"x"
    early.say("early", seen=9)
    stage = Stage(tape, passes=3, fast=fast, delay_ns=50 * MS)
    stage.run()
    stage.check()
    assert sorted(stage.target.texts()) == ["cut"] * 3 + ["early"] * 3 + ["onetwothree"] * 3
    assert stage.world.outcomes() == {"REPLAYED": 3, "OPEN_COMPLETE": 6}
    assert stage.player.passes_done == 3
    if not fast:
        # A pass lasts as long as its packets, whatever the target still does.
        times = [at for at, text in stage.target.times if text == "one"]
        length = tape.packets[-1][0] - tape.packets[0][0]
        assert all(abs(b - a - length) <= 60 * MS for a, b in pairwise(times))


def test_long_gaps_are_cut() -> None:
    tape = conversation(gap_ns=3600 * SECOND)
    stage = Stage(tape, longest_gap_ns=20 * MS)
    assert stage.run() < SECOND
    stage.check()
    assert stage.target.texts() == ["onetwothree"]
    assert stage.world.outcomes() == {"REPLAYED": 1}


def test_other_traffic_does_not_count_as_time() -> None:
    """Neither answers nor noise before, between and after are waited for."""
    tape = Tape()
    noise = tape.caller(1000)
    noise.blank = replace(noise.blank, destination_port=81)
    noise.syn()
    tape.now += 1000 * SECOND
    talk(tape, tape.caller(40001), TEXTS, 10 * MS)
    tape.now += 1000 * SECOND
    noise.say("noise")
    stage = Stage(tape)
    assert stage.run() < SECOND
    stage.check()
    assert stage.target.texts() == ["onetwothree"]
    assert (stage.player.feed.left_out, stage.player.feed.taken) == (2, 6)
    assert stage.world.drops() == {}


def test_fast_waits_for_answers_only() -> None:
    """An hour of thinking is left out, the answers of the target are not."""
    stage = Stage(conversation(gap_ns=1000 * SECOND), fast=True, delay_ns=40 * MS)
    took = stage.run()
    stage.check()
    assert stage.target.texts() == ["onetwothree"]
    assert [text for _, text in stage.target.times] == TEXTS
    gaps = [b - a for (a, _), (b, _) in pairwise(stage.target.times)]
    assert all(40 * MS <= gap < 60 * MS for gap in gaps)
    assert took < SECOND
    assert stage.world.counts.capture_lag.count == 0
    assert stage.world.counts.turns_replayed == 3 and stage.world.counts.turns_late == 0


def test_fast_keeps_sessions_within_bounds() -> None:
    tape = Tape()
    for number in range(3 * FAST_BUSY):
        talk(tape, tape.caller(10_000 + number), ["a", "b"], MS)
    stage = Stage(tape, fast=True, delay_ns=100 * MS)
    stage.run()
    stage.check()
    assert stage.world.outcomes() == {"REPLAYED": 3 * FAST_BUSY}
    assert set(stage.target.texts()) == {"ab"}
    assert FAST_BUSY <= stage.peak_busy <= FAST_BUSY + 1


def test_open_sessions_do_not_stop_fast() -> None:
    """Those that wait for their client, who comes later in the file, are no work under way."""
    tape = Tape()
    callers = [tape.caller(10_000 + number) for number in range(3 * FAST_BUSY)]
    for caller in callers:
        caller.syn()
        caller.give("A")
        caller.say("a")
    tape.now += SECOND
    for caller in callers:
        caller.say("b", seen=2)
        caller.fin(seen=4)
    stage = Stage(tape, fast=True, delay_ns=MS)
    stage.run()
    stage.check()
    assert set(stage.target.texts()) == {"ab"}
    assert stage.world.outcomes() == {"REPLAYED": 3 * FAST_BUSY}
    assert stage.world.counts.peak == 3 * FAST_BUSY


@pytest.mark.parametrize("fast", [False, True])
def test_a_target_that_lags_makes_reading_wait(fast: bool) -> None:
    """Data waits in the file, not in memory."""
    tape = Tape()
    caller = tape.caller(40001)
    caller.syn()
    caller.give("A")
    text = "x" * 1400
    for number in range(2000):
        tape.now += 10_000
        caller.say(text, seen=2 * number)
    caller.fin(seen=2 * 2000)
    stage = Stage(tape, fast=fast, delay_ns=5 * MS, memory_bytes=8 << 20)
    stage.run()
    stage.check()
    assert stage.target.texts() == [text * 2000]
    assert stage.world.outcomes() == {"REPLAYED": 1}
    assert stage.peak_queued <= (1 << 20) + 1400


def test_what_is_missing_is_no_hole_while_reading_waits() -> None:
    """A retransmission that comes 3 s later in the file, which is read a minute late."""
    tape = Tape()
    busy, holed = tape.caller(40001), tape.caller(40002)
    for caller in (busy, holed):
        caller.syn()
        caller.give("A")
    for number in range(400):
        tape.now += MS
        busy.say("y" * 1400, seen=2 * number)
    first = holed.packet("PA", payload=b"first", at=0)
    holed.give("PA", payload=b"second", at=5)
    for number in range(400, 800):
        tape.now += MS
        busy.say("y" * 1400, seen=2 * number)
    tape.now += 3 * SECOND
    tape.capture(first)
    holed.said = b"firstsecond"
    holed.fin()
    busy.fin(seen=1600)
    stage = Stage(tape, delay_ns=75 * MS, memory_bytes=1 << 20)
    assert stage.run() > 60 * SECOND
    stage.check()
    assert sorted(stage.target.texts()) == sorted(["firstsecond", "y" * 1400 * 800])
    assert stage.world.outcomes() == {"REPLAYED": 2}


@pytest.mark.parametrize("recorded", [{}, {"fast": True}, {"speed": Fraction(1, 10)}])
def test_what_is_missing_to_the_end_is_a_hole(recorded: dict[str, Any]) -> None:
    tape = Tape()
    caller = tape.caller(40001)
    caller.syn()
    caller.give("A")
    caller.say("one")
    caller.said += b"missing"
    caller.say("two", seen=2)
    other = tape.caller(40002)
    talk(tape, other, TEXTS, 20 * SECOND)
    stage = Stage(tape, **recorded)
    stage.run()
    stage.check()
    assert stage.world.outcomes() == {"CAPTURE_HOLE": 1, "REPLAYED": 1}


def test_slow_motion_is_not_taken_for_silence() -> None:
    """A client that thinks for 3 minutes, at a tenth of the speed: half an hour, more than -k."""
    tape = conversation(gap_ns=180 * SECOND)
    stage = Stage(tape, speed=Fraction(1, 10))
    assert stage.run() > 3600 * SECOND
    stage.check()
    assert stage.world.outcomes() == {"REPLAYED": 1}
    assert stage.target.texts() == ["onetwothree"]


def test_a_slow_answer_is_waited_for_at_any_speed() -> None:
    """The target takes 8 s, as the online server did; the file runs ten times as fast."""
    recorded: dict[str, Any]
    for recorded in ({"speed": Fraction(10)}, {"fast": True}):
        stage = Stage(conversation(gap_ns=8 * SECOND), delay_ns=8 * SECOND, **recorded)
        stage.run()
        stage.check()
        assert stage.world.outcomes() == {"REPLAYED": 1}
        assert stage.world.counts.waits_expired == 0
        times = [at for at, _ in stage.target.times]
        assert all(b - a >= 8 * SECOND for a, b in pairwise(times))


def test_a_pipe_that_has_nothing_yet() -> None:
    tape = conversation()
    tape.ready = 3
    stage = Stage(tape)
    stage.run(until=lambda: stage.player.wants_input)
    assert stage.player.due_ns == -1 and not stage.player.finished
    tape.ready = 1 << 60
    stage.run()
    stage.check()
    assert stage.target.texts() == ["onetwothree"]


def test_an_empty_file_ends_at_once_however_often() -> None:
    stage = Stage(Tape(), passes=1_000_000)
    assert stage.run() == 0
    assert stage.player.finished and stage.tape.rewinds == 0


def test_stop_plays_nothing_more() -> None:
    stage = Stage(conversation())
    stage.run(until=lambda: stage.world.counts.turns_replayed == 1)
    stage.player.stop()
    assert stage.player.play(stage.world.engine.now_ns + SECOND) == 0
    assert stage.player.finished


def crowd(sessions: int, gap_ns: int, requests: int = 1) -> Tape:
    tape = Tape()
    for number in range(sessions):
        tape.now = number * gap_ns
        talk(tape, tape.caller(10_000 + number), ["r"] * requests, 100_000)
    tape.packets.sort(key=lambda packet: packet[0])
    return tape


def limited(stage: Stage, config: RateConfig) -> Stage:
    """What the copier does with --rate."""
    limit = config.limit(1)
    stage.world.opener.rate = config.session_rate(limit, True)
    if config.is_requests:
        stage.world.context.turn_rate = limit
    stage.player.limit_rate(limit, config.mode, requests=config.is_requests)
    return stage


@pytest.mark.parametrize("mode", [QUEUE, PACE])
@pytest.mark.parametrize("fast", [False, True])
def test_rate_of_sessions(mode: str, fast: bool) -> None:
    """1,000 a second recorded, 200 a second replayed: all of them, in five times the time."""
    rate = RateConfig(Fraction(200), mode=mode)
    stage = limited(Stage(crowd(1000, MS), fast=fast, delay_ns=MS), rate)
    took = stage.run()
    stage.check()
    assert stage.world.outcomes() == {"REPLAYED": 1000}
    assert 999 * 5 * MS <= took <= 1000 * 5 * MS + 300 * MS
    firsts = [at for at, _ in stage.target.times]
    assert firsts == sorted(firsts)
    for a, b in zip(firsts, firsts[200:], strict=False):
        assert b - a >= SECOND - 60 * MS


@pytest.mark.parametrize("mode", [QUEUE, PACE])
def test_rate_of_requests(mode: str) -> None:
    stage = limited(
        Stage(crowd(100, MS, requests=10), delay_ns=MS), RateConfig(Fraction(500), True, mode)
    )
    took = stage.run()
    stage.check()
    assert stage.world.outcomes() == {"REPLAYED": 100}
    assert set(stage.target.texts()) == {"r" * 10}
    assert 999 * 2 * MS <= took <= 1000 * 2 * MS + 500 * MS
    times = [at for at, _ in stage.target.times]
    for a, b in zip(times, times[500:], strict=False):
        assert b - a >= SECOND - 60 * MS


def test_rate_that_drops_leaves_out_whole_sessions() -> None:
    rate = RateConfig(Fraction(200), mode=DROP)
    stage = limited(Stage(crowd(1000, MS, requests=3), delay_ns=MS), rate)
    took = stage.run()
    stage.check()
    outcomes = stage.world.outcomes()
    assert outcomes["REPLAYED"] + outcomes["SKIPPED_RATE"] == 1000
    assert abs(outcomes["REPLAYED"] - 200) <= 10  # and the slack of 50 ms at the start
    assert set(stage.target.texts()) == {"rrr"}
    assert took < 1500 * MS


def test_a_ramp_begins_slowly() -> None:
    rate = RateConfig(Fraction(200), ramp_ns=2 * SECOND)
    stage = limited(Stage(crowd(600, MS), delay_ns=MS), rate)
    took = stage.run()
    stage.check()
    assert stage.world.outcomes() == {"REPLAYED": 600}
    firsts = [at for at, _ in stage.target.times]
    # The area below the ramp is 200 sessions, the rest goes at the full rate.
    assert abs(sum(at <= SECOND for at in firsts) - 50) <= 2
    assert abs(sum(at <= 2 * SECOND for at in firsts) - 200) <= 3
    assert abs(took - 4 * SECOND) <= 200 * MS


def test_a_filter_of_its_own() -> None:
    """-F decides instead of the ports."""
    feed = open_feed((80,), "tcp src port 40001")
    tape = conversation()
    talk(tape, tape.caller(40002), TEXTS, MS)
    while tape.next_ns() >= 0:
        tape.hand_on(feed)
        feed.is_full = False
    assert feed.left_out == len(tape.packets) // 2


def test_limits_of_live_sessions_make_reading_wait() -> None:
    tape = crowd(300, MS)
    stage = Stage(tape, config=EngineConfig(max_sessions=20), fast=True, delay_ns=20 * MS)
    stage.run()
    stage.check()
    assert stage.world.outcomes() == {"REPLAYED": 300}
    assert stage.world.counts.peak <= 20


# --- standing still, and the end of a pipe ----------------------------------------------------


def test_a_file_goes_on_where_it_was_when_the_process_stood_still() -> None:
    """No burst: what should have gone meanwhile goes as late, at the distances recorded."""
    tape = Tape()
    for number in range(20):
        talk(tape, tape.caller(40001 + number), ["x"], 100 * MS)
    stage = Stage(tape)
    stage.run(lambda: stage.world.counts.sessions == 5)
    stage.world.engine.now_ns += 20 * SECOND
    stage.world.context.stand_still(stage.world.engine.now_ns, 20 * SECOND)
    stage.player.stand_still(20 * SECOND)
    stage.run()
    stage.check()
    assert stage.world.outcomes() == {"REPLAYED": 20}
    gaps = [b - a for (a, _), (b, _) in pairwise(stage.target.times)]
    assert sum(gap > 1 * SECOND for gap in gaps) == 1
    assert min(gaps) >= 190 * MS


def late_stage(paths: tuple[str, ...], late_ns: int = 60 * SECOND) -> tuple[Stage, Unread]:
    """Ten connections, of which some are played; the rest is there, and that late by then."""
    tape = Tape()
    for number in range(10):
        talk(tape, tape.caller(40001 + number), ["x"], 100 * MS)
    stage = Stage(tape)
    stage.player.config = replace(stage.recorded, paths=paths)
    stage.run(lambda: stage.world.counts.sessions == 4)
    stage.world.engine.now_ns += late_ns
    return stage, Unread(Table(), 1, engine=stage.world.engine)


def test_what_a_pipe_has_brought_is_counted_when_there_is_no_time_for_it() -> None:
    stage, unread = late_stage(("-",))
    engine, player = stage.world.engine, stage.player
    assert player.is_behind(engine.now_ns)
    player.count_left(unread, engine.now_ns + SECOND, lambda: engine.now_ns)
    assert unread.sessions == 6 and unread.udp_packets == 0
    assert not player.is_behind(engine.now_ns)
    counts = stage.world.counts
    assert player.feed.taken == counts.packets_captured + unread.packets
    assert player.feed.taken + player.feed.left_out == len(stage.tape.packets)


def test_no_longer_than_there_is_time() -> None:
    stage, unread = late_stage(("-",))
    clock = stage.world.engine.now_ns
    stage.player.count_left(unread, clock, lambda: clock)
    assert unread.total == 0


def test_what_a_pipe_will_bring_later_is_not_behind() -> None:
    """Recorded traffic through a pipe: what is due later was not left unread."""
    stage, unread = late_stage(("-",), 0)
    now_ns = stage.world.engine.now_ns
    stage.player.count_left(unread, now_ns + SECOND, lambda: now_ns)
    assert unread.total == 0


def test_a_file_is_never_behind() -> None:
    """It is there to be replayed again: `files.bytes_read` tells how far it was."""
    stage, unread = late_stage(("tape",))
    now_ns = stage.world.engine.now_ns
    assert not stage.player.is_behind(now_ns)
    stage.player.count_left(unread, now_ns + SECOND, lambda: now_ns)
    assert unread.total == 0
