"""Protocols by their first bytes: what real clients and servers begin with."""

from __future__ import annotations

import pytest

from tcpcopy.recorded import guess

STREAMS = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1"),
    (b"OPTIONS * HTTP/1.1\r\n", "HTTP/1"),
    (b"HTTP/1.0 200 OK\r\n", "HTTP/1"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
    (bytes.fromhex("1603010200010001fc0303") + bytes(100), "TLS"),
    (bytes.fromhex("160303007a0200007603") + bytes(100), "TLS"),
    (b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH"),
    (b"\x4a\0\0\0\x0a8.0.36\0" + bytes(66), "MySQL"),
    (b"\x11\0\0\0\xff\x10\x04Too many conne", "MySQL"),
    (bytes.fromhex("0000000804d2162f"), "PostgreSQL"),
    (b"\0\0\0\x20\0\3\0\0user\0pg\0database\0pg\0\0", "PostgreSQL"),
    (b"*1\r\n$4\r\nPING\r\n", "Redis"),
    (b"*12\r\n$3\r\nDEL\r\n", "Redis"),
    (b"PING\r\n", "Redis"),
    (b"get some_key\r\n", "memcached"),
    (b"set k 0 0 5\r\nhello\r\n", "memcached"),
    (b"version\r\n", "memcached"),
    (b"\x80\0\0\3\0\0\0\0\0\0\0\3" + bytes(12) + b"key", "memcached"),
    (b"hello\n", "unknown"),
    (b"", "unknown"),
    (b"\x16\x03", "unknown"),
    (b"*x", "unknown"),
    (b"GETTING started", "unknown"),
    (bytes(40), "unknown"),
]


@pytest.mark.parametrize(("payload", "name"), STREAMS)
def test_streams(payload: bytes, name: str) -> None:
    first = payload[: guess.FIRST_BYTES]
    assert guess.NAMES[guess.by_stream(first, len(payload))] == name


def test_any_beginning_is_taken() -> None:
    for payload, _ in STREAMS:
        for size in range(min(len(payload), guess.FIRST_BYTES) + 1):
            assert guess.NAMES[guess.by_stream(payload[:size], len(payload))]


def test_datagrams() -> None:
    question = bytes.fromhex("123401000001000000000000") + b"\3www\0\0\1\0\1"
    assert guess.NAMES[guess.by_datagram(question, len(question), 53)] == "DNS"
    assert guess.by_datagram(question, len(question), 1000) == guess.UNKNOWN
    assert guess.by_datagram(question[:11], 11, 53) == guess.UNKNOWN
    assert guess.by_datagram(b"\xff" * 20, 20, 53) == guess.UNKNOWN
