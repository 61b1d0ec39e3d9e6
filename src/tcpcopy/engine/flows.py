"""Finding the session of a packet: open addressing over the numbers that stand in its headers.

The key of a flow is not an object: its numbers stand in the session, and a table holds for each
session one reference and 32 bits of hash. That is a fifth of what a dictionary with keys of bytes
takes, and a look-up touches memory at three places rather than five, which is what it costs when
there are many sessions.

The hash is seeded (clients choose their ports) and never decides alone: all of a key is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cython

from tcpcopy.engine.client import TcpClient
from tcpcopy.engine.session import Session
from tcpcopy.mapping.places import PART_SHIFT, PARTS, Places, mix
from tcpcopy.packet.networks import realm_bytes
from tcpcopy.packet.segment import Segment, flow_key

_PART_SHIFT = PART_SHIFT
_WIDE_MASK = 0xFFFFFFFFFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_PORTS_MASK = 0xFFFFFFFF
_WIDE_KEY = 36  # bytes of IPv6 addresses and ports


def number(data: Any, at: int, size: int) -> int:
    """`size` bytes (at most 8) in network order, as an integer."""
    value = 0
    for place in range(at, at + size):
        value = value << 8 | data[place]
    return value


def address_number(address: bytes) -> int:
    """An IPv4 address as an integer."""
    if cython.compiled:
        octets = cython.cast("const unsigned char*", address)
    else:
        octets = address
    high: int = octets[0] << 8 | octets[1]
    low: int = octets[2] << 8 | octets[3]
    return high << 16 | low


class FlowKey:
    """What tells a flow from all others: addresses and ports, in the direction of its packets."""

    __slots__ = (
        "addresses",  # IPv4: source and destination, 32 bits each; else a hash of `wide`
        "ports",  # source and destination, 16 bits each
        "wide",  # IPv6: addresses and ports as they stand in packets; else None. See `in_realm`
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

    def in_realm(self, segment: Segment, data: Any, realm: int) -> None:
        """Tell it from others with the same addresses and ports (`packet.networks`).

        `wide` then has two more bytes, and is there with IPv4 as well.
        """
        self.wide = flow_key(segment, data) + realm_bytes(realm)
        if segment.address_size != 4:
            self.addresses = hash(self.wide) & _WIDE_MASK

    def of(self, source: bytes, source_port: int, destination: bytes, port: int) -> None:
        """Take the key of packets from an address and port to another."""
        self.ports = source_port << 16 | port
        self.wide = None
        if len(source) == 4:
            self.addresses = address_number(source) << 32 | address_number(destination)
        else:
            self.wide = source + destination + number_bytes(self.ports)
            self.addresses = hash(self.wide) & _WIDE_MASK

    def named(self, name: object) -> None:
        """Take the key whose `name` that was."""
        if isinstance(name, bytes):
            size = 32 if len(name) >= _WIDE_KEY else 8
            self.wide = name
            self.ports = number(name, size, 4)
            self.addresses = number(name, 0, 8) if size == 8 else hash(name) & _WIDE_MASK
            return
        both: Any = name
        self.wide = None
        self.ports = both & _PORTS_MASK
        self.addresses = both >> 32

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


class _Part(Places):
    """Part of a table."""

    __slots__ = ("before", "items")

    def __init__(self) -> None:
        super().__init__()
        size = cython.cast(cython.Py_ssize_t, self.mask + 1)
        self.items: list[Session | None] = [None] * size  # for each place
        self.before = self.items  # while all moves: what stood at the old places

    def move(self, place: int, to: int) -> None:
        self.items[to] = self.items[place]

    def clear(self, place: int) -> None:
        self.items[place] = None

    def begin_move(self, size: int) -> None:
        self.before = self.items
        self.items = [None] * cython.cast(cython.Py_ssize_t, size)

    def carry(self, place: int, to: int) -> None:
        self.items[to] = self.before[place]

    def end_move(self) -> None:
        self.before = self.items


class FlowTable:
    """Sessions by one of their keys: of the client's packets, or (`of_answers`) of the target's."""

    __slots__ = ("_of_answers", "_parts", "_seed")

    def __init__(self, seed: int, of_answers: bool) -> None:
        self._of_answers = of_answers
        self._seed = seed & _WIDE_MASK
        self._parts = [_Part() for _ in range(PARTS)]

    def __len__(self) -> int:
        return sum(part.used for part in self._parts)

    def __iter__(self) -> Iterator[Session]:
        """Every session in it; of those that come and go meanwhile, some."""
        for part in self._parts:
            for session in list(part.items):
                if session is not None:
                    yield session

    def find(self, key: FlowKey) -> Session | None:
        """The session of a flow, or None."""
        hashed = mix(key.addresses, key.ports, self._seed)
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
        place = part.take(hashed)  # first: it may make new places
        part.items[place] = session

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
            if key.wide is None and session.captured_wide is None:
                return True
            # IPv6 on one side at least, and not always on both: -c may be of the target's family.
            client: TcpClient = session.replayed  # type: ignore[assignment]
            if key.wide is None:
                return len(client.address) == 4
            return key.wide == client.target_address + client.address + number_bytes(key.ports)
        if session.captured_addresses != key.addresses or session.captured_ports != key.ports:
            return False
        return session.captured_wide is key.wide or session.captured_wide == key.wide

    def _hash_of(self, session: Session) -> int:
        if self._of_answers:
            return mix(session.answer_addresses, session.answer_ports, self._seed)
        return mix(session.captured_addresses, session.captured_ports, self._seed)
