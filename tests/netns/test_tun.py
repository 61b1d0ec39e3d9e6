"""A TUN device against the kernel: what is made, what goes in, what comes out."""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from tcpcopy.deliver import tunnet
from tcpcopy.deliver.tun import TunDevice
from tcpcopy.deliver.tunnet import Server
from tcpcopy.demo.netns import Lab
from tcpcopy.errors import UsageError
from tcpcopy.namespaces import Namespace, inside
from tcpcopy.packet import flags
from tcpcopy.packet.batch import PacketBatch
from tcpcopy.packet.handler import PacketHandler

pytestmark = pytest.mark.netns
RANGE = ipaddress.ip_network("198.18.0.0/15")
CLIENT = bytes([198, 18, 0, 7])
LOOPBACK = bytes([127, 0, 0, 1])
PORT = 8080


class Packets(PacketHandler):
    """Keeps what is handed on: (packet as far as it was read, its length on the wire)."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, int]] = []

    def packet(
        self, data: object, start: int, end: int, wire_length: int, timestamp_ns: int
    ) -> int:
        self.found.append((bytes(memoryview(data)[start:end]), wire_length))  # type: ignore[arg-type]
        return 0


@pytest.fixture
def on_host(lab: Lab) -> Iterator[Lab]:
    """This process is on the online host."""
    namespace = Namespace("--netns", lab.online.namespace)
    with inside(namespace):
        yield lab
    namespace.close()


@pytest.fixture
def tun(on_host: Lab) -> Iterator[TunDevice]:
    with closing(TunDevice("tcpcopy%d", networks=(RANGE,), reaches_loopback=True)) as device:
        yield device


def syn(batch: PacketBatch, port: int, target_port: int = PORT) -> None:
    batch.tcp(
        CLIENT, port, LOOPBACK, target_port, 1000, 0, flags.SYN, 65535, 0, 0, 0,
        b"\x02\x04\x05\xb4", b"", 0, 0,
    )  # fmt: skip


def take(tun: TunDevice, count: int, limit: int = 1000) -> Packets:
    """Answers until there are so many, or none for two seconds."""
    packets = Packets()
    while len(packets.found) < count and select.select([tun.fileno()], [], [], 2)[0]:
        tun.drain(packets, limit, 0)
    return packets


def test_handshakes(tun: TunDevice) -> None:
    """SYNs reach a server on 127.0.0.1, whose answers come out; a closed port resets."""
    with socket.create_server(("127.0.0.1", PORT), backlog=200):
        batch = PacketBatch(tun)
        for port in range(5000, 5100):
            syn(batch, port)
        syn(batch, 6000, PORT + 1)
        batch.flush()
        packets = take(tun, 101)
    assert tun.errors == {} and tun.received == 101
    ports = {struct.unpack_from("!HH", packet, 20) for packet, _ in packets.found}
    assert ports == {(PORT, port) for port in range(5000, 5100)} | {(PORT + 1, 6000)}
    assert {packet[33] & flags.RST for packet, _ in packets.found} == {0, flags.RST}
    assert all(length == len(packet) for packet, length in packets.found)


def test_the_limit_of_one_call(tun: TunDevice) -> None:
    batch = PacketBatch(tun)
    for port in range(5000, 5020):
        syn(batch, port)
    batch.flush()
    packets = Packets()
    assert tun.drain(packets, 7, 0) == 7
    assert tun.drain(packets, 100, 0) == 13
    assert tun.drain(packets, 100, 0) == 0
    assert tun.failed == 0


def test_large_segments_both_ways(tun: TunDevice) -> None:
    """A segment of 60,000 bytes goes in as one packet; of a large answer the headers are read."""
    with socket.create_server(("127.0.0.1", PORT)) as listener:
        listener.settimeout(5)
        batch = PacketBatch(tun)
        batch.largest = tun.largest
        assert tun.largest > 60_000
        syn(batch, 5000)
        batch.flush()
        (answer, _), *_ = take(tun, 1).found
        ack = struct.unpack_from("!I", answer, 24)[0] + 1
        payload = bytes(range(256)) * 235
        at = 0
        common = (CLIENT, 5000, LOOPBACK, PORT)
        batch.tcp(*common, 1001, ack, flags.ACK, 65535, 0, 0, 0, b"", b"", 0, 0)
        batch.flush()
        server = listener.accept()[0]
        server.settimeout(5)
        got = b""
        while at < len(payload):
            size = min(len(payload) - at, 29_200)  # the window of a young connection
            batch.tcp(
                *common, 1001 + at, ack, flags.ACK | flags.PSH, 65535, 0, 0, 0, b"", payload, at,
                size, 1460,
            )  # fmt: skip
            assert batch.count == 1
            batch.flush()
            at += size
            while len(got) < at:
                got += server.recv(65536)
        assert got == payload
        take(tun, 1)
        server.sendall(bytes(10_000))
        packets = take(tun, 1)
        server.close()
    longest = max(packets.found, key=lambda found: found[1])
    assert longest[1] > 1500 and len(longest[0]) == 256


def test_answers_that_nobody_reads(tun: TunDevice, on_host: Lab) -> None:
    """What finds no room in the device's queue is counted by the kernel."""
    on_host.online.ip(f"link set {tun.name} txqueuelen 10")
    batch = PacketBatch(tun)
    for port in range(5000, 5060):
        syn(batch, port)
    batch.flush()
    assert tun.dropped() == 50
    assert len(take(tun, 10).found) == 10


