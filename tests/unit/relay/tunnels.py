"""What the tests of tunnels share: a device that keeps what it gets, and packets that may pass."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from tcpcopy.deliver.tun import TunDevice
from tests.unit.relay.packets import ACK, answer, answer_v6

CLIENT = bytes([198, 18, 0, 7])
CLIENT_V6 = bytes.fromhex("fd0074637063") + bytes(9) + b"\x07"
TARGET = bytes([10, 0, 0, 3])
TARGET_V6 = bytes([0xFD, *range(14), 3])


class FakeDevice(TunDevice):
    """Takes packets, or refuses with an errno."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.answer = 0
        self.at_each: Callable[[bytes], object] = lambda _: None  # called with each packet

    def send(self, packet: Any, start: int, end: int) -> int:
        self.at_each(bytes(packet[start:end]))
        if not self.answer:
            self.sent.append(bytes(packet[start:end]))
        return self.answer


def request(**fields: Any) -> bytes:
    """A packet of a client to the target: IPv4."""
    fields = {"client_port": 8080, "target_port": 40001, "flags": ACK, **fields}
    source, target = fields.pop("source", CLIENT), fields.pop("target", TARGET)
    return answer(target=source, client=target, **fields)


def request_v6(**fields: Any) -> bytes:
    """The same of IPv6."""
    fields = {"client_port": 8080, "target_port": 40001, "flags": ACK, **fields}
    source, target = fields.pop("source", CLIENT_V6), fields.pop("target", TARGET_V6)
    return answer_v6(target=source, client=target, **fields)


def body(*packets: bytes) -> bytes:
    """The body of a frame of PACKETS."""
    return b"".join(struct.pack("!H", len(packet)) + packet for packet in packets)
