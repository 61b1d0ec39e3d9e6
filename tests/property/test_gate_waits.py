"""Every wait at the gate has a deadline: whatever online did and the target does, turns go on.

Only a target that has not acknowledged what was sent is waited for without one; that is what `-t`
watches.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.engine import pacing
from tests.unit.engine.gating import Gate
from tests.unit.engine.rig import MS

GAPS = st.integers(0, 3_000 * MS)
TURNS = st.tuples(st.just("turn"), GAPS, st.integers(0, 3_000))
ANSWERS = st.tuples(st.just("answer"), GAPS, st.integers(1, 3_000), st.booleans())
LONGEST = max(pacing.GREETING_WAIT_NS, pacing.BEGUN_WAIT_NS, pacing.FIRST_WAIT_NS)


@given(
    st.lists(st.one_of(TURNS, ANSWERS), max_size=30),
    st.sampled_from([0, 30 * MS]),
    st.booleans(),
)
def test_every_wait_has_a_deadline(
    steps: list[tuple[Any, ...]], rtt_ns: int, streaming: bool
) -> None:
    gate = Gate(rtt_ns=rtt_ns)
    gate.half.streaming = int(streaming)
    at, seen, greatest_gap, last_turn = 0, 0, 0, 0
    for kind, gap_ns, size, *pushed in steps:
        at += gap_ns
        if kind == "turn":
            seen += size
            greatest_gap = max(greatest_gap, at - last_turn)
            last_turn = at
            gate.turn(at, seen=seen)
        else:
            gate.answer(at, size, pushed=bool(pushed[0]))
        while gate.half.gate is not None and gate.look(at) == 0:
            gate.goes(at)
    while gate.half.gate is not None:
        usual_ns = max(gate.half.answer_usual_ns, gate.context.answer_usual_ns)
        bound = max(LONGEST, 10 * greatest_gap, 8 * usual_ns) + pacing.WAIT_MIN_NS
        went = gate.goes_after(at)
        assert went - at <= bound
        at = max(at, went)
    assert gate.half.gate is None
