"""`--workers`: several processes replay what one would, each connection exactly once."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.lab.scenario import Replay, Scenario, wait_until
from tests.netns.test_processes import Daemon
from tests.netns.test_udp import UdpServer
from tests.netns.test_udp import load as load_udp
from tests.netns.test_udp import start as start_udp

pytestmark = pytest.mark.netns
MODES = ("socket", "classic")
TWO = ("--workers", 2)


def workers_of(replay: Replay) -> list[int]:
    """Process ids of the workers: the first ones in order, then those that took their places."""
    found = re.findall(r"worker (\d+)/\d+: process (\d+)$", replay.output, re.MULTILINE)
    numbers = [number for number, _ in found]
    order = [
        (numbers[:at].count(number), number, int(pid)) for at, (number, pid) in enumerate(found)
    ]
    return [pid for _, _, pid in sorted(order)]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def check(scenario: Scenario, replay: Replay, streams: int, *, copies: int = 1) -> None:
    """Every connection at the target as often as asked for, exact, and counted as replayed."""
    result = scenario.compare(copies=copies)
    assert result.clean, f"{result}\n{replay.output}"
    assert result.exact == streams * copies, result
    assert replay.exit_code == 0, replay.output
    sessions = replay.report["sessions"]
    assert sessions["captured"] == sessions["replayed"] == streams * copies, sessions
    assert replay.report["violations"] == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("load", "streams"),
    [("--connections 50 --requests 100", 50), ("--connections 2000 --concurrency 50", 2000)],
    ids=["keep-alive", "one request each"],
)
def test_two_workers_replay_all_once(
    scenario: Scenario, mode: str, load: str, streams: int
) -> None:
    scenario.servers()
    with scenario.replay(mode, *TWO) as replay:
        first, second = workers_of(replay)
        scenario.load(load)
        scenario.wait_for_target(streams, 30)
        used = [Path(f"/proc/{pid}/stat").read_text().split()[13:15] for pid in (first, second)]
    assert all(sum(map(int, ticks)) > 0 for ticks in used), "one worker had nothing to do"
    assert not runs(first) and not runs(second)
    check(scenario, replay, streams)


def test_two_workers_capture_what_one_does(scenario: Scenario) -> None:
    """No packet is handed to both: the same connections give about as many packets."""
    counts = {}
    for workers in (1, 2):
        scenario.servers()
        with scenario.replay("socket", "--workers", workers) as replay:
            scenario.load("--connections 300 --requests 5 --concurrency 20")
            scenario.wait_for_target(300, 30)
        check(scenario, replay, 300)
        counts[workers] = replay.report["kernel"]["received"]
        scenario.online.clear()
        scenario.target.clear()
    assert counts[2] < counts[1] * 1.2, counts


@pytest.mark.parametrize("words", [(), ("-n", 2), ("-n", 2, "-f", 3)], ids=str)
def test_workers_share_a_pool(scenario: Scenario, words: tuple[object, ...]) -> None:
    """One client address for all: two sessions of different workers never collide."""
    copies = 2 if words else 1
    scenario.servers()
    with scenario.replay("classic", *TWO, *words, mapped="10.99.0.0/24") as replay:
        scenario.load("--connections 600 --concurrency 50 --requests 2")
        scenario.wait_for_target(600 * copies, 30)
    check(scenario, replay, 600, copies=copies)


@pytest.mark.parametrize("mode", MODES)
def test_copies(scenario: Scenario, mode: str) -> None:
    scenario.servers()
    with scenario.replay(mode, *TWO, "-n", 2) as replay:
        scenario.load("--connections 300 --concurrency 50 --requests 3")
        scenario.wait_for_target(600, 30)
    check(scenario, replay, 300, copies=2)


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_that_is_killed_comes_back(scenario: Scenario, mode: str) -> None:
    """Its open sessions are counted as lost, those of the other and new ones are not."""
    scenario.servers()
    with scenario.replay(mode, *TWO) as replay:
        load = scenario.start_load("--connections 40 --requests 4 --pause-after 2")
        load.wait_for("paused")
        time.sleep(1.5)  # until both have told their counts
        victim, other = workers_of(replay)
        os.kill(victim, signal.SIGKILL)
        assert wait_until(lambda: len(workers_of(replay)) == 3, 10), replay.output
        scenario.load("--connections 500 --concurrency 50 --seed 9")
        load.send_signal(signal.SIGUSR1)
        scenario.finish_load(load)
        scenario.wait_for_target(540, 5)
        assert runs(other)
    report = replay.report
    assert report["violations"] == [], report
    assert report["workers_lost"] == 1
    assert replay.exit_code == 1
    lost = report["sessions"]["outcomes"]["worker_lost"]
    assert 1 <= lost <= 39, report["sessions"]
    assert report["sessions"]["outcomes"]["internal_error"] == 0
    # Sessions of the dead worker are found in mid-stream by the next.
    assert report["sessions"]["captured"] >= 540 + lost
    assert report["sessions"]["replayed"] >= 540 - lost
    assert "died (signal SIGKILL)" in replay.output
    assert "1 worker died and was started again" in replay.output
    assert "open in a worker that died" in replay.output and "dmesg" in replay.output


def test_udp_flows_of_a_worker_that_is_killed_are_lost_with_it(scenario: Scenario) -> None:
    """Flows that were open there; the datagrams that come after go on through the next one."""
    UdpServer(scenario, scenario.lab.target)
    UdpServer(scenario, scenario.lab.online)
    replay = start_udp(scenario, "socket", *TWO)
    load_udp(scenario, "--flows 40 --datagrams 400")
    time.sleep(2.5)  # until both have told their counts
    os.kill(workers_of(replay)[0], signal.SIGKILL)
    assert wait_until(lambda: len(workers_of(replay)) == 3, 10), replay.output
    assert replay.stop() == 1
    report = replay.report
    assert report["violations"] == [] and report["workers_lost"] == 1
    flows, outcomes = report["udp"]["flows"], report["udp"]["flows"]["outcomes"]
    assert 1 <= outcomes["worker_lost"] <= 39 and outcomes["internal_error"] == 0, outcomes
    # What it had not told by then is not counted.
    assert outcomes["worker_lost"] + outcomes["replayed"] == flows["captured"] <= 40
    assert "open in a worker that died: they ended with it" in replay.output


def proportional_mib(pid: int) -> tuple[float, float]:
    """MiB resident in a process: all of it, and its part of what it shares with others."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = dict(re.findall(r"^(Rss|Pss):\s+(\d+)", text, re.M))
    return int(sizes["Rss"]) / 1024, int(sizes["Pss"]) / 1024


