"""The link-layer sender: frames on a device, errors counted and never raised.

On a pair of devices, in a network namespace that ends with the test.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tcpcopy.deliver.link import LinkSender
from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import parse_address
from tcpcopy.mapping.transfers import TransferTable, parse_transfers
from tcpcopy.packet.batch import PacketBatch

SOURCE, TARGET, OTHER = (parse_address(text) for text in ("10.9.0.7", "10.9.0.2", "10.9.0.3"))
SOURCE6, TARGET6 = parse_address("fd09::7"), parse_address("fd09::2")
MAC = "02:00:00:00:00:02"
MAC6 = "02:00:00:00:00:06"
TRANSFERS = f"80-10.9.0.2:8080@{MAC},80@02:00:00:00:00:05-[fd09::2]:8080@{MAC6}"
ALL = 0x0003  # ETH_P_ALL
CLONE_NEWNET = 0x40000000
pytestmark = pytest.mark.netns


@dataclass
class Wire:
    """A cable: frames go out on `left` and are read at the other end."""

    left: str
    right: str
    reader: socket.socket

    def frames(self, count: int) -> list[bytes]:
        """The next frames of TCP, `count` of them or what came within a second."""
        found: list[bytes] = []
        until = time.monotonic() + 1
        while len(found) < count and time.monotonic() < until:
            try:
                frame = self.reader.recv(65536)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            at = 23 if frame[12:14] == b"\x08\x00" else 20
            if frame[12:14] in (b"\x08\x00", b"\x86\xdd") and frame[at] == 6:
                found.append(frame)
        return found


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def namespace() -> Iterator[None]:
    """Takes the test to a network namespace without a name, and back."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) < 0:
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        yield
        assert libc.setns(before, CLONE_NEWNET) == 0
    finally:
        os.close(before)


@pytest.fixture
def wire(namespace: None) -> Iterator[Wire]:
    left, right = "left", "right"
    ip("link", "add", left, "type", "veth", "peer", "name", right)
    ip("link", "set", left, "up")
    ip("link", "set", right, "up")
    with socket.socket(
        socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ALL)
    ) as reader:
        reader.bind((right, ALL))
        yield Wire(left, right, reader)


@contextmanager
def sending(wire: Wire, transfers: str = TRANSFERS, mtu: int = 1500) -> Iterator[LinkSender]:
    sender = LinkSender(wire.left, TransferTable(parse_transfers(transfers)), mtu=mtu)
    try:
        yield sender
    finally:
        sender.close()


def put(batch: PacketBatch, target: bytes = TARGET, port: int = 8080, payload: bytes = b"") -> None:
    source = SOURCE if len(target) == 4 else SOURCE6
    batch.tcp(source, 1234, target, port, 1, 2, 0x18, 500, 0, 0, 0, b"", payload, 0, len(payload))


def test_frames(wire: Wire) -> None:
    """Header of 14 bytes and the packet as it was, for both families, in order."""
    with sending(wire) as sender:
        batch = PacketBatch(sender)
        for number in range(3):
            put(batch, payload=b"%d" % number)
        put(batch, TARGET6, payload=b"six")
        put(batch, payload=b"last")
        packets = [batch.packet(n) for n in range(5)]
        own = sender.hops.mac
        batch.flush()
        frames = wire.frames(5)
    v4 = bytes.fromhex(MAC.replace(":", "")) + own + b"\x08\x00"
    v6 = bytes.fromhex(MAC6.replace(":", "")) + b"\x02\0\0\0\0\x05" + b"\x86\xdd"
    headers = [v4, v4, v4, v6, v4]
    assert frames == [header + packet for header, packet in zip(headers, packets, strict=True)]
    assert sender.errors == {} and sender.packets == 5


def test_more_than_one_call_takes(wire: Wire) -> None:
    with sending(wire) as sender:
        batch = PacketBatch(sender, capacity=200)
        for number in range(200):
            put(batch, payload=b"%03d" % number)
        batch.flush()
        frames = wire.frames(200)
    assert [int(frame[-3:]) for frame in frames] == list(range(200))


def test_announcements_go_first(wire: Wire) -> None:
    sent: list[int] = []
    transfers = TransferTable(parse_transfers(TRANSFERS))
    sender = LinkSender(wire.left, transfers, lambda: sent.append(sender.packets))
    batch = PacketBatch(sender)
    put(batch)
    batch.flush()
    sender.close()
    assert sent == [0] and sender.packets == 1


