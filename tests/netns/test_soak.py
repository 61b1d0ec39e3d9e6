"""Connections come and go for half an hour: nothing grows, and every one of them is exact.

`TCPCOPY_SOAK_SECONDS` says how long instead; what was seen is printed (`pytest -s`).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from benchmarks.account import status_number
from tests.lab.scenario import Scenario

pytestmark = [pytest.mark.netns, pytest.mark.soak]
SECONDS = int(os.environ.get("TCPCOPY_SOAK_SECONDS", "1800"))
# Ended connections are remembered for up to four minutes, by intercept for five.
WARM_UP = min(320, SECONDS // 2)
LOADS = (
    "--connections 3000 --concurrency 50 --rate 300 --requests 3",
    "--connections 2000 --concurrency 200 --rate 300 --end rst",
    "--connections 300 --concurrency 300 --rate 300 --requests 40 --think-ms 50",
)


def resident(pid: int) -> int:
    """Bytes that a program has filled itself."""
    return status_number(Path(f"/proc/{pid}/status").read_text(), "RssAnon") * 1024


@pytest.mark.parametrize("mode", ["classic", "socket"])
def test_nothing_grows(scenario: Scenario, mode: str) -> None:
    scenario.servers()
    samples: dict[str, list[int]] = {}
    streams = 0
    began = time.monotonic()
    with scenario.replay(mode) as replay:
        programs = {p.name: p.pid for p in (replay.tcpcopy, *replay.intercepts)}
        while time.monotonic() - began < SECONDS:
            for load in LOADS:
                streams += scenario.load(load, timeout=120)["connections"]
                seconds = time.monotonic() - began
                for name, pid in programs.items():
                    size = resident(pid)
                    print(f"{mode} {seconds:7.0f} s {streams:8} connections {name} {size} B")
                    if seconds > WARM_UP:
                        samples.setdefault(name, []).append(size)
        scenario.wait_for_target(streams, 60)
    result = scenario.compare()
    assert result.clean and result.exact == streams, result
    assert replay.exit_code == 0, replay.output
    for name, sizes in samples.items():
        half = len(sizes) // 2
        assert half >= 2, "too short: nothing to compare"
        early, late = max(sizes[:half]), max(sizes[half:])
        assert late <= early * 1.02 + 1_000_000, f"{name} grew: {sizes}"
