"""The JSON report: its keys are those documented, its figures those of the snapshot."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from typing import Any

from tcpcopy.report.context import Context
from tcpcopy.report.counters import RelayCounts, Snapshot
from tcpcopy.report.outcome import Drop, Outcome
from tcpcopy.report.said import Said
from tcpcopy.report.schema import FIELDS, FORMAT
from tcpcopy.report.summary import exit_code, headline, to_json
from tcpcopy.said import kinds
from tests.unit.report.samples import CLASSIC_CONTEXT, SOCKET_CONTEXT, clean, with_outcome


def paths(value: Any, path: str = "") -> Iterator[str]:
    """The path of every figure, as FIELDS writes them."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = "*" if path in ("send_errors", "udp.errors", "tunnels.not_read") else key
            yield from paths(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{path}[]")
    else:
        yield path


def eventful() -> Snapshot:
    """A run in which every list and map of the report has an element."""
    snapshot = with_outcome(Outcome.REFUSED)
    snapshot.send_errors = {errno.EPERM: 3}
    snapshot.not_read = {"GENEVE": 12_030}
    snapshot.udp_errors = {errno.EPERM: 1}
    snapshot.relays["10.0.0.4:36524"] = RelayCounts(1, 2, 1, 50, 1, 1)
    snapshot.said["10.0.0.2:8080"] = said_of({kinds.HTTP_5XX: 4, kinds.HTTP_2XX: 6})
    snapshot.packets_captured += 1  # a violation
    return snapshot


def said_of(counts: dict[int, int]) -> Said:
    """The answers of a target, by kind."""
    said = Said(sessions=1, bytes_online=100, bytes_target=50)
    for kind, count in counts.items():
        said.counts[kind] = count
    return said


def test_keys_made_are_the_keys_documented() -> None:
    report = to_json(eventful(), CLASSIC_CONTEXT)
    assert sorted(set(paths(report))) == sorted(FIELDS)


def test_every_key_is_there_in_an_empty_run_too() -> None:
    """Lists and maps may be empty; a reader never meets a key that is missing."""
    made = set(paths(to_json(Snapshot(), Context())))
    may_be_empty = {path for path in FIELDS if "[]" in path or "*" in path}
    assert set(FIELDS) - made <= may_be_empty
    assert made <= set(FIELDS)


def test_documentation_says_something_of_each_key() -> None:
    assert all(text and "\n" not in text for text in FIELDS.values())


def test_survives_json_unchanged() -> None:
    report = to_json(eventful(), CLASSIC_CONTEXT)
    assert json.loads(json.dumps(report)) == report


def test_figures_are_those_of_the_snapshot() -> None:
    snapshot = eventful()
    snapshot.answer_time.record(2_500_000)
    report = to_json(snapshot, CLASSIC_CONTEXT)
    assert report["format"] == FORMAT
    assert report["version"] == "1.2.3"
    assert report["started"] == "2023-11-14T22:13:20.000+00:00"
    assert report["duration_s"] == 65.0
    assert report["exit_code"] == exit_code(snapshot) == 1
    assert report["headline"] == headline(snapshot)
    assert report["sessions"]["outcomes"]["refused"] == 7
    assert sum(report["sessions"]["outcomes"].values()) == report["sessions"]["captured"]
    assert report["packets"]["dropped"][Drop.DUPLICATE.name.lower()] == 10
    assert report["send_errors"] == {"EPERM": 3}
    assert report["kernel"]["rings"] == [
        {"device": "eth0", "received": 1_000, "dropped": 0, "skipped": 0}
    ]
    assert report["relay"]["intercepts"][0] == {
        "peer": "10.0.0.4:36524", "connected": 1, "connects": 2, "records": 50, "malformed": 1,
        "lost": 1, "reconnects": 1, "dropped": 0, "kind": "classic", "tls": False,
    }  # fmt: skip
    assert report["latency"]["answer"]["p99_ms"] == 2.5
    assert report["latency"]["lag"] == {
        "count": 0, "mean_ms": 0, "p50_ms": 0, "p90_ms": 0, "p99_ms": 0, "p999_ms": 0, "max_ms": 0,
    }  # fmt: skip
    assert len(report["violations"]) == 1


def test_run_that_never_started_has_no_start() -> None:
    assert to_json(Snapshot(), SOCKET_CONTEXT)["started"] is None


def test_findings_are_those_of_the_summary() -> None:
    report = to_json(with_outcome(Outcome.REFUSED), SOCKET_CONTEXT)
    (found,) = report["findings"]
    assert (found["key"], found["level"], found["count"]) == ("refused", "loss", 7)
    assert found["remedy"][0].startswith("on the target: ")


def test_clean_run_has_no_findings() -> None:
    report = to_json(clean(), SOCKET_CONTEXT)
    assert (report["findings"], report["violations"], report["exit_code"]) == ([], [], 0)
