"""Finding out that a C intercept was built --single: it hands answers to connections in turn.

It takes no notice of announcements, so that answers come over connections that have not announced
their session. Any other build sends an answer where the session was announced. The SYN-ACKs tell:
the first few are looked at, then the decoders hand on what they have directly.

Of connections that are gone such an intercept knows only when a new one comes more than three
seconds after the first of the present ones: until then their share of the sessions gets no answers.

Source: intercept 1.0.0 (`tc_router.c: choose_fd`, `tc_server_common.c:
tc_intercept_check_tunnel_for_single`).
"""

from __future__ import annotations

import logging
from typing import Any, Final

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.relay.connection import Connection, LiveSession, Server

_log = logging.getLogger("tcpcopy.relay")
#: With all connections made anew after so long, the intercept forgets those that are gone.
RENEW_NS: Final = 5_000_000_000
_ENOUGH_ELSEWHERE: Final = 2
_ENOUGH_IN_PLACE: Final = 16
_MOST_SESSIONS: Final = 512
_SYN_ACK: Final = 0x12


class TurnWatch:
    """Where the answers of one intercept come, and where they were asked for."""

    __slots__ = ("_announced", "_elsewhere", "_in_place", "_is_full", "is_over", "is_single")

    def __init__(self) -> None:
        self._announced: dict[bytes, Connection] = {}  # by mapped address and port
        self._elsewhere = self._in_place = 0
        self._is_full = False
        self.is_over = False  # it is known
        self.is_single = False

    def announced(self, connection: Connection, session: LiveSession) -> None:
        """A session of IPv4 was announced over this connection."""
        if len(self._announced) < _MOST_SESSIONS:
            self._announced[session[0] + session[1].to_bytes(2, "big")] = connection
        else:
            self._is_full = True

    def of(self, connection: Connection, handler: PacketHandler) -> PacketHandler:
        """A handler for the answers of this connection, which hands them on."""
        return _Watched(self, connection, handler)

    def answered(self, connection: Connection, client: bytes) -> None:
        """A SYN-ACK for this mapped address and port came over this connection."""
        where = self._announced.get(client)
        if where is connection:
            self._in_place += 1
            # Both of two connections by chance: once in 65,536 times.
            self.is_over = self._in_place >= _ENOUGH_IN_PLACE and not self._elsewhere
        elif where is not None or not self._is_full:
            self._elsewhere += 1
            if self._elsewhere >= _ENOUGH_ELSEWHERE and 4 * self._elsewhere >= self._in_place:
                self.is_single = self.is_over = True

    def end(self, server: Server, handler: PacketHandler, now_ns: int) -> None:
        """It is known: let the decoders hand on to `handler`, and note what was found."""
        for connection in server.connections:
            if connection.decoder is not None:
                connection.decoder.hand_to(handler)
        if not self.is_single:
            return
        _log.warning(
            "intercept %s hands answers to the connections in turn: taken for a C intercept built"
            " --single; what the probe said of missing answers does not hold; --single at this"
            " tcpcopy does without finding out, and --workers does not go with it",
            server.name,
        )
        server.is_single = True
        server.resumed = None
        since_ns = max(connection.since_ns for connection in server.connections)
        server.renew_ns = max(now_ns, since_ns + RENEW_NS)


class _Watched(PacketHandler):
    """Shows SYN-ACKs to the watch; hands all on."""

    def __init__(self, watch: TurnWatch, connection: Connection, handler: PacketHandler) -> None:
        self._watch = watch
        self._connection = connection
        self._handler = handler

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        if not self._watch.is_over and data[start + 33] & _SYN_ACK == _SYN_ACK:
            client = bytes(data[start + 16 : start + 20]) + bytes(data[start + 22 : start + 24])
            self._watch.answered(self._connection, client)
        return self._handler.packet(data, start, end, wire_length, timestamp_ns)
