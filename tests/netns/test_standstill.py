"""Either end is stopped for longer than silence may last: nothing is lost, nobody is given up.

SIGSTOP is what a paused host looks like to its processes.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.lab.scenario import Replay, Scenario
from tests.netns.test_workers import TWO, workers_of

pytestmark = pytest.mark.netns
STOP_S = 12
GIVEN_UP = "nothing was heard of it for too long"


def stop_for(seconds: float, *pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def check(scenario: Scenario, replay: Replay, streams: int) -> None:
    result = scenario.compare()
    assert result.clean and result.exact == streams, f"{result}\n{replay.output}"
    report = replay.report
    assert replay.exit_code == 0, replay.output
    assert report["violations"] == []
    sessions = report["sessions"]
    assert sessions["captured"] == sessions["replayed"] == streams, sessions


def test_both_ends_stand_still(scenario: Scenario) -> None:
    """A host that paused, with both programs on it: the relay's connections are as good as before.

    With them, as before the standstill: sessions in the middle, and new ones meanwhile.
    """
    scenario.servers()
    with scenario.replay("classic") as replay:
        load = scenario.start_load("--connections 40 --requests 60 --think-ms 200-400")
        time.sleep(2)
        stop_for(STOP_S, replay.tcpcopy.pid, replay.intercepts[0].pid)
        scenario.load("--connections 100 --concurrency 20 --seed 5")
        scenario.finish_load(load)
        scenario.wait_for_target(140, 40)
    (relay,) = replay.report["relay"]["intercepts"]
    assert (relay["connects"], relay["reconnects"], relay["lost"]) == (2, 0, 0), relay
    for output in (replay.output, replay.intercepts[0].output()):
        assert GIVEN_UP not in output, output
        assert "this process stood still for 1" in output, output
    check(scenario, replay, 140)


@pytest.mark.acceptance
@pytest.mark.parametrize("who", ["tcpcopy", "intercept"])
@pytest.mark.parametrize("mode", ["native", "classic relay", "tunnel", "socket", "workers"])
def test_one_end_stands_still(scenario: Scenario, mode: str, who: str) -> None:
    """Under load. The other end may give it up meanwhile: what that loses is made up for."""
    if mode == "socket" and who == "intercept":
        pytest.skip("there is none in socket mode")
    scenario.servers()
    name = {"tunnel": "tunnel", "socket": "socket"}.get(mode, "classic")
    words: tuple[object, ...] = {"classic relay": ("--relay", "classic"), "workers": TWO}.get(
        mode, ()
    )
    streams = 60 + 2000
    # Room for what comes in the meantime, acknowledgements included.
    with scenario.replay(name, "-B", 128, *words) as replay:
        load = scenario.start_load("--connections 60 --requests 60 --think-ms 200-400")
        more = scenario.start_load(
            "--connections 2000 --rate 150 --requests 3 --seed 7 --source 10.66.1.2"
        )
        time.sleep(2)
        if who == "intercept":
            stop_for(STOP_S, replay.intercepts[0].pid)
        else:
            stop_for(STOP_S, *(workers_of(replay) if mode == "workers" else [replay.tcpcopy.pid]))
        scenario.finish_load(load, 120)
        scenario.finish_load(more, 120)
        arrived = scenario.wait_for_target(streams, 90)
    sessions = replay.report["sessions"]
    print(f"{mode}, {who} stopped for {STOP_S} s: {sessions['replayed']} of {streams} replayed,")
    print(f"relay {replay.report['relay']}, answers {replay.report['answers']['received']}")
    if who == "tcpcopy":
        assert GIVEN_UP not in replay.output, replay.output
    assert arrived, replay.output
    check(scenario, replay, streams)


@pytest.mark.acceptance
@pytest.mark.parametrize("mode", ["socket", "classic"])
def test_a_longer_standstill_than_the_time_outs(scenario: Scenario, mode: str) -> None:
    """-t 10 and -k 10, stopped for 20 s: what waits in rings and sockets is read first."""
    scenario.servers()
    with scenario.replay(mode, "-t", 10, "-k", 10) as replay:
        load = scenario.start_load("--connections 100 --requests 100 --think-ms 200-400")
        time.sleep(2)
        stop_for(20, replay.tcpcopy.pid)
        scenario.finish_load(load, 120)
        scenario.wait_for_target(100, 60)
    print(f"{mode}: outcomes {replay.report['sessions']['outcomes']}")
    check(scenario, replay, 100)
