"""The engine: all sessions of one worker. Sans-I/O.

The owner sets `now_ns`, then feeds captured packets (`packet`) and answers (`answers.packet`), and
calls `run_timers` when `next_deadline_ns` has come. Packets to send leave through the batch or the
transport given at the start, which the owner flushes.

A packet that trips over our own bug ends its session, counted, and nothing else.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import cython

from tcpcopy.engine.client import TcpClient
from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.flows import FlowKey, FlowTable
from tcpcopy.engine.kernel import KernelClient
from tcpcopy.engine.newcomers import MULTIPATH, Newcomers
from tcpcopy.engine.opening import Opener
from tcpcopy.engine.outcome import Drop, Outcome
from tcpcopy.engine.retry import Retries
from tcpcopy.engine.session import Session
from tcpcopy.engine.timers import Timers
from tcpcopy.packet import flags
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.segment import Segment, parse, parse_options, payload, payload_start
from tcpcopy.said.answer import LOOKED_AT, kind_of

if TYPE_CHECKING:
    from tcpcopy.engine.leftovers import Leftovers

# Recorded: sessions that wait for what the file brings are looked at so often.
_IDLE_LOOK = 5_000_000_000
_HOLE_LOOK = 50_000_000
_MASK = 0xFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_GO_ON = -1
_USED = 0
_CUT = int(Drop.CUT)
_NO_TRANSFER = int(Drop.NO_TRANSFER)
_NO_SESSION = int(Drop.NO_SESSION)
_PURE_ACK = int(Drop.PURE_ACK_NO_SESSION)
_CLOSED_SESSION = int(Drop.CLOSED_SESSION)
_DUPLICATE = int(Drop.DUPLICATE)
_OUT_OF_WINDOW = int(Drop.OUT_OF_WINDOW)
_EARLY_LIMIT = int(Drop.EARLY_LIMIT)
_FOREIGN = int(Drop.FOREIGN)
_BUG = int(Drop.INTERNAL_ERROR)
_SHED_MEMORY = int(Outcome.SHED_MEMORY)
_INTERNAL_ERROR = int(Outcome.INTERNAL_ERROR)
_FIN = flags.FIN
_SYN = flags.SYN
_RST = flags.RST
_ACK = flags.ACK
_PSH = flags.PSH
_LOOKED_AT = LOOKED_AT
_URG = flags.URG
_MULTIPATH = MULTIPATH


class AnswerFeed(PacketHandler):
    """Takes the target's packets for an engine."""

    __slots__ = ("engine",)

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.kind = 0

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Take one answer; 0 or its Drop reason."""
        told = self.kind
        self.kind = 0
        return self.engine.take_answer(data, start, end, wire_length, told)


class Engine(Newcomers):
    """All sessions of one worker; takes the captured packets itself (`packet`)."""

    __slots__ = (
        "answers",  # the handler for the target's packets
        "answer_key",  # of the target's packet being looked at
        "by_answer",  # the sessions, by what the target's packets carry
        "leftovers",  # of a run before (engine.leftovers); None: none, or no more
        "max_queued_bytes",  # set by the owner, 0: none; who would go beyond it is shed
        "most_queued_bytes",  # at the largest, since its owner set it to 0
        "retries",  # of targets that go away (--retry), or None
        "timers",
    )

    def __init__(
        self,
        config: EngineConfig,
        context: Context,
        opener: Opener,
        *,
        on_bug: Callable[[str], object] = print,
    ) -> None:
        self.set_up_handshakes(config, context, opener, on_bug)
        self.set_up_newcomers(config.recorded)
        self.max_queued_bytes = 0
        self.most_queued_bytes = 0
        self.answers = AnswerFeed(self)
        self.answer_key = FlowKey()
        self.by_answer = FlowTable(config.seed, True)
        self.leftovers: Leftovers | None = None
        self.timers = Timers()
        has_retries = config.retry_ns > 0
        self.retries: Any = Retries(config, context, opener, self.timers) if has_retries else None

    # --- captured packets ------------------------------------------------------------------

    def _take_captured(self, data: Any, timestamp_ns: int) -> int:
        segment = self.segment
        key = self.key
        key.read(segment, data)
        session = self.by_client.find(key)
        if self.networks is not None:
            session = self.in_realm(session, data)
        is_syn = segment.flags & (_SYN | _ACK | _RST | _FIN) == _SYN
        if session is None or (is_syn and session.captured_isn != segment.seq):
            return self._take_first(session, data, is_syn, timestamp_ns)
        if segment.flags & _SYN:
            return _DUPLICATE
        if session.unproven:
            reason = self._prove(session, timestamp_ns)
            if reason != _GO_ON:
                return reason
        if segment.flags & (_ACK | _RST | _URG) != _ACK or session.special or self.judges_sums:
            reason = self._judge(session, data, timestamp_ns)
            if reason != _GO_ON:
                return reason
        if segment.payload_length > segment.available:
            return _CUT
        new_data = payload(segment, data, 0) if segment.payload_length > 0 else b""
        if session.wants_options():
            parse_options(segment, data)
        reason = _USED
        while session is not None:
            sibling = session.sibling
            try:
                reason = self._feed(session, new_data, timestamp_ns)
            except Exception:
                self._bug(session)
                reason = _BUG
            session = sibling
        if reason == _OUT_OF_WINDOW and segment.payload_length > 0:
            return self._use_again(data, timestamp_ns)
        return reason

    def _feed(self, session: Session, data: bytes, timestamp_ns: int) -> int:
        """Give the segment to one session, and let the session go on."""
        segment = self.segment
        captured_ns = timestamp_ns - self.clock_offset_ns
        session.last_captured_ns = captured_ns if self.context.recorded else self.now_ns
        if session.wants_options():
            self._note_distance(session, captured_ns)
        counts = self.context.counts
        tail = session.tail
        held_before = session.queued_bytes + session.early_bytes
        reason = _USED
        length = len(data)
        if segment.flags & _RST:
            ack = segment.ack if segment.flags & _ACK else -1
            reason = session.take_rst(segment.seq, ack, captured_ns)
        elif length > 0:
            if session.captured_rcv_offset == 0 and session.server_base >= 0:
                self._note_who_speaks_first(session)
            reason = session.take_data(segment.seq, segment.ack, data, captured_ns)
        elif not segment.flags & _FIN:
            return session.take_ack(segment.seq, segment.ack, captured_ns)
        if segment.flags & _FIN and not segment.flags & _RST:
            after_fin = session.take_fin((segment.seq + length) & _MASK, segment.ack, captured_ns)
            if length == 0:
                reason = after_fin
        counts.queued_bytes += session.queued_bytes + session.early_bytes - held_before
        if counts.queued_bytes > self.most_queued_bytes:
            self.most_queued_bytes = counts.queued_bytes
        if session.tail is not tail:
            self._note_turns(session, tail)
            session.note_segment_end(length, segment.flags & _PSH)
        if self.max_queued_bytes and counts.queued_bytes > self.max_queued_bytes:
            outcome = session.give_up(_SHED_MEMORY, self.now_ns)
        elif reason == _EARLY_LIMIT:
            outcome = session.tear(self.now_ns)
        else:
            outcome = session.advance(self.now_ns)
        self._settle(session, outcome)
        return reason

    def _note_turns(self, session: Session, before: Any) -> None:
        """Let pacing look at the chunks that were added after `before`."""
        chunk = session.head if before is None else before.following
        rtt_ns = session.rtt_ns
        while chunk is not None:
            session.note_turn(chunk)
            self.context.counts.bytes_captured += chunk.end - chunk.offset
            chunk = chunk.following
        if session.rtt_ns != rtt_ns:
            self.opener.set_round_trip(session.replayed, session.rtt_ns)

    # --- the first packet of a connection --------------------------------------------------

    def _take_first(
        self, before: Session | None, data: Any, is_syn: bool, timestamp_ns: int
    ) -> int:
        """The packet belongs to no session that is open; `before` uses its key, if any does."""
        segment = self.segment
        name = self.key.name()
        ended = self.ended.find(name)
        closed = ended & 0xFF
        if is_syn:
            if closed != 0 and ended >> 8 & _MASK == segment.seq:
                return closed  # the same SYN again: this connection has been counted
            self.ended.forget(name)
            if before is not None and not self._supersede(name, before):
                if before.captured_end == 0:
                    return self._contest(name, before, data, timestamp_ns)
                self._detach(before)
        elif segment.flags & _SYN:
            return _NO_SESSION
        elif closed != 0 and not self._is_elsewhere(ended):
            if self.ahead_sessions != 0:
                self._prove_late(name, timestamp_ns)
            return closed
        try:
            if is_syn:
                return self._take_syn(name, data, timestamp_ns)
            if self.context.counts.waiting != 0:
                reason = self._take_of_waiting(name, data, timestamp_ns)
                if reason != _GO_ON:
                    return reason
            if segment.payload_length == 0:
                if segment.flags & (_FIN | _RST):
                    return _NO_SESSION
                self._note_pure_ack()
                return _PURE_ACK
            if segment.flags & _RST:
                return _NO_SESSION
            if segment.payload_length > segment.available:
                return _CUT
            reason = self._judge_pick_up(name, data)
            if reason != _GO_ON:
                return reason
            return self._open_sessions(name, segment, data, False, timestamp_ns)
        except Exception:
            self.on_bug(traceback.format_exc())
            return _BUG

    def _open_sessions(
        self, name: object, segment: Segment, data: Any, is_syn: bool, timestamp_ns: int
    ) -> int:
        parse_options(segment, data)
        new_data = payload(segment, data, 0)
        opened = self.opener.open(self.key, segment, data, is_syn, self.now_ns)
        if opened is None:
            return _NO_TRANSFER
        if self.opener.failure:
            self.on_bug(self.opener.failure)
            self.opener.failure = ""
        head: Session | None = None
        for session in reversed(opened):
            session.sibling = head
            head = session
        if head is None:
            self.ended.add(name, self.opener.left_out, segment.seq)
            return self.opener.left_out
        self.by_client.add(head)
        captured_ns = timestamp_ns - self.clock_offset_ns
        if self.judges_sums and segment is self.segment:
            self._judge_sum(head, data)
        special = _MULTIPATH if is_syn and segment.multipath != 0 else 0
        for session in opened:
            session.special = cython.cast(cython.uchar, special)
            session.last_captured_ns = captured_ns if self.context.recorded else self.now_ns
            if is_syn and self.pure_acks and captured_ns >= self.acks_since_ns:
                session.syn_ns = captured_ns
            if session.answer_ports:
                self.by_answer.add(session)
            try:
                self._start(session, new_data, is_syn, captured_ns, timestamp_ns)
            except Exception:
                self._bug(session)
        return _USED

    def _start(
        self, session: Session, data: bytes, is_syn: bool, captured_ns: int, timestamp_ns: int
    ) -> None:
        if session.opens_ns == 0 and (  # else when --rate lets it
            self.retries is None or not self.retries.holds(session, self.now_ns)
        ):
            session.replayed.open(self.now_ns)
        if not is_syn:
            self._feed(session, data, timestamp_ns)
            return
        if data:
            session.take_syn_data(data, captured_ns)
            self.context.counts.queued_bytes += session.queued_bytes
            self._note_turns(session, None)
        self._settle(session, session.advance(self.now_ns))

    def _connect(self, session: Session) -> int:
        """Connect, or wait for a target that refuses; 0, or the outcome of waiting for it."""
        if self.retries is not None:
            outcome: int = self.retries.connect(session, self.now_ns)
            return outcome
        session.opens_ns = 0
        self.opener.announce(session)
        session.replayed.open(self.now_ns)
        return 0

    def _detach(self, head: Session) -> None:
        """The client uses its port again: what stands there has ended, its replay goes on."""
        self.by_client.remove(head)
        session: Session | None = head
        while session is not None:
            sibling = session.sibling
            session.sibling = None
            session.captured_ports = 0
            try:
                self._end_detached(session)
            except Exception:
                self._bug(session)
            session = sibling

    def _end_detached(self, session: Session) -> None:
        if session.captured_end == 0 and session.stuck_since_ns == 0:
            # Neither FIN nor RST was seen; the online host must have ended it.
            session.take_rst(
                (session.captured_isn + 1 + session.captured_rcv_offset) & _MASK,
                -1,
                self.now_ns,
            )
            self._settle(session, session.advance(self.now_ns))

    # --- answers ---------------------------------------------------------------------------

    def take_answer(self, data: Any, start: int, end: int, wire_length: int, told: int = 0) -> int:
        """Take one packet of a target; 0 or its Drop reason, counted either way.

        `told`: its kind (said.kinds), as intercept saw it; 0: it is not known.
        """
        segment = self.segment
        self.context.counts.packets_answered += 1
        reason = parse(segment, data, start, end, wire_length)
        if reason == _USED:
            self.answer_key.read(segment, data)
            session = self.by_answer.find(self.answer_key)
            if session is None:
                reason = _FOREIGN
                if self.leftovers is not None:
                    name = self.answer_key.name()
                    reason = _USED if self.leftovers.take(segment, name, self.now_ns) else reason
            else:
                parse_options(segment, data)
                try:
                    reason = self._feed_answer(session, data, told)
                except Exception:
                    self._bug(session)
                    reason = _BUG
        self.context.counts.answer_drops[reason] += 1
        return reason

    def _feed_answer(self, session: Session, data: Any, told: int) -> int:
        client: TcpClient = session.replayed  # type: ignore[assignment]
        segment = self.segment
        if client.looks and segment.payload_length > 0 and client.established:
            known = client.received - client.server_offset(segment.seq)
            if 0 <= known < segment.available:
                told = kind_of(payload_start(segment, data, known, _LOOKED_AT))
            client.said = cython.cast(cython.uchar, told if known >= 0 else 0)
        reason = client.take_segment(segment, self.now_ns)
        if session.lingers:
            self._schedule_linger(session)
        else:
            self._settle(session, session.advance(self.now_ns))
        return reason

    def transport_event(self, client: KernelClient) -> None:
        """The transport has told `client` something: let its session go on."""
        session: Session = client.owner  # type: ignore[assignment]
        if session is None or session.outcome != 0:
            return
        try:
            self._settle(session, session.advance(self.now_ns))
        except Exception:
            self._bug(session)

    # --- time ------------------------------------------------------------------------------

    def next_deadline_ns(self) -> int:
        """When `run_timers` is wanted next, -1: not by itself."""
        deadline_ns = self.timers.next_deadline_ns()
        look_ns = self.handshake_deadline_ns()
        if look_ns >= 0 and (deadline_ns < 0 or look_ns < deadline_ns):
            return look_ns
        return deadline_ns

    def run_timers(self) -> int:
        """Run what is due at `now_ns`; how many sessions were looked at."""
        now = self.now_ns
        timers = self.timers
        timers.advance(now)
        context = self.context
        clock = now
        if context.recorded:
            clock = context.capture_ns
            context.idle_look_ns = now + _IDLE_LOOK
            context.hole_look_ns = now + _HOLE_LOOK
        count = 0
        while True:
            session: Session | None = timers.first_due(now)  # type: ignore[assignment]
            if session is None:
                break
            count += 1
            try:
                self._run_session_timers(session, now)
            except Exception:
                self._bug(session)
        self.ended.turn(clock, context.remember_ns)
        if now >= self.look_ns:
            self._look_at_handshakes()
        return count

    def _run_session_timers(self, session: Session, now: int) -> None:
        if session.lingers:
            half = session.replayed
            deadline = half.deadline_ns()
            if deadline and deadline <= now:
                half.run_timers(now)
                self._schedule_linger(session)
                if session.deadline_ns > now:
                    return
            self._forget(session)
            return
        deadline = session.next_deadline_ns()
        if deadline > now:
            self.timers.schedule(session, deadline, now)
            return
        if session.opens_ns != 0 and session.opens_ns <= self.context.rate_clock_ns(now):
            outcome = self._connect(session)
            if outcome != 0:
                self._finish(session, outcome)
                return
        outcome = session.run_timers(now)
        if self.retries is not None and (outcome != 0 or session.retry is not None):
            outcome = self.retries.step(session, outcome, now)
        if outcome != 0:
            self._finish(session, outcome)
            return
        session.note_busy()
        deadline = session.next_deadline_ns()
        # Never at once again: whatever is due was done.
        self.timers.schedule(session, deadline if deadline > now else now + 100_000, now)

    def _settle(self, session: Session, outcome: int) -> None:
        """After progress: end the session, or see that it is called in time."""
        if session.outcome != 0:
            return
        if self.retries is not None and (outcome != 0 or session.retry is not None):
            outcome = self.retries.step(session, outcome, self.now_ns)
        if outcome != 0:
            self._finish(session, outcome)
            return
        session.note_busy()
        deadline = session.next_deadline_ns()
        # An entry that is too early costs one look; moving it with every packet costs more.
        if session.heap_index < 0 or deadline < session.deadline_ns:
            self.timers.schedule(session, deadline, self.now_ns)

    def _schedule_linger(self, session: Session) -> None:
        ends = self.now_ns + self.context.linger_ns
        repeat = session.replayed.deadline_ns()
        if not repeat or repeat > ends:
            repeat = ends
        self.timers.schedule(session, repeat, self.now_ns)

    # --- endings ---------------------------------------------------------------------------

    def _finish(self, session: Session, outcome: int) -> None:
        """Count the outcome; the session stays for late packets while it lingers."""
        if session.retry is not None:
            outcome = self.retries.settle(session, outcome, self.now_ns)
        session.outcome = cython.cast(cython.uchar, outcome)
        session.settle_said()
        counts = self.context.counts
        counts.outcomes[outcome] += 1
        counts.live -= 1
        if session.busy:
            session.busy = 0
            counts.busy -= 1
        counts.queued_bytes -= session.clear() + session.early_bytes
        session.early = None
        session.early_bytes = 0
        if session.captured_ports:
            self._unlink(session)
        if session.replayed.linger(self.now_ns) or self.context.linger_ns == 0:
            self._forget(session)
        else:
            session.lingers = 1
            self._schedule_linger(session)

    def _unlink(self, session: Session) -> None:
        """Take the session out of its captured connection."""
        key = self.linked_key
        key.addresses = session.captured_addresses
        key.ports = session.captured_ports
        key.wide = session.captured_wide
        head = self.by_client.find(key)
        if head is session:
            if session.sibling is not None:
                self.by_client.replace(session, session.sibling)
            else:
                self.by_client.remove(session)
                self.ended.add(
                    key.name(),
                    _CLOSED_SESSION,
                    session.captured_isn,
                    session.captured_rcv_offset,
                )
        else:
            while head is not None and head.sibling is not session:
                head = head.sibling
            if head is not None:
                head.sibling = session.sibling
        session.sibling = None
        session.captured_ports = 0

    def _forget(self, session: Session) -> None:
        """Nothing more is expected: free the session and its mapped port."""
        self.timers.remove(session)
        if session.answer_ports:
            self.by_answer.remove(session)
        self.opener.give_back(session, self.now_ns)

    def _bug(self, session: Session) -> None:
        """An exception inside the engine: tell, count, drop the session, go on."""
        self.on_bug(traceback.format_exc())
        self.timers.remove(session)
        try:
            session.replayed.abort(self.now_ns)
        except Exception:
            self.on_bug(traceback.format_exc())
        if session.outcome == 0:
            self._finish(session, _INTERNAL_ERROR)
        if session.lingers:
            self._forget(session)

    def end_pass(self) -> None:
        """The file has ended: what is open is closed once all of it is replayed and answered.

        What comes next is read from the beginning: new connections, whatever they look like.
        """
        self.end_newcomers()
        heads = list(self.by_client)
        for head in heads:
            self.by_client.remove(head)
            session: Session | None = head
            while session is not None:
                sibling = session.sibling
                session.sibling = None
                session.captured_ports = 0
                try:
                    self._settle(session, session.end_of_capture(self.now_ns))
                except Exception:
                    self._bug(session)
                session = sibling

    # --- exit and views --------------------------------------------------------------------

    def sessions(self) -> Iterator[Session]:
        """Every session that has not ended; the engine must not run meanwhile."""
        for item in self.timers.items():
            session: Session = item  # type: ignore[assignment]
            if not session.lingers:
                yield session

    def unfinished(self) -> int:
        """Sessions with something captured that the target does not have yet."""
        return sum(1 for s in self.sessions() if not (s.is_delivered() or s.is_parked()))

    def close_all(self, outcome: int = 0) -> None:
        """End every session, as `outcome`; 0: what is delivered is counted so, what is not, too."""
        if not outcome:
            self.end_handshakes()
            self.end_incoming()
        for session in list(self.sessions()):
            how = outcome or session.outcome_at_exit()
            session.give_up(how, self.now_ns)
            self._finish(session, how)

    def live_identities(self) -> Iterator[tuple[bytes, int, bytes, int]]:
        """Mapped address and port, target address and port of every live packet session."""
        for session in self.by_answer:
            target: Any = session.target
            yield (*session.mapped_client(), target.target_address, target.target_port)
