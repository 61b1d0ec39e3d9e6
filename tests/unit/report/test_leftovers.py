"""What the reports say of sessions that a kill left open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpcopy.report.counters import LeftoverCounts, Snapshot, merged
from tcpcopy.report.diagnosis import Finding, diagnose
from tcpcopy.report.leftovers import describe
from tcpcopy.report.schema import to_json
from tcpcopy.report.summary import render
from tcpcopy.report.verdict import exit_code
from tests.unit.report.samples import CLASSIC_CONTEXT, SECOND, clean


def left(*counts: int) -> Snapshot:
    snapshot = clean()
    snapshot.leftovers = LeftoverCounts(*counts)
    return snapshot


def found_in(snapshot: Snapshot) -> list[Finding]:
    """What is told of leftovers."""
    return [f for f in diagnose(snapshot, CLASSIC_CONTEXT) if f.key.startswith("leftovers")]


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ((1, 1), "1 session left open by a kill: 1 reset"),
        ((10, 4, 3, 2, 1), "10 sessions left open by a kill: 4 reset, 3 already gone, "
         "2 taken over by new sessions, 1 without an answer of the target"),
        ((5, 2), "5 sessions left open by a kill: 2 reset, 3 not tried yet"),
    ],
)  # fmt: skip
def test_in_one_line(counts: tuple[int, ...], line: str) -> None:
    assert describe(LeftoverCounts(*counts)) == line


def test_what_was_reset_is_a_note_and_no_loss() -> None:
    snapshot = left(300, 298, 2)
    (finding,) = found_in(snapshot)
    assert (finding.key, finding.level, finding.count) == ("leftovers", "note", 300)
    assert "298 reset" in render(snapshot, CLASSIC_CONTEXT)
    assert exit_code(snapshot) == 0


def test_what_gave_no_answer_is_a_warning_with_a_step() -> None:
    (finding,) = found_in(left(3, 0, 0, 0, 3))
    assert finding.level == "warning"
    assert "ss -tn" in finding.remedy[0] and "10.0.0.3:8080" in finding.remedy[0]


def test_what_found_no_room_is_said() -> None:
    (finding,) = found_in(left(0, 0, 0, 0, 0, 7))
    assert (finding.key, finding.count) == ("leftovers_unrecorded", 7)


def test_as_json() -> None:
    context = replace(
        CLASSIC_CONTEXT,
        is_final=False,
        earlier_process=4711,
        earlier_started_ns=1_700_000_000 * SECOND,
    )
    report = to_json(left(10, 4, 3, 0, 1), context)
    assert report["final"] is False
    assert report["previous_run"] == {"process": 4711, "started": "2023-11-14T22:13:20.000+00:00"}
    assert report["leftovers"] == {
        "found": 10, "reset": 4, "gone": 3, "superseded": 0, "unanswered": 1, "waiting": 2,
        "unrecorded": 0,
    }  # fmt: skip
    report = to_json(clean(), CLASSIC_CONTEXT)
    assert report["final"] is True
    assert report["previous_run"] == {"process": 0, "started": None}


def test_workers_are_added_up_and_travel() -> None:
    joined = merged([left(5, 2, 1), left(7, 7)])
    assert joined.leftovers == LeftoverCounts(12, 9, 1)
    assert Snapshot.from_dict(joined.to_dict()).leftovers == joined.leftovers
    assert joined.check() == []


def test_more_handled_than_found_does_not_add_up() -> None:
    assert left(1, 2).check() == [
        "sessions left open that were handled 2 are more than those found 1"
    ]
