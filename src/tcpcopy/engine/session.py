"""A session: one captured connection towards one target; joins the two halves.

Whatever happens (packet, answer, timer), `advance` lets through what may go and `next_deadline`
says when to look again. The engine ends it when `finished` says how.
"""

from __future__ import annotations

from typing import Any

from tcpcopy.engine import chunk as chunks
from tcpcopy.engine import replayed as endings
from tcpcopy.engine.context import Context
from tcpcopy.engine.outcome import Outcome
from tcpcopy.engine.pacing import OPEN, PacedHalf
from tcpcopy.engine.replayed import Replayed

_OPEN = OPEN
_RUNNING = endings.RUNNING
_RST = chunks.RST
_FIN = chunks.FIN
_NONE = 0
_MASK = 0xFFFFFFFF  # typed: as a literal it would be a Python object when compiled
_REPLAYED = int(Outcome.REPLAYED)
_CLIENT_RESET = int(Outcome.CLIENT_RESET)
_RESET = int(Outcome.RESET)
_CLOSED_EARLY = int(Outcome.CLOSED_EARLY)
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
}


class Session(PacedHalf):
    """One captured connection and its replay."""

    __slots__ = (
        "answer_addresses",  # flow key of the target's packets (engine.flows), without what the
        "answer_ports",  # replayed half knows of it (IPv6); 0 with kernel sockets
        "captured_addresses",  # flow key of the client's packets
        "captured_ports",  # 0 once the session does not belong to its captured connection any more
        "captured_wide",
        "copy",  # 0 for the first, 1.. for the copies of -n
        "gate_deadline_ns",  # when to look at the gate again, 0: only on progress
        "lingers",  # its outcome is counted, it only answers late packets
        "mapped_port",  # as given by the allocator; 0: nothing to give back
        "outcome",  # how it ended, 0: it has not
        "received_seen",  # server bytes that pacing knows of
        "replayed",
        "sibling",  # the next session of the same captured connection, or None
        "syn_ns",  # capture time of the SYN while the round-trip time is not known, 0 else
        "target",  # the Transfer it is replayed to
    )

    def __init__(self, context: Context, copy: int, target: object) -> None:
        super().__init__(context)
        self.answer_addresses = 0
        self.answer_ports = 0
        self.captured_addresses = 0
        self.captured_ports = 0
        self.captured_wide: bytes | None = None
        self.copy = copy
        self.gate_deadline_ns = 0
        self.lingers = 0
        self.mapped_port = 0
        self.outcome = _NONE
        self.received_seen = 0
        self.replayed: Replayed = None  # type: ignore[assignment]  # set right after
        self.sibling: Session | None = None
        self.syn_ns = 0
        self.target = target

    # --- progress --------------------------------------------------------------------------

    def advance(self, now_ns: int) -> int:
        """Let through what may go now; 0, or the outcome when the session has ended."""
        half = self.replayed
        if half.received > self.received_seen:
            self.received_seen = half.received
            self.note_answer(now_ns)
        self.gate_deadline_ns = 0
        while self.gate is not None:
            opens = self.gate_opens_ns(half, now_ns)
            if opens != _OPEN:
                if opens > 0:
                    self.gate_deadline_ns = opens
                break
            self.release_gate(half, now_ns)
        half.transmit(now_ns)
        if half.ended != _RUNNING:
            return self._outcome_of_ending()
        return _NONE

    def run_timers(self, now_ns: int) -> int:
        """Do what is due; 0, or the outcome when the session has ended."""
        half = self.replayed
        half.run_timers(now_ns)
        if half.ended != _RUNNING:
            return self._outcome_of_ending()
        context = self.context
        if self.stuck_since_ns and now_ns - self.stuck_since_ns >= context.hole_timeout_ns:
            return self.give_up(_CAPTURE_HOLE, now_ns)
        if self.gate is not None and self._answer_deadline_ns() <= now_ns and half.established:
            opens = self.gate_opens_ns(half, now_ns)
            if opens != _OPEN:
                return self.give_up(_ANSWER_TIMEOUT, now_ns)
        if now_ns - self._last_active_ns() >= context.idle_timeout_ns:
            complete = self.is_delivered()
            return self.give_up(_IDLE_COMPLETE if complete else _IDLE_TIMEOUT, now_ns)
        return self.advance(now_ns)

    def _last_active_ns(self) -> int:
        """When either side did something; a client that only reads is seen by what it is sent."""
        answered = self.replayed.last_receive_ns
        return answered if answered > self.last_captured_ns else self.last_captured_ns

    def _answer_deadline_ns(self) -> int:
        """When waiting for an answer has taken too long."""
        since = self.turn_released_ns
        if self.gate is not None and self.gate.captured_ns > since:
            since = self.gate.captured_ns
        if self.replayed.last_receive_ns > since:
            since = self.replayed.last_receive_ns
        return since + self.context.answer_timeout_ns

    def next_deadline_ns(self) -> int:
        """When `run_timers` is wanted next; always something, the idle time-out at least."""
        context = self.context
        earliest = self._last_active_ns() + context.idle_timeout_ns
        deadline = self.replayed.deadline_ns()
        if deadline and deadline < earliest:
            earliest = deadline
        if self.gate_deadline_ns and self.gate_deadline_ns < earliest:
            earliest = self.gate_deadline_ns
        if self.gate is not None and self.replayed.established:
            deadline = self._answer_deadline_ns()
            if deadline < earliest:
                earliest = deadline
        if self.stuck_since_ns:
            deadline = self.stuck_since_ns + context.hole_timeout_ns
            if deadline < earliest:
                earliest = deadline
        return earliest

    # --- endings ---------------------------------------------------------------------------

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
        return _REPLAYED if self.captured_end != 0 else _OPEN_COMPLETE

    def _outcome_of_ending(self) -> int:
        half = self.replayed
        how = half.ended
        if how == endings.CLOSED:
            return _REPLAYED
        if how == endings.RESET_SENT:
            return _CLIENT_RESET
        if how == endings.RESET_BY_TARGET:
            return _CLOSED_EARLY if half.target_closed else _RESET
        return _BY_ENDING[how]

    # --- views -----------------------------------------------------------------------------

    def captured_client(self) -> tuple[bytes, int]:
        """Address and port of the client; only while it belongs to its captured connection."""
        port = self.captured_ports >> 16
        if self.captured_wide is not None:
            return self.captured_wide[:16], port
        return (self.captured_addresses >> 32).to_bytes(4, "big"), port

    def mapped_client(self) -> tuple[bytes, int]:
        """Address and port as the target sees them; only where they were handed out to it."""
        if self.captured_wide is None:
            return (self.answer_addresses & _MASK).to_bytes(4, "big"), self.mapped_port
        half: Any = self.replayed
        return half.address, self.mapped_port