def test_large_segments_are_given_up(tun: TunDevice) -> None:
    """A kernel that refuses one gets no more of them."""
    batch = PacketBatch(tun)
    batch.largest = tun.largest
    # No version of IP has such a packet, and so the kernel takes it neither whole nor cut.
    batch.tcp(CLIENT, 5000, LOOPBACK, PORT, 1, 1, flags.ACK, 9, 0, 0, 0, b"", bytes(9000), 0, 9000,
              1460)  # fmt: skip
    batch.buffer[0] = 0x15
    batch.flush()
    assert sum(tun.errors.values()) == 1
    assert tun.largest == batch.largest == 0


def test_one_packet(tun: TunDevice) -> None:
    """`send` takes a packet as it stands; what is no packet is refused and counted."""
    batch = PacketBatch(tun)
    syn(batch, 5000)
    packet = batch.packet(0)
    assert tun.send(bytearray(b"xx" + packet + b"yy"), 2, 2 + len(packet)) == 0
    assert len(take(tun, 1).found) == 1
    assert tun.send(bytearray(b"\x00" * 40), 0, 40) != 0
    assert sum(tun.errors.values()) == 1


def test_leading_answers(on_host: Lab) -> None:
    """Answers of a server to any other host, and nothing else, leave by the device."""
    server = Server(LOOPBACK, PORT)
    elsewhere = ipaddress.ip_address("203.0.113.7").packed
    with closing(TunDevice("lead", servers=(server,), reaches_loopback=True)) as tun:
        assert tunnet.device_towards(elsewhere, server) == tun.index
        assert tunnet.device_towards(elsewhere, Server(LOOPBACK, PORT + 1)) != tun.index
        assert tunnet.device_towards(LOOPBACK, server) != tun.index
        assert tunnet.leading_rules(server) == [tun.index]
        assert tunnet.remove_leftovers() == 0, "it lives"
    assert tunnet.leading_rules(server) == []


def test_what_cannot_be_made(on_host: Lab) -> None:
    """Refused in one line, and nothing is left of it."""
    with closing(TunDevice("first", networks=(RANGE,))):
        with pytest.raises(UsageError, match="there is a device of that name"):
            TunDevice("first")
        with pytest.raises(UsageError, match="is there already"):
            TunDevice("second", networks=(RANGE,))
        assert [name for _, name in socket.if_nameindex() if name not in ("lo", "eth0")] == [
            "first"
        ]
