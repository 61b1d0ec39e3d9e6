"""The kind of an answer in the native record: told to who asks for it, and without any payload."""

from __future__ import annotations

from typing import Any

import pytest

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay import native
from tcpcopy.relay.handshake import ClientHandshake, Kind, ServerHandshake
from tcpcopy.relay.native import RelayTerms
from tcpcopy.relay.native_records import NativeDecoder, NativeWriter
from tcpcopy.said.kinds import HTTP_5XX, NONE
from tests.sim.model import wire

PAYLOAD = b"HTTP/1.1 500 Internal Server Error\r\n\r\nsecret"


class Keeper(PacketHandler):
    """Keeps packets, with the kind that was set for each."""

    def __init__(self) -> None:
        self.kind = 0
        self.packets: list[tuple[int, bytes, int]] = []

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        self.packets.append((self.kind, bytes(data[start:end]), wire_length))
        return 0


def handshake(*, old_client: bool = False, old_server: bool = False) -> tuple[bool, bool]:
    """Both ends until they agree; whether each thinks that kinds are told."""
    client = ClientHandshake(RelayTerms(), bytes(32))
    server = ServerHandshake(RelayTerms(), bytes(32))
    hello = server.feed(client.opening())
    if old_server:  # the bit that says so is not there
        hello = hello[:6] + bytes([hello[6] & ~native.KINDS]) + hello[7:]
        server._said = native.OPENING + hello if hasattr(server, "_said") else b""
    join = client.feed(hello)
    if old_client:
        join = join[:6] + bytes([join[6] & ~4]) + join[7:]
    welcome = server.feed(join)
    assert server.kind == Kind.NATIVE
    client.feed(welcome)
    assert client.kind == Kind.NATIVE
    return client.kinds, server.kinds


def test_both_ends_find_out() -> None:
    assert handshake() == (True, True)
    assert handshake(old_server=True) == (False, False)
    assert handshake(old_client=True)[1] is False  # nothing is told to who does not ask


@pytest.mark.parametrize("address", [bytes([10, 0, 0, 1]), bytes(15) + b"\1"])
@pytest.mark.parametrize("payload", [PAYLOAD, b""])
@pytest.mark.parametrize("kinds", [True, False])
def test_a_record_tells_the_kind_and_no_payload(
    address: bytes, payload: bytes, kinds: bool
) -> None:
    packet = wire.encode(wire.Segment(address, 80, address, 40000, 1, 2, 0x18, 1000, payload))
    writer = NativeWriter(window=1 << 20, kinds=kinds)
    assert writer.append(packet, 0, len(packet), -1, len(packet), 5) == 1
    stream = bytes(writer.pending())
    assert b"secret" not in stream and b"HTTP" not in stream
    keeper = Keeper()
    decoder = NativeDecoder(keeper, kinds=kinds)
    decoder.feed(stream, 0)
    ((kind, headers, wire_length),) = keeper.packets
    assert kind == (HTTP_5XX if kinds and payload else NONE)
    assert headers[-20:] == packet[len(packet) - len(payload) - 20 : len(packet) - len(payload)]
    assert wire_length == len(packet)
    assert not decoder.fault
