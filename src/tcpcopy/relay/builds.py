"""Builds of the C tcpcopy that intercept has to find out about, and what it does for each.

`configure --single`: it announces no sessions, and the intercept of its kind hands every answer to
its connections in turn. `configure --disable-combined`: it takes records without counts. Neither
says so. What tells of the first: answers wait for an announcement, and the only tcpcopy that is
connected has never announced anything. What tells of the second is in `route.Route.judge`.

Source: TCPCopy 1.3.0 (`tc_session.c`, `tc_message_module.c`), intercept 1.0.0 (`tc_router.c:
choose_fd`, `tc_server_common.c: tc_intercept_check_tunnel_for_single`).
"""

from __future__ import annotations

import logging

from tcpcopy.relay.peers import Peers
from tcpcopy.relay.records import RecordWriter
from tcpcopy.relay.router import AnswerRouter

_log = logging.getLogger("tcpcopy.relay")
# A C tcpcopy announces a session before it sends the SYN: an answer waits for a moment at most.
_WAITS_NS = 250_000_000
# One that reads batches closes a connection as soon as it gets a record without a count.
_REFUSES_NS = 5_000_000_000


class _Known:
    """A connection of a tcpcopy."""

    __slots__ = (
        "address",
        "bare_ns",  # since when it gets bare records; 0: it does not, or always did
        "is_classic",
        "is_quiet",  # it has announced nothing yet
        "writer",
    )

    def __init__(self, writer: RecordWriter, address: str, is_classic: bool) -> None:
        self.address = address
        self.bare_ns = 0
        self.is_classic = is_classic
        self.is_quiet = True
        self.writer = writer


class Builds:
    """What is known of the tcpcopies that are connected. Not thread-safe."""

    def __init__(
        self,
        router: AnswerRouter,
        peers: Peers,
        *,
        is_single: bool = False,
        guesses_single: bool = False,
        guesses_bare: bool = False,
    ) -> None:
        """`is_single`: told so; `guesses_...`: may be found out.

        Who announces nothing gets answers that it does not know of beforehand: not for anybody.
        """
        self._router = router
        self._peers = peers
        self._told = is_single
        self._guesses_single = guesses_single
        self._guesses_bare = guesses_bare
        self._known: dict[int, _Known] = {}  # by the writer's number, the oldest first
        self._reads_batches: set[str] = set()  # hosts of which that turned out
        self._single = ""  # the host that gets what nobody has announced
        self._warned = ""  # the host that was warned of last

    def connected(self, writer: RecordWriter, address: str, *, is_classic: bool) -> None:
        """A connection has come up."""
        self._known[writer.identity] = _Known(writer, address, is_classic)
        if not is_classic:
            self._stop_guess()
            return
        writer.unsure = self._guesses_bare and address not in self._reads_batches
        if self._told:
            # As in C: the latest host takes over from one that was there before.
            if self._single and self._single != address:
                _log.warning(
                    "tcpcopy %s gets the answers from now on, %s no more: --single is for one"
                    " tcpcopy; without it each announces its own sessions",
                    address, self._single,
                )  # fmt: skip
            self._hand_to(address)
        elif self._single == address:
            self._hand_to(address)

    def announced(self, writer: RecordWriter) -> None:
        """Sessions were announced over this connection."""
        known = self._known.get(writer.identity)
        if known is not None and known.is_quiet:
            known.is_quiet = False
            self._stop_guess()

    def closed(self, writer: RecordWriter, now_ns: int) -> None:
        """A connection has gone."""
        known = self._known.pop(writer.identity, None)
        if known is None:
            return
        if known.bare_ns and now_ns - known.bare_ns < _REFUSES_NS:
            self._reads_batches.add(known.address)
            if len(self._reads_batches) > 64:
                self._reads_batches.clear()
        if known.address == self._single:
            others = [other for other in self._known.values() if other.is_classic]
            if self._told and others and not self._writers_of(self._single):
                self._single = others[-1].address
            self._hand_to(self._single)

    def look(self, now_ns: int) -> None:
        """Find out what there is to find out; call a few times a second."""
        for known in self._known.values():
            if known.writer.went_bare and not known.bare_ns:
                known.bare_ns = now_ns
                self._peers.log(
                    known.address,
                    "tcpcopy %s does not act on answers in batches: taken for a C tcpcopy built"
                    " --disable-combined, it gets them one by one from now on; --disable-combined"
                    " at this intercept does so from the start",
                    known.address,
                )
        if self._told or self._single:
            return
        since_ns = self._router.kept_since_ns()
        if since_ns < 0 or now_ns - since_ns < _WAITS_NS:
            return
        address = self._quiet_host()
        if not address:
            return
        if self._guesses_single:
            _log.warning(
                "tcpcopy %s announces no sessions, and answers wait: taken for a C tcpcopy built"
                " --single, it gets all that nobody has announced; --single at this intercept does"
                " so from the start",
                address,
            )
            self._hand_to(address)
        elif self._warned != address:
            self._warned = address
            _log.warning(
                "tcpcopy %s announces no sessions, and answers wait: if it is a C tcpcopy built"
                " --single, give --single here; or -F FILTER or --allow, with which that is found"
                " out (else anybody who connects could have any answer)",
                address,
            )

    def _quiet_host(self) -> str:
        """The host whose connections are all there is, and have announced nothing; "": none."""
        hosts = {known.address for known in self._known.values()}
        if len(hosts) != 1:
            return ""
        if not all(known.is_classic and known.is_quiet for known in self._known.values()):
            return ""
        return hosts.pop()

    def _writers_of(self, address: str) -> list[RecordWriter]:
        return [k.writer for k in self._known.values() if k.is_classic and k.address == address]

    def _hand_to(self, address: str) -> None:
        writers = self._writers_of(address)
        self._single = address if writers else ""
        self._router.set_single(writers)

    def _stop_guess(self) -> None:
        """Somebody announces: what was guessed of a host that did not is open again."""
        if self._single and not self._told:
            _log.info("sessions are announced: %s gets no others any more", self._single)
            self._hand_to("")
