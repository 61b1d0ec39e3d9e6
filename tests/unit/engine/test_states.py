"""The table of states: what it allows is what a TCP that opened may do, and the client does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tcpcopy.engine import states
from tcpcopy.engine.states import TRANSITIONS, State
from tests.unit.engine.rig import Bench, established


def test_zero_is_no_state() -> None:
    assert 0 not in set(State)
    assert sorted(State) == list(range(1, len(State) + 1))


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_state_is_reached_and_every_state_ends() -> None:
    reached = {State.SYN_SENT}
    for _ in State:
        reached |= {after for before in reached for after in TRANSITIONS[before]}
    assert reached == set(State)
    for state in State:
        if state is not State.CLOSED:
            assert State.CLOSED in TRANSITIONS[state]
    assert TRANSITIONS[State.CLOSED] == frozenset()


def test_table_is_that_of_the_rfc() -> None:
    """RFC 9293, figure 5, without the passive side; every state may end by a reset."""
    orderly = {
        (State.SYN_SENT, State.ESTABLISHED),
        (State.ESTABLISHED, State.FIN_WAIT_1),
        (State.ESTABLISHED, State.CLOSE_WAIT),
        (State.FIN_WAIT_1, State.FIN_WAIT_2),
        (State.FIN_WAIT_1, State.CLOSING),
        (State.FIN_WAIT_1, State.TIME_WAIT),
        (State.FIN_WAIT_2, State.TIME_WAIT),
        (State.CLOSING, State.TIME_WAIT),
        (State.CLOSE_WAIT, State.LAST_ACK),
    }
    table = {(before, after) for before in State for after in TRANSITIONS[before]}
    assert {pair for pair in table if pair[1] is not State.CLOSED} == orderly


@pytest.mark.parametrize("before", list(State))
@pytest.mark.parametrize("after", list(State))
def test_check(before: State, after: State) -> None:
    """The flat table that the client looks up says what the readable one says."""
    assert states.ALLOWED[before * 16 + after] == (after in TRANSITIONS[before])
    with pytest.raises(RuntimeError, match=f"{before.name} -> {after.name}"):
        states.complain(before, after)


def walk(steps: str) -> list[State]:
    """The states that a client goes through while the target does what `steps` name."""
    bench = Bench()
    bench.open()
    seen = [State(bench.client.state)]
    doings: dict[str, Callable[[], object]] = {
        "accept": lambda: bench.accept(),
        "finish": lambda: bench.finish(),
        "ack fin": lambda: bench.hear("A", bench.client.received, ack=1),
        "fin": lambda: bench.hear("FA", 0, ack=bench.client.snd_una),
        "fin and ack": lambda: bench.hear("FA", 0, ack=1),
        "reset": lambda: bench.hear("RA", max(bench.client.received, -1), ack=0),
    }
    for step in steps.split(", "):
        doings[step]()
        if seen[-1] != bench.client.state:
            seen.append(State(bench.client.state))
    return seen


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("accept, finish, ack fin, fin", "SYN_SENT ESTABLISHED FIN_WAIT_1 FIN_WAIT_2 CLOSED"),
        ("accept, finish, fin and ack", "SYN_SENT ESTABLISHED FIN_WAIT_1 CLOSED"),
        ("accept, finish, fin, ack fin", "SYN_SENT ESTABLISHED FIN_WAIT_1 CLOSING CLOSED"),
        ("accept, fin, finish, ack fin", "SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSED"),
        ("accept, reset", "SYN_SENT ESTABLISHED CLOSED"),
        ("accept, fin, reset", "SYN_SENT ESTABLISHED CLOSE_WAIT CLOSED"),
    ],
)
def test_walks(steps: str, expected: str) -> None:
    """TIME-WAIT is passed through: the mapped port is kept by the lingering session instead."""
    assert [state.name for state in walk(steps)] == expected.split()


def test_states_of_the_client_are_the_numbers_of_the_enum() -> None:
    bench = Bench()
    assert bench.client.state == State.SYN_SENT
    assert established().client.state == State.ESTABLISHED
