"""What the targets said: counts of kinds of answers, and how they read in every report.

Known from the target's side alone: online's answers are not captured, so an error here may have
been one there as well. Of bytes both sides are known, online's from its clients' acknowledgements.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tcpcopy.report.text import byte_size, number, per_cent, plural
from tcpcopy.said import kinds
from tcpcopy.said.kinds import KINDS, Kind

if TYPE_CHECKING:
    from tcpcopy.report.counters import Snapshot

# Errors worth a finding: 5 and more than 1 of 100 answers (a stray 404 or key error is everyday,
# and below 5 a share means nothing), or half of all answers, however few.
_LEAST_ERRORS = 5
_ERRORS_PERCENT = 1
_MOSTLY_PERCENT = 50
# Bytes worth a finding: half or double, where either side has sent 16 KiB. Other server names,
# dates and error pages are small: below that they are the whole difference.
_LEAST_BYTES = 16 * 1024
_FACTOR = 2
_KINDS_SHOWN = 6
_KINDS_IN_HEADLINE = 2


@dataclass(slots=True)
class Said:
    """The answers of one target."""

    counts: list[int] = field(default_factory=lambda: [0] * kinds.KIND_SLOTS)  # by kind
    sessions: int = 0  # compared by bytes: begun in the capture, answered
    bytes_online: int = 0  # that online's server had sent in them
    bytes_target: int = 0  # that the target had sent at the same places

    @property
    def lengths_only(self) -> int:
        """Answers of which no byte was seen."""
        return self.counts[kinds.NONE]

    @property
    def answers(self) -> int:
        """Answers looked at; greetings and interim answers are none."""
        return sum(count for kind, count in self.items() if kind.counts)

    @property
    def errors(self) -> int:
        """Of the answers looked at, those that were errors."""
        return sum(count for kind, count in self.items() if kind.is_error)

    def items(self) -> Iterator[tuple[Kind, int]]:
        """Each kind that occurred with its count, in the order of the table."""
        return ((kind, self.counts[code]) for code, kind in KINDS.items() if self.counts[code])

    def most(self, *, errors_only: bool = False) -> list[tuple[Kind, int]]:
        """The same, the largest count first."""
        found = [pair for pair in self.items() if pair[0].is_error or not errors_only]
        return sorted(found, key=lambda pair: -pair[1])

    @property
    def differs(self) -> bool:
        """Whether the bytes answered are far from online's."""
        less, more = sorted((self.bytes_online, self.bytes_target))
        return more >= _LEAST_BYTES and more > _FACTOR * less

    @property
    def mostly_errors(self) -> bool:
        """Whether errors are many enough for a finding."""
        errors, answers = self.errors, self.answers
        if errors * 100 >= answers * _MOSTLY_PERCENT:
            return errors > 0
        return errors >= _LEAST_ERRORS and errors * 100 > answers * _ERRORS_PERCENT

    def to_dict(self) -> dict[str, Any]:
        """Plain data; kinds that did not occur are left out."""
        return {
            "counts": {str(code): count for code, count in enumerate(self.counts) if count},
            "sessions": self.sessions,
            "bytes_online": self.bytes_online,
            "bytes_target": self.bytes_target,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Said:
        """What `to_dict` gave. Raises: KeyError, TypeError, ValueError, IndexError."""
        said = cls(
            sessions=data["sessions"],
            bytes_online=data["bytes_online"],
            bytes_target=data["bytes_target"],
        )
        for code, count in data["counts"].items():
            said.counts[int(code)] = count
        return said


#: Keys of the JSON report, as `schema.FIELDS`.
FIELDS: Final = {
    "said[].target": "address and port of a target",
    "said[].answers": "answers looked at: the first bytes after a turn of the client",
    "said[].errors": "of these, errors",
    "said[].lengths_only": "answers of which no byte was seen, only their length",
    "said[].kinds[].protocol": "HTTP, RESP, MySQL, PostgreSQL, TLS or DNS, empty: not known",
    "said[].kinds[].kind": "what was said: 5xx, error NOAUTH, alert handshake_failure",
    "said[].kinds[].error": "whether that is an error",
    "said[].kinds[].count": "how many; greetings and HTTP 1xx stand here and are no answers",
    "said[].bytes.sessions": "sessions whose answers are known by length on both sides",
    "said[].bytes.online": "bytes that online answered in these, from acknowledgements",
    "said[].bytes.target": "bytes that the target had answered at the same places",
}


def report(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The key `said` of the JSON report."""
    return [
        {
            "target": target,
            "answers": said.answers,
            "errors": said.errors,
            "lengths_only": said.lengths_only,
            "kinds": [
                {
                    "protocol": kind.protocol,
                    "kind": kind.name,
                    "error": kind.is_error,
                    "count": count,
                }
                for kind, count in said.items()
            ],
            "bytes": {
                "sessions": said.sessions,
                "online": said.bytes_online,
                "target": said.bytes_target,
            },
        }
        for target, said in sorted(snapshot.said.items())
    ]


def _total(snapshot: Snapshot) -> Said:
    total = Said()
    for said in snapshot.said.values():
        total.counts = [a + b for a, b in zip(total.counts, said.counts, strict=True)]
    return total


def in_headline(snapshot: Snapshot) -> str:
    """What the headline says of answers that were errors, or far from online's; "" for nothing."""
    total = _total(snapshot)
    parts = []
    if total.errors:
        parts.append(
            f"the target answered with errors: {_looked_at(total)}"
            f" ({_named(total.most(errors_only=True), _KINDS_IN_HEADLINE)})"
        )
    parts += [
        f"{target} answered {byte_size(said.bytes_target)} where online answered"
        f" {byte_size(said.bytes_online)}"
        for target, said in sorted(snapshot.said.items())
        if said.differs
    ][:1]
    return " and ".join(parts)


def _looked_at(said: Said) -> str:
    """`20 of 25 answers looked at`."""
    return f"{number(said.errors)} of {plural(said.answers, 'answer')} looked at"


def _named(counted: list[tuple[Kind, int]], most: int) -> str:
    """`HTTP 5xx 120, HTTP 4xx 3, 2 more kinds`."""
    shown = [f"{kind.text} {number(count)}" for kind, count in counted[:most]]
    left = len(counted) - most
    return ", ".join([*shown, *([plural(left, "more kind")] if left > 0 else [])])


def in_line(snapshot: Snapshot) -> str:
    """The short form for the log's line: `errors 120 of 5,000`, or ""."""
    total = _total(snapshot)
    return f"errors {number(total.errors)} of {number(total.answers)}" if total.errors else ""


def rows(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Rows of the summary, for each target: the kinds of its answers, and bytes."""
    found = []
    several = len(snapshot.said) > 1
    for target, said in sorted(snapshot.said.items()):
        where = f"{target}: " if several else ""
        if any(said.counts[1:]):
            text = (
                f"{plural(said.answers, 'answer')} looked at: {_named(said.most(), _KINDS_SHOWN)}"
            )
            found.append(("target said", where + text))
        if said.lengths_only:
            text = f"{plural(said.lengths_only, 'answer')} known by length alone"
            found.append(("target said", where + text))
        if said.sessions:
            share = per_cent(said.bytes_target, said.bytes_online)
            of_online = f" ({share} of it)" if said.bytes_online else ""
            text = (
                f"{byte_size(said.bytes_online)} by online,"
                f" {byte_size(said.bytes_target)} by the target{of_online},"
                f" in {plural(said.sessions, 'session')}"
            )
            found.append(("answered", where + text))
    return found


FoundText = tuple[str, str, int, str, tuple[str, ...]]


def findings(snapshot: Snapshot) -> list[FoundText]:
    """Key, level, count, text and remedy of each finding."""
    found: list[FoundText] = []
    for target, said in sorted(snapshot.said.items()):
        if said.mostly_errors:
            worst = said.most(errors_only=True)
            text = (
                f"{target} answered with errors: {_looked_at(said)}"
                f" ({per_cent(said.errors, said.answers)}):"
                f" {_named(worst, _KINDS_SHOWN)}; whether online did so, too, is not known"
            )
            cause, remedy = _cause(worst[0][0])
            found.append(("target_errors", "warning", said.errors, f"{text}. {cause}", remedy))
        if said.differs:
            text = (
                f"{target} answered {byte_size(said.bytes_target)} where online answered"
                f" {byte_size(said.bytes_online)}, in {plural(said.sessions, 'session')} known on"
                " both sides: other data, other pages, or errors"
            )
            remedy = (
                "send one request to both by hand and compare; load the target with online's data",
            )
            found.append(("answer_bytes_differ", "warning", said.sessions, text, remedy))
        if said.lengths_only and not said.answers:
            text = (
                f"what {target} said is not known: only the lengths of its answers came here"
                " (intercept is a C program, or one of an older version)"
            )
            remedy = ("run the intercept of this version to see errors of the target",)
            found.append(("said_unknown", "note", said.lengths_only, text, remedy))
    return found


def _cause(kind: Kind) -> tuple[str, tuple[str, ...]]:
    """Likely cause and mend of the commonest error."""
    for first, last, cause, remedy in _CAUSES:
        if first <= kind.code <= last:
            return cause, remedy
    return "", ()


def _code(base: int, names: Mapping[Any, str] | tuple[str, ...], name: object) -> int:
    return base + list(names).index(name)


def _mysql(error: int) -> int:
    return _code(kinds.MYSQL_ERROR, kinds.MYSQL_NUMBERS, error)


def _state(base: int, state: str) -> int:
    return _code(base, kinds.SQLSTATE_CLASSES, state)


_LOG_IN = (
    "a captured answer to a challenge fits no other connection: give the users whose traffic is"
    " copied a log-in without one, at both servers (PostgreSQL: trust or password; MySQL and"
    " MariaDB: an empty password)",
)
_LOAD = ("load online's data and schema into the target before the replay",)
_LOGS = ("the error log of the target says why",)
_TLS_MEND = (
    "copy behind the end of TLS: on the host and port where the requests are in clear",
    "TLS that was recorded fits only the server and the moment that it was made with",
)


def _one(code: int, cause: str, remedy: tuple[str, ...]) -> tuple[int, int, str, tuple[str, ...]]:
    return code, code, cause, remedy


#: First and last kind, the likely cause, the mend; the first that fits.
_CAUSES: Final = (
    _one(kinds.HTTP_5XX, "The target's application, or what it needs, fails", _LOGS),
    _one(
        kinds.HTTP_4XX,
        "It does not know the pages, users or sessions of online, or does not let them in",
        ("send one request by hand and look at the status", *_LOAD),
    ),
    (
        _code(kinds.RESP_ERROR, kinds.RESP_WORDS, "NOAUTH"),
        _code(kinds.RESP_ERROR, kinds.RESP_WORDS, "NOPERM"),
        "It has another password or other users than online",
        ("give the target the password and the users of online (requirepass, ACL)",),
    ),
    (
        _code(kinds.RESP_ERROR, kinds.RESP_WORDS, "MOVED"),
        _code(kinds.RESP_ERROR, kinds.RESP_WORDS, "TRYAGAIN"),
        "It is a cluster that has these keys on another node",
        ("use a target without cluster mode, or one with the slots of online's node",),
    ),
    _one(
        _code(kinds.RESP_ERROR, kinds.RESP_WORDS, "READONLY"),
        "It is a replica, which takes no writes",
        ("make it a primary: REPLICAOF NO ONE",),
    ),
    (kinds.RESP_ERROR, kinds.MYSQL_REPLY - 1, "It refuses what online's clients ask", _LOGS),
    *(
        _one(_mysql(error), "It does not let these log-ins in: they are bound to online", _LOG_IN)
        for error in (1043, 1044, 1045, 1130, 1251, 1524, 1698)
    ),
    _one(
        _mysql(1243),
        "It numbers prepared statements in another way, or never prepared them",
        ("capture connections from their beginning (-O leaves out the others)", *_LOAD),
    ),
    *(
        _one(_mysql(error), "It does not have online's databases or tables", _LOAD)
        for error in (1046, 1049, 1054, 1146)
    ),
    (kinds.MYSQL_ERROR, kinds.POSTGRESQL_REPLY - 1, "It refuses what online's clients ask", _LOGS),
    *(
        _one(_state(base, "28"), "It does not let these log-ins in", _LOG_IN)
        for base in (kinds.POSTGRESQL_ERROR, kinds.POSTGRESQL_FATAL)
    ),
    *(
        _one(_state(base, state), "It does not have online's databases, tables or users", _LOAD)
        for base in (kinds.POSTGRESQL_ERROR, kinds.POSTGRESQL_FATAL)
        for state in ("3D", "3F", "42")
    ),
    (kinds.POSTGRESQL_ERROR, kinds.TLS_RECORD - 1, "It refuses what online's clients ask", _LOGS),
    (kinds.TLS_FATAL, kinds.DNS_RCODE - 1, "It ends the TLS handshakes or records", _TLS_MEND),
    (
        kinds.DNS_RCODE + 1,
        kinds.DNS_RCODE + 15,
        "It does not serve these zones, or not to this client",
        ("give the target online's zones, forwarders and access rules",),
    ),
)
