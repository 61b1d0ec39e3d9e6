"""Finding the session of a packet: open addressing over the numbers that stand in its headers.

The key of a flow is not an object: its numbers stand in the session, and a table holds for each
session one reference and 32 bits of hash. That is a sixth of what a dictionary with keys of bytes
takes, and a look-up touches memory at three places rather than five, which is what it costs when
there are many sessions. A table is cut into parts that grow by themselves, so that no packet waits
until all of a million places have been moved.

The hash is seeded (clients choose their ports) and never decides alone: all of a key is compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import cython

from tcpcopy.engine.session import Session
from tcpcopy.packet.segment import Segment, flow_key

_PARTS = 64  # a power of two, at most 2**_PART_BITS
_PART_SHIFT = 26  # the upper bits of a hash say which
_FIRST_SIZE = 8  # places of a part; a power of two
_MASK = 0xFFFFFFFF  # typed: as literals these would be Python objects when compiled
_WIDE_MASK = 0xFFFFFFFFFFFFFFFF
_MULTIPLIER = 0x9E3779B97F4A7C15
_MULTIPLIER_2 = 0xD6E8FEB86659FD93


def number(data: Any, at: int, size: int) -> int:
    """`size` bytes (at most 8) in network order, as an integer."""
    value = 0
    for place in range(at, at + size):
        value = value << 8 | data[place]
    return value


class FlowKey:
    """What tells a flow from all others: addresses and ports, in the direction of its packets."""

    __slots__ = (
        "addresses",  # IPv4: source and destination, 32 bits each; else a hash of `wide`
        "ports",  # source and destination, 16 bits each
        "wide",  # IPv6: addresses and ports as they stand in packets; else None
    )

    def __init__(self) -> None:
        self.addresses = 0
        self.ports = 0
        self.wide: bytes | None = None

    def read(self, segment: Segment, data: Any) -> None:
        """Take the key of the packet that was parsed last."""
        self.ports = number(data, segment.header_offset, 4)
        if segment.address_size == 4:
            self.wide = None
            self.addresses = number(data, segment.address_offset, 8)
        else:
            self.wide = flow_key(segment, data)
            self.addresses = hash(self.wide) & _WIDE_MASK

    def of(self, source: bytes, source_port: int, destination: bytes, port: int) -> None:
        """Take the key of packets from an address and port to another."""
        self.ports = source_port << 16 | port
        self.wide = None
        if len(source) == 4:
            self.addresses = number(source + destination, 0, 8)
        else:
            self.wide = source + destination + number_bytes(self.ports)
            self.addresses = hash(self.wide) & _WIDE_MASK

    def name(self) -> object:
        """The same as one hashable value, for a dictionary."""
        return flow_name(self.addresses, self.ports, self.wide)


def number_bytes(ports: int) -> bytes:
    """The four bytes of two ports."""
    return ports.to_bytes(4, "big")


def flow_name(addresses: int, ports: int, wide: bytes | None) -> object:
    """One hashable value for a flow key: an integer (IPv4) or bytes."""
    if wide is not None:
        return wide
    high: Any = addresses
    return high << 32 | ports


class _Part:
    """One part of a table: linear probing, at most three of four places taken."""

    __slots__ = (
        "hashes",  # for each place the hash of what stands there, 0: nothing
        "items",  # for each place the Session, or None
        "mask",  # places less one
        "used",
    )

    def __init__(self, size: int) -> None:
        self.hashes = array("I", bytes(4 * size))
        self.items: list[Session | None] = [None] * size
        self.mask = size - 1
        self.used = 0

    def put(self, hashed: int, session: Session | None) -> None:
        """Put what is not there yet; there is room."""
        hashes = self.hashes
        place = hashed & self.mask
        while hashes[place] != 0:
            place = (place + 1) & self.mask
        hashes[place] = cython.cast(cython.uint, hashed)
        self.items[place] = session
        self.used += 1

    def grow(self) -> None:
        """Twice the places."""
        items, hashes, count = self.items, self.hashes, self.mask + 1
        size = 2 * count
        self.hashes = array("I", bytes(4 * size))
        self.items = [None] * size
        self.mask = size - 1
        self.used = 0
        for place in range(count):
            if hashes[place] != 0:
                self.put(hashes[place], items[place])

    def drop(self, place: int) -> None:
        """Empty a place; what was pushed past it moves up."""
        hashes, items, mask = self.hashes, self.items, self.mask
        after = place
        while True:
            after = (after + 1) & mask
            if hashes[after] == 0:
                break
            # It may stand anywhere from its home on: not before it, going round.
            if (after - hashes[after]) & mask >= (after - place) & mask:
                hashes[place] = hashes[after]
                items[place] = items[after]
                place = after
        hashes[place] = 0
        items[place] = None
        self.used -= 1


class FlowTable:
    """Sessions by one of their two keys: of the client's packets, or (`of_answers`) the target's."""

    __slots__ = ("_of_answers", "_parts", "_seed")

    def __init__(self, seed: int, of_answers: bool) -> None:
        self._of_answers = of_answers
        self._seed = seed & _WIDE_MASK
        self._parts = [_Part(_FIRST_SIZE) for _ in range(_PARTS)]

    def __len__(self) -> int:
        return sum(part.used for part in self._parts)

    def __iter__(self) -> Iterator[Session]:
        """Every session in it; the table must not change meanwhile."""
        for part in self._parts:
            for session in part.items:
                if session is not None:
                    yield session

    def find(self, key: FlowKey) -> Session | None:
        """The session of a flow, or None."""
        hashed = self._hash(key.addresses, key.ports)
        part: _Part = self._parts[hashed >> _PART_SHIFT]
        hashes = part.hashes
        place = hashed & part.mask
        while hashes[place] != 0:
            if hashes[place] == hashed:
                session: Session = part.items[place]  # type: ignore[assignment]
                if self._has_key(session, key):
                    return session
            place = (place + 1) & part.mask
        return None

    def add(self, session: Session) -> None:
        """Put in a session whose key is not there."""
        hashed = self._hash_of(session)
        part: _Part = self._parts[hashed >> _PART_SHIFT]
        if 4 * (part.used + 1) > 3 * (part.mask + 1):
            part.grow()
        part.put(hashed, session)

    def remove(self, session: Session) -> bool:
        """Take a session out; False when it is not there."""
        hashed = self._hash_of(session)
        part: _Part = self._parts[hashed >> _PART_SHIFT]
        place = self._place(part, hashed, session)
        if place < 0:
            return False
        part.drop(place)
        return True

    def replace(self, session: Session, other: Session) -> None:
        """Let `other`, which has the same key, stand in the place of `session`."""
        hashed = self._hash_of(session)
        part: _Part = self._parts[hashed >> _PART_SHIFT]
        place = self._place(part, hashed, session)
        if place >= 0:
            part.items[place] = other

    def _place(self, part: _Part, hashed: int, session: Session) -> int:
        place = hashed & part.mask
        while part.hashes[place] != 0:
            if part.items[place] is session:
                return place
            place = (place + 1) & part.mask
        return -1

    def _has_key(self, session: Session, key: FlowKey) -> bool:
        if self._of_answers:
            if session.answer_addresses != key.addresses or session.answer_ports != key.ports:
                return False
            return session.answer_wide is key.wide or session.answer_wide == key.wide
        if session.captured_addresses != key.addresses or session.captured_ports != key.ports:
            return False
        return session.captured_wide is key.wide or session.captured_wide == key.wide

    def _hash_of(self, session: Session) -> int:
        if self._of_answers:
            return self._hash(session.answer_addresses, session.answer_ports)
        return self._hash(session.captured_addresses, session.captured_ports)

    def _hash(self, addresses: int, ports: int) -> int:
        """32 bits, never 0; every bit of the key counts for every bit of them."""
        mixed = ((addresses ^ self._seed) * _MULTIPLIER) & _WIDE_MASK
        mixed ^= mixed >> 32
        mixed = ((mixed ^ ports) * _MULTIPLIER_2) & _WIDE_MASK
        mixed ^= mixed >> 32
        mixed = (mixed * _MULTIPLIER) & _WIDE_MASK
        hashed = mixed >> 32
        return hashed if hashed else 1
