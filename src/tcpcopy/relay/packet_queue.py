"""Packets on their way into a tunnel: frames of PACKETS waiting for credit, in bounded memory.

A frame is closed when it is taken, or when the next packet would make it long. Frames are taken
whole, so that what else tcpcopy says fits between them; intercept grants credit for the stream of
these frames, headers included, from WELCOME on.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from tcpcopy.relay.native import FRAME_HEADER_BYTES, MAX_PACKETS_BYTES, FrameType, frame

LENGTH_BYTES: Final = 2
#: The longest packet that fits into a frame.
MAX_PACKET_BYTES: Final = MAX_PACKETS_BYTES - LENGTH_BYTES
_LONG: Final = 32768  # a frame with more is closed


class PacketQueue:
    """What one connection has to send through its tunnel. Not thread-safe."""

    __slots__ = (
        "_in_frames",  # bytes of the closed frames
        "_limit",
        "_open",  # body of the frame that packets are put into
        "_open_packets",
        "_ready",  # closed frames, each with the number of its packets
        "allowed",  # offset of the stream up to which frames may be taken
        "offset",  # bytes of frames taken until now
        "packets",  # that wait
    )

    def __init__(self, limit_bytes: int = 4 << 20) -> None:
        self._in_frames = 0
        self._limit = limit_bytes
        self._open = bytearray()
        self._open_packets = 0
        self._ready: deque[tuple[bytes, int]] = deque()
        self.allowed = 0
        self.offset = 0
        self.packets = 0

    @property
    def waiting_bytes(self) -> int:
        """What waits, for credit or to be taken."""
        return self._in_frames + len(self._open)

    def put(self, packet: bytes) -> bool:
        """Queue a packet of at most MAX_PACKET_BYTES; False: there is no room."""
        length = len(packet)
        if self._in_frames + len(self._open) + length > self._limit:
            return False
        if len(self._open) + LENGTH_BYTES + length > _LONG:
            self._close_frame()
        self._open += length.to_bytes(LENGTH_BYTES, "big")
        self._open += packet
        self._open_packets += 1
        self.packets += 1
        return True

    def grant(self, offset: int) -> None:
        """intercept takes the stream up to this offset; what was granted is not taken back."""
        self.allowed = max(self.allowed, offset)

    def take(self) -> bytes:
        """The next frame to send; b"" when none waits, or there is no credit for it."""
        if not self._ready:
            self._close_frame()
        if not self._ready or self.offset + len(self._ready[0][0]) > self.allowed:
            return b""
        data, packets = self._ready.popleft()
        self._in_frames -= len(data)
        self.offset += len(data)
        self.packets -= packets
        return data

    def _close_frame(self) -> None:
        if self._open:
            closed = frame(FrameType.PACKETS, self._open)
            self._ready.append((closed, self._open_packets))
            self._in_frames += len(closed)
            self._open = bytearray()
            self._open_packets = 0


def frame_bytes(body: bytes) -> int:
    """What a frame of PACKETS with this body takes of the credit."""
    return FRAME_HEADER_BYTES + len(body)
