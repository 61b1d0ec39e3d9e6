"""What one target has said: counts of the kinds of its answers, and bytes beside online's."""

from __future__ import annotations

from array import array

from tcpcopy.said import kinds
from tcpcopy.said.answer import settle, settle_greeting

_SLOTS = kinds.KIND_SLOTS
_NONE = kinds.NONE
_HTTP_1XX = kinds.HTTP_1XX
_MYSQL_GREETING = kinds.MYSQL_GREETING
_MYSQL = kinds.MYSQL
_UNKNOWN = kinds.UNKNOWN
LOOK_AGAIN = 1 << 8  # `note` says so: this was an interim answer
_LOOK_AGAIN = LOOK_AGAIN


class Tally:
    """The counts of one target. Not thread-safe."""

    __slots__ = (
        "bytes_online",  # that online's server had sent at the same places, as clients acknowledged
        "bytes_target",  # that the target had sent in the sessions compared
        "kinds",  # array by kind; slot 0 counts answers of which only the length was told
        "sessions",  # compared by bytes
    )

    def __init__(self) -> None:
        self.kinds = array("q", bytes(8 * _SLOTS))
        self.bytes_online = 0
        self.bytes_target = 0
        self.sessions = 0

    def note(self, protocol: int, kind: int, greets: bool) -> int:
        """Count an answer; the protocol known now, plus LOOK_AGAIN when another follows.

        `kind`: as `answer.kind_of` said, NONE when no bytes were seen. `greets`: the client has not
        asked for anything yet.
        """
        if kind != _NONE:
            kind = settle_greeting(kind) if greets else settle(protocol, kind)
        self.kinds[kind] += 1
        if kind == _MYSQL_GREETING and protocol == _UNKNOWN:
            return _MYSQL
        return protocol | _LOOK_AGAIN if kind == _HTTP_1XX else protocol

    def note_bytes(self, online: int, target: int) -> None:
        """Count how much both had sent in one session, at the same place of it."""
        self.sessions += 1
        self.bytes_online += online
        self.bytes_target += target

    def kind_counts(self) -> list[int]:
        """A copy, indexed by kind."""
        return list(self.kinds)