@pytest.mark.parametrize("mode", MODES)
def test_two_workers_hold_at_most_160_mb(scenario: Scenario, mode: str) -> None:
    """With default options, after some work; the parent and shared pages are counted, too."""
    scenario.servers()
    with scenario.replay(mode, *TWO) as replay:
        scenario.load("--connections 500 --requests 2 --concurrency 50")
        scenario.wait_for_target(500, 30)
        pids = [replay.tcpcopy.pid, *workers_of(replay)]
        sizes = [proportional_mib(pid) for pid in pids]
    print(f"{mode}: Rss {[round(rss) for rss, _ in sizes]}, Pss {[round(pss) for _, pss in sizes]}")
    assert sum(rss for rss, _ in sizes) <= 160, sizes
    check(scenario, replay, 500)


def test_a_full_ring_is_taken_over(scenario: Scenario) -> None:
    """What came while no worker ran is replayed by the next: the ring is still there."""
    scenario.servers()
    with scenario.replay("socket", *TWO) as replay:
        for pid in workers_of(replay):
            os.kill(pid, signal.SIGKILL)
        scenario.load("--connections 100 --concurrency 50")
        scenario.wait_for_target(100, 10)
    result = scenario.compare()
    assert result.clean and result.exact == 100, f"{result}\n{replay.output}"
    assert replay.report["sessions"]["replayed"] == 100
    assert replay.report["workers_lost"] == 2
    assert replay.exit_code == 1


