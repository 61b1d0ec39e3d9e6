"""What the reports say of sessions that a killed run or worker left open at the target."""

from __future__ import annotations

from tcpcopy.report.context import Context
from tcpcopy.report.counters import LeftoverCounts, Snapshot
from tcpcopy.report.text import number, plural

_Found = tuple[str, str, int, str, tuple[str, ...]]


def describe(counts: LeftoverCounts) -> str:
    """`300 sessions left open by a kill: 298 reset, 2 already gone`."""
    parts = [
        (counts.reset, "reset"),
        (counts.gone, "already gone"),
        (counts.superseded, "taken over by new sessions"),
        (counts.unanswered, "without an answer of the target"),
        (counts.waiting, "not tried yet"),
    ]
    shown = ", ".join(f"{number(count)} {text}" for count, text in parts if count)
    return f"{plural(counts.found, 'session')} left open by a kill: {shown}"


def findings(snapshot: Snapshot, context: Context) -> list[_Found]:
    """The arguments of a `Finding` for each thing worth telling."""
    counts = snapshot.leftovers
    found: list[_Found] = []
    steps: tuple[str, ...]
    if counts.found:
        steps = ()
        if counts.unanswered:
            where = ", ".join(context.targets) or "the target"
            steps = (
                f"they may be open at {where} yet: `ss -tn` there shows them; its server ends them"
                " by its own time-out, or when it is restarted",
            )
        level = "warning" if counts.unanswered else "note"
        found.append(("leftovers", level, counts.found, describe(counts), steps))
    if counts.unrecorded:
        text = (
            f"{plural(counts.unrecorded, 'session')} found no room in the file by which a start"
            " after a kill resets what is open"
        )
        found.append(
            (
                "leftovers_unrecorded",
                "warning",
                counts.unrecorded,
                text,
                ("a larger disk for --state",),
            )
        )
    return found
