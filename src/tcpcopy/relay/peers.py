"""Which tcpcopies intercept lets in, what each holds, and what is logged of those it refuses.

A peer is a host: all connections from one address. Everything here is bounded, whoever knocks.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from tcpcopy.relay.records import Peer

_log = logging.getLogger("tcpcopy.relay")
_MOST_REMEMBERED: Final = 1024
# A refusal is logged once a peer and reason in so long, however often it comes.
_LOG_AGAIN_NS: Final = 60_000_000_000
# Connections coming and going: so many lines a host in that time, and of so many hosts.
_LINES: Final = 64

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Peers:
    """The hosts that have connections or sessions. Not thread-safe."""

    def __init__(
        self, *, allowed: Sequence[Network] = (), limit: int = 64, sessions: int = 1 << 40
    ) -> None:
        """`allowed`: networks to connect from, none: all; `limit`: hosts with connections at a
        time; `sessions`: of one host.
        """
        self._allowed = tuple(allowed)
        self._connections: dict[str, int] = {}  # that are no longer in the handshake, by address
        self._limit = limit
        self._lines: dict[str, int] = {}  # logged of a host, in this minute
        self._lines_since_ns = 0
        self._peers: dict[str, Peer] = {}
        self._refused: OrderedDict[tuple[str, str], int] = OrderedDict()  # when logged last
        self._sessions = sessions

    @property
    def count(self) -> int:
        """Hosts that have connections."""
        return len(self._connections)

    def is_allowed(self, address: str) -> bool:
        """Whether a host may connect at all."""
        if not self._allowed:
            return True
        found = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self._allowed)

    def has_room(self, address: str) -> bool:
        """Whether one more connection of this host keeps the number of hosts within its limit."""
        return address in self._connections or len(self._connections) < self._limit

    def most_connected(self, than: str) -> str:
        """The host with the most connections, if it has at least two more than `than`, else ""."""
        if not self._connections:
            return ""
        most = max(self._connections, key=self._connections.__getitem__)
        return most if self._connections[most] > self._connections.get(than, 0) + 1 else ""

    def connected(self, address: str) -> Peer:
        """A connection of the host has come up; what its sessions are counted in."""
        self._connections[address] = self._connections.get(address, 0) + 1
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = Peer(address, self._sessions)
        return peer

    def closed(self, address: str) -> None:
        """A connection that was up is gone; the sessions it announced leave a little later."""
        left = self._connections[address] - 1
        if left:
            self._connections[address] = left
        else:
            del self._connections[address]

    def look(self, now_ns: int) -> None:
        """Say whose sessions were refused, and let go of hosts that hold nothing any more."""
        if now_ns - self._lines_since_ns >= _LOG_AGAIN_NS:
            self._lines_since_ns = now_ns
            self._lines.clear()
        for address, peer in list(self._peers.items()):
            self._look_at_sessions(peer, now_ns)
            if not peer.sessions and address not in self._connections:
                del self._peers[address]

    def _look_at_sessions(self, peer: Peer, now_ns: int) -> None:
        """Say why sessions of a host were refused."""
        for count, reason in (
            (peer.refused, f"it has {peer.limit} sessions, which is the most (--max-sessions)"),
            (peer.taken, "it is another tcpcopy's, and lives"),
            (peer.own, "its client is an address of this host"),
        ):
            if count:
                self.log_refusal(peer.address, reason, now_ns, what="session of tcpcopy")

    def log(self, address: str, text: str, *values: object) -> None:
        """Log what became of a connection, unless there have been too many of its host."""
        lines = self._lines.get(address, 0)
        if lines > _LINES or (not lines and len(self._lines) >= _MOST_REMEMBERED):
            return
        self._lines[address] = lines + 1
        _log.info(text, *values)
        if lines == _LINES:
            _log.warning("tcpcopy %s: its other connections are not logged for a while", address)

    def log_refusal(self, address: str, reason: str, now_ns: int, *, what: str = "tcpcopy") -> None:
        """Log why a connection is refused, unless that was said of this host a short while ago."""
        last = self._refused.get((address, reason))
        if last is not None and now_ns - last < _LOG_AGAIN_NS:
            return
        self._refused[address, reason] = now_ns
        self._refused.move_to_end((address, reason))
        if len(self._refused) > _MOST_REMEMBERED:
            self._refused.popitem(last=False)
        _log.warning("%s %s refused: %s", what, address, reason)
