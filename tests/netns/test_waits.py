"""Nothing stands still for want of an answer that cannot come: targets that owe, push, or reset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tcpcopy.demo.netns import Host
from tests.lab.scenario import LOCAL_PORT, MODES, PORT, Scenario, python, wait_until

# Where the gate is the engine's own, and where it is a socket's; `make acceptance` has all.
EACH_MODE = [
    *MODES,
    *(pytest.param(mode, marks=pytest.mark.acceptance) for mode in ("local", "tunnel")),
]

Records = list[dict[str, Any]]


def serve(scenario: Scenario, host: Host, *words: object) -> Path:
    """Start a pushing server on a host; its records."""
    where, port = host, PORT
    if scenario.one_host and host is scenario.lab.target:
        where, port = scenario.lab.online, LOCAL_PORT
    records = scenario.lab.directory / f"pushed-{host.role}.jsonl"
    command = python("tests.lab.pushing", "serve", "--port", port, "--records", records, *words)
    where.start(command, name="pushing", env=scenario.environment).wait_for(r"^ready")
    return records


def run_client(scenario: Scenario, role: str, *words: object, count: int = 1) -> None:
    """Run clients of that role towards online, together, to their end."""
    command = python("tests.lab.pushing", role, scenario.lab.online.v4, PORT, *words)
    running = [
        scenario.lab.client.start(command, name="client", env=scenario.environment)
        for _ in range(count)
    ]
    for program in running:
        assert program.wait(60) == 0, program.output()


def read(path: Path) -> Records:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("mode", EACH_MODE)
def test_upload_that_online_answers_early(scenario: Scenario, mode: str) -> None:
    """Online answers after 33 KB of a megabyte, the target when it has all of it."""
    serve(scenario, scenario.lab.online, "--answer-after", 33_000)
    records = serve(scenario, scenario.lab.target, "--answer-after", 1_000_000)
    with scenario.replay(mode) as replay:
        run_client(scenario, "upload", "--bytes", 1_000_000, "--every-ms", 2, count=5)
        assert wait_until(lambda: len(read(records)) == 5, 20), read(records)
    assert [record["bytes"] for record in read(records)] == [1_000_000] * 5
    assert replay.report["sessions"]["outcomes"]["replayed"] == 5, replay.output
    assert replay.exit_code == 0, replay.output


@pytest.mark.parametrize("mode", EACH_MODE)
def test_target_pushes_less_than_online(scenario: Scenario, mode: str) -> None:
    """Each line of online's is acknowledged; the target sends half of them."""
    serve(scenario, scenario.lab.online, "--lines", 60, "--every-ms", 5)
    records = serve(scenario, scenario.lab.target, "--lines", 30, "--every-ms", 5)
    with scenario.replay(mode) as replay:
        run_client(scenario, "react", "--lines", 60, "--pings", 3, "--every-ms", 50)
        assert wait_until(lambda: bool(read(records)), 20), replay.output
    assert [record["words"] for record in read(records)] == [{"ack": 60, "ping": 3}]
    assert replay.exit_code == 0, replay.output
    assert replay.report["turns"]["waits_expired"] >= 1
    assert replay.report["latency"]["lag"]["max_ms"] < 10_000


@pytest.mark.parametrize("mode", EACH_MODE)
def test_target_pushes_at_other_times(scenario: Scenario, mode: str) -> None:
    """All lines at once, where online sends them one by one: what reacts to them is not late."""
    serve(scenario, scenario.lab.online, "--lines", 100, "--every-ms", 4)
    records = serve(scenario, scenario.lab.target, "--lines", 100, "--every-ms", 0)
    with scenario.replay(mode) as replay:
        run_client(scenario, "react", "--lines", 100)
        assert wait_until(lambda: bool(read(records)), 20), replay.output
    assert [record["words"] for record in read(records)] == [{"ack": 100}]
    assert replay.exit_code == 0, replay.output


@pytest.mark.parametrize("mode", EACH_MODE)
def test_server_that_always_ends_with_a_reset(scenario: Scenario, mode: str) -> None:
    """It has read everything, and the client's end of the stream: no loss, told as what it is."""
    for host in (scenario.lab.online, scenario.lab.target):
        serve(scenario, host, "--lines", 3, "--every-ms", 1, "--end", "reset")
    with scenario.replay(mode) as replay:
        words = (scenario.lab.online.v4, PORT, "--lines", 3, "--every-ms", 80)
        command = python("tests.lab.pushing", "react", *words)
        for _ in range(10):  # the reset ends the client's last read with an error
            scenario.lab.client.start(command, name="client", env=scenario.environment).wait(20)
        records = scenario.lab.directory / "pushed-target.jsonl"
        assert wait_until(lambda: len(read(records)) == 10, 20)
    outcomes = replay.report["sessions"]["outcomes"]
    assert outcomes["reset_at_end"] + outcomes["replayed"] == 10, replay.output
    assert outcomes["reset_at_end"] > 0, outcomes
    assert replay.exit_code == 0, replay.output


@pytest.mark.parametrize("mode", MODES)
def test_target_that_takes_all_and_says_nothing_is_no_success(
    scenario: Scenario, mode: str
) -> None:
    serve(scenario, scenario.lab.online, "--lines", 1)
    records = serve(scenario, scenario.lab.target)
    with scenario.replay(mode) as replay:
        run_client(scenario, "react", "--lines", 1, "--pings", 1)
        assert wait_until(lambda: bool(read(records)), 20), replay.output
    assert replay.report["sessions"]["outcomes"]["unanswered"] == 1, replay.output
    assert replay.exit_code == 1
    assert "answered nothing" in replay.output
