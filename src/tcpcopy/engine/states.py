"""Connection states of the replayed half (RFC 9293, 3.3.2) and the changes allowed between them.

The table is the single source: the client checks every change against it.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """States of a TCP that opened actively; zero is no state."""

    SYN_SENT = 1
    ESTABLISHED = 2
    FIN_WAIT_1 = 3
    FIN_WAIT_2 = 4
    CLOSING = 5
    TIME_WAIT = 6
    CLOSE_WAIT = 7
    LAST_ACK = 8
    CLOSED = 9


TRANSITIONS: dict[State, frozenset[State]] = {
    State.SYN_SENT: frozenset({State.ESTABLISHED, State.CLOSED}),
    State.ESTABLISHED: frozenset({State.FIN_WAIT_1, State.CLOSE_WAIT, State.CLOSED}),
    State.FIN_WAIT_1: frozenset({State.FIN_WAIT_2, State.CLOSING, State.TIME_WAIT, State.CLOSED}),
    State.FIN_WAIT_2: frozenset({State.TIME_WAIT, State.CLOSED}),
    State.CLOSING: frozenset({State.TIME_WAIT, State.CLOSED}),
    State.TIME_WAIT: frozenset({State.CLOSED}),
    State.CLOSE_WAIT: frozenset({State.LAST_ACK, State.CLOSED}),
    State.LAST_ACK: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


# The same, to be looked up without an enum: ALLOWED[old * 16 + new] is 1.
ALLOWED: bytes = bytes(
    1 if old in TRANSITIONS and new in TRANSITIONS[State(old)] else 0
    for old in range(16)
    for new in range(16)
)


def complain(old: int, new: int) -> None:
    """Raise RuntimeError (our bug) for a change that the table does not allow."""
    raise RuntimeError(f"TCP state {State(old).name} -> {State(new).name} is not allowed")
