"""Opening sessions: which targets and copies, under which identity, with which replayed half.

This runs once for each captured connection; it decides what is left out (-r, -g, -O), what is shed
(memory, sessions, no free port) and counts it.
"""

from __future__ import annotations

import traceback
from typing import Any

import cython

from tcpcopy.engine.client import TcpClient
from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.flows import FlowKey
from tcpcopy.engine.kernel import KernelClient, Transport
from tcpcopy.engine.outcome import Drop, Outcome
from tcpcopy.engine.ports import Announcer, Identities, Sampling, Target, Transfers
from tcpcopy.engine.replayed import Replayed
from tcpcopy.engine.session import Session
from tcpcopy.ledger import Ledger
from tcpcopy.packet.segment import Segment, destination_address, source_address

_INTERNAL_ERROR = int(Outcome.INTERNAL_ERROR)
_MASK = 0xFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_NO_ADDRESS = int(Outcome.NO_ADDRESS)
_SHED_MEMORY = int(Outcome.SHED_MEMORY)
_SHED_SESSIONS = int(Outcome.SHED_SESSIONS)
_SKIPPED_RATE = int(Outcome.SKIPPED_RATE)
_SKIPPED_PARTIAL = int(Outcome.SKIPPED_PARTIAL)
_SKIPPED_SAMPLING = int(Outcome.SKIPPED_SAMPLING)
_SHED_SESSION = int(Drop.SHED_SESSION)
_SKIPPED_SESSION = int(Drop.SKIPPED_SESSION)


