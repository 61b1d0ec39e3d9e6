"""What of a file is replayed: the packets that a live capture would have let through.

One packet is held at a time, so that its time is known before it is handed on, and what is not
wanted (answers, other traffic) costs no time of the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.segment import Segment, copy_bytes, parse
from tcpcopy.report.outcome import Drop

_PARSED = 0
_NOT_IP = int(Drop.NOT_IP)
_NOT_TCP = int(Drop.NOT_TCP)
_FRAGMENT = int(Drop.FRAGMENT)


class Feed(PacketHandler):
    """Takes packets of a file and holds the next one to be replayed."""

    __slots__ = (
        "_accepts",  # -F: called with (packet, wire length), or None
        "_length",
        "_network",  # of the packets that come
        "_packet",
        "_ports",  # 1 for each port that -x copies from
        "_segment",
        "_held_network",  # of the packet held
        "_wire_length",
        "is_full",  # a packet is held
        "left_out",  # packets that are not of the transfers
        "taken",  # packets handed on
        "timestamp_ns",  # capture time of the packet held
    )

    def __init__(
        self, ports: Iterable[int], accepts: Callable[[bytes, int], bool] | None = None
    ) -> None:
        """`ports`: those that connections are copied from; `accepts` stands for them when given."""
        self._accepts = accepts
        self._length = 0
        self._network = 0
        self._held_network = 0
        self._packet = b""
        self._ports = bytearray(1 << 16)
        for port in ports:
            self._ports[port] = 1
        self._segment = Segment()
        self._wire_length = 0
        self.is_full = False
        self.left_out = 0
        self.taken = 0
        self.timestamp_ns = 0

    def enter(self, network: int) -> None:
        """As `PacketHandler.enter`."""
        self._network = network

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Hold the packet if it is wanted. There must not be one."""
        if self._accepts is None and not self._is_wanted(data, start, end, wire_length):
            self.left_out += 1
            return 0
        packet = copy_bytes(data, start, end - start)
        if self._accepts is not None and not self._accepts(packet, wire_length):
            self.left_out += 1
            return 0
        self._packet = packet
        self._length = end - start
        self._held_network = self._network
        self._wire_length = wire_length
        self.timestamp_ns = timestamp_ns
        self.is_full = True
        return 0

    def _is_wanted(self, data: Any, start: int, end: int, wire_length: int) -> bool:
        reason = parse(self._segment, data, start, end, wire_length)
        if reason == _PARSED:
            return bool(self._ports[self._segment.destination_port])
        # What cannot be read is shown, with its reason. Fragments of TCP come here put together.
        return reason != _NOT_IP and reason != _NOT_TCP and reason != _FRAGMENT

    def held(self) -> bytes:
        """The packet held."""
        return self._packet

    def held_wire_length(self) -> int:
        """Its length on the wire."""
        return self._wire_length

    def hand_on(self, handler: PacketHandler, timestamp_ns: int) -> int:
        """Give the packet held to `handler` with this time; what it returned."""
        packet = self._packet
        self.is_full = False
        self._packet = b""
        self.taken += 1
        network = self._held_network
        if network == 0:
            return handler.packet(packet, 0, self._length, self._wire_length, timestamp_ns)
        handler.enter(network)
        result = handler.packet(packet, 0, self._length, self._wire_length, timestamp_ns)
        handler.enter(0)
        return result
