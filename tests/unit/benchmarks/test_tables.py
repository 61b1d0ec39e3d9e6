"""Tables, and what is read out of the servers' own accounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.__main__ import ALL, add_slowdown, parse
from benchmarks.builds import c_paths, find
from benchmarks.metrics import METRICS
from benchmarks.numbers import Run, Spread
from benchmarks.servers import established, stub_status_requests
from benchmarks.tables import RATIOS, cell, ratio_cell, ratios, results
from tcpcopy.demo.netns import LabError
from tcpcopy.errors import UsageError


def test_every_column_is_a_known_metric() -> None:
    for scenario in ALL:
        assert [name for table in scenario.tables for name in table if name not in METRICS] == []
    assert [name for name in RATIOS if name not in METRICS] == []


def test_names_of_scenarios_are_unique() -> None:
    assert len({scenario.name for scenario in ALL}) == len(ALL)


def test_cells() -> None:
    assert cell(None, 2) == "–"
    assert cell(Spread(1.0, 2.0, 3.0, 2), 2) == "1.00 / 2.00"
    assert cell(Spread(12345.6, 12345.6, 12345.6, 1), 0) == "12,346"
    assert ratio_cell(Spread(0.4, 0.5, 0.6, 3)) == "0.50 (0.40 to 0.60)"
    assert ratio_cell(Spread(0.5, 0.5, 0.5, 1)) == "0.50"
    assert ratio_cell(None) == "–"


RUNS: dict[str, list[Run]] = {
    "no copy": [{"online_per_s": 1000.0}, {"online_per_s": 500.0}],
    "compiled, classic": [
        {"online_per_s": 900.0, "together_us": 5.0},
        {"online_per_s": 450.0, "together_us": 7.0},
    ],
    "c, classic": [
        {"online_per_s": 800.0, "together_us": 10.0},
        {"online_per_s": 400.0, "together_us": 20.0},
    ],
}


def test_results_leave_out_columns_that_nobody_has() -> None:
    text = results(("online_per_s", "together_us", "drops"), RUNS).splitlines()
    assert [word.strip() for word in text[0].split("|")[1:-1]] == [
        "build, mode",
        "online req/s",
        "together us/req",
    ]
    assert [word.strip() for word in text[2].split("|")[1:-1]] == ["no copy", "500 / 750", "–"]
    assert "5.00 / 6.00" in text[3]
    assert len({len(line) for line in text}) == 1


def test_ratios_are_of_rounds_not_of_medians() -> None:
    text = ratios(("online_per_s", "together_us"), RUNS, "c, classic").splitlines()
    assert "compiled, classic : c, classic" in text[3]
    assert "0.42 (0.35 to 0.50)" in text[3]
    assert ratios(("drops",), RUNS, "c, classic") == ""


def test_slowdown_is_by_online_alone_in_the_same_round() -> None:
    runs = {name: list(measured) for name, measured in RUNS.items()}
    add_slowdown(runs)
    assert [run["slowdown"] for run in runs["compiled, classic"]] == [0.9, 0.9]
    assert "slowdown" not in runs["no copy"][0]


def test_stub_status() -> None:
    answer = (
        "HTTP/1.1 200 OK\r\n\r\nActive connections: 2 \nserver accepts handled requests\n"
        " 16 16 31 \nReading: 0 Writing: 1 Waiting: 1 \n"
    )
    assert stub_status_requests(answer) == 31
    with pytest.raises(LabError, match="no status"):
        stub_status_requests("HTTP/1.1 404 Not Found\r\n\r\n")


SOCKETS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0200420A:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0200420A:1F90 0500420A:2710 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
   2: 0200420A:1F90 0500420A:2711 06 00000000:00000000 00:00000000 00000000     0        0 3 1 0
   3: 0200420A:2711 0300420A:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0
"""


def test_established_are_those_of_the_local_port() -> None:
    """The last one is tcpcopy's own, to the target."""
    assert established(SOCKETS, 8080) == 1


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_c_pair_by_prefix_and_by_path(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    programs = [program(prefix / "sbin" / name) for name in ("tcpcopy", "intercept")]
    expected = (str(programs[0]), str(programs[1]))
    assert c_paths({"TCPCOPY_BENCH_C": str(prefix)}) == expected
    other = program(tmp_path / "other")
    environment = {"TCPCOPY_BENCH_C": str(prefix), "TCPCOPY_BENCH_C_INTERCEPT": str(other)}
    assert c_paths(environment) == (str(programs[0]), str(other))
    assert c_paths({}) is None


def test_c_pair_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TCPCOPY_BENCH_C"):
        c_paths({"TCPCOPY_BENCH_C": str(tmp_path)})


def test_builds_differ_in_where_the_package_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    pure, other = find(["pure", "before=/bin/sh"])
    assert pure.environment["PYTHONPATH"].endswith("/src")
    assert os.path.isdir(pure.environment["PYTHONPATH"])
    assert "PYTHONPATH" not in other.environment
    assert other.tcpcopy == ("/bin/sh", "-P", "-m", "tcpcopy.cli")
    with pytest.raises(UsageError, match="fastest"):
        find(["fastest"])


@pytest.mark.parametrize(
    "words", [["--seconds", "0"], ["--rounds", "-1"], ["--scenario", "none"], ["--nonsense"]]
)
def test_bad_usage_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)
