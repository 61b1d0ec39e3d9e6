"""The options that change what is replayed, where to, and as whom; on whole hosts."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.lab.scenario import PORT, Scenario, wait_until
from tests.netns.test_replay import MODES, check

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("mode", MODES)
def test_one_source_to_two_targets(scenario: Scenario, mode: str) -> None:
    """-x with two transfers of the same source: each target gets every session."""
    lab = scenario.lab
    scenario.serve(lab.online)
    first = scenario.serve(lab.target)
    second = scenario.serve(lab.target, port=8081)
    transfer = f"{PORT}-{lab.target.v4}:{PORT},{PORT}-{lab.target.v4}:8081"
    with scenario.replay(
        mode, transfer=transfer, intercept_arguments=("-F", "tcp and src portrange 8080-8081")
    ) as replay:
        scenario.load("--connections 30 --requests 5")
        scenario.wait_for_target(60)
    assert len(first.stop()) == len(second.stop()) == 30
    check(scenario, replay, 30, copies=2)


def test_ipv6_in_socket_mode(scenario: Scenario) -> None:
    """IPv6 clients of an IPv6 server, replayed to an IPv6 target."""
    scenario.servers()
    lab = scenario.lab
    with scenario.replay("socket", transfer=f"{PORT}-[{lab.target.v6}]:{PORT}") as replay:
        scenario.load("--connections 30 --requests 5 --request-bytes 10-20000", to=lab.online.v6)
        scenario.wait_for_target(30)
    check(scenario, replay, 30)


def test_ipv4_clients_to_an_ipv6_target(scenario: Scenario) -> None:
    """In socket mode the families need not agree."""
    scenario.servers()
    lab = scenario.lab
    with scenario.replay("socket", transfer=f"{PORT}-[{lab.target.v6}]:{PORT}") as replay:
        scenario.load("--connections 10 --requests 5")
        scenario.wait_for_target(10)
    check(scenario, replay, 10)


def test_local_addresses_in_socket_mode(scenario: Scenario) -> None:
    """-c without -s names own addresses to connect from; they are used in turn."""
    scenario.servers()
    lab = scenario.lab
    for last in (21, 22):
        lab.online.ip(f"address add 10.66.0.{last}/24 dev eth0")
    with scenario.replay("socket", "-c", "10.66.0.21,10.66.0.22") as replay:
        scenario.load("--connections 20")
        scenario.wait_for_target(20)
    peers = [s.peer[0].removeprefix("::ffff:") for s in scenario.target[0].stop()]
    assert peers.count("10.66.0.21") == peers.count("10.66.0.22") == 10
    check(scenario, replay, 20)


def test_clients_keep_their_addresses(scenario: Scenario) -> None:
    """Classic mode without -c: the target sees the clients' own addresses and ports."""
    online, target = scenario.servers()
    with scenario.replay("classic") as replay:
        scenario.load("--connections 20 --source 10.66.1.1-10.66.1.5")
        scenario.wait_for_target(20)
    assert {s.peer for s in online.stop()} == {s.peer for s in target.stop()}
    check(scenario, replay, 20)


@pytest.mark.parametrize("mode", MODES)
def test_no_waiting(scenario: Scenario, mode: str) -> None:
    """-W: requests go when they are captured, whether the target has answered or not."""
    scenario.servers(target=("--delay-ms 300",))
    with scenario.replay(mode, "-W") as replay:
        scenario.load("--connections 5 --requests 6 --think-ms 5-10")
        scenario.wait_for_target(5)
    gaps = [gap for s in scenario.target[0].stop() for gap in s.gaps_ns]
    assert max(gaps) < 250_000_000
    check(scenario, replay, 5)


def test_round_trip_time_is_put_back(scenario: Scenario) -> None:
    """-R 40: at least 40 ms between an answer of the target and the next request."""
    scenario.servers(target=("--delay-ms 20",))
    with scenario.replay("classic", "-R", 40) as replay:
        scenario.load("--connections 5 --requests 5")
        scenario.wait_for_target(5)
    gaps = [gap for s in scenario.target[0].stop() for gap in s.gaps_ns]
    assert min(gaps) >= 59_000_000, gaps
    check(scenario, replay, 5)


