"""Which kind of answer is this? Told from its first bytes, which nobody keeps.

`kind_of` looks at the answer alone, as intercept has nothing else; `protocol_of` at what the client
sent. Only both together are sure (`settle`): bytes that would be an error of another protocol are
an ordinary reply. Any bytes are allowed, none raise, and what is looked at is bounded.

Source: RFC 9112 (4), the Redis serialization protocol, MySQL's client/server protocol (ERR_Packet,
HandshakeV10), PostgreSQL's frontend/backend protocol (message formats), RFC 8446 (5.1, 6),
RFC 5246 (6.2.1, 7.2), RFC 1035 (4.1.1, 4.2.2).
"""

from __future__ import annotations

import cython

from tcpcopy.said import kinds as k

#: So many bytes at the start of an answer are looked at.
LOOKED_AT = 128

_LOOKED_AT = LOOKED_AT
_NONE = k.NONE
_OTHER = k.OTHER
_HTTP_1XX = k.HTTP_1XX
_HTTP_101 = k.HTTP_101
_GREETING = k.GREETING
_MYSQL_GREETING = k.MYSQL_GREETING
_TLS_ENCRYPTED = k.TLS_ENCRYPTED_ALERT
_TLS_CLOSE = k.TLS_CLOSE_NOTIFY
_TLS_WARNING = k.TLS_WARNING
_DNS_RCODE = k.DNS_RCODE
_UNKNOWN = k.UNKNOWN
_HTTP = k.HTTP
_RESP = k.RESP
_MYSQL = k.MYSQL
_POSTGRESQL = k.POSTGRESQL
_TLS = k.TLS
_DNS = k.DNS
_RESP_ERROR = k.RESP_ERROR
_MYSQL_ERROR = k.MYSQL_ERROR
_POSTGRESQL_ERROR = k.POSTGRESQL_ERROR
_POSTGRESQL_FATAL = k.POSTGRESQL_FATAL
_TLS_FATAL = k.TLS_FATAL
_LONGEST_WORD = 16
_MOST_MESSAGES = 16  # of PostgreSQL, that may come before an error in one answer
_LONGEST_ERROR = 4096  # MySQL; its message has at most 512 characters
_LONGEST_STARTUP = 10000  # PostgreSQL

_WORDS: dict[bytes, int] = {
    word.encode(): k.RESP_ERROR + at for at, word in enumerate(k.RESP_WORDS)
}
_OTHER_WORD = k.RESP_ERROR + len(k.RESP_WORDS)
_NUMBERS: dict[int, int] = {number: k.MYSQL_ERROR + at for at, number in enumerate(k.MYSQL_NUMBERS)}
_OTHER_NUMBER = k.MYSQL_ERROR + len(k.MYSQL_NUMBERS)
_CLASSES: dict[bytes, int] = {state.encode(): at for at, state in enumerate(k.SQLSTATE_CLASSES)}
_OTHER_CLASS: int = cython.cast(cython.int, len(k.SQLSTATE_CLASSES))
_ALERTS: dict[int, int] = {number: k.TLS_FATAL + at for at, number in enumerate(k.TLS_ALERTS)}
_OTHER_ALERT = k.TLS_FATAL + len(k.TLS_ALERTS)
_METHODS = (
    b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ",
    b"TRACE ", b"PROPFIND ", b"REPORT ", b"PURGE ", b"MKCOL ", b"COPY ", b"MOVE ", b"LOCK ",
)  # fmt: skip
_BEFORE_ERROR = frozenset(b"123CDNSntTZ")  # messages of PostgreSQL that may come before an error
_COMMANDS = frozenset(b"QPBEDSCHXFfp")  # of its clients
_RESP_REPLY = k.RESP_REPLY
_MYSQL_REPLY = k.MYSQL_REPLY
_POSTGRESQL_REPLY = k.POSTGRESQL_REPLY
_TLS_RECORD = k.TLS_RECORD


