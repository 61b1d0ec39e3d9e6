"""Intercept's packet path: each answer of the target to the tcpcopy that announced its session.

A session is known by all four of mapped address and port, target address and port (the C program
keeps a sum of them, so that sessions of two tcpcopies can be mixed up), of either IP version:
IPv6 sessions are announced over the native relay only. Of one host's connections, the one that
announced a session last gets its answers. An answer that comes before the announcement is kept if
it carries SYN or RST. The table is bounded, and sessions leave it when they are idle for long,
ended, removed, or when their connection closes.

Two kinds of announcements are refused, because who connects may be anybody: of a session that
another host has, as long as it lives there, and of one whose client is this host itself: what is
sent to this host's own services is none of a tcpcopy's business. No route leads from an address of
this host, at any time, so the path of an answer does not have to look.

Source: TCPCopy 1.3.0 (`tc_router.c`, `tc_delay.c`) for who gets what, not for how it is kept.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.segment import copy_bytes
from tcpcopy.relay.classic import MESSAGE_BYTES, MessageType
from tcpcopy.relay.headers import check_v4, check_v6, read32
from tcpcopy.relay.native import MESSAGE_V6_BYTES
from tcpcopy.relay.own import OwnAddresses
from tcpcopy.relay.records import Peer, RecordWriter
from tcpcopy.relay.route import Route
from tcpcopy.report.outcome import DROP_SLOTS, Drop

_FOREIGN = int(Drop.FOREIGN)
_CLOSED_SESSION = int(Drop.CLOSED_SESSION)
_OWN_ADDRESS = int(Drop.OWN_ADDRESS)
_MESSAGE_BYTES = MESSAGE_BYTES
_MESSAGE_V6_BYTES = MESSAGE_V6_BYTES
_REMOVE = int(MessageType.REMOVE)
_FIN, _SYN, _RST = 0x01, 0x02, 0x04
_NO_ADDRESS = 1 << 32  # above all of IPv4
_EARLY_PER_SESSION = 4  # a SYN-ACK sent again a few times, or a RST after it
_EARLY_BYTES = 248  # both headers with all their options, and what a record has of the payload
_NAME_BYTES = 36  # both addresses and ports of IPv6, as they stand in a packet
_CLIENT_AT = 16  # in such a name
# After its end a session is its host's for so long, or until the host itself has removed it.
_KEPT_NS = 10_000_000_000


class AnswerRouter(PacketHandler):
    """Packs each answer for the connection that announced its session.

    The owner sets `now_ns` (monotonic) before it feeds packets, and then sends what the writers
    of `take_ready()` hold. Of the answers captured, each is counted once: in `relayed`, `kept`,
    `lost` or `drops`. Not thread-safe.
    """

    __slots__ = (
        "_early",  # session number or name: list of answers kept for it
        "_early_limit",  # most sessions in _early
        "_early_ns",  # how long they are kept
        "_early_queue",  # deque of (expiry, session number, list), oldest first
        "_ended",  # head of the list of ended sessions
        "_ended_ns",  # how long an ended session stays after its last answer
        "_idle_ns",  # how long any other stays
        "_ignore_target",  # 1: sessions are known without the target's address
        "_live",  # head of the list of all other sessions
        "_own",  # OwnAddresses: what is this host itself
        "_purge_ended",  # sessions of the list that may belong to closed connections
        "_purge_live",
        "_ready",  # writers with something to send
        "_replaced",  # destination address that stands for ...
        "_replacement",  # ... this one; both _NO_ADDRESS: none
        "_routes",  # key: Route, further ones through Route.sibling
        "_routes_v6",  # name: Route
        "_session_limit",
        "_sessions",  # routes in the table
        "_single",  # writers that get, in turn, the answers that nobody has announced
        "announced",  # sessions added, again or not
        "answers",  # answers captured
        "drops",  # by report.outcome.Drop
        "early_expired",  # of `kept`, never announced in time or pushed out
        "early_sent",  # of `kept`, sent when the session was announced
        "evicted",  # sessions pushed out because the table was full
        "expired",  # sessions that left because they were idle or ended
        "kept",  # answers kept because their session was not announced yet
        "lost",  # answers lost because their tcpcopy reads too slowly
        "now_ns",
        "refused",  # sessions not taken, because their tcpcopy had too many
        "refused_own",  # sessions not taken, or let go, because their client is this host
        "refused_taken",  # sessions not taken, because they are another host's
        "relayed",  # answers packed for a connection at once
    )

    def __init__(
        self,
        *,
        session_limit: int = 524_288,
        idle_ns: int = 1_200_000_000_000,
        ended_ns: int = 300_000_000_000,
        early_limit: int = 65536,
        early_ns: int = 5_000_000_000,
        replaced_address: bytes = b"",
        original_address: bytes = b"",
        ignore_target: bool = False,
    ) -> None:
        self._early: dict[int | bytes, list[tuple[bytes, int, int, int]]] = {}
        self._early_limit = early_limit
        self._early_ns = early_ns
        self._early_queue: deque[tuple[int, int | bytes, list[tuple[bytes, int, int, int]]]] = (
            deque()
        )
        self._ended = Route()
        self._ended_ns = ended_ns
        self._idle_ns = idle_ns
        self._ignore_target = int(ignore_target)
        self._live = Route()
        self._own = OwnAddresses()
        self._purge_ended = 0
        self._purge_live = 0
        self._ready: list[RecordWriter] = []
        self._replaced = _NO_ADDRESS
        self._replacement = _NO_ADDRESS
        if replaced_address:
            self._replaced = int.from_bytes(replaced_address, "big")
            self._replacement = int.from_bytes(original_address, "big")
        self._routes: dict[int, Route] = {}
        self._routes_v6: dict[bytes, Route] = {}
        self._session_limit = session_limit
        self._sessions = 0
        self._single: list[RecordWriter] = []
        self.announced = 0
        self.answers = 0
        self.drops = [0] * DROP_SLOTS
        self.early_expired = 0
        self.early_sent = 0
        self.evicted = 0
        self.expired = 0
        self.kept = 0
        self.lost = 0
        self.now_ns = 0
        self.refused = 0
        self.refused_own = 0
        self.refused_taken = 0
        self.relayed = 0

    @property
    def sessions(self) -> int:
        """Sessions in the table, those that have ended a short while ago included."""
        return self._sessions

    @property
    def early_sessions(self) -> int:
        """Sessions that have answers waiting for their announcement."""
        return len(self._early)

    # --- the packet path ----------------------------------------------------------------------

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Route one captured answer; returns 0, or the Drop number when it is of no use."""
        self.answers += 1
        if start >= 0 and start + 40 <= end <= len(data) and data[start] >> 4 == 6:
            return self._packet_v6(data, start, end, wire_length, timestamp_ns)
        reason = check_v4(data, start, end)
        if reason:
            self.drops[reason] += 1
            return reason
        tcp = start + ((data[start] & 15) << 2)
        target = read32(data, start + 12)
        client = read32(data, start + 16)
        destination = -1
        if client == self._replaced:
            client = destination = self._replacement
        client_port = (data[tcp + 2] << 8) | data[tcp + 3]
        target_port = (data[tcp] << 8) | data[tcp + 1]
        flags = data[tcp + 13]
        key = (client << 32) | (client_port << 16) | target_port
        route = self._find(key, target)
        if route is not None and not route.writer.closed:  # type: ignore[union-attr]
            return self._relay(
                route, data, start, end, destination, flags, wire_length, timestamp_ns
            )
        if self._own.has_v4(client):
            self.drops[_OWN_ADDRESS] += 1
            return _OWN_ADDRESS
        if self._single:
            route = self._give(route, key, target)
            return self._relay(
                route, data, start, end, destination, flags, wire_length, timestamp_ns
            )
        if not flags & (_SYN | _RST):
            self.drops[_FOREIGN] += 1
            return _FOREIGN
        kept = (copy_bytes(data, start, min(end - start, _EARLY_BYTES)), destination)
        return self._keep(self._session_number(key, target), (*kept, wire_length, timestamp_ns))

    def _packet_v6(
        self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int
    ) -> int:
        reason = check_v6(data, start, end, wire_length)
        if reason:
            self.drops[reason] += 1
            return reason
        name = copy_bytes(data, start + 8, _NAME_BYTES)
        if self._ignore_target:
            name = name[_CLIENT_AT:]
        flags = data[start + 53]
        route = self._routes_v6.get(name)
        if route is not None and not route.writer.closed:  # type: ignore[union-attr]
            return self._relay(route, data, start, end, -1, flags, wire_length, timestamp_ns)
        if self._own.has_v6(copy_bytes(data, start + 24, _CLIENT_AT)):
            self.drops[_OWN_ADDRESS] += 1
            return _OWN_ADDRESS
        if not flags & (_SYN | _RST):
            self.drops[_FOREIGN] += 1
            return _FOREIGN
        kept = copy_bytes(data, start, min(end - start, _EARLY_BYTES))
        return self._keep(name, (kept, -1, wire_length, timestamp_ns))

    def _relay(
        self,
        route: Route,
        data: Any,
        start: int,
        end: int,
        destination: int,
        flags: int,
        wire_length: int,
        timestamp_ns: int,
    ) -> int:
        """Pack an answer for the connection of its session."""
        if route.removed:
            self.drops[_CLOSED_SESSION] += 1
            return _CLOSED_SESSION
        writer = route.writer
        if writer.unsure:  # type: ignore[union-attr]
            route.judge(flags, self.now_ns)
        route.active_ns = self.now_ns
        if flags & (_FIN | _RST) and not route.ended:
            self._end(route)
        if writer.append(data, start, end, destination, wire_length, timestamp_ns):  # type: ignore[union-attr]
            self.relayed += 1
        else:
            self.lost += 1
        if not writer.queued:  # type: ignore[union-attr]
            self._queue(writer)  # type: ignore[arg-type]
        return 0

    def _give(self, route: Route | None, key: int, target: int) -> Route:
        """The session of an answer that nobody has announced, of a tcpcopy that announces none."""
        if route is None:
            route = self._add(key, 0 if self._ignore_target else target)
        # All of a session over one connection, or its answers would come in another order.
        turn = (key >> 32) + (key >> 16 & 0xFFFF)
        self._attach(self._single[turn % len(self._single)], route)
        return route

    def _find(self, key: int, target: int) -> Route | None:
        route = self._routes.get(key)
        if self._ignore_target:
            return route
        while route is not None and route.target != target:
            route = route.sibling
        return route

    def _queue(self, writer: RecordWriter) -> None:
        writer.queued = True
        self._ready.append(writer)

    def _keep(self, number: int | bytes, answer: tuple[bytes, int, int, int]) -> int:
        """Keep an answer that may open a session which is about to be announced."""
        answers = self._early.get(number)
        if answers is None:
            self._make_early_room()
            answers = self._early[number] = []
            self._early_queue.append((self.now_ns + self._early_ns, number, answers))
        if len(answers) >= _EARLY_PER_SESSION:
            self.drops[_FOREIGN] += 1
            return _FOREIGN
        answers.append(answer)
        self.kept += 1
        return 0

    # --- sessions -----------------------------------------------------------------------------

    def messages(self, writer: RecordWriter, data: Any) -> None:
        """Take what a tcpcopy said on the connection of `writer`: whole messages of known types."""
        for start in range(0, len(data), _MESSAGE_BYTES):
            client = read32(data, start)
            client_port = (data[start + 4] << 8) | data[start + 5]
            target_port = (data[start + 12] << 8) | data[start + 13]
            key = (client << 32) | (client_port << 16) | target_port
            target = 0 if self._ignore_target else read32(data, start + 8)
            if data[start + 7] == _REMOVE:
                self._take_remove(writer, self._find(key, target))
            else:
                self._take_add(writer, key, target)

    def messages_v6(self, writer: RecordWriter, data: bytes) -> None:
        """The same for sessions of IPv6 (`native.MESSAGE_V6`)."""
        for start in range(0, len(data), _MESSAGE_V6_BYTES):
            name = data[start : start + _NAME_BYTES]
            if self._ignore_target:
                name = name[_CLIENT_AT:]
            route = self._routes_v6.get(name)
            if data[start + _NAME_BYTES + 1] == _REMOVE:
                self._take_remove(writer, route)
                continue
            self.announced += 1
            if self._own.has_v6(data[start + _CLIENT_AT : start + 2 * _CLIENT_AT]):
                self._refuse_own(writer)
                continue
            if not self._admits(writer, route):
                continue
            if route is None:
                route = self._new_route()
                route.name = name
                self._routes_v6[name] = route
            self._attach(writer, route)
            if self._early:
                self._send_early(writer, name)

    def _take_remove(self, writer: RecordWriter, route: Route | None) -> None:
        # Said by another connection, it may be about a session that has been added since.
        if route is not None and route.writer is writer and not route.removed:
            route.active_ns = self.now_ns
            route.removed = 1
            if not route.ended:
                self._end(route)

    def _take_add(self, writer: RecordWriter, key: int, target: int) -> None:
        self.announced += 1
        if self._own.has_v4(key >> 32):
            self._refuse_own(writer)
            return
        route = self._find(key, target)
        if not self._admits(writer, route):
            return
        if route is None:
            route = self._add(key, target)
        self._attach(writer, route)
        if self._early:
            self._send_early(writer, self._session_number(key, target))

    def _admits(self, writer: RecordWriter, route: Route | None) -> int:
        """Whether the tcpcopy of this connection may have the session."""
        peer = writer.peer
        if route is not None and self._is_held(route, peer):
            peer.taken += 1
            self.refused_taken += 1
            return 0
        if peer.sessions < peer.limit and (
            route is not None
            or self._sessions < self._session_limit
            or peer.sessions <= self._session_limit >> 1
            or peer.sessions == self._sessions
        ):
            return 1  # one that has most of a full table does not push out those of others
        if route is not None and route.writer.peer is peer:  # type: ignore[union-attr]
            return 1
        peer.refused += 1
        self.refused += 1
        return 0

    def _is_held(self, route: Route, peer: Peer) -> int:
        """Whether the session is another host's, and lives."""
        writer = route.writer
        if writer is None or writer.closed or writer.peer is peer or route.removed:
            return 0
        return not route.ended or route.active_ns + _KEPT_NS > self.now_ns

    def holds(self, peer: Peer, client: bytes, port: int, target: bytes, target_port: int) -> bool:
        """Whether answers of the target to this client go to a connection of this host."""
        route: Route | None
        if len(client) == 4:
            key = (int.from_bytes(client, "big") << 32) | (port << 16) | target_port
            route = self._find(key, 0 if self._ignore_target else int.from_bytes(target, "big"))
        else:
            name = target + client + target_port.to_bytes(2, "big") + port.to_bytes(2, "big")
            route = self._routes_v6.get(name[_CLIENT_AT:] if self._ignore_target else name)
        if route is None or route.removed or route.writer is None:
            return False
        return route.writer.peer is peer and not route.writer.closed

    # --- this host's own addresses ------------------------------------------------------------

    def set_own(self, own: OwnAddresses) -> int:
        """What is this host itself now; returns the sessions let go for it."""
        self._own = own
        gone = 0
        for head in (self._live, self._ended):
            route = head.newer
            while route is not head:
                following = route.newer
                if self._leads_here(route):
                    self._remove(route)
                    gone += 1
                route = following
        self.refused_own += gone
        return gone

    def _leads_here(self, route: Route) -> bool:
        if route.name is None:
            return bool(self._own.has_v4(route.key >> 32))
        at = len(route.name) - _NAME_BYTES + _CLIENT_AT
        return bool(self._own.has_v6(route.name[at : at + _CLIENT_AT]))

    def _refuse_own(self, writer: RecordWriter) -> None:
        writer.peer.own += 1
        self.refused_own += 1

    # --- who gets what ------------------------------------------------------------------------

    def _attach(self, writer: RecordWriter, route: Route) -> None:
        """From now on the session's answers go to this connection."""
        if route.ended:
            route.answered = 0
            route.ended = 0
            route.removed = 0
            self._move(route, self._live)
        route.active_ns = self.now_ns
        if route.writer is not writer:
            if route.writer is not None:
                _count_session(route.writer.peer, -1)
            route.writer = writer
            _count_session(writer.peer, 1)

    def set_single(self, writers: list[RecordWriter]) -> None:
        """Hand the answers that nobody has announced to these connections in turn; none: to nobody.

        Those kept until now go out first.
        """
        self._single = writers
        if not writers:
            return
        for number in list(self._early):
            if isinstance(number, int):
                key, target = number >> 32, number & 0xFFFFFFFF
                route = self._give(self._find(key, target), key, target)
                route.answered = 1
                self._send_early(route.writer, number)  # type: ignore[arg-type]

    def kept_since_ns(self) -> int:
        """Since when an answer of IPv4 has been waiting for its announcement; -1: none is."""
        for expiry_ns, number, answers in self._early_queue:
            if isinstance(number, int) and self._early.get(number) is answers:
                return expiry_ns - self._early_ns
        return -1

    def connection_closed(self) -> None:
        """A connection has gone, its writer closed: its sessions leave with the next sweeps."""
        self._purge_live = self._sessions
        self._purge_ended = self._sessions

    def take_ready(self) -> list[RecordWriter]:
        """The writers that hold something to send; they have to be asked for it now."""
        ready = self._ready
        self._ready = []
        for writer in ready:
            writer.queued = False
        return ready

    def sweep(self, now_ns: int, budget: int = 20_000) -> None:
        """Forget what has been there for too long; looks at most at `budget` sessions a list."""
        self.now_ns = now_ns
        self._purge_live = self._sweep_list(self._live, self._idle_ns, self._purge_live, budget)
        self._purge_ended = self._sweep_list(self._ended, self._ended_ns, self._purge_ended, budget)
        queue = self._early_queue
        while queue and queue[0][0] <= now_ns:
            self._drop_oldest_early()

    def clear(self) -> None:
        """Forget all sessions and answers kept."""
        for head in (self._live, self._ended):
            while head.newer is not head:
                self._remove(head.newer)
        while self._early_queue:
            self._drop_oldest_early()

    def _add(self, key: int, target: int) -> Route:
        route = self._new_route()
        route.key = key
        route.target = target
        route.sibling = self._routes.get(key)
        self._routes[key] = route
        return route

    def _new_route(self) -> Route:
        """A route in the list of live ones, and in no table yet."""
        if self._sessions >= self._session_limit:
            head = self._ended if self._ended.newer is not self._ended else self._live
            self._remove(head.newer)
            self.evicted += 1
        route = Route.__new__(Route)
        route.active_ns = 0
        route.answered = 0
        route.ended = 0
        route.key = 0
        route.name = None
        route.removed = 0
        route.sibling = None
        route.target = 0
        route.writer = None
        route.checked_ns = self.now_ns
        route.link_newest(self._live)
        self._sessions += 1
        return route

    def _end(self, route: Route) -> None:
        route.ended = 1
        self._move(route, self._ended)

    def _move(self, route: Route, head: Route) -> None:
        route.unlink()
        route.checked_ns = self.now_ns
        route.link_newest(head)

    def _remove(self, route: Route) -> None:
        route.unlink()
        self._sessions -= 1
        if route.writer is not None:
            _count_session(route.writer.peer, -1)
        if route.name is not None:
            del self._routes_v6[route.name]
            return
        first = self._routes[route.key]
        if first is route:
            if route.sibling is None:
                del self._routes[route.key]
            else:
                self._routes[route.key] = route.sibling
        else:
            while first.sibling is not route:
                first = first.sibling  # type: ignore[assignment]  # it is in the chain
            first.sibling = route.sibling
        route.sibling = None

    def _sweep_list(self, head: Route, timeout_ns: int, purge: int, budget: int) -> int:
        """Go over the old end of a list; returns how many are still to be looked at to purge.

        Lists are in order of when a session was last looked at, not of its last answer, so that
        an answer costs nothing here: who was active since gets a second turn.
        """
        route = head.newer
        while budget > 0 and route is not head:
            if purge <= 0 and route.checked_ns + timeout_ns > self.now_ns:
                break
            following = route.newer
            if route.active_ns + timeout_ns <= self.now_ns or route.writer.closed:  # type: ignore[union-attr]
                self._remove(route)
                self.expired += 1
            else:
                route.unlink()
                route.checked_ns = self.now_ns
                route.link_newest(head)
            route = following
            purge -= 1
            budget -= 1
        return purge if purge > 0 and route is not head else 0

    # --- answers that came early ---------------------------------------------------------------

    def _session_number(self, key: int, target: int) -> int:
        return (key << 32) | (0 if self._ignore_target else target)

    def _send_early(self, writer: RecordWriter, number: int | bytes) -> None:
        answers = self._early.pop(number, None)
        if answers is None:
            return
        for data, destination, wire_length, timestamp_ns in answers:
            if writer.append(data, 0, len(data), destination, wire_length, timestamp_ns):
                self.early_sent += 1
            else:
                self.early_expired += 1
        if not writer.queued:
            self._queue(writer)

    def _make_early_room(self) -> None:
        while self._early_queue and (
            len(self._early) >= self._early_limit or len(self._early_queue) >= 2 * self._early_limit
        ):
            self._drop_oldest_early()

    def _drop_oldest_early(self) -> None:
        _, number, answers = self._early_queue.popleft()
        if self._early.get(number) is answers:
            del self._early[number]
            self.early_expired += len(answers)


def _count_session(peer: Peer, change: int) -> None:
    peer.sessions += change
