"""Open addressing, for tables of millions: places by 32 bits of hash, what stands there elsewhere.

Linear probing, at most three of four places taken, nothing left behind by what is taken out. What
belongs to a place (a session, a number) is kept by subclasses, which are told when it moves. A
table is cut into many of these, which grow by themselves: nobody waits until a million have moved.
"""

from __future__ import annotations

from array import array

import cython

PARTS = 64  # of a table; a power of two
PART_SHIFT = 26  # the upper bits of a hash say which
_FIRST_SIZE = 8  # places; a power of two
_WIDE_MASK = 0xFFFFFFFFFFFFFFFF  # typed: as literals these would be objects when compiled
_MULTIPLIER = 0x9E3779B97F4A7C15
_MULTIPLIER_2 = 0xD6E8FEB86659FD93


def mix(wide: int, narrow: int, seed: int) -> int:
    """32 bits, never 0, of which each depends on every bit of the arguments (64, 32, 64 bits)."""
    mixed = ((wide ^ seed) * _MULTIPLIER) & _WIDE_MASK
    mixed ^= mixed >> 32
    mixed = ((mixed ^ narrow) * _MULTIPLIER_2) & _WIDE_MASK
    mixed ^= mixed >> 32
    mixed = (mixed * _MULTIPLIER) & _WIDE_MASK
    hashed = mixed >> 32
    return hashed if hashed else 1


class Places:
    """Which places are taken, and by which hash."""

    __slots__ = (
        "hashes",  # for each place the hash of what stands there, 0: nothing
        "mask",  # places less one
        "used",
    )

    def __init__(self) -> None:
        self.hashes = array("I", bytes(4 * _FIRST_SIZE))
        self.mask = _FIRST_SIZE - 1
        self.used = 0

    def take(self, hashed: int) -> int:
        """A free place for something with this hash, which is taken then."""
        if 4 * (self.used + 1) > 3 * (self.mask + 1):
            self._grow()
        self.used += 1
        return self._enter(hashed)

    def drop(self, place: int) -> None:
        """Free a place; what was pushed past it moves up."""
        hashes, mask = self.hashes, self.mask
        after = place
        while True:
            after = (after + 1) & mask
            if hashes[after] == 0:
                break
            # It may stand anywhere from its home on: not before it, going round.
            if (after - hashes[after]) & mask >= (after - place) & mask:
                hashes[place] = hashes[after]
                self.move(after, place)
                place = after
        hashes[place] = 0
        self.clear(place)
        self.used -= 1

    def _enter(self, hashed: int) -> int:
        hashes = self.hashes
        place = hashed & self.mask
        while hashes[place] != 0:
            place = (place + 1) & self.mask
        hashes[place] = cython.cast(cython.uint, hashed)
        return place

    def _grow(self) -> None:
        hashes, count = self.hashes, self.mask + 1
        self.hashes = array("I", bytes(8 * count))
        self.mask = 2 * count - 1
        self.begin_move(2 * count)
        for place in range(count):
            if hashes[place] != 0:
                self.carry(place, self._enter(hashes[place]))
        self.end_move()

    def move(self, place: int, to: int) -> None:
        """What stands at `place` stands at `to` from now on."""
        raise NotImplementedError

    def clear(self, place: int) -> None:
        """Nothing stands at `place` any more."""
        raise NotImplementedError

    def begin_move(self, size: int) -> None:
        """All goes to new places, of which there are `size`."""
        raise NotImplementedError

    def carry(self, place: int, to: int) -> None:
        """What stood at the old `place` stands at the new place `to`."""
        raise NotImplementedError

    def end_move(self) -> None:
        """The old places are not wanted any more."""
        raise NotImplementedError
