"""Which protocol the first bytes of a connection look like.

Called once for each side of a connection; a guess, good enough for a report.

Source: RFC 9112, RFC 9113 (3.4), RFC 8446 (5.1), RFC 4253 (4.2), MySQL's handshake packet,
PostgreSQL's start-up message, the protocol texts of Redis and memcached, RFC 1035.
"""

from __future__ import annotations

UNKNOWN = 0
NAMES = (
    "unknown",
    "HTTP/1",
    "HTTP/2",
    "TLS",
    "MySQL",
    "PostgreSQL",
    "Redis",
    "memcached",
    "SSH",
    "DNS",
)
_HTTP1, _HTTP2, _TLS, _MYSQL, _POSTGRESQL, _REDIS, _MEMCACHED, _SSH, _DNS = range(1, len(NAMES))

FIRST_BYTES = 24  # as many of a side's first bytes are looked at

_STARTS = (
    (b"PRI * HTTP/2.0", _HTTP2),
    (b"SSH-", _SSH),
    *(
        (method + b" ", _HTTP1)
        for method in (
            *(b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT"),
            b"TRACE",
        )
    ),
    (b"HTTP/1.", _HTTP1),
    *(
        (command + b" ", _MEMCACHED)
        for command in (
            *(b"get", b"gets", b"gat", b"gats", b"set", b"add", b"replace", b"append", b"prepend"),
            *(b"cas", b"delete", b"incr", b"decr", b"touch", b"mg", b"ms", b"md", b"ma"),
        )
    ),
    (b"version\r\n", _MEMCACHED),
    (b"stats\r\n", _MEMCACHED),
    (b"flush_all", _MEMCACHED),
    (b"PING\r\n", _REDIS),
)
# 3.0, SSLRequest, GSSENCRequest, CancelRequest
_POSTGRESQL_CODES = (196608, 80877103, 80877104, 80877102)
_LOG_IN_ERROR = 0xFF  # a MySQL server that refuses at once


def by_stream(first: bytes, size: int) -> int:
    """The number in NAMES of what a TCP payload that begins with `first` looks like.

    `size` is the length of the whole payload, of which `first` is at most FIRST_BYTES.
    """
    for start, protocol in _STARTS:
        if first.startswith(start):
            return protocol
    if len(first) >= 6 and first[0] == 0x16 and first[1] == 3 and first[5] in (1, 2):
        return _TLS
    if len(first) >= 4 and first[0:1] == b"*" and first[1:2].isdigit() and b"\r\n$" in first:
        return _REDIS
    if len(first) >= 8:
        if int.from_bytes(first[4:8], "big") in _POSTGRESQL_CODES:
            return _POSTGRESQL
        length = int.from_bytes(first[:3], "little")
        if length + 4 == size and first[3] == 0 and first[4] in (10, _LOG_IN_ERROR):
            return _MYSQL
        # The binary protocol: magic, a known command, no data type.
        if first[0] in (0x80, 0x81) and first[1] < 0x40 and first[5] == 0 and size >= 24:
            return _MEMCACHED
    return UNKNOWN


def by_datagram(first: bytes, size: int, port: int) -> int:
    """As `by_stream`, for a UDP payload to or from `port`."""
    if port not in (53, 5353, 5355) or size < 12 or len(first) < 12:
        return UNKNOWN
    questions = int.from_bytes(first[4:6], "big")
    operation = first[2] >> 3 & 15
    return _DNS if questions <= 16 and operation <= 6 else UNKNOWN
