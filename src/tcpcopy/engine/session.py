"""A session: one captured connection towards one target; joins the two halves.

After each event (packet, answer, timer) `advance` releases what may go, and returns the outcome
once the session has ended; `next_deadline_ns` says when to call it again.
"""

from __future__ import annotations

from typing import Any

import cython

from tcpcopy.engine import chunk as chunks
from tcpcopy.engine import replayed as endings
from tcpcopy.engine.context import Context
from tcpcopy.engine.outcome import Outcome
from tcpcopy.engine.pacing import OPEN, PacedHalf
from tcpcopy.engine.replayed import Replayed
from tcpcopy.said.answer import protocol_of
from tcpcopy.said.tally import LOOK_AGAIN, Tally

_OPEN = OPEN
_LOOK_AGAIN = LOOK_AGAIN
_RUNNING = endings.RUNNING
_BY_TARGET = endings.RESET_BY_TARGET
# A connection cut by the end of a file is closed after this silence of an answer, or when its last
# turn has had no answer for so long, or so many times the usual time; looked at so often.
_CUT_QUIET = 100_000_000
_CUT_WAIT = 1_000_000_000
_CUT_WAITS = 10
_CUT_LOOK = 20_000_000
_RST = chunks.RST
_FIN = chunks.FIN
_NONE = 0
_REALM_KEY = 14  # bytes of IPv4 addresses, ports and realm
_MASK = 0xFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_REPLAYED = int(Outcome.REPLAYED)
_CLIENT_RESET = int(Outcome.CLIENT_RESET)
_RESET = int(Outcome.RESET)
_CLOSED_EARLY = int(Outcome.CLOSED_EARLY)
_UNANSWERED = int(Outcome.UNANSWERED)
_ANSWER_TIMEOUT = int(Outcome.ANSWER_TIMEOUT)
_IDLE_TIMEOUT = int(Outcome.IDLE_TIMEOUT)
_IDLE_COMPLETE = int(Outcome.IDLE_COMPLETE)
_CAPTURE_HOLE = int(Outcome.CAPTURE_HOLE)
_OPEN_COMPLETE = int(Outcome.OPEN_COMPLETE)
_OPEN_AT_EXIT = int(Outcome.OPEN_AT_EXIT)

_BY_ENDING = {
    endings.REFUSED: int(Outcome.REFUSED),
    endings.CONNECT_TIMEOUT: int(Outcome.CONNECT_TIMEOUT),
    endings.ANSWER_TIMEOUT: int(Outcome.ANSWER_TIMEOUT),
    endings.SEND_FAILED: int(Outcome.SEND_FAILED),
    endings.RESET_AT_END: int(Outcome.RESET_AT_END),
}


