"""Packets in brief, and pings."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.packet.brief import (
    ECHO,
    OTHER,
    RESET,
    SYN,
    SYN_ACK,
    UNREACHABLE,
    echo_request,
    read_brief,
)
from tcpcopy.packet.flags import ACK as ACK_FLAG
from tcpcopy.packet.flags import RST as RST_FLAG
from tcpcopy.packet.flags import SYN as SYN_FLAG

ONE = {4: b"\x0a\0\0\1", 6: bytes(15) + b"\1"}
TWO = {4: b"\x0a\0\0\2", 6: bytes(15) + b"\2"}


def segment(version: int, flags: int) -> bytes:
    batch = PacketBatch(PacketSink(), capacity=2)
    batch.tcp(ONE[version], 40000, TWO[version], 80, 7, 9, flags, 1, 0, 0, 0, b"", b"", 0, 0)
    return batch.packet(0)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (SYN_FLAG, SYN),
        (SYN_FLAG | ACK_FLAG, SYN_ACK),
        (RST_FLAG | ACK_FLAG, RESET),
        (ACK_FLAG, OTHER),
    ],
)
def test_tcp(version: int, flags: int, kind: str) -> None:
    brief = read_brief(segment(version, flags))
    assert brief is not None
    assert (brief.kind, brief.source, brief.destination) == (kind, ONE[version], TWO[version])
    assert (brief.source_port, brief.destination_port) == (40000, 80)
    assert (brief.seq, brief.ack) == (7, 9)


def icmp(version: int, kind: int, code: int, quoted: bytes) -> bytes:
    """From TWO to ONE."""
    body = bytes((kind, code)) + bytes(6) + quoted
    if version == 4:
        head = b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + bytes(4) + b"\x40\1\0\0"
    else:
        head = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + b"\x3a\x40"
    return head + TWO[version] + ONE[version] + body


@pytest.mark.parametrize(("version", "kind", "code"), [(4, 3, 13), (6, 1, 4)])
def test_error_belongs_to_what_it_quotes(version: int, kind: int, code: int) -> None:
    quoted = segment(version, SYN_FLAG)[: (28 if version == 4 else 48)]
    brief = read_brief(icmp(version, kind, code, quoted))
    assert brief is not None
    assert brief.kind == UNREACHABLE
    assert (brief.source, brief.source_port) == (ONE[version], 40000)
    assert (brief.destination, brief.destination_port) == (TWO[version], 80)
    assert (brief.reporter, brief.code) == (TWO[version], kind << 8 | code)


@pytest.mark.parametrize("version", [4, 6])
def test_ping(version: int) -> None:
    """A request is sound, and its answer is known by its number."""
    request = echo_request(ONE[version], TWO[version], 40000)
    at = 20 if version == 4 else 40
    assert request[at] == (8 if version == 4 else 128)
    assert read_brief(request) is None  # nothing that answers
    answer = bytearray(request)
    answer[at] = 0 if version == 4 else 129
    brief = read_brief(bytes(answer))
    assert brief is not None and (brief.kind, brief.source_port) == (ECHO, 40000)


def ones_sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_checksums_of_pings() -> None:
    request = echo_request(ONE[4], TWO[4], 1)
    assert ones_sum(request[:20]) == 0xFFFF
    assert ones_sum(request[20:]) == 0xFFFF
    request = echo_request(ONE[6], TWO[6], 1)
    pseudo = (
        request[8:40]
        + (len(request) - 40).to_bytes(4, "big")
        + socket.IPPROTO_ICMPV6.to_bytes(4, "big")
    )
    assert ones_sum(pseudo + request[40:]) == 0xFFFF


@given(st.binary(max_size=120))
def test_anything_is_taken(data: bytes) -> None:
    read_brief(data)


@given(st.sampled_from([4, 6]), st.integers(0, 255), st.binary(max_size=80))
def test_any_icmp_is_taken(version: int, kind: int, quoted: bytes) -> None:
    read_brief(icmp(version, kind, 0, quoted))
