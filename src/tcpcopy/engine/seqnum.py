"""Sequence number arithmetic modulo 2**32 (RFC 9293, 3.4); the only place that does it.

Everything else in the engine counts in 64-bit stream offsets; these functions convert at the edge.
"""

from __future__ import annotations


def add(number: int, count: int) -> int:
    """`number + count` modulo 2**32; `count` may be negative."""
    return (number + count) & 0xFFFFFFFF


def difference(left: int, right: int) -> int:
    """How far `left` is ahead of `right`: -2**31 .. 2**31 - 1."""
    ahead = (left - right) & 0xFFFFFFFF
    return ahead - 0x100000000 if ahead & 0x80000000 else ahead
