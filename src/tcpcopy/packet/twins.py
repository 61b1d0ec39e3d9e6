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
_ADDRESS = 0xFFFFFFFF  # typed: as literals these would be objects when compiled
_KEY = 0x3FFFFFFFFFFFFFFF
_SPREAD = 0x9E3779B1


def _number(data: Any, at: int, size: int) -> int:
    """`size` bytes (at most 7) in network order."""
    value = 0
    for place in range(at, at + size):
        value = value << 8 | data[place]
    return value


class Twins:
    """The first segments of connections seen lately. Keeps nothing of what they carry."""

    __slots__ = ("old", "young")

    def __init__(self) -> None:
        # Client, its port and both numbers, hashed; to where the packet went, and its header.
        self.young: dict[int, int] = {}
        self.old: dict[int, int] = {}

    def forget_all(self) -> int:
        """A file is read again."""
        self.young = {}
        self.old = {}
        return 0

    def is_seen(self, segment: Segment, data: Any) -> bool:
        """Whether the segment, which begins a connection, was seen before translation already.

        What makes it sure is that the time to live is another one, and the identification not.
        """
        source = segment.address_offset
        if segment.address_size == 4:
            client = _number(data, source, 4)
            server = _number(data, source + 4, 4)
            hops = data[source - 12 + 8]
            mark = _number(data, source - 12 + 4, 2)
        else:
            client = hash(copy_bytes(data, source, 16)) & _ADDRESS
            server = hash(copy_bytes(data, source + 16, 16)) & _ADDRESS
            hops = data[source - 1]
            mark = 0
        # Odd factors spread what differs over all bits.
        key = (client << 16 | segment.source_port) * _SPREAD & _KEY
        key = key ^ segment.seq ^ (segment.ack * _SPREAD & _KEY)
        server = (server ^ segment.destination_port) & _ADDRESS
        seen = server << 24 | mark << 8 | hops
        found: Any = self.young.get(key)
        if found is None:
            found = self.old.get(key)
        if found is None:
            if len(self.young) >= _MOST:
                self.old = self.young
                self.young = {}
            self.young[key] = seen
            return False
        before: int = found
        if before >> 24 == server:
            return False  # the same segment again, to the same server
        return before >> 8 & 0xFFFF == mark and before & 0xFF != hops


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
