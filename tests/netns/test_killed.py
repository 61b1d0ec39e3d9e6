"""tcpcopy killed with sessions open at the target: what the next start says, and what it resets."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from tcpcopy.demo.processes import Program
from tests.lab.scenario import LOCAL_PORT, PORT, Replay, Scenario, wait_until
from tests.netns.test_replay import check
from tests.netns.test_workers import workers_of

pytestmark = pytest.mark.netns
SESSIONS = 300
MAPPED = "10.254.7.0/24"


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
    scenario: Scenario, mode: str, *arguments: object, sessions: int = SESSIONS, **options: Any
) -> Iterator[Replay]:
    """A replay that was killed with sessions open at the target; its clients have gone."""
    to = str(options.pop("to", ""))
    # The probe at the start would be killed, too, with a half-open connection of its own.
    with scenario.replay(mode, "--no-check", *arguments, **options) as replay:
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
    told = re.compile(r"sessions? left open by a kill: ([\d,]+) reset")  # a line for each worker

    def reset() -> int:
        return sum(int(count.replace(",", "")) for count in told.findall(again.output))

    assert wait_until(lambda: reset() == sessions, 10), again.output
    assert re.search(
        r"WARNING runs: the last run \(process \d+, begun .*\) ended without a summary; "
        rf"{sessions:,} sessions were left open at the target: resetting",
        again.output,
    )
    again.stop()
    left = again.report["leftovers"]
    assert (left["found"], left["reset"]) == (sessions, sessions), left
    assert again.report["previous_run"]["process"] > 0
    assert not left_in(scenario)


def full(*values: object, id: str) -> ParameterSet:
    """A case that only `make acceptance` runs: another runs the same code each time."""
    return pytest.param(*values, id=id, marks=pytest.mark.acceptance)


KEEPING = ("--tun-clients", "keep", "--tun-allow", f"10.66.0.3:{PORT}")
MODES = [
    pytest.param("classic", ("--workers", 2), {"mapped": MAPPED}, id="workers"),
    pytest.param("tunnel", (), {}, id="tunnel"),
    full("classic", (), {}, id="classic"),
    full("classic", (), {"mapped": MAPPED}, id="mapped"),
    full("classic", ("-o", "eth0"), {"mapped": MAPPED}, id="link"),
    full("tunnel", ("-c", "keep"), {"intercept_arguments": KEEPING}, id="kept in a tunnel"),
]
V6 = [
    pytest.param("classic", {"mapped": "fd66:7::/64"}, id="mapped"),
    full("classic", {}, id="classic"),
    full("tunnel", {}, id="tunnel"),
]
LOCAL = [
    pytest.param("local", ("-c", "keep"), id="keep"),
    full("local", (), id="range"),
    full("local", ("--workers", 2), id="workers"),
]


@pytest.mark.parametrize(("mode", "arguments", "options"), MODES)
def test_what_was_left_open_is_reset(
    scenario: Scenario, mode: str, arguments: tuple[object, ...], options: dict[str, Any]
) -> None:
    """The server loses the connections that nobody is behind, and no application gets a new one."""
    scenario.servers()
    with killed(scenario, mode, *arguments, **options) as replay:
        again = start_again(scenario, replay)
        check_all_reset(scenario, again)
    assert len(scenario.target[0].stop()) == SESSIONS


@pytest.mark.parametrize(("mode", "options"), V6)
def test_ipv6(scenario: Scenario, mode: str, options: dict[str, Any]) -> None:
    lab = scenario.lab
    scenario.servers()
    transfer = f"{PORT}-[{lab.target.v6}]:{PORT}"
    with killed(
        scenario, mode, to=lab.online.v6, transfer=transfer, sessions=50, **options
    ) as replay:
        again = start_again(scenario, replay)
        check_all_reset(scenario, again, 50)


@pytest.mark.parametrize(("mode", "clients"), LOCAL)
def test_local_mode(scenario: Scenario, mode: str, clients: tuple[object, ...]) -> None:
    scenario.servers()
    with killed(scenario, mode, *clients) as replay:
        again = start_again(scenario, replay)
        check_all_reset(scenario, again)


@pytest.mark.acceptance
@pytest.mark.parametrize("mode", ["classic", "tunnel"])
def test_thousands(scenario: Scenario, mode: str) -> None:
    """Five thousand idle sessions: `ss` at the target before and after, and how long it took."""
    scenario.servers()
    with killed(scenario, mode, sessions=5000) as replay:
        began = time.monotonic()
        again = start_again(scenario, replay)
        ready = time.monotonic()
        check_all_reset(scenario, again, 5000)
        print(
            f"{mode}: 5,000 sessions open at the target before, {open_at_target(scenario)} after; "
            f"ready after {ready - began:.1f} s, all reset {time.monotonic() - ready:.1f} s later"
        )


@pytest.mark.acceptance
def test_state_none(scenario: Scenario) -> None:
    """Without the file nothing is known, and nothing is reset: the sessions stay."""
    scenario.servers()
    with killed(scenario, "classic", "--state", "none", sessions=20) as replay:
        again = start_again(scenario, replay)
        time.sleep(1)
        assert open_at_target(scenario) == 20
        assert "ended without a summary" not in again.output
        again.stop()
        assert not again.report["leftovers"]["found"]
        assert not (scenario.lab.directory / "run").exists()


def test_clients_that_are_still_there(scenario: Scenario) -> None:
    """They go on at once, with the addresses and ports that they had: a new session of theirs is
    picked up in the middle and replayed, whatever becomes of the old one. None of them notices.
    """
    scenario.servers()
    with scenario.replay("classic", "--no-check") as replay:
        words = "--connections 100 --concurrency 100 --requests 60 --think-ms 50-150"
        load = scenario.start_load(words, "--source 10.66.1.1-10.66.1.20")
        assert wait_until(lambda: open_at_target(scenario) == 100, 20)
        time.sleep(0.5)
        kill(replay)
        again = start_again(scenario, replay)
        scenario.finish_load(load)  # fails when a client's connection did
        assert wait_until(lambda: not open_at_target(scenario), 20), open_at_target(scenario)
        again.stop()
    left = again.report["leftovers"]
    assert left["found"] == 100 and left["unanswered"] == left["waiting"] == 0, left
    sessions = again.report["sessions"]
    assert sessions["captured"] == sessions["replayed"] == 100, (sessions, again.output)


def test_a_worker_that_is_killed(scenario: Scenario) -> None:
    """The worker in its place resets what it left; the other's sessions are not touched."""
    scenario.servers()
    with scenario.replay("classic", "--no-check", "--workers", 2) as replay:
        clients = hold(scenario, "--source 10.66.1.1-10.66.1.20")
        victim = workers_of(replay)[0]
        os.kill(victim, signal.SIGKILL)
        clients.stop(signal.SIGTERM)
        assert wait_until(lambda: "left open by a kill" in replay.output, 20), replay.output
        assert wait_until(lambda: not open_at_target(scenario), 20), open_at_target(scenario)
        found = re.search(r"(\d+) sessions of the one before are open at the target", replay.output)
        assert found
    left = replay.report["leftovers"]
    assert left["found"] == left["reset"] == int(found[1]) > 0, left
    assert replay.report["sessions"]["outcomes"]["replayed"] == SESSIONS - left["found"]
    assert not left_in(scenario)


