"""Answers of a target, made for the relay tests, and a handler that collects what is handed on."""

from __future__ import annotations

import struct

from tcpcopy.packet.handler import PacketHandler

TARGET = bytes([10, 0, 0, 3])
CLIENT = bytes([10, 99, 0, 7])
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10


def answer(
    *,
    target: bytes = TARGET,
    target_port: int = 8080,
    client: bytes = CLIENT,
    client_port: int = 40001,
    seq: int = 0x01020304,
    ack: int = 0x0A0B0C0D,
    flags: int = ACK,
    options: bytes = b"",
    payload: bytes = b"",
    network_options: bytes = b"",
) -> bytes:
    """An IPv4 packet from target to client; options are padded here."""
    options += bytes(-len(options) % 4)
    network_options += bytes(-len(network_options) % 4)
    network = 20 + len(network_options)
    transport = 20 + len(options)
    total = network + transport + len(payload)
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | network >> 2, 0, total, 7, 0x4000, 64, 6, 0xABCD, target, client
    )
    tcp = struct.pack(
        "!HHIIBBHHH", target_port, client_port, seq, ack, transport << 2, flags, 501, 0x1234, 0
    )
    return ip + network_options + tcp + options + payload


TARGET_V6 = bytes([0xFD, *range(14), 3])
CLIENT_V6 = bytes([0xFD, *range(14), 7])


def answer_v6(
    *,
    target: bytes = TARGET_V6,
    target_port: int = 8080,
    client: bytes = CLIENT_V6,
    client_port: int = 40001,
    flags: int = ACK,
    options: bytes = b"",
    payload: bytes = b"",
) -> bytes:
    """The same of IPv6."""
    tcp = answer(
        target_port=target_port,
        client_port=client_port,
        flags=flags,
        options=options,
        payload=payload,
    )[20:]
    return struct.pack("!IHBB", 0x60000000, len(tcp), 6, 64) + target + client + tcp


def record(packet: bytes, size: int = 64) -> bytes:
    """The record that the C intercept makes of a packet without IP options."""
    transport = min((packet[32] >> 4) * 4, 44)
    found = packet[: 20 + transport]
    if size == 192 and len(packet) - len(found) <= 128:
        found = packet
    return found + bytes(size - len(found))


def batch(*records: bytes) -> bytes:
    """A batch as it stands in the stream."""
    return struct.pack("!H", len(records)) + b"".join(records)


class Collector(PacketHandler):
    """Keeps a copy of what was handed on: (header bytes, wire length, timestamp)."""

    def __init__(self) -> None:
        self.packets: list[tuple[bytes, int, int]] = []

    def packet(
        self, data: object, start: int, end: int, wire_length: int, timestamp_ns: int
    ) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        assert 0 <= start < end <= len(view)
        self.packets.append((bytes(view[start:end]), wire_length, timestamp_ns))
        return 0

    @property
    def headers(self) -> list[bytes]:
        return [packet[0] for packet in self.packets]