class Opener:
    """Makes sessions. With a `transport` they use kernel sockets, else the engine's own TCP."""

    __slots__ = (
        "announcer",  # told of each packet session before its SYN, or None
        "answer_key",  # of the session that is being made
        "context",
        "copies",  # -n
        "failure",  # trace of the last exception met here, for the engine to tell; "" when none
        "full_sessions_only",  # -O
        "identities",  # gives mapped addresses and ports; None with a transport
        "last_clients",  # by target address: the mapped address of the last session
        "ledger",  # where packet sessions are written down, or None
        "left_out",  # Drop reason for what follows of a connection without sessions
        "local_addresses",  # to connect from in turn, with a transport
        "max_sessions",  # live at once, 0: no limit
        "memory_is_short",  # set by the owner: new sessions are shed
        "known_address",  # the destination looked up last, and what it came to
        "known_port",
        "known_targets",
        "rate",  # --rate of sessions (mapping.rate.SessionRate), or None
        "shut",  # set by the owner: the outcome of all new sessions; 0: they are let in
        "opened",  # kernel connections made, for taking turns
        "sampling",  # None: all are let in
        "transfers",
        "transport",
    )

    def __init__(
        self,
        config: EngineConfig,
        context: Context,
        *,
        transfers: Transfers,
        identities: Identities | None,
        sampling: Sampling | None,
        copies: int = 1,
        announcer: Announcer | None = None,
        transport: Transport | None = None,
        local_addresses: tuple[bytes, ...] = (),
    ) -> None:
        self.context = context
        self.full_sessions_only = config.full_sessions_only
        self.max_sessions = config.max_sessions
        self.transfers = transfers
        self.identities = identities
        self.sampling = sampling
        self.copies = copies
        self.announcer = announcer
        self.answer_key = FlowKey()
        self.transport = transport
        self.local_addresses = local_addresses
        self.failure = ""
        self.known_address = b""
        self.known_port = 0
        self.known_targets: tuple[Target, ...] = ()
        self.last_clients: dict[bytes, bytes] = {}
        self.ledger: Ledger | None = None
        self.left_out = _SKIPPED_SESSION
        self.memory_is_short = False
        self.opened = 0
        self.rate: Any = None
        self.shut = 0

    def open(
        self, key: FlowKey, segment: Segment, data: Any, is_syn: bool, now_ns: int
    ) -> list[Session] | None:
        """The sessions for a new captured connection; None when -x does not name it.

        Those left out or shed are counted, and not in the list.
        """
        targets = self._targets(segment, data)
        if not targets:
            return None
        client_address = source_address(segment, data)
        counts = self.context.counts
        sessions: list[Session] = []
        reason = self._reason_to_leave_out(client_address, segment.source_port, is_syn, now_ns)
        self.left_out = _SKIPPED_SESSION if reason else _SHED_SESSION
        for target in targets:
            for copy in range(self.copies):
                counts.sessions += 1
                shed = reason or self._reason_to_shed()
                session = None
                if not shed:
                    try:
                        session = self._make(
                            key, target, copy, client_address, segment, is_syn, now_ns
                        )
                        if session is not None and self.rate is not None:
                            shed = self._wait_for_rate(session, now_ns)
                        if session is not None and not shed and session.opens_ns == 0:
                            self.announce(session)
                    except Exception:
                        self.failure = traceback.format_exc()
                        shed = _INTERNAL_ERROR
                if session is not None and shed:
                    self.give_back(session, now_ns)
                    session = None
                if session is None:
                    counts.count_outcome(shed or _NO_ADDRESS)
                    continue
                counts.live += 1
                if counts.live > counts.peak:
                    counts.peak = counts.live
                if not is_syn:
                    counts.picked_up += 1
                sessions.append(session)
        return sessions

    def count_of(self, segment: Segment, data: Any) -> int:
        """How many sessions `open` makes of a connection; 0 when -x does not name it."""
        return len(self._targets(segment, data)) * self.copies

    def is_shedding(self) -> bool:
        """Whether `open` would take no session on now."""
        return self._reason_to_shed() != 0

    def _targets(self, segment: Segment, data: Any) -> tuple[Target, ...]:
        address = destination_address(segment, data)
        if segment.destination_port != self.known_port or address != self.known_address:
            self.known_targets = self.transfers.lookup(address, segment.destination_port)
            self.known_address, self.known_port = address, segment.destination_port
        return self.known_targets

    def _reason_to_leave_out(
        self, client_address: bytes, client_port: int, is_syn: bool, now_ns: int
    ) -> int:
        if not is_syn and self.full_sessions_only:
            return _SKIPPED_PARTIAL
        sampling = self.sampling
        if sampling is not None and not sampling.admit(client_address, client_port, now_ns=now_ns):
            return _SKIPPED_SAMPLING
        return 0

    def _reason_to_shed(self) -> int:
        if self.shut:
            return self.shut
        if self.memory_is_short:
            return _SHED_MEMORY
        if self.max_sessions and self.context.counts.live >= self.max_sessions:
            return _SHED_SESSIONS
        return 0

    def _wait_for_rate(self, session: Session, now_ns: int) -> int:
        """Ask --rate when the session may connect; 0, or the outcome when it may not."""
        clock_ns = self.context.rate_clock_ns(now_ns)
        opens_ns: int = self.rate.admit(clock_ns)
        if opens_ns < 0:
            outcome: int = cython.cast(cython.int, -opens_ns)
            self.left_out = _SKIPPED_SESSION if outcome == _SKIPPED_RATE else _SHED_SESSION
            return outcome
        session.opens_ns = opens_ns if opens_ns > clock_ns else 0
        return 0

    def _make(
        self,
        key: FlowKey,
        target: Target,
        copy: int,
        client_address: bytes,
        segment: Segment,
        is_syn: bool,
        now_ns: int,
    ) -> Session | None:
        session = Session.__new__(Session)
        session.set_up_session(self.context, copy, target)
        session.captured_addresses = key.addresses
        session.captured_ports = cython.cast(cython.uint, key.ports)
        session.captured_wide = key.wide
        isn = segment.seq if is_syn else (segment.seq - 1) & _MASK
        session.captured_isn = cython.cast(cython.uint, isn)
        session.from_syn = cython.cast(cython.uchar, is_syn)
        counts = self.context.counts
        session.tally = counts.tally(target.target_address, target.target_port)
        if self.transport is not None:
            session.replayed = self._kernel_client(session, target, self.transport)
            return session
        assert self.identities is not None
        identity = self.identities.acquire(
            client_address,
            segment.source_port,
            target.target_address,
            target.target_port,
            copy,
            now_ns,
        )
        if identity is None:
            return None
        mapped_address, session.mapped_port = identity
        self.last_clients[target.target_address] = mapped_address
        client = TcpClient.__new__(TcpClient)
        client.set_up_client(
            self.context,
            session,
            mapped_address,
            session.mapped_port,
            target.target_address,
            target.target_port,
        )
        client.rtt_ns = session.rtt_ns
        self._set_syn_options(client, segment, is_syn)
        session.replayed = client
        answers = self.answer_key
        answers.of(target.target_address, target.target_port, mapped_address, session.mapped_port)
        session.answer_addresses = answers.addresses
        session.answer_ports = cython.cast(cython.uint, answers.ports)
        return session

    def announce(self, session: Session) -> int:
        """Write a session down, and tell the intercepts of it, before its SYN."""
        if self.announcer is None and self.ledger is None:
            return 0
        target: Any = session.target
        mapped, port = session.mapped_client()
        address, target_port = target.target_address, target.target_port
        if self.ledger is not None and session.ledger_place == 0:
            place = self.ledger.add(mapped, port, address, target_port)
            session.ledger_place = cython.cast(cython.uint, place)
        if self.announcer is not None:
            self.announcer.announce(mapped, port, address, target_port)
        return 0

    def _set_syn_options(self, client: TcpClient, segment: Segment, is_syn: bool) -> None:
        """The SYN goes with the client's own options, or usual ones when it was not seen."""
        if is_syn:
            client.syn_mss = cython.cast(cython.ushort, segment.mss or 536)
            client.syn_sack = segment.sack_permitted != 0
            client.syn_timestamps = segment.timestamp_present != 0
            client.syn_wscale = cython.cast(cython.schar, segment.window_scale)
            client.syn_window = cython.cast(cython.ushort, segment.window)
        if self.context.mss and (not is_syn or client.syn_mss > self.context.mss):
            client.syn_mss = cython.cast(cython.ushort, self.context.mss)

    def _kernel_client(
        self, session: Session, target: Target, transport: Transport
    ) -> KernelClient:
        address = b""
        if self.local_addresses:
            # In turn: each local address has its own range of ports.
            address = self.local_addresses[self.opened % len(self.local_addresses)]
            self.opened += 1
        client = KernelClient(
            self.context, session, transport, address, target.target_address, target.target_port
        )
        client.owner = session
        return client

    def replace(self, session: Session, now_ns: int) -> int:
        """Give a session whose replayed half has ended another one, which is not opened yet."""
        before = session.replayed
        if isinstance(before, TcpClient):
            old: TcpClient = before
            client = TcpClient.__new__(TcpClient)
            client.set_up_client(
                self.context,
                session,
                old.address,
                session.mapped_port,
                old.target_address,
                old.target_port,
            )
            client.come_after(old)
            session.replayed = client
        else:
            assert self.transport is not None
            target: Any = session.target
            session.replayed = self._kernel_client(session, target, self.transport)
        before.linger(now_ns)
        session.replayed.begin_at(session.released_end)
        session.received_seen = 0
        return 0

    def set_round_trip(self, replayed: Replayed, rtt_ns: int) -> int:
        """The client's round-trip time has become known."""
        if isinstance(replayed, TcpClient):
            client: TcpClient = replayed
            client.rtt_ns = rtt_ns
        return 0

    def give_back(self, session: Session, now_ns: int) -> int:
        """The session is forgotten: its mapped address and port are free again."""
        if session.mapped_port and self.identities is not None:
            target: Any = session.target
            identity = (*session.mapped_client(), target.target_address, target.target_port)
            self.identities.release(*identity, now_ns)
            if self.announcer is not None:
                self.announcer.withdraw(*identity)
            session.mapped_port = 0
            if session.ledger_place and self.ledger is not None:
                self.ledger.remove(session.ledger_place)
                session.ledger_place = 0
        return 0
