"""A target whose server ends and comes back during a run: what was asked arrives all the same."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tcpcopy.demo.netns import Host
from tcpcopy.demo.processes import Program
from tests.lab.scenario import LOCAL_PORT, MODES, PORT, Scenario, python, wait_until

pytestmark = pytest.mark.netns
ALL = pytest.mark.acceptance


def serve(scenario: Scenario, host: Host) -> tuple[Program, Path]:
    """Start the server of a host, and where it writes down what it was asked."""
    where, port = host, PORT
    if scenario.one_host and host is scenario.lab.target:
        where, port = scenario.lab.online, LOCAL_PORT
    records = scenario.lab.directory / f"lines-{host.role}"
    command = python("tests.lab.lines", "serve", port, records)
    program = where.start(command, name="lines", env=scenario.environment)
    program.wait_for(r"^ready")
    return program, records


def asked(records: Path) -> list[str]:
    return records.read_text().split() if records.exists() else []


@pytest.mark.parametrize(
    "mode, rate, seconds, away",
    [
        *(pytest.param(mode, 40, 1.2, 0.5, id=mode) for mode in MODES),
        *(
            pytest.param(mode, 100, 10, 2, id=f"{mode}, full size", marks=ALL)
            for mode in (*MODES, "local", "tunnel")
        ),
    ],
)
def test_server_ends_and_comes_back(
    scenario: Scenario, mode: str, rate: int, seconds: float, away: float
) -> None:
    """At least 95 % of the requests arrive, none twice, and each session has a true outcome."""
    _, online = serve(scenario, scenario.lab.online)
    server, target = serve(scenario, scenario.lab.target)
    words = ("--rate", rate, "--seconds", seconds, "--think-ms", 20 if seconds < 5 else 50)
    command = python("tests.lab.lines", "load", scenario.lab.online.v4, PORT, *words)
    with scenario.replay(mode) as replay:
        load = scenario.lab.client.start(command, name="load", env=scenario.environment)
        load.wait_for(r"^begun")
        time.sleep(seconds / 3)
        server.kill()
        time.sleep(away)
        serve(scenario, scenario.lab.target)
        assert load.wait(60) == 0, load.output()
        wait_until(lambda: len(asked(target)) == len(asked(online)), 2)
    told, heard = asked(online), asked(target)
    report = replay.report
    outcomes = {name: n for name, n in report["sessions"]["outcomes"].items() if n}
    share = 100 * len(set(heard)) / len(told)
    print(
        f"{mode}: {len(told)} requests, {share:.1f} % arrived, {len(told) - len(set(heard))} not;"
        f" {outcomes}; {report['retry']}; {report['turns']}"
    )
    assert len(told) == len(set(told)) > 0
    assert not [line for line, count in Counter(heard).items() if count > 1]
    assert share >= 95
    missing = len(told) - len(set(heard))
    # Where the last turn was under way there was no next one to go on with.
    ended = outcomes.get("reset", 0) + outcomes.get("closed_early", 0)
    assert missing <= report["turns"]["missed"] + ended
    good = {"replayed", "reset_at_end"}
    assert not set(outcomes) - good - {"gone_on", "reset", "closed_early"}
    assert replay.exit_code == (1 if set(outcomes) - good else 0)
    assert not (missing and replay.exit_code == 0)
    assert "refuses connections: trying again for 10 s (--retry)" in replay.output
    assert "is back: " in replay.output
