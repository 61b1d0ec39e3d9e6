"""Targets: what a target answers, and what a client asks, whatever the bytes are."""

from __future__ import annotations

from tcpcopy.said import kinds
from tcpcopy.said.answer import dns_kind, is_dns_query, kind_of, protocol_of, settle
from tcpcopy.said.kinds import KINDS
from tests.fuzz.target import Target

_SEEDS = [
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oops\r\n",
    b"-NOAUTH Authentication required.\r\n",
    b"!21\r\nWRONGTYPE something\r\n",
    b"\x48\x00\x00\x02\xff\x15\x04#28000Access denied",
    b"\x4a\x00\x00\x00\x0a10.11.6-MariaDB\0",
    b"1\x00\x00\x00\x04E\x00\x00\x00\x60SFATAL\0VFATAL\0C28P01\0Mno\0",
    b"\x15\x03\x03\x00\x02\x02\x28",
    bytes.fromhex("12348182000100000000000003777777076578616d706c6503636f6d0000010001"),
    b"GET / HTTP/1.1\r\n\r\n",
    b"Q\x00\x00\x00\x0eSELECT 1;\0",
    bytes.fromhex("0000000804d2162f"),
]


def _said(data: bytes) -> None:
    kind = kind_of(data)
    assert kind in KINDS or (kind == kinds.NONE and not data)
    for known in range(len(kinds.PROTOCOLS)):
        assert settle(protocol_of(known, data), kind) in KINDS
    assert dns_kind(data) in {*KINDS, kinds.NONE}
    is_dns_query(data)


TARGETS = (Target("said", _said, lambda: _SEEDS),)