def kind_of(data: bytes) -> int:
    """What an answer that begins with `data` may be: a kind, OTHER, or NONE for no bytes.

    RESP, MySQL, PostgreSQL, TLS and DNS: an error, or OTHER; only `settle` knows their replies.
    """
    size = len(data)
    if size == 0:
        return _NONE
    first = data[0]
    kind = _OTHER
    if first == 72:  # H
        kind = _http(data)
    elif first == 45 or first == 33:  # - and !
        kind = _resp(data)
    elif first == 0x15 and size >= 7 and data[1] == 3 and data[2] <= 4:
        kind = _alert(data)
    if kind != _OTHER:
        return kind
    if size >= 7 and data[2] == 0 and (data[4] == 0xFF or (data[4] == 10 and data[3] == 0)):
        kind = _mysql(data)
        if kind != _OTHER:
            return kind
    if size >= 14 and data[4] & 0xF8 == 0x80 and data[6] == 0 and data[7] <= 1:
        length = data[0] << 8 | data[1]
        if length >= 12:
            return _DNS_RCODE + (data[5] & 15)
    return _postgresql(data)


def _http(data: bytes) -> int:
    """`HTTP/1.1 200`; an interim answer gives way to the final one when that is there, too."""
    at = 0
    kind = _OTHER
    while len(data) >= at + 12 and _is_status_line(data, at):
        hundreds = data[at + 9] - 48
        if hundreds < 1 or hundreds > 5:
            break
        kind = _HTTP_1XX + hundreds - 1
        if hundreds > 1:
            break
        if data[at + 10] == 48 and data[at + 11] == 49:
            return _HTTP_101
        ends = data.find(b"\r\n\r\n", at)
        if ends < 0:
            break
        at = ends + 4
    return kind


def _is_status_line(data: bytes, at: int) -> bool:
    """`HTTP/1.x ` stands at `at`, where there are 12 bytes; by bytes, as slices would be copies."""
    return (
        data[at] == 72
        and data[at + 1] == 84
        and data[at + 2] == 84
        and data[at + 3] == 80
        and data[at + 4] == 47
        and data[at + 5] == 49
        and data[at + 6] == 46
        and data[at + 8] == 32
    )


def _resp(data: bytes) -> int:
    """`-WORD text`, or in RESP3 `!21\\r\\nWORD text`."""
    start = 1
    if data[0] == 33:
        start = data.find(b"\r\n") + 2
        if start < 4 or not 48 <= data[1] <= 57:
            return _OTHER
    end = start
    most = min(len(data), start + _LONGEST_WORD)
    while end < most and 65 <= data[end] <= 90:
        end += 1
    if end == start:
        return _OTHER
    return _WORDS.get(data[start:end], _OTHER_WORD)


def _alert(data: bytes) -> int:
    if data[3] != 0 or data[4] != 2:
        return _TLS_ENCRYPTED
    if data[6] == 0:
        return _TLS_CLOSE
    if data[5] == 1:
        return _TLS_WARNING
    return _ALERTS.get(data[6], _OTHER_ALERT)


def _mysql(data: bytes) -> int:
    """A greeting, an error, or OTHER."""
    length = data[0] | data[1] << 8
    if data[4] == 10:
        # Protocol 10, then the version in digits.
        return _MYSQL_GREETING if length >= 20 and 48 <= data[5] <= 57 else _OTHER
    number = data[5] | data[6] << 8
    if length < 3 or length > _LONGEST_ERROR or number < 1000:
        return _OTHER
    return _NUMBERS.get(number, _OTHER_NUMBER)


def _postgresql(data: bytes) -> int:
    """ErrorResponse, also behind messages that may come before one in the same answer."""
    size = len(data)
    at = 0
    for _ in range(_MOST_MESSAGES):
        if at + 7 > size or data[at + 1] != 0:
            break
        length = (data[at + 2] << 16) | (data[at + 3] << 8) | data[at + 4]
        if data[at] == 69:  # E
            return _error_response(data, at + 5)
        if length < 4 or data[at] not in _BEFORE_ERROR:
            break
        at += 1 + length
    return _OTHER


def _error_response(data: bytes, at: int) -> int:
    """Its fields: a letter each, then text up to a zero byte; V and C, or S for V before 9.6."""
    if data[at] != 83:  # S is always the first
        return _OTHER
    base = _POSTGRESQL_ERROR
    for _ in range(4):
        if at >= len(data):
            break
        code = data[at]
        end = data.find(b"\0", at)
        if end < 0:
            end = len(data)
        if (code == 83 or code == 86) and data[at + 1 : at + 6] in (b"FATAL", b"PANIC"):
            base = _POSTGRESQL_FATAL
        elif code == 67:
            return base + _CLASSES.get(data[at + 1 : at + 3], _OTHER_CLASS)
        at = end + 1
    return base + _OTHER_CLASS


