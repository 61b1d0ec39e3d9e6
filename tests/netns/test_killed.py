"""tcpcopy killed with sessions open at the target: what the next start says, and what it resets."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcpcopy.demo.processes import Program
from tests.lab.scenario import LOCAL_PORT, PORT, Replay, Scenario, wait_until
from tests.netns.test_replay import check
from tests.netns.test_workers import workers_of

pytestmark = pytest.mark.netns
SESSIONS = 300
MAPPED = "10.254.7.0/24"
KEEPING = ("--tun-clients", "keep", "--tun-allow", f"10.66.0.3:{PORT}")


def open_at_target(scenario: Scenario) -> int:
    """Connections that the target's kernel has with clients, in whatever state but TIME-WAIT."""
    host = scenario.lab.online if scenario.one_host else scenario.lab.target
    port = LOCAL_PORT if scenario.one_host else PORT
    lines = host.run("ss", "-Htan", "sport", "=", f":{port}").splitlines()
    return sum(line.split()[0] not in ("LISTEN", "TIME-WAIT") for line in lines)


def hold(scenario: Scenario, *arguments: object, sessions: int = SESSIONS, to: str = "") -> Program:
    """Clients that have been served and keep their connections open."""
    words = f"--connections {sessions} --concurrency {sessions} --requests 1 --end hold"
    clients = scenario.start_load(words, *arguments, to=to)
    clients.wait_for("holding", 30)
    assert wait_until(lambda: open_at_target(scenario) == sessions, 20), open_at_target(scenario)
    return clients


def kill(replay: Replay) -> None:
    replay.tcpcopy.send_signal(signal.SIGKILL)
    replay.tcpcopy.wait(10)


def start_again(scenario: Scenario, replay: Replay, *more: object) -> Replay:
    """The same command line."""
    words = replay.tcpcopy.argv
    again = scenario.start_tcpcopy(*words[words.index("--json") + 2 :], *more)
    again.intercepts = replay.intercepts
    return again


@contextmanager
def killed(
    scenario: Scenario, mode: str, *arguments: object, sessions: int = SESSIONS, **options: object
) -> Iterator[Replay]:
    """A replay that was killed with sessions open at the target; its clients have gone."""
    to = str(options.pop("to", ""))
    with scenario.replay(mode, *arguments, **options) as replay:  # type: ignore[arg-type]
        clients = hold(
            scenario, "--source 10.66.1.1-10.66.1.20" if not to else "", sessions=sessions, to=to
        )
        kill(replay)
        clients.stop(signal.SIGTERM)
        assert open_at_target(scenario) == sessions
        yield replay


def left_in(scenario: Scenario) -> list[str]:
    """Files of runs."""
    return os.listdir(scenario.lab.directory / "run")


def check_all_reset(scenario: Scenario, again: Replay, sessions: int = SESSIONS) -> None:
    assert wait_until(lambda: not open_at_target(scenario), 20), open_at_target(scenario)
    assert wait_until(lambda: "left open by a kill" in again.output, 10), again.output
    assert re.search(
        r"WARNING runs: the last run \(process \d+, begun .*\) ended without a summary; "
        rf"{sessions} sessions were left open at the target: resetting",
        again.output,
    )
    again.stop()
    left = again.report["leftovers"]
    assert (left["found"], left["reset"]) == (sessions, sessions), left
    assert again.report["previous_run"]["process"] > 0
    assert not left_in(scenario)


MODES = {
    "classic": ("classic", (), {}),
    "mapped": ("classic", (), {"mapped": MAPPED}),
    "link": ("classic", ("-o", "eth0"), {"mapped": MAPPED}),
    "tunnel": ("tunnel", (), {}),
    "kept in a tunnel": ("tunnel", ("-c", "keep"), {"intercept_arguments": KEEPING}),
    "workers": ("classic", ("--workers", 2), {}),
}


@pytest.mark.parametrize("name", MODES)
def test_what_was_left_open_is_reset(scenario: Scenario, name: str) -> None:
    """The server loses every connection that nobody is behind, and no application gets a new one."""
    mode, arguments, options = MODES[name]
    scenario.servers()
    with killed(scenario, mode, *arguments, **options) as replay:  # type: ignore[arg-type]
        before = scenario.target[0].count()
        again = start_again(scenario, replay)
        check_all_reset(scenario, again)
        assert wait_until(lambda: scenario.target[0].count() == before + SESSIONS, 5)
