"""What the targets said, as every report tells it."""

from __future__ import annotations

import pytest

from tcpcopy.report.counters import Snapshot
from tcpcopy.report.diagnosis import diagnose
from tcpcopy.report.said import Said, in_line, report, rows
from tcpcopy.report.summary import headline, render
from tcpcopy.report.verdict import exit_code
from tcpcopy.said import kinds as k
from tests.unit.report.samples import SOCKET_CONTEXT, clean

TARGET = "10.0.0.2:8080"


def snapshot_with(counts: dict[int, int], online: int = 0, target: int = 0) -> Snapshot:
    snapshot = clean()
    said = Said(sessions=1, bytes_online=online, bytes_target=target)
    for kind, count in counts.items():
        said.counts[kind] = count
    snapshot.said[TARGET] = said
    return snapshot


def keys(snapshot: Snapshot) -> set[str]:
    return {finding.key for finding in diagnose(snapshot, SOCKET_CONTEXT)}


def test_the_headline_is_never_exact_alone_when_there_were_errors() -> None:
    snapshot = snapshot_with({k.HTTP_5XX: 166_137})
    assert headline(snapshot).endswith(
        "replayed exactly, but the target answered with errors: 166,137 of 166,137 answers looked"
        " at (HTTP 5xx 166,137)"
    )
    assert exit_code(snapshot) == 0
    text = render(snapshot, SOCKET_CONTEXT)
    assert "166,137 answers looked at: HTTP 5xx 166,137" in text
    assert in_line(snapshot) == "errors 166,137 of 166,137"


def test_nothing_is_said_where_nothing_was_wrong() -> None:
    snapshot = snapshot_with({k.HTTP_2XX: 10, k.GREETING: 3, k.HTTP_1XX: 2}, 100, 100)
    assert headline(snapshot).endswith("replayed exactly")
    assert in_line(snapshot) == ""
    assert keys(snapshot) & {"target_errors", "answer_bytes_differ", "said_unknown"} == set()
    assert report(snapshot)[0]["answers"] == 10  # neither greetings nor interim answers
    assert not snapshot.check()


@pytest.mark.parametrize(
    ("errors", "answers", "is_finding"),
    [(4, 100, False), (5, 100, True), (5, 500, False), (6, 500, True), (1, 2, True), (1, 3, False)],
)
def test_how_many_errors_are_a_finding(errors: int, answers: int, is_finding: bool) -> None:
    snapshot = snapshot_with({k.HTTP_4XX: errors, k.HTTP_2XX: answers - errors})
    assert ("target_errors" in keys(snapshot)) == is_finding
    assert "with errors" in headline(snapshot)  # told in any case


@pytest.mark.parametrize(
    ("online", "target", "differs"),
    [
        (16_384, 8_191, True),
        (16_384, 8_192, False),
        (8_000, 16_384, True),
        (16_383, 0, False),
        (20_000, 40_000, False),
        (20_000, 40_001, True),
    ],
)
def test_when_bytes_differ(online: int, target: int, differs: bool) -> None:
    snapshot = snapshot_with({k.HTTP_2XX: 1}, online, target)
    assert ("answer_bytes_differ" in keys(snapshot)) == differs
    assert ("where online answered" in headline(snapshot)) == differs


def test_lengths_alone_are_told_as_that() -> None:
    snapshot = snapshot_with({k.NONE: 12})
    assert "said_unknown" in keys(snapshot)
    assert ("target said", "12 answers known by length alone") in rows(snapshot)
    assert headline(snapshot).endswith("replayed exactly")


@pytest.mark.parametrize("kind", [kind for kind in k.KINDS.values() if kind.is_error])
def test_each_error_has_a_cause_and_a_mend(kind: k.Kind) -> None:
    snapshot = snapshot_with({kind.code: 9})
    (finding,) = [f for f in diagnose(snapshot, SOCKET_CONTEXT) if f.key == "target_errors"]
    assert kind.text in finding.text and finding.remedy
    assert finding.text.split("is not known. ")[1]


def test_workers_add_up_and_travel_as_data() -> None:
    one = snapshot_with({k.HTTP_5XX: 3}, 10, 20)
    two = snapshot_with({k.HTTP_5XX: 4, k.HTTP_2XX: 1}, 1, 2)
    two.said["10.0.0.3:80"] = Said(sessions=5)
    joined = Snapshot.from_dict(one.to_dict()).merge(Snapshot.from_dict(two.to_dict()))
    said = joined.said[TARGET]
    assert (said.errors, said.answers, said.sessions) == (7, 8, 2)
    assert (said.bytes_online, said.bytes_target) == (11, 22)
    assert joined.said["10.0.0.3:80"].sessions == 5
    assert one.said[TARGET].errors == 3  # merging changes neither
