"""A packet in brief: of which connection it is, and what it means to one that is being opened.

For probes, which look at a handful of packets. ICMP that reports an error belongs to the
connection whose packet it quotes.

Source: RFC 9293 (3.1), RFC 792, RFC 4443, RFC 8200.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from tcpcopy.packet import flags, segment
from tcpcopy.packet.batch import checksum_add, checksum_fold

SYN, SYN_ACK, RESET, ECHO, UNREACHABLE, OTHER = (
    "syn",
    "syn-ack",
    "reset",
    "echo",
    "unreachable",
    "other",
)
_ICMP, _ICMP_V6 = 1, 58
_ECHO_REPLIES: Final = {4: 0, 6: 129}
_ECHO_REQUESTS: Final = {4: 8, 6: 128}
_ERRORS: Final = {4: (3, 11), 6: (1, 3)}  # unreachable, time exceeded
_PORTS: Final = struct.Struct("!HH")


@dataclass(frozen=True, slots=True)
class Brief:
    """Addresses of 4 or 16 bytes. Of UNREACHABLE they are those of the packet quoted."""

    kind: str
    source: bytes
    destination: bytes
    source_port: int = 0  # of ECHO: its identifier
    destination_port: int = 0
    seq: int = 0
    ack: int = 0
    reporter: bytes = b""  # of UNREACHABLE: who says so
    code: int = 0  # of UNREACHABLE: type << 8 | code


def read_brief(data: bytes) -> Brief | None:
    """What `data` holds, a packet from its IP header on; None when it is neither TCP nor ICMP."""
    if not data:
        return None
    version = data[0] >> 4
    if version == 4 and len(data) >= 20 and data[9] == _ICMP:
        return _read_icmp(4, data[12:16], data[16:20], data[(data[0] & 15) * 4 :])
    if version == 6 and len(data) >= 40 and data[6] == _ICMP_V6:
        return _read_icmp(6, data[8:24], data[24:40], data[40:])
    found = segment.Segment()
    if segment.parse(found, data, 0, len(data), len(data)) != flags.PARSED:
        return None
    kind = OTHER
    if found.flags & flags.RST:
        kind = RESET
    elif found.flags & flags.SYN:
        kind = SYN_ACK if found.flags & flags.ACK else SYN
    return Brief(
        kind,
        segment.source_address(found, data),
        segment.destination_address(found, data),
        found.source_port,
        found.destination_port,
        found.seq,
        found.ack,
    )


def _read_icmp(version: int, source: bytes, destination: bytes, body: bytes) -> Brief | None:
    if len(body) < 8:
        return None
    if body[0] == _ECHO_REPLIES[version]:
        return Brief(ECHO, source, destination, int.from_bytes(body[4:6], "big"))
    if body[0] not in _ERRORS[version]:
        return None
    quoted = body[8:]
    header = 20 if version == 4 else 40
    if len(quoted) < header + 4 or quoted[0] >> 4 != version:
        return None
    first, second = (12, 16) if version == 4 else (8, 24)
    size = 4 if version == 4 else 16
    at = (quoted[0] & 15) * 4 if version == 4 else header
    if len(quoted) < at + 4:
        return None
    ports = _PORTS.unpack_from(quoted, at)
    return Brief(
        UNREACHABLE,
        quoted[first : first + size],
        quoted[second : second + size],
        ports[0],
        ports[1],
        reporter=source,
        code=body[0] << 8 | body[1],
    )


def echo_request(source: bytes, destination: bytes, identifier: int) -> bytes:
    """A whole ping from `source`, addresses of one family."""
    version = 4 if len(source) == 4 else 6
    body = bytearray(struct.pack("!BBHHH", _ECHO_REQUESTS[version], 0, 0, identifier, 1))
    body += b"tcpcopy probe   "
    total = 0
    if version == 6:
        pseudo = bytearray(source + destination)
        total = checksum_add(memoryview(pseudo), 0, len(pseudo), _ICMP_V6 + len(body))
    body[2:4] = checksum_fold(checksum_add(memoryview(body), 0, len(body), total)).to_bytes(
        2, "big"
    )
    if version == 6:
        head = struct.pack("!IHBB", 0x6 << 28, len(body), _ICMP_V6, 64)
        return head + source + destination + bytes(body)
    header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, _ICMP, 0))
    header += source + destination
    header[10:12] = checksum_fold(checksum_add(memoryview(header), 0, 20, 0)).to_bytes(2, "big")
    return bytes(header + body)
