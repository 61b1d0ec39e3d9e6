"""An overflow for captured packets, so that a busy moment does not fill the kernel's ring.

When a drain brings more than the engine should take in one turn, the rest is copied here, which
is much cheaper than working on it, and taken from here in the next turns.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.segment import copy_bytes

_COST = 184  # resident memory of an entry besides the packet's bytes, measured


class Backlog(PacketHandler):
    """Packets in the order in which they were captured. Takes them as a handler."""

    __slots__ = ("held_bytes", "most_bytes", "network", "packets")

    def __init__(self) -> None:
        self.packets: deque[tuple[bytes, int, int, int]] = deque()
        self.held_bytes = 0  # memory that `packets` takes; 0 when it is empty
        self.network = 0  # of the packets that come
        self.most_bytes = 0  # at the largest, since its owner set it to 0

    def __len__(self) -> int:
        return len(self.packets)

    def enter(self, network: int) -> None:
        """As `PacketHandler.enter`."""
        self.network = network

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Keep a copy of the packet."""
        packet = copy_bytes(data, start, end - start)
        self.packets.append((packet, wire_length, timestamp_ns, self.network))
        self.held_bytes += end - start + _COST
        return 0

    def hand_on(self, handler: PacketHandler, limit: int) -> int:
        """Give the oldest packets, at most `limit`, to `handler`; how many."""
        if self.held_bytes > self.most_bytes:
            self.most_bytes = self.held_bytes
        count = 0
        while count < limit and self.packets:
            data, wire_length, timestamp_ns, network = self.packets.popleft()
            self.held_bytes -= len(data) + _COST
            if network:
                handler.enter(network)
            handler.packet(data, 0, len(data), wire_length, timestamp_ns)
            if network:
                handler.enter(0)
            count += 1
        return count
