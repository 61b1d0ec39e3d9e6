"""Putting IP fragments together again, within bounds: IPv4 and IPv6.

Online's own kernel has done the same before its server read the data; what that would not have
put together (overlaps, a missing part) is not put together here. A datagram here is any IP packet
that was cut: of UDP, of TCP, of a tunnel.

Source: RFC 791 (3.2), RFC 815, RFC 8200 (4.5), RFC 5722 (overlapping fragments).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

TIMEOUT_NS = 30_000_000_000  # as on Linux (ipfrag_time)
MAX_BYTES = 4 << 20  # held, as on Linux (ipfrag_high_thresh)
MAX_DATAGRAMS = 4096  # held
MAX_PIECES = 256  # of a datagram: nobody cuts 64 KiB smaller, and each is compared with all others
_PIECE_COST = 128  # memory of a piece besides its bytes
_LONGEST = 65535
_FRAGMENT = 44
_OPTIONS = (0, 43, 60)  # hop-by-hop, routing and destination options share one shape
_HEADER_LIMIT = 8


class _Parts:
    """The fragments of one datagram so far."""

    __slots__ = ("count", "header", "held_bytes", "is_ours", "pieces", "since_ns", "total")

    def __init__(self, since_ns: int) -> None:
        self.pieces: dict[int, bytes] = {}  # by offset
        self.header = b""  # IP header of the first fragment
        self.total = -1  # bytes of all pieces, -1: the last one has not come
        self.held_bytes = 0
        self.count = 0  # fragments taken, doubled ones included
        self.is_ours = True  # nothing is wrong with it yet
        self.since_ns = since_ns


class Reassembler:
    """Fragments waiting for the rest of their datagrams. Not thread-safe."""

    __slots__ = ("_held", "_protocols", "alone", "held_bytes", "incomplete", "joined")

    def __init__(self, protocols: Collection[int]) -> None:
        """`protocols`: IP protocols whose fragments are kept; those of others count as alone."""
        self._protocols = protocols
        self._held: dict[tuple[bytes, int], _Parts] = {}  # oldest first
        self.held_bytes = 0  # of memory
        # Fragments given up since the caller looked last, which it does after each `add`:
        self.incomplete = 0  # of datagrams whose first fragment had come
        self.alone = 0  # of others
        self.joined = 0  # fragments of the datagram that `add` returned

    def __len__(self) -> int:
        return len(self._held)

    def holds(self, data: Any, start: int, end: int, network: int = 0) -> bool:
        """Whether a fragment of the same datagram is held."""
        found = _read(data, start, end, self._protocols)
        return found is not None and (found[0], network) in self._held

    def add(self, data: Any, start: int, end: int, now_ns: int, network: int = 0) -> bytes | None:
        """Take a fragment: the whole packet when it was the last one missing, else None.

        The packet has the header of the first fragment, without a mark of fragments. A damaged
        fragment gives its datagram up. `network`: the virtual network that it was in.
        """
        self.expire(now_ns)
        found = _read(data, start, end, self._protocols)
        if found is None:
            self.alone += 1
            return None
        key, header, offset, more, payload = (found[0], network), *found[1:]
        parts = self._held.get(key)
        if parts is None:
            self._make_room()
            parts = self._held[key] = _Parts(now_ns)
        parts.count += 1
        if not self._put(parts, header, offset, more, payload):
            parts.is_ours = False
        if parts.total >= 0 and parts.held_bytes > parts.total:
            parts.is_ours = False
        if not parts.is_ours:
            self._give_up(key, parts)
            return None
        if parts.total != parts.held_bytes or not parts.header:
            return None
        self._drop(key, parts)
        whole = b"".join(parts.pieces[at] for at in sorted(parts.pieces))
        self.joined = parts.count
        return _packet(parts.header, whole)

    def _put(self, parts: _Parts, header: bytes, offset: int, more: bool, payload: bytes) -> bool:
        """Add a piece; False when the datagram cannot be what was sent."""
        end = offset + len(payload)
        if not payload or end > _LONGEST or (more and len(payload) % 8):
            return False
        if parts.pieces.get(offset) == payload:
            return True  # doubled on the way
        if len(parts.pieces) >= MAX_PIECES:
            return False
        for at, piece in parts.pieces.items():
            if at < end and offset < at + len(piece):
                return False  # RFC 5722: all of it is to be thrown away
        if not more:
            if parts.total >= 0:
                return False
            parts.total = end
        if parts.total >= 0 and end > parts.total:
            return False
        if offset == 0:
            parts.header = header
        parts.pieces[offset] = payload
        parts.held_bytes += len(payload)
        self.held_bytes += len(payload) + _PIECE_COST
        return True

    def expire(self, now_ns: int) -> None:
        """Give up what has waited too long."""
        while self._held:
            key, parts = next(iter(self._held.items()))
            if now_ns - parts.since_ns < TIMEOUT_NS:
                return
            self._give_up(key, parts)

    def give_up_all(self) -> None:
        """Nothing more will come."""
        for key, parts in list(self._held.items()):
            self._give_up(key, parts)

    def _make_room(self) -> None:
        while self._held and (self.held_bytes > MAX_BYTES or len(self._held) >= MAX_DATAGRAMS):
            self._give_up(*next(iter(self._held.items())))

    def _drop(self, key: tuple[bytes, int], parts: _Parts) -> None:
        del self._held[key]
        self.held_bytes -= parts.held_bytes + _PIECE_COST * len(parts.pieces)

    def _give_up(self, key: tuple[bytes, int], parts: _Parts) -> None:
        self._drop(key, parts)
        if parts.header:
            self.incomplete += parts.count
        else:
            self.alone += parts.count


def _read(
    data: Any, start: int, end: int, protocols: Collection[int]
) -> tuple[bytes, bytes, int, bool, bytes] | None:
    """Key, header, offset, more to follow, payload of a fragment; None when it is none."""
    packet = bytes(data[start:end])
    if packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        total = int.from_bytes(packet[2:4], "big")
        if packet[9] not in protocols or not 20 <= size <= total <= len(packet):
            return None
        field = int.from_bytes(packet[6:8], "big")
        key = packet[12:20] + packet[4:6] + packet[9:10]
        return key, packet[:size], (field & 0x1FFF) * 8, bool(field & 0x2000), packet[size:total]
    total = 40 + int.from_bytes(packet[4:6], "big")
    following, at, named = packet[6], 40, 6
    for _ in range(_HEADER_LIMIT):
        if at + 8 > len(packet) or total > len(packet):
            return None
        if following == _FRAGMENT:
            field = int.from_bytes(packet[at + 2 : at + 4], "big")
            if packet[at] not in protocols:
                return None  # options within the fragmented part: nobody sends that
            header = bytearray(packet[:at])
            header[named] = packet[at]
            key = packet[8:40] + packet[at + 4 : at + 8]
            payload = packet[at + 8 : total]
            return key, bytes(header), field & 0xFFF8, bool(field & 1), payload
        if following not in _OPTIONS:
            return None
        following, named, at = packet[at], at, at + 8 + packet[at + 1] * 8
    return None


def _packet(header: bytes, payload: bytes) -> bytes:
    """The packet as it was before it was cut."""
    whole = bytearray(header)
    if header[0] >> 4 == 4:
        # Checksums of headers are not looked at; a length beyond 64 KiB is told from the packet.
        length = len(header) + len(payload)
        whole[2:4] = (length if length <= _LONGEST else 0).to_bytes(2, "big")
        whole[6:8] = b"\0\0"
    else:
        length = len(header) - 40 + len(payload)
        whole[4:6] = (length if length <= _LONGEST else 0).to_bytes(2, "big")
    return bytes(whole) + payload