@pytest.mark.acceptance
def test_killed_again_while_it_resets(scenario: Scenario) -> None:
    """What the second run had not come to is reset by the third."""
    scenario.servers()
    with killed(scenario, "classic", sessions=600) as replay:
        second = start_again(scenario, replay)
        assert wait_until(lambda: open_at_target(scenario) < 580, 10)
        kill(second)
        left = open_at_target(scenario)
        assert left
        third = start_again(scenario, replay)
        assert wait_until(lambda: not open_at_target(scenario), 20), open_at_target(scenario)
        assert wait_until(lambda: "left open by a kill" in third.output, 10), third.output
        third.stop()
    counts = third.report["leftovers"]
    assert counts["found"] >= left and counts["found"] == counts["reset"] + counts["gone"], counts


@pytest.mark.acceptance
def test_a_target_that_does_not_answer(scenario: Scenario) -> None:
    """It is said how many may be open yet, and the run goes on."""
    scenario.servers()
    with killed(scenario, "classic", sessions=20) as replay:
        scenario.lab.target.ip("link set eth0 down")
        again = start_again(scenario, replay)
        assert wait_until(lambda: "left open by a kill" in again.output, 30), again.output
        again.stop()
    assert again.report["leftovers"]["unanswered"] == 20
    assert "20 without an answer of the target" in again.output


def test_the_report_of_a_run_that_is_killed(scenario: Scenario) -> None:
    """It is there from the start, whole at any time, no older than ten seconds, and not final."""
    scenario.servers()
    with scenario.replay("socket") as replay:
        assert wait_until(replay.report_path.exists, 5)
        assert replay.report["final"] is False
        scenario.load("--connections 20 --requests 3")
        seen = []

        def has_them() -> bool:
            seen.append(replay.report["sessions"]["captured"])  # parsed at any time
            return bool(seen[-1] == 20)

        assert wait_until(has_them, 12, 0.01)
        kill(replay)
        again = start_again(scenario, replay)
        again.tcpcopy.wait_for("ended without a summary")
        assert "left open" not in again.output  # the kernel has seen to that
        again.stop()
    assert again.report["final"] is True
    assert again.report["previous_run"]["process"] > 0
    assert not left_in(scenario)


def test_a_clean_end_leaves_nothing(scenario: Scenario) -> None:
    """No file; and a start that was refused while it runs does not touch its files."""
    scenario.servers()
    with scenario.replay("classic", "--workers", 2) as replay:
        assert len(left_in(scenario)) == 2
        scenario.load("--connections 20")
        scenario.wait_for_target(20)
        words = replay.tcpcopy.argv
        words = words[words.index("--json") + 2 :]
        notes = scenario.lab.directory / "notes"
        notes.write_text("no process id")
        refused = scenario.start_tcpcopy(*words, "-P", notes, wait=False)
        assert refused.tcpcopy.wait(20) == 2
        assert len(left_in(scenario)) == 2
    assert not left_in(scenario)
    check(scenario, replay, 20)