def dns_kind(data: bytes) -> int:
    """What a datagram of a DNS server says: its rcode, or OTHER."""
    if len(data) < 12:
        return _NONE if len(data) == 0 else _OTHER
    if data[2] & 0xF8 != 0x80 or data[4] != 0 or data[5] > 1:
        return _OTHER
    return _DNS_RCODE + (data[3] & 15)


def is_dns_query(data: bytes) -> bool:
    """A datagram that asks a DNS server one question."""
    return len(data) >= 17 and _is_question(data, 0)


def _is_question(data: bytes, at: int) -> bool:
    """QR 0, opcode 0, rcode 0, one question, no answers (RFC 1035, 4.1.1)."""
    return (
        data[at + 2] & 0xF8 == 0
        and data[at + 3] & 0x4F == 0
        and data[at + 4] == 0
        and data[at + 5] == 1
        and data[at + 6] == 0
        and data[at + 7] == 0
        and data[at + 8] == 0
        and data[at + 9] == 0
        and data[at + 10] == 0
    )


def protocol_of(known: int, data: bytes) -> int:
    """The protocol of a client that sends `data` at the start of a turn; `known`: until now.

    A TLS handshake may begin on a connection that spoke something else before.
    """
    size = len(data)
    if size < 2:
        return known
    first = data[0]
    if first == 0x16 and size >= 6 and data[1] == 3 and data[2] <= 4 and data[5] == 1:
        return _TLS
    if known != _UNKNOWN:
        return known
    if first == 42 and 48 <= data[1] <= 57:  # *
        return _RESP
    if 67 <= first <= 84 and data.startswith(_METHODS):
        return _HTTP
    if size < 5:
        return _UNKNOWN
    length = data[0] | data[1] << 8
    if data[2] == 0 and data[3] == 0 and 1 <= data[4] <= 31 and length == size - 4:
        return _MYSQL
    if first == 0 and size >= 8 and _is_startup(data):
        return _POSTGRESQL
    if size >= 19 and (first << 8 | data[1]) == size - 2 and _is_question(data, 2):
        return _DNS
    return _POSTGRESQL if _is_command(data) else _UNKNOWN


def _is_startup(data: bytes) -> bool:
    """StartupMessage of protocol 3, SSLRequest or GSSENCRequest."""
    length = (data[1] << 16) | (data[2] << 8) | data[3]
    if length < 8 or length > _LONGEST_STARTUP:
        return False
    high = data[4] << 8 | data[5]
    return high == 3 or (high == 1234 and data[6] == 22 and (data[7] == 47 or data[7] == 48))


def _is_command(data: bytes) -> bool:
    """Whole messages of a PostgreSQL client from the first byte to the last."""
    size = len(data)
    at = 0
    for _ in range(_MOST_MESSAGES):
        if at + 5 > size or data[at] not in _COMMANDS or data[at + 1] != 0:
            return False
        length = (data[at + 2] << 16) | (data[at + 3] << 8) | data[at + 4]
        if length < 4:
            return False
        at += 1 + length
        if at == size:
            return True
    return False


def settle(protocol: int, kind: int) -> int:
    """The kind to count, of an answer that may be `kind`, to a client that speaks `protocol`."""
    if _HTTP_1XX <= kind <= _HTTP_101:
        return kind  # nothing else looks like that
    if protocol == _RESP:
        return kind if _RESP_ERROR <= kind <= _OTHER_WORD else _RESP_REPLY
    if protocol == _MYSQL:
        return kind if _MYSQL_ERROR <= kind <= _OTHER_NUMBER else _MYSQL_REPLY
    if protocol == _POSTGRESQL:
        if _POSTGRESQL_ERROR <= kind <= _POSTGRESQL_FATAL + _OTHER_CLASS:
            return kind
        return _POSTGRESQL_REPLY
    if protocol == _TLS:
        return kind if _TLS_RECORD <= kind <= _OTHER_ALERT else _TLS_RECORD
    if protocol == _DNS:
        return kind if kind >= _DNS_RCODE and kind < _DNS_RCODE + 16 else _OTHER
    return _OTHER


def settle_greeting(kind: int) -> int:
    """The same for what a server says before the client has asked for anything."""
    if kind == _MYSQL_GREETING or _HTTP_1XX <= kind <= _HTTP_101:
        return kind
    # "Too many connections", "host is not allowed": MySQL's errors come in place of its greeting.
    return kind if _MYSQL_ERROR <= kind <= _OTHER_NUMBER else _GREETING
