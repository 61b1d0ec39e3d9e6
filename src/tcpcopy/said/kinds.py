"""The kinds of answers: one closed table, each kind a number that fits a byte.

A kind says which protocol an answer spoke, and what it said in its first bytes: the hundred of an
HTTP status, the first word of a RESP error, the number of a MySQL error, the SQLSTATE class of a
PostgreSQL one, a TLS alert, a DNS rcode. Nothing else of an answer is kept. The native relay
carries these numbers, so they never change their meaning; new kinds take free numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIND_SLOTS: Final = 256

# Protocols, known from what the client sends (MySQL also from the server's greeting).
UNKNOWN, HTTP, RESP, MYSQL, POSTGRESQL, TLS, DNS = range(7)
PROTOCOLS: Final = ("", "HTTP", "RESP", "MySQL", "PostgreSQL", "TLS", "DNS")

NONE: Final = 0  # nothing was looked at
OTHER: Final = 1  # nothing that is known
HTTP_1XX: Final = 2  # an interim answer: another follows
HTTP_2XX: Final = 3
HTTP_3XX: Final = 4
HTTP_4XX: Final = 5
HTTP_5XX: Final = 6
HTTP_101: Final = 7  # the end of HTTP on this connection
GREETING: Final = 8  # said before the client had asked for anything
MYSQL_GREETING: Final = 9
RESP_REPLY: Final = 10
RESP_ERROR: Final = 11  # words below, then any other word
MYSQL_REPLY: Final = 40
MYSQL_ERROR: Final = 41  # numbers below, then any other number
POSTGRESQL_REPLY: Final = 90
POSTGRESQL_ERROR: Final = 91  # classes below, then any other class
POSTGRESQL_FATAL: Final = 135  # the same for FATAL and PANIC
TLS_RECORD: Final = 180
TLS_ENCRYPTED_ALERT: Final = 181
TLS_CLOSE_NOTIFY: Final = 182
TLS_WARNING: Final = 183
TLS_FATAL: Final = 184  # descriptions below, then any other
DNS_RCODE: Final = 224  # 0 to 15

RESP_WORDS: Final = (
    "ERR", "NOAUTH", "WRONGPASS", "NOPERM", "MOVED", "ASK", "CLUSTERDOWN", "CROSSSLOT", "TRYAGAIN",
    "READONLY", "LOADING", "MASTERDOWN", "MISCONF", "OOM", "BUSY", "NOSCRIPT", "WRONGTYPE",
    "EXECABORT", "NOREPLICAS", "BUSYKEY", "BUSYGROUP", "NOGROUP", "NOPROTO", "UNKILLABLE",
    "DENIED", "INPROG",
)  # fmt: skip
#: Error number: what it means, in a word or two.
MYSQL_NUMBERS: Final = {
    1040: "too many connections", 1043: "bad handshake", 1044: "database access denied",
    1045: "access denied", 1046: "no database selected", 1047: "unknown command",
    1049: "unknown database", 1050: "table exists", 1054: "unknown column",
    1062: "duplicate entry", 1064: "syntax error", 1105: "unknown error", 1129: "host blocked",
    1130: "host not allowed", 1142: "command denied", 1146: "no such table",
    1153: "packet too large", 1156: "packets out of order", 1205: "lock wait timeout",
    1210: "wrong arguments", 1213: "deadlock", 1226: "user limit reached",
    1227: "privilege needed", 1243: "unknown prepared statement", 1251: "client too old",
    1290: "server option forbids it", 1305: "no such function", 1317: "query interrupted",
    1364: "no default value", 1366: "incorrect value", 1406: "data too long",
    1451: "foreign key (parent)", 1452: "foreign key (child)", 1461: "too many statements",
    1524: "plugin not loaded", 1698: "access denied, no password", 1792: "read-only transaction",
    1820: "password must be changed", 1835: "malformed packet", 1836: "read-only mode",
    1862: "password expired", 1969: "statement timeout", 3024: "statement timeout",
    3159: "TLS required", 4031: "idle too long", 4151: "account locked",
}  # fmt: skip
#: SQLSTATE class: what it means.
SQLSTATE_CLASSES: Final = {
    "00": "success", "01": "warning", "02": "no data", "03": "statement not complete",
    "08": "connection", "09": "trigger", "0A": "not supported", "0B": "transaction initiation",
    "0F": "locator", "0L": "grantor", "0P": "role", "0Z": "diagnostics", "20": "case",
    "21": "cardinality", "22": "data", "23": "constraint", "24": "cursor state",
    "25": "transaction state", "26": "unknown prepared statement", "27": "triggered change",
    "28": "log-in refused", "2B": "dependent privileges", "2D": "transaction termination",
    "2F": "SQL routine", "34": "unknown cursor or portal", "38": "external routine",
    "39": "external routine call", "3B": "savepoint", "3D": "unknown database",
    "3F": "unknown schema", "40": "transaction rollback", "42": "syntax or access rule",
    "44": "WITH CHECK", "53": "resources", "54": "program limit", "55": "object state",
    "57": "operator intervention", "58": "system", "72": "snapshot", "F0": "configuration file",
    "HV": "foreign data", "P0": "PL/pgSQL", "XX": "internal",
}  # fmt: skip
#: Alert description: its name in RFC 8446 (6) or RFC 5246 (7.2).
TLS_ALERTS: Final = {
    10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed", 22: "record_overflow",
    30: "decompression_failure", 40: "handshake_failure", 41: "no_certificate",
    42: "bad_certificate", 43: "unsupported_certificate", 44: "certificate_revoked",
    45: "certificate_expired", 46: "certificate_unknown", 47: "illegal_parameter",
    48: "unknown_ca", 49: "access_denied", 50: "decode_error", 51: "decrypt_error",
    60: "export_restriction", 70: "protocol_version", 71: "insufficient_security",
    80: "internal_error", 86: "inappropriate_fallback", 90: "user_canceled",
    100: "no_renegotiation", 109: "missing_extension", 110: "unsupported_extension",
    111: "certificate_unobtainable", 112: "unrecognized_name",
    113: "bad_certificate_status_response", 115: "unknown_psk_identity",
    116: "certificate_required", 120: "no_application_protocol",
}  # fmt: skip
_RCODES: Final = (
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
    "NXRRSET", "NOTAUTH", "NOTZONE", "DSOTYPENI", "rcode 12", "rcode 13", "rcode 14", "rcode 15",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """What the numbers mean, for people and programs."""

    code: int
    protocol: str  # one of PROTOCOLS, "" for none
    name: str  # within its protocol: "5xx", "NOAUTH", "1045 access denied"
    is_error: bool
    counts: bool = True  # as an answer; a greeting and an interim answer do not

    @property
    def text(self) -> str:
        """`HTTP 5xx`, `MySQL error 1045 (access denied)`."""
        return f"{self.protocol} {self.name}" if self.protocol else self.name


def _all() -> dict[int, Kind]:
    kinds = [
        Kind(OTHER, "", "other", False),
        Kind(GREETING, "", "greeting", False, False),
        Kind(HTTP_1XX, "HTTP", "1xx", False, False),
        Kind(HTTP_2XX, "HTTP", "2xx", False),
        Kind(HTTP_3XX, "HTTP", "3xx", False),
        Kind(HTTP_4XX, "HTTP", "4xx", True),
        Kind(HTTP_5XX, "HTTP", "5xx", True),
        Kind(HTTP_101, "HTTP", "101", False),
        Kind(MYSQL_GREETING, "MySQL", "greeting", False, False),
        Kind(RESP_REPLY, "RESP", "reply", False),
        Kind(MYSQL_REPLY, "MySQL", "reply", False),
        Kind(POSTGRESQL_REPLY, "PostgreSQL", "reply", False),
        Kind(TLS_RECORD, "TLS", "record", False),
        Kind(TLS_ENCRYPTED_ALERT, "TLS", "alert, encrypted", False),
        Kind(TLS_CLOSE_NOTIFY, "TLS", "alert close_notify", False),
        Kind(TLS_WARNING, "TLS", "alert, warning", False),
    ]
    words = [f"error {word}" for word in RESP_WORDS]
    kinds += _errors(RESP_ERROR, "RESP", [*words, "error, another"])
    numbers = [f"error {number} ({text})" for number, text in MYSQL_NUMBERS.items()]
    kinds += _errors(MYSQL_ERROR, "MySQL", [*numbers, "error, another"])
    for base, severity in ((POSTGRESQL_ERROR, "ERROR"), (POSTGRESQL_FATAL, "FATAL")):
        states = [f"{severity} {state} ({text})" for state, text in SQLSTATE_CLASSES.items()]
        kinds += _errors(base, "PostgreSQL", [*states, f"{severity}, another class"])
    alerts = [f"alert {name}" for name in TLS_ALERTS.values()]
    kinds += _errors(TLS_FATAL, "TLS", [*alerts, "alert, another"])
    kinds += [
        Kind(DNS_RCODE + number, "DNS", name, number != 0) for number, name in enumerate(_RCODES)
    ]
    return {kind.code: kind for kind in kinds}


def _errors(base: int, protocol: str, names: list[str]) -> list[Kind]:
    return [Kind(base + at, protocol, name, True) for at, name in enumerate(names)]


#: Every kind by its number.
KINDS: Final = _all()
