"""Kinds of answers, told from real first bytes; any bytes at all give a kind of the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.said import kinds as k
from tcpcopy.said.answer import (
    dns_kind,
    is_dns_query,
    kind_of,
    protocol_of,
    settle,
    settle_greeting,
)
from tcpcopy.said.kinds import KIND_SLOTS, KINDS
from tcpcopy.said.tally import LOOK_AGAIN, Tally

QUERY = bytes.fromhex("12340100000100000000000003777777076578616d706c6503636f6d0000010001")
GET = b"GET / HTTP/1.1\r\n\r\n"
CLIENT_HELLO = bytes.fromhex("160301010501000101")
STARTUP = b"\x00\x00\x00\x17\x00\x03\x00\x00user\0alice\0\0\0\0\0"[:23]
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
COM_QUERY = b"\x09\x00\x00\x00\x03SELECT 1"
MYSQL_GREETING = b"\x4a\x00\x00\x00\x0a10.11.6-MariaDB\0" + bytes(60)
DENIED = b"\x48\x00\x00\x02\xff\x15\x04#28000Access denied for user"
UNKNOWN_STATEMENT = b"\x30\x00\x00\x01\xff\xdb\x04#HY000Unknown prepared statement"
PG_ERROR = b"E\x00\x00\x00\x60SERROR\0VERROR\0C26000\0Mprepared statement does not exist\0"
PG_FATAL = b"E\x00\x00\x00\x60SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0"
PARSE_COMPLETE = b"1\x00\x00\x00\x04"


def name(protocol: int, data: bytes) -> str:
    return KINDS[settle(protocol, kind_of(data))].text


@pytest.mark.parametrize(
    ("request_bytes", "answer", "expected"),
    [
        (GET, b"HTTP/1.1 500 Internal Server Error\r\n", "HTTP 5xx"),
        (GET, b"HTTP/1.0 404 Not Found\r\n", "HTTP 4xx"),
        (GET, b"HTTP/1.1 200 OK\r\n", "HTTP 2xx"),
        (GET, b"HTTP/1.1 304 \r\n", "HTTP 3xx"),
        (GET, b"HTTP/1.1 100 Continue\r\n\r\n", "HTTP 1xx"),
        (GET, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\n", "HTTP 5xx"),
        (GET, b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi", "HTTP 101"),
        (GET, b"HTTP/1.1 700 What\r\n", "other"),
        (GET, b"HTTP/1.1 ", "other"),
        (GET, b"-ERR of nobody\r\n", "other"),
        (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", "RESP reply"),
        (b"*1\r\n$4\r\nPING\r\n", b"-NOAUTH Authentication required.\r\n", "RESP error NOAUTH"),
        (b"*2\r\n", b"-WRONGPASS invalid username\r\n", "RESP error WRONGPASS"),
        (b"*2\r\n", b"-MOVED 3999 127.0.0.1:6381\r\n", "RESP error MOVED"),
        (b"*2\r\n", b"-HOMEMADE things\r\n", "RESP error, another"),
        (b"*2\r\n", b"!21\r\nWRONGTYPE something\r\n", "RESP error WRONGTYPE"),
        (COM_QUERY, DENIED, "MySQL error 1045 (access denied)"),
        (COM_QUERY, UNKNOWN_STATEMENT, "MySQL error 1243 (unknown prepared statement)"),
        (COM_QUERY, b"\x10\x00\x00\x01\xff\xff\x1f#HY000what", "MySQL error, another"),
        (COM_QUERY, b"\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00", "MySQL reply"),
        (STARTUP, PG_FATAL, "PostgreSQL FATAL 28 (log-in refused)"),
        (STARTUP, b"R\x00\x00\x00\x08\x00\x00\x00\x00", "PostgreSQL reply"),
        (b"Q\x00\x00\x00\x0eSELECT 1;\0", PG_ERROR,
         "PostgreSQL ERROR 26 (unknown prepared statement)"),
        (STARTUP, PARSE_COMPLETE + PG_ERROR, "PostgreSQL ERROR 26 (unknown prepared statement)"),
        (SSL_REQUEST, b"N", "PostgreSQL reply"),
        (CLIENT_HELLO, b"\x15\x03\x03\x00\x02\x02\x28", "TLS alert handshake_failure"),
        (CLIENT_HELLO, b"\x15\x03\x01\x00\x02\x02\x46", "TLS alert protocol_version"),
        (CLIENT_HELLO, b"\x15\x03\x03\x00\x02\x01\x00", "TLS alert close_notify"),
        (CLIENT_HELLO, b"\x15\x03\x03\x00\x1a" + bytes(26), "TLS alert, encrypted"),
        (CLIENT_HELLO, b"\x16\x03\x03\x00\x7a\x02\x00", "TLS record"),
        (CLIENT_HELLO, b"HTTP/1.1 400 Bad Request\r\n", "HTTP 4xx"),
        (b"\x00\x21" + QUERY, b"\x00\x21\x12\x34\x81\x82\x00\x01" + bytes(25), "DNS SERVFAIL"),
        (b"\x00\x21" + QUERY, b"\x00\x21\x12\x34\x81\x80\x00\x01" + bytes(25), "DNS NOERROR"),
        (b"anything else", b"-ERR as POP3 has it\r\n", "other"),
        (b"anything else", b"\x48\x00\x00\x02\xff\x15\x04#28000", "other"),
    ],
)  # fmt: skip
def test_kind_of_an_answer(request_bytes: bytes, answer: bytes, expected: str) -> None:
    assert name(protocol_of(k.UNKNOWN, request_bytes), answer) == expected


def test_a_greeting_is_no_answer() -> None:
    assert settle_greeting(kind_of(MYSQL_GREETING)) == k.MYSQL_GREETING
    assert settle_greeting(kind_of(b"220 mail.example ESMTP\r\n")) == k.GREETING
    too_many = b"\x17\x00\x00\x00\xff\x10\x04Too many connections"
    assert KINDS[settle_greeting(kind_of(too_many))].text == (
        "MySQL error 1040 (too many connections)"
    )


def test_tls_may_begin_on_a_connection_that_spoke_something_else() -> None:
    assert protocol_of(k.POSTGRESQL, CLIENT_HELLO) == k.TLS
    assert protocol_of(k.HTTP, b"*1\r\n") == k.HTTP
    # A MySQL packet of 790 bytes begins as a TLS record would.
    assert protocol_of(k.MYSQL, b"\x16\x03\x00\x00\x03SELECT") == k.MYSQL


def test_dns_over_udp() -> None:
    assert is_dns_query(QUERY)
    assert not is_dns_query(QUERY[:12])
    assert dns_kind(b"\x12\x34\x81\x83" + QUERY[4:]) == k.DNS_RCODE + 3
    assert dns_kind(QUERY) == k.OTHER  # a question is no answer
    assert dns_kind(b"") == k.NONE


def test_a_tally_counts_and_learns() -> None:
    tally = Tally()
    assert tally.note(k.UNKNOWN, kind_of(MYSQL_GREETING), True) == k.MYSQL
    assert tally.note(k.MYSQL, kind_of(DENIED), False) == k.MYSQL
    assert tally.note(k.HTTP, k.HTTP_1XX, False) == k.HTTP | LOOK_AGAIN
    assert tally.note(k.HTTP, k.NONE, False) == k.HTTP
    tally.note_bytes(10, 20)
    counts = {code: count for code, count in enumerate(tally.kind_counts()) if count}
    assert counts == {k.NONE: 1, k.HTTP_1XX: 1, k.MYSQL_GREETING: 1, k.MYSQL_ERROR + 3: 1}
    assert (tally.sessions, tally.bytes_online, tally.bytes_target) == (1, 10, 20)


def test_the_table_has_room_for_each_kind_and_a_name_of_its_own() -> None:
    """The relay carries the numbers: what they mean never changes."""
    assert all(0 < code < KIND_SLOTS for code in KINDS)
    assert len({kind.text for kind in KINDS.values()}) == len(KINDS)
    assert KINDS[6].text == "HTTP 5xx"
    assert KINDS[12].text == "RESP error NOAUTH"
    assert KINDS[44].text == "MySQL error 1045 (access denied)"
    assert KINDS[155].text == "PostgreSQL FATAL 28 (log-in refused)"
    assert KINDS[189].text == "TLS alert handshake_failure"
    assert KINDS[226].text == "DNS SERVFAIL"


STARTS = st.sampled_from([
    b"", b"HTTP/1.", b"HTTP/1.1 100 Continue\r\n\r\n", b"-", b"!", b"\x15\x03", b"E\x00\x00\x00",
    b"1\x00\x00\x00\x04", b"\x10\x00\x00\x01\xff", b"\x40\x00\x00\x00\x0a5",
    b"\x00\x20\x12\x34\x80",
])  # fmt: skip
REQUESTS = st.sampled_from([
    b"", b"*", b"GET ", b"\x16\x03\x01", b"\x00\x00\x00\x08", b"Q\x00\x00\x00",
    b"\x05\x00\x00\x00\x03",
])  # fmt: skip


@given(STARTS, st.binary(max_size=160), REQUESTS, st.binary(max_size=60), st.integers(0, 6))
def test_any_bytes_give_a_kind_of_the_table(
    start: bytes, rest: bytes, ask: bytes, more: bytes, known: int
) -> None:
    kind = kind_of(start + rest)
    assert kind == k.NONE if not start + rest else kind in KINDS
    protocol = protocol_of(known, ask + more)
    assert 0 <= protocol < len(k.PROTOCOLS)
    assert settle(protocol, kind) in KINDS
    assert settle_greeting(kind) in KINDS
    assert dns_kind(rest) in {*KINDS, k.NONE}
    is_dns_query(rest)


@given(st.integers(0, 255), st.integers(0, 6))
def test_any_byte_of_a_relay_is_counted_as_a_kind_of_the_table(kind: int, protocol: int) -> None:
    """Another end may say anything: what has no name is never counted."""
    tally = Tally()
    for greets in (False, True):
        tally.note(protocol, kind, greets)
    counted = {code for code, count in enumerate(tally.kind_counts()) if count}
    assert counted <= {*KINDS, k.NONE}
