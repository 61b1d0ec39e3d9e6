"""A captured half with its gate, and a target that the test plays: sizes and times, no packets."""

from __future__ import annotations

from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.pacing import ON_PROGRESS, OPEN, PacedHalf
from tcpcopy.engine.replayed import Replayed
from tcpcopy.packet.batch import PacketBatch
from tests.unit.engine.rig import SECOND, CollectingSink

START = 7_000 * SECOND
ISN = 1000
SERVER_BASE = 5000


class Gate:
    """Times are nanoseconds since START; offsets of the server are those of online."""

    def __init__(self, *, rtt_ns: int = 0, wait: bool = True, established: bool = True) -> None:
        config = EngineConfig(wait_for_answers=wait)
        self.context = Context(config, PacketBatch(CollectingSink()))
        self.counts = self.context.counts
        self.half = PacedHalf(self.context)
        self.half.captured_isn = ISN
        self.half.rtt_ns = rtt_ns
        self.half.client_rtt_ns = rtt_ns
        self.half.acknowledged_by_client(SERVER_BASE)
        self.replayed = Replayed()
        self.replayed.established = int(established)
        self.takes = True  # the target acknowledges what is sent at once

    # --- the captured side -----------------------------------------------------------------

    def turn(self, at_ns: int, *, seen: int, size: int = 10, data: bytes | None = None) -> None:
        """The client sends `size` bytes after it has seen `seen` bytes of the online server."""
        payload = bytes(size) if data is None else data
        seq = ISN + 1 + self.half.captured_rcv_offset
        assert self.half.take_data(seq, SERVER_BASE + seen, payload, START + at_ns) == 0
        self._note()

    def fin(self, at_ns: int, *, seen: int) -> None:
        """The client closes."""
        seq = ISN + 1 + self.half.captured_rcv_offset
        assert self.half.take_fin(seq, SERVER_BASE + seen, START + at_ns) == 0
        self._note()

    def rst(self, at_ns: int, *, seen: int) -> None:
        """The client resets."""
        seq = ISN + 1 + self.half.captured_rcv_offset
        assert self.half.take_rst(seq, SERVER_BASE + seen, START + at_ns) == 0
        self._note()

    def _note(self) -> None:
        assert self.half.tail is not None
        self.half.note_turn(self.half.tail)

    # --- the target ------------------------------------------------------------------------

    def answer(self, at_ns: int, size: int, *, pushed: bool = True) -> None:
        """The target sends `size` bytes."""
        self.replayed.received += size
        self.replayed.last_receive_ns = START + at_ns
        self.replayed.pushed = int(pushed)
        self.half.note_answer(START + at_ns)

    def close(self, at_ns: int) -> None:
        """The target's FIN."""
        self.answer(at_ns, 1)
        self.replayed.target_closed = 1

    # --- the gate --------------------------------------------------------------------------

    def look(self, at_ns: int) -> int | None:
        """What the gate says at that time: 0 open, a time since START, or None: on progress."""
        opens = self.half.gate_opens_ns(self.replayed, START + at_ns)
        if opens == ON_PROGRESS:
            return None
        return 0 if opens == OPEN else opens - START

    def goes_at(self, at_ns: int) -> None:
        """The gate says that it opens at that time, not a nanosecond before; the chunk goes."""
        if self.half.last_captured_ns < START + at_ns:
            earlier = self.look(at_ns - 1)
            assert earlier == at_ns, f"gate tells {earlier}, not {at_ns}"
        self.goes(at_ns)

    def goes(self, at_ns: int) -> None:
        """The gate is open at that time; the chunk goes."""
        assert self.look(at_ns) == 0
        gate = self.half.gate
        self.half.release_gate(self.replayed, START + at_ns)
        assert self.half.gate is not gate
        if self.takes:
            self.replayed.acknowledged = self.half.released_end

    def goes_after(self, at_ns: int) -> int:
        """The gate opens at that time or by waiting alone; when it did."""
        look = self.look(at_ns)
        while look != 0:
            assert look is not None, "nothing opens the gate"
            at_ns = look
            look = self.look(at_ns)
        self.goes(at_ns)
        return at_ns

    def waits(self, at_ns: int) -> None:
        """The gate is shut at that time."""
        assert self.look(at_ns) != 0

    def waits_for_progress(self, at_ns: int) -> None:
        """Nothing but progress of the target opens the gate."""
        assert self.look(at_ns) is None


def asked(gate: Gate | None = None, *, rtt_ns: int = 0) -> Gate:
    """A gate whose first turn went at time 0."""
    gate = gate or Gate(rtt_ns=rtt_ns)
    gate.turn(0, seen=0)
    gate.goes(0)
    return gate
