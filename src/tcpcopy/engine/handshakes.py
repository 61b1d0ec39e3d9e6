"""What a SYN is worth by itself: which captured connections the engine opens, and when.

A SYN can come from anywhere, under any address. Normally a connection is opened at the target as
soon as its SYN is captured, so that all that follows has the client's timing. Until something else
of that client has come the session is *unproven*, and of those there are `AHEAD_SESSIONS` at most.
A SYN beyond that waits (engine/half_open.py) until its client goes on, and so does every SYN during
a flood (engine/flood.py). Unproven sessions whose clients stay silent are taken back: the target's
connection is reset and the SYN waits as the others do, so that a client that is only slow loses
nothing. What is never completed has an outcome of its own.

The acknowledgement that ends a handshake is a packet without data, which may not be captured (the
kernel's filter, `-F`, the filter that a file was recorded with). Then a silent client proves
nothing: its connection is opened all the same, unless there is a flood.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from tcpcopy.engine import seqnum
from tcpcopy.engine.captured import FARTHEST_AHEAD
from tcpcopy.engine.context import SECOND_NS, Context, EngineConfig
from tcpcopy.engine.ended import Ended
from tcpcopy.engine.flood import FloodWatch
from tcpcopy.engine.flows import FlowKey
from tcpcopy.engine.half_open import SYN_OFFSET, HalfOpen, keep_syn, syn_sessions, syn_time
from tcpcopy.engine.incoming import Incoming
from tcpcopy.engine.opening import Opener
from tcpcopy.engine.outcome import Drop, Outcome
from tcpcopy.engine.session import Session
from tcpcopy.packet import flags
from tcpcopy.packet.segment import Segment, parse

# Unproven sessions at once, of all workers together.
AHEAD_SESSIONS = 64
# How long one may be unproven. Online sends its SYN-ACK again for about a minute; the SYN goes on
# waiting afterwards.
PATIENCE_NS = 30 * SECOND_NS
FLOOD_PATIENCE_NS = 3 * SECOND_NS
# A generation of SYNs waits for so long at least, and no SYN twice as long.
WAIT_NS = 30 * SECOND_NS
# What nobody can tell about is opened after so long, if there are no more than so many of those.
PRESUME_NS = 3 * SECOND_NS
PRESUME_MOST = 512
# Nothing moves at a full table of unproven sessions for so long: the acknowledgements are wanted.
STUCK_NS = 50_000_000
CALM_LOOKS = 10

_NEVER = 0x7FFFFFFFFFFFFFFF  # typed: as literals these would be objects when compiled
_MASK = 0xFFFFFFFF
_FARTHEST = FARTHEST_AHEAD
_SECOND = SECOND_NS
_STUCK = STUCK_NS
_PRESUME_MOST = PRESUME_MOST
_CALM_LOOKS = CALM_LOOKS
_SYN_OFFSET = SYN_OFFSET
_GO_ON = -1
_USED = 0
_CUT = int(Drop.CUT)
_DUPLICATE = int(Drop.DUPLICATE)
_NO_TRANSFER = int(Drop.NO_TRANSFER)
_OUT_OF_WINDOW = int(Drop.OUT_OF_WINDOW)
_INCOMPLETE = int(Outcome.HANDSHAKE_INCOMPLETE)
_FIN = flags.FIN
_RST = flags.RST
_ACK = flags.ACK


class Handshakes(Incoming):
    """The part of the engine that deals with SYNs; the rest of it is made by the subclass.

    Times of SYNs are those of their capture, on the clock of `now_ns` (of files: their due times).
    """

    __slots__ = (
        "acks_known",  # whether acknowledgements without data are captured is known
        "acks_since_ns",  # since when they are, if it is known or assumed; _NEVER: not now
        "ahead",  # FlowKey.name of unproven connections -> the SYN kept, the oldest first
        "ahead_most",
        "ahead_sessions",  # how many sessions all of `ahead` were
        "calm_looks",  # on end, at which the acknowledgements were not wanted
        "clock_offset_ns",  # CLOCK_REALTIME minus the clock of `now_ns`
        "ended",
        "flood",
        "flood_patience_ns",
        "half_open",
        "linked_key",  # of a session that is looked for by what it holds
        "look_ns",  # when `_look_at_handshakes` is due
        "now_ns",
        "on_bug",  # called with the text of a trace when a session trips over our own bug
        "opener",
        "patience_ns",
        "presume_from_ns",  # SYNs captured before are not opened without a proof
        "presume_left",  # so many may be; comes back by one a second
        "presume_ns",
        "pure_acks",  # they are captured; the owner says when not
        "syn_segment",  # a SYN that was kept, being looked at
        "turned_ns",  # when the generations of `half_open` were turned
        "wait_ns",
        "wants_acks",  # the owner should have pure acknowledgements captured
    )

    def set_up_handshakes(
        self,
        config: EngineConfig,
        context: Context,
        opener: Opener,
        on_bug: Callable[[str], object],
    ) -> None:
        """See `Timed.set_up_timed`."""
        self.set_up_incoming(context, config.seed)
        speed = config.speed
        self.acks_known = False
        self.acks_since_ns = 0
        self.ahead: dict[object, bytes] = {}
        self.ahead_most = AHEAD_SESSIONS
        self.ahead_sessions = 0
        self.calm_looks = 0
        self.clock_offset_ns = 0
        self.ended = Ended()
        self.flood = FloodWatch(max(1, int(_SECOND / speed)))
        self.flood.blind_until_ns = _NEVER
        self.flood_patience_ns = int(FLOOD_PATIENCE_NS / speed)
        self.half_open = HalfOpen()
        self.linked_key = FlowKey()
        self.look_ns = 0
        self.now_ns = 0
        self.on_bug = on_bug
        self.opener = opener
        self.patience_ns = int(PATIENCE_NS / speed)
        self.presume_from_ns = 0
        self.presume_left = PRESUME_MOST
        self.presume_ns = int(PRESUME_NS / speed)
        self.pure_acks = True
        self.syn_segment = Segment()
        self.turned_ns = 0
        self.wait_ns = int(WAIT_NS / speed)
        self.wants_acks = False

    def divide(self, workers: int) -> None:
        """This engine is one of so many that share what is bounded here."""
        self.ahead_most = max(1, AHEAD_SESSIONS // workers)
        self.half_open.divide(workers)

    # --- given by the subclass -------------------------------------------------------------

    def _open_sessions(
        self, name: object, segment: Segment, data: Any, is_syn: bool, timestamp_ns: int
    ) -> int:
        raise NotImplementedError

    def _finish(self, session: Session, outcome: int) -> None:
        raise NotImplementedError

    def _bug(self, session: Session) -> None:
        raise NotImplementedError

    def _judge_syn(self, name: object, data: Any, sessions: int) -> int:
        raise NotImplementedError

    # --- what the owner knows of acknowledgements ------------------------------------------

    def _note_distance(self, session: Session, captured_ns: int) -> None:
        """The segment's options are parsed: how far is the client?"""
        before = session.rtt_ns
        if session.syn_ns == 0:
            session.note_echo(self.segment, captured_ns)
        elif self.pure_acks:
            self.context.counts.far += session.note_handshake(self.segment, captured_ns)
        else:
            session.syn_ns = 0  # this is a request, after who knows how long a thought
        if session.rtt_ns != before:
            self.opener.set_round_trip(session.replayed, session.rtt_ns)

    def _note_who_speaks_first(self, session: Session) -> None:
        """The client's first data, and how its handshake ended was seen."""
        if seqnum.difference(self.segment.ack, session.server_base) > 0:
            self.context.counts.server_first += 1
        else:
            self.context.counts.client_first += 1

    def note_acks(self, captured: bool, now_ns: int) -> None:
        """Whether pure acknowledgements are captured from `now_ns` on."""
        if captured:
            if not self.pure_acks or self.acks_since_ns == _NEVER:
                self.acks_since_ns = now_ns
        elif self.acks_since_ns != _NEVER:
            self.acks_since_ns = _NEVER
            # Who connected earlier had the time to prove it.
            self.presume_from_ns = max(self.presume_from_ns, now_ns - self.flood.second_ns)
        self.pure_acks = captured
        self.acks_known = True
        self.flood.blind_until_ns = self.acks_since_ns

    def _note_pure_ack(self) -> None:
        """One was captured, so they are."""
        self.acks_known = True
        self.flood.blind_until_ns = self.acks_since_ns

    def _is_blind(self, syn_ns: int) -> bool:
        """Whether the end of the handshake may have passed unseen."""
        return not self.acks_known or syn_ns < self.acks_since_ns

    def _is_doubtful(self, syn_ns: int) -> bool:
        """Whether a silent client is as likely there as not: blind, and neither a flood nor a time
        in which it could have shown itself has come since.
        """
        return self._is_blind(syn_ns) and syn_ns >= self.presume_from_ns

    # --- SYNs ------------------------------------------------------------------------------

    def _take_syn(self, name: object, data: Any, timestamp_ns: int) -> int:
        """The segment is a SYN of no session that is open: let it wait, or open its sessions."""
        segment = self.segment
        counts = self.context.counts
        captured_ns = timestamp_ns - self.clock_offset_ns
        if captured_ns < 0:
            captured_ns = 0
        if self.look_ns < self.now_ns:
            self.look_ns = self.now_ns + _SECOND
        if counts.waiting != 0:
            waiting = self.half_open.take(name)
            if waiting is not None:
                self._parse_syn(waiting)
                if self.syn_segment.seq == segment.seq:
                    counts.waiting -= syn_sessions(waiting)
                    self._wait(name, waiting, syn_sessions(waiting))  # as the youngest
                    return _DUPLICATE
                self._count_incomplete(syn_sessions(waiting))
        sessions = self.opener.count_of(segment, data)
        if sessions == 0:
            return _NO_TRANSFER
        if not self.flood.flooding:
            reason = self._judge_syn(name, data, sessions)
            if reason != _GO_ON:
                return reason
        syn = keep_syn(segment, data, captured_ns, sessions)
        if (
            self.flood.flooding
            or self.ahead_sessions >= self.ahead_most
            or self.opener.is_shedding()
        ):
            counts.sessions += sessions
            self._wait(name, syn, sessions)
            self.flood.begin(captured_ns)
            if not self.pure_acks and not self.wants_acks:
                self.wants_acks = self._is_stuck(captured_ns, _STUCK)
            return _USED
        reason = self._open_sessions(name, segment, data, True, timestamp_ns)
        if reason == _USED:
            session: Session | None = self.by_client.find(self.key)
            while session is not None:
                session.unproven = 1
                session = session.sibling
            self.ahead[name] = syn
            self.ahead_sessions += sessions
            self.flood.begin(captured_ns)
        return reason

    def _wait(self, name: object, syn: bytes, sessions: int) -> None:
        self.context.counts.waiting += sessions
        pushed_out = self.half_open.put(name, syn, sessions)
        if pushed_out != 0:
            self._count_incomplete(pushed_out)

    def _count_incomplete(self, sessions: int) -> None:
        """Sessions that waited have ended."""
        counts = self.context.counts
        counts.waiting -= sessions
        counts.outcomes[_INCOMPLETE] += sessions

    def _parse_syn(self, syn: bytes) -> None:
        """Read a SYN that was kept into `syn_segment`."""
        parse(self.syn_segment, syn, _SYN_OFFSET, len(syn), len(syn) - _SYN_OFFSET)

    # --- signs of life ---------------------------------------------------------------------

    def _take_of_waiting(self, name: object, data: Any, timestamp_ns: int) -> int:
        """The segment is no SYN and of no session; _GO_ON when no SYN waits for it either."""
        segment = self.segment
        syn = self.half_open.find(name)
        if syn is None:
            return _GO_ON
        self._parse_syn(syn)
        ahead = seqnum.difference(segment.seq, (self.syn_segment.seq + 1) & _MASK)
        if ahead < -1 or ahead > _FARTHEST:
            return _OUT_OF_WINDOW
        if segment.flags & _RST and not (segment.flags & _ACK and self._is_blind(syn_time(syn))):
            self.half_open.take(name)
            self._count_incomplete(syn_sessions(syn))
            return _USED
        if not segment.flags & _ACK:
            return _OUT_OF_WINDOW
        if segment.payload_length > segment.available:
            return _CUT
        if segment.payload_length == 0 and not segment.flags & (_FIN | _RST):
            self._note_pure_ack()
        self.flood.complete(syn_time(syn), timestamp_ns - self.clock_offset_ns)
        reason = self._open_waiting(name, syn)
        return reason if reason != _USED else self._take_captured(data, timestamp_ns)

    def _open_waiting(self, name: object, syn: bytes) -> int:
        """Open the sessions of a SYN that waits, and that stands in `syn_segment` and `key`."""
        counts = self.context.counts
        sessions = syn_sessions(syn)
        self.half_open.take(name)
        counts.waiting -= sessions
        counts.sessions -= sessions  # they are counted as they are opened
        timestamp_ns = syn_time(syn) + self.clock_offset_ns
        return self._open_sessions(name, self.syn_segment, syn, True, timestamp_ns)

    def _prove(self, session: Session, timestamp_ns: int) -> int:
        """The segment is of an unproven connection: _GO_ON when it is to be taken as any other."""
        segment = self.segment
        ahead = seqnum.difference(segment.seq, (session.captured_isn + 1) & _MASK)
        if ahead < -1 or ahead > _FARTHEST:
            return _OUT_OF_WINDOW
        name = self.key.name()
        syn = self.ahead.get(name)
        if segment.flags & _RST:
            if syn is not None and not self._is_blind(syn_time(syn)):
                self._end_unproven(name, session)
                return _USED
        elif not segment.flags & _ACK:
            return _OUT_OF_WINDOW
        elif segment.payload_length == 0 and not segment.flags & _FIN:
            self._note_pure_ack()
        self._settle_ahead(name, timestamp_ns)
        self._clear_unproven(session)
        return _GO_ON

    def _prove_late(self, name: object, timestamp_ns: int) -> None:
        """The segment is of a connection whose sessions have ended already, by the target."""
        if self.segment.flags & (_ACK | _RST) == _ACK:
            self._settle_ahead(name, timestamp_ns)

    def _settle_ahead(self, name: object, timestamp_ns: int) -> None:
        """The client of a connection opened ahead has gone on."""
        syn = self._drop_ahead(name)
        if syn is not None:
            self.flood.complete(syn_time(syn), timestamp_ns - self.clock_offset_ns)

    def _drop_ahead(self, name: object) -> bytes | None:
        syn = self.ahead.pop(name, None)
        if syn is not None:
            self.ahead_sessions -= syn_sessions(syn)
        return syn

    def _clear_unproven(self, head: Session) -> None:
        session: Session | None = head
        while session is not None:
            session.unproven = 0
            session = session.sibling

    # --- ends without a proof --------------------------------------------------------------

    def _end_unproven(self, name: object, head: Session) -> None:
        """The handshake of an unproven connection is not completed any more."""
        self._drop_ahead(name)
        session: Session | None = head
        while session is not None:
            sibling = session.sibling
            try:
                session.give_up(_INCOMPLETE, self.now_ns)
                # Only a SYN's own data can be there: nobody knows whether online took it.
                left = session.captured_rcv_offset - session.replayed.acknowledged
                if left > 0:
                    self.context.counts.bytes_captured -= left
                self._finish(session, _INCOMPLETE)
            except Exception:
                self._bug(session)
            session = sibling

    def _supersede(self, name: object, head: Session) -> bool:
        """Another SYN came for the addresses of `head`; whether that has ended it."""
        if not head.unproven:
            return False
        syn = self._drop_ahead(name)
        if syn is None or self._is_blind(syn_time(syn)):
            self._clear_unproven(head)
            return False
        self._end_unproven(name, head)
        return True

    def _unproven(self, name: object, syn: bytes) -> Session | None:
        """The first session of a connection opened ahead; None when none is left."""
        self._parse_syn(syn)
        self.linked_key.named(name)
        head = self.by_client.find(self.linked_key)
        if head is None or not head.unproven or head.captured_isn != self.syn_segment.seq:
            return None
        return head

    def _take_back(self, name: object, syn: bytes) -> None:
        """Close what was opened ahead at the target; the SYN waits like others."""
        head = self._unproven(name, syn)
        self._drop_ahead(name)
        if head is None:
            return
        sessions = 0
        session: Session | None = head
        while session is not None:
            sessions += 1
            session = session.sibling
        if sessions != syn_sessions(syn) or head.captured_rcv_offset != 0:
            # A part has ended by itself, or has data: not to be opened once more.
            self._end_unproven(name, head)
            return
        counts = self.context.counts
        self.by_client.remove(head)
        session = head
        while session is not None:
            sibling = session.sibling
            session.sibling = None
            session.captured_ports = 0
            counts.established -= session.replayed.established
            try:
                session.give_up(_INCOMPLETE, self.now_ns)
                self._finish(session, _INCOMPLETE)
                counts.outcomes[_INCOMPLETE] -= 1  # it has not ended
            except Exception:
                self._bug(session)
                sessions -= 1
            session = sibling
        if sessions == syn_sessions(syn):
            self._wait(name, syn, sessions)

    def end_handshakes(self) -> None:
        """The capture has ended: what is not completed now never was."""
        if self.flood.flooding:
            self.presume_from_ns = _NEVER
        for name, syn in list(self.ahead.items()):
            head = self._unproven(name, syn)
            if head is None:
                continue
            if self._is_doubtful(syn_time(syn)):
                self._clear_unproven(head)
            else:
                self._end_unproven(name, head)
        self.ahead.clear()
        self.ahead_sessions = 0
        self._count_incomplete(self.half_open.clear())
        self.flood.stop()
        self.presume_from_ns = min(self.presume_from_ns, self.now_ns)

    # --- time ------------------------------------------------------------------------------

    def handshake_deadline_ns(self) -> int:
        """When to look again at what is unproven or waits; -1: there is nothing to look at."""
        if self.ahead_sessions == 0 and self.context.counts.waiting == 0:
            return self.look_ns if self.flood.flooding or self.wants_acks else -1
        return self.look_ns

    def _look_at_handshakes(self) -> None:
        """Once a second: who has been silent for too long, and is there a flood."""
        now_ns = self.now_ns
        self.look_ns = now_ns + _SECOND
        flood = self.flood
        if self.context.recorded:
            clock_ns = self.context.capture_ns
            flood.look(clock_ns)
        else:
            clock_ns = now_ns
            flood.look(now_ns - _SECOND)  # what is captured until now may still be in a buffer
        self._look_at_wish(clock_ns)
        if flood.flooding:
            self.presume_from_ns = clock_ns
        if self.presume_left < _PRESUME_MOST:
            self.presume_left += 1
        if self.ahead_sessions != 0:
            self._look_at_ahead(clock_ns)
        if clock_ns - self.turned_ns >= self.wait_ns:
            self.turned_ns = clock_ns
            self._count_incomplete(self.half_open.turn())
        if self.context.counts.waiting != 0 and flood.is_calm():
            self._look_at_waiting(clock_ns)

    def _look_at_wish(self, clock_ns: int) -> None:
        """Whether pure acknowledgements are wanted; not any more once it was calm for a time."""
        if self.flood.flooding or self._is_stuck(clock_ns, self.flood.second_ns):
            self.wants_acks = True
            self.calm_looks = 0
        elif self.wants_acks:
            self.calm_looks += 1
            self.wants_acks = self.calm_looks < _CALM_LOOKS

    def _is_stuck(self, clock_ns: int, after_ns: int) -> bool:
        """Whether something waits for so long, or half of those unproven that may be, the oldest of
        them for so long.
        """
        if self.ahead and 2 * self.ahead_sessions >= self.ahead_most:
            oldest: bytes = next(iter(self.ahead.values()))
            if clock_ns - syn_time(oldest) >= after_ns:
                return True
        waiting = self.half_open.oldest()
        return waiting is not None and clock_ns - syn_time(waiting) >= after_ns

    def _look_at_ahead(self, clock_ns: int) -> None:
        flood = self.flood
        patience_ns = self.flood_patience_ns if flood.flooding else self.patience_ns
        for name, syn in list(self.ahead.items()):
            waited_ns = clock_ns - syn_time(syn)
            if self._is_presumable(syn, clock_ns):
                head = self._unproven(name, syn)
                self._drop_ahead(name)
                if head is not None:
                    self._clear_unproven(head)
                    self.presume_left -= 1
            elif waited_ns >= patience_ns or (
                waited_ns >= flood.second_ns and self._unproven(name, syn) is None
            ):
                self._take_back(name, syn)

    def _is_presumable(self, syn: bytes, clock_ns: int) -> bool:
        """Whether the benefit of the doubt is to be given: online may have the connection."""
        syn_ns = syn_time(syn)
        return (
            self.presume_left > 0
            and self._is_doubtful(syn_ns)
            and clock_ns - syn_ns >= self.presume_ns
            and self.flood.is_calm()
        )

    def _look_at_waiting(self, clock_ns: int) -> None:
        """Open what has waited for a sign that could not be seen, if that is little."""
        if len(self.half_open) > _PRESUME_MOST:
            return
        for name, syn in self.half_open.items():
            if self._is_presumable(syn, clock_ns):
                try:
                    self._parse_syn(syn)
                    self.key.named(name)
                    if self.by_client.find(self.key) is not None:
                        continue  # it contests an open connection
                    self.presume_left -= 1
                    self._open_waiting(name, syn)
                except Exception:
                    self.on_bug(traceback.format_exc())
