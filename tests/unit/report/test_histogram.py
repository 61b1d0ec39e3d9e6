"""Durations in buckets: bounds, percentiles, joining, and the way through JSON."""

from __future__ import annotations

import json

import pytest

from tcpcopy.report.histogram import (
    LARGEST,
    SLOTS,
    SUB_BUCKETS,
    Histogram,
    bucket_bounds,
    bucket_of,
)


def test_buckets_cover_every_value_without_gap_or_overlap() -> None:
    """Bucket after bucket, each begins where the one before ended, up to LARGEST."""
    expected = 0
    for bucket in range(SLOTS):
        low, high = bucket_bounds(bucket)
        assert low == expected
        assert bucket_of(low) == bucket_of(high) == bucket
        assert (high - low) * SUB_BUCKETS <= low
        expected = high + 1
    assert expected == LARGEST + 1


def test_empty() -> None:
    empty = Histogram()
    assert [empty.percentile(q) for q in (0, 50, 100)] == [0, 0, 0]
    assert (empty.count, empty.mean, empty.largest) == (0, 0, 0)


def test_one_value_is_every_percentile_exactly() -> None:
    one = Histogram.of([1_234_567])
    assert [one.percentile(q) for q in (0, 1, 50, 99.9, 100)] == [1_234_567] * 5
    assert one.mean == 1_234_567


def test_small_values_are_exact() -> None:
    """Nearest rank: of 0 to 49, the 50th percentile is the 25th value."""
    small = Histogram.of(range(50))
    assert small.percentile(50) == 24
    assert small.percentile(98) == 48
    assert small.percentile(100) == 49


def test_a_rare_large_value_shows_only_in_the_high_percentiles() -> None:
    mixed = Histogram.of([1_000_000] * 999 + [5_000_000_000])
    assert mixed.percentile(99.9) == pytest.approx(1_000_000, rel=1 / SUB_BUCKETS)
    assert mixed.percentile(99.99) == 5_000_000_000


def test_out_of_range_counts_as_the_nearest() -> None:
    """A clock that steps back, or a wait of years, is a value and not an error."""
    odd = Histogram.of([-5, LARGEST + 1, 1 << 60])
    assert (odd.count, odd.smallest, odd.largest) == (3, 0, LARGEST)
    assert odd.percentile(1) == 0


def test_adding_an_empty_one_changes_nothing() -> None:
    some = Histogram.of([3, 5])
    some.add(Histogram())
    assert some == Histogram.of([3, 5])
    nothing = Histogram()
    nothing.add(some)
    assert nothing == some


def test_copy_is_independent() -> None:
    some = Histogram.of([3])
    twin = some.copy()
    twin.record(4)
    assert (some.count, twin.count) == (1, 2)
    assert some != twin


def test_through_json() -> None:
    some = Histogram.of([0, 7, 7, 123_456_789])
    assert Histogram.from_dict(json.loads(json.dumps(some.to_dict()))) == some


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"buckets": "none"}, TypeError),
        ({"buckets": [[SLOTS, 1]]}, ValueError),
        ({"buckets": [[-1, 1]]}, ValueError),
        ({"total": "much"}, TypeError),
    ],
)
def test_from_dict_refuses_what_it_did_not_make(
    change: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Histogram.from_dict(Histogram.of([1]).to_dict() | change)


def test_from_dict_needs_every_key() -> None:
    with pytest.raises(KeyError):
        Histogram.from_dict({"buckets": []})


def test_has_no_hash() -> None:
    with pytest.raises(TypeError):
        hash(Histogram())


def test_repr_tells_the_figures() -> None:
    assert repr(Histogram.of([10, 20])) == "Histogram(count=2, p50=10, p99=20, largest=20)"
