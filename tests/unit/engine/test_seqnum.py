"""Sequence numbers at the edges; laws in tests/property/test_engine_parts.py."""

from __future__ import annotations

import pytest

from tcpcopy.engine import seqnum

TOP = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("number", "count", "expected"),
    [
        (0, 0, 0),
        (TOP, 1, 0),
        (TOP, 0, TOP),
        (0, -1, TOP),
        (5, -10, TOP - 4),
        (0x7FFFFFFF, 1, 0x80000000),
        (1, 1 << 32, 1),
        (1, (1 << 32) - 1, 0),
        (0, 1 << 40, 0),
    ],
)
def test_add(number: int, count: int, expected: int) -> None:
    assert seqnum.add(number, count) == expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (0, 0, 0),
        (TOP, TOP, 0),
        (0, TOP, 1),
        (TOP, 0, -1),
        (10, 5, 5),
        (5, 10, -5),
        (0x7FFFFFFF, 0, 0x7FFFFFFF),
        (0x80000000, 0, -0x80000000),
        (0, 0x80000000, -0x80000000),
        (0x80000001, 0, -0x7FFFFFFF),
        (3, 0xFFFFFFFD, 6),
    ],
)
def test_difference(left: int, right: int, expected: int) -> None:
    assert seqnum.difference(left, right) == expected


def test_difference_takes_sums_as_they_are() -> None:
    """Numbers above 32 bits or below zero count modulo 2**32."""
    assert seqnum.difference(-1, 0) == -1
    assert seqnum.difference((1 << 32) + 3, 1) == 2
