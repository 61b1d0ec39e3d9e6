"""The benchmark of many sessions does what it says: every session opened, replayed, closed."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

import pytest

from benchmarks import scale
from benchmarks.builds import Build
from benchmarks.copier import Variant
from benchmarks.metrics import METRICS
from benchmarks.scaling import SIZES, Scale, figures, mode
from tcpcopy.demo.netns import LabError


@pytest.fixture(autouse=True)
def _little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "MEASURED", 300)
    monkeypatch.setattr(scale, "CHUNK", 40)
    monkeypatch.setattr(scale, "OPENED_AT_ONCE", 30)


def test_every_session_is_replayed_and_closed() -> None:
    bench = scale.Bench(100)
    bench.open()
    assert bench.counts.live == bench.counts.established == bench.counts.turns_replayed == 100
    assert bench.counts.bytes_delivered == 100 * scale.REQUEST
    assert bench.counts.answer_bytes == 100 * scale.ANSWER
    sent = bench.sink.packets + bench.batch.count
    assert sent == 300  # SYN, the request, the acknowledgement of the answer
    bench.rounds_over(bench.order[:7])
    assert bench.counts.turns_replayed == 100 + 301  # whole rounds of seven
    bench.close()
    assert bench.counts.live == 0
    assert sum(bench.counts.outcome_counts()) == 100


def test_the_same_clients_come_again() -> None:
    bench = scale.Bench(50)
    for _ in range(3):
        bench.open()
        bench.close()
    assert bench.counts.sessions == bench.counts.turns_replayed == 150
    assert bench.counts.capture_drop_counts()[1:] == [0] * (
        len(bench.counts.capture_drop_counts()) - 1
    )


def test_packets_are_spread_over_all_sessions() -> None:
    bench = scale.Bench(60)
    bench.open()
    bench.rounds_over(bench.order)
    assert set(bench.rounds) == {6}  # the first, and five times sixty packets


def test_figures_are_metrics() -> None:
    found = scale.measure(30, seed=1, waves=1)
    assert found.sessions == 30
    run = figures(json.dumps(asdict(found)))
    assert set(run) == {f"scale_{f.name}" for f in fields(found)} - {"scale_sessions"}
    assert set(run) <= METRICS.keys()
    assert set(run) == {name for table in Scale.tables for name in table}
    assert run["scale_open_ns"] == found.open_ns > 0


def test_text_that_is_no_result() -> None:
    with pytest.raises(ValueError, match="no JSON object"):
        figures("[1]")


def test_sizes_are_variants() -> None:
    assert Scale.modes[-1] == "1,000,000 open" == mode(SIZES[-1])
    assert Scale.alone


def test_a_build_that_fails_is_told() -> None:
    broken = Build("broken", ("/bin/false",), (), {})
    with pytest.raises(LabError, match="broken, 100 open"):
        Scale().run_alone(Variant(broken, mode(100)))
