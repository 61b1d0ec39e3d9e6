"""Connections that ended lately: what still comes of them is not the begin of another one.

Two generations by the name of a flow; when the younger one is old enough, the older one goes.
"""

from __future__ import annotations

_MOST_UNITS = 0x3FFFFF  # 16 GiB
_MASK = 0xFFFFFFFF  # typed: as literals these would be objects when compiled


class Ended:
    """`FlowKey.name` -> the Drop reason of what follows; 8 bits up the initial number; above that
    how long the stream was, in units of 4 KiB and one more, 0: not known.
    """

    __slots__ = ("names", "names_before", "turned_ns")

    def __init__(self) -> None:
        self.names: dict[object, int] = {}
        self.names_before: dict[object, int] = {}
        self.turned_ns = 0

    def add(self, name: object, reason: int, isn: int, size: int = -1) -> int:
        """The connection has ended, or was left out; `size` are the bytes of its stream."""
        units = 0 if size < 0 else min((size >> 12) + 1, _MOST_UNITS)
        self.names[name] = reason | isn << 8 | units << 40
        return 0

    def size(self, found: int) -> int:
        """How many bytes the stream had at most, by what `find` tells; -1: not known."""
        return (found >> 40 << 12) if found >> 40 else -1

    def find(self, name: object) -> int:
        """Drop reason of the connection's packets and, 8 bits up, its initial number; or 0."""
        found: int = self.names.get(name, 0)
        if found == 0:
            found = self.names_before.get(name, 0)
            if found != 0:
                self.names[name] = found  # still talking: remember it longer
        return found

    def knows(self, name: object, isn: int) -> bool:
        """Whether the connection that began with this number has ended, without renewing it."""
        found: int = self.names.get(name, 0) or self.names_before.get(name, 0)
        return found != 0 and found >> 8 & _MASK == isn

    def forget(self, name: object) -> int:
        """It begins anew."""
        self.names.pop(name, None)
        self.names_before.pop(name, None)
        return 0

    def forget_all(self) -> int:
        """The capture begins anew (a file is read again)."""
        self.names = {}
        self.names_before = {}
        return 0

    def turn(self, now_ns: int, after_ns: int) -> int:
        """Begin a new generation when the last turn was longer ago than that."""
        if now_ns - self.turned_ns > after_ns:
            self.turned_ns = now_ns
            self.names_before = self.names
            self.names = {}
        return 0
