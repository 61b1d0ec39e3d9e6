"""When it is told that many sessions fail alike: once, and again only when there is news."""

from __future__ import annotations

import pytest

from tcpcopy.doctor.watch import LEAST, PAUSE_NS, SILENCE_NS, AnswerWatch, Failing, FailureWatch
from tcpcopy.report.counters import Snapshot
from tcpcopy.report.outcome import OUTCOME_SLOTS, Outcome

SECOND = 1_000_000_000
LATER = 10 * PAUSE_NS


def counts(live: int = 0, answers: int = 0, **ended: int) -> Snapshot:
    outcomes = [0] * OUTCOME_SLOTS
    for name, count in ended.items():
        outcomes[Outcome[name]] = count
    return Snapshot(
        sessions_captured=sum(outcomes) + live, sessions_live=live, outcomes=outcomes,
        answers_received=answers,
    )  # fmt: skip


@pytest.mark.parametrize(
    "outcome", [Outcome.REFUSED, Outcome.RESET, Outcome.CONNECT_TIMEOUT, Outcome.SEND_FAILED]
)
def test_many_that_fail_alike(outcome: Outcome) -> None:
    watch = FailureWatch()
    assert watch.look(counts(**{outcome.name: LEAST - 1}), 0) is None
    assert watch.look(counts(**{outcome.name: LEAST}), 1) == Failing(outcome, LEAST, LEAST)


def test_four_in_five_are_many() -> None:
    assert FailureWatch().look(counts(REPLAYED=4, REFUSED=16), 0) == Failing(
        Outcome.REFUSED, 16, 20
    )
    assert FailureWatch().look(counts(REPLAYED=5, REFUSED=15), 0) is None
    assert FailureWatch().look(counts(RESET=10, REFUSED=10), 0) is None, "not alike"
    assert FailureWatch().look(counts(REPLAYED=200), 0) is None


def test_those_that_are_tried_again_count_while_they_wait() -> None:
    waiting = counts(live=LEAST)
    waiting.sessions_refused = LEAST
    watch = FailureWatch()
    assert watch.look(waiting, 0) == Failing(Outcome.REFUSED, LEAST, LEAST)
    assert watch.look(waiting, LATER) is None, "nor are they called unanswered"


def test_what_was_left_out_as_asked_does_not_count() -> None:
    found = FailureWatch().look(counts(SKIPPED_SAMPLING=500, REFUSED=20), 0)
    assert found == Failing(Outcome.REFUSED, 20, 20)
    assert FailureWatch().look(counts(SKIPPED_SAMPLING=500, REFUSED=19), 0) is None


def test_it_is_told_once() -> None:
    watch = FailureWatch()
    assert watch.look(counts(REFUSED=20), 0) is not None
    assert watch.look(counts(REFUSED=20), LATER) is None
    assert watch.look(counts(REFUSED=60), 2 * LATER) is None
    assert watch.look(counts(REFUSED=100), 3 * LATER) is None


def test_only_sessions_since_the_last_look_count() -> None:
    """A long good run does not hide a bad end."""
    watch = FailureWatch()
    assert watch.look(counts(REPLAYED=100_000), 0) is None
    assert watch.look(counts(REPLAYED=100_001, REFUSED=19), SECOND) == Failing(
        Outcome.REFUSED, 19, 20
    )


def test_it_is_told_again_after_it_was_well() -> None:
    watch = FailureWatch()
    assert watch.look(counts(REFUSED=20), 0) is not None
    assert watch.look(counts(REFUSED=20, REPLAYED=20), LATER) is None
    assert watch.look(counts(REFUSED=40, REPLAYED=20), 2 * LATER) is not None


def test_it_is_told_when_it_changes() -> None:
    watch = FailureWatch()
    assert watch.look(counts(REFUSED=20), 0) is not None
    found = watch.look(counts(REFUSED=20, RESET=20), LATER)
    assert found is not None and found.outcome is Outcome.RESET


def test_what_flaps_is_told_once_a_minute_at_most() -> None:
    watch = FailureWatch()
    told = 0
    refused = replayed = 0
    for second in range(0, 600, 2):
        refused, replayed = refused + 20, replayed + (0 if second % 4 else 100)
        told += watch.look(counts(REFUSED=refused, REPLAYED=replayed), second * SECOND) is not None
    assert 1 < told <= 10


def test_nothing_was_ever_answered() -> None:
    """Long before a session ends with the time-out of its connect."""
    watch = FailureWatch()
    assert watch.look(counts(live=20), 0) is None
    assert watch.look(counts(live=25), SILENCE_NS - 1) is None
    assert watch.look(counts(live=30), SILENCE_NS) == Failing(Outcome.CONNECT_TIMEOUT, 30, 30)
    assert watch.look(counts(live=30), 2 * SILENCE_NS + PAUSE_NS) is None
    assert watch.look(counts(CONNECT_TIMEOUT=30), LATER) is None, "the same, told before"


@pytest.mark.parametrize(
    "fine", [counts(live=19), counts(live=200, answers=1), counts(live=200, REFUSED=1)]
)
def test_what_is_no_silence(fine: Snapshot) -> None:
    watch = FailureWatch()
    assert watch.look(fine, 0) is None
    assert watch.look(fine, LATER) is None


def test_the_target_stops_answering() -> None:
    """What was answered before does not hide it; sessions that are merely idle are no reason."""
    watch = FailureWatch()
    assert watch.look(counts(live=50, answers=900), 0) is None
    assert watch.look(counts(live=69, answers=900), LATER) is None, "19 new ones"
    assert watch.look(counts(live=70, answers=900), LATER + SECOND) is None
    late = LATER + SECOND + SILENCE_NS
    assert watch.look(counts(live=75, answers=900), late) == Failing(
        Outcome.CONNECT_TIMEOUT, 25, 25
    )
    assert watch.look(counts(live=99, answers=901), LATER + LATER) is None, "it answers again"


def test_sessions_that_wait_on_this_host_are_no_silence_of_the_target() -> None:
    watch = FailureWatch()
    waiting = counts(live=300)
    waiting.ports.waiting = 290
    assert watch.look(waiting, 0) is None
    assert watch.look(waiting, 2 * SILENCE_NS) is None
    waiting.ports.waiting = 0
    assert watch.look(waiting, 3 * SILENCE_NS) is None
    assert watch.look(waiting, 5 * SILENCE_NS) is not None


def test_silence_must_last() -> None:
    watch = FailureWatch()
    assert watch.look(counts(live=20), 0) is None
    assert watch.look(counts(live=0), SECOND) is None
    assert watch.look(counts(live=20), SILENCE_NS) is None


def test_no_answer_ever_comes_to_intercept() -> None:
    watch = AnswerWatch()
    assert not watch.look(LEAST - 1, 0, 0)
    assert not watch.look(LEAST, 0, LATER)
    assert not watch.look(LEAST, 0, LATER + SILENCE_NS - 1)
    assert watch.look(LEAST, 0, LATER + SILENCE_NS)
    assert not watch.look(LEAST, 0, 2 * LATER), "once"


def test_answers_come_to_intercept() -> None:
    watch = AnswerWatch()
    assert not watch.look(LEAST, 0, 0)
    assert not watch.look(LEAST, 1, SILENCE_NS)
    assert not watch.look(1000, 1, LATER)
