"""What a mirror brings in tunnels: stands before the engine and hands on what is within.

The kernel's filter sees the outer packet alone, so that what is inside is judged here, by the rules
of -x. Packets that are in no tunnel have been judged by the kernel and go straight on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tcpcopy.packet import flags
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.segment import Segment, copy_bytes, parse, parse_udp
from tcpcopy.packet.unwrap import Unwrapper, is_plain_tcp

_PARSED = flags.PARSED
_NOT_TCP = flags.NOT_TCP
_FRAGMENT = flags.FRAGMENT


class Unwrapping(PacketHandler):
    """Takes packets of rings for another handler. Not thread-safe."""

    __slots__ = (
        "_matches",
        "_ports",  # 1 for each port that -x copies from
        "_segment",
        "handler",  # takes what is found
        "kept",  # packets that were pieces of one, and did not complete it
        "left_out",  # packets out of tunnels and fragments that -x does not name
        "network",  # of the packet at hand (`PacketHandler.enter`)
        "unwrapper",
    )

    def __init__(
        self, handler: PacketHandler, ports: Iterable[int], matches: Callable[[bytes], bool]
    ) -> None:
        """`ports`: those that are copied from; `matches`: the same rules in full."""
        self.handler = handler
        self._matches = matches
        self._ports = bytearray(1 << 16)
        for port in ports:
            self._ports[port] = 1
        self._segment = Segment()
        self.kept = 0
        self.left_out = 0
        self.network = 0
        self.unwrapper = Unwrapper(True)

    def enter(self, network: int) -> None:
        """As `PacketHandler.enter`."""
        self.network = network

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Hand on what is found; what its handler said, 0 for what is kept or left out."""
        if is_plain_tcp(data, start, end):
            return self._hand_on(data, start, end, wire_length, timestamp_ns, self.network)
        found = self.unwrapper
        found.begin(self.network)
        if not found.take(data, start, end, wire_length, timestamp_ns):
            self.kept += 1
            return 0
        if found.whole is not None:
            data = found.whole
        elif found.start == start:
            return self._hand_on(data, start, end, wire_length, timestamp_ns, self.network)
        if not self._is_wanted(data):
            self.left_out += 1
            return 0
        return self._hand_on(
            data, found.start, found.end, found.wire_length, timestamp_ns, found.frame.network
        )

    def _hand_on(
        self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int, network: int
    ) -> int:
        if network == 0:
            return self.handler.packet(data, start, end, wire_length, timestamp_ns)
        self.handler.enter(network)
        result = self.handler.packet(data, start, end, wire_length, timestamp_ns)
        self.handler.enter(0)
        return result

    def _is_wanted(self, data: Any) -> bool:
        """Whether the packet found is one that a filter made from -x lets through."""
        found = self.unwrapper
        status = parse(self._segment, data, found.start, found.end, found.wire_length)
        if status == _NOT_TCP:
            status = parse_udp(self._segment, data, found.start, found.end, found.wire_length)
        if status == _PARSED and not self._ports[self._segment.destination_port]:
            return False
        if status != _PARSED and status != _FRAGMENT:
            return False
        return bool(self._matches(copy_bytes(data, found.start, found.end - found.start)))
