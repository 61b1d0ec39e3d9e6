"""The one shape in which packets are handed on: ring, relay, file and simulation all call it."""

from __future__ import annotations

from typing import Any


class PacketHandler:
    """Receives packets one at a time; the buffer is lent for the call only."""

    __slots__ = ("kind",)  # of the next answer (said.kinds), set by who was told it

    def enter(self, network: int) -> None:
        """The packets that follow are in a virtual network; 0: in none, as they are at first.

        Whoever hands on a packet with a network says so before it, and takes it back behind it.
        """

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Take the packet whose network header stands at `data[start]`.

        `end` bounds the bytes captured, `wire_length` is the length it had on the wire from the
        network header on. `timestamp_ns` is the capture time: CLOCK_REALTIME of captured packets;
        of a file, when the packet is due, on the engine's clock. Returns 0, or the
        number of an `engine.outcome.Drop` reason.
        """
        raise NotImplementedError