class Session(PacedHalf):
    """One captured connection and its replay."""

    __slots__ = (
        "answer_addresses",  # flow key of the target's packets (engine.flows), without what the
        "answer_ports",  # replayed half knows of it (IPv6); 0 with kernel sockets
        "busy",  # counted in `Counts.busy`
        "captured_addresses",  # flow key of the client's packets
        "captured_ports",  # 0 once the session does not belong to its captured connection any more
        "captured_wide",
        "copy",  # 0 for the first, 1.. for the copies of -n
        "cut",  # the capture has ended before the connection did
        "from_syn",  # captured from its beginning
        "gate_deadline_ns",  # when to look at the gate again, 0: only on progress
        "ledger_place",  # where it is written down, 0: nowhere
        "lingers",  # its outcome is counted, it only answers late packets
        "mapped_port",  # as given by the allocator; 0: nothing to give back
        "opens_ns",  # when it may connect (--rate, --retry), by `rate_clock_ns`; 0: it may
        "outcome",  # how it ended, 0: it has not
        "protocol",  # what the client speaks (said.kinds), as far as that is known
        "received_seen",  # server bytes that pacing knows of
        "replayed",
        "retry",  # what became of being refused or cut (engine.retry), or None
        "right_sum",  # a segment with a right checksum was captured (of files)
        "slot_ns",  # --rate: when the turn at the gate may go, by the same clock; 0: not asked yet
        "sibling",  # the next session of the same captured connection, or None
        "special",  # bits of engine.newcomers: a SYN contests it, it is MPTCP
        "tally",  # counts what its target says; None: nobody does
        "target",  # the Transfer it is replayed to
        "turns_heard",  # turns released when the target last sent something but its FIN
        "unproven",  # of its client only the SYN was seen
    )

    def __init__(self, context: Context, copy: int, target: object) -> None:
        self.set_up_session(context, copy, target)

    def set_up_session(self, context: Context, copy: int, target: object) -> None:
        """See `Timed.set_up_timed`."""
        self.set_up_paced(context)
        self.answer_addresses = 0
        self.answer_ports = 0
        self.busy = 0
        self.captured_addresses = 0
        self.captured_ports = 0
        self.captured_wide: bytes | None = None
        self.copy = cython.cast(cython.ushort, copy)
        self.cut = 0
        self.from_syn = 0
        self.gate_deadline_ns = 0
        self.ledger_place = 0
        self.lingers = 0
        self.mapped_port = 0
        self.opens_ns = 0
        self.outcome = cython.cast(cython.uchar, _NONE)
        self.protocol = 0
        self.received_seen = 0
        self.replayed: Replayed = None  # type: ignore[assignment]  # set right after
        self.retry: Any = None
        self.right_sum = 0
        self.sibling: Session | None = None
        self.special = 0
        self.slot_ns = 0
        self.tally: Tally | None = None
        self.target = target
        self.turns_heard = 0
        self.unproven = 0

    # --- progress --------------------------------------------------------------------------

    def advance(self, now_ns: int) -> int:
        """Let through what may go now; 0, or the outcome when the session has ended."""
        half = self.replayed
        if half.ended != _RUNNING:
            return self._outcome_of_ending()
        if half.received > self.received_seen:
            if half.looks and half.received - half.target_closed > self.received_seen:
                self._note_said(half)
            self.received_seen = half.received
            if not half.target_closed:
                self.turns_heard = self.turn_count
            self.note_answer(now_ns)
        self.gate_deadline_ns = 0
        if half.target_closed and self._is_cut_short(half):
            return self.give_up(_CLOSED_EARLY, now_ns)
        self._open_gate(half, now_ns)
        if self.cut and self.captured_end == 0 and self.gate is None:
            closes = self._cut_closes_ns(half, now_ns)
            if closes <= now_ns:
                self.close_captured(now_ns)
                self._open_gate(half, now_ns)
            else:
                self.gate_deadline_ns = closes
        half.transmit(now_ns)
        if half.ended != _RUNNING:
            return self._outcome_of_ending()
        return _NONE

    def _is_cut_short(self, half: Replayed) -> bool:
        """The target has closed where online had not, and the client goes on with a turn.

        Only its FIN is more than online had said. Where answers differ in length that is not known:
        online may have closed its side, too, and read on. There the turn is sent, and is lost when
        the target resets.
        """
        chunk = self.gate
        if chunk is None or chunk.kind >= _FIN or not self.context.resumes:
            return False
        if self.turn_count > 0 and chunk.server_offset <= self.turn_offset:
            return False
        return chunk.server_offset + self.drift + 1 == half.received

    def _open_gate(self, half: Replayed, now_ns: int) -> None:
        while self.gate is not None:
            opens = self.gate_opens_ns(half, now_ns)
            if opens == _OPEN and self.context.turn_rate is not None:
                opens = self._slot(now_ns)
            if opens != _OPEN:
                if opens > 0:
                    self.gate_deadline_ns = opens
                break
            self.slot_ns = 0
            turns = self.turn_count
            chunk = self.gate
            self.release_gate(half, now_ns)
            if self.turn_count != turns and chunk.kind < _FIN:
                half.looks = 1
                self.protocol = cython.cast(cython.uchar, protocol_of(self.protocol, chunk.data))

    def _note_said(self, half: Replayed) -> None:
        """An answer has begun: count its kind."""
        if self.tally is None:
            return
        known = self.tally.note(self.protocol, half.said, self.turn_count == 0)
        half.said = 0
        half.looks = known & _LOOK_AGAIN != 0
        self.protocol = cython.cast(cython.uchar, known & 0xFF)

    def settle_said(self) -> int:
        """The session has ended: count how much both servers had sent at the same place of it."""
        if self.tally is None or not self.from_syn or self.turn_count == 0:
            return 0
        half = self.replayed
        if self.outcome == _REPLAYED and self.captured_end == _FIN:
            online = self.server_seen
            target = half.received - half.target_closed
            if online == target + 1:
                online = target  # the client has acknowledged the FIN, too
        elif self.context.wait_for_answers:
            # Where the last turn began: what came later may not have been acknowledged online.
            online = self.turn_offset
            target = min(self.turn_base, half.received - half.target_closed)
        else:
            return 0
        if online > 0 or target > 0:
            self.tally.note_bytes(online, target)
        return 0

    def _slot(self, now_ns: int) -> int:
        """OPEN, or when `--rate` lets the turn at the gate go; each turn has one slot."""
        chunk = self.gate
        if chunk is None or chunk.kind >= _FIN:
            return _OPEN
        if chunk.server_offset <= self.turn_offset and self.turn_count > 0:
            return _OPEN  # the same turn
        if self.slot_ns == 0:
            rate: Any = self.context.turn_rate
            self.slot_ns = rate.reserve(self.context.rate_clock_ns(now_ns))
        opens = self.slot_ns + self.context.stood_still_ns
        return opens if opens > now_ns else _OPEN

    def _cut_closes_ns(self, half: Replayed, now_ns: int) -> int:
        """When to close a connection of which no more is captured: what it asked is answered."""
        if not half.established or not self.is_delivered():
            return now_ns + _CUT_LOOK
        if self.turn_count == 0:
            return now_ns
        if self.answer_started_ns != 0:
            return half.last_receive_ns + max(_CUT_QUIET, 4 * self.answer_gap_ns)
        since = max(self.turn_released_ns, half.acknowledged_ns)
        return since + max(_CUT_WAIT, _CUT_WAITS * self.answer_usual_ns)

    def run_timers(self, now_ns: int) -> int:
        """Do what is due; 0, or the outcome when the session has ended."""
        half = self.replayed
        half.run_timers(now_ns)
        if half.ended != _RUNNING:
            return self._outcome_of_ending()
        context = self.context
        clock_ns = context.capture_ns if context.recorded else now_ns
        if self.stuck_since_ns and clock_ns >= self._hole_deadline_ns():
            return self.tear(now_ns)
        if self.gate is not None and self._answer_deadline_ns() <= now_ns and half.established:
            opens = self.gate_opens_ns(half, now_ns)
            if opens != _OPEN:
                return self.give_up(_ANSWER_TIMEOUT, now_ns)
        active_ns = self.last_captured_ns if context.recorded else self._last_active_ns()
        if clock_ns - active_ns >= context.idle_timeout_ns:
            complete = self.is_delivered()
            if not complete and context.recorded:
                return self.advance(now_ns)  # read on later; other time-outs bound what it awaits
            return self.give_up(_IDLE_COMPLETE if complete else _IDLE_TIMEOUT, now_ns)
        return self.advance(now_ns)

    def _last_active_ns(self) -> int:
        """When either side did something; a client that only reads is seen by what it is sent."""
        active = self.replayed.last_receive_ns
        if self.last_captured_ns > active:
            active = self.last_captured_ns
        return active if active > self.context.resumed_ns else self.context.resumed_ns

    def _hole_deadline_ns(self) -> int:
        """When a hole has been open for too long, on the clock of the capture."""
        since = self.stuck_since_ns
        context = self.context
        if not context.recorded and context.resumed_ns > since:
            since = context.resumed_ns
        return since + context.hole_timeout_ns

    def _answer_deadline_ns(self) -> int:
        """When waiting for an answer has taken too long."""
        since = self.turn_released_ns
        if self.gate is not None and self.gate.captured_ns > since:
            since = self.gate.captured_ns
        if self.replayed.last_receive_ns > since:
            since = self.replayed.last_receive_ns
        if self.context.resumed_ns > since:
            since = self.context.resumed_ns
        return since + self.context.answer_timeout_ns

    def next_deadline_ns(self) -> int:
        """When `run_timers` is wanted next; always something, the idle time-out at least."""
        context = self.context
        if context.recorded:
            earliest = context.idle_look_ns
        else:
            earliest = self._last_active_ns() + context.idle_timeout_ns
        if self.opens_ns and self.opens_ns + context.stood_still_ns < earliest:
            earliest = self.opens_ns + context.stood_still_ns
        deadline = self.replayed.deadline_ns()
        if deadline and deadline < earliest:
            earliest = deadline
        if self.gate_deadline_ns and self.gate_deadline_ns < earliest:
            earliest = self.gate_deadline_ns
        if self.gate is not None and self.replayed.established and self.slot_ns == 0:
            deadline = self._answer_deadline_ns()
            if deadline < earliest:
                earliest = deadline
        if self.stuck_since_ns:
            if context.recorded:
                deadline = context.hole_look_ns
            else:
                deadline = self._hole_deadline_ns()
            if deadline < earliest:
                earliest = deadline
        return earliest

    # --- endings ---------------------------------------------------------------------------

    def end_of_capture(self, now_ns: int) -> int:
        """Nothing more of this connection is captured; 0, or the outcome when that ends it."""
        if self.stuck_since_ns:
            return self.tear(now_ns)
        self.cut = int(self.captured_end == 0)
        return self.advance(now_ns)

    def tear(self, now_ns: int) -> int:
        """Bytes of the client are missing for good: what came before them is replayed, no more.

        0, or the outcome when that ends it.
        """
        self.context.counts.queued_bytes -= self.tear_captured(now_ns)
        self.cut = int(self.captured_end == 0)
        return self.advance(now_ns)

    def note_busy(self) -> int:
        """Recorded: count the sessions that go on without anything more being captured."""
        if not self.context.recorded:
            return 0
        busy = int(
            self.head is not None  # not released, or not taken by the target
            or self.captured_end != 0
            or self.cut != 0
            or (not self.replayed.established and not self.is_parked())
        )
        if busy != self.busy:
            self.busy = cython.cast(cython.uchar, busy)
            self.context.counts.busy += 1 if busy else -1
        return 0

    def is_parked(self) -> bool:
        """Cut by the target: it wants nothing until its client sends something more."""
        return self.retry is not None and bool(self.retry.is_parked)

    def give_up(self, outcome: int, now_ns: int) -> int:
        """End the session from this side with `outcome`."""
        self.replayed.abort(now_ns)
        return outcome

    def is_delivered(self) -> bool:
        """Everything captured so far has reached the target."""
        half = self.replayed
        return bool(
            half.established
            and self.gate is None
            and self.stuck_since_ns == 0
            and half.acknowledged == self.captured_rcv_offset
            and (self.captured_end == 0 or half.fin_acknowledged)
            and half.undelivered() == 0
        )

    def outcome_at_exit(self) -> int:
        """What a session is counted as that is open when the program ends."""
        if not self.is_delivered():
            return _OPEN_AT_EXIT
        if self.torn:
            return _CAPTURE_HOLE
        return _REPLAYED if self.captured_end != 0 else _OPEN_COMPLETE

    def _outcome_of_ending(self) -> int:
        half = self.replayed
        how = half.ended
        if self.torn and self.captured_end != 0 and self.gate is None:
            return _CAPTURE_HOLE  # all that was whole has gone
        if self.cut and self.captured_end == _FIN and how != _BY_TARGET:
            return _OPEN_COMPLETE  # the client never closed it
        if how == endings.CLOSED:
            return _REPLAYED if self._was_answered() else _UNANSWERED
        if how == endings.RESET_SENT:
            return _CLIENT_RESET
        if how == endings.RESET_BY_TARGET:
            return _CLOSED_EARLY if half.target_closed else _RESET
        return _BY_ENDING[how]

    def _was_answered(self) -> bool:
        """The target said anything at all, where the online server did: FINs are no answers."""
        half = self.replayed
        heard = half.received - (1 if half.target_closed else 0)
        return heard > 0 or self.previous_turn_offset <= 1

    # --- views -----------------------------------------------------------------------------

    def captured_client(self) -> tuple[bytes, int]:
        """Address and port of the client; only while it belongs to its captured connection."""
        port = self.captured_ports >> 16
        if self.captured_wide is not None and len(self.captured_wide) > _REALM_KEY:
            return self.captured_wide[:16], port
        return (self.captured_addresses >> 32).to_bytes(4, "big"), port

    def mapped_client(self) -> tuple[bytes, int]:
        """Address and port as the target sees them; only where they were handed out to it."""
        target: Any = self.target
        if self.captured_wide is None and len(target.target_address) == 4:
            return (self.answer_addresses & _MASK).to_bytes(4, "big"), self.mapped_port
        half: Any = self.replayed
        return half.address, self.mapped_port
