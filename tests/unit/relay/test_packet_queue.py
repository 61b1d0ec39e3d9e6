"""Packets on their way into a tunnel: whole frames, within credit, in bounded memory."""

from __future__ import annotations

from tcpcopy.relay.native import FRAME_HEADER, FrameType
from tcpcopy.relay.packet_queue import MAX_PACKET_BYTES, PacketQueue, frame_bytes


def unpacked(frame: bytes) -> list[bytes]:
    """The packets of a frame."""
    kind, length = FRAME_HEADER.unpack_from(frame)
    assert kind == FrameType.PACKETS and length == len(frame) - 4
    packets, at = [], 4
    while at < len(frame):
        size = int.from_bytes(frame[at : at + 2], "big")
        packets.append(frame[at + 2 : at + 2 + size])
        at += 2 + size
    return packets


def test_nothing_goes_without_credit() -> None:
    queue = PacketQueue()
    assert queue.put(b"a" * 40) and queue.put(b"b" * 50)
    assert queue.take() == b"" and queue.packets == 2
    queue.grant(4 + 42 + 52 - 1)
    assert queue.take() == b""
    queue.grant(4 + 42 + 52)
    assert unpacked(queue.take()) == [b"a" * 40, b"b" * 50]
    assert (queue.packets, queue.waiting_bytes, queue.offset) == (0, 0, 98)
    queue.grant(5)
    assert queue.allowed == 98, "what was granted is not taken back"


def test_frames_are_as_long_as_intercept_takes_them() -> None:
    queue = PacketQueue()
    queue.grant(1 << 40)
    sent = [bytes([n % 251]) * (40 + n % 1460) for n in range(500)] + [b"x" * MAX_PACKET_BYTES]
    assert all(queue.put(packet) for packet in sent)
    came, offset = [], 0
    while frame := queue.take():
        assert len(frame) <= 4 + 65535
        came += unpacked(frame)
        offset += frame_bytes(frame[4:])
        assert offset == queue.offset
    assert came == sent and queue.packets == 0


def test_bounded() -> None:
    """What finds no room is refused; what was taken makes room again."""
    queue = PacketQueue(10_000)
    taken = 0
    while queue.put(b"x" * 1000):
        taken += 1
    assert taken == 9 and queue.packets == 9
    queue.grant(1 << 30)
    while queue.take():
        pass
    assert queue.put(b"x" * 1000)
