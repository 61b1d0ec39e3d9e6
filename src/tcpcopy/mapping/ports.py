"""The ports of one mapped address towards one target, for addresses that carry several sessions.

A port is free, live, or cooling (released a short time ago). `FewPorts` lists them, ten bytes each;
`ManyPorts` has bitmaps of all 65,536, so that what it does costs the same however many are taken.
"""

from __future__ import annotations

from array import array

import cython

from tcpcopy.mapping.shares import port_hash

_PORTS = 1 << 16
_PORT_MASK = _PORTS - 1
_WORD_SHIFT = 6
_WORD_BITS = 1 << _WORD_SHIFT
_WORD_MASK = _WORD_BITS - 1
_WORDS = _PORTS >> _WORD_SHIFT
_EMPTY = bytes(_PORTS >> 3)
_ONE = 1  # typed: shifted as a literal it would be an int of C
_ALL = 0xFFFFFFFFFFFFFFFF
_ENTRY = 10  # bytes of FewPorts: the port, and when it has cooled down (0: live)
_MOST_FEW = 32  # ports that FewPorts are kept for
_EXPIRED_A_CALL = 256  # bounds the work of one call after a pause
_FIRST_RING = 64  # a power of two


class PortRange:
    """Which ports may be handed out by search; shared by the ports of all addresses.

    All from `first` to `last`, or of these the ones whose `port_hash` leaves the rest `residue`
    when divided by `workers`.
    """

    __slots__ = ("first", "last", "masks", "size")

    def __init__(
        self, first: int = 1024, last: int = _PORT_MASK, residue: int = 0, workers: int = 1
    ) -> None:
        if not 1 <= first <= last <= _PORT_MASK:
            raise ValueError("ports are 1 to 65535")
        self.first = first
        self.last = last
        self.size = last - first + 1  # from the first to the last
        self.masks = array("Q", _EMPTY)  # a bit for each port that may be handed out
        for port in range(first, last + 1):
            if workers == 1 or port_hash(port) % workers == residue:
                self.masks[port >> _WORD_SHIFT] |= _ONE << (port & _WORD_MASK)

    def __contains__(self, port: int) -> bool:
        return self.has(port) != 0

    def has(self, port: int) -> int:
        """Whether a port may be handed out (1 or 0)."""
        return self.masks[port >> _WORD_SHIFT] >> (port & _WORD_MASK) & 1


class Ports:
    """What both kinds have in common. Ports are 1 to 65535, times come in rising order."""

    __slots__ = ()

    @property
    def empty(self) -> bool:
        """Whether no port is live or cooling."""
        return len(self) == 0

    def __len__(self) -> int:
        return self.used()

    def used(self) -> int:
        """How many ports are live or cooling."""
        raise NotImplementedError

    def take(self, port: int) -> int:
        """Make a free port live, 1; 0 (and no change) when it is live or cooling."""
        raise NotImplementedError

    def find(self, start: int) -> int:
        """First free port of the range from `start` on, from the front again after the last; 0
        when none is free."""
        raise NotImplementedError

    def take_oldest(self) -> int:
        """Make the port live again that has been cooling longest; 0 when none is cooling."""
        raise NotImplementedError

    def release(self, port: int, until_ns: int) -> int:
        """Let a live port cool until a time, 1; 0 (and no change) when it is not live.

        Until 0: it is free at once.
        """
        raise NotImplementedError

    def expire(self, now_ns: int) -> int:
        """Free the ports that have cooled down; at most 256 in one call."""
        raise NotImplementedError