def test_second_signal_ends_at_once(scenario: Scenario) -> None:
    """The first waits for open sessions, the second does not."""
    scenario.servers(target=("--delay-ms 60000",))
    with scenario.replay("socket", *TWO) as replay:
        load = scenario.start_load("--connections 10 --requests 4 --pause-after 2")
        load.wait_for("paused")
        started = time.monotonic()
        replay.tcpcopy.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert replay.tcpcopy.alive
        assert replay.stop(signal.SIGTERM) == 1
        assert time.monotonic() - started < 4
        load.stop(signal.SIGKILL)
    assert replay.report["violations"] == []
    assert replay.report["sessions"]["captured"] == 10


def test_no_worker_outlives_its_parent(scenario: Scenario) -> None:
    scenario.servers()
    replay = scenario.start_tcpcopy("-x", f"8080-{scenario.lab.target.v4}:8080", *TWO)
    pids = workers_of(replay)
    assert len(pids) == 2 and all(map(runs, pids))
    replay.tcpcopy.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(map(runs, pids)), 5)


def test_what_a_worker_cannot_open_is_one_line(scenario: Scenario) -> None:
    """An intercept that is not there: as without workers, exit code 2."""
    target = scenario.lab.target.v4
    words = ("-x", f"8080-{target}:8080", "-s", scenario.lab.assistant.v4, *TWO)
    replay = scenario.start_tcpcopy(*words, wait=False)
    assert replay.tcpcopy.wait(20) == 2
    lines = replay.output.splitlines()
    assert len(lines) == 1 and "intercept cannot be reached" in lines[0], replay.output


def test_named_devices(scenario: Scenario) -> None:
    """-i takes another kind of socket, which sees each packet of the device."""
    scenario.servers()
    with scenario.replay("classic", *TWO, "-i", "eth0,lo") as replay:
        scenario.load("--connections 300 --concurrency 50 --requests 3")
        scenario.wait_for_target(300, 30)
    check(scenario, replay, 300)


def test_ipv6(scenario: Scenario) -> None:
    scenario.servers()
    lab = scenario.lab
    transfer = f"8080-[{lab.target.v6}]:8080"
    with scenario.replay("socket", *TWO, transfer=transfer) as replay:
        scenario.load("--connections 200 --concurrency 50", to=lab.online.v6)
        scenario.wait_for_target(200, 30)
    check(scenario, replay, 200)


def test_daemon(scenario: Scenario, tmp_path: Path) -> None:
    """The pid file names the parent; one log for all, one summary."""
    scenario.servers()
    directory = tmp_path / "daemon"
    words = ("-x", f"8080-{scenario.lab.target.v4}:8080", *TWO)
    tcpcopy = Daemon(scenario.lab.online, "tcpcopy.cli", directory, *words)
    scenario.load("--connections 20 --requests 5")
    scenario.wait_for_target(20)
    tcpcopy.stop()
    assert not tcpcopy.pid_file.exists()
    for worker in ("worker 1/2: process ", "worker 2/2: process "):
        assert tcpcopy.log.count(worker) == 1, tcpcopy.log
    assert tcpcopy.log.count("tcpcopy: all 20 sessions replayed exactly\n") == 1


def test_a_terminals_interrupt_reaches_all_processes(scenario: Scenario) -> None:
    """Ctrl-C goes to the whole group: open sessions have their time nevertheless."""
    scenario.servers()
    with scenario.replay("socket", *TWO) as replay:
        load = scenario.start_load("--connections 10 --requests 4 --pause-after 2")
        load.wait_for("paused")
        for pid in workers_of(replay):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.3)
        load.send_signal(signal.SIGUSR1)
        scenario.finish_load(load)
        scenario.wait_for_target(10)
    check(scenario, replay, 10)
