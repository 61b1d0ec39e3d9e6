"""Packets that are left unread, or that the kernel dropped: each is in a count, and a loss.

A program that is stopped (SIGSTOP) reads nothing: what comes meanwhile stands in its rings.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.scenario import Replay, Scenario, wait_until
from tests.netns.test_udp import UdpServer
from tests.netns.test_udp import load as load_udp
from tests.netns.test_udp import start as start_udp
from tests.netns.test_workers import TWO, workers_of

pytestmark = pytest.mark.netns
STREAMS = 400
MODES = ("socket", "classic", "local")


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def hold(*pids: int) -> None:
    """Stop processes, and wait until they are."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    assert wait_until(lambda: all(map(is_stopped, pids)), 5)


def stop_at_once(replay: Replay) -> None:
    """Both signals come in the moment in which it goes on."""
    pid = replay.tcpcopy.pid
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGCONT)


def check_sums(report: dict[str, Any]) -> None:
    """What the kernel received is what was used, dropped by reason, left unread or no IP."""
    packets, udp, kernel = report["packets"], report["udp"]["packets"], report["kernel"]
    assert report["violations"] == [], report["violations"]
    assert packets["captured"] == packets["used"] + sum(packets["dropped"].values())
    assert kernel["received"] == (
        packets["captured"] + packets["unread"] + udp["captured"] + udp["unread"]
        + kernel["dropped"] + kernel["skipped"]
    )  # fmt: skip


def check_unread(replay: Replay, streams: int) -> None:
    """Every connection is a session that began, or one that was left unread; told as a loss."""
    report = replay.report
    check_sums(report)
    sessions = report["sessions"]
    assert sessions["unread"] > 0 < report["packets"]["unread"]
    assert sessions["captured"] + sessions["unread"] == streams, sessions
    assert replay.exit_code == report["exit_code"] == 1
    found = {finding["key"]: finding for finding in report["findings"]}
    assert found["packets_unread"]["level"] == "loss"
    assert found["packets_unread"]["count"] == report["packets"]["unread"]
    assert "LOSS" in replay.output and "UNREAD" in replay.output