@pytest.mark.parametrize("mode", MODES)
def test_gradually(scenario: Scenario, mode: str) -> None:
    """-g: 1 % more each second, so that almost nothing is replayed in the first seconds."""
    scenario.servers()
    with scenario.replay(mode, "-g") as replay:
        scenario.load("--connections 1000 --rate 400", timeout=30)
        time.sleep(0.5)
    outcomes = replay.report["sessions"]["outcomes"]
    assert outcomes["replayed"] + outcomes["skipped_sampling"] == 1000
    assert 1 <= outcomes["replayed"] <= 80, outcomes


def largest_resident(pid: int) -> int:
    """Bytes resident at the largest. Source: proc(5), VmHWM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


@pytest.mark.parametrize("mode", MODES)
def test_memory_limit_sheds(scenario: Scenario, mode: str) -> None:
    """-m: what the target does not take piles up only so far; sessions are shed, and counted."""
    scenario.servers(target=("--never-answer",))
    with scenario.replay(mode, "-m", 90, "-B", 8) as replay:
        scenario.load("--connections 40 --requests 12 --request-bytes 500000", timeout=60)
        scenario.load("--connections 20 --seed 3")
        time.sleep(1)
        largest = largest_resident(replay.tcpcopy.pid)
    assert largest <= 90 << 20, largest
    assert replay.report["memory_bytes"] <= largest + (1 << 20)  # the end needs a little more
    outcomes = replay.report["sessions"]["outcomes"]
    assert outcomes["shed_memory"] > 0, outcomes
    assert replay.exit_code == 1


@pytest.mark.parametrize("size", [500_000, 300])
def test_sessions_after_a_burst_are_taken_on(scenario: Scenario, size: int) -> None:
    """What a burst leaves behind free in the process is no reason to shed: the next ones go on."""
    _, target = scenario.servers()
    with scenario.replay("classic", "-m", 120, "-B", 8) as replay:
        os.kill(target.program.pid, signal.SIGSTOP)
        connections, requests = (40, 12) if size > 1000 else (500, 500)
        scenario.load(f"--connections {connections} --requests {requests} --request-bytes {size}")
        time.sleep(1)
        os.kill(target.program.pid, signal.SIGCONT)
        time.sleep(3)
        scenario.load("--connections 200 --seed 3")
        time.sleep(1)
        largest = largest_resident(replay.tcpcopy.pid)
    assert largest <= 120 << 20, largest
    outcomes = replay.report["sessions"]["outcomes"]
    assert 0 < outcomes["shed_memory"] <= connections, outcomes
    assert outcomes["replayed"] >= 200, outcomes
    ends = [s for s in scenario.target[0].stop() if s.requests == 1]
    assert len(ends) >= 200


def test_small_mtu_and_mss(scenario: Scenario) -> None:
    """-M 600 -D 500: no packet to the target is longer, and the target is told of the MSS."""
    scenario.servers()
    dump = scenario.lab.target.start(
        ["tcpdump", "--immediate-mode", "-l", "-i", "any", "-nn", f"tcp port {PORT}"],
        name="tcpdump",
    )
    dump.wait_for("listening", 10)
    with scenario.replay("classic", "-M", 600, "-D", 500) as replay:
        scenario.load("--connections 5 --requests 3 --request-bytes 5000 --answer-bytes 5000")
        scenario.wait_for_target(5)
    wait_until(lambda: "Flags [S]" in dump.output(), 5)
    dump.stop()
    lines = dump.output().splitlines()
    sent = [line for line in lines if f"> {scenario.lab.target.v4}.{PORT}" in line]
    assert sent
    lengths = [int(line.rsplit("length ", 1)[1].split(":")[0]) for line in sent if "length" in line]
    assert max(lengths) <= 560
    assert all("mss 500" in line for line in sent if "[S]" in line)
    check(scenario, replay, 5)


@pytest.mark.parametrize("mode", MODES)
def test_filter_narrows(scenario: Scenario, mode: str) -> None:
    """-F: only what the filter lets through is replayed."""
    scenario.servers()
    with scenario.replay(mode, "-F", f"tcp dst port {PORT} and src host 10.66.1.2") as replay:
        scenario.load("--connections 30 --source 10.66.1.1-10.66.1.3")
        scenario.wait_for_target(10)
        time.sleep(0.3)
    assert len(scenario.target[0].stop()) == 10
    assert replay.report["sessions"]["captured"] == 10
