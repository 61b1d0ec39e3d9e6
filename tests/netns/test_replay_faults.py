"""Replay when something is wrong: the network, the target, intercept. Exact, or a true outcome."""

from __future__ import annotations

import time

import pytest

from tests.lab.scenario import ALL_MODES, Scenario
from tests.netns.test_replay import check

pytestmark = pytest.mark.netns
LOAD = "--connections 100 --requests 5 --request-bytes 50-3000 --answer-bytes 100-8000"


# The network between tcpcopy and the target, classic mode.


@pytest.mark.parametrize("percent", [2, 5])
def test_loss(scenario: Scenario, percent: int) -> None:
    """Packets lost in both directions: every stream exact all the same."""
    scenario.servers()
    with scenario.replay("classic") as replay:
        scenario.lab.lose(percent, percent)
        scenario.load(LOAD)
        scenario.load("--connections 300 --concurrency 50 --seed 7")
        scenario.wait_for_target(400, 60)
    check(scenario, replay, 400)
    assert replay.report["packets"]["retransmitted"] > 0


def test_loss_of_uploads(scenario: Scenario) -> None:
    """1 MB uploads through 5 % loss of single packets, out and back."""
    scenario.servers()
    scenario.bad_link("--lose 5")
    with scenario.replay("classic") as replay:
        scenario.load("--connections 4 --request-bytes 1000000", timeout=60)
        scenario.wait_for_target(4, 90)
    check(scenario, replay, 4)


def test_doubled_and_disordered(scenario: Scenario) -> None:
    """Packets that come twice and in another order."""
    scenario.servers()
    scenario.bad_link("--duplicate 10 --reorder 10")
    with scenario.replay("classic") as replay:
        scenario.load(LOAD, timeout=60)
        scenario.wait_for_target(100, 60)
    check(scenario, replay, 100)


# Identity, classic mode.


def test_colliding_ports(scenario: Scenario) -> None:
    """200 clients with the same ports squeezed into one address of -c."""
    scenario.servers()
    with scenario.replay("classic", mapped="198.51.100.7/32") as replay:
        scenario.load(
            "--connections 400 --requests 3 --source 10.66.1.1-10.66.1.200"
            " --source-ports 20000-20001 --think-ms 1-20"
        )
        scenario.wait_for_target(400, 30)
    assert {s.peer[0].removeprefix("::ffff:") for s in scenario.target[0].stop()} == {
        "198.51.100.7"
    }
    check(scenario, replay, 400)


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("end", ["rst", "server"])
def test_port_used_again_at_once(scenario: Scenario, mode: str, end: str) -> None:
    """A client that uses its port again while the replay of the old connection still runs."""
    scenario.servers(target=("--delay-ms 30",))
    with scenario.replay(mode) as replay:
        scenario.load(
            "--connections 400 --concurrency 4 --requests 2 --source-ports 30000-30003",
            f"--end {end} --tolerate",  # now and then the client's kernel still holds a port
        )
        scenario.wait_for_target(timeout=30)
    opened = scenario.online[0].count()
    assert opened >= 190
    check(scenario, replay, opened)


@pytest.mark.parametrize("mode", ALL_MODES)
def test_copies(scenario: Scenario, mode: str) -> None:
    """-n 3: three times the sessions, none lost."""
    scenario.servers()
    with scenario.replay(mode, "-n", 3) as replay:
        scenario.load("--connections 200 --requests 3 --concurrency 40")
        scenario.wait_for_target(600, 40)
    check(scenario, replay, 200, copies=3)


@pytest.mark.parametrize("mode", ALL_MODES)
def test_percentage(scenario: Scenario, mode: str) -> None:
    """-r 30: about 30 % of the sessions, the others counted as left out."""
    scenario.servers()
    with scenario.replay(mode, "-r", 30) as replay:
        scenario.load("--connections 1000 --concurrency 50")
        time.sleep(1)
    outcomes = replay.report["sessions"]["outcomes"]
    assert 230 <= outcomes["replayed"] <= 370
    assert outcomes["replayed"] + outcomes["skipped_sampling"] == 1000
    assert len(scenario.target[0].stop()) == outcomes["replayed"]
    assert replay.exit_code == 0


# Targets that misbehave.


@pytest.mark.parametrize("mode", ALL_MODES)
def test_target_refuses_then_comes_up(scenario: Scenario, mode: str) -> None:
    """A target that is down at first: refused, and said so; sessions after that are exact."""
    scenario.serve(scenario.lab.online)
    with scenario.replay(mode, "--retry", 0) as replay:
        scenario.load("--connections 10")
        time.sleep(0.5)
        first = len(scenario.online[0].snapshot())
        scenario.serve(scenario.lab.target)
        scenario.load("--connections 20 --seed 5")
        scenario.wait_for_target(20)
    outcomes = replay.report["sessions"]["outcomes"]
    assert first == 10
    assert outcomes["refused"] == 10, outcomes
    assert outcomes["replayed"] == 20, outcomes
    assert replay.exit_code == 1
    assert "refused by the target" in replay.output