class FewPorts(Ports):
    """Some thirty ports in a list, the cooling ones in order of release."""

    __slots__ = ("_entries", "_range")

    def __init__(self, port_range: PortRange) -> None:
        self._range = port_range
        self._entries = bytearray()

    def used(self) -> int:
        return len(self._entries) // _ENTRY

    def is_full(self) -> int:
        """Whether the next port needs `ManyPorts` (1 or 0)."""
        return len(self._entries) >= _MOST_FEW * _ENTRY

    def only_live(self) -> int:
        """The port, if there is one alone and it is live, else 0."""
        if len(self._entries) != _ENTRY or self._until(0) != 0:
            return 0
        return self._port(0)

    def take(self, port: int) -> int:
        if self._place(port) >= 0:
            return 0
        self._append(port, 0)
        return 1

    def find(self, start: int) -> int:
        ports = self._range
        port = start
        for _ in range(ports.size):
            if self._place(port) < 0 and ports.has(port):
                return port
            port = cython.cast(cython.int, port + 1) if port < ports.last else ports.first
        return 0

    def take_oldest(self) -> int:
        for at in range(0, len(self._entries), _ENTRY):
            if self._until(at) != 0:
                port = self._port(at)
                self._put(at, port, 0)
                return port
        return 0

    def release(self, port: int, until_ns: int) -> int:
        at = self._place(port)
        if at < 0 or self._until(at) != 0:
            return 0
        del self._entries[at : at + _ENTRY]
        if until_ns:
            self._append(port, until_ns)
        return 1

    def expire(self, now_ns: int) -> int:
        at = 0
        while at < len(self._entries):
            until_ns = self._until(at)
            if until_ns > now_ns:
                return 0  # they are in order
            if until_ns:
                del self._entries[at : at + _ENTRY]
            else:
                at += _ENTRY
        return 0

    def grown(self) -> ManyPorts:
        """The same ports, with room for more."""
        many = ManyPorts(self._range)
        for at in range(0, len(self._entries), _ENTRY):
            port = self._port(at)
            until_ns = self._until(at)
            many.take(port)
            if until_ns:
                many.release(port, until_ns)
        return many

    def _place(self, port: int) -> int:
        """Where a port stands, -1 when it does not."""
        entries = self._entries
        high = cython.cast(cython.int, port >> 8)
        low = cython.cast(cython.int, port & 0xFF)
        for at in range(0, len(entries), _ENTRY):
            if entries[at + 1] == low and entries[at] == high:
                return at
        return -1

    def _append(self, port: int, until_ns: int) -> None:
        at = len(self._entries)
        self._entries.extend(_EMPTY[:_ENTRY])
        self._put(at, port, until_ns)

    def _put(self, at: int, port: int, until_ns: int) -> None:
        entries = self._entries
        entries[at] = cython.cast(cython.uchar, port >> 8)
        entries[at + 1] = cython.cast(cython.uchar, port & 0xFF)
        for place in range(8):
            entries[at + 2 + place] = cython.cast(cython.uchar, until_ns >> 8 * place & 0xFF)

    def _port(self, at: int) -> int:
        entries = self._entries
        return entries[at] << 8 | entries[at + 1]

    def _until(self, at: int) -> int:
        entries = self._entries
        until_ns = 0
        for place in range(8):
            until_ns = until_ns << 8 | entries[at + 9 - place]
        return until_ns


class ManyPorts(Ports):
    """Bitmaps of live and of blocked (live or cooling) ports, and a ring of the cooling ones."""

    __slots__ = ("_blocked", "_cooling", "_first", "_live", "_number", "_range", "_until", "_used")

    def __init__(self, port_range: PortRange) -> None:
        self._range = port_range
        self._live = array("Q", _EMPTY)
        self._blocked = array("Q", _EMPTY)
        self._used = 0
        self._cooling = array("H", bytes(2 * _FIRST_RING))  # ports in order of release
        self._until = array("q", bytes(8 * _FIRST_RING))  # when each has cooled down
        self._first = 0  # place of the oldest in the ring
        self._number = 0  # of cooling ports

    def used(self) -> int:
        return self._used

    def take(self, port: int) -> int:
        word = port >> _WORD_SHIFT
        bit = _ONE << (port & _WORD_MASK)
        if self._blocked[word] & bit:
            return 0
        self._blocked[word] |= bit
        self._live[word] |= bit
        self._used += 1
        return 1

    def find(self, start: int) -> int:
        masks = self._range.masks
        word = start >> _WORD_SHIFT
        # In the word of `start` the ports from `start` on come first, those before it last.
        wanted = (_ALL << (start & _WORD_MASK)) & _ALL
        for _ in range(_WORDS + 1):
            free = masks[word] & (_ALL ^ self._blocked[word]) & wanted
            if free:
                port = word << _WORD_SHIFT
                while free & 1 == 0:
                    free >>= 1
                    port += 1
                return port
            wanted = _ALL
            word = cython.cast(cython.int, word + 1) if word + 1 < _WORDS else 0
        return 0

    def take_oldest(self) -> int:
        if self._number == 0:
            return 0
        port = self._pop()
        self._live[port >> _WORD_SHIFT] |= _ONE << (port & _WORD_MASK)
        return port

    def release(self, port: int, until_ns: int) -> int:
        word = port >> _WORD_SHIFT
        bit = _ONE << (port & _WORD_MASK)
        if self._live[word] & bit == 0:
            return 0
        self._live[word] ^= bit
        if until_ns == 0:
            self._blocked[word] ^= bit
            self._used -= 1
            return 1
        if self._number == len(self._until):
            self._double_ring()
        place = (self._first + self._number) & (len(self._until) - 1)
        self._cooling[place] = cython.cast(cython.ushort, port)
        self._until[place] = until_ns
        self._number += 1
        return 1

    def expire(self, now_ns: int) -> int:
        for _ in range(_EXPIRED_A_CALL):
            if self._number == 0 or self._until[self._first] > now_ns:
                return 0
            port = self._pop()
            self._blocked[port >> _WORD_SHIFT] ^= _ONE << (port & _WORD_MASK)
            self._used -= 1
        return 0

    def _pop(self) -> int:
        port = self._cooling[self._first]
        self._first = (self._first + 1) & (len(self._until) - 1)
        self._number -= 1
        return port

    def _double_ring(self) -> None:
        size = len(self._until)
        cooling, until = array("H", bytes(4 * size)), array("q", bytes(16 * size))
        for number in range(size):
            place = (self._first + number) & (size - 1)
            cooling[number], until[number] = self._cooling[place], self._until[place]
        self._cooling, self._until = cooling, until
        self._first = 0
