"""The arithmetic behind the benchmark tables."""

from __future__ import annotations

import pytest

from benchmarks.numbers import (
    Spread,
    added_delays_ms,
    column,
    paired_ratios,
    per,
    percentile,
    spread,
    total,
)


def test_spread_leaves_out_what_was_not_measured() -> None:
    assert spread([3.0, None, 1.0, 2.0, 10.0]) == Spread(1.0, 2.5, 10.0, 4)
    assert spread([None]) is None
    assert spread([]) is None


def test_column_has_a_place_for_each_run() -> None:
    assert column([{"a": 1.0}, {"b": 2.0}, {"a": None}], "a") == [1.0, None, None]


def test_ratios_pair_runs_of_the_same_round() -> None:
    """The second round was twice as slow for both: the ratio does not move."""
    assert paired_ratios([1.0, 2.0], [2.0, 4.0]) == [0.5, 0.5]
    assert paired_ratios([1.0, None, 1.0], [0.0, 4.0, None]) == [None, None, None]
    assert paired_ratios([1.0, 3.0], [2.0]) == [0.5]  # interrupted before the round was over


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_percentile_is_a_value_that_occurred(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == expected


def test_percentile_of_few_and_none() -> None:
    assert percentile([], 0.5) is None
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0


def test_per_and_total_know_what_is_missing() -> None:
    assert per(10.0, 4) == 2.5
    assert per(0.0, 4) == 0.0
    assert per(10.0, 0) is None
    assert per(None, 4) is None
    assert total(1.5, None, 2.0) == 3.5
    assert total(None) is None


def test_delays_are_of_requests_that_reached_both() -> None:
    online = {"s1": 1_000_000_000, "s2": 1_000_500_000, "lost": 1_001_000_000}
    target = {"s2": 1_003_500_000, "s1": 1_000_450_000, "stray": 0}
    assert added_delays_ms(online, target) == [0.45, 3.0]