def test_packets_without_a_way_are_counted(wire: Wire) -> None:
    """A target of no transfer (another address, another port) in the midst of others."""
    with sending(wire) as sender:
        batch = PacketBatch(sender)
        put(batch, payload=b"a")
        put(batch, OTHER)
        put(batch, port=81)
        put(batch, payload=b"b")
        batch.flush()
        assert [frame[54:55] for frame in wire.frames(2)] == [b"a", b"b"]
        assert sender.errors == {errno.EHOSTUNREACH: 2}


def test_too_long_for_the_device(wire: Wire) -> None:
    """The MTU that becomes smaller later: counted, and the rest goes on."""
    with sending(wire) as sender:
        batch = PacketBatch(sender)
        ip("link", "set", wire.left, "mtu", "1000")
        put(batch, payload=b"a")
        put(batch, payload=bytes(1200))
        put(batch, payload=b"b")
        batch.flush()
        assert [frame[54:55] for frame in wire.frames(2)] == [b"a", b"b"]
        assert sender.errors == {errno.EMSGSIZE: 1}


def test_mtu_is_checked_at_start(wire: Wire) -> None:
    with pytest.raises(UsageError) as caught, sending(wire, mtu=1501):
        pass
    assert str(caught.value) == (
        f"-M 1501: is more than the device of -o ({wire.left}) takes; give -M 1500"
    )


def test_device_down_and_up_again(wire: Wire) -> None:
    """Lost while it is down; sent without anyone's help as soon as it is up."""
    with sending(wire) as sender:
        batch = PacketBatch(sender)
        ip("link", "set", wire.left, "down")
        put(batch)
        batch.flush()
        assert sender.errors == {errno.ENETDOWN: 1}
        ip("link", "set", wire.left, "up")
        time.sleep(0.03)
        put(batch, payload=b"again")
        batch.flush()
        assert [frame[54:] for frame in wire.frames(1)] == [b"again"]


def test_device_gone_and_back(wire: Wire) -> None:
    with sending(wire) as sender:
        batch = PacketBatch(sender)
        ip("link", "del", wire.left)
        put(batch)
        put(batch)
        batch.flush()
        assert sender.errors == {errno.ENODEV: 2}
        ip("link", "add", wire.left, "type", "veth", "peer", "name", wire.right)
        ip("link", "set", wire.left, "up")
        ip("link", "set", wire.right, "up")
        sender.look(time.monotonic_ns())
        put(batch)
        batch.flush()
        assert sender.errors == {errno.ENODEV: 2} and sender.packets == 1


def test_tables_of_the_kernel(wire: Wire) -> None:
    """A neighbour of the kernel's own table, a gateway, and a change of it."""
    transfers = "80-10.9.0.2:8080,80-10.8.0.2:8080"
    ip("address", "add", "10.9.0.1/24", "dev", wire.left)
    ip("neigh", "replace", "10.9.0.2", "lladdr", MAC, "dev", wire.left, "nud", "permanent")
    ip("neigh", "replace", "10.9.0.3", "lladdr", MAC6, "dev", wire.left, "nud", "permanent")
    ip("route", "add", "10.8.0.0/24", "via", "10.9.0.3")
    with sending(wire, transfers) as sender:
        batch = PacketBatch(sender)
        put(batch)
        put(batch, parse_address("10.8.0.2"))
        batch.flush()
        ip("neigh", "replace", "10.9.0.3", "lladdr", MAC, "dev", wire.left, "nud", "permanent")
        sender.look(time.monotonic_ns())
        put(batch, parse_address("10.8.0.2"))
        batch.flush()
        receivers = [frame[:6].hex(":") for frame in wire.frames(3)]
    assert receivers == [MAC, MAC6, MAC]


def test_nobody_there(wire: Wire) -> None:
    """No answer on the wire: refused after three and a half seconds, not before."""
    ip("address", "add", "10.9.0.1/24", "dev", wire.left)
    began = time.monotonic()
    with pytest.raises(UsageError) as caught, sending(wire, "80-10.9.0.2:8080"):
        pass
    assert 3.4 < time.monotonic() - began < 5.5
    assert "the target 10.9.0.2:8080 cannot be reached on it (no answer to ARP)" in str(
        caught.value
    )
