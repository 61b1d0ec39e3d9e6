"""The ports of one mapped address towards one target, for addresses that carry many sessions.

65,536 bits as 256 blocks of 256 bits, each a Python integer: taking, freeing and finding a port
cost a few operations on integers of 32 bytes, however many ports are taken.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from tcpcopy.mapping.shares import port_hash

_BLOCK_BITS: Final = 8
_BLOCK_SIZE: Final = 1 << _BLOCK_BITS
_BLOCK_MASK: Final = _BLOCK_SIZE - 1
_ALL: Final = (1 << _BLOCK_SIZE) - 1
_PORT_MASK: Final = 0xFFFF
_EXPIRED_A_CALL: Final = 256  # bounds the work of one call after a pause


class PortRange:
    """Which ports may be handed out by search; shared by `PortSpace`s of an allocator.

    All from `first` to `last`, or of these the ones whose `port_hash` leaves the rest `residue`
    when divided by `workers`.
    """

    __slots__ = ("first", "last", "masks", "open_blocks")

    first: int
    last: int
    masks: tuple[int, ...]  # for each block the bits that may be handed out
    open_blocks: int  # a bit for each block that has such bits

    def __init__(
        self, first: int = 1024, last: int = _PORT_MASK, residue: int = 0, workers: int = 1
    ) -> None:
        if not 1 <= first <= last <= _PORT_MASK:
            raise ValueError("ports are 1 to 65535")
        self.first = first
        self.last = last
        every = (1 << last + 1) - (1 << first)
        if workers > 1:
            bits = bytearray(_PORT_MASK + 1 >> 3)
            for port in range(first, last + 1):
                if port_hash(port) % workers == residue:
                    bits[port >> 3] |= 1 << (port & 7)
            every = int.from_bytes(bits, "little")
        self.masks = tuple(every >> (block << _BLOCK_BITS) & _ALL for block in range(_BLOCK_SIZE))
        self.open_blocks = sum(1 << block for block, mask in enumerate(self.masks) if mask)

    def __contains__(self, port: int) -> bool:
        return bool(self.masks[port >> _BLOCK_BITS] >> (port & _BLOCK_MASK) & 1)

    @property
    def size(self) -> int:
        """How many ports there are from the first to the last."""
        return self.last - self.first + 1


class PortSpace:
    """Live and cooling ports. A port is free, live, or cooling (released a short time ago)."""

    __slots__ = ("_blocked", "_cooling", "_live", "_open_blocks", "_range")

    _range: PortRange
    _live: dict[int, int]  # block -> bits of live ports; no entry when none
    _blocked: dict[int, int]  # block -> bits of live and cooling ports; no entry when none
    _open_blocks: int  # a bit for each block in which find() has a free port
    _cooling: deque[int]  # until_ns << 16 | port, in order of release

    def __init__(self, port_range: PortRange) -> None:
        self._range = port_range
        self._live = {}
        self._blocked = {}
        self._open_blocks = port_range.open_blocks
        self._cooling = deque()

    def __len__(self) -> int:
        return sum(mask.bit_count() for mask in self._blocked.values())

    @property
    def empty(self) -> bool:
        """Whether no port is live or cooling."""
        return not self._blocked

    def take(self, port: int) -> bool:
        """Make a free port live; False (and no change) when it is live or cooling."""
        block = port >> _BLOCK_BITS
        bit = 1 << (port & _BLOCK_MASK)
        blocked = self._blocked.get(block, 0)
        if blocked & bit:
            return False
        blocked |= bit
        self._blocked[block] = blocked
        self._live[block] = self._live.get(block, 0) | bit
        if not self._range.masks[block] & ~blocked:
            self._open_blocks &= ~(1 << block)
        return True

    def find(self, start: int) -> int:
        """First free port of the range from `start` on, from the front again after the last; 0
        when none is free."""
        opened = self._open_blocks
        if not opened:
            return 0
        block = start >> _BLOCK_BITS
        # In the block of `start` only the ports from `start` on come first.
        free = self._range.masks[block] & ~self._blocked.get(block, 0)
        free = free >> (start & _BLOCK_MASK) << (start & _BLOCK_MASK)
        if not free:
            later = opened >> block + 1 << block + 1
            opened = later or opened
            block = (opened & -opened).bit_length() - 1
            free = self._range.masks[block] & ~self._blocked.get(block, 0)
        return block << _BLOCK_BITS | (free & -free).bit_length() - 1

    def take_oldest(self) -> int:
        """Make the port live again that has been cooling longest; 0 when none is cooling."""
        if not self._cooling:
            return 0
        port = self._cooling.popleft() & _PORT_MASK
        block = port >> _BLOCK_BITS
        self._live[block] = self._live.get(block, 0) | 1 << (port & _BLOCK_MASK)
        return port

    def release(self, port: int, until_ns: int) -> bool:
        """Let a live port cool until a time; False (and no change) when it is not live."""
        block = port >> _BLOCK_BITS
        bit = 1 << (port & _BLOCK_MASK)
        live = self._live.get(block, 0)
        if not live & bit:
            return False
        if live == bit:
            del self._live[block]
        else:
            self._live[block] = live ^ bit
        self.cool(port, until_ns)
        return True

    def cool(self, port: int, until_ns: int) -> None:
        """Block a port that is not live until a time; times come in rising order."""
        block = port >> _BLOCK_BITS
        blocked = self._blocked.get(block, 0) | 1 << (port & _BLOCK_MASK)
        self._blocked[block] = blocked
        if not self._range.masks[block] & ~blocked:
            self._open_blocks &= ~(1 << block)
        self._cooling.append(until_ns << 16 | port)

    def expire(self, now_ns: int) -> None:
        """Free the ports that have cooled down; at most 256 in one call."""
        cooling = self._cooling
        for _ in range(_EXPIRED_A_CALL):
            if not cooling or cooling[0] >> 16 > now_ns:
                return
            port = cooling.popleft() & _PORT_MASK
            block = port >> _BLOCK_BITS
            blocked = self._blocked[block] ^ 1 << (port & _BLOCK_MASK)
            if blocked:
                self._blocked[block] = blocked
            else:
                del self._blocked[block]
            if self._range.masks[block] & ~blocked:
                self._open_blocks |= 1 << block
