"""Whether turns reached the target's application when they should have."""

from __future__ import annotations

from .capture import turn_starts
from .conversation import Plan
from .harness import Replay


def _first_time(log: list[tuple[int, int]], total: int) -> int | None:
    """Return when a log of (time, running total) first reached `total`."""
    return next((time_ns for time_ns, reached in log if reached >= total), None)


def turn_delays(plan: Plan, replay: Replay) -> list[int | None]:
    """Return, for each turn, ns from its capture until its first byte was read at the target.

    None for a turn that was not read. Turns are those of `plan.turns`, late data not included.
    """
    delays: list[int | None] = []
    sent = 0
    for start_ns, turn in zip(turn_starts(plan), plan.turns, strict=False):
        read_ns = _first_time(replay.record.reads, sent + 1)
        delays.append(None if read_ns is None else read_ns - start_ns)
        sent += turn.request
    return delays


def acknowledged_before(plan: Plan) -> list[int]:
    """Return how many bytes of answers the client had acknowledged when it began each turn."""
    totals = []
    answered, seen = plan.greeting, plan.greeting
    for turn in plan.turns:
        totals.append(seen)
        if turn.answer:
            seen = answered + turn.answer_seen
        answered += turn.answer
    return totals


def early_turns(plan: Plan, replay: Replay) -> list[str]:
    """Return what came too soon: before it was captured, or before the answers it waits for.

    Holds where the target answers as online did (`Conditions.habits` without factors), apart
    from turns that ran into the engine's own waiting time.
    """
    found = []
    delays = turn_delays(plan, replay)
    starts = turn_starts(plan)
    for index, needed in enumerate(acknowledged_before(plan)):
        delay_ns = delays[index]
        if delay_ns is None:
            continue
        if delay_ns < 0:
            found.append(f"turn {index} was read {-delay_ns} ns before it was captured")
        written_ns = _first_time(replay.record.writes, needed) if needed else None
        read_ns = starts[index] + delay_ns
        if needed and (written_ns is None or written_ns > read_ns):
            found.append(f"turn {index} was read before {needed} bytes were answered")
    return found
