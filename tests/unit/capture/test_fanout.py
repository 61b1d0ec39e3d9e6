"""The program that deals packets out, run on hand-made packets; and who gets what."""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest

from tcpcopy.capture.fanout import program
from tcpcopy.mapping.shares import address_hash, worker_of

TCP, UDP, FRAGMENT, DESTINATION_OPTIONS = 6, 17, 44, 60
V4 = bytes((10, 1, 2, 3))
V6 = bytes.fromhex("20010db8000000010002000300040005")
ANCILLARY = 0xFFFFF000


def run(packet: bytes, protocol: int = 0x0800) -> int:
    """What the kernel gets; 0 when the program reads beyond the packet."""
    code = list(struct.iter_unpack("=HBBI", program()))
    a = x = at = 0
    memory: dict[int, int] = {}
    sizes = {0x20: 4, 0x28: 2, 0x30: 1, 0x40: 4, 0x48: 2, 0x50: 1}
    while True:
        op, true, false, k = code[at]
        at += 1
        if op in sizes:
            if k >= ANCILLARY:
                assert k == ANCILLARY
                a = protocol
                continue
            start = k + (x if op & 0x40 else 0)
            if start + sizes[op] > len(packet):
                return 0
            a = int.from_bytes(packet[start : start + sizes[op]], "big")
        elif op == 0xB1:
            x = (packet[k] & 15) * 4
        elif op == 0x01:
            x = k
        elif op == 0x61:
            x = memory[k]
        elif op == 0x02:
            memory[k] = a
        elif op == 0x03:
            memory[k] = x
        elif op == 0x07:
            x = a
        elif op == 0x15:
            at += true if a == k else false
        elif op == 0x05:
            at += k
        elif op == 0x16:
            return a
        else:
            arithmetic = {
                0x04: a + k, 0x0C: a + x, 0x24: a * k, 0x64: a << (k & 31), 0x74: a >> (k & 31),
                0xAC: a ^ x,
            }  # fmt: skip
            a = arithmetic[op] & 0xFFFFFFFF


def ipv4(source: bytes, port: int, options: bytes = b"") -> bytes:
    head = bytes([0x45 + len(options) // 4]) + bytes(8) + bytes([TCP]) + bytes(2)
    return head + source + bytes(4) + options + struct.pack(">HH", port, 80) + bytes(16)


def ipv6(source: bytes, port: int, chain: bytes = b"", first: int = TCP) -> bytes:
    head = bytes([0x60]) + bytes(5) + bytes([first, 64]) + source + bytes(16)
    return head + chain + struct.pack(">HH", port, 80) + bytes(16)


@pytest.mark.parametrize("port", [1, 80, 40000, 40001, 65535])
@pytest.mark.parametrize(
    ("source", "packet"),
    [
        (V4, lambda port: ipv4(V4, port)),
        (V4, lambda port: ipv4(V4, port, bytes(40))),
        (V6, lambda port: ipv6(V6, port)),
        (V6, lambda port: ipv6(V6, port, bytes([TCP, 0]) + bytes(6), DESTINATION_OPTIONS)),
        (V6, lambda port: ipv6(V6, port, bytes([TCP, 2]) + bytes(22), 0)),
        (V6, lambda port: ipv6(V6, port, bytes([TCP, 0]) + bytes(6), FRAGMENT)),
    ],
    ids=["IPv4", "IPv4 options", "IPv6", "options", "long options", "fragment"],
)
def test_kernel_and_allocator_agree(source: bytes, packet, port: int) -> None:  # type: ignore[no-untyped-def]
    for workers in (2, 3, 7, 64):
        assert run(packet(port)) % workers == worker_of(source, port, workers)
    tagged = bytes((0, 7, 8, 0)) + packet(port)
    assert run(tagged, 0x8100) == run(tagged, 0x88A8) == run(packet(port))


def test_behind_a_chain_of_headers_the_address_alone_counts() -> None:
    chain = bytes([DESTINATION_OPTIONS, 0]) + bytes(6) + bytes([TCP, 0]) + bytes(6)
    assert run(ipv6(V6, 40000, chain, 0)) == address_hash(V6)
    assert run(ipv6(V6, 40000, b"", UDP)) == address_hash(V6)


def test_a_packet_that_is_too_short_is_no_trouble() -> None:
    assert run(ipv4(V4, 80)[:20]) == 0


@pytest.mark.parametrize("workers", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("step", [1, 2, 4, 8, 28])
def test_ports_of_one_client_spread_over_the_workers(workers: int, step: int) -> None:
    """One proxy in front is one address, and ports come in steps."""
    shares = Counter(worker_of(V4, port, workers) for port in range(32768, 60000, step))
    total = sum(shares.values())
    assert len(shares) == workers
    assert max(shares.values()) < 1.35 * total / workers
    assert min(shares.values()) > 0.65 * total / workers


def test_clients_spread_over_the_workers() -> None:
    draw = random.Random(1)
    shares = Counter(
        worker_of(bytes((10, 0, last >> 8, last & 255)), draw.randrange(1024, 65536), 4)
        for last in range(4000)
    )
    assert all(850 < count < 1150 for count in shares.values()), shares
