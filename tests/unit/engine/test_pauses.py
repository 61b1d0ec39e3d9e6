"""Whether shorter answers are complete: the share that went on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.engine.pauses import Pauses


def noted(*outcomes: int) -> Pauses:
    """After so many answers; 1: it went on."""
    pauses = Pauses()
    for paused in outcomes:
        pauses.note(paused)
    return pauses


def test_nothing_is_known_at_first() -> None:
    assert not Pauses().are_rare()


def test_forty_complete_answers_are_enough() -> None:
    assert not noted(*[0] * 30).are_rare()
    assert noted(*[0] * 45).are_rare()


def test_one_that_went_on_takes_the_trust_for_twenty() -> None:
    known = [0] * 200
    assert not noted(*known, 1).are_rare()
    assert not noted(*known, 1, *[0] * 10).are_rare()
    assert noted(*known, 1, *[0] * 25).are_rare()


def test_one_in_ten_is_not_rare() -> None:
    pauses = noted(*([0] * 9 + [1]) * 30)
    assert not pauses.are_rare()


@given(st.lists(st.integers(0, 1), max_size=300))
def test_share_is_a_share(outcomes: list[int]) -> None:
    assert 0 <= noted(*outcomes).share <= 1 << 16
