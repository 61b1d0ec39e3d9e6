"""Packets written byte by byte, right or wrong, for the tests of the parser."""

from __future__ import annotations

import struct

SOURCE = bytes((10, 1, 2, 3))
DESTINATION = bytes((172, 16, 254, 1))
SOURCE6 = bytes.fromhex("20010db8000000000000000000000001")
DESTINATION6 = bytes.fromhex("fe80000000000000aabbccddeeff0011")
SOURCE_PORT = 54321
DESTINATION_PORT = 443
SEQ = 0xFEDCBA98
ACK = 0x89ABCDEF
WINDOW = 0xFFEE


def tcp(
    payload: bytes = b"",
    *,
    options: bytes = b"",
    flags: int = 0x18,
    header: int | None = None,
) -> bytes:
    """A TCP segment; `header` is the length that it claims for itself."""
    options += bytes(-len(options) % 4)
    length = 20 + len(options) if header is None else header
    return (
        struct.pack(
            "!HHIIBBHHH",
            SOURCE_PORT,
            DESTINATION_PORT,
            SEQ,
            ACK,
            length << 2 & 0xFF,
            flags,
            WINDOW,
            0xDEAD,
            0,
        )
        + options
        + payload
    )


def ipv4(
    segment: bytes,
    *,
    options: bytes = b"",
    protocol: int = 6,
    fragment: int = 0x4000,
    total: int | None = None,
    header: int | None = None,
    version: int = 4,
) -> bytes:
    """An IPv4 packet; `total` and `header` are the lengths that it claims."""
    options += bytes(-len(options) % 4)
    length = 20 + len(options) if header is None else header
    whole = 20 + len(options) + len(segment) if total is None else total
    return (
        struct.pack(
            "!BBHHHBBH4s4s",
            version << 4 | length >> 2,
            0,
            whole,
            0x1234,
            fragment,
            64,
            protocol,
            0xBEEF,
            SOURCE,
            DESTINATION,
        )
        + options
        + segment
    )


def ipv6(
    segment: bytes, *, extensions: tuple[tuple[int, bytes], ...] = (), length: int | None = None
) -> bytes:
    """An IPv6 packet; each extension is its own number and its bytes after the next header."""
    chain = b""
    following = 6
    for number, body in reversed(extensions):
        chain = bytes((following,)) + body + chain
        following = number
    size = len(chain) + len(segment) if length is None else length
    return struct.pack("!IHBB16s16s", 6 << 28, size, following, 64, SOURCE6, DESTINATION6) + (
        chain + segment
    )


def hop_by_hop(units: int = 0) -> tuple[int, bytes]:
    """A hop-by-hop header of 8 bytes and `units` times 8 more."""
    return 0, bytes((units,)) + b"\x01" + bytes((4 + 8 * units,)) + bytes(4 + 8 * units)


def destination_options(units: int = 0) -> tuple[int, bytes]:
    """A header with options for the destination."""
    return 60, hop_by_hop(units)[1]


def routing() -> tuple[int, bytes]:
    """A routing header with one address."""
    return 43, bytes((2, 0, 0)) + bytes(20)


def fragment(offset: int = 0, more: bool = False) -> tuple[int, bytes]:
    """A fragment header; the offset counts 8 bytes."""
    return 44, b"\0" + struct.pack("!HI", offset << 3 | more, 0x77777777)
