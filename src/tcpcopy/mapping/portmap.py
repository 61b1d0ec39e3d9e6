"""One port for each of millions of addresses, in some twenty bytes each."""

from __future__ import annotations

from array import array

import cython

from tcpcopy.mapping.places import PART_SHIFT, PARTS, Places, mix

_PART_SHIFT = PART_SHIFT
_PORT_BITS = 16
_PORT_MASK = 0xFFFF


class _Ports(Places):
    """Part of a map: numbers of 48 bits with a port each."""

    __slots__ = ("before", "entries")

    def __init__(self) -> None:
        super().__init__()
        self.entries = array("Q", bytes(8 * (self.mask + 1)))  # number << 16 | port
        self.before = self.entries  # while all moves: what stood at the old places

    def move(self, place: int, to: int) -> None:
        self.entries[to] = self.entries[place]

    def clear(self, place: int) -> None:
        self.entries[place] = 0

    def begin_move(self, size: int) -> None:
        self.before = self.entries
        self.entries = array("Q", bytes(8 * size))

    def carry(self, place: int, to: int) -> None:
        self.entries[to] = self.before[place]

    def end_move(self) -> None:
        self.before = self.entries


class PortMap:
    """A port (1 to 65535) for each of many numbers below 2**48, such as address and target."""

    __slots__ = ("_parts", "_seed")

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._parts = [_Ports() for _ in range(PARTS)]

    def __len__(self) -> int:
        return sum(part.used for part in self._parts)

    def get(self, number: int) -> int:
        """The port of a number; 0 when it has none."""
        hashed = mix(number, 0, self._seed)
        part: _Ports = self._parts[hashed >> _PART_SHIFT]
        place = self._place(part, hashed, number)
        return cython.cast(cython.int, part.entries[place] & _PORT_MASK) if place >= 0 else 0

    def add(self, number: int, port: int) -> None:
        """Give a port to a number that has none."""
        hashed = mix(number, 0, self._seed)
        part: _Ports = self._parts[hashed >> _PART_SHIFT]
        place = part.take(hashed)
        part.entries[place] = number << _PORT_BITS | port

    def remove(self, number: int) -> None:
        """Take the port of a number away, if it has one."""
        hashed = mix(number, 0, self._seed)
        part: _Ports = self._parts[hashed >> _PART_SHIFT]
        place = self._place(part, hashed, number)
        if place >= 0:
            part.drop(place)

    def _place(self, part: _Ports, hashed: int, number: int) -> int:
        place = hashed & part.mask
        while part.hashes[place] != 0:
            if part.entries[place] >> _PORT_BITS == number:
                return place
            place = (place + 1) & part.mask
        return -1
