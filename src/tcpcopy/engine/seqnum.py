"""Sequence number arithmetic modulo 2**32 (RFC 9293, 3.4); the only place that does it.

Everything else in the engine counts in 64-bit stream offsets; these functions convert at the edge.
"""

from __future__ import annotations

# Typed: as literals they would be Python objects when compiled.
_MASK = 0xFFFFFFFF
_HALF = 0x80000000
_WHOLE = 0x100000000


def add(number: int, count: int) -> int:
    """`number + count` modulo 2**32; `count` may be negative."""
    return (number + count) & _MASK


def difference(left: int, right: int) -> int:
    """How far `left` is ahead of `right`: -2**31 .. 2**31 - 1."""
    ahead = (left - right) & _MASK
    return ahead - _WHOLE if ahead & _HALF else ahead