@pytest.mark.parametrize("mode", ALL_MODES)
def test_target_restarted(scenario: Scenario, mode: str) -> None:
    """The target's server dies in the middle: each session has one true outcome, new ones go."""
    _, target = scenario.servers()
    with scenario.replay(mode, "--retry", 0) as replay:
        load = scenario.start_load("--connections 20 --requests 30 --think-ms 20-60")
        time.sleep(0.7)
        target.program.kill()
        scenario.finish_load(load)
        scenario.serve(scenario.lab.target)
        scenario.load("--connections 20 --seed 4")
        scenario.wait_for_target(20)
    outcomes = replay.report["sessions"]["outcomes"]
    assert outcomes["replayed"] == 20, outcomes
    assert outcomes["reset"] + outcomes["closed_early"] + outcomes["refused"] == 20, outcomes


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize(
    ("misbehaviour", "expected"),
    [("--reset-after 2", {"reset"}), ("--close-early 150", {"closed_early", "reset"})],
)
def test_target_ends_connections(
    scenario: Scenario, mode: str, misbehaviour: str, expected: set[str]
) -> None:
    """A target that resets, or closes before all was sent: the outcome says so."""
    scenario.servers(target=(misbehaviour,))
    with scenario.replay(mode, "--retry", 0) as replay:
        scenario.load("--connections 10 --requests 6 --think-ms 5-10")
        time.sleep(0.5)
    outcomes = replay.report["sessions"]["outcomes"]
    assert sum(outcomes[name] for name in expected) == 10, outcomes
    assert replay.exit_code == 1


@pytest.mark.parametrize("mode", ALL_MODES)
def test_target_never_answers(scenario: Scenario, mode: str) -> None:
    """-t bounds the wait; the outcome is a time-out."""
    scenario.servers(target=("--never-answer",))
    with scenario.replay(mode, "-t", 2) as replay:
        scenario.load("--connections 10 --requests 3")
        time.sleep(3)
    assert replay.report["sessions"]["outcomes"]["answer_timeout"] == 10, replay.output


# Intercept, classic mode.


def test_intercept_restarted(scenario: Scenario) -> None:
    """An intercept that dies and comes back: sessions go on, new ones work within a second."""
    scenario.servers()
    with scenario.replay("classic") as replay:
        load = scenario.start_load("--connections 20 --requests 40 --think-ms 20-60")
        time.sleep(0.7)
        replay.intercepts[0].kill()
        time.sleep(1.5)
        replay.intercepts.append(scenario.start_intercept())
        came_back = time.monotonic()
        time.sleep(1.0)
        scenario.load("--connections 30 --seed 3")
        assert scenario.wait_for_target(30, 2), time.monotonic() - came_back
        scenario.finish_load(load)
        scenario.wait_for_target(50, 30)
    check(scenario, replay, 50)


def test_two_intercepts(scenario: Scenario) -> None:
    """Several intercepts for one tcpcopy: each is told of every session."""
    scenario.servers()
    lab = scenario.lab
    lab.classic(None)
    scenario.start_intercept()
    scenario.start_intercept("-p", 36525)
    replay = scenario.start_tcpcopy(
        "-x", f"8080-{lab.target.v4}:8080", "-s", f"{lab.assistant.v4},{lab.assistant.v4}:36525"
    )
    scenario.load("--connections 50 --requests 4")
    scenario.wait_for_target(50)
    replay.stop()
    check(scenario, replay, 50)
    peers = {intercept["peer"] for intercept in replay.report["relay"]["intercepts"]}
    assert peers == {f"{lab.assistant.v4}:36524", f"{lab.assistant.v4}:36525"}


@pytest.mark.parametrize("c_end", ["tcpcopy", "intercept"])
def test_with_a_c_program_on_the_other_end(
    scenario: Scenario, c_programs: object, c_end: str
) -> None:
    """Our intercept serves the C tcpcopy, our tcpcopy uses the C intercept."""
    scenario.servers()
    with scenario.replay(
        "classic", c_tcpcopy=c_end == "tcpcopy", c_intercept=c_end == "intercept"
    ) as replay:
        scenario.load("--connections 40 --requests 10 --think-ms 1-5")
        scenario.wait_for_target(40)
    result = scenario.compare()
    assert result.exact == 40 and result.clean, f"{result}\n{replay.output}"