@pytest.mark.parametrize("mode", MODES)
def test_what_was_captured_before_the_stop_is_replayed(scenario: Scenario, mode: str) -> None:
    """One signal: the rings are read to their end, and every stream is exact."""
    scenario.servers()
    with scenario.replay(mode) as replay:
        pid = replay.tcpcopy.pid
        hold(pid)
        scenario.load(f"--connections {STREAMS} --requests 2 --concurrency 50")
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        assert replay.stop(signal.SIGCONT) == 0, replay.output
    result = scenario.compare()
    assert result.clean and result.exact == STREAMS, f"{result}\n{replay.output}"
    check_sums(replay.report)
    assert replay.report["packets"]["unread"] == replay.report["sessions"]["unread"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_second_signal_leaves_packets_unread(scenario: Scenario, mode: str) -> None:
    scenario.servers()
    with scenario.replay(mode) as replay:
        hold(replay.tcpcopy.pid)
        scenario.load(f"--connections {STREAMS} --requests 2 --concurrency 50")
        stop_at_once(replay)
        replay.stop(signal.SIGCONT)
    check_unread(replay, STREAMS)


def test_copies_that_were_not_begun_count_each(scenario: Scenario) -> None:
    scenario.servers()
    with scenario.replay("socket", "-n", 3) as replay:
        hold(replay.tcpcopy.pid)
        scenario.load(f"--connections {STREAMS} --concurrency 50")
        stop_at_once(replay)
        replay.stop(signal.SIGCONT)
    check_unread(replay, 3 * STREAMS)


def test_workers_count_what_each_left_unread(scenario: Scenario) -> None:
    scenario.servers()
    with scenario.replay("socket", *TWO) as replay:
        workers = workers_of(replay)
        hold(*workers)
        scenario.load(f"--connections {2 * STREAMS} --requests 2 --concurrency 50")
        os.kill(replay.tcpcopy.pid, signal.SIGTERM)
        os.kill(replay.tcpcopy.pid, signal.SIGINT)
        time.sleep(0.5)  # until it has told them
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        replay.stop(signal.SIGCONT)
    check_unread(replay, 2 * STREAMS)
    assert replay.report["workers_lost"] == 0


def test_what_stood_in_the_rings_of_killed_workers_is_counted(scenario: Scenario) -> None:
    """They are killed while they end: nobody takes over, and the parent counts."""
    scenario.servers()
    with scenario.replay("socket", *TWO) as replay:
        hold(*workers_of(replay))
        scenario.load(f"--connections {STREAMS} --requests 2 --concurrency 50")
        os.kill(replay.tcpcopy.pid, signal.SIGTERM)
        os.kill(replay.tcpcopy.pid, signal.SIGINT)
        replay.stop(signal.SIGCONT)
    report = replay.report
    assert report["violations"] == [] and report["workers_lost"] == 2
    assert report["sessions"]["unread"] == STREAMS, report["sessions"]
    assert report["packets"]["unread"] > 3 * STREAMS
    assert replay.exit_code == 1


def test_udp_that_is_left_unread(scenario: Scenario) -> None:
    UdpServer(scenario, scenario.lab.target)
    UdpServer(scenario, scenario.lab.online)
    replay = start_udp(scenario, "socket")
    hold(replay.tcpcopy.pid)
    load_udp(scenario, "--flows 20 --datagrams 2000 --sizes 20 --rate 20000")
    stop_at_once(replay)
    assert replay.stop(signal.SIGCONT) == 1
    report = replay.report
    check_sums(report)
    udp = report["udp"]["packets"]
    assert udp["unread"] > 0 == report["packets"]["unread"]
    assert udp["captured"] + udp["unread"] == 2000, udp
    assert "UNREAD" in replay.output


@pytest.mark.parametrize("words", [(), TWO], ids=["one", "two workers"])
def test_more_dropped_than_taken_adds_up(scenario: Scenario, words: tuple[object, ...]) -> None:
    """A ring of 1 MiB while nobody reads: the kernel drops, and the share is no more than all."""
    scenario.servers()
    with scenario.replay("socket", "-B", 1, *words) as replay:
        held = workers_of(replay) if words else [replay.tcpcopy.pid]
        hold(*held)
        scenario.load("--connections 1000 --requests 4 --concurrency 50")
        for pid in held:
            os.kill(pid, signal.SIGCONT)
        time.sleep(1)
        assert replay.stop() == 1
    kernel = replay.report["kernel"]
    check_sums(replay.report)
    assert 0 < kernel["received"] - kernel["dropped"] < kernel["dropped"], kernel
    assert "BUG" not in replay.output
    (found,) = [f for f in replay.report["findings"] if f["key"] == "kernel_dropped"]
    share = float(found["text"].split("(")[1].split(" %")[0])
    assert 50 <= share <= 100, found["text"]


@pytest.mark.acceptance
@pytest.mark.parametrize("words", [(), TWO], ids=["one", "two workers"])
def test_twenty_two_thousand_sessions_and_a_signal(
    scenario: Scenario, words: tuple[object, ...]
) -> None:
    """As it was seen: none of 22,000 sessions vanishes when a signal comes in the backlog."""
    scenario.servers()
    streams = 22_000
    with scenario.replay("classic", "-B", 300, "-m", 4096, *words) as replay:
        held = workers_of(replay) if words else [replay.tcpcopy.pid]
        hold(*held)
        load = f"--connections {streams} --concurrency 200 --source 10.66.1.1-10.66.1.9"
        scenario.load(load, timeout=300)
        os.kill(replay.tcpcopy.pid, signal.SIGTERM)
        for pid in held:
            os.kill(pid, signal.SIGCONT)
        began = time.monotonic()
        replay.stop(signal.SIGCONT, 60)
        took = time.monotonic() - began
    report = replay.report
    check_sums(report)
    sessions, kernel = report["sessions"], report["kernel"]
    print(f"captured {sessions['captured']}, unread {sessions['unread']} in {took:.1f} s")
    print(f"replayed {sessions['replayed']}, exit code {replay.exit_code}, kernel {kernel}")
    assert kernel["dropped"] == 0
    assert sessions["captured"] + sessions["unread"] == streams
    assert replay.exit_code == (0 if sessions["replayed"] == streams else 1)
