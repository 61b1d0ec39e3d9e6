"""Is the TCP checksum of a captured segment right, wrong, or not filled in yet?

A segment captured where it is sent, or put together by its receiver's kernel, has no checksum but
the sum of its pseudo-header, which the card or nobody completes. That is neither right nor wrong.

Source: RFC 1071, RFC 9293 (3.1).
"""

from __future__ import annotations

from typing import Any

from tcpcopy.packet.segment import Segment

RIGHT = 1
UNFILLED = 0
WRONG = -1

_RIGHT = RIGHT
_UNFILLED = UNFILLED
_WRONG = WRONG
_TCP = 6
# What is longer may have been put together by a card, which leaves the checksum of one part.
LONGEST_JUDGED = 1500
_LONGEST = LONGEST_JUDGED
_FIELD = 16  # where the checksum stands in the TCP header


def _sum16(data: Any, at: int, end: int) -> int:
    """The sum of 16-bit words, not folded; an odd last byte stands for its upper half."""
    total = 0
    while at + 1 < end:
        total += data[at] << 8 | data[at + 1]
        at += 2
    if at < end:
        total += data[at] << 8
    return total


def _fold(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def judge(segment: Segment, data: Any) -> int:
    """RIGHT, WRONG or UNFILLED (also: cannot be told) for the segment that was parsed last."""
    if segment.available < segment.payload_length:
        return _UNFILLED
    start = segment.header_offset
    end = segment.payload_offset + segment.payload_length
    length = end - start
    addresses = segment.address_offset
    pseudo = _sum16(data, addresses, addresses + 2 * segment.address_size) + _TCP
    if _fold(pseudo + length + _sum16(data, start, end)) == 0xFFFF:
        return _RIGHT
    field = data[start + _FIELD] << 8 | data[start + _FIELD + 1]
    # Some leave the length out of what they prepare for their card to cut.
    if field == 0 or field == _fold(pseudo + length) or field == _fold(pseudo):
        return _UNFILLED
    return _WRONG


class Sums:
    """What the checksums of one capture are like, and so whether a wrong one means anything.

    Only where another segment of the same connection had a right one, where the packet is not
    longer than what cards put together, and as long as wrong ones are few in all: else somebody has
    rewritten addresses, or all is offloaded.
    """

    __slots__ = ("right", "wrong")

    def __init__(self) -> None:
        self.right = 0
        self.wrong = 0

    def is_wrong(self, found: int, had_right: bool, payload_length: int) -> bool:
        """Whether a segment that `judge` has found so is one that online has dropped."""
        if found == _RIGHT:
            self.right += 1
            return False
        if found == _UNFILLED or not had_right or payload_length > _LONGEST:
            return False
        self.wrong += 1
        return self.wrong * 4 <= self.right + 4
