"""One connection or datagram seen twice: on both sides of address translation, or on two devices.

A router that translates the destination leaves the client's address, port and sequence numbers,
and lowers the time to live by one; the identification of IPv4 stays, too. So two first segments
with the same client and numbers, but for different servers, are one connection, of which the one
that came first counts.
"""

from __future__ import annotations

from typing import Any

from tcpcopy.packet.segment import Segment, copy_bytes

# First segments remembered, in each of two generations: one passes a host within milliseconds.
MOST_REMEMBERED = 2048
# Datagrams, likewise.
MOST_DATAGRAMS = 4096
# How long one may take through a host.
WINDOW_NS = 20_000_000

_MOST = MOST_REMEMBERED
_MOST_DATAGRAMS = MOST_DATAGRAMS
_WINDOW = WINDOW_NS


class Twins:
    """The first segments of connections seen lately. Keeps nothing of what they carry."""

    __slots__ = ("old", "young")

    def __init__(self) -> None:
        self.young: dict[bytes, bytes] = {}
        self.old: dict[bytes, bytes] = {}

    def forget_all(self) -> int:
        """A file is read again."""
        self.young = {}
        self.old = {}
        return 0

    def is_seen(self, segment: Segment, data: Any) -> bool:
        """Whether the segment, which begins a connection, was seen before translation already."""
        size = segment.address_size
        at = segment.header_offset
        # Source address, source port, sequence and acknowledgement number.
        key = copy_bytes(data, segment.address_offset, size) + copy_bytes(data, at, 2)
        key += copy_bytes(data, at + 4, 8)
        # Destination, its port, and what tells a forwarded packet from another one.
        seen = copy_bytes(data, segment.address_offset + size, size) + copy_bytes(data, at + 2, 2)
        seen += hops_and_number(segment, data)
        before = self.young.get(key)
        if before is None:
            before = self.old.get(key)
        if before is None:
            if len(self.young) >= _MOST:
                self.old = self.young
                self.young = {}
            self.young[key] = seen
            return False
        if before[: size + 2] == seen[: size + 2]:
            return False  # the same segment again, to the same server
        return is_forwarded(before[size + 2 :], seen[size + 2 :])


def hops_and_number(segment: Segment, data: Any) -> bytes:
    """Time to live (one byte) and identification (two; 0 with IPv6) of the packet parsed last."""
    if segment.address_size == 4:
        start = segment.address_offset - 12
        return copy_bytes(data, start + 8, 1) + copy_bytes(data, start + 4, 2)
    return copy_bytes(data, segment.address_offset - 1, 1) + b"\0\0"


def is_forwarded(before: bytes, after: bytes) -> bool:
    """Whether two `hops_and_number` are of one packet that a host has passed on."""
    return before[1:] == after[1:] and before[0] != after[0]


class DatagramTwins:
    """Datagrams seen within the last 20 to 40 ms, by the identification of IPv4.

    Without one (IPv6, or 0, which senders may give to what is not to be fragmented) a datagram
    sent twice looks like one seen twice, so those are never dropped.
    """

    __slots__ = ("old", "turned_ns", "young")

    def __init__(self) -> None:
        self.young: set[int] = set()
        self.old: set[int] = set()
        self.turned_ns = 0

    def forget_all(self) -> int:
        """A file is read again."""
        self.young = set()
        self.old = set()
        return 0

    def is_seen(self, segment: Segment, data: Any, timestamp_ns: int) -> bool:
        """Whether the datagram was seen on another device, or before translation, already.

        The source must be the same, so what hides its clients (masquerading) is not found out.
        """
        if segment.address_size != 4:
            return False
        at = segment.address_offset - 8
        if data[at] == 0 and data[at + 1] == 0:
            return False
        length = segment.available
        key = hash((
            copy_bytes(data, segment.address_offset, 4),
            copy_bytes(data, segment.header_offset, 2),
            copy_bytes(data, at, 2),
            copy_bytes(data, segment.payload_offset, length) if length > 0 else b"",
        ))  # fmt: skip
        since_ns = timestamp_ns - self.turned_ns
        if since_ns > _WINDOW or since_ns < -_WINDOW or len(self.young) >= _MOST_DATAGRAMS:
            self.old = self.young if -_WINDOW <= since_ns <= 2 * _WINDOW else set()
            self.young = set()
            self.turned_ns = timestamp_ns
        if key in self.young or key in self.old:
            return True
        self.young.add(key)
        return False
