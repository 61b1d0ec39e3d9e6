"""Captures that once went wrong (tests/cases), replayed to a server on loopback: what it read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tcpcopy.recorded.inspect import inspect, to_json
from tcpcopy.recorded.stream import open_recorded
from tests.lab.reader import serving

CASES = Path(__file__).resolve().parents[1] / "cases"
NAMES = sorted(path.stem for path in CASES.glob("*.pcap"))


def replay(name: str, options: list[str], folder: Path) -> tuple[list[bytes], dict[str, Any], str]:
    """What the server read, the JSON report, and what was printed."""
    path = folder / "report.json"
    with serving() as server:
        command = [
            *(sys.executable, "-m", "tcpcopy", "-i", CASES / f"{name}.pcap", "--fast"),
            *("-x", f"80-127.0.0.1:{server.port}", "--json", path, *options),
        ]
        run = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"COLUMNS": "100"},
        )
        streams = server.stop()
    said = run.stdout + run.stderr
    assert path.exists(), said
    return streams, json.loads(path.read_text()) | {"status": run.returncode}, said


def test_every_case_says_what_is_right() -> None:
    assert {path.name.removesuffix(".expected.json") for path in CASES.glob("*.json")} == set(NAMES)
    assert len(NAMES) >= 28


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, tmp_path: Path) -> None:
    expected = json.loads((CASES / f"{name}.expected.json").read_text())
    streams, report, said = replay(name, expected.get("options", []), tmp_path)
    wanted = sorted(stream.encode("latin-1") for stream in expected["streams"])
    assert streams == wanted, said
    outcomes = {key: count for key, count in report["sessions"]["outcomes"].items() if count}
    assert outcomes == expected["outcomes"], said
    assert report["status"] == report["exit_code"] == expected["exit_code"], said
    assert report["violations"] == []
    assert (
        sum(report["packets"]["dropped"].values()) + report["packets"]["used"]
        == (report["packets"]["captured"])
    )


@pytest.mark.parametrize("name", NAMES)
def test_inspect_sees_the_same_sessions(name: str) -> None:
    """What is replayed is what `tcpcopy inspect` shows."""
    expected = json.loads((CASES / f"{name}.expected.json").read_text())
    if set(expected["outcomes"]) != {"replayed"}:
        pytest.skip("not all of it can be replayed")
    path = str(CASES / f"{name}.pcap")
    found = to_json(inspect(open_recorded([path]), [path]))
    sessions = found["sessions"]
    assert sessions["total"] == sessions["whole"] + sessions["begun_before"]
    assert sessions["total"] == len(expected["streams"])
    (server,) = found["tcp_servers"]
    assert server["client_bytes"] == sum(len(stream) for stream in expected["streams"])
